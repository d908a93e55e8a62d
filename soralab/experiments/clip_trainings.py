"""Chapter 04's other trainings: the temperature fixed, the other image tower, and Flickr8k, where the reader has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP
from soralab.datasets.by_kind import captioned
from soralab.datasets.still_captions import Pairs, sample, to_pixels
from soralab.experiments.clip_scores import images, recall, retrieval, texts
from soralab.recipes.clip import SEED, TRAINING, config, fit, tokenizer
from soralab.recipes.clip import loss as contrastive
from soralab.training.data import model_flops

# --------------------------------------------------------------------------------------- beside supervised classifiers


# -------------------------------------------------------------------------------------- the temperature and the tower

VIT = {"layers": 4, "width": 64, "patch": 4}  # the other image tower, of about as many multiplications
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
    """Batches of pictures, each with one of its texts (Flickr8k has five), cropped at random to nine tenths."""

    def __init__(self, pictures: Tensor, lines: list[list[str]], words: Callable, batch: int, context: int):
        self.pictures, self.lines, self.words, self.context = pictures, lines, words, context
        self.batch = min(batch, len(pictures))

    def drawn(self, step: int) -> tuple[Tensor, list[str]]:
        """The pictures [batch, 3, 32, 32] in [-1, 1] of batch `step`, and a text of each."""
        rng = torch.Generator().manual_seed(step)
        which = torch.randperm(len(self.pictures), generator=rng)[: self.batch]
        side = self.pictures.shape[-1]
        crop = side * 9 // 10
        top, left = torch.randint(side - crop + 1, (2,), generator=rng).tolist()
        pixels = to_pixels(self.pictures[which])[..., top : top + crop, left : left + crop]
        said = torch.randint(60, (self.batch,), generator=rng).tolist()  # 60 is a multiple of 1 to 6, and so fair
        lines = [self.lines[k][j % len(self.lines[k])] for k, j in zip(which.tolist(), said, strict=True)]
        return F.interpolate(pixels, (32, 32), mode="bilinear"), lines

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"pixels": [batch, 3, 32, 32] in [-1, 1], "ids": [batch, context]}."""
        pixels, lines = self.drawn(step)
        return {"pixels": pixels, "ids": self.words(lines, self.context)}


def photo_clip(
    folder: Path, train: tuple[Tensor, list[list[str]]], steps: int = 300, merges: int = 1000
) -> tuple[CLIP, Callable]:
    """A small CLIP, trained on photographs uint8 [n, 3, 36, 36] with sentences, and its tokenizer, learnt from them."""
    vocabulary = Tokenizer.learn((line for lines in train[1] for line in lines), merges)
    words, sizes = partial(vocabulary, cut=True), config(vocabulary=len(vocabulary), context=48)
    training = replace(SHORT, steps=steps, save_every=steps)
    model, _ = fit(partial(CLIP, sizes), training, Photos(*train, words, 64, sizes.context), folder, contrastive)
    return model, words


def photos(folder: Path, steps: int = 300, merges: int = 1000, name: str = "flickr8k") -> dict:
    """A small CLIP on Flickr8k, or another set of its kind: what it finds among pictures that it learned from and among
    new ones.

    Raises FileNotFoundError where there are none.
    """
    train, test = captioned(name, "train", 36), captioned(name, "test", 32)
    model, words = photo_clip(folder, train, steps, merges)
    pool, found = len(test[0]), {"pictures": len(train[0]), "pool": len(test[0])}
    learned = F.interpolate(to_pixels(train[0][:pool]), (32, 32), mode="bilinear").add(1).mul(127.5).byte()
    for name, pictures, lines in (("learned from", learned, train[1][:pool]), ("new", *test)):
        first = [several[0] for several in lines]
        found[name] = recall(images(model, pictures), texts(model, words, first), first, pool)
    return found


