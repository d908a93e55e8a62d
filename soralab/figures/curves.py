"""Losses inside the band of reference runs, and proportions with their intervals.

"Is my run right?" has an answer: the share of its steps that lie inside the band of runs that were right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ticker import PercentFormatter

from soralab.figures import style
from soralab.figures.pictures import Picture, picture

Log = Mapping[str, np.ndarray]
BANDS = Path(__file__).resolve().parents[2] / "data" / "bands"
"""Where the logs of the course's own reference runs lie, one file a chapter."""
MARGIN = 1.0
"""A band is widened by its own height on each side: of three runs, it then holds 87 % of a right one's steps."""


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
        raise ValueError(f'{path}: got {len(rows)} lines without a step, takes lines like {{"step": 10, "loss": 0.7}}')
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


def _curve(log: Log, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of one column, without the lines that lack it."""
    for name in ("step", key):
        if name not in log:
            raise ValueError(f"run: got a log with {', '.join(log) or 'nothing'}, takes one with step and {key}")
    step, value = np.asarray(log["step"], float), np.asarray(log[key], float)
    if step.shape != value.shape:
        raise ValueError(f"run: got {len(step)} steps and {len(value)} values of {key}, takes as many of each")
    # The step of a finite entry only: a log may note its losses and its evaluations on lines of their own.
    keep = np.isfinite(step) & np.isfinite(value)
    if not keep.any():
        raise ValueError(f"run: got no finite value of {key}, takes at least one")
    return step[keep], value[keep]


@dataclass(frozen=True)
class Band:
    """Where reference runs went: at each step [n] the lowest, mean and highest of their smoothed losses.

    smooth: the smoothing of those losses, and so of any run that is held against them. runs: how many there
    were. A right run lies between the lowest and highest of k others for (k − 1)/(k + 1) of the time: half
    with 3. So where a run is held against the band, MARGIN widens it.
    """

    step: np.ndarray
    min: np.ndarray
    mean: np.ndarray
    max: np.ndarray
    smooth: float = 0.0
    runs: int = 0

    def __post_init__(self):
        for name in ("step", "min", "mean", "max"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), float))
        sizes = {name: getattr(self, name).shape for name in ("step", "min", "mean", "max")}
        if len(set(sizes.values())) > 1 or self.step.ndim != 1 or not len(self.step):
            raise ValueError(f"band: got sizes {sizes}, takes four arrays of one length")
        if (np.diff(self.step) <= 0).any() or (self.min > self.max).any():
            raise ValueError(
                "band: got steps out of order or a minimum above its maximum, takes rising steps, min <= max"
            )

    @classmethod
    def of(cls, logs: Sequence[Log], key: str = "loss", smooth: float = 0.9) -> Band:
        """The band of several logs, on the steps of the first that all of them reach."""
        if not logs:
            raise ValueError("band: got no logs, takes at least one")
        curves = [(step, ema(value, smooth)) for step, value in (_curve(log, key) for log in logs)]
        low, high = max(step[0] for step, _ in curves), min(step[-1] for step, _ in curves)
        grid = np.unique(curves[0][0])
        grid = grid[(grid >= low) & (grid <= high)]
        values = np.stack([np.interp(grid, step, value) for step, value in curves])
        return cls(grid, values.min(0), values.mean(0), values.max(0), smooth, len(curves))

    def to_json(self) -> dict:
        """Plain lists and numbers, for `json.dump`; `Band(**loaded)` reads them back."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}

    def at(self, step: np.ndarray, margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The band's lower and upper edge at each of `step` [n]."""
        low, high = np.interp(step, self.step, self.min), np.interp(step, self.step, self.max)
        return low - margin * (high - low), high + margin * (high - low)


def load_band(name: str, folder: Path | None = None) -> list[dict[str, list[float]]]:
    """The logs of the reference runs that the course ships as `name` ("unet"), each as columns {"step", "loss"}.

    folder: another one than data/bands. Raises ValueError for a name that there is no band of.
    """
    path = (folder or BANDS) / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in (folder or BANDS).glob("*.json"))) or "none"
        raise ValueError(f"band: got {name!r}, takes a Band, its JSON, logs, or a name that there is one of: {there}")
    return json.loads(path.read_text(encoding="utf-8"))


def as_band(band, key: str = "loss", smooth: float = 0.9) -> Band:
    """A `Band`, its JSON (a mapping with step, min, mean, max), a list of logs, or a shipped one's name, as a `Band`.

    Raises ValueError for a name that there is no band of.
    """
    if isinstance(band, Band):
        return band
    if isinstance(band, str):
        band = load_band(band)
    return Band(**band) if isinstance(band, Mapping) else Band.of(list(band), key, smooth)


def inside_band(run: Log, band, key: str = "loss", smooth: float = 0.9, margin: float = MARGIN) -> float:
    """The share, 0 to 1, of the run's logged steps at which its smoothed loss lies inside the band, edges
    included, when `margin` of its height is added on each side.

    run: columns with step and `key`, as `read_log` gives. band: see `as_band`; a ready one brings its own
    smoothing. Only steps that the band covers count. Raises ValueError where there are none.
    """
    band = as_band(band, key, smooth)
    step, value = _curve(run, key)
    value = ema(value, band.smooth)
    covered = (step >= band.step[0]) & (step <= band.step[-1])
    if not covered.any():
        raise ValueError(
            f"run: got steps {step[0]:g} to {step[-1]:g}, takes some between {band.step[0]:g} and "
            f"{band.step[-1]:g}, which the band covers"
        )
    low, high = band.at(step[covered], margin)
    tiny = 1e-12 * np.maximum(np.abs(low), np.abs(high))  # a run is inside the band of itself, whatever the rounding
    return float(((value[covered] >= low - tiny) & (value[covered] <= high + tiny)).mean())


@matplotlib.rc_context(style.STYLE)
def loss_curve(
    run,
    band=None,
    key: str = "loss",
    smooth: float = 0.9,
    margin: float = MARGIN,
    log: bool = False,
    title: str | None = None,
    alt: str | None = None,
) -> Picture:
    """A run's loss against its step, faint as logged and bold when smoothed, inside the band of reference
    runs.

    run: columns with step and `key`, or several such by name, `{"velocity": log, "noise": log}`.
    band: see `as_band`; "unet" is the one shipped with that chapter. It sets the smoothing, and is widened by
    `margin` of its height on each side. log: logarithmic axis for the loss.
    """
    runs = {"your run": run} if "step" in run else dict(run)
    fig, axes = style.figure(7.2, 3.6)
    says = []
    if band is not None:
        band = as_band(band, key, smooth)
        smooth = band.smooth
        _draw_band(axes, band, margin)
    for number, (name, columns) in enumerate(runs.items()):
        step, value = _curve(columns, key)
        colour, dashes = style.CYCLE[number % len(style.CYCLE)], style.DASHES[number % len(style.DASHES)]
        line = ema(value, smooth)
        axes.plot(step, value, color=colour, linewidth=0.8, alpha=0.25, label=None if number else "as logged")
        axes.plot(step, line, color=colour, linewidth=2, linestyle=dashes, label=name)
        says.append(f"{name} from {line[0]:.3g} at step {step[0]:g} to {line[-1]:.3g} at step {step[-1]:g}")
        if band is not None:
            share = inside_band(columns, band, key, margin=margin)
            says[-1] += f", inside the band for {share:.0%} of its steps"
    axes.set(xlabel="step", ylabel=key, yscale="log" if log else "linear")
    axes.margins(x=0.01)
    if title:
        axes.set_title(title)
    if len(runs) > 1 or band is not None:
        axes.legend(loc="upper right")
    return picture(fig, alt or f"{key} against step: {'; '.join(says)}.")


def _draw_band(axes, band: Band, margin: float) -> None:
    low, high = band.at(band.step, margin)
    name = f"{band.runs} reference runs" if band.runs else "reference runs"
    axes.fill_between(band.step, low, high, color=style.FAINT, alpha=0.7, linewidth=0, label=name)
    axes.plot(band.step, band.mean, color=style.MUTED, linewidth=1.2, linestyle="--", label="their mean")


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
        y, name = rows.index(label), baseline_name if label == next(iter(baseline)) else None
        axes.plot([share] * 2, [y - 0.47, y + 0.47], color=style.INK, linewidth=2.4, clip_on=False, label=name)
        says.append(f"{baseline_name} {label} {100 * share:.1f} %")
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=rows)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    if title:
        axes.set_title(title)
    handles, names = axes.get_legend_handles_labels()
    if names:
        order = sorted(range(len(names)), key=lambda i: names[i] == baseline_name)
        fig.legend([handles[i] for i in order], [names[i] for i in order], loc="outside lower center", ncols=4)
    return picture(fig, alt or f"Proportions with 95 % intervals: {'; '.join(says)}.")


def _bars(axes, places, counts, thick: float, number: int, name: str) -> list[str]:
    """Draw one series, (successes, trials) at each place; returns the numbers written beside its bars."""
    shares = np.array([successes / n for successes, n in counts])
    limits = np.array([wilson(successes, n) for successes, n in counts])
    colour = style.CYCLE[number % len(style.CYCLE)]
    axes.barh(places, shares, thick, color=colour, alpha=0.75, label=name or None)
    ends = np.abs(limits.T - shares)  # wilson's limits enclose the share, but for rounding at 0 and 1
    axes.errorbar(shares, places, xerr=ends, fmt="none", ecolor=style.INK, elinewidth=1.4, capsize=3, clip_on=False)
    texts = [
        f"{100 * share:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
        for share, (low, high) in zip(shares, limits, strict=True)
    ]
    for y, text in zip(places, texts, strict=True):
        axes.text(1.02, y, text, va="center", fontsize=9, transform=axes.get_yaxis_transform())
    return texts
