"""What chapter 16 measures of its autoencoder: `soralab evaluate sora_autoencoder`, and the card's metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from soralab import world
from soralab.recipes import Trained
from soralab.recipes.sora_autoencoder import FRAMES, NAME, SEED, textures
from soralab.sora import SpacetimeAutoencoder, load_autoencoder
from soralab.world import referee


def metrics(name: str, trained: Trained) -> dict[str, float]:
    """The card's: what `measure` finds."""
    return measure(trained.model)


@torch.no_grad()
def measure(model: SpacetimeAutoencoder, count: int = 200) -> dict[str, float]:
    """PSNR in dB on `count` films of each kind that training never saw, and how often the referee still reads them."""
    metrics = {}
    for level in world.LEVELS:
        films, scenes = world.clips(SEED, range(count), FRAMES, level=level, split="test")
        copies = reconstruct(model, films)
        metrics[f"psnr_{level}"] = round(psnr(films, copies).mean().item(), 2)
        reports = referee.read_all(copies)
        right = [referee.score(report, scene)["all"] for report, scene in zip(reports, scenes, strict=True)]
        metrics[f"read_right_{level}"] = sum(right) / count
    clouds = textures(count // 4, FRAMES, 32, 32, seed=10**6)
    metrics["psnr_textures"] = round(psnr(clouds, reconstruct(model, clouds)).mean().item(), 2)
    return metrics


@torch.no_grad()
def reconstruct(model: SpacetimeAutoencoder, films: Tensor, chunk: int = 50) -> Tensor:
    """decode(encode(films)), in chunks, clamped to [-1, 1]."""
    return torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in films.split(chunk)])


def psnr(films: Tensor, copies: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each film, in dB: [batch]. The peak is 2, from -1 to 1."""
    return 10 * torch.log10(4 / (films - copies).square().flatten(1).mean(1))


def evaluate(name: str = NAME, checkpoint: str | None = None) -> str:
    """The table of `measure` for the shipped autoencoder."""
    found = measure(load_autoencoder(checkpoint or name))
    return "\n".join(f"{key:20s} {value:8.2f}" for key, value in found.items())
