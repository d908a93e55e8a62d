"""The referee's knowledge of motion: which of the world's laws explains a path.

Every law is fitted to the centres by least squares, and the simplest one that explains them wins: each law pays for
its freedom with a few thousandths of a short side. A path that no law explains has no motion (None).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from soralab.world.scene import DIRECTIONS, SLIDE, SPIN, SWELL, TURNS, bounce_height

TOLERANCE = 0.045  # short sides, root mean square, between a path and its law
LEAST_SLIDE = 0.15  # short sides per clip: below this a thing stands
LEAST_SWELL = 0.25  # of its radius, over a clip
ORBIT_RATES = np.concatenate([sign * math.tau * np.arange(0.6, 1.45, 0.05) for sign in (1, -1)])  # radians per clip
DROPS = np.arange(0.34, 0.7, 0.01)


@dataclass
class Story:
    """A law and how well it explains: `error` is root mean square in short sides, `rate` the law's speed."""

    motion: str | None
    error: float
    speed: str = ""
    turn: str = ""
    rate: float = 0.0


def nearest(value: float, table: dict[str, float]) -> str:
    """The name whose number is nearest to `value` in ratio."""
    return min(table, key=lambda name: abs(math.log(max(abs(value), 1e-6) / table[name])))


def explain(
    path: np.ndarray, radius: np.ndarray, times: np.ndarray, spin: float, wobble: float, touched: bool
) -> Story:
    """The motion behind centres [frames, 2] and radii [frames] (short sides) at `times` [frames] (clip lengths).

    `spin` in radians per clip and `wobble` come from the outline; `touched` allows a thing that stops, or starts,
    half-way, as a bump makes it. Needs three frames.
    """
    if len(path) < 3:
        return Story(None, math.inf)
    laws = [_still(path), *_slides(path, times, touched), _bounce(path, times), _orbit(path, times)]
    price = {"stays still": 0.0, "bounces": 0.012, "orbits": 0.02}
    best = min(laws, key=lambda law: law.error + price.get(law.motion, 0.006))
    if best.error > TOLERANCE:
        return Story(None, best.error)
    line, swell, ripple = _swelling(radius, times)
    if ripple > 0.15 or (best.motion != "stays still" and abs(swell) > 0.4):
        return Story(None, best.error)
    if best.motion != "stays still":
        return best
    if abs(swell) > LEAST_SWELL:
        return Story("grows" if swell > 0 else "shrinks", best.error, nearest(swell, SWELL), "", swell)
    if spin:
        turn = "clockwise" if spin > 0 else "anticlockwise"
        return Story("spins", best.error, nearest(spin, SPIN), turn, spin)
    return best if wobble < 0.08 else Story(None, best.error)


def _rms(residual: np.ndarray, freedom: float) -> float:
    """Root mean square distance of residuals [frames, 2], for as many frames as are left over by the fit."""
    return float(np.sqrt(np.square(residual).sum() / max(residual.size / 2 - freedom, 1)))


def _still(path: np.ndarray) -> Story:
    return Story("stays still", _rms(path - path.mean(0), 0))


def _slides(path: np.ndarray, times: np.ndarray, touched: bool) -> list[Story]:
    clocks = [times]
    if touched:
        clocks += [np.minimum(times, 0.5), np.maximum(times, 0.5)]
    stories = []
    for name, unit in DIRECTIONS.items():
        unit = np.array(unit)
        for clock in clocks:
            off = clock - clock.mean()
            speed = float((path - path.mean(0)) @ unit @ off / max(off @ off, 1e-9))
            if speed > LEAST_SLIDE:
                error = _rms(path - path.mean(0) - speed * off[:, None] * unit, 0)
                stories.append(Story(f"slides {name}", error, nearest(speed, SLIDE), "", speed))
    return stories


def _bounce(path: np.ndarray, times: np.ndarray) -> Story:
    """The world's own gravity and restitution from one of many heights, over a floor that is free."""
    heights = _bounces(tuple(times.tolist()))
    y = -path[:, 1]
    level = y - heights
    misfit = np.square(level - level.mean(1, keepdims=True)).sum(1)
    best = int(misfit.argmin())
    across = np.square(path[:, 0] - path[:, 0].mean()).sum()
    return Story("bounces", float(np.sqrt((misfit[best] + across) / len(path))))


@lru_cache(maxsize=256)
def _bounces(times: tuple[float, ...]) -> np.ndarray:
    return np.array([[bounce_height(u, drop) for u in times] for drop in DROPS])


def _orbit(path: np.ndarray, times: np.ndarray) -> Story:
    """Circles at one of many steady rates: linear in centre, a cosine and a sine."""
    z = path[:, 0] + 1j * path[:, 1]
    z = z - z.mean()
    basis = np.exp(1j * ORBIT_RATES[:, None] * times)  # [rates, frames]
    basis -= basis.mean(1, keepdims=True)  # the centre is fitted with it
    arm = (basis.conj() @ z) / np.square(np.abs(basis)).sum(1)
    errors = np.sqrt(np.square(np.abs(z - arm[:, None] * basis)).mean(1))
    errors[(np.abs(arm) < 0.1) | (np.abs(arm) > 0.4)] = np.inf
    rate = float(ORBIT_RATES[errors.argmin()])
    turn = "clockwise" if rate > 0 else "anticlockwise"
    return Story("orbits", float(errors.min()), nearest(rate / math.tau, TURNS), turn, rate)


def _swelling(radius: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, float, float]:
    """A line through the radii, its slope per clip and the scatter about it, both in mean radii."""
    slope, start = np.polyfit(times, radius, 1)
    line = start + slope * times
    mean = max(float(start + slope / 2), 1e-6)
    return line, float(slope / mean), float(np.sqrt(np.mean(np.square(radius - line)))) / mean
