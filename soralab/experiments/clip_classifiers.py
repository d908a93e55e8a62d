"""Chapter 04: a zero-shot classifier beside supervised ones.

Supervised networks here are CLIP's own image tower, trained from the start on frames of one thing on BLACK, as a
data set of one kind is. They are tested there, on the backgrounds that CLIP has seen and they have not, and on one
that nobody has.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab import world
from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP, CLIPConfig
from soralab.datasets.still_captions import CLASSES, prompts, to_pixels
from soralab.datasets.what_and_where import Batches
from soralab.experiments.clip_scores import NAMES, classifier, images, shares, things
from soralab.recipes.clip import SEED, TRAINING, fit
from soralab.training.data import beside

BLACK = ("black",)
SUPERVISED = replace(TRAINING, steps=1200)
TRAIN_THINGS, TEST_THINGS = 10_000, 1000
COLUMNS = (*world.BACKGROUNDS, "held out")  # frames on that background; combinations of shape and colour, on black


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
    """The likeliest class of uint8 pictures: [n], on the CPU, where their labels are."""
    return torch.cat([model(to_pixels(beside(model, part))).argmax(-1).cpu() for part in pictures.split(chunk)])


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
