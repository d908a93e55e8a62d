"""What the referee measures of a film's physics: gravity, the bounce, and permanence behind the wall.

    fall = gravity(film)                # Fall(gravity=7.9, restitution=0.81, residual=0.004, drop=0.5)
    permanence(film).kept               # did it come out as it went in?

Units: lengths in short sides of the frame, times in clips, so gravity is in short sides per clip squared. In the world
it is `scene.GRAVITY`, and the speed after a bounce is `scene.RESTITUTION` times the speed before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize

from soralab.world.referee import Report, Seen, read
from soralab.world.scene import WALL, pan

FALL_TIMES = np.linspace(0.12, 1.3, 119)  # clips from release to the floor
RESTITUTIONS = np.linspace(0.2, 1.0, 33)
ON_TIME = 0.1  # clips by which a thing may come out too early or too late


@dataclass(frozen=True)
class Fall:
    """A fit of y = floor - height(u): `gravity` in short sides per clip squared, `restitution` 0..1 (NaN if nothing
    hits the floor), `residual` the root mean square misfit and `drop` the height it falls from, in short sides."""

    gravity: float
    restitution: float
    residual: float
    drop: float

    @property
    def time(self) -> float:
        """How long it falls, in clips: drop = gravity time^2 / 2."""
        return math.sqrt(2 * self.drop / self.gravity)


@dataclass(frozen=True)
class Permanence:
    """What becomes of the thing that goes behind the wall. `delay` in clips, positive if it comes out late, NaN if it
    cannot be measured; `on_time` then follows the referee's own check. `kept`: all four are true."""

    came_out: bool
    same_shape: bool
    same_colour: bool
    on_time: bool
    delay: float

    @property
    def kept(self) -> bool:
        """Whether it came out, in time, with the shape and colour with which it went in."""
        return self.came_out and self.same_shape and self.same_colour and self.on_time


def gravity(film_or_report) -> Fall | None:
    """Fit free fall and the flights after it to the thing that moves up and down most; None if nothing does.

    Gravity, restitution, height and floor are all free, so a film with another gravity is measured, not refused.
    """
    report = _report(film_or_report)
    best = None
    for seen in report.objects:
        known = np.isfinite(seen.radius)
        x, y = _world_path(report, seen)[known].T
        if known.sum() < 5 or np.ptp(y) < 0.15 or np.ptp(x) > 0.5 * np.ptp(y):
            continue
        if best is None or np.ptp(y) > np.ptp(best[1]):
            best = np.flatnonzero(known) / report.frames, y
    return _fit_fall(*best) if best else None


def bounce(film_or_report) -> float:
    """Restitution: speed after the floor over speed before it. NaN where nothing bounces."""
    fall = gravity(film_or_report)
    return fall.restitution if fall else math.nan


def permanence(film_or_report) -> Permanence | None:
    """Whether the thing that went behind the wall came out on the other side as it was, and on time.

    None if there is no wall, or nothing goes behind it.
    """
    report = _report(film_or_report)
    if report.wall is None:
        return None
    middle = sum(report.wall) / 2
    first = [s for s in report.objects if s.visible[0]]
    entering = max(first, key=lambda s: s.visible[: report.frames // 2].sum(), default=None)
    if entering is None:
        return None
    at = _world_path(report, entering)[:, 0]
    before = np.flatnonzero(np.isfinite(at) & (np.sign(at - middle) == np.sign(at[0] - middle)))
    if len(before) > 1 and (at[before[-1]] - at[before[0]]) * (middle - at[0]) <= 0:
        return None  # it does not go towards the wall
    leaving = [s for s in report.objects if _comes_out(report, s, np.sign(at[0] - middle), middle)]
    if not leaving:
        return Permanence(False, False, False, False, math.nan)
    same = entering if entering in leaving else leaving[0]
    delay = _delay(report, at, before, same, middle)
    passes = entering.motion == WALL
    on_time = passes if math.isnan(delay) else abs(delay) < ON_TIME
    votes = [v for v in entering.votes if v][:1], [v for v in same.votes if v][-1:]  # where most of it is seen
    same_shape = entering.shape is not None if passes else votes[0] == votes[1]
    return Permanence(True, same_shape, same.colour == entering.colour, on_time, delay)


# ------------------------------------------------------------------------------------------------------------- details


def _report(film_or_report) -> Report:
    return film_or_report if isinstance(film_or_report, Report) else read(film_or_report)


def _world_path(report: Report, seen: Seen) -> np.ndarray:
    """Centres [time, 2] without the camera's motion, NaN where they were not measured."""
    path = seen.trajectory.copy()
    path[:, 0] += pan(report.camera) * np.arange(len(path)) / len(path)
    return path


@lru_cache(maxsize=16)
def _heights(times: tuple[float, ...]) -> np.ndarray:
    return np.array([[_height(np.array(times) / t, e) for e in RESTITUTIONS] for t in FALL_TIMES])


def _height(s: np.ndarray, restitution: float) -> np.ndarray:
    """Height at times s [frames] of a thing let go at height 1 that reaches the floor at s = 1."""
    height, left, speed = np.where(s <= 1, 1 - s * s, 0.0), s - 1, 2.0
    for _ in range(12):
        speed *= restitution
        flight = (left > 0) & (left <= speed)  # gravity is 2 in these units: a flight lasts as long as its speed
        height = np.where(flight, left * (speed - left), height)
        left = left - speed
    return height


def _fit_fall(times: np.ndarray, y: np.ndarray) -> Fall:
    """Floor and height are linear; fall time and restitution come from a grid, then from its best cell."""
    times_key = tuple(times.tolist())
    grid = _misfit(_heights(times_key), y)[0]
    k, j = np.unravel_index(int(grid.argmin()), grid.shape)

    def cost(p):
        if not (0.05 < p[0] < 2 and 0 < p[1] <= 1.05):
            return 1.0
        return float(_misfit(_height(times / p[0], p[1])[None], y)[0][0])

    fit = minimize(cost, [FALL_TIMES[k], RESTITUTIONS[j]], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    fall_time, restitution = fit.x
    squares, drop = _misfit(_height(times / fall_time, restitution)[None], y)
    hits = times.max() > fall_time + 0.05
    residual = math.sqrt(float(squares[0]) / len(y))
    drop = float(drop[0])
    return Fall(2 * drop / fall_time**2, float(restitution) if hits else math.nan, residual, drop)


def _misfit(heights: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of y [frames] = floor - drop * heights [..., frames]: sums of squares and drops."""
    off = heights - heights.mean(-1, keepdims=True)
    size = np.square(off).sum(-1).clip(1e-9)
    drop = np.maximum(-(off @ (y - y.mean())) / size, 0)
    return np.square(y - y.mean() + drop[..., None] * off).sum(-1), drop


def _comes_out(report: Report, seen: Seen, side: float, middle: float) -> bool:
    """Whether it is seen on the side of the wall that is not `side`, in the second half of the film."""
    if seen.motion == WALL:
        return True
    at = _world_path(report, seen)[:, 0]
    late = np.arange(len(at)) >= len(at) // 2
    return bool((np.isfinite(at) & late & ((at - middle) * side < 0)).any())


def _delay(report: Report, at: np.ndarray, before: np.ndarray, leaving: Seen, middle: float) -> float:
    """How much later than a steady path allows it is where it is, after the wall. Clips; NaN if not measured."""
    after = _world_path(report, leaving)[:, 0]
    known = np.flatnonzero(np.isfinite(after) & ((after - middle) * (at[0] - middle) < 0))
    if not len(known) or len(before) + len(known) < 4:
        return math.nan
    frames, x = np.concatenate([before, known]), np.concatenate([at[before], after[known]])
    late = np.arange(len(frames)) >= len(before)
    # x = start + speed * u, less speed * delay after the wall
    basis = np.stack([np.ones(len(frames)), frames / report.frames, -1.0 * late], 1)
    (_, speed, lag), *_ = np.linalg.lstsq(basis, x, rcond=None)
    return float(lag / speed) if abs(speed) > 0.1 else math.nan
