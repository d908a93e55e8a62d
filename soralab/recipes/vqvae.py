"""How chapter 05's models are trained: `soralab train vqvae`, then `vqvae_prior`; and `vqvae_films`.

`vqvae` sees single frames (`soralab.datasets.what_and_where`), `vqvae_films` whole films of 9 frames, and `vqvae_prior`
the maps that `vqvae` makes of its frames, with the shape of the thing as the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import world
from soralab.datasets.what_and_where import CELLS, Batches, frames, to_pixels
from soralab.figures import Watched
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, device, larger
from soralab.vqvae import VQVAE, PixelCNN, PriorConfig, VQVAEConfig, load, vqvae_loss

SEED, BATCH, FILM_BATCH = 5, 32, 8
PROBED = 128  # unseen frames that a short run is probed with
FRAMES = 40_000  # of the shipped model's training, and of its prior's
FILM_FRAMES, SIDE = 9, 32
VARIANCE = 0.15  # of the values of a frame: the unit of an error's square, as in the official code

CONFIG = VQVAEConfig(revive=0.5)
FILMS = VQVAEConfig(films=True, codes=256, revive=0.5)
PRIOR = PriorConfig(codes=CONFIG.codes, classes=len(world.SHAPES))
# ema=0: the codebook follows the encoder as it is, so an average of the encoder would not fit it.
TRAINING = TrainConfig(steps=5000, lr=2e-3, warmup=100, cooldown=0.3, ema=0.0, seed=SEED, log_every=50, save_every=1000)
FILM_TRAINING = replace(TRAINING, steps=2000)
PRIOR_TRAINING = replace(TRAINING, steps=2500, lr=1e-3, ema=0.995)


def loss(model: VQVAE, batch: dict[str, Tensor], generator: torch.Generator):
    """Eq. (3) of a batch of pictures or films."""
    return vqvae_loss(model, batch["pixels"], VARIANCE)


def prior_loss(model: PixelCNN, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Bits for one code of a batch of maps."""
    return model.bits(batch["indices"], batch["label"])


def fit(
    model: nn.Module, loss_fn: Callable, training: TrainConfig, batches: Callable, folder: Path,
    probes: Probes | None = None,
) -> tuple[nn.Module, loop.TrainResult]:
    """Train a model, or go on with it: the (averaged) model and the result."""
    result = loop.train(model, loss_fn, batches, training, folder, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def build(config: VQVAEConfig | PriorConfig, seed: int = SEED) -> nn.Module:
    """A fresh model, its weights drawn from the seed."""
    torch.manual_seed(seed)
    return PixelCNN(config) if isinstance(config, PriorConfig) else VQVAE(config)


# ---------------------------------------------------------------------------------------------------------------- data


def film_batch(step: int) -> dict[str, Tensor]:
    """Batch `step` of films of one thing, never twice the same: {"pixels": [batch, 9, 3, 32, 32]}."""
    size = larger(FILM_BATCH, 4)
    indices = range(step * size, (step + 1) * size)
    return {"pixels": world.clips(SEED, indices, FILM_FRAMES, SIDE, SIDE, "simple")[0]}


@torch.no_grad()
def encoded(model: VQVAE, pictures: Tensor, chunk: int = 250) -> Tensor:
    """The maps of pictures uint8 [n, 3, height, width]: int64 [n, rows, columns], where the model is."""
    return torch.cat([model.encode(to_pixels(beside(model, part))) for part in pictures.split(chunk)])


class Maps:
    """Batches of the maps that `model` makes of the training frames, with the shape of each frame's thing."""

    def __init__(self, model: VQVAE, count: int):
        pictures, labels = frames(SEED, range(count))
        self.batches = Batches(encoded(model, pictures), beside(model, labels // CELLS**2), larger(BATCH, 8), SEED)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"indices": [batch, rows, columns], "label": [batch]}."""
        batch = self.batches(step)
        return {"indices": batch["pixels"], "label": batch["label"]}


def short_run(seed: int, steps: int = 300, folder: str | Path | None = None) -> dict:
    """The first steps of `vqvae`'s training; returns the log as columns {"step", "loss", "psnr", "perplexity", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    batches = Batches(*frames(SEED, range(max(BATCH, steps * BATCH))), BATCH, seed)
    held = {"pixels": to_pixels(frames(SEED, range(PROBED), split="test")[0])}
    few = held["pixels"][:6]
    probes = Watched("vqvae", loss, held, steps, truth=few,
                     sample=lambda model: model(beside(model, few))[0].clamp(-1, 1))  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit(build(CONFIG, seed), loss, training, batches, Path(folder or temporary), probes)
        return probes.log(result.log)


def train(name: str = "vqvae", steps: int | None = None) -> Trained:
    """Train a model, or go on with it, in runs/NAME; `vqvae_prior` needs the checkpoint `vqvae`."""
    config, training, loss_fn = {
        "vqvae": (CONFIG, TRAINING, loss), "vqvae_films": (FILMS, FILM_TRAINING, loss),
        "vqvae_prior": (PRIOR, PRIOR_TRAINING, prior_loss),
    }[name]  # fmt: skip
    full = training.steps
    training = replace(training, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    count = by_profile(smoke=100, laptop=FRAMES, gpu=FRAMES)
    if name == "vqvae":
        batches = Batches(*frames(SEED, range(count)), larger(BATCH, 8), SEED)
    else:
        batches = film_batch if name == "vqvae_films" else Maps(load("vqvae").to(device()), count)
    model, result = fit(build(config), loss_fn, training, batches, RUNS / name)
    batch = larger(FILM_BATCH, 4) if name == "vqvae_films" else larger(BATCH, 8)
    return Trained.of(model, config, result, data_seed=SEED, batch=batch)
