"""How chapter 16's small DiTs are trained, told a class as the paper's are: a colour and a motion.

They film in the latents of the spacetime autoencoder what chapter 16's transformer films too, by the paper's loss:
noise and its variance, AdamW at a constant rate. No checkpoint is made: `soralab.experiments.dit` compares the four
ways of telling, and four sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from soralab import world
from soralab.dit import DiT, DiTConfig, dit_loss
from soralab.recipes import RUNS
from soralab.recipes.sora import FRAMES, SIDE, LatentBatches, used
from soralab.sora import SpacetimeAutoencoder, load_autoencoder
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, device
from soralab.world.scene import COLOURS, MOTIONS, Scene

BATCH = 32
CLASSES = len(COLOURS) * len(MOTIONS)
BASE = DiTConfig(channels=8, size=(5, 8, 8), classes=CLASSES)
SIZES = {  # blocks x width: the paper's ladder in small, each about three times the multiply-adds of the one before
    "2 x 64": {"depth": 2, "dim": 64, "heads": 2},
    "3 x 96": {"depth": 3, "dim": 96, "heads": 3},
    "5 x 128": {"depth": 5, "dim": 128, "heads": 4},
    "6 x 192": {"depth": 6, "dim": 192, "heads": 6},
}
STEPS = {"2 x 64": 6144, "3 x 96": 4096, "5 x 128": 2048, "6 x 192": 1024}  # the larger one is, the fewer
MARKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # shares of a run's steps, which 32 divides: it is measured there
TRAINING = TrainConfig(steps=1024, lr=1e-3, warmup=100, cooldown=0.0, ema=0.99, precision="float32")


@dataclass(frozen=True)
class Run:
    """A training: the model's sizes, and how it is trained."""

    config: DiTConfig
    training: TrainConfig = TRAINING

    @classmethod
    def of(cls, size: str, steps: int, seed: int, **changes) -> Run:
        """One of SIZES; `changes` are fields of its configuration. The smoke profile takes two steps."""
        steps = by_profile(smoke=2, laptop=steps, gpu=steps)
        return cls(replace(BASE, **SIZES[size], **changes), replace(TRAINING, steps=steps, seed=seed))


def label(scene: Scene) -> int:
    """The class of a scene of one thing, from 0 to CLASSES - 1: its colour and its motion."""
    thing = scene.objects[0]
    return list(COLOURS).index(thing.colour) * len(MOTIONS) + MOTIONS.index(thing.motion)


class Labelled(LatentBatches):
    """Chapter 16's latents, in batches with the films' classes."""

    def __init__(self, autoencoder: SpacetimeAutoencoder, cache: Path | None = RUNS / "dit" / "latents"):
        super().__init__(autoencoder, by_profile(smoke=400, laptop=40_000, gpu=40_000), cache, batch=BATCH)
        self.labels = torch.tensor([label(scene) for scene in self.scenes]).to(self.latents.device)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"x0": [batch, 5, 8, 8, 8], "y": [batch]}."""
        films = torch.tensor(self._which(step)).to(self.latents.device)
        return {"x0": self.latents[films].float(), "y": self.labels[films]}


def unseen(autoencoder: SpacetimeAutoencoder) -> dict[str, Tensor]:
    """Films of the split "test", of the same kinds, as a batch: what every model is measured on."""
    scenes = list(islice(used(count(), "test"), by_profile(smoke=32, laptop=256, gpu=256)))
    films = world.to_film(world.render(scenes, FRAMES, SIDE, SIDE))
    with torch.no_grad():
        x0 = torch.cat([autoencoder.encode(beside(autoencoder, part)) for part in films.split(64)])
    return {"x0": x0, "y": torch.tensor([label(scene) for scene in scenes]).to(x0.device)}


def data() -> tuple[Labelled, dict[str, Tensor]]:
    """What is learnt from, and what is measured on."""
    autoencoder = load_autoencoder().to(device())
    return Labelled(autoencoder), unseen(autoencoder)


def loss(model: DiT, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The paper's: L_simple, and a term of L_vlb for the variance; for the log both by themselves."""
    simple, term = (each.mean() for each in dit_loss(model, batch["x0"], batch["y"], generator))
    return simple + term, {"simple": simple, "vlb": term}


def simple_loss(model: DiT, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """What models are compared by: L_simple."""
    return dit_loss(model, batch["x0"], batch["y"], generator)[0].mean()


def fit(run: Run, batches: Labelled, held: dict[str, Tensor], folder: Path) -> tuple[DiT, TrainResult]:
    """Train by a run, or go on with it in `folder`; the model has the averaged weights.

    Its log has at each of MARKS the average's `held`, its simple loss on unseen films, and `pairing`: by how much the
    label of another film makes that worse (soralab.training.probes).
    """
    torch.manual_seed(run.training.seed)
    model = DiT(run.config)
    probes = Probes(simple_loss, held, run.training.steps, swap=("y",))
    probes.due = [share * run.training.steps for share in MARKS]
    training = replace(run.training, log_every=max(1, run.training.steps // 32))
    result = loop.train(model, loss, batches, training, folder, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result
