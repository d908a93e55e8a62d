"""The referee's check of object permanence: does a thing go behind the wall, stay hidden, and come out on time?

The thing is drawn again along a steady path, with the wall before it, and compared with what the film shows.
"""

from __future__ import annotations

import numpy as np

from soralab.world.fit import AREA
from soralab.world.motion import TOLERANCE, Story
from soralab.world.render import coverage
from soralab.world.scene import WALL, pan
from soralab.world.sight import Sight

LEAST_OVERLAP = 0.4  # of what should be seen with what is seen, over the whole film
LEAST_SPEED = 0.3  # short sides per clip
TRACKED, RECOGNISED = 0.15, 0.35  # share of a thing that must be seen in a frame to tell its place, and its shape
MISSING = 0.1  # of its area: a frame that shows less of it shows nothing, which one frame may


def passage(
    sight: Sight, shape: str | None, mask: np.ndarray, world: np.ndarray, radius: np.ndarray, times: np.ndarray
) -> tuple[Story, np.ndarray, np.ndarray, np.ndarray] | None:
    """The story of a thing that passes behind the wall, its poses [time, 4] on the screen, and two kinds of frames.

    Both are bool [time]: those that show where it is, and those that must show its shape.

    `mask` [time, height, width]; `world` [time, 2] and `radius` [time] are its centres without the camera's motion and
    its radii in short sides, NaN where it was not measured. None if it does not pass as a thing of the world does.
    """
    known = np.isfinite(radius)
    if known.sum() < 2:
        return None
    side = min(sight.height, sight.width)
    y, error, laws = _laws(sight, world[known], times[known], side)
    sizes = (float(np.median(radius[known])), np.sqrt(mask.sum((1, 2)).max() / AREA[shape or "circle"]) / side)
    best = (0.0, 0.0, None, None)
    for speed, start in laws:
        for size in sizes:
            x = start + speed * times - pan(sight.camera) * times
            poses = np.stack([x, y + 0 * x, size + 0 * x, 0 * x], 1)
            overlap, share = _fits(sight, shape or "circle", mask, poses)
            if overlap > best[0]:
                best = (overlap, speed, poses, share)
    overlap, speed, poses, share = best
    if overlap < LEAST_OVERLAP or abs(speed) < LEAST_SPEED:
        return None
    poses = _follow(sight, shape or "circle", mask, poses)
    there = mask.sum((1, 2)) / (AREA[shape or "circle"] * np.square(poses[:, 2] * side))
    shown = np.minimum(share, there) > TRACKED
    if shown.sum() < 2:
        return None
    off = poses[shown, 0] + pan(sight.camera) * times[shown]
    error = float(np.std(off - np.polyval(np.polyfit(times[shown], off, 1), times[shown])))
    if error > TOLERANCE:
        return None
    story = Story(WALL, error, "", "right" if speed > 0 else "left", speed)
    return story, poses, shown, (share > RECOGNISED) & (there > MISSING)


def _follow(sight: Sight, shape: str, mask: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """The poses [time, 4], moved along x, frame by frame, to where they explain the mask best."""
    shifts = np.linspace(-0.12, 0.12, 25)
    tried = np.repeat(poses[None], len(shifts), 0)
    tried[..., 0] += shifts[:, None]
    shown = coverage([shape] * len(shifts), tried, sight.height, sight.width) * ~sight.hidden()
    best = np.square(shown - mask).sum((2, 3)).argmin(0)
    return tried[best, np.arange(len(poses))]


def _laws(sight: Sight, world: np.ndarray, times: np.ndarray, side: int) -> tuple[float, float, list]:
    """Height, error and the steady paths (speed, start) that the measured centres [frames, 2] allow."""
    x, y = world[:, 0], float(np.median(world[:, 1]))
    middle = (sight.wall[0].mean() - sight.width / 2) / side  # the wall stands still in the world
    speed, start = np.polyfit(times, x, 1)
    error = float(np.sqrt(np.mean(np.square(x - start - speed * times) + np.square(world[:, 1] - y))))
    if (x[0] - middle) * (x[-1] - middle) <= 0:
        return y, error, [(float(speed), float(start))] if error < TOLERANCE else []
    towards = np.sign(middle - x.mean())  # on the other side too little is seen to be measured: try many paths
    way = towards if times.mean() < 0.5 else -towards
    speeds, moments = np.arange(0.5, 0.85, 0.05), (0.44, 0.47, 0.5, 0.53, 0.56)
    return y, error, [(float(way * v), float(middle - way * v * u)) for v in speeds for u in moments]


def _fits(sight: Sight, shape: str, mask: np.ndarray, poses: np.ndarray) -> tuple[float, np.ndarray]:
    """Overlap 0..1 of what should be seen along the poses with what is, 0 if it is no passage; visible share [time]."""
    whole = coverage([shape], poses[None], sight.height, sight.width)[0]
    shown = whole * ~sight.hidden()
    wanted, there, full = shown.sum((1, 2)), mask.sum((1, 2)), whole.sum((1, 2)).clip(1)
    share = wanted / full
    deepest = int(share.argmin())
    came_out = min(there[: deepest + 1].max(), there[deepest:].max()) > 0.1 * there.max()
    missed = (np.abs(there - wanted) > 0.35 * full.max()).sum()
    if share[deepest] > 0.3 or not came_out or missed > max(1, len(mask) // 8):
        return 0.0, share
    both = np.minimum(shown, mask).sum()
    return float(both / (shown.sum() + mask.sum() - both)), share
