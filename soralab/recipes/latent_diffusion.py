"""How chapter 06's models are trained: `soralab train latent_autoencoder`, then `soralab train latent_diffusion`.

The first stage copies pictures of the world through latents that are four times smaller on each side; the second paints
them from prompts. The card of the second also holds the experiments of `soralab.experiments`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
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
from soralab.figures import read_log
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
from soralab.recipes import RUNS, publish
from soralab.recipes import vit as chapter_03
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
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
    """What chapter 03's ViT sees in pictures [batch, 3, 32, 32]: the state of its patches after each layer, as maps."""
    model = chapter_03.load(name).requires_grad_(False)

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


@torch.no_grad()
def copies(model: Autoencoder, pictures: Tensor, chunk: int = 100) -> Tensor:
    """What is left of pictures after the first stage: decode(encode(pictures)), in [-1, 1]."""
    return torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in pictures.split(chunk)])


def psnr(pictures: Tensor, copied: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures [n, ...]; the peak is 2, from -1 to 1."""
    error = (copied - pictures).square().flatten(1).mean(1)
    return round((10 * torch.log10(4 / error)).mean().item(), 2)


def measure_first_stage(model: Autoencoder, count: int = 400) -> dict[str, float]:
    """On pictures that training never saw: PSNR in dB, and the share of copies that the referee reads right."""
    scenes = [stills.mixed(SEED, k, "test") for k in range(count)]
    pictures = stills.pictures(scenes)
    copied = copies(model, pictures)
    texts = [stills.caption(scene) for scene in scenes]
    return {
        "psnr": psnr(pictures, copied),
        "read_right": round(stills.scores(copied, texts)["all"], 4),
        "read_right_true": round(stills.scores(pictures, texts)["all"], 4),
    }


def library(count: int) -> tuple[list[world.Scene], Tensor]:
    """The first `count` training scenes and their pictures [count, 3, 32, 32]."""
    scenes = [stills.mixed(SEED, k) for k in range(count)]
    return scenes, stills.pictures(scenes, SIDE)


# ------------------------------------------------------------------------------------------------ the second stage

CONFIG = LatentDiffusionConfig(
    UNetConfig(width=48, blocks=1, groups=16, context=64), vocabulary=len(VOCABULARY) + 1, words=24
)
BATCH = 64
PICTURES = 30_000
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
    """Scaled latents of pictures, sampled once, in half precision; the pictures themselves without an autoencoder."""
    if model is None:
        return pictures
    generator = torch.Generator().manual_seed(SEED)
    parts = progress(pictures.split(chunk), desc="encoding pictures", unit="batch")
    return torch.cat([model.encode(part, generator).half() for part in parts])


def prompts_of(scenes: Sequence[world.Scene], words: int = CONFIG.words) -> Callable[[int, Random], Tensor]:
    """The words of a training picture, as `stills.prompt` draws them."""
    return lambda k, rng: word_ids([stills.prompt(scenes[k], rng)], words)[0]


def loss(model: LatentDiffusion, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Eq. (3): the squared error of the predicted noise, at uniform times."""
    condition = {key: value for key, value in batch.items() if key != "z"}
    return diffusion_loss(PROCESS, model, batch["z"], "eps", generator=generator, condition=condition).mean()


def fit_second_stage(
    config: LatentDiffusionConfig, training: TrainConfig, batches: LatentBatches, folder: Path
) -> tuple[LatentDiffusion, loop.TrainResult]:
    """Train a diffusion model on latents, or go on with it: the averaged weights, and the result."""
    torch.manual_seed(training.seed)
    model = LatentDiffusion(config)
    result = loop.train(model, loss, batches, training, folder)
    result.ema.copy_to(model)
    return model.eval(), result


def painted(painter: Painter, texts: Sequence[str], seed: int = 60_000, chunk: int = 50, **options) -> Tensor:
    """The painter's pictures of texts; `options` go to `Painter.paint`."""
    parts = progress(range(0, len(texts), chunk), desc="painting", unit="batch")
    return torch.cat([painter.paint(list(texts[k : k + chunk]), seed + k, **options) for k in parts])


def measure(painter: Painter, count: int = 400, **options) -> dict[str, dict[str, float]]:
    """The referee's scores of what is painted from prompts alone, for each split and number of things.

    Training has met all 126 test prompts of one thing, and about 6 of 10 of two things; none of those held out.
    """
    table = {}
    for split in ("test", "held_out"):
        for things in (1, 2):
            texts, _ = stills.prompts(split, things, count)
            row = stills.scores(painted(painter, texts, **options), texts)
            table[f"{split}, {things}"] = {"pictures": count, **{k: round(v, 4) for k, v in row.items()}}
    return table


# ------------------------------------------------------------------------------------------------ train and evaluate


def short_run(seed: int, steps: int = 150, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped model's training; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    scenes, pictures = library(min(2000, steps * BATCH))
    batches = LatentBatches(encoded(load_autoencoder(), pictures), prompts_of(scenes))
    with TemporaryDirectory() as temporary:
        _, result = fit_second_stage(CONFIG, training, batches, Path(folder or temporary))
        return read_log(result.log)


def train(name: str = SECOND, folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) one of the two models in runs/NAME, then save it as folder/NAME; returns its path."""
    make, full = (train_first, FIRST_TRAINING) if name == FIRST else (train_second, TRAINING)
    training = replace(full, steps=steps or by_profile(smoke=2, laptop=full.steps, gpu=4 * full.steps))
    model, result, entries = make(training, RUNS / name)
    card = {
        **entries, "config": asdict(model.config), "data_seed": SEED, "steps": result.steps,
        "seconds": round(result.seconds), "command": f"soralab train {name}",
    }  # fmt: skip
    return publish((folder or RUNS / name) / name, model.state_dict(), card)


def train_first(training: TrainConfig, folder: Path) -> tuple[Autoencoder, loop.TrainResult, dict]:
    """The first stage, its training, and what its card says of it."""
    count = by_profile(smoke=100, laptop=PICTURES, gpu=4 * PICTURES)
    batches = PictureBatches(library(count)[1], ADVERSARY_FROM * training.steps)
    model, result = fit_first_stage(AUTOENCODER, training, batches, folder, perceptual_features())
    metrics = measure_first_stage(model, by_profile(smoke=10, laptop=400, gpu=400))
    return model, result, {"batch": FIRST_BATCH, "pictures": count, "metrics": metrics}


def train_second(training: TrainConfig, folder: Path) -> tuple[LatentDiffusion, loop.TrainResult, dict]:
    """The second stage, its training, and what its card says of it, the experiments with it."""
    from soralab.experiments.latent_diffusion_trainings import experiments

    scenes, pictures = library(by_profile(smoke=100, laptop=PICTURES, gpu=4 * PICTURES))
    first = load_autoencoder()
    batches = LatentBatches(encoded(first, pictures), prompts_of(scenes))
    model, result = fit_second_stage(CONFIG, training, batches, folder)
    painter = Painter(model, first, SIDE)
    count = by_profile(smoke=4, laptop=400, gpu=400)
    metrics = {
        "scores": measure(painter, count, **by_profile(smoke={"steps": 2}, laptop={}, gpu={})),
        "referee": {f"{split}, {things}": stills.true_scores(split, things, count)["all"]
                    for split in ("test", "held_out") for things in (1, 2)},
        **experiments(folder.with_name(f"{folder.name}_experiments"), painter),
    }  # fmt: skip
    return model, result, {"autoencoder": FIRST, "batch": BATCH, "pictures": len(scenes), "metrics": metrics}


def evaluate(name: str = SECOND, checkpoint: str | None = None) -> str:
    """The scores of a shipped model on test and held-out scenes, measured now."""
    if name == FIRST:
        metrics = measure_first_stage(load_autoencoder(checkpoint or name), by_profile(smoke=10, laptop=400, gpu=400))
        return "\n".join(f"{key:16s} {value:8.3f}" for key, value in metrics.items())
    table = measure(Painter.load(checkpoint or name), by_profile(smoke=4, laptop=400, gpu=400))
    lines = [" " * 14 + "".join(f"{column:>10s}" for column in (*stills.COLUMNS, "binding"))]
    for row, values in table.items():
        lines.append(f"{row:14s}" + "".join(f"{values[c]:10.1%}" for c in (*stills.COLUMNS, "binding")))
    return "\n".join(lines)
