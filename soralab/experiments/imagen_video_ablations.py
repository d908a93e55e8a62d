"""Chapter 09's short trainings, in pairs that differ in one thing: noise on what a stage is given, pictures or none."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from soralab import world
from soralab.diffusion import diffusion_loss
from soralab.experiments.imagen_video_scores import exposure, held_loss
from soralab.imagen_video import PROCESS, Cascade, Stage, fold
from soralab.latent_diffusion import word_ids
from soralab.recipes.imagen_video import (
    BASE,
    BATCH,
    FOLDS,
    MOST,
    PICTURES,
    SPACE,
    SPACE_BATCH,
    TAUGHT,
    TRAINING,
    FilmBatches,
    films,
    fit,
    fresh,
    library,
    loss,
    smaller,
)
from soralab.training.data import beside
from soralab.training.profiles import by_profile

TWIN = replace(TAUGHT, steps=300)  # the last stage, trained on, with noise and without
SHORT = replace(TRAINING, steps=150, warmup=30, ema=0.98, save_every=50)
SEEDS = (1, 2)


def scenes() -> int:
    """How many films these trainings draw from."""
    return by_profile(smoke=8, laptop=3000, gpu=3000)


def twins(cascade: Cascade, made: Tensor, texts: list[str], folder: Path, steps: int = TWIN.steps) -> dict[str, dict]:
    """The last stage trained on for so many steps, its input with noise as before, or without any: as `exposure`, each
    at level 0, and the first at 0.1 too. Without noise a stage has met level 0 alone."""
    table = {}
    for kind, most, levels in (("noise", MOST, (0.0, 0.1)), ("no noise", 0.0, (0.0,))):
        stage = copy.deepcopy(cascade.space).cpu().requires_grad_(True)
        stage, _ = fit(stage, replace(TWIN, steps=steps), FilmBatches(SPACE, scenes(), SPACE_BATCH),
                       folder / kind.replace(" ", "_"), partial(loss, most=most))  # fmt: skip
        there = next(cascade.base.parameters()).device
        table[kind] = exposure(replace(cascade, space=stage.to(there)), made, texts, levels)
    return table


@torch.no_grad()
def picture_loss(model: Stage, count: int = 128) -> float:
    """`held_loss` on single pictures of unseen films, by what pictures are called."""
    some, rng = library(count, "test"), torch.Generator().manual_seed(6)
    shown = world.to_film(films(some))[:, 4:5]
    x = fold(smaller(shown), FOLDS[BASE])
    things = [scene.objects[0] for scene in some]
    ids = word_ids([f"a {thing.size} {thing.colour} {thing.shape}" for thing in things], model.config.words)
    t = (torch.arange(count) + 0.5) / count
    x, ids, t, eps = beside(model, (x, ids, t, torch.randn(x.shape, generator=rng)))
    return round(diffusion_loss(PROCESS, model, x, "v", t=t, eps=eps, condition={"ids": ids}).mean().item(), 4)


def joint(folder: Path, steps: int = SHORT.steps, seeds: tuple[int, ...] = SEEDS) -> dict[str, dict[str, list[float]]]:
    """The base after a short training with pictures beside the films, and without: {arm: {"films", "pictures"}}, the
    held-out losses of each seed."""
    table: dict[str, dict[str, list[float]]] = {}
    for arm, pictures in (("with pictures", PICTURES), ("films alone", 0)):
        table[arm] = {"films": [], "pictures": []}
        for seed in seeds:
            batches = FilmBatches(BASE, scenes(), BATCH, pictures)
            training = replace(SHORT, steps=steps, seed=seed)
            model, _ = fit(fresh(BASE, seed), training, batches, folder / f"{arm.replace(' ', '_')}_{seed}")
            table[arm]["films"].append(held_loss(model, BASE))
            table[arm]["pictures"].append(picture_loss(model))
    return table
