"""How chapter 08's readers of films are judged: by the class, and by the direction of time alone."""

from __future__ import annotations

import torch
from torch import Tensor

from soralab.datasets import order
from soralab.recipes.vivit import SEED, answers
from soralab.training.data import beside
from soralab.vivit import ViViT

COLUMNS = ("class", "pair", "direction", "both ways")


@torch.no_grad()
def logits(model: ViViT, films: Tensor, chunk: int = 100) -> Tensor:
    """What the model answers to films, uint8 or in [-1, 1]: [films, classes], on the CPU, where the labels are."""
    parts = (beside(model, order.to_pixels(part)) for part in films.split(chunk))
    return torch.cat([answers(model, part).float().cpu() for part in parts])


def directed(found: Tensor, labels: Tensor) -> Tensor:
    """Whether the true class scores higher than its reverse: logits [n, classes], labels [n] to bool [n]."""
    true, other = (found.gather(1, k[:, None])[:, 0] for k in (labels, order.reverse(labels)))
    return true > other


def row(model: ViViT, films: Tensor, labels: Tensor, pairs: order.Pairs = order.PAIRS) -> dict:
    """What a model makes of films [n, time, channel, height, width] of these classes: a share for each of COLUMNS, and
    "by pair" {the pair's first name: [films of the right direction, films]}.

    class: the likeliest of all is right; pair: the likeliest is the right one or its reverse; direction: the right one
    is likelier than its reverse (a coin: 1/2); both ways: that holds for the film and for its reverse (a bag: 0).
    """
    found = logits(model, films)
    likeliest, forwards = found.argmax(-1), directed(found, labels)
    backwards = directed(logits(model, films.flip(1)), order.reverse(labels))
    marks = (likeliest == labels, likeliest // 2 == labels // 2, forwards, forwards & backwards)
    by_pair = {
        first: [int(forwards[labels // 2 == k].sum()), int((labels // 2 == k).sum())]
        for k, (first, _) in enumerate(pairs)
    }
    return {**{name: share(mark) for name, mark in zip(COLUMNS, marks, strict=True)}, "by pair": by_pair}


def share(marks: Tensor) -> float:
    """The share of True, to four places."""
    return round(marks.float().mean().item(), 4)


def measure(model: ViViT, split: str, count: int, pairs: order.Pairs = order.PAIRS) -> dict:
    """`row` on the first `count` films of a split: "test", or "held_out", where each film has a colour or a motion that
    its shape never had in training."""
    return row(model, *order.films(SEED, range(count), split, pairs), pairs)


def order_of_time(model: ViViT, count: int) -> dict[str, float]:
    """On test films, how often a film's answer turns into its reverse if the film is shown backwards ("turned"), if
    moments (tubelets) come backwards and the frames in each as they were ("moments turned"), and if the frames of each
    moment do and moments come as they were ("tubelets turned"); and how many classes are right with moments shuffled.
    """
    films, labels = order.films(SEED, range(count), "test")
    moments = films.unflatten(1, (-1, films.shape[1] // model.config.grid[0]))  # [films, moments, frames of each, ...]
    generator = torch.Generator().manual_seed(SEED)
    shuffles = torch.stack([torch.randperm(moments.shape[1], generator=generator) for _ in range(count)])
    shown = {"turned": moments.flip(1, 2), "moments turned": moments.flip(1), "tubelets turned": moments.flip(2)}
    said = logits(model, films).argmax(-1)
    turned = {
        key: share(logits(model, parts.flatten(1, 2)).argmax(-1) == order.reverse(said)) for key, parts in shown.items()
    }
    shuffled = logits(model, moments[torch.arange(count)[:, None], shuffles].flatten(1, 2)).argmax(-1)
    return {**turned, "shuffled": share(shuffled == labels)}
