"""Prompts as people type them, in both languages: they say less than captions do, and word it in other ways.

A FORM makes a prompt of a scene: it empties what is not said and chooses a `Manner`. `pair` then tells it in Hindi and
in English.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from soralab.world.hindi import CAPTION, RINGS, Manner, hindi_caption
from soralab.world.language import mention_order, short_caption
from soralab.world.scene import Relation, Scene

Prompt = tuple[Scene, Manner]


def pair(scene: Scene, manner: Manner = CAPTION) -> tuple[str, str]:
    """(Hindi, English) of what a scene says."""
    return hindi_caption(scene, manner), short_caption(scene)


def without(scene: Scene, *fields: str) -> Scene:
    """The scene with these fields ("size", "colour", "motion") of all its objects empty."""
    return replace(scene, objects=tuple(replace(obj, **dict.fromkeys(fields, "")) for obj in scene.objects))


def some_details(scene: Scene, rng: Random) -> Scene:
    """The scene with each thing's size and colour left out by the throw of a coin."""
    objects = (
        replace(obj, **{field: "" for field in ("size", "colour") if rng.random() < 0.5}) for obj in scene.objects
    )
    return replace(scene, objects=tuple(objects))


def some_manner(rng: Random) -> Manner:
    """A manner of which every choice is left to a coin, and the ring's name to a throw of three."""
    choices = ("article", "progressive", "terse", "colour_first", "place_first")
    return Manner(_pick(rng, tuple(RINGS)), **{name: rng.random() < 0.5 for name in choices})


def noun_phrases(scene: Scene) -> Scene:
    """The things alone: "a red circle, and a blue square"."""
    return replace(without(scene, "motion"), relation=None)


def bare_relation(scene: Scene) -> Scene | None:
    """The relation alone: "a red circle is above a blue square"; None where there is none."""
    if scene.relation is None:
        return None
    two = tuple(scene.objects[i] for i in mention_order(scene)[:2])
    return without(replace(scene, objects=two, relation=Relation(scene.relation.kind, 0, 1)), "motion")


def typed(scene: Scene, rng: Random) -> Prompt:
    """Any of the ways in which a prompt may be worded; about one in six is the scene's own caption."""
    manner = CAPTION if rng.random() < 0.5 else some_manner(rng)
    form = rng.random()
    if form < 0.12:
        scene = noun_phrases(scene)
    elif form < 0.45 and scene.relation:
        scene = bare_relation(scene)
    left_out = rng.random()
    if left_out < 0.15:
        return without(scene, "size"), manner
    if left_out < 0.25:
        return without(scene, "colour"), manner
    if left_out < 0.4:
        return without(scene, "size", "colour"), manner
    return (scene if left_out < 0.75 else some_details(scene, rng)), manner


def _relation(scene: Scene, rng: Random) -> Prompt | None:
    said = bare_relation(scene)
    return said and (some_details(said, rng), some_manner(rng))


def _diagonal(scene: Scene, rng: Random) -> Prompt | None:
    diagonal = any(obj.motion.startswith("slides") and " and " in obj.motion for obj in scene.objects)
    return (some_details(scene, rng), replace(some_manner(rng), terse=True)) if diagonal else None


def _other_ring(scene: Scene, rng: Random) -> Prompt | None:
    ring = any(obj.shape == "ring" for obj in scene.objects)
    other = _pick(rng, tuple(RINGS)[1:])
    return (some_details(scene, rng), replace(some_manner(rng), ring=other)) if ring else None


# what a prompt is like -> (scene, coin) to what is said and how, or None where the scene has nothing of the kind
FORMS: dict[str, Callable[[Scene, Random], Prompt | None]] = {
    "caption": lambda scene, rng: (scene, CAPTION),
    "no size": lambda scene, rng: (without(scene, "size"), CAPTION),
    "no colour": lambda scene, rng: (without(scene, "colour"), CAPTION),
    "bare": lambda scene, rng: (without(scene, "size", "colour"), CAPTION),
    "noun phrase": lambda scene, rng: (some_details(noun_phrases(scene), rng), some_manner(rng)),
    "progressive": lambda scene, rng: (some_details(scene, rng), replace(some_manner(rng), progressive=True)),
    "relation": _relation,
    "short diagonal": _diagonal,
    "other ring": _other_ring,
    "typed": typed,
}


def _pick(rng: Random, items):
    return items[int(rng.random() * len(items))]  # rng.random() alone is the same on every Python, for good
