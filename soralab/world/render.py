"""The renderer: scenes in, uint8 films out, and the exact truth beside them.

Every shape is a signed distance d (negative inside) in short sides; a pixel's coverage is clip(1/2 - d / pixel), which
is anti-aliasing to first order. Objects are laid over the background from far to near. Only +, -, *, /, sqrt, min, max
and floor touch the pixels; IEEE 754 rounds all of these exactly, so a clip is the same bytes in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from soralab.world.scene import COLOURS, GRAVITY, RESTITUTION, SHAPES, TEXTURE_PERIOD, Scene

# sRGB. Told apart under normal vision, protanopia, deuteranopia and tritanopia (tests/test_world.py measures it).
PALETTE = {
    "red": (214, 57, 41), "orange": (240, 144, 20), "yellow": (250, 235, 80), "green": (0, 150, 100),
    "cyan": (95, 200, 255), "blue": (35, 85, 215), "pink": (215, 100, 185), "white": (248, 248, 248),
}  # fmt: skip
WALL_COLOUR = (112, 58, 44)
BACKDROPS = {"black": ((16, 16, 20),) * 2, "grey": ((104, 104, 108),) * 2,
             "striped": ((40, 40, 46), (84, 84, 92)), "checkered": ((40, 40, 46), (84, 84, 92))}  # fmt: skip
CHUNK = 64  # clips rendered at once: the working set stays in the cache


def render(
    scenes: Sequence[Scene], frames: int = 8, height: int = 32, width: int = 32, start: float = 0.0, end: float = 1.0
) -> np.ndarray:
    """Film the scenes: uint8 [batch, frames, 3, height, width].

    Frame k shows the moment start + (end - start) * k / frames, in clip lengths; [1, 2) is what happens next.
    A scene keeps its proportions when the frame's are not `scene.aspect`: it is seen in the middle of the frame.
    Raises ValueError for a size below 1 frame or 8 pixels.
    """
    if frames < 1 or height < 8 or width < 8:
        raise ValueError(f"size is {frames}x{height}x{width}; it takes at least 1 frame of 8x8 pixels")
    times = [start + (end - start) * k / frames for k in range(frames)]
    films = np.empty((len(scenes), frames, 3, height, width), np.uint8)
    for i in range(0, len(scenes), CHUNK):
        chunk = scenes[i : i + CHUNK]
        canvas = _backdrop(chunk, times, height, width)
        for layer in range(max(len(s.objects) for s in chunk)):
            which = [k for k, s in enumerate(chunk) if len(s.objects) > layer]
            _paint(canvas, chunk, which, layer, times)
        _build_walls(canvas, chunk, times)
        np.add(canvas, 0.5, out=canvas)
        films[i : i + CHUNK] = canvas  # truncation of x + 1/2 rounds
    return films


def coverage(shapes: Sequence[str], poses: np.ndarray, height: int, width: int) -> np.ndarray:
    """How much of each pixel a shape covers: float32 [n, frames, height, width] in [0, 1].

    `poses` [n, frames, 4] holds (x, y, radius, angle) on the screen, in short sides and radians.
    """
    side = min(height, width)
    grid_x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / side).astype(np.float32)
    grid_y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / side).astype(np.float32)
    cover = np.empty((*poses.shape[:2], height, width), np.float32)
    kinds = np.array([SHAPES.index(s) for s in shapes])
    for kind, name in enumerate(SHAPES):
        rows = np.flatnonzero(kinds == kind)
        if not len(rows):
            continue
        x, y, radius, angle = (poses[rows, :, k, None, None] for k in range(4))
        dx, dy = grid_x - x.astype(np.float32), grid_y[:, None] - y.astype(np.float32)
        if np.any(angle):
            cos, sin = (np.vectorize(f, otypes=[np.float32])(angle) for f in (math.cos, math.sin))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx  # into the shape's own upright axes
        distance = _DISTANCE[name](dx, dy, radius.astype(np.float32))
        distance *= np.float32(-side)
        distance += np.float32(0.5)
        cover[rows] = np.clip(distance, 0, 1, out=distance if distance.shape[2:] == (height, width) else None)
    return cover


def truth(scenes: Sequence[Scene], frames: int = 8, height: int = 32, width: int = 32) -> list[dict]:
    """What is really there. One dict a scene:

    `masks` float32 [objects, frames, height, width] visible coverage; `wall` float32 [height, width] or None;
    `boxes` float32 [objects, frames, 4] (left, top, right, bottom) of the visible part in pixels, NaN where hidden;
    `trajectory` float32 [objects, frames, 2] centres in pixels; `radius`, `angle` [objects, frames] in pixels, radians;
    `depth` the objects' order, furthest first; `camera` [frames] in pixels; `gravity` in pixels per frame squared and
    `restitution`. The scene itself holds the attributes.
    """
    return [_truth(scene, frames, height, width) for scene in scenes]


# ----------------------------------------------------------------------------------------------------- signed distances


def _norm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = x * x + y * y
    return np.sqrt(squares, out=squares)


def _circle(x, y, r):
    return _norm(x, y) - r


def _square(x, y, r):
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.88) * r


def _triangle(x, y, r):
    side = np.float32(math.sqrt(0.75)) * np.abs(x) - np.float32(0.5) * y
    return np.maximum(side, y) - np.float32(0.575) * r  # the inner radius is half of the outer, 1.15


def _cross(x, y, r):
    x, y = np.abs(x), np.abs(y)
    length, arm = np.float32(1.05) * r, np.float32(0.36) * r
    return np.minimum(np.maximum(x - length, y - arm), np.maximum(x - arm, y - length))


def _ring(x, y, r):
    return np.abs(_norm(x, y) - np.float32(0.77) * r) - np.float32(0.23) * r


def _moon(x, y, r):
    bite = np.float32(0.85) * r - _norm(x - np.float32(0.6) * r, y)
    return np.maximum(_norm(x, y) - r, bite)


_DISTANCE = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross, "ring": _ring, "moon": _moon}


# ------------------------------------------------------------------------------------------------------------- painting


def _backdrop(scenes: Sequence[Scene], times: Sequence[float], height: int, width: int) -> np.ndarray:
    """The background of each scene: float32 [batch, frames, 3, height, width] in 0..255."""
    canvas = np.empty((len(scenes), len(times), 3, height, width), np.float32)
    for k, scene in enumerate(scenes):
        dark, light = (np.array(c, np.float32)[:, None, None] for c in BACKDROPS[scene.background])
        if scene.background in ("black", "grey"):
            canvas[k] = dark
            continue
        for j, u in enumerate(times):
            canvas[k, j] = dark + (light - dark) * _texture(scene, u, height, width)
    return canvas


def _texture(scene: Scene, u: float, height: int, width: int) -> np.ndarray:
    """How light the pattern is: float32 [height or 1, width] in [0, 1], shifted against the camera."""
    across = _stripes(width, height, scene.camera_x(u) + scene.texture)
    if scene.background == "striped":
        return across[None, :]
    down = _stripes(height, width, scene.texture)[:, None]
    return across + down - 2 * across * down  # exclusive or, for fractions


def _stripes(length: int, other: int, shift: float) -> np.ndarray:
    side = min(length, other)
    x = ((np.arange(length) + 0.5 - length / 2) / side + shift) / TEXTURE_PERIOD
    distance = (np.abs(x - np.floor(x) - 0.5) - 0.25) * TEXTURE_PERIOD  # to the nearest edge of a stripe
    return np.clip(0.5 - distance * side, 0, 1).astype(np.float32)


def _paint(canvas: np.ndarray, scenes: Sequence[Scene], which: list[int], layer: int, times: Sequence[float]) -> None:
    """Lay the objects of one depth over the canvas, in place."""
    objects = [scenes[k].objects[layer] for k in which]
    poses = np.array([screen_path(scenes[k], layer, times) for k in which])
    cover = coverage([o.shape for o in objects], poses, *canvas.shape[-2:])[:, :, None]
    colours = np.array([PALETTE[o.colour] for o in objects], np.float32)[:, None, :, None, None]
    if len(which) == len(scenes):
        canvas += cover * (colours - canvas)
    else:
        under = canvas[which]
        canvas[which] = under + cover * (colours - under)


def _build_walls(canvas: np.ndarray, scenes: Sequence[Scene], times: Sequence[float]) -> None:
    for k, scene in enumerate(scenes):
        if scene.wall:
            for j, u in enumerate(times):
                cover = wall_coverage(scene, u, *canvas.shape[-2:])
                canvas[k, j] += cover * (np.array(WALL_COLOUR, np.float32)[:, None, None] - canvas[k, j])


def wall_coverage(scene: Scene, u: float, height: int, width: int) -> np.ndarray:
    """How much of each pixel the wall covers: float32 [width] in [0, 1] (it is as high as the frame)."""
    side = min(height, width)
    x = (np.arange(width) + 0.5 - width / 2) / side + scene.camera_x(u)
    left, right = scene.wall
    return np.clip(0.5 - np.maximum(left - x, x - right) * side, 0, 1).astype(np.float32)


def screen_path(scene: Scene, which: int, times: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """(x, y, radius, angle) of object `which` on the screen at each time, in short sides and radians."""
    poses = ((u, scene.objects[which].pose(u)) for u in times)
    return [(x - scene.camera_x(u), y, radius, angle) for u, (x, y, radius, angle) in poses]


def _truth(scene: Scene, frames: int, height: int, width: int) -> dict:
    side, times = min(height, width), [k / frames for k in range(frames)]
    poses = np.array([screen_path(scene, k, times) for k in range(len(scene.objects))])
    masks = coverage([o.shape for o in scene.objects], poses, height, width)
    wall = wall_coverage(scene, 0.0, height, width) * np.ones((height, 1), np.float32) if scene.wall else None
    open_to_view = np.ones_like(masks[0]) if wall is None else 1 - wall + np.zeros_like(masks[0])
    for mask in masks[::-1]:  # the nearest hides the others
        covered = mask.copy()
        mask *= open_to_view
        open_to_view = open_to_view * (1 - covered)
    boxes = np.full((*masks.shape[:2], 4), np.nan, np.float32)
    for index in np.ndindex(*masks.shape[:2]):
        rows, columns = np.nonzero(masks[index] > 0.5)
        if len(rows):
            boxes[index] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    centre = np.array([width / 2, height / 2])
    return {
        "masks": masks, "wall": wall, "boxes": boxes,
        "trajectory": (poses[..., :2] * side + centre).astype(np.float32),
        "radius": (poses[..., 2] * side).astype(np.float32), "angle": poses[..., 3].astype(np.float32),
        "depth": list(range(len(scene.objects))),
        "camera": np.array([scene.camera_x(u) * side for u in times], np.float32),
        "gravity": GRAVITY * side / frames**2, "restitution": RESTITUTION,
    }  # fmt: skip


assert set(PALETTE) == set(COLOURS) and set(_DISTANCE) == set(SHAPES)
