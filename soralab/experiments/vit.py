"""What chapter 03 measures: `soralab evaluate vit`, and the card's metrics.

Beside the scores on unseen frames the card holds four experiments: the crossing with a small ResNet as data grows, on
the world and, where the reader has it, on MNIST (`vit_crossing`); the same where a colour is to be looked up
(`vit_look_up`); and fine-tuning at a higher resolution (section 3.2).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from soralab.datasets import mnist
from soralab.datasets.what_and_where import Batches, frames
from soralab.experiments import vit_look_up as look_up
from soralab.experiments.vit_crossing import SEEDS, costs, mnist_crossing, world_crossing
from soralab.experiments.vit_scores import TEST_FRAMES, accuracy, measure
from soralab.recipes import RUNS, Trained
from soralab.recipes.vit import BATCH, SEED, TRAINING, fit, load
from soralab.training.profiles import by_profile, device
from soralab.vit import ViT

LARGER, TUNING_FRAMES = 48, 2000
TUNING = replace(TRAINING, steps=300, lr=3e-4, warmup=20, cooldown=0.5, ema=0.98)
STARTS = ("interpolated positions", "positions drawn anew", "from scratch")


def start(model: ViT, kind: str) -> ViT:
    """The network for frames of LARGER x LARGER that one of STARTS begins with, its head at zero."""
    tuned = model.finetune(image=LARGER)
    if kind == "positions drawn anew":
        nn.init.normal_(tuned.positions[1:].data, std=0.02)
    return ViT(tuned.config) if kind == "from scratch" else tuned


def larger_frames(
    folder: Path, model: ViT, steps: int = TUNING.steps, seeds: tuple[int, ...] = SEEDS, count: int = TEST_FRAMES // 2
) -> dict[str, list[float]]:
    """Fine-tuning on TUNING_FRAMES frames of 48 x 48: {start: [test accuracy for each seed]}."""
    train, test = frames(SEED + 2, range(TUNING_FRAMES), LARGER), frames(SEED, range(count), LARGER, "test")
    table = {}
    for kind in STARTS:
        for seed in seeds:
            training = replace(TUNING, steps=steps, seed=seed, save_every=steps)
            where = folder / f"{kind.replace(' ', '_')}_{seed}"
            tuned, _ = fit(partial(start, model, kind), training, Batches(*train, BATCH, seed), where)
            table.setdefault(kind, []).append(accuracy(tuned, *test))
    return table


def metrics(name: str, trained: Trained) -> dict:
    """The card's: the scores of both splits, what each network costs, the crossing, MNIST's (None without it), higher
    resolution, and the crossing where a colour is to be looked up. What was run already is not run again."""
    model, folder = trained.model, RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    small = by_profile(smoke={"steps": {32: 2, 64: 2}, "count": 50}, laptop={}, gpu={})
    few = by_profile(smoke={"steps": 2, "seeds": (1,), "count": 50}, laptop={}, gpu={})
    boards = by_profile(smoke={"sizes": (128,), "second": (128,), "steps": 2, "count": 50}, laptop={}, gpu={})
    return {
        **both_splits(model),
        "costs": costs(),
        "crossing": world_crossing(folder / "world", **small),
        "mnist": mnist_crossing(folder / "mnist", **small) if mnist.available() else None,
        "larger frames": larger_frames(folder / "larger", model, **few),
        "look up": look_up.tables(folder / "look_up", **boards),
    }


def both_splits(model: ViT) -> dict[str, dict[str, float]]:
    """What `measure` finds on the splits "test" and "held_out"."""
    count = by_profile(smoke=20, laptop=TEST_FRAMES, gpu=TEST_FRAMES)
    return {split: measure(model, split, count) for split in ("test", "held_out")}


def evaluate(name: str = "vit", checkpoint: str | None = None) -> str:
    """The shares of unseen frames that the shipped ViT gets right, measured now, on both splits."""
    rows = both_splits(load(checkpoint or name).to(device()))
    return "\n".join(
        f"{split:10s}" + "".join(f"{key} {value:8.2%}   " for key, value in row.items() if key != "frames")
        for split, row in rows.items()
    )
