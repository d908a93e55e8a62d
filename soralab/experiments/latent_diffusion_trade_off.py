"""Chapter 06: first stages that make a picture f times smaller, with a KL term or vector quantisation, and what is
painted in their latents (figures 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from soralab import world
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.datasets import stills
from soralab.experiments.latent_diffusion_scores import copies, psnr, quality, walk
from soralab.latent_diffusion import Painter, UNetConfig
from soralab.recipes.latent_diffusion import (
    CONFIG,
    FIRST_TRAINING,
    TRAINING,
    LatentBatches,
    PictureBatches,
    encoded,
    fit_first_stage,
    fit_second_stage,
    prompts_of,
)
from soralab.training.data import beside, model_flops
from soralab.training.profiles import device

LATENT = {1: 3, 2: 4, 4: 4, 8: 8}  # channels of z; f = 1 diffuses the pixels themselves
TRADE_UNET = UNetConfig(width=32, multipliers=(1, 2, 2), blocks=1, attention=(2,), groups=16, context=64)
TRADE_BATCH = {1: 4, 2: 16, 4: 64, 8: 128}  # so that a step costs about the same whatever f is
TRADE_TRAINING = replace(TRAINING, steps=2000, ema=0.99)
TRADE_FIRST = replace(FIRST_TRAINING, steps=800)
CODES = 512
Library = tuple[Sequence[world.Scene], Tensor]  # training scenes and their pictures [n, 3, 32, 32]


def alone(data: Library) -> Library:
    """Of a library the pictures of one thing: what a short run can learn to paint."""
    scenes, shown = data
    which = [k for k, scene in enumerate(scenes) if len(scene.objects) == 1]
    return [scenes[k] for k in which], shown[which]


def both_stages(
    folder: Path, data: Library, f: int, steps: int = TRADE_TRAINING.steps, count: int = 200, codes: int = 0,
    again: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Train a first stage and a U-Net on its latents, and measure both; with `codes`, by vector quantisation.

    `again` is added to the seeds of both.

    On pictures of one thing that nothing was trained on: "copies" is the share of the first stage's copies that are
    read right (f = 1 has no first stage, and copies exactly), "psnr" theirs in dB, "read_right" the share of those that
    are painted from the prompts alone, "distance" their Frechet distance to the true ones. "flops" is what a step of
    the second stage costs.
    """
    scenes, shown = data
    first, name = None, f"{f}_vq" if codes else str(f)
    if f > 1:
        config = AutoencoderConfig(latent=LATENT[f], multipliers=(1, 2, 4, 4)[: f.bit_length()], codes=codes)
        training = replace(TRADE_FIRST, steps=min(steps, TRADE_FIRST.steps), seed=TRADE_FIRST.seed + again)
        if codes:  # the codebook follows the encoder as it is, so an average of the encoder would not fit it
            training = replace(training, ema=0.0)
        first, _ = fit_first_stage(config, training, PictureBatches(shown), folder / f"first_{name}", None)
        first.to(device())
    config = replace(CONFIG, unet=replace(TRADE_UNET, channels=LATENT[f], out=LATENT[f]))
    batches = LatentBatches(encoded(first, shown), prompts_of(scenes), batch=TRADE_BATCH[f])
    training = replace(TRADE_TRAINING, steps=steps, save_every=steps, seed=TRADE_TRAINING.seed + again)
    model, _ = fit_second_stage(config, training, batches, folder / f"second_{name}")
    batch = beside(model.to(device()), batches(0))
    flops = 3 * model_flops(model, batch["z"], batch["z"].new_zeros(len(batch["z"])), batch["ids"])  # there and back
    return {"flops": flops, **copied(first, count), **quality(Painter(model, first), count, steps=walk())}


def copied(first: Autoencoder | None, count: int) -> dict[str, float]:
    """"copies" and, with a first stage, "psnr" of `both_stages`."""
    texts, scenes = stills.prompts("test", 1, count)
    truth = stills.pictures(scenes)
    shown = copies(first, truth) if first else truth
    table = {"copies": round(stills.scores(shown, texts)["all"], 4)}
    return {**table, "psnr": psnr(truth, shown)} if first else table


def trade_off(folder: Path, data: Library, **options) -> dict:
    """{f: what `both_stages` measures} for f = 1, 2, 4, 8: the same U-Net, steps and compute."""
    return {str(f): both_stages(folder, data, f, **options) for f in LATENT}


def regularisation(folder: Path, data: Library, **options) -> dict:
    """{"KL": ..., "VQ": ...}: the same two networks at f = 4, and what keeps the latents in order.

    Given the folder of `trade_off`, the first is the one that was trained there.
    """
    return {name: both_stages(folder, data, 4, codes=codes, **options) for name, codes in (("KL", 0), ("VQ", CODES))}
