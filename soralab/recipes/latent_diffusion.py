"""How chapter 06's models are trained: `soralab train latent_autoencoder`, then `soralab train latent_diffusion`.

The first stage copies pictures of the world through latents that are four times smaller on each side; the second paints
them from prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from einops import rearrange
from torch import Tensor, nn

from soralab import world
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig, first_stage_loss
from soralab.blocks.perception import Features, PatchDiscriminator
from soralab.datasets import stills
from soralab.diffusion import diffusion_loss
from soralab.figures import Watched
from soralab.latent_diffusion import (
    PROCESS,
    LatentDiffusion,
    LatentDiffusionConfig,
    Painter,
    UNetConfig,
    build_autoencoder,
    load_autoencoder,
    word_ids,
)
from soralab.recipes import RUNS, Trained
from soralab.recipes import vit as chapter_03
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, device, larger
from soralab.training.progress import progress
from soralab.world.language import VOCABULARY

SEED, SIDE = 6, 32
FIRST, SECOND = "latent_autoencoder", "latent_diffusion"

# ------------------------------------------------------------------------------------------------- the first stage

AUTOENCODER = AutoencoderConfig()
FIRST_BATCH, KL = 32, 1e-6
# The paper's code has 1 and 0.5. After 240 steps copies had 21.8 dB with 1, 27.1 dB with 0.03, and these were nearer to
# the ViT too (0.12, not 0.18); with an adversary of 0.5 alone 25.0 dB, with both as here 27.2 dB. One run each.
PERCEPTUAL, STRENGTH = 0.03, 0.1
FIRST_TRAINING = TrainConfig(
    steps=4000, lr=1.5e-3, warmup=100, cooldown=0.4, ema=0.998, seed=SEED, log_every=50, save_every=500
)
ADVERSARY_FROM = 0.5  # share of the steps after which the discriminator joins, as in the paper's code ("disc_start")


class Pair(nn.Module):
    """An autoencoder and its discriminator, trained in one loop, each by its own part of the loss."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.autoencoder = build_autoencoder(config)
        self.discriminator = PatchDiscriminator(config.channels, 24, layers=2)


def perceptual_features(name: str = "vit") -> Features:
    """What chapter 03's ViT, on the device, sees in pictures [batch, 3, 32, 32]: its patches after each layer, as maps.
    """
    model = chapter_03.load(name).requires_grad_(False).to(device())

    def features(pixels: Tensor) -> Sequence[Tensor]:
        z, maps = model.tokens(pixels), []
        for block in model.blocks:
            z = block(z)
            maps.append(rearrange(z[:, 1:], "b (r s) d -> b d r s", r=model.config.grid))
        return maps

    return features


class PictureBatches:
    """Batches of pictures [n, channel, height, width], in a new order each epoch; the adversary comes at `start`."""

    def __init__(self, pictures: Tensor, start: float = math.inf, batch: int = FIRST_BATCH):
        self.pictures, self.start, self.batch = pictures, start, min(batch, len(pictures))

    def __call__(self, step: int) -> dict:
        """Batch `step`: {"pixels": [batch, channel, height, width] in [-1, 1], "adversary": bool}."""
        epoch, place = divmod(step * self.batch, len(self.pictures) // self.batch * self.batch)
        order = torch.randperm(len(self.pictures), generator=torch.Generator().manual_seed(SEED + epoch))
        return {"pixels": self.pictures[order[place : place + self.batch]], "adversary": step >= self.start}


def fit_first_stage(
    config: AutoencoderConfig, training: TrainConfig, batches: PictureBatches, folder: Path, features: Features | None
) -> tuple[Autoencoder, loop.TrainResult]:
    """Train an autoencoder (or go on with it) and measure its scale: the averaged weights, and the result."""
    torch.manual_seed(training.seed)
    pair = Pair(config)

    def loss(pair: Pair, batch: dict, generator: torch.Generator):
        pixels, adversary = batch["pixels"], batch["adversary"]
        return first_stage_loss(
            pair.autoencoder, pair.discriminator, features, pixels, generator, adversary, KL, PERCEPTUAL, STRENGTH
        )

    result = loop.train(pair, loss, batches, training, folder)
    result.ema.copy_to(pair)
    model = pair.autoencoder.eval()
    model.fit_scale(batches.pictures[:256])
    return model, result


def library(count: int) -> tuple[list[world.Scene], Tensor]:
    """The first `count` training scenes and their pictures [count, 3, 32, 32]."""
    scenes = [stills.mixed(SEED, k) for k in range(count)]
    return scenes, stills.pictures(scenes, SIDE)


# ------------------------------------------------------------------------------------------------ the second stage

CONFIG = LatentDiffusionConfig(
    UNetConfig(width=48, blocks=1, groups=16, context=64), vocabulary=len(VOCABULARY) + 1, words=24
)
LARGE = replace(CONFIG, unet=replace(CONFIG.unet, width=128))  # for the gpu profile
BATCH = 64
PICTURES = 30_000
PROBED = 128  # unseen pictures that a short run is probed with
TRAINING = TrainConfig(
    steps=5000, lr=1.5e-3, warmup=200, cooldown=0.4, ema=0.998, seed=SEED, log_every=50, save_every=500
)


class LatentBatches:
    """Batches of latents and prompts: all pictures are encoded once, samples of q(z | x), then drawn anew each epoch.

    prompt(k, rng) is what picture k is called; concat [n, ...] lies over the latents, if it is given.
    """

    def __init__(self, latents: Tensor, prompt: Callable[[int, Random], Tensor], concat: Tensor | None = None,
                 batch: int = BATCH):
        self.latents, self.prompt, self.concat, self.batch = latents, prompt, concat, min(batch, len(latents))

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"z": [batch, c, height, width], "ids": [batch, words]}, and "concat" [batch, ...] if given."""
        epoch, place = divmod(step * self.batch, len(self.latents) // self.batch * self.batch)
        order = torch.randperm(len(self.latents), generator=torch.Generator().manual_seed(SEED + epoch))
        which = order[place : place + self.batch]
        rng = Random(f"{SEED}/{step}")
        found = {"z": self.latents[which].float(), "ids": torch.stack([self.prompt(int(k), rng) for k in which])}
        return found if self.concat is None else {**found, "concat": self.concat[which].float()}


@torch.no_grad()
def encoded(model: Autoencoder | None, pictures: Tensor, chunk: int = 200) -> Tensor:
    """Scaled latents of pictures, sampled once, in half precision; the pictures themselves without an autoencoder.

    They are computed and stay where the model is; the noise is the CPU's, the same on any device.
    """
    if model is None:
        return pictures
    generator = torch.Generator().manual_seed(SEED)
    parts = progress(pictures.split(chunk), desc="encoding pictures", unit="batch")
    return torch.cat([model.encode(beside(model, part), generator).half() for part in parts])


def prompts_of(scenes: Sequence[world.Scene], words: int = CONFIG.words) -> Callable[[int, Random], Tensor]:
    """The words of a training picture, as `stills.prompt` draws them."""
    return lambda k, rng: word_ids([stills.prompt(scenes[k], rng)], words)[0]


def loss(model: LatentDiffusion, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Eq. (3): the squared error of the predicted noise, at uniform times."""
    condition = {key: value for key, value in batch.items() if key != "z"}
    return diffusion_loss(PROCESS, model, batch["z"], "eps", generator=generator, condition=condition).mean()


def fit_second_stage(
    config: LatentDiffusionConfig, training: TrainConfig, batches: LatentBatches, folder: Path,
    probes: Probes | None = None,
) -> tuple[LatentDiffusion, loop.TrainResult]:
    """Train a diffusion model on latents, or go on with it: the averaged weights, and the result."""
    torch.manual_seed(training.seed)
    model = LatentDiffusion(config)
    result = loop.train(model, loss, batches, training, folder, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


# ---------------------------------------------------------------------------------------------------------------- train


def short_run(seed: int, steps: int = 150, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped model's training; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    scenes, pictures = library(min(2000, steps * BATCH))
    first = load_autoencoder().to(device())
    batches = LatentBatches(encoded(first, pictures), prompts_of(scenes))
    unseen = [stills.mixed(SEED, k, "test") for k in range(PROBED)]
    ids = word_ids([stills.caption(scene) for scene in unseen], CONFIG.words)
    shown = stills.pictures(unseen, SIDE)
    held, texts = {"z": encoded(first, shown).float(), "ids": ids}, [stills.caption(scene) for scene in unseen[:4]]
    probes = Watched(SECOND, loss, held, steps, swap=("ids",), truth=shown[:4],
                     sample=lambda model: Painter(model, first, SIDE).paint(texts, steps=10))  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit_second_stage(CONFIG, training, batches, Path(folder or temporary), probes)
        return probes.log(result.log)


def train(name: str = SECOND, steps: int | None = None) -> Trained:
    """Train one of the two models, or go on with it, in runs/NAME; the second needs the first one's checkpoint.

    `steps` move the first one's switch, at which the discriminator joins: a run that is lengthened is not one that was
    long at once."""
    run, full = (train_first, FIRST_TRAINING) if name == FIRST else (train_second, TRAINING)
    training = replace(full, steps=steps or by_profile(smoke=2, laptop=full.steps, gpu=full.steps))
    return run(training, RUNS / name)


def train_first(training: TrainConfig, folder: Path) -> Trained:
    """The first stage."""
    count = by_profile(smoke=100, laptop=PICTURES, gpu=4 * PICTURES)
    batches = PictureBatches(library(count)[1], ADVERSARY_FROM * training.steps, larger(FIRST_BATCH, 4))
    model, result = fit_first_stage(AUTOENCODER, training, batches, folder, perceptual_features())
    return Trained.of(model, model.config, result, data_seed=SEED, batch=batches.batch, pictures=count)


def train_second(training: TrainConfig, folder: Path) -> Trained:
    """The second stage."""
    scenes, pictures = library(by_profile(smoke=100, laptop=PICTURES, gpu=4 * PICTURES))
    batches = LatentBatches(encoded(load_autoencoder().to(device()), pictures), prompts_of(scenes),
                            batch=larger(BATCH, 8))  # fmt: skip
    config = by_profile(smoke=CONFIG, laptop=CONFIG, gpu=LARGE)
    model, result = fit_second_stage(config, training, batches, folder)
    entries = {"autoencoder": FIRST, "batch": batches.batch, "pictures": len(scenes)}
    return Trained.of(model, model.config, result, data_seed=SEED, **entries)
