"""Chapter 07's ways of dropping tokens: data/experiments/navit_dropping.json, which its notebook shows.

Six copies of the shipped NaViT, which never missed a token, are trained on with as many tokens each, three seeds. Five
of them drop half of a picture's tokens on the mean of all pictures: always half; at rates from the paper's Beta; more
of the larger pictures; and on the paper's schedule over training, falling or rising (section 3.3, whose trainings
begin with nothing learnt). `python -m soralab.experiments.navit_dropping` trains and measures what is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch

from soralab.datasets import native_sizes
from soralab.experiments.navit_budget import POOL, SEEDS, by_seed, further
from soralab.experiments.navit_scores import TEST_PICTURES, over_dropping
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.navit import beta_rate, rate_by_size, rate_by_time
from soralab.recipes import RUNS
from soralab.recipes.navit import LENGTH, ROWS, SEED, Batches, load
from soralab.training.profiles import by_profile

FILE = EXPERIMENTS / "navit_dropping.json"
FOLDER = RUNS / "navit_dropping"
STEPS = 200
MEAN, LOW, HIGH = 0.5, 0.2, 0.8  # rates: the mean over pictures, and the ends of the schedule
ARMS = ("whole pictures", "constant", "Beta", "by size", "falling", "rising")


def rate(arm: str, tokens: list[int], steps: int) -> Callable | None:
    """What `Batches` asks for a picture's rate. tokens: of each picture of the pool, of which rates are to have the
    mean MEAN; steps: of training, which tells how many pictures it will see at that mean."""
    mean, most = sum(tokens) / len(tokens), max(tokens)
    total = steps * ROWS * LENGTH / (mean * (1 - MEAN))
    high = LOW + (MEAN - LOW) * most / mean  # of the largest picture, on a line from LOW
    return {
        "whole pictures": None,
        "constant": lambda rng, tokens, seen: MEAN,
        "Beta": lambda rng, tokens, seen: beta_rate(rng, MEAN),
        "by size": lambda rng, tokens, seen: rate_by_size(rng, tokens, most, LOW, high),
        "falling": lambda rng, tokens, seen: rate_by_time(seen / total, HIGH, LOW),
        "rising": lambda rng, tokens, seen: rate_by_time(seen / total, LOW, HIGH),
    }[arm]


def measured(arm: str, seed: int, shown: tuple, folder: Path, steps: int, count: int) -> dict[str, float]:
    """Of one training: what `over_dropping` finds, and how many pictures it saw."""
    batches = Batches(*shown, seed=seed)
    batches.rate = rate(arm, batches.tokens, steps)
    model = further(folder, partial(copy.deepcopy, load()), lambda _: batches, steps, (seed,))[0]
    return over_dropping(model, count) | {"pictures": sum(len(batches(k)["label"]) for k in range(steps))}


def compare(folder: Path, steps: int, seeds: tuple[int, ...], count: int, pool: int) -> dict[str, list[dict]]:
    """{arm: [`measured` for each seed]}; what was measured already is not measured again."""
    shown = cache(lambda: native_sizes.pictures(SEED + 3, range(pool)))
    return by_seed(folder, ARMS, seeds, lambda arm, seed, where: measured(arm, seed, shown(), where, steps, count))


def main(file: Path = FILE, folder: Path = FOLDER) -> None:
    """Measure what is missing and write the file."""
    for_the_course(file)
    torch.set_num_threads(1)
    small = {"steps": 2, "seeds": (1,), "count": 20, "pool": 100}
    full = {"steps": STEPS, "seeds": SEEDS, "count": TEST_PICTURES // 2, "pool": POOL}
    sizes = by_profile(smoke=small, laptop=full, gpu=full)
    runs = compare(folder, **sizes)
    write(file, {**sizes, "mean": MEAN, "runs": runs})


if __name__ == "__main__":
    main()
