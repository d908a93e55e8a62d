"""How chapter 11's causal autoencoder is trained: `soralab train walt_autoencoder`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from soralab import world
from soralab.blocks.film_codec import autoencoder_loss
from soralab.recipes import RUNS, Trained
from soralab.recipes.sora_autoencoder import textures
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.walt import AutoencoderConfig, CausalAutoencoder

NAME = "walt_autoencoder"
SEED, FRAMES = 11, 9
SIDES = {32: 16, 48: 7}  # of a film, and how many of that size are a batch: nearly as many pixels
CONFIG = TrainConfig(steps=3600, lr=3e-3, warmup=100, cooldown=0.3, ema=0.998, seed=SEED, precision="bfloat16")


def build() -> CausalAutoencoder:
    """The autoencoder at the size that is shipped."""
    return CausalAutoencoder(AutoencoderConfig())


def films_of(side: int) -> int:
    """How many films of so many pixels on a side are a batch."""
    return by_profile(smoke=4, laptop=SIDES[side], gpu=4 * SIDES[side])


def batch(step: int) -> Tensor:
    """Batch number `step`: films [batch, 9, 3, side, side]; half of them crowded, most others simple, the rest clouds.

    Every fourth batch is of larger films.
    """
    side = 48 if step % 4 == 3 else 32
    size = films_of(side)
    full, simple = (size + 1) // 2, 7 * size // 16
    films = [
        world.clips(SEED, range(step * full, (step + 1) * full), FRAMES, side, side, "full")[0],
        world.clips(SEED, range(step * simple, (step + 1) * simple), FRAMES, side, side, "simple")[0],
    ]
    clouds = size - full - simple
    return torch.cat([*films, textures(clouds, FRAMES, side, side, seed=step)] if clouds else films)


def parameters(model: CausalAutoencoder) -> list[dict]:
    """What stands between the first and last layers of encoder and decoder trains with Muon, the rest with AdamW."""
    ends = {model.encoder[0].weight, model.encoder[-1].weight, model.decoder_quarter[0].weight,
            model.decoder_half[-1].weight}  # fmt: skip
    inner = [p for p in model.parameters() if p.ndim >= 2 and p not in ends]
    return [{"params": inner, "muon": True}, {"params": [p for p in model.parameters() if p.ndim < 2 or p in ends]}]


def train(name: str = NAME, steps: int | None = None) -> Trained:
    """Train the autoencoder, or go on with it, in runs/NAME."""
    torch.manual_seed(SEED)
    model = build()
    config = replace(CONFIG, steps=steps or by_profile(smoke=2, laptop=CONFIG.steps, gpu=CONFIG.steps))
    result = loop.train(model, autoencoder_loss, batch, config, RUNS / name, parameters=parameters(model))
    result.ema.copy_to(model)
    films = by_profile(smoke=16, laptop=256, gpu=256)
    model.eval().fit_scale(world.clips(SEED, range(films), FRAMES, level="full")[0])
    return Trained.of(model, model.config, result, data_seed=SEED, batch=films_of(32))
