"""What chapter 16 measures of its autoencoder: `soralab evaluate sora_autoencoder`, and the card's metrics."""

from __future__ import annotations

from itertools import count, islice

import torch
from torch import Tensor

from soralab import world
from soralab.recipes import Trained
from soralab.recipes.sora_autoencoder import FRAMES, NAME, SEED, textures
from soralab.sora import SpacetimeAutoencoder, load_autoencoder
from soralab.training.data import beside
from soralab.training.profiles import device
from soralab.world import referee


def metrics(name: str, trained: Trained) -> dict[str, float]:
    """The card's: what `measure` finds."""
    return measure(trained.model)


@torch.no_grad()
def measure(model: SpacetimeAutoencoder, films_each: int = 200) -> dict[str, float | dict[str, list[int]]]:
    """PSNR in dB on so many films of each kind that training never saw, and how often the referee still reads them.

    Under "spins" stands what the referee reads right of twice as many copies of things that spin: {shape: [right, of]}.
    """
    metrics = {}
    for level in world.LEVELS:
        films, scenes = world.clips(SEED, range(films_each), FRAMES, level=level, split="test")
        films = beside(model, films)
        copies = reconstruct(model, films)
        metrics[f"psnr_{level}"] = round(psnr(films, copies).mean().item(), 2)
        metrics[f"read_right_{level}"] = sum(read_right(copies, scenes)) / films_each
    clouds = beside(model, textures(films_each // 4, FRAMES, 32, 32, seed=10**6))
    metrics["psnr_textures"] = round(psnr(clouds, reconstruct(model, clouds)).mean().item(), 2)
    metrics["spins"] = spins(model, 2 * films_each)
    return metrics


def spins(model: SpacetimeAutoencoder, films: int) -> dict[str, list[int]]:
    """Of copies of so many test films of things that spin, for each shape: [read right in everything, films]."""
    drawn = (world.sample_scene(SEED, k, "simple", "test") for k in count())
    scenes = list(islice((scene for scene in drawn if scene.objects[0].motion == "spins"), films))
    right = read_right(reconstruct(model, world.to_film(world.render(scenes, FRAMES))), scenes)
    table: dict[str, list[int]] = {}
    for scene, mark in zip(scenes, right, strict=True):
        row = table.setdefault(scene.objects[0].shape, [0, 0])
        row[0] += mark
        row[1] += 1
    return dict(sorted(table.items()))


def read_right(films: Tensor, scenes: list[world.Scene]) -> list[bool]:
    """Whether the referee reads everything of each film as its scene has it."""
    reports = referee.read_all(films)
    return [referee.score(report, scene)["all"] for report, scene in zip(reports, scenes, strict=True)]


@torch.no_grad()
def reconstruct(model: SpacetimeAutoencoder, films: Tensor, chunk: int = 50) -> Tensor:
    """decode(encode(films)), in chunks, clamped to [-1, 1], where the model is."""
    return torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in beside(model, films).split(chunk)])


def psnr(films: Tensor, copies: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each film, in dB: [batch]. The peak is 2, from -1 to 1."""
    return 10 * torch.log10(4 / (films - copies).square().flatten(1).mean(1))


def evaluate(name: str = NAME, checkpoint: str | None = None) -> str:
    """The table of `measure` for the shipped autoencoder."""
    found = measure(load_autoencoder(checkpoint or name).to(device()))
    table = found.pop("spins")
    lines = [f"{key:20s} {value:8.2f}" for key, value in found.items()]
    lines += [f"{f'spins, {shape}':20s} {right:4d} of {films}" for shape, (right, films) in table.items()]
    return "\n".join(lines)
