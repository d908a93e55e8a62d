"""How chapter 04's CLIP is trained: `soralab train clip`.

It learns from frames of the world and texts about them (`soralab.datasets.still_captions`): nobody tells it a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP, CLIPConfig, contrastive_loss
from soralab.datasets.still_captions import (
    Pairs,
    descriptive,
    sample,
    short,
)
from soralab.figures import Watched
from soralab.files.checkpoints import load_model
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.muon import decay_groups
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, larger

SEED, BATCH = 4, 128
PROBED = 128  # unseen pairs that a short run is probed with
SCENES = 40_000  # of the shipped model's training
MERGES, LEARNED_FROM = 128, 1000  # merges of the tokenizer, at most, and the scenes whose texts it is learned from
TRAINING = TrainConfig(
    steps=2400, lr=2e-3, warmup=100, cooldown=0.4, weight_decay=0.1, betas=(0.9, 0.98), ema=0.995, seed=SEED,
    log_every=20, save_every=400,
)  # fmt: skip


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """The course's own vocabulary, learned from the texts of training's first scenes: the same on any machine."""
    rng, texts = Random(SEED), []
    for index in range(LEARNED_FROM):
        scene = sample(SEED, index)
        texts += [descriptive(scene), short(scene, rng), short(scene, rng)]
    return Tokenizer.learn(texts, MERGES)


def config(**changes) -> CLIPConfig:
    """The shipped model's sizes, with a ResNet; `changes` are fields of the config, such as VIT."""
    return CLIPConfig(**{"vocabulary": len(tokenizer()), **changes})


def loss(model: CLIP, batch: dict[str, Tensor], generator: torch.Generator):
    """Figure 3's loss of a batch, the share of pictures that find their text in it, and exp(t)."""
    model.clip_scale()
    I_e, T_e = model.encode_image(batch["pixels"]), model.encode_text(batch["ids"])
    right = (I_e.detach() @ T_e.detach().T).argmax(1) == torch.arange(len(I_e), device=I_e.device)
    return contrastive_loss(I_e, T_e, model.scale), {"right": right.float().mean(), "scale": model.scale.detach()}


def fit(
    build: Callable[[], nn.Module], training: TrainConfig, batches: Callable, folder: Path, loss_fn: Callable = loss,
    probes: Probes | None = None,
) -> tuple[nn.Module, loop.TrainResult]:
    """Train what `build` makes from the training's seed, or go on with it: the averaged model and the result."""
    torch.manual_seed(training.seed)
    model = build()
    groups = decay_groups(model, training.weight_decay)
    result = loop.train(model, loss_fn, batches, training, folder, parameters=groups, probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def load(name: str = "clip") -> tuple[CLIP, Tokenizer]:
    """The shipped CLIP, verified, in float32, and its tokenizer. Raises CheckpointError."""
    model, card = load_model(name, lambda sizes: CLIP(CLIPConfig(**sizes)), "CLIP", ("merges",))
    return model, Tokenizer(tuple(pair.split(" ")) for pair in card["merges"])


@torch.no_grad()
def found(model: CLIP, batch: dict[str, Tensor]) -> list[str]:
    """The text of a batch that is nearest to its first picture."""
    there = beside(model, batch)
    I_e, T_e = model.encode_image(there["pixels"][:1]), model.encode_text(there["ids"])
    return [tokenizer().decode(batch["ids"][int((I_e @ T_e.T).argmax())].tolist())]


def short_run(seed: int, steps: int = 150, folder: str | Path | None = None) -> dict:
    """A short training like the shipped model's; returns the log as columns {"step", "loss", "scale", ...}.

    Half the batch; float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for
    every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=30, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    scenes = [sample(SEED, index) for index in range(min(2000, steps * BATCH // 2))]
    batches = Pairs(scenes, tokenizer(), BATCH // 2, seed)
    unseen = Pairs([sample(SEED, index, "test") for index in range(PROBED)], tokenizer(), PROBED)
    held = unseen(0)
    probes = Watched("clip", loss, held, steps, swap=("ids",), sample=lambda model: found(model, held),
                     truth=[tokenizer().decode(held["ids"][0].tolist())])  # fmt: skip
    with TemporaryDirectory() as temporary:
        _, result = fit(partial(CLIP, config()), training, batches, Path(folder or temporary), probes=probes)
        return probes.log(result.log)


def train(name: str = "clip", steps: int | None = None) -> Trained:
    """Train the CLIP, or go on with it, in runs/NAME."""
    full = TRAINING.steps
    training = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    count, words = by_profile(smoke=100, laptop=SCENES, gpu=4 * SCENES), tokenizer()
    batches = Pairs([sample(SEED, index) for index in range(count)], words, larger(BATCH, 4), SEED)
    model, result = fit(partial(CLIP, config()), training, batches, RUNS / name)
    merges = [" ".join(pair) for pair in words.merges]
    return Trained.of(
        model, model.config, result, data_seed=SEED, scenes=count, batch=batches.batch, merges=merges
    )
