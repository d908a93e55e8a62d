"""How chapter 01's networks are trained: `soralab train unet`, `soralab train unet_denoiser`.

`unet` labels touching cells. `unet_denoiser` is the same network with padding and a time, trained on frames of the
world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from soralab import world
from soralab.datasets import cells
from soralab.diffusion import RectifiedFlow, diffusion_loss
from soralab.figures import Watched
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, larger
from soralab.unet import (
    UNet,
    UNetConfig,
    centre_crop,
    separate,
    weight_map,
    weighted_cross_entropy,
)

SEED, TEST_SEED = 1, 10**6
TILE, BATCH, PICTURES = 100, 4, 400  # pixels of a side in (60 come out), pictures a step, and in all
CONFIG = TrainConfig(steps=3000, lr=2e-3, warmup=50, cooldown=0.3, ema=0.99, seed=SEED, log_every=20)
PROBED = 12  # unseen tiles that a short run is probed with
PROCESS = RectifiedFlow()

# ------------------------------------------------------------------------------------------------- touching cells


class Dish:
    """Batches of touching cells: PICTURES pictures, drawn and weighed once, turned and mirrored anew in each batch.

    w0: the weight of the gaps in Eq. (2); None: no map at all.
    """

    def __init__(self, seed: int = SEED, w0: float | None = 10.0, pictures: int | None = None,
                 batch: int | None = None):
        self.seed, self.batch, out = seed, batch or BATCH, UNetConfig.small().output_size(TILE)
        drawn = [cells.draw(seed, index, TILE) for index in range(pictures or PICTURES)]
        self.x = torch.stack([picture for picture, _ in drawn])
        labels = [separate(each) for _, each in drawn]
        self.target = torch.from_numpy(centre_crop(np.stack(labels), out, out) > 0).long()
        weights = [torch.ones(TILE, TILE) if w0 is None else weight_map(each, w0) for each in labels]
        self.weights = centre_crop(torch.stack(weights), out, out)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """{"x": [batch, 1, 100, 100], "target", "weights": [batch, 60, 60]}; pure in the step."""
        rng, size = np.random.default_rng((self.seed, step)), self.batch
        chosen, turns, flip = rng.integers(len(self.x), size=size), int(rng.integers(4)), rng.random() < 0.5
        batch = {"x": self.x[chosen], "target": self.target[chosen], "weights": self.weights[chosen]}
        batch = {key: value.rot90(turns, (-2, -1)) for key, value in batch.items()}
        return {key: (value.flip(-1) if flip else value).contiguous() for key, value in batch.items()}


def loss(model: UNet, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Eq. (1) of one batch."""
    return weighted_cross_entropy(model(batch["x"]).float(), batch["target"], batch["weights"])


def fit(
    config: UNetConfig, training: TrainConfig, batch_fn: Callable, folder: Path, loss_fn: Callable = loss,
    probes: Probes | None = None,
) -> tuple[UNet, loop.TrainResult]:
    """Train a network from its seed, or go on where a run in `folder` stopped: the averaged network and the result."""
    torch.manual_seed(training.seed)
    model = UNet(config)
    result = loop.train(model, loss_fn, batch_fn, training, folder, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def short_run(seed: int, steps: int = 120, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped network's training; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(CONFIG, steps=steps, seed=seed, cooldown=0.0, log_every=2, save_every=steps, precision="float32")
    dish, test = Dish(seed, pictures=min(PICTURES, steps * BATCH)), Dish(TEST_SEED, pictures=PROBED)
    held = {"x": test.x, "target": test.target, "weights": test.weights}
    probes = Watched(
        "unet", loss, held, steps, swap=("target", "weights"), groups=PROBED // 2,
        sample=lambda model: 2 * model(beside(model, test.x[:4])).softmax(1)[:, 1:] - 1,
        truth=2.0 * test.target[:4, None] - 1,
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit(UNetConfig.small(), training, dish, Path(folder or temporary), probes=probes)
        return probes.log(result.log)


# ----------------------------------------------------------------------------------------------------- the denoiser

DENOISER_BATCH = 32
DENOISER = TrainConfig(steps=1500, lr=1e-3, warmup=100, cooldown=0.3, ema=0.995, seed=SEED, log_every=20)


def frame_batch(step: int) -> Tensor:
    """Frames of the simple world, [batch, 3, 32, 32]: the first of films that move."""
    size = larger(DENOISER_BATCH, 4)
    films, _ = world.clips(SEED, range(step * size, (step + 1) * size), frames=1, level="simple")
    return films[:, 0]


def denoising_loss(model: UNet, frames: Tensor, generator: torch.Generator) -> Tensor:
    """The velocity's squared error, at uniform times (chapter 06)."""
    return diffusion_loss(PROCESS, model, frames, "v", generator=generator).mean()


def train(name: str = "unet", steps: int | None = None) -> Trained:
    """Train `unet` or `unet_denoiser`, or go on with it, in runs/NAME."""
    denoises = name == "unet_denoiser"
    config = UNetConfig.denoiser() if denoises else UNetConfig.small()
    training = DENOISER if denoises else CONFIG
    training = replace(training, steps=steps or by_profile(smoke=2, laptop=training.steps, gpu=training.steps))
    size = larger(DENOISER_BATCH, 4) if denoises else larger(BATCH, 8)
    batch_fn, loss_fn = (frame_batch, denoising_loss) if denoises else (Dish(batch=size), loss)
    model, result = fit(config, training, batch_fn, RUNS / name, loss_fn)
    return Trained.of(model, config, result, data_seed=SEED, batch=size)
