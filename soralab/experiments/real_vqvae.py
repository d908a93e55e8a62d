"""Chapter 05 on real pictures: the same VQ-VAE copies digits, clothes or CIFAR-10, beside the mean picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from soralab.datasets.by_kind import labelled
from soralab.datasets.what_and_where import Batches, to_pixels
from soralab.experiments.latent_diffusion_digits import as_pictures
from soralab.experiments.vqvae_scores import psnr
from soralab.recipes.vqvae import BATCH, CONFIG, SEED, TRAINING, build, encoded, fit, loss
from soralab.training.data import beside
from soralab.training.profiles import by_profile, device, larger
from soralab.vqvae import perplexity


def shown(name: str, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` pictures of a set as the world's are, [n, 3, 32, 32] in [-1, 1] or uint8, and their classes."""
    pictures, labels = (part[:count] for part in labelled(name, split))
    return (as_pictures(to_pixels(pictures)) if pictures.shape[1] == 1 else pictures), labels


def copies(name: str, folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Rows of test pictures copied: by the mean of all training pictures, which takes no bits, and by the VQ-VAE."""
    most, count = by_profile(smoke=(64, 20), laptop=(40_000, 2000), gpu=(60_000, 10_000))
    train, test = shown(name, "train", most), to_pixels(shown(name, "test", count)[0])
    training = replace(TRAINING, steps=steps, save_every=min(steps, TRAINING.save_every))
    model, _ = fit(build(CONFIG), loss, training, Batches(*train, larger(BATCH, 8), SEED), folder)
    average = torch.stack([to_pixels(part).sum(0) for part in train[0].split(1000)]).sum(0) / len(train[0])
    with torch.no_grad():
        maps = encoded(model.to(device()), test)
        found = torch.cat([model.decode(part) for part in maps.split(250)])
    return {
        "the mean picture": {"bits": 0.0, "psnr": psnr(test, average.expand_as(test))},
        "copies": {
            "bits": round(CONFIG.bits(*test.shape[-2:]), 1), "psnr": psnr(beside(model, test), found),
            "codes used": len(maps.unique()), "perplexity": round(perplexity(maps, CONFIG.codes).item(), 1),
        },
    }  # fmt: skip
