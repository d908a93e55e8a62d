"""Chapters 08 and 16 on real films: is one shown forwards or backwards? And how well is it copied through latents?

Chapter 08 trains Model 4 of ViViT, and a bag of its frames. The world's question has a pair of classes a motion; real
films have no such pairs, so all make one. What a film shows may leave time no direction: two of Moving MNIST's digits
that bounce go both ways alike, and nobody can tell.

Of chapter 16 the autoencoder is trained alone, not the transformer that films in its latents.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from soralab.datasets import order
from soralab.datasets.by_kind import filmed
from soralab.experiments.sora_autoencoder import psnr, reconstruct
from soralab.experiments.vivit_scores import row
from soralab.recipes import sora_autoencoder as codec
from soralab.recipes.vivit import BAG, BATCH, READERS, SEED, TRAINING, begun, fit
from soralab.sora import load_autoencoder
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.profiles import by_profile, device, larger

ARROW = (("forwards", "backwards"),)
DIRECTIONS = ("direction", "both ways")  # the columns of `vivit_scores.row` that do not hang on the classes
MODELS = ("model 4", BAG)


class Arrow:
    """Batches of films [n, time, 3, height, width], each shown forwards or backwards, and mirrored or not, by coins."""

    def __init__(self, films: Tensor, batch: int = BATCH, seed: int = SEED):
        self.films, self.batch, self.seed = films, batch, seed

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"films" [batch, time, 3, height, width], "label" [batch]: 1 is backwards}; pure in step."""
        rng = Random(f"arrow/{self.seed}/{step}")
        films, labels = [], []
        for _ in range(self.batch):
            film = self.films[int(rng.random() * len(self.films))]
            backwards, mirrored = rng.random() < 0.5, rng.random() < 0.5
            film = film.flip(0) if backwards else film
            films.append(film.flip(-1) if mirrored else film)
            labels.append(int(backwards))
        return {"films": torch.stack(films), "label": torch.tensor(labels)}


def split(name: str, frames: int) -> tuple[Tensor, Tensor]:
    """A set's films of so many frames, to learn from and to be judged on."""
    count = by_profile(smoke=(8, 4), laptop=(2000, 500), gpu=(8000, 2000))
    return tuple(filmed(name, part, frames, count=most) for part, most in zip(("train", "test"), count, strict=True))


def arrow_of_time(name: str, folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Rows of two readers on a set's test films, each shown both ways: how often they tell which way it is
    ("direction", by a coin 1/2), and for how many films both times ("both ways", by a bag 0)."""
    train, test = split(name, order.FRAMES)
    shown, labels, table = torch.cat([test, test.flip(1)]), torch.arange(2 * len(test)) // len(test), {}
    for reader in MODELS:
        config = replace(READERS[reader], classes=2)
        training = replace(TRAINING, steps=steps, save_every=min(steps, TRAINING.save_every))
        where, batches = folder / reader.replace(" ", "_"), Arrow(train, larger(BATCH, 8))
        model, _ = fit(partial(begun, config), training, where, batches=batches)
        found = row(model.to(device()), shown, labels, ARROW)
        table[reader] = {column: found[column] for column in DIRECTIONS} | {"films": len(test)}
    return table


def copied_films(name: str, folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Rows of a set's test films copied, by PSNR in dB (at most 100): by their first frame, by the shipped autoencoder,
    which has seen the world alone, and by one that was trained on the set."""
    train, test = split(name, codec.FRAMES)
    batches = Arrow(train, larger(codec.BATCH, 4), codec.SEED)  # backwards they are films as well
    training = replace(codec.CONFIG, steps=steps, save_every=min(steps, codec.CONFIG.save_every))
    torch.manual_seed(codec.SEED)
    model = codec.build()
    result = loop.train(model, codec.loss, lambda step: batches(step)["films"], training, folder)
    result.ema.copy_to(model)
    shown = {"the first frame, repeated": test[:, :1].expand_as(test)}
    with torch.no_grad():
        for row, copier in (("trained on the world", load_autoencoder(codec.NAME)), ("trained on it", model.eval())):
            copier = copier.to(device())
            parts = (reconstruct(copier, beside(copier, part)).cpu() for part in test.split(50))
            shown[row] = torch.cat(list(parts))
    marks = {row: psnr(test, copies).clamp(max=100).mean().item() for row, copies in shown.items()}
    return {row: {"psnr": mark, "films": len(test)} for row, mark in marks.items()}
