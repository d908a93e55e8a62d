"""Chapter 03's task, "what and where": frames of one thing, to be classified by its shape and its place.

The class is the shape together with the ninth of the frame that the thing's centre lies in: 6 x 9 = 54 classes. The
shape looks the same wherever it is, which a convolution knows before it has seen a picture; the place does not.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from soralab import world

CELLS = 3  # the frame is cut into CELLS x CELLS places
CLASSES = len(world.SHAPES) * CELLS**2


def sample(seed: int, index: int, split: str = "train", aspect: float = 1.0) -> world.Scene:
    """Scene number `index`: one thing of medium or large size, as the simple world draws it, on any background.

    In the split "held_out" its shape never had that colour in training. (The world holds motions out as well, but a
    frame does not show them.) `aspect` is width over height, from 1/3 to 3.
    """
    scenes = (world.sample_scene(seed, 64 * index + k, "simple", split, aspect) for k in range(64))
    scene = next(s for s in scenes if _fits(s.objects[0], split))
    rng = Random(f"what and where/{split}/{seed}/{index}")
    background = world.BACKGROUNDS[int(rng.random() * len(world.BACKGROUNDS))]
    return replace(scene, background=background, texture=rng.random())


def _fits(thing: world.Object, split: str) -> bool:
    """Whether a thing is large enough to be made out, and in the split "held_out" of a colour that was held out."""
    return thing.size != "small" and (split != "held_out" or world.held_out(thing.shape, thing.colour))


def label(scene: world.Scene) -> int:
    """The class of a scene's first frame: shape, then row, then column."""
    thing = scene.objects[0]
    x, y = thing.pose(0.0)[:2]  # in short sides from the middle
    sides = zip((y, x), scene.half[::-1], strict=True)
    row, column = (min(CELLS - 1, int((place + half) / (2 * half) * CELLS)) for place, half in sides)
    return (world.SHAPES.index(thing.shape) * CELLS + row) * CELLS + column


def frames(seed: int, indices: range, side: int = 32, split: str = "train") -> tuple[Tensor, Tensor]:
    """Frames uint8 [n, 3, side, side] and their classes [n]."""
    scenes = [sample(seed, index, split) for index in indices]
    return torch.from_numpy(world.render(scenes, 1, side, side)[:, 0]), torch.tensor([label(s) for s in scenes])


def name_of(number: int) -> str:
    """A class in words: "moon, top left"."""
    shape, place = divmod(number, CELLS**2)
    row, column = divmod(place, CELLS)
    words = f"{('top', 'middle', 'bottom')[row]} {('left', 'centre', 'right')[column]}"
    return f"{world.SHAPES[shape]}, {words}"


def to_pixels(values: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]; floats as they are."""
    return values.float().div(127.5).sub(1) if values.dtype == torch.uint8 else values


class Batches:
    """Batches of a fixed set of pictures [n, channel, height, width], in a new order each epoch."""

    def __init__(self, pictures: Tensor, labels: Tensor, batch: int = 32, seed: int = 0):
        self.pictures, self.labels, self.seed = pictures, labels, seed
        self.batch = min(batch, len(pictures))

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"pixels": [batch, channel, height, width] in [-1, 1], "label": [batch]}."""
        epoch, place = divmod(step, len(self.pictures) // self.batch)
        order = torch.randperm(len(self.pictures), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        which = order[place * self.batch : (place + 1) * self.batch]
        return {"pixels": to_pixels(self.pictures[which]), "label": self.labels[which]}
