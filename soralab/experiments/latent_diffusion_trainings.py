"""Chapter 06's experiments: the trade-off over f, KL or VQ, guidance, samplers, conditions laid over z, and MNIST.

Their tables lie in the card of `latent_diffusion`; `experiments` makes them all. What was trained once is not trained
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab import world
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.datasets import mnist, stills
from soralab.diffusion import guide
from soralab.latent_diffusion import LatentDiffusionConfig, Painter, UNetConfig, noise
from soralab.recipes import vit as chapter_03
from soralab.recipes.latent_diffusion import (
    BATCH,
    CONFIG,
    FIRST_TRAINING,
    SEED,
    TRAINING,
    LatentBatches,
    PictureBatches,
    copies,
    encoded,
    fit_first_stage,
    fit_second_stage,
    library,
    painted,
    prompts_of,
    psnr,
)
from soralab.training.data import model_flops
from soralab.training.profiles import by_profile


def walk() -> int:
    """Steps of DDIM, wherever their number is not the question."""
    return by_profile(smoke=2, laptop=25, gpu=25)


# ----------------------------------------------------------------------------------------------- the trade-off over f

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
    folder: Path, data: Library, f: int, steps: int = TRADE_TRAINING.steps, count: int = 200, codes: int = 0
) -> dict[str, float]:
    """Train a first stage and a U-Net on its latents, and measure both; with `codes`, by vector quantisation.

    On pictures of one thing that nothing was trained on: "copies" is the share of the first stage's copies that are
    read right (f = 1 has no first stage, and copies exactly), "psnr" theirs in dB, "read_right" the share of those that
    are painted from the prompts alone, "distance" their Frechet distance to the true ones. "flops" is what a step of
    the second stage costs.
    """
    scenes, shown = data
    first, name = None, f"{f}_vq" if codes else str(f)
    if f > 1:
        config = AutoencoderConfig(latent=LATENT[f], multipliers=(1, 2, 4, 4)[: f.bit_length()], codes=codes)
        training = replace(TRADE_FIRST, steps=min(steps, TRADE_FIRST.steps))
        if codes:  # the codebook follows the encoder as it is, so an average of the encoder would not fit it
            training = replace(training, ema=0.0)
        first, _ = fit_first_stage(config, training, PictureBatches(shown), folder / f"first_{name}", None)
    config = replace(CONFIG, unet=replace(TRADE_UNET, channels=LATENT[f], out=LATENT[f]))
    batches = LatentBatches(encoded(first, shown), prompts_of(scenes), batch=TRADE_BATCH[f])
    training = replace(TRADE_TRAINING, steps=steps, save_every=steps)
    model, _ = fit_second_stage(config, training, batches, folder / f"second_{name}")
    batch = batches(0)
    flops = 3 * model_flops(model, batch["z"], torch.zeros(len(batch["z"])), batch["ids"])  # there and back
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


def quality(painter: Painter, count: int, **options) -> dict[str, float]:
    """Of test prompts of one thing, painted: the share read right, and the Frechet distance to true pictures."""
    texts, scenes = stills.prompts("test", 1, count)
    shown = painted(painter, texts, **options)
    return {"read_right": round(stills.scores(shown, texts)["all"], 4),
            "distance": round(frechet(shown, stills.pictures(scenes)), 3)}  # fmt: skip


def frechet(a: Tensor, b: Tensor) -> float:
    """The Frechet distance (FID, 1706.08500) of two sets of pictures [n, 3, 32, 32], in chapter 03's ViT's features.

    Fitted by Gaussians: |mean - mean'|^2 + Tr(C + C' - 2 (C C')^1/2). Not to be held against an FID of Inception.
    """
    model = chapter_03.load()
    with torch.no_grad():
        seen = [torch.cat([model.features(part) for part in each.split(250)]).double() for each in (a, b)]
    return gaussian_distance(*seen)


def gaussian_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of two samples [n, dim], taken for Gaussian."""
    ours, theirs = torch.cov(a.T), torch.cov(b.T)
    values = torch.linalg.eigvals(ours @ theirs).real.clamp(min=0)  # those of a product of two covariances are not < 0
    return ((a.mean(0) - b.mean(0)).square().sum() + ours.trace() + theirs.trace() - 2 * values.sqrt().sum()).item()


# -------------------------------------------------------------------------------------------- guidance and samplers

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
CALLS = (2, 5, 10, 20, 50)  # of the network
VAGUE = ("a red circle", "a blue square", "a green triangle", "a white cross")  # size, place and background unsaid


def guidance(painter: Painter, count: int = 100, scales: Sequence[float] = SCALES) -> dict:
    """{scale: {"one": share right, "two": share right, "spread": of the places that things are put at}}.

    "spread" is that of pictures of one prompt that leaves the place open, in short sides; that of true pictures is
    under "true".
    """
    table = {"true": {"spread": round(stills.spread(stills.pictures([stills.sample(SEED, k, "test") for k in
                                                                     range(count)])), 3)}}  # fmt: skip
    for scale in scales:
        row = {}
        for name, things in (("one", 1), ("two", 2)):
            texts, _ = stills.prompts("test", things, count)
            row[name] = round(stills.scores(painted(painter, texts, steps=walk(), guidance=scale), texts)["all"], 4)
        each = [painted(painter, [text] * (count // 4), steps=walk(), guidance=scale) for text in VAGUE]
        row["spread"] = round(sum(stills.spread(shown) for shown in each) / len(each), 3)
        table[f"{scale:g}"] = row
    return table


def samplers(painter: Painter, count: int = 100, calls: Sequence[int] = CALLS) -> dict:
    """{sampler: {calls of the network: {"read_right", "distance"}}} for test prompts of one thing.

    Heun's method calls the network twice a step and once in the last one: the odd number of calls up to `calls`.
    """
    table = {}
    for name in ("ddpm", "ddim", "heun", "dpm_solver_pp"):
        table[name] = {}
        for n in calls:
            steps = (n + 1) // 2 if name == "heun" else n
            made = 2 * steps - 1 if name == "heun" else n
            table[name][str(made)] = quality(painter, count, sampler=name, steps=steps)
    return table


# ----------------------------------------------------------------------- conditions that lie over z, section 3.3

CONCAT_TRAINING = replace(TRAINING, steps=1000, ema=0.99)
TASKS = ("inpainting", "super-resolution")


def holes(count: int, side: int, seed: int) -> Tensor:
    """Masks [count, 1, side, side] for inpainting: 1 is known; a rectangle of a third to two thirds of a side is 0."""
    rng, masks = Random(f"holes/{seed}"), torch.ones(count, 1, side, side)
    for mask in masks:
        height, width = (4 * round(side / 4 * (1 + rng.random()) / 3) for _ in range(2))
        top, left = (int(rng.random() * (side - size + 1)) // 4 * 4 for size in (height, width))
        mask[:, top : top + height, left : left + width] = 0
    return masks


def condition(task: str, first: Autoencoder, pictures: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """(what lies over z, what a reader sees of it) for pictures [n, 3, side, side].

    inpainting: the latents of the picture with its hole grey, and the mask, made as small as they are.
    super-resolution: the picture f times smaller, as it is. Raises ValueError for another task.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it takes one of {', '.join(TASKS)}")
    if task == "super-resolution":
        small = F.interpolate(pictures, scale_factor=1 / first.config.f, mode="bicubic", antialias=True)
        return small, F.interpolate(small, scale_factor=first.config.f, mode="bicubic").clamp(-1, 1)
    mask = holes(len(pictures), pictures.shape[-1], seed)
    known = pictures * mask
    return torch.cat([encoded(first, known).float(), F.avg_pool2d(mask, first.config.f)], 1), known


def concatenation(
    folder: Path, data: Library, first: Autoencoder, steps: int = CONCAT_TRAINING.steps, count: int = 200
) -> dict:
    """{task: {"given": share right of what is given, "made": of what the model makes of it, "copies": the ceiling}}."""
    shown = data[1]
    texts, tests = stills.prompts("test", 1, count)
    truth = stills.pictures(tests)
    ceiling = round(stills.scores(copies(first, truth), texts)["all"], 4)
    table, z = {}, encoded(first, shown)
    for task in TASKS:
        extra = condition(task, first, shown, seed=0)[0]
        unet = replace(CONFIG.unet, channels=first.config.latent + extra.shape[1])
        batches = LatentBatches(z, lambda k, rng: torch.zeros(1, dtype=torch.long), extra.half())
        training = replace(CONCAT_TRAINING, steps=steps, save_every=steps)
        model, _ = fit_second_stage(replace(CONFIG, unet=unet), training, batches, folder / task)
        over, given = condition(task, first, truth, seed=1)
        made = complete(Painter(model, first), over)
        table[task] = {"given": round(stills.scores(given, texts)["all"], 4),
                       "made": round(stills.scores(made, texts)["all"], 4), "copies": ceiling}  # fmt: skip
    return table


def complete(painter: Painter, over: Tensor, steps: int | None = None, seed: int = 0) -> Tensor:
    """Pictures [n, 3, height, width] from what lies over z [n, channels, height / f, width / f], without a prompt."""
    none = torch.zeros(len(over), 1, dtype=torch.long)
    network = guide(painter.model, {"ids": none, "concat": over}, {"ids": none, "concat": over}, 1.0)
    z = noise(seed, len(over), (painter.model.config.unet.out, *over.shape[2:]))
    with torch.no_grad():
        return painter.autoencoder.decode(painter.sample(network, z, steps or walk())).clamp(-1, 1)


# ------------------------------------------------------------------------------------------------------------- MNIST

DIGITS = LatentDiffusionConfig(CONFIG.unet, vocabulary=11, words=1, depth=1)  # its one word is the digit plus 1
MNIST_FIRST = replace(FIRST_TRAINING, steps=500)
MNIST_TRAINING = replace(TRAINING, steps=500, ema=0.99)
READER_TRAINING = replace(chapter_03.ARM_TRAINING, steps=600)


def as_pictures(digits: Tensor) -> Tensor:
    """Digits [n, 1, 28, 28] as pictures [n, 3, 32, 32]: two pixels of paper round about, three equal colours."""
    return F.pad(digits, (2, 2, 2, 2), value=-1.0).expand(-1, 3, -1, -1).contiguous()


def mnist_digits(folder: Path, steps: int = MNIST_TRAINING.steps, count: int = 500) -> dict:
    """Digits painted on demand, and read by a network that learned from true ones: shares that are read as asked.

    Raises FileNotFoundError where there is no MNIST.
    """
    digits, labels = mnist.load("train")
    tests, wanted = (part[:count] for part in mnist.load("test"))
    first, painter, reader = digit_models(folder, digits, labels, steps)
    ids = torch.arange(count)[:, None] % 10 + 1
    table = {"true": chapter_03.accuracy(reader, tests, wanted),
             "copies": chapter_03.accuracy(reader, as_digits(copies(first, as_pictures(tests))), wanted)}  # fmt: skip
    for scale in (1.0, 3.0):
        shown = write_digits(painter, ids, guidance=scale)
        table[f"guidance {scale:g}"] = chapter_03.accuracy(reader, as_digits(shown), ids[:, 0] - 1)
    return table


def digit_models(folder: Path, digits: Tensor, labels: Tensor, steps: int):
    """(first stage, painter, reader) of MNIST, trained or taken from the folder."""
    shown = as_pictures(digits[: min(20_000, BATCH * steps)])
    training = replace(MNIST_FIRST, steps=min(steps, MNIST_FIRST.steps))
    first, _ = fit_first_stage(AutoencoderConfig(), training, PictureBatches(shown), folder / "first", None)

    def word(k: int, rng: Random) -> Tensor:
        return (labels[k : k + 1] + 1) * (rng.random() > 0.1)

    training = replace(MNIST_TRAINING, steps=steps, save_every=steps)
    batches = LatentBatches(encoded(first, shown), word)
    model, _ = fit_second_stage(DIGITS, training, batches, folder / "second")
    reading = replace(READER_TRAINING, steps=min(steps, READER_TRAINING.steps))
    pairs = chapter_03.Batches(digits, labels, 32, SEED)
    reader, _ = chapter_03.fit(chapter_03.builder("ResNet", 1, 28, mnist.CLASSES), reading, pairs, folder / "reader")
    return first, Painter(model, first), reader


def write_digits(
    painter: Painter, ids: Tensor, steps: int | None = None, guidance: float = 3.0, seed: int = 0
) -> Tensor:
    """Pictures [n, 3, 32, 32] of the digits ids - 1, ids [n, 1]; 0 is none in particular."""
    network = guide(painter.model, {"ids": ids}, {"ids": torch.zeros_like(ids)}, guidance, batched=True)
    with torch.no_grad():
        z = painter.sample(network, noise(seed, len(ids), painter.shape(None)), steps or walk())
        return painter.autoencoder.decode(z).clamp(-1, 1)


def as_digits(pictures: Tensor) -> Tensor:
    """Pictures [n, 3, 32, 32] as digits [n, 1, 28, 28]."""
    return pictures.mean(1, keepdim=True)[..., 2:-2, 2:-2]


# ------------------------------------------------------------------------------------------------------- all of them


def experiments(folder: Path, painter: Painter) -> dict:
    """The card's tables; MNIST's is None where the reader has none."""
    few = by_profile(smoke={"count": 4}, laptop={}, gpu={})
    short = {**few, **by_profile(smoke={"steps": 2}, laptop={}, gpu={})}
    data = alone(library(by_profile(smoke=64, laptop=20_000, gpu=20_000)))
    return {
        "trade-off": trade_off(folder / "trade_off", data, **short),
        "regularisation": regularisation(folder / "trade_off", data, **short),
        "guidance": guidance(painter, **few, **by_profile(smoke={"scales": (1.0, 3.0)}, laptop={}, gpu={})),
        "samplers": samplers(painter, **few, **by_profile(smoke={"calls": (2,)}, laptop={}, gpu={})),
        "concatenation": concatenation(folder / "concatenation", data, painter.autoencoder, **short),
        "mnist": mnist_digits(folder / "mnist", **short) if mnist.available() else None,
    }
