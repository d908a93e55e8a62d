"""How chapter 16's spacetime autoencoder is trained: `soralab train sora_autoencoder`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from soralab import world
from soralab.blocks.film_codec import autoencoder_loss
from soralab.datasets.film_shards import FilmShards
from soralab.recipes import RUNS, Trained
from soralab.recipes.stream import entry
from soralab.sora import AutoencoderConfig, SpacetimeAutoencoder
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile, larger

NAME = "sora_autoencoder"
BATCH, SEED, FRAMES = 16, 16, 9
CONFIG = TrainConfig(steps=2400, lr=1e-3, warmup=100, cooldown=0.3, ema=0.998, seed=SEED)


def build() -> SpacetimeAutoencoder:
    """The autoencoder at the size that is shipped."""
    return SpacetimeAutoencoder(AutoencoderConfig())


def batch(step: int) -> Tensor:
    """Batch number `step`: films [batch, 9, 3, 32, 32]; half of them crowded, 3 in 8 simple, 1 in 8 no toy at all."""
    size = larger(BATCH, 4)
    full, simple = size // 2, 3 * size // 8
    films = [
        world.clips(SEED, range(step * full, (step + 1) * full), FRAMES, level="full")[0],
        world.clips(SEED, range(step * simple, (step + 1) * simple), FRAMES, level="simple")[0],
        textures(size - full - simple, FRAMES, 32, 32, seed=step),
    ]
    return torch.cat(films)


def textures(count: int, frames: int, height: int, width: int, seed: int) -> Tensor:
    """Films of drifting coloured clouds, [count, frames, 3, height, width] in [-1, 1].

    The reader's own clips are not made of discs on black; without a share of these the autoencoder cannot draw them.
    """
    rng = np.random.default_rng((SEED, seed))
    film = torch.zeros(count, 3, frames, height, width)
    for scale in (2, 4, 8, 16):
        noise = torch.from_numpy(rng.standard_normal((count, 3, 3, scale + 1, scale + 1), np.float32))
        grey = noise.mean(1, keepdim=True) * 1.7  # most of the world's texture is in its brightness
        film += F.interpolate(0.4 * noise + grey, (frames, height, width), mode="trilinear") * scale**-0.7
    gain = torch.from_numpy(rng.uniform(0.3, 1.5, (count, 1, 1, 1, 1)).astype(np.float32))
    return (film * gain).tanh().transpose(1, 2).contiguous()


def loss(model: SpacetimeAutoencoder, film: Tensor, generator: torch.Generator):
    """The training loss of one batch; see `soralab.blocks.film_codec.autoencoder_loss`."""
    return autoencoder_loss(model, film, generator)


def train(name: str = NAME, steps: int | None = None, stream: Path | None = None) -> Trained:
    """Train the autoencoder, or go on with it, in runs/NAME. stream: a folder of film shards to learn from, not the
    world."""
    torch.manual_seed(SEED)
    model = build()
    config = replace(CONFIG, steps=steps or by_profile(smoke=2, laptop=CONFIG.steps, gpu=CONFIG.steps))
    size, films = larger(BATCH, 4), by_profile(smoke=16, laptop=256, gpu=256)
    shards = FilmShards(stream, size, FRAMES, 32, SEED) if stream else None
    result = loop.train(model, loss, (lambda step: shards(step)[0]) if shards else batch, config, RUNS / name)
    result.ema.copy_to(model)
    shown = torch.cat([shards(step)[0] for step in range(-(-films // size))]) if shards else None
    model.eval().fit_scale(world.clips(SEED, range(films), FRAMES, level="full")[0] if shown is None else shown)
    return Trained.of(model, model.config, result, data_seed=SEED, batch=size, **entry(stream))
