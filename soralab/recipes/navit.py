"""How chapter 07's NaViT is trained: `soralab train navit`. The task is `soralab.datasets.native_sizes`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.datasets.native_sizes import pictures, to_pixels
from soralab.datasets.what_and_where import CLASSES, name_of
from soralab.figures import Watched
from soralab.files.checkpoints import load_model
from soralab.navit import PAD, NaViT, NaViTConfig, collate, keep, left, pack
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.distributed import sliced
from soralab.training.loop import TrainConfig
from soralab.training.muon import muon_groups
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, larger

SEED = 7
LENGTH, ROWS = 512, 4  # of a batch: tokens in a row, rows
PROBED = 256  # unseen pictures that a short run is probed with
CONFIG = NaViTConfig(classes=CLASSES, grid=(20, 20))
PICTURES = 60_000  # of the shipped model's training
TRAINING = TrainConfig(
    steps=4000, lr=5e-3, warmup=200, cooldown=0.4, weight_decay=0.05, ema=0.998, seed=SEED, log_every=50,
    save_every=1000,
)  # fmt: skip


def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator):
    """Cross-entropy of a batch of packed rows, a picture as much as another, and the share that is right."""
    logits = model(**{name: value for name, value in batch.items() if name != "label"}).float()
    right = (logits.detach().argmax(-1) == batch["label"]).float().mean()
    return F.cross_entropy(logits, batch["label"]), {"right": right}


def packed(pictures: Sequence[Tensor], length: int = LENGTH, **options) -> dict[str, Tensor]:
    """Pictures uint8 or in [-1, 1], each [channel, height, width], as a batch of the course's NaViT (see `collate`)."""
    batch = collate(pictures, CONFIG.patch, length, **options)
    return batch | {"patches": to_pixels(batch["patches"])}


class Batches:
    """Batches of ROWS packed rows from a fixed set of pictures, in a new order each epoch.

    rate(rng, tokens, seen) -> the share of a picture's tokens that is dropped, drawn once for each picture and epoch,
    `seen` pictures after the training's first: with the number of tokens that stay the epoch is packed, and just as
    many are kept. Rows that fill no batch are left out.
    """

    def __init__(self, pictures: Sequence[Tensor], labels: Tensor, length: int = LENGTH, rows: int = ROWS,
                 seed: int = 0, rate: Callable[[Random, int, int], float] | None = None):
        self.pictures, self.labels, self.length, self.seed, self.rate = pictures, labels, length, seed, rate
        self.tokens = [p.shape[-2] * p.shape[-1] // CONFIG.patch**2 for p in pictures]
        self.rows = rows
        self.begins, self.epochs = [0], []  # the first step of each epoch that was packed so far, and its rows

    def epoch(self, number: int) -> tuple[list[list[int]], list[float]]:
        """The rows of an epoch, each with the numbers of its pictures, and each picture's rate of dropping."""
        order = torch.randperm(len(self.pictures), generator=self.generator(number)).tolist()
        rng = Random(f"drop/{self.seed}/{number}")
        rates = [0.0] * len(order)
        if self.rate:
            seen = {k: number * len(order) + place for place, k in enumerate(order)}
            rates = [self.rate(rng, n, seen[k]) for k, n in enumerate(self.tokens)]
        rows = pack([left(self.tokens[k], rates[k]) for k in order], self.length)
        return [[order[place] for place in row] for row in rows], rates

    def generator(self, number: int) -> torch.Generator:
        """A generator for an epoch, or for a step's choice of tokens (a number below 0)."""
        return torch.Generator().manual_seed((1_000_003 * self.seed + number) % 2**62)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"label" [pictures], and what `collate` gives, its patches in [-1, 1]}."""
        while step >= self.begins[-1]:
            rows, rates = self.epoch(len(self.epochs))
            self.epochs.append((rows, rates))
            self.begins.append(self.begins[-1] + max(1, len(rows) // self.rows))
        number = bisect_right(self.begins, step) - 1
        rows, rates = self.epochs[number]
        first = (step - self.begins[number]) * self.rows
        chosen = [k for row in rows[first : first + self.rows] for k in row]
        kept = None
        if self.rate:
            generator = self.generator(-1 - step)
            kept = [keep(self.tokens[k], rates[k], generator) for k in chosen]
        batch = packed([self.pictures[k] for k in chosen], self.length, kept=kept)
        return {"label": self.labels[torch.tensor(chosen)], **batch}

    @staticmethod
    def cut(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
        """A batch in so many parts, of whole rows with the pictures that lie in them."""
        found = sliced({name: batch[name] for name in ("patches", "ids", "places")}, parts)
        for part in found:
            ids = part["ids"]
            members = ids[ids != PAD].unique()
            part["ids"] = torch.where(ids == PAD, ids, torch.searchsorted(members, ids))
            part |= {name: batch[name][members] for name in ("sizes", "label")}
        return [{"label": part.pop("label"), **part} for part in found]


def fit(
    build: Callable[[], nn.Module], training: TrainConfig, batches: Callable, folder: Path,
    probes: Probes | None = None,
) -> tuple[nn.Module, loop.TrainResult]:
    """Train what `build` makes from the training's seed, or go on with it: the averaged model and the result.

    The blocks' matrices train with Muon; embeddings, positions, norms and the head with AdamW, more slowly.
    """
    torch.manual_seed(training.seed)
    model = build()
    groups = muon_groups(model, inside="blocks", scale=0.2)
    result = loop.train(model, loss, batches, training, folder, parameters=groups, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def load(name: str = "navit") -> NaViT:
    """The shipped NaViT, verified, in float32. Raises CheckpointError."""
    return load_model(name, lambda sizes: NaViT(NaViTConfig(**{**sizes, "grid": tuple(sizes["grid"])})), "NaViT")[0]


def names(classes: Tensor) -> list[str]:
    """What these classes [n] are called, in one text."""
    return ["; ".join(name_of(k) for k in classes.tolist())]


def short_run(seed: int, steps: int = 800, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped model's training, with half of its rows; the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    batches = Batches(*pictures(SEED, range(20 * steps)), rows=ROWS // 2, seed=seed)
    unseen, labels = pictures(SEED, range(PROBED), "test")
    few = max(2, PROBED // 16)  # in a pack: sixteen packs are the probes' groups
    held = [{"label": labels[k : k + few], **packed(unseen[k : k + few])} for k in range(0, PROBED, few)]
    first = packed(unseen[:3])
    probes = Watched(
        "navit", loss, held, steps, swap=("label",), truth=names(labels[:3]),
        sample=lambda model: names(model(**beside(model, first)).argmax(-1)),
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit(partial(NaViT, CONFIG), training, batches, Path(folder or temporary), probes)
        return probes.log(result.log)


def train(name: str = "navit", steps: int | None = None) -> Trained:
    """Train the NaViT, or go on with it, in runs/NAME."""
    full = TRAINING.steps
    training = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    count = by_profile(smoke=200, laptop=PICTURES, gpu=4 * PICTURES)
    batches = Batches(*pictures(SEED, range(count)), rows=larger(ROWS, 8), seed=SEED)
    model, result = fit(partial(NaViT, CONFIG), training, batches, RUNS / name)
    return Trained.of(model, CONFIG, result, data_seed=SEED, pictures=len(batches.pictures), rows=batches.rows,
                      length=LENGTH)  # fmt: skip
