"""How far a thing's outline lies from a shape of the world: the measure by which the referee is strict about form.

A shape is drawn by the world's own renderer and moved, scaled and turned by Gauss-Newton steps until it covers the
mask best. What is left, sum |mask - drawn|, over the length of the drawn outline is the mean distance between the
two outlines, in pixels. True films leave 0.01 to 0.04; two different shapes of the world at least 0.2.
"""

from __future__ import annotations

import numpy as np

from soralab.world.render import coverage
from soralab.world.scene import SHAPES

# Area over radius squared; the moon's centroid lies this many radii to the left of its centre (tests measure both).
AREA = dict(zip(SHAPES, (3.1416, 3.0976, 1.718, 2.5056, 2.2255, 1.5628), strict=True))
MOON_CENTROID = -0.391
SYMMETRY = {"square": np.pi / 2, "triangle": 2 * np.pi / 3, "cross": np.pi / 2, "moon": 2 * np.pi}
_STARTS = {"square": 5, "triangle": 6, "cross": 5, "moon": 12}  # angles from which a fit begins


def moments(covers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area and centroid, in window sides from the middle, of masks [..., size, size]."""
    size = covers.shape[-1]
    grid = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    area = covers.sum((-2, -1)).clip(1e-6)
    return area, covers.sum(-2) @ grid / area, covers.sum(-1) @ grid / area


def from_moments(pieces: np.ndarray, shape: str, angle) -> np.ndarray:
    """Pose [frames, 4] of a shape that nothing hides, from the area and centroid of its masks [frames, size, size]."""
    area, x, y = moments(pieces)
    size = pieces.shape[-1]
    radius = np.sqrt(area / AREA[shape]) / size
    offset = MOON_CENTROID * radius if shape == "moon" else 0.0
    return np.stack([x - offset * np.cos(angle), y - offset * np.sin(angle), radius, angle + 0 * x], 1)


def starts(pieces: np.ndarray, shape: str) -> np.ndarray:
    """Poses [angles, frames, 4] from which a free fit to masks [frames, size, size] may begin, one each frame."""
    number = _STARTS.get(shape, 1)
    angles = np.arange(number) * SYMMETRY.get(shape, 0.0) / number
    return np.stack([from_moments(pieces, shape, angle) for angle in angles])


def distances(
    pieces: np.ndarray, seen: np.ndarray, shape: str, tried: np.ndarray, reach=np.inf
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distance in pixels between the outlines of pieces and of the shape; softness; the radius. Each [frames].

    `pieces` [frames, height, width], of which the pixels `seen` (bool) can be seen. Each fit begins at the best of the
    poses `tried` [n, frames, 4] and goes no further from it than `reach` (one number or [4]). `softness`: how many more
    pixels of the outline than a sharp one has are neither in nor out, sum m (1 - m), over its length; 0 for a true
    film, 0.02 to 0.2 for one through an autoencoder.
    """
    height, width = pieces.shape[1:]
    side = min(height, width)
    steps = np.array([0.1 / side, 0.1 / side, 0.1 / side, 0.05])  # for the derivatives: tenths of a pixel, radians

    def draw(poses: np.ndarray) -> np.ndarray:
        return coverage([shape] * len(poses), poses, height, width) * seen

    def misfit(drawn: np.ndarray) -> np.ndarray:
        return np.square(drawn - pieces * seen).sum((-2, -1))

    frames, errors = np.arange(len(pieces)), misfit(draw(tried))
    pose, least = tried[errors.argmin(0), frames], errors.min(0)
    lowest, highest = pose - reach, pose + reach
    for _ in range(6):
        around = draw(np.concatenate([pose[None], pose + np.eye(4)[:, None] * steps]))
        slope = around[1:] - around[0]  # [4, frames, height, width]
        normal = np.einsum("ifyx,jfyx->fij", slope, slope)
        normal += np.eye(4) * (1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-6)
        move = np.linalg.solve(normal, np.einsum("ifyx,fyx->fi", slope, pieces * seen - around[0])[..., None])[..., 0]
        closer = pose + np.array([1, 0.5, 0.25])[:, None, None] * move.clip(-6, 6) * steps
        closer = np.clip(closer, lowest, highest)
        errors = misfit(draw(closer))
        better = errors.min(0) < least
        pose = np.where(better[:, None], closer[errors.argmin(0), frames], pose)
        least = np.minimum(least, errors.min(0))
    return *compare(pieces, draw(pose[None])[0], seen), pose[:, 2] * side


def compare(pieces: np.ndarray, drawn: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in pixels and softness, as `distances` says, between masks [..., size, size] without a fit."""
    pieces = pieces * seen
    across, down = np.gradient(drawn, axis=(-1, -2))
    length = (np.hypot(across, down) * seen).sum((-2, -1)).clip(1)
    soft = (pieces * (1 - pieces) - drawn * (1 - drawn) * seen).sum((-2, -1))
    return np.abs(drawn - pieces).sum((-2, -1)) / length, soft / length
