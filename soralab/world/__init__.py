"""The world: short captioned films of simple objects, drawn by code, endless, exactly labelled.

    film, scene = clip(seed=0, index=7)                       # [8, 3, 32, 32] in [-1, 1], and what is in it
    films, scenes = clips(seed=0, indices=range(64), frames=16, height=64, width=96, level="simple", split="test")
"""

from __future__ import annotations

from collections.abc import Iterable

from soralab.world.render import PALETTE, coverage, render, truth
from soralab.world.sampling import sample_scene
from soralab.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    HELD_OUT_COLOURS,
    HELD_OUT_MOTIONS,
    LEVELS,
    MOTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    SPEEDS,
    SPLITS,
    Object,
    Relation,
    Scene,
    held_out,
)  # fmt: skip

__all__ = [
    "BACKGROUNDS", "CAMERAS", "COLOURS", "HELD_OUT_COLOURS", "HELD_OUT_MOTIONS", "LEVELS", "MOTIONS", "PALETTE",
    "RELATIONS", "SHAPES", "SIZES", "SPEEDS", "SPLITS", "Object", "Relation", "Scene", "clip", "clips", "coverage",
    "held_out", "render", "sample_scene", "to_film", "truth",
]  # fmt: skip


def clip(seed: int, index: int, frames: int = 8, height: int = 32, width: int = 32, level="full", split="train"):
    """One film [frames, 3, height, width], float32 in [-1, 1], and its Scene; for the same arguments, the same."""
    films, scenes = clips(seed, [index], frames, height, width, level, split)
    return films[0], scenes[0]


def clips(
    seed: int, indices: Iterable[int], frames: int = 8, height: int = 32, width: int = 32, level="full", split="train"
):
    """Films [batch, frames, 3, height, width], float32 in [-1, 1], and their Scenes, at their native aspect ratio."""
    scenes = [sample_scene(seed, i, level, split, width / height) for i in indices]
    return to_film(render(scenes, frames, height, width)), scenes


def to_film(frames):
    """uint8 numpy frames 0..255 to a float32 torch tensor in [-1, 1] of the same shape."""
    import torch  # here, so that drawing a scene needs no torch

    return torch.from_numpy(frames).float().div_(127.5).sub_(1)
