"""The endless film library: scene number `index` of the library `seed`.

A scene is a pure function of (level, split, aspect, seed, index). It is drawn from `random.Random.random()`, the one
stream that Python promises never to change, so a clip is the same in any process, on any machine, for good.
"""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from soralab.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    CLOCK,
    COLOURS,
    DIRECTIONS,
    GAP,
    INVISIBLE,
    LEVELS,
    MOTIONS,
    RADIUS,
    REACH,
    RELATIONS,
    SHAPES,
    SIZES,
    SLIDE,
    SLIDES,
    SPEEDS,
    SPLITS,
    WALL,
    Object,
    Relation,
    Scene,
)  # fmt: skip


def sample_scene(seed: int, index: int, level: str = "full", split: str = "train", aspect: float = 1.0) -> Scene:
    """Scene number `index` of the endless film library `seed`.

    `level` "simple": one object, a plain background, a camera that stands still, every motion. "full": everything.
    `split` "train" and "test" have no held-out combination and different streams; in "held_out" every scene has one.
    `aspect` is width over height, from 1/3 to 3. Raises ValueError for a name or number it does not know.
    """
    for name, value, known in (("level", level, LEVELS), ("split", split, SPLITS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(known)}")
    if not 1 / 3 <= aspect <= 3:
        raise ValueError(f"aspect is {aspect:g}; it takes width over height from 1/3 to 3")
    rng = Random(f"{split}/{level}/{aspect:.6f}/{seed}/{index}")
    draw = _simple_plan if level == "simple" else _full_plan
    while True:
        attempt = draw(rng, aspect)  # what kind of scene: fixed, so that hard kinds do not become rare ones
        for _ in range(300):
            scene = attempt()
            if scene is not None and scene.held_out == (split == "held_out"):
                return scene


def _pick(rng: Random, items):
    return items[int(rng.random() * len(items))]


def _between(rng: Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _simple_plan(rng: Random, aspect: float):
    scene = Scene((), _pick(rng, BACKGROUNDS[:2]), aspect=aspect)
    return lambda: _add(rng, scene, 1)


def _full_plan(rng: Random, aspect: float):
    background = _pick(rng, BACKGROUNDS)
    panning = background in BACKGROUNDS[2:] and rng.random() < 0.5
    scene = Scene((), background, _pick(rng, CAMERAS[1:]) if panning else "still", None, aspect, rng.random())
    count = _pick(rng, (1, 1, 2, 2, 2, 3))
    if count == 2 and not panning and rng.random() < 0.6:
        related = _RELATED[_pick(rng, RELATIONS)]
        return lambda: related(rng, scene)
    return lambda: _add(rng, scene, count)


def _add(rng: Random, scene: Scene, count: int) -> Scene | None:
    """Put `count` things that keep clear of each other into the scene; None if no room was found."""
    for _ in range(20 * count):
        obj = _place(rng, _describe(rng, count), scene)
        if obj and obj.colour not in (o.colour for o in scene.objects) and apart(obj, scene):
            scene = _with(scene, obj)
        if len(scene.objects) == count:
            return scene
    return None


def _with(scene: Scene, *objects: Object, relation: Relation | None = None) -> Scene:
    return Scene(
        scene.objects + objects, scene.background, scene.camera, relation, scene.aspect, scene.texture
    )


def _describe(rng: Random, count: int = 1, **fixed) -> dict:
    """Draw an object's attributes: the motion first, then only what can be seen with it."""
    motions = MOTIONS if count == 1 else MOTIONS[:-1]  # the wall stands in one-object scenes alone
    motion = fixed.get("motion") or _pick(rng, motions)
    shapes = [s for s in SHAPES if (s, motion) not in INVISIBLE]
    sizes = SIZES if count == 1 else SIZES[:2] if count == 2 else SIZES[:1]
    if motion == WALL:
        sizes = SIZES[:2]  # a large thing would never be whole on either side of its wall
    words = {"shape": _pick(rng, shapes), "colour": _pick(rng, COLOURS), "size": _pick(rng, sizes), "motion": motion}
    words["speed"] = "" if motion in ("stays still", "bounces", WALL) else _pick(rng, SPEEDS)
    turns = {"orbits": ("clockwise", "anticlockwise"), "spins": ("clockwise", "anticlockwise"), WALL: ("left", "right")}
    words["turn"] = _pick(rng, turns[motion]) if motion in turns else ""
    return {**words, **fixed}


def _place(rng: Random, words: dict, scene: Scene) -> Object | None:
    """Give a described object a path that stays inside the frame for the whole clip; None if there is none."""
    half_x, half_y = scene.half
    motion, radius = words["motion"], RADIUS[words["size"]]
    path: dict = {"phase": _between(rng, 0, math.tau)} if motion in ("orbits", "spins") else {}
    if motion in SLIDES:
        dx, dy = DIRECTIONS[motion.removeprefix("slides ")]
        path["velocity"] = (dx * SLIDE[words["speed"]], dy * SLIDE[words["speed"]])
    elif motion == "orbits":
        path["orbit"] = _between(rng, 0.17, min(0.26, 0.49 - radius * REACH[words["shape"]]))
    elif motion == WALL:
        side = 1.0 if words["turn"] == "right" else -1.0
        travel = 1.0 - 2 * radius * REACH[words["shape"]]  # from one side of a square to the other
        path["velocity"] = (side * travel, 0.0)
    trial = Object(**words, **path)
    points = [_screen(trial, scene, u) for u in (CLOCK if motion == "orbits" else (0.0, 1.0))]
    spread = [reach for *_, reach in points]
    low_x = -half_x - min(x - s for (x, _, _), s in zip(points, spread, strict=True))
    high_x = half_x - max(x + s for (x, _, _), s in zip(points, spread, strict=True))
    low_y = -half_y - min(y - s for (_, y, _), s in zip(points, spread, strict=True))
    high_y = half_y - max(y + s for (_, y, _), s in zip(points, spread, strict=True))
    if motion == WALL:
        middle = -path["velocity"][0] / 2  # hidden half-way; a camera that pans may lose it before it is out again
        if not low_x - 1e-9 <= middle <= high_x + 1e-9:
            return None
        low_x = high_x = middle
    if motion == "bounces":
        path["floor"] = half_y - spread[0]
        drop = _between(rng, 0.4, min(0.6, 2 * path["floor"]))
        low_y = high_y = path["floor"] - drop
    if low_x > high_x + 1e-9 or low_y > high_y + 1e-9:
        return None
    return Object(**words, **path, x=_between(rng, low_x, high_x), y=_between(rng, low_y, high_y))


def _screen(obj: Object, scene: Scene, u: float) -> tuple[float, float, float]:
    """(x, y, reach) of the object on the screen at time u."""
    x, y, radius, _ = obj.pose(u)
    return x - scene.camera_x(u), y, radius * obj.reach


def apart(obj: Object, scene: Scene) -> bool:
    """Whether the object keeps clear of all others for the whole clip."""
    for other in scene.objects:
        for (x0, y0, r0, _), (x1, y1, r1, _) in zip(obj.path, other.path, strict=True):
            if math.hypot(x0 - x1, y0 - y1) < 1.15 * (r0 + r1) + GAP:
                return False
    return True


# --------------------------------------------------------------------------------------------------------- relations


def _pair(rng: Random, first: dict, second: dict) -> tuple[dict, dict] | None:
    words = _describe(rng, 2, **first), _describe(rng, 2, **second)
    return None if words[0]["colour"] == words[1]["colour"] else words


def _beside(kind: str):
    def related(rng: Random, scene: Scene) -> Scene | None:
        calm = ("stays still", "spins", "grows", "shrinks")
        words = _pair(rng, {"motion": _pick(rng, calm)}, {"motion": _pick(rng, calm)})
        if words is None:
            return None
        a, b = _place(rng, words[0], scene), _place(rng, words[1], scene)
        if a is None or b is None:
            return None
        if (b.x < a.x) if kind == "left of" else (b.y < a.y):
            a, b = b, a
        shift = _between(rng, -0.1, 0.1)  # side by side, not cornerwise: line b up with a
        b = replace(b, y=a.y + shift) if kind == "left of" else replace(b, x=a.x + shift)
        if not (apart(b, _with(scene, a)) and _inside(b, scene)):
            return None
        return _with(scene, a, b, relation=Relation(kind, 0, 1))

    return related


def _inside(obj: Object, scene: Scene) -> bool:
    """Whether the object is whole within the frame for the whole clip."""
    points = [_screen(obj, scene, u) for u in CLOCK]
    return all(abs(x) + reach <= scene.half[0] and abs(y) + reach <= scene.half[1] for x, y, reach in points)


def _in_front(rng: Random, scene: Scene) -> Scene | None:
    """A small thing slides across a still, larger one, and hides part of it for a while."""
    direction = _pick(rng, ("right", "left", "up", "down"))
    words = _pair(
        rng,
        {"motion": f"slides {direction}", "size": "small", "speed": "fast"},
        {"motion": "stays still", "size": _pick(rng, SIZES[1:]), "speed": ""},
    )
    if words is None:
        return None
    dx, dy = DIRECTIONS[direction]
    back = Object(**words[1], x=_between(rng, -0.03, 0.03), y=_between(rng, -0.03, 0.03))
    travel = 1.0 - 2 * RADIUS["small"] * REACH[words[0]["shape"]]
    side = _between(rng, -0.06, 0.06)
    start = (-dx * travel / 2 + dy * side, -dy * travel / 2 + dx * side)
    front = Object(**words[0], x=start[0], y=start[1], velocity=(dx * travel, dy * travel))
    return _with(scene, back, front, relation=Relation("in front of", 1, 0))


def bump(rng: Random, scene: Scene) -> Scene | None:
    """An equal-mass collision: the first thing stops, the second goes on with its velocity."""
    direction = _pick(rng, ("right", "left"))
    fixed = {"motion": f"slides {direction}", "size": "small", "speed": "fast"}
    words = _pair(rng, fixed, fixed)
    if words is None:
        return None
    sign, y = DIRECTIONS[direction][0], _between(rng, -0.3, 0.3)
    reach_a, reach_b = (RADIUS["small"] * WIDTH[w["shape"]] for w in words)
    travel = min(0.26, (1.0 - 2 * reach_a - 2 * reach_b) / 2)  # of each, in half a clip
    start = -(reach_a + reach_b + 2 * travel) / 2 - (reach_b - reach_a) / 2
    velocity = (sign * 2 * travel, 0.0)
    hit = start + travel + reach_a + reach_b
    a = Object(**words[0], x=sign * start, y=y, velocity=velocity, stops=0.5)
    b = Object(**words[1], x=sign * hit, y=y, velocity=velocity, starts=0.5)
    return _with(scene, a, b, relation=Relation("bumps into", 0, 1))


WIDTH = {**REACH, "triangle": 1.0}  # half the width of an upright shape, in radii
_RELATED = {"left of": _beside("left of"), "above": _beside("above"), "in front of": _in_front, "bumps into": bump}
