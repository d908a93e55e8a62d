"""Chapter 07's pictures: chapter 03's "what and where", each at a size and an aspect ratio of its own.

A picture is a pure function of (seed, index, split) and of the resolutions asked for. It is drawn at its size, not cut
or stretched to it, and its class is the shape together with the ninth of *its* frame that the thing stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.datasets.what_and_where import label, sample, to_pixels

LOW, HIGH = 16, 48  # sides of squares as large as the smallest and the largest picture, pixels
STEP = 4  # sides are multiples of it, pixels
SHORTEST = 12  # pixels: below, shapes are specks
WIDEST = 3.0  # the longer side over the shorter one


def size(seed: int, index: int, split: str = "train", low: float = LOW, high: float = HIGH) -> tuple[int, int]:
    """(height, width) of picture number `index`, in pixels, multiples of STEP.

    The aspect ratio is drawn from 1/3 to 3, its logarithm evenly; then the side of a square of as many pixels, from
    `low` to `high`, small ones more often, as the paper samples resolutions (section 2.2).
    """
    rng = Random(f"native sizes/{split}/{seed}/{index}")
    while True:
        stretch = WIDEST ** (rng.random() - 0.5)  # the square root of height over width
        u = rng.gauss(-0.5, 1.0)
        side = low + (u + 1) / 2 * (high - low)
        height, width = (STEP * round(length / STEP) for length in (side * stretch, side / stretch))
        wide = max(height, width) <= WIDEST * min(height, width)
        if -1 <= u <= 1 and wide and min(height, width) >= SHORTEST:
            return height, width


def pictures(
    seed: int, indices: range, split: str = "train", low: float = LOW, high: float = HIGH
) -> tuple[list[Tensor], Tensor]:
    """Pictures uint8, each [3, height, width], and their classes [n]."""
    sizes = [size(seed, index, split, low, high) for index in indices]
    return drawn(seed, indices, sizes, split)


def drawn(
    seed: int, indices: range, sizes: Sequence[tuple[int, int]], split: str = "train"
) -> tuple[list[Tensor], Tensor]:
    """As `pictures`, at these sizes (height, width)."""
    scenes = [sample(seed, index, split, w / h) for index, (h, w) in zip(indices, sizes, strict=True)]
    drawn = [torch.empty(0)] * len(scenes)
    for this in sorted(set(sizes)):
        which = [k for k, other in enumerate(sizes) if other == this]
        for k, picture in zip(which, world.render([scenes[k] for k in which], 1, *this)[:, 0], strict=True):
            drawn[k] = torch.from_numpy(picture)
    return drawn, torch.tensor([label(scene) for scene in scenes])


__all__ = ["drawn", "pictures", "size", "to_pixels"]
