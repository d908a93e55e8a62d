"""The films that chapter 13's model is asked about: one or two things, a plain background, a camera that stands still.

The world's own films of two things hardly ever have a first and a second: there all moves at once, but for what is
bumped into. So two of five films here are made of two of the simple world's, whose things slide one after the other.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from soralab import world
from soralab.world.sampling import apart, bump
from soralab.world.scene import MOTIONS, SLIDES, WALL

FRAMES = 4  # of a film, as chapter 13 looks at it
MIDDLE = (FRAMES - 1) / FRAMES / 2  # of what these show: there one thing stops and the other starts
DOES = tuple(m for m in MOTIONS if m not in (WALL, "spins"))  # no wall; and four frames do not show which way one spins


def film_scene(seed: int, index: int, split: str = "train") -> world.Scene:
    """Film number `index`: two of five show one thing, one two that move or stay, one two that move one after the
    other, one two of which the first bumps into the second. All on a plain background, the camera still, no wall."""
    rng, kind = Random(f"films/{split}/{seed}/{index}"), index % 5
    while True:
        if kind == 4:
            scene = bump(rng, world.Scene((), world.BACKGROUNDS[int(rng.random() * 2)]))
            if scene and scene.held_out == (split == "held_out"):
                return scene
            continue
        scenes = [world.sample_scene(seed, int(rng.random() * 2**40), "simple", split) for _ in range(1 + (kind > 1))]
        if kind < 2 and scenes[0].objects[0].motion in DOES:
            return scenes[0]
        if kind > 1 and (scene := _together(*scenes)):
            scene = one_stays(scene, rng) if kind == 2 else in_turn(scene)
            if apart(scene.objects[0], replace(scene, objects=scene.objects[1:])):
                return scene


def _together(one: world.Scene, other: world.Scene) -> world.Scene | None:
    """The things of two scenes in one, if both slide, neither is large, and their colours differ."""
    a, b = one.objects[0], other.objects[0]
    fits = all(o.motion in SLIDES and o.size != "large" for o in (a, b)) and a.colour != b.colour
    return replace(one, objects=(a, b)) if fits else None


def one_stays(scene: world.Scene, rng: Random) -> world.Scene:
    """In two of three cases one of the two things of a scene, which slide, stays where it begins."""
    still = int(rng.random() * 3)
    return replace(scene, objects=tuple(
        replace(o, motion="stays still", speed="", velocity=(0.0, 0.0)) if k == still else o
        for k, o in enumerate(scene.objects)
    ))  # fmt: skip


def in_turn(scene: world.Scene) -> world.Scene:
    """The two things of a scene slide one after the other, the first one first."""
    first, second = scene.objects
    return replace(scene, objects=(replace(first, stops=MIDDLE), replace(second, starts=MIDDLE)))
