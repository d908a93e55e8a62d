"""Questions about a scene, each with its one exact answer.

Three rules. A question names its object so that no other fits ("the circle" only where there is one circle).
Nothing is asked that cannot be seen or has two answers: the size of a thing that grows, whether the thing
that was hit bumps into the other. And a yes/no question says nothing about its own answer: over training
scenes "yes" and "no" are equally likely given the words of the question, so a model that does not look gets
half of them right.

The last rule is kept by exchange. Where two objects differ in an attribute, the false claim takes the other
object's value ("Is the red object a circle?" when the blue one is): swap the two and it is true, and such
scenes are as common. Where there is one object, the false value is drawn as often as training scenes have it.
"""

from __future__ import annotations

from itertools import permutations
from random import Random

from soralab.world.scene import (
    COLOURS,
    HELD_OUT_COLOURS,
    HELD_OUT_MOTIONS,
    MOTIONS,
    SHAPES,
    SIZES,
    SPEEDS,
    WALL,
    Object,
    Scene,
    held_out,
)

KINDS = (
    "colour", "shape", "motion", "count", "size", "speed", "turn", "background", "camera", "relation",
    "yes/no",
)  # fmt: skip
NUMBERS = ("zero", "one", "two", "three")
YES_NO = "yes/no"

# The other value of a yes/no question where values come in pairs of equal frequency.
_OPPOSITE = {
    "black": "grey", "grey": "black", "striped": "checkered", "checkered": "striped",
    "pans left": "pans right", "pans right": "pans left", "left": "right", "right": "left",
    "clockwise": "anticlockwise", "anticlockwise": "clockwise", "slow": "fast", "fast": "slow",
}  # fmt: skip
_VALUES = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "size": SIZES, "speed": SPEEDS}
_SIDES = {
    "left of": ("left or right of", "left", "right"),
    "above": ("above or below", "above", "below"),
    "in front of": ("in front of or behind", "in front", "behind"),
}


def questions(scene: Scene, rng: Random) -> list[tuple[str, str]]:
    """One (question, answer) of each kind that the scene allows, in the order of `KINDS`.

    "yes" and "no" have the same chance, whatever is asked.
    """
    asked = []
    for kind in KINDS[:-1]:
        options = ask(scene, kind)
        if options:
            asked.append(_pick(rng, options))
    true, false = _pick(rng, _claims(scene))
    asked.append((_pick(rng, true), "yes") if rng.random() < 0.5 else (_pick(rng, false), "no"))
    return asked


def ask(scene: Scene, kind: str) -> list[tuple[str, str]]:
    """All questions of one kind about the scene, with their answers; empty if it allows none.

    Raises ValueError for a kind that is not one of `KINDS`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it takes one of {', '.join(KINDS)}")
    if kind == YES_NO:
        pairs = [(claim, "yes") for true, _ in _claims(scene) for claim in true]
        pairs += [(claim, "no") for _, false in _claims(scene) for claim in false]
        return list(dict.fromkeys(pairs))
    if kind == "count":
        return _counts(scene)
    if kind == "background":
        return [("What does the background look like?", scene.background)]
    if kind == "camera":
        return [("What does the camera do?", "stays still" if scene.camera == "still" else scene.camera)]
    if kind == "relation":
        return _relations(scene)
    return [
        (_open_question(kind, name, obj), getattr(obj, kind))
        for obj in scene.objects
        if _can_be_told(obj, kind)
        for name in _names(scene, obj, kind)
    ]


# --------------------------------------------------------------------------------------------- open questions


def _can_be_told(obj: Object, kind: str) -> bool:
    """A still thing has no speed; a thing that grows has no one size."""
    return bool(getattr(obj, kind)) and not (kind == "size" and obj.motion in ("grows", "shrinks"))


def _names(scene: Scene, obj: Object, asked: str) -> list[str]:
    """Every description that fits this object alone and does not give away what is asked."""
    names = ["the object"] if len(scene.objects) == 1 else []
    for attribute, name in (
        ("colour", f"the {obj.colour} object"),
        ("shape", f"the {obj.shape}"),
        ("motion", f"the object that {obj.motion}"),
    ):
        alone = sum(getattr(other, attribute) == getattr(obj, attribute) for other in scene.objects) == 1
        if alone and attribute != asked and not (attribute == "motion" and asked in ("speed", "turn")):
            names.append(name)
    return names


def _open_question(kind: str, name: str, obj: Object) -> str:
    if kind == "motion":
        return f"What does {name} do?"
    if kind == "speed":
        return f"Is {name} slow or fast?"
    if kind == "turn":
        return f"Which way does {name} {'move' if obj.motion == WALL else 'turn'}?"
    return f"What {kind} is {name}?"


def _counts(scene: Scene) -> list[tuple[str, str]]:
    asked = [("How many objects are there?", NUMBERS[len(scene.objects)])]
    if all(_can_be_told(obj, "size") for obj in scene.objects):
        for size in SIZES:
            number = sum(obj.size == size for obj in scene.objects)
            asked.append((f"How many {size} objects are there?", NUMBERS[number]))
    return asked


def _relations(scene: Scene) -> list[tuple[str, str]]:
    """Both ways round, so that the answer is not known from the question."""
    if scene.relation is None:
        return []
    kind, a, b = scene.relation.kind, scene.objects[scene.relation.a], scene.objects[scene.relation.b]
    if kind == "bumps into":
        return [
            (f"What does the {a.colour} object bump into?", f"the {b.colour} {b.shape}"),
            (f"What bumps into the {b.colour} object?", f"the {a.colour} {a.shape}"),
        ]
    sides, forward, backward = _SIDES[kind]
    return [
        (f"Is the {a.colour} object {sides} the {b.colour} object?", forward),
        (f"Is the {b.colour} object {sides} the {a.colour} object?", backward),
    ]


# ------------------------------------------------------------------------------------------- yes/no questions


def _claims(scene: Scene) -> list[tuple[list[str], list[str]]]:
    """For each thing to ask about: the true claims and the false ones, all as questions. Never empty."""
    claims = _claims_one(scene.objects[0]) if len(scene.objects) == 1 else _claims_many(scene)
    ground = "Is the background {}?"
    claims.append(([ground.format(scene.background)], [ground.format(_OPPOSITE[scene.background])]))
    if scene.camera != "still":  # a still camera is far more common than either pan: asking would tell
        way, other = scene.camera.split()[1], _OPPOSITE[scene.camera].split()[1]
        claims.append(([f"Does the camera pan {way}?"], [f"Does the camera pan {other}?"]))
    if scene.relation and scene.relation.kind in _SIDES:
        a, b = (scene.objects[i].colour for i in (scene.relation.a, scene.relation.b))
        claim = f"Is the {{}} object {scene.relation.kind} the {{}} object?"
        claims.append(([claim.format(a, b)], [claim.format(b, a)]))
    return claims


def _claims_one(obj: Object) -> list[tuple[list[str], list[str]]]:
    claims = []
    for kind in ("colour", "shape", "motion", "size", "speed", "turn"):
        if not _can_be_told(obj, kind):
            continue
        value = getattr(obj, kind)
        others = [_OPPOSITE[value]] if value in _OPPOSITE else [v for v in _VALUES[kind] if v != value]
        false = [_claim("the object", kind, other, obj) for other in others for _ in range(_frequency(other))]
        claims.append(([_claim("the object", kind, value, obj)], false))
    return claims


def _frequency(value: str) -> int:
    """How many of the six shapes training shows with this colour or motion: the odds of a false claim."""
    return len(SHAPES) - [*HELD_OUT_COLOURS.values(), *HELD_OUT_MOTIONS.values()].count(value)


def _claims_many(scene: Scene) -> list[tuple[list[str], list[str]]]:
    claims = []
    for kind in ("shape", "motion", "size", "speed", "turn"):
        true, false = [], []
        for one, other in permutations([obj for obj in scene.objects if _can_be_told(obj, kind)], 2):
            mine, yours = getattr(one, kind), getattr(other, kind)
            if mine == yours or (kind == "shape" and _never_seen(one, other)):
                continue
            name = f"the {one.colour} object"
            true.append(_claim(name, kind, mine, one))
            false.append(_claim(name, kind, yours, one))
        if true:
            claims.append((true, false))
    return claims


def _never_seen(one: Object, other: Object) -> bool:
    """Training has no such combination, so a claim of it would always be false there."""
    return any(held_out(a.shape, b.colour) for a in (one, other) for b in (one, other))


def _claim(name: str, kind: str, value: str, obj: Object) -> str:
    if kind == "shape":
        return f"Is {name} a {value}?"
    if kind == "motion":
        verb, *rest = value.split()
        return f"Does {name} {' '.join([_BARE.get(verb, verb[:-1]), *rest])}?"
    if kind == "turn":
        return f"Does {name} {'move' if obj.motion == WALL else 'turn'} {value}?"
    return f"Is {name} {value}?"


_BARE = {"passes": "pass"}  # the other verbs of the world only lose their s


def _pick(rng: Random, items):
    return items[int(rng.random() * len(items))]
