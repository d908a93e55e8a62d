"""Chapter 06: conditions that lie over z (section 3.3), for inpainting and super-resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.blocks.first_stage import Autoencoder
from soralab.datasets import stills
from soralab.diffusion import guide
from soralab.experiments.latent_diffusion_scores import copies, walk
from soralab.experiments.latent_diffusion_trade_off import Library
from soralab.latent_diffusion import Painter, noise
from soralab.recipes.latent_diffusion import CONFIG, TRAINING, LatentBatches, encoded, fit_second_stage
from soralab.training.data import beside

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
    pictures = beside(first, pictures)
    if task == "super-resolution":
        small = F.interpolate(pictures, scale_factor=1 / first.config.f, mode="bicubic", antialias=True)
        return small, F.interpolate(small, scale_factor=first.config.f, mode="bicubic").clamp(-1, 1)
    mask = beside(first, holes(len(pictures), pictures.shape[-1], seed))
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
        made = complete(Painter(model.to(over.device), first), over)
        table[task] = {"given": round(stills.scores(given, texts)["all"], 4),
                       "made": round(stills.scores(made, texts)["all"], 4), "copies": ceiling}  # fmt: skip
    return table


def complete(painter: Painter, over: Tensor, steps: int | None = None, seed: int = 0) -> Tensor:
    """Pictures [n, 3, height, width] from what lies over z [n, channels, height / f, width / f], without a prompt."""
    none = torch.zeros(len(over), 1, dtype=torch.long, device=over.device)
    network = guide(painter.model, {"ids": none, "concat": over}, {"ids": none, "concat": over}, 1.0)
    z = noise(seed, len(over), (painter.model.config.unet.out, *over.shape[2:]))
    with torch.no_grad():
        return painter.autoencoder.decode(painter.sample(network, z, steps or walk())).clamp(-1, 1)
