"""Chapter 06's pictures: one or two things that stand still, what they are called, and whether a picture shows it.

A scene is a pure function of (split, things, seed, index). The referee reads films; a still is shown to it four times
over. `true_scores` says how right it is about true pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.world import referee
from soralab.world.language import thing
from soralab.world.reader import read_caption, read_setting
from soralab.world.scene import GAP, RADIUS, REACH

AXES = ("left of", "above")  # in order of the two numbers of `offset`
COLUMNS = ("shape", "colour", "size", "count", "relation", "all")


def sample(seed: int, index: int, split: str = "train", things: int = 1) -> world.Scene:
    """Scene number `index` of one thing, or of two that keep apart, one left of or above the other.

    In the splits "train" and "test" no shape has the colour that it gives up (world.HELD_OUT_COLOURS), in "held_out"
    one thing does. Raises ValueError for another split or number of things.
    """
    if split not in world.SPLITS or things not in (1, 2):
        raise ValueError(f"split, things: got {split!r}, {things}; takes one of {', '.join(world.SPLITS)}, and 1 or 2")
    rng = Random(f"stills/{split}/{things}/{seed}/{index}")
    background = _pick(rng, world.BACKGROUNDS[:2])
    while True:
        objects = tuple(_thing(rng, world.SIZES if things == 1 else world.SIZES[:2]) for _ in range(things))
        held = [world.held_out(o.shape, o.colour) for o in objects]
        kind = _relation(*objects) if things == 2 else None
        if any(held) == (split == "held_out") and sum(held) < 2 and (things == 1 or kind):
            return world.Scene(objects, background, relation=world.Relation(kind, 0, 1) if kind else None)


def _thing(rng: Random, sizes: Sequence[str]) -> world.Object:
    shape, colour, size = _pick(rng, world.SHAPES), _pick(rng, world.COLOURS), _pick(rng, sizes)
    room = 0.5 - RADIUS[size] * REACH[shape]
    x, y = ((2 * rng.random() - 1) * room for _ in range(2))
    return world.Object(shape, colour, size, "stays still", x=x, y=y)


def _relation(a: world.Object, b: world.Object) -> str | None:
    """What a is to b, if it is plainly something: further away along one axis than along the other by a tenth."""
    dx, dy = b.x - a.x, b.y - a.y
    apart = math.hypot(dx, dy) > 1.15 * (a.radius + b.radius) + GAP
    if not apart or a.colour == b.colour or abs(abs(dx) - abs(dy)) < 0.1:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx > 0 else None
    return "above" if dy > 0 else None


def _pick(rng: Random, items: Sequence[str]) -> str:
    return items[int(rng.random() * len(items))]


def caption(scene: world.Scene) -> str:
    """All that is judged: "a small red circle", "a small red circle is left of a medium blue square"."""
    first, *rest = (thing(o) for o in scene.objects)
    return f"{first} is {scene.relation.kind} {rest[0]}" if rest else first


def prompt(scene: world.Scene, rng: Random, null: float = 0.1) -> str:
    """What a training picture is called: its caption, at times without sizes, at times with the background, or ""."""
    if rng.random() < null:
        return ""
    words = caption(scene)
    if rng.random() < 0.3:
        words = " ".join(word for word in words.split() if word not in world.SIZES)
    return f"{words} on a {scene.background} background" if rng.random() < 0.3 else words


def pictures(scenes: Sequence[world.Scene], side: int = 32) -> Tensor:
    """The scenes as pictures [n, 3, side, side] in [-1, 1]."""
    return world.to_film(world.render(scenes, 1, side, side))[:, 0]


def mixed(seed: int, index: int, split: str = "train") -> world.Scene:
    """Scene number `index` of a set in which two pictures of five have two things."""
    return sample(seed, index, split, 2 if index % 5 in (1, 3) else 1)


# ----------------------------------------------------------------------------------------------------------- judging


def read(picture: Tensor) -> referee.Report:
    """What the referee sees in a picture [3, height, width] in [-1, 1]; motions mean nothing."""
    return referee.read(picture.clamp(-1, 1).expand(4, -1, -1, -1))


def marks(picture: Tensor, text: str) -> dict[str, bool]:
    """Whether a picture is what its prompt says, for each of COLUMNS; what is unsaid is right.

    "binding": shapes and colours are all there, and belong to the wrong things. It is an error, not a merit.
    """
    report, wanted, said = read(picture), read_caption(text), read_setting(text)["relation"]
    result = referee.score_caption(report, wanted)
    found = {column: result[column] for column in COLUMNS[:4]}
    apart = offset(report, text) if said else None
    found["relation"] = not said or (apart is not None and apart[AXES.index(said[0])] > 0)
    found["all"] = all(found.values())
    seen = [(o.shape, o.colour) for o in report.objects]
    want = [(o["shape"], o["colour"]) for o in wanted]
    parts = all(sorted(map(str, a)) == sorted(map(str, b))
                for a, b in zip(zip(*seen, strict=True), zip(*want, strict=True), strict=False))  # fmt: skip
    found["binding"] = len(seen) == len(want) > 1 and parts and sorted(map(str, seen)) != sorted(map(str, want))
    return found


def offset(report: referee.Report, text: str) -> tuple[float, float] | None:
    """(right, down) from the first to the second of the two things of a prompt, in short sides of the frame.

    None unless the picture shows exactly one thing of each one's colour.
    """
    places = [[o.trajectory[0] for o in report.objects if o.colour == one["colour"]] for one in read_caption(text)]
    if [len(here) for here in places] != [1, 1]:
        return None
    (first,), (second,) = places
    return float(second[0] - first[0]), float(second[1] - first[1])


def scores(shown: Tensor, texts: Sequence[str]) -> dict[str, float]:
    """The share of pictures [n, 3, height, width] that are what their texts say, for COLUMNS and "binding"."""
    table = [marks(picture, text) for picture, text in zip(shown, texts, strict=True)]
    return {column: sum(mark[column] for mark in table) / len(table) for column in (*COLUMNS, "binding")}


def prompts(split: str, things: int, count: int, seed: int = 60) -> tuple[list[str], list[world.Scene]]:
    """`count` captions of a split, and the scenes that they were taken from."""
    scenes = [sample(seed, k, split, things) for k in range(count)]
    return [caption(scene) for scene in scenes], scenes


def true_scores(split: str, things: int, count: int) -> dict[str, float]:
    """The same scores of true pictures: the referee's own errors."""
    texts, scenes = prompts(split, things, count)
    return scores(pictures(scenes), texts)


def spread(shown: Tensor) -> float:
    """How far the things in pictures of one prompt stand from their middle, in short sides: root mean square.

    0 if all pictures are alike; for places drawn anywhere in the frame, of a medium thing, about 0.27.
    """
    places = [read(picture).objects for picture in shown]
    centres = torch.tensor([[float(v) for v in seen[0].trajectory[0]] for seen in places if seen])
    if len(centres) < 2:
        return 0.0
    return centres.var(0).sum().sqrt().item()  # by n - 1, so that small sets are no narrower
