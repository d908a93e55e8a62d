"""How chapter 03's networks are judged: the share of frames whose class is found."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soralab.datasets.what_and_where import CELLS, frames, to_pixels
from soralab.recipes.vit import CONFIG, SEED
from soralab.training.data import beside

TEST_FRAMES = 2000


@torch.no_grad()
def predict(model: nn.Module, pictures: Tensor, chunk: int = 250) -> Tensor:
    """The likeliest class of each picture: [n], on the CPU, where the labels are."""
    return torch.cat([model(to_pixels(beside(model, part))).argmax(-1).cpu() for part in pictures.split(chunk)])


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The share of pictures whose class is found, 0 to 1."""
    return round((predict(model, pictures) == labels).float().mean().item(), 4)


def measure(model: nn.Module, split: str = "test", count: int = TEST_FRAMES) -> dict[str, float]:
    """On frames that training never saw: {"frames", "what and where", "what", "where"}, shares from 0 to 1.

    split: "test", or "held_out", where every thing has a colour that its shape never had in training.
    """
    pictures, labels = frames(SEED, range(count), CONFIG.image, split)
    found = predict(model, pictures)
    right = {"what and where": found == labels, "what": found // CELLS**2 == labels // CELLS**2,
             "where": found % CELLS**2 == labels % CELLS**2}  # fmt: skip
    return {"frames": count, **{key: round(hits.float().mean().item(), 4) for key, hits in right.items()}}
