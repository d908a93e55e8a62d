"""Chapter 07's positions where they were never trained: data/experiments/navit_positions.json, for its notebook.

The paper (section 3.4) trains on a range of sizes and asks beyond it. Here small NaViTs, alike but for their tables,
absolute or fractional, learn in which ninth of its frame a thing stands: from pictures up to a size and up to an aspect
ratio. They are asked about these, about larger ones, longer ones, and both, three seeds each.
`python -m soralab.experiments.navit_positions` trains and measures what is missing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from itertools import count, islice
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from soralab.datasets.native_sizes import HIGH, LOW, WIDEST, drawn, size
from soralab.datasets.what_and_where import CELLS, label, sample
from soralab.experiments.navit_budget import SEEDS, by_seed
from soralab.experiments.navit_scores import accuracy
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.navit import POSITIONS, NaViT
from soralab.recipes import RUNS
from soralab.recipes.navit import CONFIG, ROWS, SEED, TRAINING, Batches, fit
from soralab.training.profiles import by_profile

FILE = EXPERIMENTS / "navit_positions.json"
FOLDER = RUNS / "navit_positions"
SIDE, RATIO = 32, 1.5  # the largest of training: the side of a square as large, pixels; longer over shorter side
ASKED = {  # of each kind of test: resolutions and aspect ratios, (from, to) each
    "as in training": ((LOW, SIDE), (1.0, RATIO)),
    "larger": ((SIDE + 8, HIGH), (1.0, RATIO)),
    "longer": ((LOW, SIDE), (2.0, WIDEST)),
    "larger and longer": ((SIDE + 8, HIGH), (2.0, WIDEST)),
}
SMALL = replace(CONFIG, depth=2, classes=CELLS**2)
SHORT = replace(TRAINING, steps=1000, lr=1e-2, warmup=20, cooldown=0.5, ema=0.98, log_every=50, precision="float32")
POOL, PICTURES = 8000, 1000  # to train on; of each kind, to ask about


def chosen(number: int, split: str, kind: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The first so many scenes of a kind, and the sizes (height, width) that they are drawn at, pixels."""
    (low, high), (least, most) = ASKED[kind]
    sizes = ((k, size(SEED, k, split, low, high)) for k in count())
    found = islice(((k, of) for k, of in sizes if least <= max(of) / min(of) <= most), number)
    return tuple(zip(*found, strict=True))


def pictures(number: int, split: str, kind: str = "as in training") -> tuple[list[Tensor], Tensor]:
    """So many pictures of a kind, uint8 [3, height, width], and the ninth of its frame that each one's thing is in."""
    shown, labels = drawn(SEED, *chosen(number, split, kind), split)
    return shown, labels % CELLS**2


def the_middle(kind: str, number: int = PICTURES) -> float:
    """Of a kind's test pictures the share whose thing is in the middle, the commonest ninth."""
    scenes = (sample(SEED, k, "test", w / h) for k, (h, w) in zip(*chosen(number, "test", kind), strict=True))
    return mean(label(scene) % CELLS**2 == CELLS**2 // 2 for scene in scenes)


def measured(kind: str, seed: int, shown: tuple, folder: Path, steps: int, number: int) -> dict[str, float]:
    """Of one training with this kind of positions: the share that is right, for each of ASKED."""
    training = replace(SHORT, steps=steps, seed=seed, save_every=steps)
    build = partial(NaViT, replace(SMALL, positions=kind))
    model, _ = fit(build, training, Batches(*shown, rows=ROWS // 2, seed=seed), folder)
    return {asked: accuracy(model, *pictures(number, "test", asked)) for asked in ASKED}


def compare(folder: Path, steps: int, seeds: tuple[int, ...], number: int, pool: int) -> dict[str, list[dict]]:
    """{kind of positions: [`measured` for each seed]}; what was measured already is not measured again."""
    shown = cache(lambda: pictures(pool, "train"))
    return by_seed(folder, POSITIONS, seeds, lambda kind, seed, where: measured(
        kind, seed, shown(), where.with_name(f"{kind}_{seed}"), steps, number))  # fmt: skip


def main(file: Path = FILE, folder: Path = FOLDER) -> None:
    """Measure what is missing and write the file."""
    for_the_course(file)
    torch.set_num_threads(1)
    small = {"steps": 2, "seeds": (1,), "number": 20, "pool": 100}
    full = {"steps": SHORT.steps, "seeds": SEEDS, "number": PICTURES, "pool": POOL}
    sizes = by_profile(smoke=small, laptop=full, gpu=full)
    runs = compare(folder, **sizes)
    write(file, {**sizes, "runs": runs})


if __name__ == "__main__":
    main()
