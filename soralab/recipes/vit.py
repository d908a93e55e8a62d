"""How chapter 03's ViT is trained: `soralab train vit`. The task is `soralab.datasets.what_and_where`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.datasets.what_and_where import CLASSES, Batches, frames, name_of, to_pixels
from soralab.figures import Watched
from soralab.files.checkpoints import load_model
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, larger
from soralab.vit import ViT, ViTConfig

SEED, BATCH = 3, 32
PROBED = 256  # unseen frames that a short run is probed with
CONFIG = ViTConfig(classes=CLASSES, hidden=64)
FRAMES = 60_000  # of the shipped model's training
TRAINING = TrainConfig(
    steps=12_000, lr=1e-3, warmup=200, cooldown=0.4, weight_decay=0.05, ema=0.998, seed=SEED, log_every=50,
    save_every=1000,
)  # fmt: skip


def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator):
    """Cross-entropy of a batch, and the share that is right."""
    logits = model(batch["pixels"]).float()
    right = (logits.detach().argmax(-1) == batch["label"]).float().mean()
    return F.cross_entropy(logits, batch["label"]), {"right": right}


def fit(
    build: Callable[[], nn.Module], training: TrainConfig, batches: Callable, folder: Path,
    probes: Probes | None = None,
) -> tuple[nn.Module, loop.TrainResult]:
    """Train what `build` makes from the training's seed, or go on with it: the averaged model and the result."""
    torch.manual_seed(training.seed)
    model = build()
    result = loop.train(model, loss, batches, training, folder, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def load(name: str = "vit") -> ViT:
    """The shipped ViT, verified, in float32. Raises CheckpointError."""
    return load_model(name, lambda sizes: ViT(ViTConfig(**sizes)), "ViT")[0]


def names(classes: Tensor) -> list[str]:
    """What these classes [n] are called, in one text."""
    return ["; ".join(name_of(k) for k in classes.tolist())]


def short_run(seed: int, steps: int = 400, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped model's training; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    batches = Batches(*frames(SEED, range(steps * BATCH)), BATCH, seed)
    pictures, labels = frames(SEED, range(PROBED), split="test")
    held = {"pixels": to_pixels(pictures), "label": labels}
    probes = Watched(
        "vit", loss, held, steps, swap=("label",), truth=names(labels[:3]),
        sample=lambda model: names(model(beside(model, held["pixels"][:3])).argmax(-1)),
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit(partial(ViT, CONFIG), training, batches, Path(folder or temporary), probes)
        return probes.log(result.log)


def train(name: str = "vit", steps: int | None = None) -> Trained:
    """Train the ViT, or go on with it, in runs/NAME."""
    full = TRAINING.steps
    training = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    count = by_profile(smoke=100, laptop=FRAMES, gpu=4 * FRAMES)
    batches = Batches(*frames(SEED, range(count)), larger(BATCH, 8), SEED)
    model, result = fit(partial(ViT, CONFIG), training, batches, RUNS / name)
    return Trained.of(model, CONFIG, result, data_seed=SEED, frames=len(batches.pictures), batch=batches.batch)
