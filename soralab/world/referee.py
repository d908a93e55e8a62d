"""The referee: reads a film and tells what is in it, by geometry alone. Nothing here is learned.

    report = read(film)                  # film [time >= 4, 3, height, width] in [-1, 1], torch or numpy
    score(report, scene)["all"]          # against the truth of a scene
    score_caption(report, read_caption("a red circle slides right"))

It knows the world's palette, shapes and laws, so it can be exact about true films (`validate` measures how exact) and
tolerant of blur, noise and dirt, yet strict: a thing that changes colour is two things, one that changes shape has the
shape None, one whose path follows no law of the world has the motion None, and None is never right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from soralab.world.motion import Story, explain, nearest
from soralab.world.outline import outline, recount
from soralab.world.passage import passage
from soralab.world.scene import RADIUS, Scene, pan
from soralab.world.sight import DEBRIS, Sight, Track, look, to_pixels

PRESENT = 0.75  # share of the frames in which a thing that no wall hides must be seen to have a motion
_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_NEIGHBOURS[1] = True


@dataclass(frozen=True)
class Seen:
    """One thing that the referee sees. What it cannot tell is None (shape, motion) or "" (speed, turn).

    Lengths in short sides. `area` is its mean visible area; `trajectory` [time, 2] its centre on the screen (origin in
    the middle, y down) and `radius` [time], NaN where it is hidden; `visible` [time] bool; `votes` [time] the shape
    that each frame alone shows, or None; `confidence` 0..1 how well shape and colour fit.
    """

    shape: str | None
    colour: str
    size: str
    motion: str | None
    speed: str
    turn: str
    confidence: float
    area: float
    trajectory: np.ndarray
    radius: np.ndarray
    visible: np.ndarray
    votes: tuple[str | None, ...]


@dataclass(frozen=True)
class Report:
    """What is in a film. `objects` the largest first; `wall` its (left, right) edge in short sides at the start."""

    objects: tuple[Seen, ...]
    background: str
    camera: str
    wall: tuple[float, float] | None
    frames: int

    @property
    def count(self) -> int:
        """How many things there are; a wall is not one of them."""
        return len(self.objects)


def read(film) -> Report:
    """Read one film [time >= 4, 3, height >= 16, width >= 16] in [-1, 1], torch or numpy. ValueError for another.

    By design it reads on the CPU; a film may lie on any device.
    """
    sight = look(to_pixels(film))
    frames, side = _frames(sight), min(sight.height, sight.width)
    masks = [track.mask for track in sight.tracks]
    objects = [_see(sight, k, masks) for k in range(len(masks))]
    objects.sort(key=lambda seen: -seen.area)
    wall = None
    if sight.wall is not None:
        wall = tuple(float(edge) for edge in (sight.wall[0] - sight.width / 2) / side)
    return Report(tuple(objects), sight.background, sight.camera, wall, frames)


def read_all(films: Iterable) -> list[Report]:
    """Read films [batch, time, 3, height, width], or any sequence of films."""
    return [read(film) for film in films]


# -------------------------------------------------------------------------------------------------------- one thing


def _frames(sight: Sight) -> int:
    return len(sight.tracks[0].mask) if sight.tracks else 0


def _see(sight: Sight, which: int, masks: list[np.ndarray]) -> Seen:
    """Judge one track in the company of the others."""
    track, mask = sight.tracks[which], masks[which]
    time, side = len(mask), min(sight.height, sight.width)
    area, centre = track.area, np.array([sight.width / 2, sight.height / 2])
    visible = area > DEBRIS * side * side
    touching, met = np.zeros(time, bool), False
    if len(masks) > 1:
        others = sum(m for k, m in enumerate(masks) if k != which)
        near = ndimage.binary_dilation(mask > 0.2, _NEIGHBOURS)
        touching = (near & (others > 0.2)).any((1, 2)) & visible
        met = bool((ndimage.binary_dilation(near, _NEIGHBOURS, iterations=side // 10) & (others > 0.2)).any())
    view = np.broadcast_to(~sight.hidden(), mask.shape)
    open_to_view = view
    still = _behind(mask, others, touching, area) if touching.any() else None
    if still is not None:
        mask, open_to_view, frames = still[None], view[:1], np.array([0])
    elif sight.wall is not None:
        frames = np.flatnonzero(visible & (area > 0.3 * area.max()))
    else:
        frames = np.flatnonzero(visible & ~touching)
        if len(frames) < 3 or touching.mean() > 0.25:
            frames = np.flatnonzero(visible)
    judged = mask.sum((1, 2))[frames] > 0.8 * area.max() if sight.wall is not None else np.ones(len(frames), bool)
    form = outline(mask, open_to_view, frames, judged)
    if still is not None:
        form.votes = [None] * time
        form.centre, form.radius = np.repeat(form.centre, time, 0), np.repeat(form.radius, time)
        seen = view & ~ndimage.binary_dilation(others > 0.1, _NEIGHBOURS)
        poses = np.column_stack([(form.centre - centre) / side, form.radius / side, np.zeros(time)])
        recount(form, track.mask, seen, poses, visible, slack=0.0)
    path = (form.centre - centre) / side
    radius = form.radius / side
    story = _story(sight, track, path, radius, form, visible, met)
    known = np.isfinite(radius)
    size = nearest(float(radius[known].mean()), RADIUS) if known.any() else "small"
    return Seen(
        form.shape, track.colour, size, story.motion, story.speed, story.turn, track.purity * form.overlap,
        float(area.mean()) / side**2, path, radius, visible, tuple(form.votes),
    )  # fmt: skip


def _behind(mask: np.ndarray, others: np.ndarray, touching: np.ndarray, area: np.ndarray) -> np.ndarray | None:
    """The whole mask [height, width] of a still thing that another passes in front of; None if it is not one."""
    apart = area[~touching]
    if area[touching].min() > 0.88 * (apart.max() if len(apart) else area.max()):
        return None  # nothing is cut from it: it is the one in front
    seen = ~ndimage.binary_dilation(others > 0.1, _NEIGHBOURS)
    whole = (mask * seen).sum(0) / np.maximum(seen.sum(0), 1)
    off = (np.abs(mask - whole) * seen).sum() / max(float((mask * seen).sum()), 1e-6)
    return whole if off < 0.2 else None


def _story(sight, track: Track, path, radius, form, visible, met) -> Story:
    """The motion of a thing, from its path without the camera's."""
    time = len(visible)
    times = np.arange(time) / time
    world = path.copy()
    world[:, 0] += pan(sight.camera) * times
    known = np.isfinite(radius)
    if sight.wall is not None:
        found = passage(sight, form.shape, track.mask, world, radius, times)
        if found is not None:
            story, poses, shown, telling = found
            path[:], radius[:] = np.where(shown[:, None], poses[:, :2], np.nan), np.where(shown, poses[:, 2], np.nan)
            view = ~sight.hidden() & np.ones_like(track.mask, bool)
            recount(form, track.mask, view, poses, telling, slack=0.03)
            return story
    if visible.mean() < PRESENT or known.sum() < max(3, time / 3):
        return Story(None, np.inf)
    return explain(world[known], radius[known], times[known], form.spin, form.wobble, met)


# ---------------------------------------------------------------------------------------------------------- scoring


def score(report: Report, scene: Scene) -> dict[str, bool]:
    """Whether the report is right about a scene: shape, colour, motion, turn, count, size, speed, background, camera.

    Shape, colour, motion, size and speed are right when they are for every object. A motion that has a turn ("orbits",
    "spins", "passes behind a wall") is right with the right turn alone. `all`: shape, colour, motion and count.
    """
    wanted = [vars_of(o) for o in scene.objects]
    result = score_caption(report, wanted)
    result["background"] = report.background == scene.background
    result["camera"] = report.camera == scene.camera
    return result


def vars_of(obj) -> dict[str, str | None]:
    """What can be said of a scene's object, as `read_caption` says it; None where there is nothing to say."""
    return {k: getattr(obj, k) or None for k in ("shape", "colour", "size", "motion", "speed", "turn")}


def score_caption(report: Report, attributes: Sequence[dict]) -> dict[str, bool]:
    """Whether the film is what a caption says. `attributes` has a dict for each object, with None for what is unsaid.

    Every object of the caption must be there, and no other: `count`. What is unsaid is right.
    """
    seen = report.objects
    result = {"count": len(seen) == len(attributes)}
    pairs = _match(seen, attributes)
    whole = len(pairs) == len(attributes) and bool(attributes)
    for key in ("shape", "colour", "size", "motion", "speed", "turn"):
        result[key] = whole and all(_agrees(seen[a], attributes[b], key) for a, b in pairs)
    result["motion"] = result["motion"] and result["turn"]
    result["all"] = all(result[key] for key in ("shape", "colour", "motion", "count"))
    return result


def _agrees(seen: Seen, attributes: dict, key: str) -> bool:
    said = attributes.get(key)
    return not said or getattr(seen, key) == said


def _match(seen: Sequence[Seen], attributes: Sequence[dict]) -> list[tuple[int, int]]:
    """Pair what is seen with what is said so that most agrees; colour counts most."""
    weights = {"colour": 4, "shape": 2, "motion": 2, "turn": 0.5, "size": 1, "speed": 0.5}
    agree = [[sum(w * _agrees(s, a, k) for k, w in weights.items()) for a in attributes] for s in seen]
    if not seen or not attributes:
        return []
    rows, columns = linear_sum_assignment(-np.array(agree, float))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
