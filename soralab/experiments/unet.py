"""What chapter 01 measures: `soralab evaluate unet`, `soralab evaluate unet_denoiser`, and the cards' metrics.

The card of `unet` also holds what the weight map of Eq. (2) does (ARMS, three seeds each), and the slices of ISBI-2012
where the reader has them (`unet_isbi`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from soralab import world
from soralab.datasets import cells, isbi
from soralab.diffusion import diffusion_loss
from soralab.experiments.unet_isbi import ISBI_STEPS, isbi_runs
from soralab.experiments.unet_scores import mean, scores
from soralab.recipes import RUNS, Trained
from soralab.recipes.unet import CONFIG, PROCESS, SEED, TEST_SEED, Dish, fit
from soralab.training.data import beside
from soralab.training.profiles import by_profile, device
from soralab.unet import UNet, UNetConfig, load_unet, mirror, overlap_tile, separate

TEST_SIDE, TEST_TILE, TEST_PICTURES = 160, 144, 100


def unseen_picture(index: int, side: int | None = None) -> tuple[Tensor, np.ndarray]:
    """A picture [1, side, side] that no training saw, and its truth bool [side, side], touching cells apart."""
    picture, labels = cells.draw(TEST_SEED, index, side or TEST_SIDE)
    return picture, separate(labels) > 0


def predict(model: UNet, picture: Tensor, tile: int | None = None) -> np.ndarray:
    """Where the network sees cells: bool [h, w] for a picture [1, h, w]."""
    logits = overlap_tile(model, beside(model, picture[None]), tile or TEST_TILE)
    return (logits[0].argmax(0) == 1).cpu().numpy()


def measure(model: UNet, count: int = 40) -> dict[str, float]:
    """The mean scores on the first `count` test pictures."""
    rows = []
    for index in range(count):
        picture, truth = unseen_picture(index)
        rows.append(scores(predict(model, picture), truth))
    return mean(rows)


@torch.no_grad()
def at_the_border(model: UNet, count: int = 6) -> dict[str, np.ndarray]:
    """The share of wrong pixels by their distance from the edge, [60] each, when beyond the edge lies:

    "what was there", the picture itself, of which the window was cut; "its mirror image", as overlap-tile has it;
    "zeros", as padding has it. From `count` windows of 120 pixels a side.
    """
    margin = model.config.shrink // 2
    side = 120
    near = np.minimum(np.arange(side), np.arange(side)[::-1])
    edge = np.minimum(near[:, None], near)  # pixels to the nearest side
    wrong = {name: np.zeros(side // 2) for name in ("what was there", "its mirror image", "zeros")}
    for index in range(count):
        picture, truth = unseen_picture(index, side + 2 * margin)
        truth = truth[margin:-margin, margin:-margin]
        window = picture[None, :, margin:-margin, margin:-margin]
        views = (picture[None], mirror(window, *[margin] * 4), F.pad(window, [margin] * 4))
        for errors, view in zip(wrong.values(), views, strict=True):
            guess = model(beside(model, view))[0].argmax(0).cpu().numpy() == 1
            errors += np.bincount(edge[guess != truth], minlength=side // 2) / np.bincount(edge.ravel()) / count
    return wrong


@torch.no_grad()
def denoiser_error(model: UNet, count: int = 64) -> dict[str, float]:
    """The velocity's mean squared error on frames that training never saw, at five times: {"t=0.1": ...}."""
    frames = beside(model, world.clips(SEED, range(count), frames=1, level="simple", split="test")[0][:, 0])
    errors = {}
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        generator = torch.Generator().manual_seed(0)
        times = torch.full((count,), t, device=frames.device)
        errors[f"t={t}"] = diffusion_loss(PROCESS, model, frames, "v", t=times, generator=generator).mean().item()
    return {key: round(value, 4) for key, value in errors.items()}

ARMS = {  # what the loss weighs: w0 of Eq. (2), or no map at all
    "no map": None,
    "w_c alone": 0.0,
    "Eq. (2)": 10.0,
}
ARM_STEPS, ARM_SEEDS = 800, (1, 2, 3)


def weight_map_runs(
    folder: Path, steps: int = ARM_STEPS, seeds: tuple[int, ...] = ARM_SEEDS, count: int = 40
) -> dict[str, list[dict]]:
    """The experiment: every arm of ARMS with every seed, the same pictures and steps; the test scores of each run."""
    table = {}
    for arm, w0 in ARMS.items():
        for seed in seeds:
            training = replace(CONFIG, steps=steps, seed=seed)
            where = folder / f"{arm.replace(' ', '_').replace('(', '').replace(')', '')}_{seed}"
            model, _ = fit(UNetConfig.small(), training, Dish(seed, w0), where)
            table.setdefault(arm, []).append({"seed": seed, **measure(model, count)})
    return table


def metrics(name: str, trained: Trained) -> dict:
    """The card's: {"test": scores, "weight_map": its runs, "isbi": its runs, or None where there are no slices}.

    Of the denoiser, its error alone. Each run that is done already is not done again.
    """
    if name == "unet_denoiser":
        return denoiser_error(trained.model)
    few, folder = by_profile(smoke=True, laptop=False, gpu=False), RUNS / f"{name}_experiments"
    return {
        "test": measure(trained.model, 2 if few else TEST_PICTURES),
        "weight_map": weight_map_runs(folder, 2, (1,), 2) if few else weight_map_runs(folder),
        "isbi": isbi_runs(folder, 2 if few else ISBI_STEPS) if isbi.available() else None,
    }


def evaluate(name: str = "unet", checkpoint: str | None = None) -> str:
    """The scores of a shipped network, measured now."""
    model = load_unet(checkpoint or name).to(device())
    count = by_profile(smoke=2, laptop=TEST_PICTURES, gpu=TEST_PICTURES)
    found = denoiser_error(model) if name == "unet_denoiser" else measure(model, count)
    return "\n".join(f"{key:20s} {value:8.4f}" for key, value in found.items())
