"""Chapter 06 on MNIST, where the reader has it: digits painted on demand, read by a network that learned true ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.blocks.first_stage import AutoencoderConfig
from soralab.datasets import mnist
from soralab.datasets.what_and_where import Batches
from soralab.diffusion import guide
from soralab.experiments.latent_diffusion_scores import copies, walk
from soralab.experiments.vit_crossing import ARM_TRAINING, builder
from soralab.experiments.vit_scores import accuracy
from soralab.latent_diffusion import LatentDiffusionConfig, Painter, noise
from soralab.recipes import vit as chapter_03
from soralab.recipes.latent_diffusion import (
    BATCH,
    CONFIG,
    FIRST_TRAINING,
    SEED,
    TRAINING,
    LatentBatches,
    PictureBatches,
    encoded,
    fit_first_stage,
    fit_second_stage,
)
from soralab.training.data import beside

DIGITS = LatentDiffusionConfig(CONFIG.unet, vocabulary=11, words=1, depth=1)  # its one word is the digit plus 1
MNIST_FIRST = replace(FIRST_TRAINING, steps=500)
MNIST_TRAINING = replace(TRAINING, steps=500, ema=0.99)
READER_TRAINING = replace(ARM_TRAINING, steps=600)


def as_pictures(digits: Tensor) -> Tensor:
    """Digits [n, 1, 28, 28] as pictures [n, 3, 32, 32]: two pixels of paper round about, three equal colours."""
    return F.pad(digits, (2, 2, 2, 2), value=-1.0).expand(-1, 3, -1, -1).contiguous()


def mnist_digits(folder: Path, steps: int = MNIST_TRAINING.steps, count: int = 500, name: str = "mnist") -> dict:
    """Digits (or Fashion-MNIST's clothes) painted on demand, and read by a network that learned from true ones: shares
    that are read as asked.

    Raises FileNotFoundError where there is no such set.
    """
    digits, labels = mnist.load("train", name)
    tests, wanted = (part[:count] for part in mnist.load("test", name))
    first, painter, reader = digit_models(folder, digits, labels, steps)
    ids = torch.arange(count)[:, None] % 10 + 1
    table = {"true": accuracy(reader, tests, wanted),
             "copies": accuracy(reader, as_digits(copies(first, as_pictures(tests))), wanted)}  # fmt: skip
    for scale in (1.0, 3.0):
        shown = write_digits(painter, ids, guidance=scale)
        table[f"guidance {scale:g}"] = accuracy(reader, as_digits(shown), ids[:, 0] - 1)
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
    pairs = Batches(digits, labels, 32, SEED)
    reader, _ = chapter_03.fit(builder("ResNet", 1, 28, mnist.CLASSES), reading, pairs, folder / "reader")
    return first, Painter(model, first), reader


def write_digits(
    painter: Painter, ids: Tensor, steps: int | None = None, guidance: float = 3.0, seed: int = 0
) -> Tensor:
    """Pictures [n, 3, 32, 32] of the digits ids - 1, ids [n, 1]; 0 is none in particular."""
    ids = beside(painter.model, ids)
    network = guide(painter.model, {"ids": ids}, {"ids": torch.zeros_like(ids)}, guidance, batched=True)
    with torch.no_grad():
        z = painter.sample(network, noise(seed, len(ids), painter.shape(None)), steps or walk())
        return painter.autoencoder.decode(z).clamp(-1, 1)


def as_digits(pictures: Tensor) -> Tensor:
    """Pictures [n, 3, 32, 32] as digits [n, 1, 28, 28]."""
    return pictures.mean(1, keepdim=True)[..., 2:-2, 2:-2]
