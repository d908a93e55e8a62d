"""What a network predicts times where its error is counted, as soralab.experiments.sora_prediction measures it."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from matplotlib.ticker import LogLocator, NullFormatter

from soralab.figures import style
from soralab.figures.pictures import Picture, picture

PLACES = ("latents", "pixels")
NAMES = {"x": "the film x", "eps": "the noise ε", "v": "the velocity v"}


def prediction_errors(found: Mapping, alt: str | None = None) -> Picture:
    """How wrong the film is that each network believes in, against time: a row of panels for each place, a panel for
    each kind of prediction, a line for each space in which the error was counted.

    found: {"times": [...], "runs": {"latents_v_in_x": {"errors": [one a time], ...}, ...}}; runs that are not there are
    left out. Raises ValueError where there is none.
    """
    runs = {(place, kind): {space: row["errors"] for space in NAMES
                            if (row := found["runs"].get(f"{place}_{kind}_in_{space}"))}
            for place in PLACES for kind in NAMES}  # fmt: skip
    if not any(runs.values()):
        raise ValueError(f"found has the runs {sorted(found['runs'])}; it takes such as latents_v_in_x")
    return picture(_draw(found["times"], runs), alt or _said(found["times"], runs), colours=32)


@matplotlib.rc_context(style.STYLE)
def _draw(times, runs: Mapping):
    fig, panels = style.figure(8.6, 5.2, len(PLACES), len(NAMES), sharex=True, sharey="row", squeeze=False)
    for axes, ((place, kind), lines) in zip(panels.flat, runs.items(), strict=True):
        for space, colour, dashes, mark in zip(NAMES, style.CYCLE, style.DASHES, "osD", strict=False):
            if space in lines:
                axes.plot(times, lines[space], mark, linestyle=dashes, color=colour, markersize=4,
                          label=NAMES[space])  # fmt: skip
        axes.set(title=f"predicts {NAMES[kind]}" if place == PLACES[0] else None, yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axes, place in zip(panels[:, 0], PLACES, strict=True):
        axes.set_ylabel(f"squared error, {place}")
    for axes in panels[-1]:
        axes.set_xlabel("time t (1: noise)")
    labelled = {label: line for axes in panels.flat
                for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    fig.legend(labelled.values(), labelled, loc="outside upper center", ncols=3, title="the error is counted in")
    return fig


def _said(times, runs: Mapping) -> str:
    """The least and the most error of each panel's lines at the first and the last time, in words."""
    parts = []
    for (place, kind), lines in runs.items():
        for space, errors in lines.items():
            parts.append(f"{NAMES[kind]} in {place}, counted in {space}: {errors[0]:.3g} to {errors[-1]:.3g}")
    return (f"Squared error of the film that each network believes in, from t = {times[0]} to {times[-1]}, in six "
            f"panels. Predicted {'; '.join(parts)}.")  # fmt: skip
