"""How chapter 15's edits are judged: the strict referee says what is there, the scene what should have stayed.

A film of the world has what no real film has: the film that an edit asks for can be drawn. So beside every score stands
that of the true edited film, after the first stage's copy of it: no edit can be expected to do better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from torch import Tensor

from soralab import world
from soralab.figures.curves import wilson
from soralab.recipes.tune_a_video import SEED, Shot
from soralab.world import referee
from soralab.world.scene import INVISIBLE

KINDS = ("colour", "shape")  # what an edit changes
COLUMNS = ("changed", "motion", "place", "rest", "background", "both", "all")
NEAR = 2 / 32  # short sides: a thing is in its place if its centre is never further off than two of the 32 pixels


@dataclass(frozen=True)
class Edit:
    """A film that is asked for: what is changed ("colour" or "shape"), from which shot, and the true edited one."""

    kind: str
    source: Shot
    wanted: Shot


def edits(source: Shot, index: int) -> list[Edit]:
    """The edits of shot number `index`: its thing in another colour, and another thing in its colour.

    The new one is drawn among those whose colour and shape training has met together, and whose motion can be seen.
    """
    rng, (thing,) = Random(f"edit/{SEED}/{index}"), source.scene.objects
    found = []
    for kind, names in zip(KINDS, (world.COLOURS, world.SHAPES), strict=True):
        others = [replace(thing, **{kind: name}) for name in names if name != getattr(thing, kind)]
        others = [o for o in others if not world.held_out(o.shape, o.colour) and (o.shape, o.motion) not in INVISIBLE]
        other = others[int(rng.random() * len(others))]
        found.append(Edit(kind, source, Shot.of(replace(source.scene, objects=(other,)))))
    return found


def marks(edit: Edit, film: Tensor) -> dict[str, bool]:
    """Whether a film [frames, 3, height, width] is the edit, for each of COLUMNS.

    changed: one thing alone, which has the new colour (shape) in every visible frame; motion: the old motion, with its
    turn; place: the centre where it was in every frame; rest: shape (colour); both: changed and motion; all: all five.
    """
    report, thing = referee.read(film), edit.wanted.scene.objects[0]
    wanted = {"shape": thing.shape, "colour": thing.colour, "motion": thing.motion, "turn": thing.turn or None}
    said = referee.score_caption(report, [wanted])
    other = KINDS[1 - KINDS.index(edit.kind)]
    found = {"changed": said[edit.kind] and said["count"], "motion": said["motion"],
             "place": apart(report, thing) <= NEAR, "rest": said[other],
             "background": report.background == edit.wanted.scene.background}  # fmt: skip
    found["both"] = found["changed"] and found["motion"]
    return {**found, "all": all(found.values())}


def apart(report: referee.Report, thing: world.Object) -> float:
    """The largest distance, over the frames, of the largest thing that is seen from where `thing` is, in short sides.

    Infinite where nothing is seen in three frames or more.
    """
    if not report.objects:
        return math.inf
    seen = report.objects[0]
    path = np.array([thing.pose(k / report.frames)[:2] for k in range(report.frames)])
    known = np.isfinite(seen.trajectory).all(1)
    if known.sum() < 3:
        return math.inf
    return float(np.linalg.norm(seen.trajectory - path, axis=1)[known].max())


def counted(rows: Iterable[dict[str, bool]]) -> dict[str, int]:
    """{"edits": how many, and for each of COLUMNS in how many it is true}."""
    rows = list(rows)
    return {"edits": len(rows), **{column: sum(bool(row[column]) for row in rows) for column in COLUMNS}}


def interval(right: int, count: int) -> str:
    """A share with its 95 % Wilson interval, 15 letters, so that shares stand below each other in a table:
    " 85 % [71, 93] ", "100 % [91, 100]"."""
    low, high = wilson(right, count)
    return f"{100 * right / count:3.0f} % {f'[{100 * low:.0f}, {100 * high:.0f}]':9s}"


def by_chance(ours: int, theirs: int) -> float:
    """How likely so uneven a count is, or a more uneven one, if each of these edits were as likely either's: the
    two-sided sign test of the edits that one arm alone has right. 1 where there are none."""
    count, few = ours + theirs, min(ours, theirs)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(few + 1)) / 2**count)
