"""Chapter 08's task, "order": films of one thing, each shown forwards or backwards, to be classified by what they show.

The classes are pairs, a motion and the same film's reverse: a slide to the left is one to the right shown backwards,
and a bounce shown backwards is a thing that rises higher with every leap. Which way a film is shown, a fair coin says.
So its frames without their order tell a pair at most, and which of the two it is stays a coin, by construction.

What turns has pairs of its own, TURNS. Which way it turns is no matter of more and less over time, as all else here is,
and is not learnt in this chapter's steps.
"""

from __future__ import annotations

from itertools import count
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.datasets.what_and_where import to_pixels

CLIP, FRAMES = 9, 8  # frames of a clip, as chapter 16 films it; of these a film has the first eight
PAIRS = (
    ("slides right", "slides left"),
    ("slides down", "slides up"),
    ("slides down and right", "slides up and left"),
    ("slides up and right", "slides down and left"),
    ("grows", "shrinks"),
    ("passes behind a wall to the right", "passes behind a wall to the left"),
    ("bounces", "bounces backwards"),
)
TURNS = (("orbits clockwise", "orbits anticlockwise"), ("spins clockwise", "spins anticlockwise"))
Pairs = tuple[tuple[str, str], ...]
NAMES = tuple(name for pair in PAIRS for name in pair)  # class 2k is PAIRS[k][0], class 2k + 1 its reverse
CLASSES = len(NAMES)


def name_of(motion: str, turn: str = "") -> str:
    """What a motion of the world is called here: "passes behind a wall to the left", "orbits clockwise", "grows"."""
    to = "to the " if motion == world.MOTIONS[-1] else ""
    return f"{motion} {to}{turn}" if turn else motion


def reverse(label: int | Tensor) -> int | Tensor:
    """The class of a film shown the other way round."""
    return label ^ 1


def sample(seed: int, index: int, split: str = "train", pairs: Pairs = PAIRS) -> tuple[world.Scene, bool]:
    """Film number `index`: its scene, one moving thing of the simple world, and whether it is shown backwards.

    Every one of `pairs` is as likely. In the splits "train" and "test" no shape moves as it does in "held_out", shown
    backwards neither. A pure function of its arguments.
    """
    rng = Random(f"order/{split}/{seed}/{index}")
    backwards, pair = rng.random() < 0.5, pairs[int(rng.random() * len(pairs))]
    for k in count():
        scene = world.sample_scene(seed, 1000 * index + k, "simple", split)
        thing = scene.objects[0]
        kept = split == "held_out" or not world.held_out(thing.shape, motion=_reversed(thing.motion))
        if kept and name_of(thing.motion, thing.turn) in pair:
            return scene, backwards


def _reversed(motion: str) -> str:
    """The motion of the same film backwards, where the world has a word for it."""
    return NAMES[reverse(NAMES.index(motion))] if motion in NAMES and motion != "bounces" else motion


def label(scene: world.Scene, backwards: bool = False, pairs: Pairs = PAIRS) -> int:
    """The class of a film of this scene: that of pairs[k] is 2k, or 2k + 1. Raises ValueError for one in none."""
    thing = scene.objects[0]
    forwards = [name for pair in pairs for name in pair].index(name_of(thing.motion, thing.turn))
    return reverse(forwards) if backwards else forwards


def films(seed: int, indices: range, split: str = "train", pairs: Pairs = PAIRS) -> tuple[Tensor, Tensor]:
    """Films uint8 [n, FRAMES, 3, 32, 32] and their classes [n]."""
    samples = [sample(seed, index, split, pairs) for index in indices]
    shown = torch.from_numpy(world.render([scene for scene, _ in samples], CLIP, 32, 32)[:, :FRAMES])
    for film, (_, backwards) in zip(shown, samples, strict=True):
        if backwards:
            film.copy_(film.flip(0))
    return shown, torch.tensor([label(*each, pairs) for each in samples])


class Batches:
    """Batches of films that are drawn as they are needed: none comes twice."""

    def __init__(self, seed: int, batch: int = 32, pairs: Pairs = PAIRS):
        self.seed, self.batch, self.pairs = seed, batch, pairs

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"films" [batch, FRAMES, 3, 32, 32] in [-1, 1], "label" [batch]}."""
        indices = range(step * self.batch, (step + 1) * self.batch)
        shown, labels = films(self.seed, indices, pairs=self.pairs)
        return {"films": to_pixels(shown), "label": labels}
