"""How the first stage of chapter 16's whole model is trained: `soralab train sora_full_autoencoder`.

Chapter 11's autoencoder goes on learning from what it still gets wrong: one thing in front of another, and small
crosses that turn or grow. And it sees films of more sizes and lengths.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice

import torch
from torch import Tensor

from soralab import world
from soralab.blocks.film_codec import autoencoder_loss
from soralab.recipes import RUNS, Trained
from soralab.recipes.sora_autoencoder import textures
from soralab.recipes.walt_autoencoder import CONFIG, SEED, parameters
from soralab.training import loop
from soralab.training.profiles import by_profile
from soralab.walt import CausalAutoencoder, load_autoencoder

NAME = "sora_full_autoencoder"
BEGINS_WITH = "walt_autoencoder"
SIZES = (  # frames, height, width, and how many of them are a batch: nearly as many pixels
    (9, 32, 32, 16), (9, 32, 32, 16), (9, 48, 48, 7), (9, 32, 32, 16), (9, 48, 32, 10), (9, 32, 48, 10),
    (17, 32, 32, 8), (9, 48, 64, 5),
)  # fmt: skip
STREAM = 10**6  # where its scenes begin in the library, far behind those of chapter 11
TRAINING = replace(CONFIG, steps=1600, lr=2e-3, warmup=50, cooldown=0.6, save_every=100)


def hard(scene: world.Scene) -> bool:
    """Whether chapter 11's autoencoder fails at such a scene more often than not, or nearly."""
    before = scene.relation is not None and scene.relation.kind == "in front of"
    crosses = (o for o in scene.objects if o.shape == "cross" and o.size == "small")
    return before or any(o.motion in ("spins", "grows") for o in crosses)


def batch(step: int) -> Tensor:
    """Batch number `step`: films [batch, frames, 3, height, width]; half of them hard, a quarter crowded, the rest
    simple and, of the larger batches, one of clouds."""
    frames, height, width, size = SIZES[step % len(SIZES)]
    aspect, clouds = width / height, int(size >= 8)
    hard_ones, crowded = (size + 1) // 2, size // 4
    drawn = (world.sample_scene(SEED, k, "full", "train", aspect) for k in count(STREAM + 400 * step))
    scenes = list(islice(filter(hard, drawn), hard_ones))
    for level, many in (("full", crowded), ("simple", size - hard_ones - crowded - clouds)):
        scenes += [world.sample_scene(SEED, 2 * STREAM + 8 * step + k, level, "train", aspect) for k in range(many)]
    films = world.to_film(world.render(scenes, frames, height, width))
    return torch.cat([films, textures(clouds, frames, height, width, seed=STREAM + step)]) if clouds else films


def build() -> CausalAutoencoder:
    """Chapter 11's autoencoder as it is shipped, to be trained on."""
    return load_autoencoder(BEGINS_WITH).train().requires_grad_(True)


def train(name: str = NAME, steps: int | None = None) -> Trained:
    """Train the autoencoder, or go on with it, in runs/NAME."""
    torch.manual_seed(SEED)
    model = build()
    config = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=TRAINING.steps, gpu=TRAINING.steps))
    result = loop.train(model, autoencoder_loss, batch, config, RUNS / name, parameters=parameters(model))
    result.ema.copy_to(model)
    films = by_profile(smoke=16, laptop=256, gpu=256)
    model.eval().fit_scale(world.clips(SEED, range(films), 9, level="full")[0])
    return Trained.of(model, model.config, result, begins_with=BEGINS_WITH, data_seed=SEED, batch=SIZES[0][3])
