"""How the painter is trained that chapters 09, 10, 14 and 15 start from: chapter 06's, on frames of films as well.

`soralab train film_autoencoder`, then `soralab train film_painter`. Sizes, losses and steps are chapter 06's; what
differs are the pictures (soralab.datasets.frames).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from torch import Tensor

from soralab import world
from soralab.datasets import frames
from soralab.latent_diffusion import load_autoencoder, word_ids
from soralab.recipes import RUNS, Trained
from soralab.recipes.latent_diffusion import (
    ADVERSARY_FROM,
    AUTOENCODER,
    BATCH,
    CONFIG,
    FIRST_BATCH,
    FIRST_TRAINING,
    LARGE,
    PICTURES,
    TRAINING,
    LatentBatches,
    PictureBatches,
    encoded,
    fit_first_stage,
    fit_second_stage,
    perceptual_features,
)
from soralab.training.profiles import by_profile, device, larger

SEED = 10
FIRST, SECOND = "film_autoencoder", "film_painter"


def library(count: int) -> tuple[list[world.Scene], Tensor]:
    """The first `count` training pictures: their scenes, and the pictures [count, 3, 32, 32]."""
    samples = [frames.sample(SEED, k) for k in range(count)]
    return [scene for scene, _ in samples], frames.pictures(samples)


def prompts_of(scenes: list[world.Scene]) -> Callable[[int, Random], Tensor]:
    """The words of a training picture, as `frames.prompt` draws them."""
    return lambda k, rng: word_ids([frames.prompt(scenes[k], rng)], CONFIG.words)[0]


def train(name: str = SECOND, steps: int | None = None) -> Trained:
    """Train one of the two models, or go on with it, in runs/NAME; the second needs the first one's checkpoint.

    `steps` move the first one's switch, at which the discriminator joins: a run that is lengthened is not one that was
    long at once."""
    full = FIRST_TRAINING if name == FIRST else TRAINING
    training = replace(full, steps=steps or by_profile(smoke=2, laptop=full.steps, gpu=full.steps))
    scenes, pictures = library(by_profile(smoke=100, laptop=PICTURES, gpu=4 * PICTURES))
    if name == FIRST:
        batches = PictureBatches(pictures, ADVERSARY_FROM * training.steps, larger(FIRST_BATCH, 4))
        model, result = fit_first_stage(AUTOENCODER, training, batches, RUNS / name, perceptual_features())
        return Trained.of(model, model.config, result, data_seed=SEED, batch=batches.batch, pictures=len(scenes))
    latents = encoded(load_autoencoder(FIRST).to(device()), pictures)
    batches = LatentBatches(latents, prompts_of(scenes), batch=larger(BATCH, 8))
    config = by_profile(smoke=CONFIG, laptop=CONFIG, gpu=LARGE)
    model, result = fit_second_stage(config, training, batches, RUNS / name)
    entries = {"autoencoder": FIRST, "batch": batches.batch, "pictures": len(scenes)}
    return Trained.of(model, model.config, result, data_seed=SEED, **entries)
