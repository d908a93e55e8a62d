"""How chapter 08's readers of films are trained: `soralab train vivit`. The task is `soralab.datasets.order`.

All four models of the paper and a bag of frames learn from the same films, one after the other; each is gone on with
where it was stopped. The checkpoint holds the best of the four, and its card what was measured of all.

They begin from nothing. The paper begins with a picture model; what comes of that here is on the card too ("starts").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.datasets import order
from soralab.figures import Watched
from soralab.files.checkpoints import load_model
from soralab.recipes import RUNS, Trained
from soralab.recipes.vit import load as load_vit
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.muon import muon_groups
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, device, larger
from soralab.vivit import NAMES, ViViT, ViViTConfig, uniform_frames

SEED, BATCH = 8, 16
PROBED = 128  # unseen films that a short run is probed with
CHOSEN_BY = 500  # films of the training split that no training sees: the best model has the least loss on them
BAG = "bag of frames"
READERS = {
    **{f"model {k}": ViViTConfig(k) for k in NAMES},
    BAG: ViViTConfig(2, tubelet=(1, 4, 4), temporal_depth=0),  # every frame by itself, then their mean
}
TRAINING = TrainConfig(
    steps=700, lr=8e-3, warmup=50, cooldown=0.4, weight_decay=0.05, ema=0.99, seed=SEED, log_every=20, save_every=100,
)  # fmt: skip


def answers(model: ViViT, films: Tensor) -> Tensor:
    """Logits [batch, classes] of films [batch, time, channel, height, width] in [-1, 1], of which the model reads as
    many frames as it takes, at even distances."""
    return model(uniform_frames(films, model.config.frames))


def loss(model: ViViT, batch: dict[str, Tensor], generator: torch.Generator):
    """Cross-entropy of a batch, and the share that is right."""
    logits = answers(model, batch["films"]).float()
    right = (logits.detach().argmax(-1) == batch["label"]).float().mean()
    return F.cross_entropy(logits, batch["label"]), {"right": right}


def fit(
    build: Callable[[], nn.Module], training: TrainConfig, folder: Path, probes: Probes | None = None,
    batch: int = BATCH, pairs: order.Pairs = order.PAIRS, batches: Callable | None = None,
) -> tuple[ViViT, TrainResult]:
    """Train what `build` makes from the training's seed, or go on with it: the averaged model and the result.

    batches: other films than the world's.

    The blocks' matrices train with Muon; embeddings, positions, norms and the head with AdamW.
    """
    torch.manual_seed(training.seed)
    model = build()
    groups = muon_groups(model, inside="blocks", scale=0.6)
    batches = batches or order.Batches(SEED, batch, pairs)
    result = loop.train(model, loss, batches, training, folder, parameters=groups, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def begun(config: ViViTConfig, start: str | None = None, apart: float = 0.0) -> ViViT:
    """A reader before its first step: from nothing, or from chapter 03's shipped ViT, with tubelets as `start` says.

    apart: the deviation of a vector that the positions of each moment get besides. Repeated over time, as `from_vit`
    leaves them, they tell no moment from another, and the reader is a bag until training has told them apart.
    """
    model = ViViT.from_vit(load_vit(), config, start) if start else ViViT(config)
    moments = apart * torch.randn(config.grid[0], config.dim)
    with torch.no_grad():
        if config.model != 2:
            model.positions[-len(moments) * config.places :] += moments.repeat_interleave(config.places, 0)
        elif model.over_moments is not None:
            model.over_moments.positions[1:] += moments
    return model


def readers(training: TrainConfig, folder: Path, batch: int = BATCH) -> dict[str, tuple[ViViT, TrainResult]]:
    """Every one of READERS trained, or gone on with, each in its own folder: its averaged model and the result."""
    return {
        name: fit(partial(begun, config), training, folder / name.replace(" ", "_"), batch=batch)
        for name, config in READERS.items()
    }


@torch.no_grad()
def held_loss(model: ViViT, count: int) -> float:
    """Its loss on `count` films that are like training's, none of which training sees. The model ends on the CPU."""
    films, labels = order.films(SEED + 1, range(count))
    model.to(device())
    logits = torch.cat([answers(model, beside(model, order.to_pixels(part))).cpu() for part in films.split(100)])
    model.cpu()
    return F.cross_entropy(logits, labels).item()


def train(name: str = "vivit", steps: int | None = None) -> Trained:
    """Train the readers, or go on with them, in runs/NAME; what comes back is the best of the four models."""
    full = TRAINING.steps
    training = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    batch = larger(BATCH, 8)
    found = readers(training, RUNS / name, batch)
    count = by_profile(smoke=20, laptop=CHOSEN_BY, gpu=CHOSEN_BY)
    losses = {key: round(held_loss(model, count), 4) for key, (model, _) in found.items()}
    best = min((key for key in found if key != BAG), key=losses.get)
    model, result = found[best]
    return Trained.of(model, model.config, result, data_seed=SEED, batch=batch, best=best, held_loss=losses)


def load(name: str = "vivit") -> ViViT:
    """The shipped reader of films, verified, in float32. Raises CheckpointError."""
    return load_model(name, lambda sizes: ViViT(ViViTConfig(**sizes)), "ViViT")[0]


def names(classes: Tensor) -> list[str]:
    """What these classes [n] are called, in one text."""
    return ["; ".join(order.NAMES[k] for k in classes.tolist())]


def short_run(seed: int, steps: int = 320, folder: str | Path | None = None) -> dict:
    """The first steps of Model 4's training; the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=30, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    films, labels = order.films(SEED, range(PROBED), "test")
    held = {"films": order.to_pixels(films), "label": labels}
    probes = Watched(
        "vivit", loss, held, steps, swap=("label",), truth=names(labels[:3]),
        sample=lambda model: names(answers(model, beside(model, held["films"][:3])).argmax(-1)),
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit(partial(begun, READERS["model 4"]), training, Path(folder or temporary), probes)
        return probes.log(result.log)
