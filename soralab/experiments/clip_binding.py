"""Does CLIP confuse colours because no batch asks for them? The test of that guess, on chapter 04's card.

The shipped model goes on for a while in two ways that differ in one thing: whether a picture of two things also has
its own text with the two colours exchanged among its wrong answers (hard negatives: Yuksekgonul et al. 2022).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP
from soralab.datasets.still_captions import Pairs, descriptive, sample
from soralab.experiments.clip_scores import binding, exchangeable, retrieval, swapped
from soralab.recipes.clip import BATCH, SEED, TRAINING, fit
from soralab.recipes.clip import loss as contrastive

LONGER = replace(TRAINING, steps=150, lr=5e-4, warmup=30, ema=0.98)
SEEDS = (1, 2, 3)


class Exchanged(Pairs):
    """Batches of `Pairs`, and for each picture of two things that differ its text with their colours exchanged."""

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: as Pairs gives it, and {"wrong": [m, context], "whose": [m]}, the pictures these belong to."""
        which = self.which(step)
        scenes = [self.scenes[k] for k in which.tolist()]
        pairs = [k for k, scene in enumerate(scenes) if exchangeable(scene)]
        wrong = self.tokenizer([descriptive(swapped(scenes[k])) for k in pairs], self.context)
        right = self.tokenizer([descriptive(scenes[k]) for k in pairs], self.context)
        batch = super().__call__(step)
        batch["ids"][pairs] = right  # long texts on both sides, so that length tells nothing
        return batch | {"wrong": wrong, "whose": torch.tensor(pairs)}


def with_exchanged(model: CLIP, batch: dict[str, Tensor], generator: torch.Generator):
    """Figure 3's loss, where each row of a picture has one more wrong answer if its colours can be exchanged."""
    model.clip_scale()
    I_e, T_e = model.encode_image(batch["pixels"]), model.encode_text(batch["ids"])
    pairs = torch.arange(len(I_e), device=I_e.device)
    logits = model.scale * I_e @ T_e.T
    own = torch.full((len(I_e), 1), -torch.inf, device=I_e.device)  # no such text: no such answer
    own[batch["whose"], 0] = model.scale * (I_e[batch["whose"]] * model.encode_text(batch["wrong"])).sum(1)
    rows = F.cross_entropy(torch.cat([logits, own], 1), pairs)
    return (rows + F.cross_entropy(logits.T, pairs)) / 2


def exchanged(
    folder: Path, model: CLIP, words: Tokenizer, steps: int = LONGER.steps, scenes: int = 20_000, count: int = 500,
    seeds: tuple[int, ...] = SEEDS,
) -> dict[str, dict[str, list[float]]]:
    """{way to go on: {what is measured: [one for each seed]}}: binding of colours, and recall@1 of the split "test"."""
    library = [sample(SEED, index) for index in range(scenes)]
    table = {}
    for arm, loss in (("as before", contrastive), ("with exchanged texts", with_exchanged)):
        for seed in seeds:
            training = replace(LONGER, steps=steps, seed=seed, save_every=steps)
            batches = Exchanged(library, words, BATCH, seed)
            where = folder / f"{arm}_{seed}".replace(" ", "_")
            tuned, _ = fit(lambda: copy.deepcopy(model), training, batches, where, loss)
            found = {"colours": binding(tuned, words, count)["colours"],
                     "recall@1": retrieval(tuned, words, count=count)["text of picture"]}  # fmt: skip
            for key, value in found.items():
                table.setdefault(arm, {}).setdefault(key, []).append(value)
    return table
