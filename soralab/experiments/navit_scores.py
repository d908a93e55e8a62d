"""How chapter 07's networks are judged: the share of unseen pictures whose class is found, by size and by shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.datasets.native_sizes import drawn, pictures, size, to_pixels
from soralab.datasets.what_and_where import CELLS
from soralab.navit import NaViT, keep
from soralab.recipes.navit import CONFIG, SEED, packed
from soralab.training.data import beside

TEST_PICTURES = 2000
SIDES = (16, 24, 32, 40, 48)  # resolutions that are asked for one by one: sides of squares as large, pixels
ASPECTS = {"up to 4:3": 4 / 3 + 1e-6, "to 2:1": 2 + 1e-6, "to 3:1": 3 + 1e-6}  # the longer side over the shorter one
RATES = (0.0, 0.25, 0.5, 0.75)  # of dropping
SQUARE = 32  # pixels: what a network for squares is shown


def squares(shown: Sequence[Tensor], side: int = SQUARE) -> Tensor:
    """Pictures of any size squeezed into squares, as chapter 03's ViT takes them: [n, 3, side, side] in [-1, 1]."""
    shape = {"size": (side, side), "mode": "bilinear", "align_corners": False, "antialias": True}
    return torch.cat([F.interpolate(to_pixels(picture)[None], **shape) for picture in shown])


@torch.no_grad()
def predict(model: nn.Module, shown: Sequence[Tensor], rate: float = 0.0, chunk: int = 200) -> Tensor:
    """The likeliest class of each picture: [n], on the CPU. rate: of tokens that a NaViT is not shown, at random."""
    generator, found = torch.Generator().manual_seed(0), []
    for first in range(0, len(shown), chunk):
        part = shown[first : first + chunk]
        if isinstance(model, NaViT):
            counts = [picture[0].numel() // CONFIG.patch**2 for picture in part]
            batch = packed(part, kept=[keep(count, rate, generator) for count in counts] if rate else None)
            found.append(model(**beside(model, batch)).argmax(-1).cpu())
        else:
            found.append(model(beside(model, squares(part))).argmax(-1).cpu())
    return torch.cat(found)


def accuracy(model: nn.Module, shown: Sequence[Tensor], labels: Tensor, rate: float = 0.0) -> float:
    """The share of pictures whose class is found, 0 to 1."""
    return round((predict(model, shown, rate) == labels).float().mean().item(), 4)


def measure(model: nn.Module, split: str = "test", count: int = TEST_PICTURES) -> dict[str, float]:
    """On pictures that training never saw: {"pictures", "what and where", "what", "where"}, shares from 0 to 1."""
    shown, labels = pictures(SEED, range(count), split)
    found = predict(model, shown)
    right = {"what and where": found == labels, "what": found // CELLS**2 == labels // CELLS**2,
             "where": found % CELLS**2 == labels % CELLS**2}  # fmt: skip
    return {"pictures": count, **{key: round(hits.float().mean().item(), 4) for key, hits in right.items()}}


def by_side(model: nn.Module, count: int = TEST_PICTURES // 2) -> dict[str, float]:
    """Accuracy at each resolution of SIDES, on the same scenes."""
    table = {}
    for side in SIDES:
        sizes = [size(SEED, index, "test", side, side) for index in range(count)]
        table[str(side)] = accuracy(model, *drawn(SEED, range(count), sizes, "test"))
    return table


def by_aspect(model: nn.Module, count: int = TEST_PICTURES) -> dict[str, dict[str, float]]:
    """{aspect ratio: {"pictures", "right"}} on pictures of all sizes, the nearly square ones first."""
    shown, labels = pictures(SEED, range(count), "test")
    right = predict(model, shown) == labels
    ratio = torch.tensor([max(p.shape[1:]) / min(p.shape[1:]) for p in shown])
    table, low = {}, 0.0
    for name, high in ASPECTS.items():
        here = (ratio >= low) & (ratio < high)
        table[name] = {"pictures": int(here.sum()), "right": round(right[here].float().mean().item(), 4)}
        low = high
    return table


def over_dropping(model: NaViT, count: int = TEST_PICTURES) -> dict[str, float]:
    """Accuracy where this share of each picture's tokens is not shown, at RATES."""
    shown, labels = pictures(SEED, range(count), "test")
    return {str(rate): accuracy(model, shown, labels, rate) for rate in RATES}
