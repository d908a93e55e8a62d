"""Losses inside the band of reference runs, and proportions with their intervals.

"Is my run right?" has an answer: the share of its steps that lie inside the band of runs that were right.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ticker import PercentFormatter

from soralab.figures import style
from soralab.figures.bands import STRETCHES, Band, Log, as_band, curve, stretches, verdict
from soralab.figures.pictures import Picture, picture, to_array, to_pixels
from soralab.files.counts import so_many

WIDE, WIDER = 100, 112  # letters of a line of text below a curve, and of one in smaller type


def read_log(path) -> dict[str, np.ndarray]:
    """A training log of JSON lines (`{"step": 10, "loss": 0.7, ...}`) as columns, one float64 array [lines]
    a key.

    A key that a line lacks is NaN there; values that are not numbers are left out. A last line without its
    line end, which an interrupted run leaves, is passed over.
    Raises FileNotFoundError for a missing file, ValueError for a broken line or a log without a step.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no training log at {path}: train first, or give the path of a JSON-lines log")
    text = path.read_text(encoding="utf-8")
    rows = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if line.endswith("\n"):
                raise ValueError(f"{path}, line {number}: got {line.strip()[:60]!r}, takes one JSON object") from error
            continue
        rows.append({k: float(v) for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)})
    if not any("step" in row for row in rows):
        raise ValueError(f'{path}: got {so_many(len(rows), "line")} without a step, takes lines like '
                         '{"step": 10, "loss": 0.7}')  # fmt: skip
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, math.nan) for row in rows]) for key in keys}


def ema(values, smooth: float) -> np.ndarray:
    """The running mean of values [n] with weight `smooth` in [0, 1) on the past, corrected at the start as
    Adam's is.

    smooth counts log entries, not training steps: 0.9 looks back over about ten of them, and so lags behind
    a loss that falls fast; 0 changes nothing.
    """
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth: got {smooth}, takes a number from 0 up to, not including, 1")
    out, mean = np.empty(len(values)), 0.0
    for i, value in enumerate(values):
        mean = smooth * mean + (1 - smooth) * float(value)
        out[i] = mean / (1 - smooth ** (i + 1))
    return out


@matplotlib.rc_context(style.STYLE)
def loss_curve(
    run,
    band=None,
    key: str = "loss",
    smooth: float = 0.9,
    log: bool = False,
    title: str | None = None,
    alt: str | None = None,
) -> Picture:
    """A run's loss against its step, faint as logged and bold when smoothed; with a band also the verdict on it.

    run: columns with step and `key`, or several such by name, `{"velocity": log, "noise": log}`. If one has "samples"
    (what the network made on the way, pictures [n, channel, height, width] or texts, by the step), they stand below.
    band: see `as_band`; "unet" is the one shipped with that chapter. The bold line is then the mean of each of the
    stretches that the verdict compares, in place of the smoothed one. log: logarithmic axis for the loss.
    """
    runs = {"your run": run} if "step" in run else dict(run)
    if not runs:
        raise ValueError("run: got no log, takes columns with step and loss, or several such by name")
    samples = next((columns["samples"] for columns in runs.values() if columns.get("samples")), {})
    samples = {f"step {key}" if isinstance(key, int) else str(key): made for key, made in samples.items()}
    lines = _lines(samples)
    heights = [3.6, 0.3 * len(samples) + 0.19 * (len(lines) - len(samples)) if lines else 1.1][: 1 + bool(samples)]
    fig, parts = style.figure(7.2, sum(heights) + 0.4, len(heights), height_ratios=heights, squeeze=False)
    axes, says = parts[0, 0], []
    if band is not None:
        band = as_band(band, key)
        _draw_band(axes, band)
    for number, (name, columns) in enumerate(runs.items()):
        step, value = curve(columns, key)
        colour, dashes = style.CYCLE[number % len(style.CYCLE)], style.DASHES[number % len(style.DASHES)]
        places, line = (step, ema(value, smooth)) if band is None else _means(columns, band, key)
        axes.plot(step, value, color=colour, linewidth=0.8, alpha=0.25, label=None if number else "as logged")
        axes.plot(places, line, color=colour, linewidth=2, linestyle=dashes, label=style.plain(name))
        says.append(f"{name} from {value[0]:.3g} at step {step[0]:g} to {value[-1]:.3g} at step {step[-1]:g}")
        if band is not None:
            said = verdict(columns, band, key=key)
            says[-1] += f". Verdict at {said}"
    axes.set(xlabel="step", ylabel=style.plain(key), yscale="log" if log else "linear")
    axes.margins(x=0.01)
    if title:
        axes.set_title(style.plain(title))
    if len(runs) > 1 or band is not None:
        axes.legend(loc="upper right")
    if band is not None and len(runs) == 1:
        colour = style.VERMILLION if said.right is False else style.INK
        axes.set_xlabel("step\n" + "\n".join(textwrap.wrap(style.plain(said), 95)), color=colour)
    if samples:
        says.append(_draw_samples(parts[1, 0], samples, lines))
    return picture(fig, alt or f"{key} against step: {'; '.join(says)}.")


def _lines(samples: Mapping) -> list[str]:
    """Texts by the step as lines below a curve: one a step; where that is too wide, one or two for each text."""
    found = []
    for name, made in samples.items():
        if not all(isinstance(one, str) for one in made):
            return []
        made = [re.sub(r"[^ -~]+", "?", text) for text in made]
        line = f"{name}: {'; '.join(made)}"
        if len(line) <= WIDE:
            found.append(line)
            continue
        for start, text in zip([f"{name}: ", *["      "] * len(made)], made, strict=False):
            found += textwrap.wrap(text, WIDER, initial_indent=start, subsequent_indent=" " * 12, max_lines=2,
                                   placeholder=" ...")  # fmt: skip
    return found


def _draw_samples(axes, samples: Mapping, lines: list[str]) -> str:
    """What the network made at each step, and the truth, in one row or in lines; returns what is shown, in words."""
    axes.axis("off")
    if lines:
        axes.text(0, 1, style.plain("\n".join(lines)), va="top", fontsize=9 if len(lines) == len(samples) else 8,
                  linespacing=1.5)  # fmt: skip
        told = (f"{name}: {'; '.join(made)}" for name, made in samples.items())
        return f"what it makes: {'; '.join(told)}"
    x, wide = 0.0, sum(len(made) for made in samples.values()) + 0.6 * (len(samples) - 1)
    for name, made in samples.items():
        axes.text(x, 1.05, style.plain(name), va="bottom", fontsize=9)
        for picture_ in to_array(made, "samples", "n channel height width"):
            pixels = to_pixels(np.clip(picture_, -1, 1))
            axes.imshow(pixels, extent=(x, x + 0.95, 0, 0.95), interpolation="nearest")
            x += 1
        x += 0.6
    axes.set(xlim=(0, wide), ylim=(0, 1.25), aspect="equal")
    return f"what it makes, as pictures: {', '.join(samples)}"


def _draw_band(axes, band: Band) -> None:
    known = np.isfinite(band.mean)  # a line through the stretches that were logged, where others were not
    middle = ((np.arange(STRETCHES) + 0.5) * band.steps / STRETCHES)[known]
    low, high = (np.exp(edge[known]) for edge in band.limits())
    axes.fill_between(middle, low, high, color=style.FAINT, alpha=0.7, linewidth=0, label="right runs")
    axes.plot(middle, np.exp(band.mean[known]), color=style.MUTED, linewidth=1.2, linestyle="--", label="their mean")


def _means(run: Log, band: Band, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each stretch of the band that the run has done, and the run's (geometric) mean in it."""
    middle = (np.arange(STRETCHES) + 0.5) * band.steps / STRETCHES
    line = np.exp(stretches(run, band.steps, key))
    return middle[np.isfinite(line)], line[np.isfinite(line)]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion after Wilson (1927): honest near 0 and 1, where mean ± 2 σ is not.

    Raises ValueError unless 0 <= successes <= n and n >= 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes, n: got {successes} of {n}, takes 0 <= successes <= n and n >= 1")
    z, p = 1.959963984540054, successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@matplotlib.rc_context(style.STYLE)
def bars_with_intervals(
    table: Mapping,
    baseline: Mapping | None = None,
    baseline_name: str = "baseline",
    title: str | None = None,
    alt: str | None = None,
) -> Picture:
    """Proportions as bars with Wilson 95 % intervals, their numbers beside them.

    table: `{"colour": (398, 400), ...}`, successes and trials, or several such by name, `{"ours": {...},
    ...}`. baseline: for some or all of the same rows what to hold them against: a known share, `{"colour":
    0.125}` (chance), or a measured one, (successes, trials), drawn as a dark tick; the legend calls it
    `baseline_name`.
    """
    series = dict(table) if isinstance(next(iter(table.values()), None), Mapping) else {"": dict(table)}
    rows = list(dict.fromkeys(label for each in series.values() for label in each))
    if not rows or not set(baseline or {}) <= set(rows):
        raise ValueError(
            f"table, baseline: got rows {rows} and {list(baseline or {})}, takes at least one row and "
            "baselines of rows that the table has"
        )
    fig, axes = style.figure(7.8, 0.75 + len(rows) * (0.18 + 0.27 * len(series)))
    says = []
    for number, (name, values) in enumerate(series.items()):
        thick = 0.8 / len(series)
        places = [rows.index(label) - 0.4 + (number + 0.5) * thick for label in values]
        texts = _bars(axes, places, list(values.values()), thick * 0.86, number, name)
        says += [f"{name} {label} {text}".strip() for label, text in zip(values, texts, strict=True)]
    for label, value in (baseline or {}).items():
        share = value[0] / value[1] if isinstance(value, (tuple, list)) else value
        y, name = rows.index(label), style.plain(baseline_name) if label == next(iter(baseline)) else None
        axes.plot([share] * 2, [y - 0.47, y + 0.47], color=style.INK, linewidth=2.4, clip_on=False, label=name)
        says.append(f"{baseline_name} {label} {100 * share:.1f} %")
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [style.plain(row) for row in rows])
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    if title:
        axes.set_title(style.plain(title))
    handles, names = axes.get_legend_handles_labels()
    if names:
        order = sorted(range(len(names)), key=lambda i: names[i] == style.plain(baseline_name))
        columns = 4 if sum(len(name) + 6 for name in names) < 90 else 2  # what fits side by side
        fig.legend([handles[i] for i in order], [names[i] for i in order], loc="outside lower center", ncols=columns)
    return picture(fig, alt or f"Proportions with 95 % intervals: {'; '.join(says)}.")


def _bars(axes, places, counts, thick: float, number: int, name: str) -> list[str]:
    """Draw one series, (successes, trials) at each place; returns the numbers written beside its bars."""
    limits = np.array([wilson(successes, n) for successes, n in counts])  # refuses 0 of 0 before it is divided
    shares = np.array([successes / n for successes, n in counts])
    colour = style.CYCLE[number % len(style.CYCLE)]
    axes.barh(places, shares, thick, color=colour, alpha=0.75, label=style.plain(name) or None)
    ends = np.abs(limits.T - shares)  # wilson's limits enclose the share, but for rounding at 0 and 1
    axes.errorbar(shares, places, xerr=ends, fmt="none", ecolor=style.INK, elinewidth=1.4, capsize=3, clip_on=False)
    texts = [
        f"{100 * share:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
        for share, (low, high) in zip(shares, limits, strict=True)
    ]
    for y, text in zip(places, texts, strict=True):
        axes.text(1.02, y, text, va="center", fontsize=9, transform=axes.get_yaxis_transform())
    return texts
