"""The experiments on chapter 04's card: a zero-shot classifier beside supervised ones, the temperature, real pictures.

Supervised networks here are CLIP's own image tower, trained from the start on frames of one thing on BLACK, as a
data set of one kind is. They are tested there, on the backgrounds that CLIP has seen and they have not, and on one
that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab import world
from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP, CLIPConfig
from soralab.datasets import flickr8k
from soralab.datasets.still_captions import CLASSES, Pairs, prompts, sample, to_pixels
from soralab.datasets.what_and_where import Batches
from soralab.recipes.clip import (
    NAMES,
    SEED,
    TRAINING,
    VIT,
    classifier,
    config,
    fit,
    images,
    recall,
    retrieval,
    shares,
    texts,
    things,
    tokenizer,
)
from soralab.recipes.clip import loss as contrastive
from soralab.training.data import model_flops
from soralab.training.profiles import by_profile

BLACK = ("black",)
SUPERVISED = replace(TRAINING, steps=1200)
TRAIN_THINGS, TEST_THINGS = 10_000, 1000
COLUMNS = (*world.BACKGROUNDS, "held out")  # frames on that background; combinations of shape and colour, on black

# --------------------------------------------------------------------------------------- beside supervised classifiers


class Classifier(nn.Module):
    """CLIP's image tower with one head for all pairs of shape and colour, or, with `two`, a head for each."""

    def __init__(self, sizes: CLIPConfig, two: bool = False):
        super().__init__()
        self.two = two
        outputs = len(world.SHAPES) + len(world.COLOURS) if two else CLASSES
        self.tower = CLIP(replace(sizes, embed=outputs)).image

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, 3, side, side] to scores of the pairs [batch, CLASSES]."""
        if not self.two:
            return self.tower(pixels)
        shape, colour = self.tower(pixels).split((len(world.SHAPES), len(world.COLOURS)), -1)
        return (shape.log_softmax(-1)[:, :, None] + colour.log_softmax(-1)[:, None]).flatten(1)


def supervised_loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator):
    """Cross-entropy of a batch: with two heads, that of the shape plus that of the colour."""
    scores = model(batch["pixels"]).float()
    return F.cross_entropy(scores, batch["label"]), {"right": (scores.argmax(-1) == batch["label"]).float().mean()}


@torch.no_grad()
def predict(model: nn.Module, pictures: Tensor, chunk: int = 250) -> Tensor:
    """The likeliest class of uint8 pictures: [n]."""
    return torch.cat([model(to_pixels(part)).argmax(-1) for part in pictures.split(chunk)])


def probe(model: CLIP, pictures: Tensor, labels: Tensor, rounds: int = 100) -> nn.Linear:
    """A linear classifier on CLIP's features (section 3.2: logistic regression by L-BFGS): embed to CLASSES."""
    features, head = images(model, pictures), nn.Linear(model.config.embed, CLASSES)
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features), labels) + 1e-4 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head


def columns(count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The test frames of COLUMNS, with their classes."""
    return {**{name: things("test", count, (name,)) for name in world.BACKGROUNDS},
            "held out": things("held_out", count, BLACK)}  # fmt: skip


def classifiers(
    folder: Path, model: CLIP, words: Tokenizer, steps: int = SUPERVISED.steps, train_things: int = TRAIN_THINGS,
    count: int = TEST_THINGS,
) -> dict[str, dict[str, dict[str, float]]]:
    """{arm: {column: shares}} of the zero-shot classifier, a linear probe, and two supervised networks."""
    train, test = things("train", train_things, BLACK), columns(count)
    rows, head = classifier(model, words, prompts(NAMES)), probe(model, *train)
    arms = {
        "zero-shot": lambda pictures: (images(model, pictures) @ rows.T).argmax(1),
        "linear probe": lambda pictures: head(images(model, pictures)).argmax(1),
    }
    training = replace(SUPERVISED, steps=steps, save_every=steps)
    for name, two in (("48 classes", False), ("shape, colour", True)):
        build, where = partial(Classifier, model.config, two), folder / name.replace(", ", "_").replace(" ", "_")
        network, _ = fit(build, training, Batches(*train, 128, SEED), where, supervised_loss)
        arms[name] = partial(predict, network)
    return {arm: {key: shares(find(pictures), labels) for key, (pictures, labels) in test.items()}
            for arm, find in arms.items()}  # fmt: skip


# -------------------------------------------------------------------------------------- the temperature and the tower

SCALES = {"learned": None, "fixed at 1": 1.0, "fixed at 14.3": 1 / 0.07, "fixed at 100": 100.0}  # exp(t)
SHORT = replace(TRAINING, steps=250, warmup=30, cooldown=0.3, ema=0.98)


def at_scale(scale: float | None) -> CLIP:
    """A fresh model; with a number, exp(t) is that and does not learn."""
    model = CLIP(config())
    if scale is not None:
        model.t.data.fill_(scale).log_()
        model.t.requires_grad_(False)
    return model


def short_runs(folder: Path, steps: int = SHORT.steps, scenes: int = 8000, count: int = 512) -> dict[str, dict]:
    """Short trainings that differ in exp(t), or in the image tower, alone: {arm: recall@1 on the split "test", ...}."""
    batches = Pairs([sample(SEED, index) for index in range(scenes)], tokenizer(), 64, SEED)
    arms = {name: partial(at_scale, scale) for name, scale in SCALES.items()}
    arms["learned, ViT"] = partial(CLIP, config(**VIT))
    table = {}
    for name, build in arms.items():
        training = replace(SHORT, steps=steps, save_every=steps)
        model, _ = fit(build, training, batches, folder / name.replace(", ", "_").replace(" ", "_"))
        products = model_flops(model.image, torch.zeros(1, 3, model.config.image, model.config.image)) // 2
        table[name] = retrieval(model, tokenizer(), count=count) | {
            "scale": round(model.scale.item(), 2), "products": products,
        }  # fmt: skip
    return table


# ---------------------------------------------------------------------------------------------------- real pictures


class Photos:
    """Batches of Flickr8k's pictures, each with one of its five texts, cropped at random to nine tenths."""

    def __init__(self, pictures: Tensor, lines: list[list[str]], words: Callable, batch: int, context: int):
        self.pictures, self.lines, self.words, self.context = pictures, lines, words, context
        self.batch = min(batch, len(pictures))

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"pixels": [batch, 3, 32, 32] in [-1, 1], "ids": [batch, context]}."""
        rng = torch.Generator().manual_seed(step)
        which = torch.randperm(len(self.pictures), generator=rng)[: self.batch]
        side = self.pictures.shape[-1]
        crop = side * 9 // 10
        top, left = torch.randint(side - crop + 1, (2,), generator=rng).tolist()
        pixels = to_pixels(self.pictures[which])[..., top : top + crop, left : left + crop]
        said = torch.randint(5, (self.batch,), generator=rng).tolist()
        lines = [self.lines[k][j] for k, j in zip(which.tolist(), said, strict=True)]
        return {"pixels": F.interpolate(pixels, (32, 32), mode="bilinear"), "ids": self.words(lines, self.context)}


def photos(folder: Path, steps: int = 300, merges: int = 1000) -> dict:
    """A small CLIP on Flickr8k: what it finds among pictures that it learned from and among new ones.

    Raises FileNotFoundError where there are none.
    """
    train, test = flickr8k.load("train", 36), flickr8k.load("test", 32)
    vocabulary = Tokenizer.learn((line for lines in train[1] for line in lines), merges)
    words, sizes = partial(vocabulary, cut=True), config(vocabulary=len(vocabulary), context=48)
    training = replace(SHORT, steps=steps, save_every=steps)
    model, _ = fit(partial(CLIP, sizes), training, Photos(*train, words, 64, sizes.context), folder, contrastive)
    pool, found = len(test[0]), {"pictures": len(train[0]), "pool": len(test[0])}
    learned = F.interpolate(to_pixels(train[0][:pool]), (32, 32), mode="bilinear").add(1).mul(127.5).byte()
    for name, pictures, lines in (("learned from", learned, train[1][:pool]), ("new", *test)):
        first = [several[0] for several in lines]
        found[name] = recall(images(model, pictures), texts(model, words, first), first, pool)
    return found


def experiments(folder: Path, model: CLIP, words: Tokenizer) -> dict:
    """The card's tables: classifiers by background, temperatures and towers, and Flickr8k's (None without it)."""
    few = by_profile(smoke={"steps": 2, "train_things": 150, "count": 20}, laptop={}, gpu={})
    short = by_profile(smoke={"steps": 2, "scenes": 64, "count": 20}, laptop={}, gpu={})
    steps = by_profile(smoke={"steps": 2, "merges": 20}, laptop={}, gpu={})
    return {
        "classifiers": classifiers(folder / "classifiers", model, words, **few),
        "short runs": short_runs(folder / "short_runs", **short),
        "flickr8k": photos(folder / "flickr8k", **steps) if flickr8k.available() else None,
    }
