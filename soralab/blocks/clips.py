"""Clips and strings of clips, as chapter 11 codes them: the first frame alone, then four frames a latent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LATENT = 4  # frames that a latent holds, but the first of a clip, which holds one


def latents(frames: int) -> int:
    """How many latent frames a clip has. Raises ValueError unless it has 1, 5, 9, ... frames."""
    if frames < 1 or frames % LATENT != 1:
        raise ValueError(f"frames is {frames}; it takes 1, 5, 9, ...: one, and {LATENT} for each further latent")
    return 1 + frames // LATENT


def moments(clips: Sequence[int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """For each latent frame of a string of clips: the middle of its frames, counted from the film's first, and whether
    it is its clip's first: two tensors [latent frames], float and bool."""
    middles, first, start = [], [], 0
    for frames in clips:
        middles += [start, *(start + LATENT * j - (LATENT - 1) / 2 for j in range(1, latents(frames)))]
        first += [True] + [False] * (latents(frames) - 1)
        start += frames
    return (torch.tensor(middles, dtype=torch.float32, device=device),
            torch.tensor(first, dtype=torch.bool, device=device))


def clip_for(frames: int) -> int:
    """The shortest clip that has so many frames: 1, 5, 9, ..."""
    return 1 + math.ceil(max(frames - 1, 0) / LATENT) * LATENT


def nearest(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """The sizes next to these that `side` divides: the nearest one, that below and that above."""
    low = tuple(max(side, x // side * side) for x in (height, width))
    high = tuple(max(side, -(-x // side) * side) for x in (height, width))
    middle = tuple(max(side, (x + side // 2) // side * side) for x in (height, width))
    return list(dict.fromkeys((middle, low, high)))
