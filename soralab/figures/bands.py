"""Is my run right? The band of right runs, and a verdict that a wrong run cannot get past.

A band is made of right runs that differ in their seed alone. Their losses are compared in twenty stretches of the
steps, as the mean of log(loss) in each, and beside them the probes (soralab.training.probes), of which several see what
the loss does not. The limits are those between which one more run of the same kind would lie (Student's t), and a run
is called wrong only where it leaves them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from soralab.files.counts import so_many

Log = Mapping[str, np.ndarray]
BANDS = Path(__file__).resolve().parents[2] / "data" / "bands"
"""Where the bands of the course's own reference runs lie, one file a chapter."""
STRETCHES = 20
OUTSIDE = 0.25  # share of the stretches outside, and two at least, that make a run wrong
KNOWN = 0.5  # share of the stretches, and two at least, in which a band must be logged to call a run right
RARE, RARER = 0.005, 0.002  # a right run's stretch, and its probe, lies beyond the limits this often
LOGARITHMIC = ("held", "way")  # probes that are compared by their ratio
# A spread known before, worth so many runs. Of the average's lag it is what the chapters' bands have, pooled: it has
# rare large values, and only an average that is off, or never updated, has to be told.
PRIOR, WORTH = {"loss": 0.015, "held": 0.03, "way": 0.03, "lag": 0.02}, 4
HEARD = 1.0  # a pairing of right runs from which it is judged: four times its error, with 16 groups


def stretches(log: Log, steps: int, key: str = "loss") -> np.ndarray:
    """The mean of log(key) in each of STRETCHES equal parts of `steps` steps: [STRETCHES], NaN where nothing is logged.

    The last stretch that the run has begun but not finished is NaN too. What is not above zero counts as 1e-12.
    """
    step, value = curve(log, key)
    part = np.ceil(step * STRETCHES / steps - 1e-9).astype(int) - 1
    done = int(step[-1] * STRETCHES / steps + 1e-9)
    found = np.full(STRETCHES, np.nan)
    for k in range(min(done, STRETCHES)):
        if (part == k).any():
            found[k] = np.log(np.maximum(value[part == k], 1e-12)).mean()
    return found


def curve(log: Log, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of one column, without the lines that lack it."""
    for name in ("step", key):
        if name not in log:
            raise ValueError(f"run: got a log with {', '.join(log) or 'nothing'}, takes one with step and {key}")
    step, value = np.asarray(log["step"], float), np.asarray(log[key], float)
    if step.shape != value.shape:
        raise ValueError(f"run: got {so_many(len(step), 'step')} and {so_many(len(value), 'value')} of {key}, takes "
                         "as many of each")  # fmt: skip
    # The step of a finite entry only: a log may note its losses and its probes on lines of their own.
    keep = np.isfinite(step) & np.isfinite(value)
    if not keep.any():
        raise ValueError(f"run: got no finite value of {key}, takes at least one")
    return step[keep], value[keep]


def probed(log: Log, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which a probe was asked, and what it said; of LOGARITHMIC ones the logarithm."""
    if key not in log or not np.isfinite(np.asarray(log[key], float)).any():
        return np.zeros(0), np.zeros(0)
    step, value = curve(log, key)
    return step, np.log(np.maximum(value, 1e-12)) if key in LOGARITHMIC else value


@dataclass(frozen=True)
class Band:
    """Where `runs` right runs of `steps` steps went.

    mean, spread: of log(loss) in each stretch [STRETCHES], NaN where not every run was logged. probes: for each probe
    the marks' steps, means and spreads, and how many of the runs were asked. The spreads are standard deviations over
    the runs.
    """

    steps: int
    runs: int
    mean: np.ndarray
    spread: np.ndarray
    probes: dict[str, dict] = field(default_factory=dict)
    key: str = "loss"

    def __post_init__(self):
        for name in ("mean", "spread"):
            value = np.asarray(getattr(self, name), float)
            object.__setattr__(self, name, value)
            if value.shape != (STRETCHES,):
                raise ValueError(f"band: got {name} of shape {value.shape}, takes {STRETCHES} numbers")
        if self.runs < 1 or self.steps < 1:
            raise ValueError(f"band: got {so_many(self.runs, 'run')} of {so_many(self.steps, 'step')}, takes one or "
                             "more of each")  # fmt: skip

    @classmethod
    def of(cls, logs: Sequence[Log], key: str = "loss") -> Band:
        """The band of several logs of equally many steps, as `read_log` gives them; some may lack the probes."""
        if not logs:
            raise ValueError("band: got no logs, takes at least one")
        ends = {float(curve(log, key)[0][-1]) for log in logs}
        if len(ends) > 1:
            raise ValueError(f"band: got logs that end at steps {sorted(ends)}, takes logs of one length")
        steps = int(ends.pop())
        curves = np.stack([stretches(log, steps, key) for log in logs])
        probes = {}
        for name in ("held", "pairing", "lag", "way", "still"):
            told = [(step, value) for step, value in (probed(log, name) for log in logs) if len(step)]
            if told and all(np.array_equal(step, told[0][0]) for step, _ in told):
                values = np.stack([value for _, value in told])
                probes[name] = {"runs": len(told), "step": told[0][0].tolist(), "mean": values.mean(0).tolist(),
                                "spread": spread_of(values).tolist()}  # fmt: skip
        return cls(steps, len(logs), curves.mean(0), spread_of(curves), probes, key)

    def to_json(self) -> dict:
        """Plain lists and numbers, for `json.dump`; `Band(**loaded)` reads them back."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest mean log(loss) of a right run in each stretch."""
        half = half_width(smooth_spread(self.spread), self.runs, "loss", RARE)
        return self.mean - half, self.mean + half


def half_width(spread: np.ndarray, runs: int, key: str, rare: float) -> np.ndarray:
    """Half the distance between the limits for one more run, of a quantity with this spread over so many runs.

    Of a few runs the spread is hardly known, so it is mixed with PRIOR's as if that came from WORTH runs more: the
    moderated t of Smyth 2004 (https://doi.org/10.2202/1544-6115.1027).
    """
    freedom = WORTH + runs - 1
    mixed = np.sqrt((WORTH * PRIOR.get(key, PRIOR["loss"]) ** 2 + (runs - 1) * np.asarray(spread) ** 2) / freedom)
    return stdtrit(freedom, 1 - rare / 2) * mixed * math.sqrt(1 + 1 / runs)


def spread_of(values: np.ndarray) -> np.ndarray:
    """The standard deviation over the runs, values [runs, ...]; 0 of a single one."""
    return values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def smooth_spread(spread: np.ndarray) -> np.ndarray:
    """Each stretch's spread and its two neighbours', as a root mean square: a few runs tell it badly."""
    square = np.pad(spread**2, 1, mode="edge")
    there, square = np.isfinite(square), np.nan_to_num(square)
    count = there[:-2].astype(int) + there[1:-1] + there[2:]
    return np.sqrt((square[:-2] + square[1:-1] + square[2:]) / np.maximum(count, 1))


def load_band(name: str, folder: Path | None = None) -> Band:
    """The band that the course ships as `name` ("unet"). folder: another one than data/bands.

    Raises ValueError for a name that there is no band of.
    """
    path = (folder or BANDS) / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in (folder or BANDS).glob("*.json"))) or "none"
        raise ValueError(f"band: got {name!r}, takes a Band, logs, or a name that there is one of: {there}")
    return Band(**json.loads(path.read_text(encoding="utf-8")))


def as_band(band, key: str = "loss") -> Band:
    """A `Band`, a list of logs, or a shipped band's name, as a `Band`. Raises ValueError for an unknown name."""
    if isinstance(band, Band):
        return band
    return load_band(band) if isinstance(band, str) else Band.of(list(band), key)


# ------------------------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Verdict:
    """What a band says of a run: `right` is None where it cannot say. `print` shows the text, one line.

    share: of the finished stretches that the band knows, those inside it, 0 to 1 (NaN without any).
    """

    right: bool | None
    share: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Mark:
    """One probe at one mark: what the run has, what right runs have, and half the distance of their limits."""

    name: str
    value: float
    mean: float
    half: float

    @property
    def off(self) -> float:
        """How far it lies from the right runs, in units of the limits: beyond -1 or 1 it is outside."""
        return (self.value - self.mean) / self.half

    @property
    def outside(self) -> bool:
        """Whether no right run would be there. Learning better than they do is no fault."""
        if self.name == "pairing":
            return self.mean >= HEARD and self.value < self.mean / 2
        return self.off > 1 if self.name in ("held", "still") else abs(self.off) > 1


def _marks(run: Log, band: Band, after: float) -> list[Mark]:
    """The run's probes at the steps at which the band has them, of the marks up to `after`."""
    found, steps = [], np.unique(run["step"])
    line = steps[1] - steps[0] if len(steps) > 1 else 1  # a mark is noted on the first line at or after its step
    for name, right in band.probes.items():
        step, value = probed(run, name)
        half = half_width(np.asarray(right["spread"]), right["runs"], name, RARER)
        for at, mean, limit in zip(right["step"], right["mean"], half, strict=True):
            if at < after * band.steps + line and at in step:
                found.append(Mark(name, float(value[step == at][0]), mean, 0.5 if name == "still" else float(limit)))
    return found


def verdict(run: Log, band, after: float = 1.0, key: str = "loss") -> Verdict:
    """Whether a run is like the right ones of a band (see `as_band`), in one line that says what it looks like if not.

    after: the share of the band's steps to judge by, 0 to 1. The line gives what was measured, and asks about a cause
    rather than naming one: two mistakes may leave the same trace. A run without probes is judged by its loss alone.
    A band of sparse logs tells a wrong run where it can, and calls none right.
    """
    band = as_band(band, key)
    curves = stretches(run, band.steps, key)
    curves[int(after * STRETCHES + 1e-9) :] = np.nan
    marks = _marks(run, band, after)
    done = np.isfinite(curves)
    last = int(min(curve(run, key)[0][-1], after * band.steps))
    if done.sum() < 2 and not marks:
        return Verdict(None, math.nan, f"step {last}: too early to say, before step {band.steps // 10}")
    if lost := _lost(run, band.steps, after, key):
        return Verdict(False, math.nan, f"step {last}: wrong; after it the {key} is no finite number, to step {lost}")
    known = np.isfinite(band.mean)
    curves[~known] = np.nan
    done, (low, high) = np.isfinite(curves), band.limits()
    out = int(((curves < low - 1e-9) | (curves > high + 1e-9)).sum())
    share = 1 - out / done.sum() if done.any() else math.nan
    inside = f"{done.sum() - out} of {done.sum()} stretches inside the band"
    if out >= max(2, OUTSIDE * done.sum()) or any(mark.outside for mark in marks):
        return Verdict(False, share, f"step {last}: wrong; {_trace(marks, curves, band)} ({inside})")
    past = min(int(last * STRETCHES / band.steps + 1e-9), STRETCHES)
    if past >= 2 and known[:past].sum() < max(2, KNOWN * past) or not (done.any() or marks):
        few = f"the band's runs were logged in {known[:past].sum()} of {past} stretches"
        return Verdict(None, share, f"step {last}: cannot tell; {few}, too few to call a run right")
    inside += f" of {so_many(band.runs, 'right run')}" + ("" if marks else "; judged by its loss alone")
    return Verdict(True, share, f"step {last}: right so far, {inside}")


def _lost(run: Log, steps: int, after: float, key: str) -> int:
    """The last step of a run whose values ended, by NaN or infinity, a stretch or more before it; else 0."""
    step = np.asarray(run["step"], float)
    end = min(step[np.isfinite(step)].max(), after * steps)
    return int(end) if end - curve(run, key)[0][-1] >= steps / STRETCHES else 0


def inside_band(run: Log, band, key: str = "loss") -> float:
    """The share of the run's finished stretches that lie inside the band, 0 to 1; NaN without any."""
    return verdict(run, band, key=key).share


def _trace(marks: list[Mark], curves: np.ndarray, band: Band) -> str:
    """What a wrong run looks like: of all that is unlike right runs, what says most about the cause."""
    out = {mark.name: mark for mark in reversed(marks) if mark.outside}  # of each probe the first mark outside
    ratio = {name: math.exp(mark.value - mark.mean) for name, mark in out.items() if name in LOGARITHMIC}
    last = np.flatnonzero(np.isfinite(curves))[-1:]
    loss = math.exp((curves - band.mean)[last].sum())  # 1 before the first stretch is done
    times, start = _slower(curves, band), band.mean[np.isfinite(band.mean)][:1].sum()
    if "still" in out:
        count = round(out["still"].value - out["still"].mean)
        stayed = "is what it was" if count == 1 else "are what they were"
        return f"{so_many(count, 'tensor')} of weights {stayed} at the start: is a layer frozen?"
    if "lag" in out and (out["lag"].value > 0.9 or out["lag"].value < out["lag"].mean / 4):
        state = "has stayed at the start" if out["lag"].value > 0.9 else "does not lie as far behind as in right runs"
        return f"the average {state}: is it off, or never updated?"
    if not 1 / 3 < ratio.get("way", 1) < 3:
        rate = "too small" if ratio["way"] < 1 else "too large"
        return f"the weights have gone {ratio['way']:.2g} times as far as in right runs: is the learning rate {rate}?"
    if last.size and (curves[last] < -20 or curves[last] > max(np.nanmin(curves), start) + 0.02):
        return "the loss rises, or is not above zero: is a sign flipped?"
    if "pairing" in out:
        return "a wrong label (prompt, target) does less harm than in right runs: are they mixed up, or hardly learnt?"
    if times >= 2:
        return f"the loss falls about {times:.0f} times too slowly: is the learning rate too small?"
    if "held" in out:
        return f"the averaged network's loss on unseen examples is {ratio['held']:.2f} times that of right runs"
    if "way" in out:
        return f"the weights have gone {ratio['way']:.2g} times as far as in right runs"
    if "lag" in out:
        return "the average lies elsewhere than in right runs: is its decay another?"
    return f"the loss is {loss:.2f} times that of right runs"


def _slower(curves: np.ndarray, band: Band) -> float:
    """How many times longer the run has taken for the loss that it has; below 1 where it is faster than right runs."""
    done = np.flatnonzero(np.isfinite(curves))
    if not done.size:
        return 1.0
    known = np.flatnonzero(np.isfinite(band.mean))
    falling = np.minimum.accumulate(band.mean[known])
    reached = np.interp(-curves[done[-1]], -falling, known + 1)
    return float((done[-1] + 1) / reached)
