"""Chapter 07 on real photographs: which breed of cat or dog is it, read in its own proportions or squeezed to a square?

The same network learns from the same photographs at the same resolutions twice, and the two differ in proportions
alone. A resolution is the side of a square as large as the picture, drawn small more often, as in section 2.2.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import torch.nn.functional as F
from torch import Tensor

from soralab.datasets import pets
from soralab.experiments.navit_scores import accuracy
from soralab.navit import NaViT, resized, sample_side
from soralab.recipes.navit import CONFIG, LENGTH, ROWS, SEED, TRAINING, Batches, fit
from soralab.training.profiles import by_profile, device, larger

PETS = replace(TRAINING, steps=400, warmup=40, ema=0.98, save_every=100)
LOW, HIGH, JUDGED = 32, 96, 64  # pixels: resolutions to learn at, and the one to be judged at
VIEWS = 4  # of each photograph, each at a resolution of its own, every second one mirrored
ARMS = {"its own proportions": True, "squeezed to a square": False}


def shaped(size: tuple[int, int], side: float, own: bool) -> tuple[int, int]:
    """(height, width) in pixels of a photograph at a resolution, in its own proportions or as a square."""
    return resized(size if own else (1, 1), side, CONFIG.patch)


def views(split: str, own: bool, count: int | None, times: int) -> tuple[list[Tensor], Tensor]:
    """`times` views of each photograph of a split, uint8 [3, height, width], and their breeds [n]."""
    sizes, rng = pets.sizes(count, split), Random(f"views/{split}")
    large = pets.load([shaped(size, HIGH, own) for size in sizes], split)
    shown = []
    for view in range(times):
        for size, picture in zip(sizes, large, strict=True):
            height, width = shaped(size, sample_side(rng, LOW, HIGH), own)
            small = F.interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]
            shown.append(small.flip(-1) if view % 2 else small)
    return shown, pets.breeds(split, count).repeat(times)


def breeds(folder: Path, steps: int = PETS.steps) -> dict[str, dict[str, float]]:
    """Rows of the test photographs whose breed is named right: by whoever says the commonest of training's breeds, and
    by a NaViT of each of ARMS. Raises FileNotFoundError that says how to get the photographs."""
    count = by_profile(smoke=6, laptop=None, gpu=None)
    truth, known = pets.breeds("test", count), pets.breeds("train", count)
    common = (truth == known.mode().values).float().mean().item()
    table = {"the commonest breed": {"right": round(common, 4), "pictures": len(truth)}}
    for arm, own in ARMS.items():
        batches = Batches(*views("train", own, count, VIEWS), 2 * LENGTH, larger(ROWS // 2, 8), SEED)
        training = replace(PETS, steps=steps, save_every=min(steps, PETS.save_every))
        build, where = partial(NaViT, replace(CONFIG, classes=pets.BREEDS)), folder / arm.replace(" ", "_")
        model, _ = fit(build, training, batches, where)
        shown = pets.load([shaped(size, JUDGED, own) for size in pets.sizes(count, "test")], "test")
        table[arm] = {"right": accuracy(model.to(device()), shown, truth), "pictures": len(truth)}
    return table
