"""Chapter 07's comparisons at an equal budget: rows of as many tokens for each arm, from a common start, three seeds.

The paper's claim (section 3.2) is that at a fixed budget pictures of mixed resolutions teach more than pictures of one.
Here the start is a NaViT that was trained on one resolution, and what is compared is how a further budget is spent
best: on that resolution, or on all. Beside both stands chapter 03's ViT, trained further on the pictures of all sizes,
squeezed into squares. And the shipped NaViT is trained further on whole pictures and with half of the tokens dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.datasets import native_sizes
from soralab.experiments.navit_scores import TEST_PICTURES, by_aspect, by_side, over_dropping, squares
from soralab.files.atomic import kept
from soralab.navit import NaViT, beta_rate
from soralab.recipes.navit import CONFIG, LENGTH, ROWS, SEED, TRAINING, Batches, fit
from soralab.vit import ViT, ViTConfig

SEEDS = (1, 2, 3)
ONE_SIZE = 32  # pixels: the side of a square as large as each picture of the arm "one size"
START = replace(TRAINING, steps=1500, warmup=100, ema=0.99)
FURTHER = replace(TRAINING, steps=400, lr=2e-3, warmup=20, cooldown=0.6, ema=0.98)
POOL = 15_000  # pictures, of each further training; the start has three times as many
ARMS = ("mixed sizes", "one size", "squares")
RATES = {"whole pictures": None, "half dropped": 0.5}  # the mean of the Beta that a picture's rate is drawn from


class Squares:
    """Batches of squares for chapter 03's ViT, as many tokens in a step as packed rows hold."""

    def __init__(self, shown: list[Tensor], labels: Tensor, seed: int):
        self.shown, self.labels, self.seed = shown, labels, seed
        self.batch = min(len(shown), ROWS * LENGTH // ViTConfig().tokens)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"label" [batch], "pixels" [batch, 3, 32, 32] in [-1, 1]}."""
        epoch, place = divmod(step, len(self.shown) // self.batch)
        order = torch.randperm(len(self.shown), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        which = order[place * self.batch : (place + 1) * self.batch]
        return {"label": self.labels[which], "pixels": squares([self.shown[k] for k in which.tolist()])}


def start(folder: Path, steps: int = START.steps, pool: int = POOL) -> NaViT:
    """The NaViT that has seen one resolution only, of all aspect ratios."""
    shown = native_sizes.pictures(SEED + 1, range(3 * pool), low=ONE_SIZE, high=ONE_SIZE)
    training = replace(START, steps=steps, save_every=min(steps, START.save_every))
    return fit(partial(NaViT, CONFIG), training, Batches(*shown, seed=SEED), folder)[0]


def further(
    folder: Path, build: Callable[[], nn.Module], batches: Callable[[int], Callable], steps: int, seeds: tuple[int, ...]
) -> list[nn.Module]:
    """What `build` makes, trained `steps` steps further on batches(seed), once for each seed."""
    trained = []
    for seed in seeds:
        training = replace(FURTHER, steps=steps, seed=seed, save_every=steps)
        trained.append(fit(build, training, batches(seed), folder.with_name(f"{folder.name}_{seed}"))[0])
    return trained


def by_seed(
    folder: Path, names: Iterable[str], seeds: tuple[int, ...], measure: Callable[[str, int, Path], dict]
) -> dict[str, list[dict]]:
    """{name: [measure(name, seed, a folder of the name) for each seed]}, kept in `folder` and not measured again."""
    table: dict[str, list[dict]] = {name: [] for name in names}
    for seed in seeds:
        for name, rows in table.items():
            where = folder / name.replace(" ", "_")
            rows.append(kept(folder / f"{where.name}_{seed}.json", partial(measure, name, seed, where)))
            print(f"{name:15s} seed {seed}: {rows[-1]}", flush=True)
    return table


def compare(
    folder: Path, vit: ViT, steps: int = FURTHER.steps, seeds: tuple[int, ...] = SEEDS,
    count: int = TEST_PICTURES // 2, pool: int = POOL, first: int = START.steps,
) -> dict[str, list[dict]]:  # fmt: skip
    """{"start" and each arm: [{"by side", "by aspect"} for each seed]}; what was run already is not run again."""
    begun = start(folder / "start", first, pool)
    mixed = native_sizes.pictures(SEED + 2, range(pool))
    fixed = native_sizes.pictures(SEED + 2, range(pool), low=ONE_SIZE, high=ONE_SIZE)
    models = {"start": [begun]}
    for name in ARMS:
        kind, shown = (Squares if name == "squares" else Batches), (fixed if name == "one size" else mixed)
        build = partial(copy.deepcopy, vit if name == "squares" else begun)
        where = folder / name.replace(" ", "_")
        models[name] = further(where, build, lambda seed, kind=kind, shown=shown: kind(*shown, seed=seed), steps, seeds)
    return {
        name: [{"by side": by_side(model, count), "by aspect": by_aspect(model, 2 * count)} for model in trained]
        for name, trained in models.items()
    }


def dropped(
    folder: Path, model: NaViT, steps: int = FURTHER.steps, seeds: tuple[int, ...] = SEEDS,
    count: int = TEST_PICTURES // 2, pool: int = POOL,
) -> dict[str, list[dict[str, float]]]:  # fmt: skip
    """{of RATES: [what `over_dropping` finds for each seed]} after further training of `model`."""
    shown, table = native_sizes.pictures(SEED + 3, range(pool)), {}
    for name, mean in RATES.items():
        rate = None if mean is None else lambda rng, tokens, seen, mean=mean: beta_rate(rng, mean)
        build, where = partial(copy.deepcopy, model), folder / name.replace(" ", "_")
        trained = further(where, build, lambda seed, rate=rate: Batches(*shown, seed=seed, rate=rate), steps, seeds)
        table[name] = [over_dropping(each, count) for each in trained]
    return table
