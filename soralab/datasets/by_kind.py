"""The real sets by what is in them, so that a chapter that learns from one learns from the others of its kind."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from soralab.datasets import cifar10, flickr, mnist, moving_mnist, multi30k, own, tatoeba, ucf101

LABELLED = {  # pictures of ten classes: load(split), "train" or "test"
    "mnist": mnist.load,
    "fashionmnist": partial(mnist.load, name="fashionmnist"),
    "cifar10": cifar10.load,
}
CAPTIONED = {  # pictures with sentences: load(split, side)
    "flickr8k": flickr.load,
    "flickr30k": partial(flickr.load, name="flickr30k"),
    "pictures": own.pictures,
}
PAIRED = {"multi30k": multi30k.pairs, "tatoeba_hin_eng": tatoeba.pairs}  # sentences in two languages: pairs(split)
FILMED = ("ucf101", "movingmnist", "films")
CLASSES = 10  # of each of LABELLED


def labelled(name: str, split: str) -> tuple[Tensor, Tensor]:
    """Pictures [n, channel, height, width], uint8 or in [-1, 1], and their classes [n], 0 to 9; "train" or "test"."""
    return _of(LABELLED, name)(split)


def captioned(name: str, split: str, side: int) -> tuple[Tensor, list[list[str]]]:
    """Pictures uint8 [n, 3, side, side], and the sentences of each; "train", "val" or "test"."""
    return _of(CAPTIONED, name)(split, side)


def paired(name: str, split: str) -> list[tuple[str, str]]:
    """(foreign, English) sentences; "train", "val" or "test"."""
    return _of(PAIRED, name)(split)


def filmed(name: str, split: str, frames: int = 8, step: int = 2, side: int = 32, count: int | None = None) -> Tensor:
    """Films [n, frames, 3, side, side] in [-1, 1], of each the first frames, every `step`-th; "train" or "test".

    count: at most so many, spread evenly over the split (which may be sorted by class). Raises as the sets' own readers
    do, and ValueError for a set that has no films.
    """
    _of(dict.fromkeys(FILMED), name)
    if name == "ucf101":
        return ucf101.load(split, frames=frames, step=step, side=side, count=count)[0]
    if name == "movingmnist":
        films = moving_mnist.load(split, count, frames=step * (frames - 1) + 1, side=side)[:, ::step]
    else:
        films = own.films(split, frames, step, side)[0]
    return films[torch.linspace(0, len(films) - 1, min(count or len(films), len(films))).long()]


def _of(kind: dict, name: str):
    if name not in kind:
        raise ValueError(f"name is {name!r}; it takes one of {', '.join(kind)}")
    return kind[name]
