"""What a text claims of a scene, held against the truth: caption precision and recall, counted exactly.

    table = judge("a small red circle is left of a blue square", scene)
    precision(table), recall(table)

A claim is one attribute of one thing ("red"), a relation, a background or a camera. It is

    right     the scene has it
    wrong     it speaks of a thing that is there (its colour or its shape is right), but not so
    invented  it speaks of a thing that is not there, or of what cannot be seen: a motion in a picture

and what the scene shows and no claim got right is "missed". A thing of the text is paired with the thing of the scene
that it fits best, as the referee pairs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from soralab.world.reader import read_caption, read_setting
from soralab.world.scene import Object, Scene

FATES = ("right", "wrong", "invented", "missed")
OF_THINGS = ("shape", "colour", "size", "motion", "speed", "turn")
KINDS = (*OF_THINGS, "relation", "background", "camera")
STILL = ("shape", "colour", "size", "relation", "background")  # what a single picture can show
_WEIGHTS = {"colour": 4, "shape": 2, "motion": 2, "size": 1, "turn": 0.5, "speed": 0.5}

Table = dict[str, dict[str, int]]  # {kind: {fate: how many}}


def judge(text: str, scene: Scene, film: bool = False) -> Table:
    """The claims of a text about a picture of the scene, or about its film, counted for each of KINDS and FATES.

    A relation is right if it is the scene's own, between the same two things in the same order; one that is claimed of
    two things that are there is wrong otherwise. In a picture motion, speed, turn and camera cannot be seen: whoever
    claims them invents, and nobody misses them.
    """
    table = {kind: dict.fromkeys(FATES, 0) for kind in KINDS}
    told, setting = read_caption(text), read_setting(text)
    visible = KINDS if film else STILL
    pairs = paired(told, scene.objects)

    def count(kind: str, said: str | None, true: str | None, there: bool = True) -> None:
        true = true if kind in visible else None
        right = said is not None and said == true
        fate = "right" if right else "wrong" if there and true is not None else "invented"
        table[kind][fate] += said is not None
        table[kind]["missed"] += true is not None and not right

    for number, one in enumerate(told):
        thing = scene.objects[pairs[number]] if number in pairs else None
        for kind in OF_THINGS:
            count(kind, one[kind], (getattr(thing, kind) or None) if thing else None, thing is not None)
    for number, thing in enumerate(scene.objects):
        if number not in pairs.values():
            for kind in OF_THINGS:
                count(kind, None, getattr(thing, kind) or None)
    said, true = setting["relation"], scene.relation
    if said:  # in the scene's numbers, where both things are there
        known = said[1] in pairs and said[2] in pairs
        said = (said[0], pairs.get(said[1]), pairs.get(said[2]))
    count("relation", said, true and (true.kind, true.a, true.b), there=bool(said) and known)
    count("background", setting["background"], scene.background)
    count("camera", setting["camera"], scene.camera)
    return table


def paired(told: Sequence[dict], things: Sequence[Object]) -> dict[int, int]:
    """Which thing of a scene each thing of a text speaks of: {number in the text: number in the scene}.

    The pairing that agrees most, in which colour counts most; a pair agrees at least in colour or shape.
    """
    if not told or not things:
        return {}
    agree = [[sum(w for k, w in _WEIGHTS.items() if one[k] and one[k] == getattr(thing, k)) for thing in things]
             for one in told]  # fmt: skip
    rows, columns = linear_sum_assignment(-np.array(agree, float))
    return {int(a): int(b) for a, b in zip(rows, columns, strict=True)
            if any(told[a][k] and told[a][k] == getattr(things[b], k) for k in ("colour", "shape"))}  # fmt: skip


def together(tables: Iterable[Table]) -> Table:
    """The sum of tables."""
    total = {kind: dict.fromkeys(FATES, 0) for kind in KINDS}
    for table in tables:
        for kind, row in table.items():
            for fate, number in row.items():
                total[kind][fate] += number
    return total


def precision(table: Table, kinds: Iterable[str] = KINDS) -> float:
    """The share of the claims that are right; 1 where nothing is claimed."""
    right, wrong, invented, _ = _sums(table, kinds)
    return right / (right + wrong + invented) if right + wrong + invented else 1.0


def recall(table: Table, kinds: Iterable[str] = KINDS) -> float:
    """The share of what the scenes show that is claimed rightly; 1 where they show nothing."""
    right, _, _, missed = _sums(table, kinds)
    return right / (right + missed) if right + missed else 1.0


def _sums(table: Table, kinds: Iterable[str]) -> list[int]:
    kinds = tuple(kinds)
    return [sum(table[kind][fate] for kind in kinds) for fate in FATES]


def keeps(prompt: str, longer: str) -> bool:
    """Whether a longer text says all that a prompt says, of as many things, and nothing that contradicts it.

    Each thing of the prompt is found again with all its attributes, its relation between the same two, its background
    and its camera. What the prompt leaves open may be anything; a relation between things that it names apart, too.
    """
    asked, told = read_caption(prompt), read_caption(longer)
    if len(asked) != len(told):
        return False
    wanted, found = read_setting(prompt), read_setting(longer)
    if any(wanted[key] not in (None, found[key]) for key in ("background", "camera")):
        return False
    fits = [[all(one[k] in (None, other[k]) for k in OF_THINGS) for other in told] for one in asked]
    for order in _orders(fits):
        if wanted["relation"] is None:
            return True
        kind, a, b = wanted["relation"]
        if found["relation"] == (kind, order[a], order[b]):
            return True
    return False


def _orders(fits: list[list[bool]], taken: tuple[int, ...] = ()) -> Iterable[tuple[int, ...]]:
    """All ways to give each thing of the prompt one of its own that fits."""
    if len(taken) == len(fits):
        yield taken
        return
    for k, right in enumerate(fits[len(taken)]):
        if right and k not in taken:
            yield from _orders(fits, (*taken, k))
