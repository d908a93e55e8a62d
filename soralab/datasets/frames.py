"""What the painter of the film chapters learns from: chapter 06's stills, and single frames of films.

A film's frames are drawn by a model of pictures, which must have met them: things half way, half grown, and behind a
wall. Chapter 06's painter has met no wall, and its first stage cannot copy one (21 dB, the rest 43 dB).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.datasets import stills
from soralab.world.language import short_caption, thing
from soralab.world.reader import read_caption, read_setting
from soralab.world.scene import WALL

FRAMES = 9  # of a film
STILLS = (0, 2)  # pictures of five that are stills, chapter 06's of one thing; the rest are frames
WALLS = 9  # the picture of ten that has a wall: in the world's own mixture it would be one of thirty


def sample(seed: int, index: int, split: str = "train") -> tuple[world.Scene, int]:
    """Picture number `index`: its scene, and which of FRAMES frames it is of; a still is frame 0.

    Four of ten are chapter 06's of one thing (`stills.mixed` has those of two at other numbers), six are of films of
    the simple world, one of these with a wall. So nothing here has two things, as no film of that world has. A pure
    function of its arguments. Raises ValueError for another split.
    """
    if index % 5 in STILLS:
        return stills.mixed(seed, index, split), 0
    rng = Random(f"frames/{split}/{seed}/{index}")
    while True:
        scene = world.sample_scene(seed, int(rng.random() * 2**40), "simple", split)
        if index % 10 != WALLS or scene.objects[0].motion == WALL:
            return scene, int(rng.random() * FRAMES)


def pictures(samples: Sequence[tuple[world.Scene, int]], side: int = 32, chunk: int = 500) -> Tensor:
    """Samples as pictures [n, 3, side, side] in [-1, 1]."""
    out = torch.empty(len(samples), 3, side, side)
    for start in range(0, len(samples), chunk):
        part = samples[start : start + chunk]
        films = world.to_film(world.render([scene for scene, _ in part], FRAMES, side, side))
        out[start : start + chunk] = films[torch.arange(len(part)), [frame for _, frame in part]]
    return out


def still(text: str) -> str:
    """What a picture can show of a film's prompt: its things and its background, and a wall if there is one.

    "a small red circle slides right" is "a small red circle" in each frame. A thing that grows or shrinks has no size.
    Raises ValueError for a prompt that names no thing.
    """
    told = read_caption(text)
    if not told:
        raise ValueError(f"text is {text!r}; it takes a prompt that names a thing")
    setting, walled = read_setting(text), any(one["motion"] == WALL for one in told)
    names = []
    for one in told:
        size = "" if one["motion"] in ("grows", "shrinks") else one["size"] or ""
        names.append(thing(world.Object(one["shape"] or "", one["colour"] or "", size, "")))
    relation = setting["relation"]
    said = f"{names[relation[1]]} is {relation[0]} {names[relation[2]]}" if relation else " and ".join(names)
    said += " behind a wall" if walled else ""
    return f"{said} on a {setting['background']} background" if setting["background"] else said


def prompt(scene: world.Scene, rng: Random, null: float = 0.1) -> str:
    """What a training picture is called, as `stills.prompt` has it: at times without sizes or with the background."""
    if all(thing.motion == "stays still" for thing in scene.objects):
        return stills.prompt(scene, rng, null)
    if rng.random() < null:
        return ""
    words = still(short_caption(scene))
    if rng.random() < 0.3:
        words = " ".join(word for word in words.split() if word not in world.SIZES)
    return f"{words} on a {scene.background} background" if rng.random() < 0.3 else words
