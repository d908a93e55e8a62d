"""Chapter 07's comparisons at an equal budget: the same number of tokens for each arm, three seeds.

The paper's claim (section 3.2) is that at a fixed budget pictures of mixed resolutions teach more than pictures of one.
Beside it stand chapter 03's way, squares; absolute positions; and half of the tokens dropped, so twice the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.datasets import native_sizes
from soralab.experiments.navit_scores import TEST_PICTURES, by_aspect, by_side, squares
from soralab.navit import NaViT, beta_rate
from soralab.recipes.navit import CONFIG, SEED, TRAINING, Batches, fit
from soralab.vit import ViT, ViTConfig

SEEDS = (1, 2, 3)
ROWS = 2  # of 512 tokens in a step
STEPS, POOL = 1200, 30_000  # steps, and pictures to draw from
ONE_SIZE = 32  # pixels: the side of a square as large as each picture of the arm "one size"
DROPPED = 0.5
ARM_TRAINING = replace(TRAINING, steps=STEPS, warmup=100, ema=0.99)
ARMS = ("mixed sizes", "one size", "squares", "absolute positions", "half dropped")


class Squares:
    """Batches of squares for chapter 03's ViT, as many tokens in a step as ROWS packed rows hold."""

    def __init__(self, shown: list[Tensor], labels: Tensor, seed: int):
        self.shown, self.labels, self.seed = shown, labels, seed
        self.batch = min(len(shown), ROWS * 512 // ViTConfig().tokens)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"label" [batch], "pixels" [batch, 3, 32, 32] in [-1, 1]}."""
        epoch, place = divmod(step, len(self.shown) // self.batch)
        order = torch.randperm(len(self.shown), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        which = order[place * self.batch : (place + 1) * self.batch]
        return {"label": self.labels[which], "pixels": squares([self.shown[k] for k in which.tolist()])}


def arm(name: str, pool: tuple[list[Tensor], Tensor], seed: int) -> tuple[Callable[[], nn.Module], Callable]:
    """What makes an arm's network, and its batches."""
    if name == "squares":
        return partial(ViT, ViTConfig(classes=CONFIG.classes, hidden=CONFIG.dim)), Squares(*pool, seed)
    config = replace(CONFIG, positions="absolute") if name == "absolute positions" else CONFIG
    rate = (lambda rng, tokens: beta_rate(rng, DROPPED)) if name == "half dropped" else None
    return partial(NaViT, config), Batches(*pool, rows=ROWS, seed=seed, rate=rate)


def compare(
    folder: Path, steps: int = STEPS, seeds: tuple[int, ...] = SEEDS, count: int = TEST_PICTURES // 2, pool: int = POOL
) -> dict[str, list[dict]]:
    """{arm: [for each seed {"by side", "by aspect"}]}; what was run already is not run again."""
    mixed = native_sizes.pictures(SEED + 1, range(pool))
    fixed = native_sizes.pictures(SEED + 1, range(pool), low=ONE_SIZE, high=ONE_SIZE)
    table = {}
    for seed in seeds:  # the first seed of all arms first: something to look at before all is done
        for name in ARMS:
            build, batches = arm(name, fixed if name == "one size" else mixed, seed)
            training = replace(ARM_TRAINING, steps=steps, seed=seed, save_every=steps)
            model, _ = fit(build, training, batches, folder / f"{name.replace(' ', '_')}_{seed}")
            scores = {"by side": by_side(model, count), "by aspect": by_aspect(model, 2 * count)}
            table.setdefault(name, []).append(scores)
    return table
