"""How chapter 04's CLIP is trained and measured: `soralab train clip`, `soralab evaluate clip`.

It learns from frames of the world and texts about them (`still_captions`): nobody tells it a class. What it is then
asked: which text belongs to which picture, and to sort pictures into classes that are given as texts. The experiments
of its card are in `soralab.experiments`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import world
from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP, CLIPConfig, contrastive_loss, decay_groups, zero_shot
from soralab.datasets import still_captions
from soralab.datasets.still_captions import (
    Pairs,
    descriptive,
    frames,
    label,
    name_of,
    prompts,
    sample,
    short,
    to_pixels,
)
from soralab.figures import read_log
from soralab.files.checkpoints import load_model
from soralab.recipes import RUNS, publish
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile

SEED, BATCH = 4, 128
SCENES = 40_000  # of the shipped model's training
MERGES, LEARNED_FROM = 128, 1000  # merges of the tokenizer, at most, and the scenes whose texts it is learned from
TRAINING = TrainConfig(
    steps=2400, lr=2e-3, warmup=100, cooldown=0.4, weight_decay=0.1, betas=(0.9, 0.98), ema=0.995, seed=SEED,
    log_every=20, save_every=400,
)  # fmt: skip
POOL = 256  # pictures, or texts, among which the right one is to be found
TEST_SCENES, TEST_THINGS = 4 * POOL, 1000

VIT = {"layers": 4, "width": 64, "patch": 4}  # the other image tower, of about as many multiplications

# ------------------------------------------------------------------------------------------------------- one training


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
    build: Callable[[], nn.Module], training: TrainConfig, batches: Callable, folder: Path, loss_fn: Callable = loss
) -> tuple[nn.Module, loop.TrainResult]:
    """Train what `build` makes from the training's seed, or go on with it: the averaged model and the result."""
    torch.manual_seed(training.seed)
    model = build()
    groups = decay_groups(model, training.weight_decay)
    result = loop.train(model, loss_fn, batches, training, folder, parameters=groups)
    result.ema.copy_to(model)
    return model.eval(), result


# ----------------------------------------------------------------------------------------------------------- measures


@torch.no_grad()
def images(model: CLIP, pictures: Tensor, chunk: int = 250) -> Tensor:
    """I_e of uint8 pictures [n, 3, side, side]: [n, embed]."""
    return torch.cat([model.encode_image(to_pixels(part)) for part in pictures.split(chunk)])


@torch.no_grad()
def texts(model: CLIP, words: Tokenizer, lines: list[str], chunk: int = 250) -> Tensor:
    """T_e of texts: [n, embed]."""
    parts = [lines[k : k + chunk] for k in range(0, len(lines), chunk)]
    return torch.cat([model.encode_text(words(part, model.config.context)) for part in parts])


def recall(I_e: Tensor, T_e: Tensor, lines: list[str], pool: int = POOL) -> dict[str, float]:
    """Recall@1 in both directions, among `pool` at a time: {"text of picture", "picture of text"}.

    Two pictures with the same text cannot be told apart by it, so a find counts that has the right text.
    """
    right, count = {"text of picture": 0, "picture of text": 0}, 0
    for start in range(0, len(lines) - len(lines) % pool or len(lines), pool):
        part = lines[start : start + pool]
        products = I_e[start : start + pool] @ T_e[start : start + pool].T
        for direction, found in zip(right, (products.argmax(1), products.argmax(0)), strict=True):
            right[direction] += sum(part[k] == part[j] for k, j in enumerate(found.tolist()))
        count += len(part)
    return {direction: round(hits / count, 4) for direction, hits in right.items()}


def retrieval(
    model: CLIP, words: Tokenizer, split: str = "test", count: int = TEST_SCENES, say: Callable = descriptive
) -> dict[str, float]:
    """`recall` on scenes that training never saw; say: scene to text."""
    scenes = [sample(SEED, index, split) for index in range(count)]
    lines = [say(scene) for scene in scenes]
    return recall(images(model, frames(scenes)), texts(model, words, lines), lines)


def things(
    split: str, count: int, backgrounds: tuple[str, ...] = still_captions.SEEN, seed: int = SEED
) -> tuple[Tensor, Tensor]:
    """Frames of one thing, uint8 [n, 3, 32, 32], and their classes [n]."""
    scenes = [still_captions.thing(seed, index, split, backgrounds) for index in range(count)]
    return frames(scenes), torch.tensor([label(scene) for scene in scenes])


def classifier(model: CLIP, words: Tokenizer, lines: list[list[str]]) -> Tensor:
    """The zero-shot classifier of these texts, some for each class: [classes, embed]."""
    return zero_shot(model, [words(several, model.config.context) for several in lines])


NAMES = [name_of(number) for number in range(still_captions.CLASSES)]


def shares(found: Tensor, labels: Tensor) -> dict[str, float]:
    """The shares of right classes, right shapes and right colours."""
    colours = len(world.COLOURS)
    right = {"both": found == labels, "shape": found // colours == labels // colours,
             "colour": found % colours == labels % colours}  # fmt: skip
    return {key: round(hits.float().mean().item(), 4) for key, hits in right.items()}


def zero_shot_shares(
    model: CLIP, words: Tokenizer, pictures: Tensor, labels: Tensor, lines: list[list[str]] | None = None
) -> dict[str, float]:
    """`shares` of the classifier that is made of texts; lines: by default all templates of every class."""
    rows = classifier(model, words, lines or prompts(NAMES))
    return shares((images(model, pictures) @ rows.T).argmax(1), labels)


def swapped(scene: world.Scene) -> world.Scene:
    """A scene of two things with their colours exchanged."""
    a, b = scene.objects
    return replace(scene, objects=(replace(a, colour=b.colour), replace(b, colour=a.colour)))


def binding(model: CLIP, words: Tokenizer, count: int = 500) -> dict[str, float]:
    """Of two texts with the same words, how often the right one is nearer to the picture: {"colours", "another"}.

    "colours": the things' colours exchanged, a thing for a thing. "another": the text of another scene of two things,
    to compare. Only scenes whose two shapes differ.
    """
    scenes = (sample(SEED, index, "test") for index in range(20 * count))
    pairs = (s for s in scenes if len(s.objects) == 2 and s.objects[0].shape != s.objects[1].shape)
    found = [scene for scene, _ in zip(pairs, range(count), strict=False)]
    I_e, right = images(model, frames(found)), texts(model, words, [descriptive(scene) for scene in found])
    others = {"colours": texts(model, words, [descriptive(swapped(s)) for s in found]), "another": right.roll(1, 0)}
    nearer = {key: ((I_e * right).sum(1) > (I_e * wrong).sum(1)).float().mean() for key, wrong in others.items()}
    return {key: round(share.item(), 4) for key, share in nearer.items()}


def measure(model: CLIP, words: Tokenizer, split: str, few: bool = False) -> dict[str, float]:
    """A split's line: recall@1 of descriptive texts in both directions, and the zero-shot classifier's shares."""
    scenes, count = (40, 40) if few else (TEST_SCENES, TEST_THINGS)
    found = {f"recall, {key}": value for key, value in retrieval(model, words, split, scenes).items()}
    return found | {f"zero-shot, {k}": v for k, v in zero_shot_shares(model, words, *things(split, count)).items()}


# ------------------------------------------------------------------------------------------------ train and evaluate


def load(name: str = "clip") -> tuple[CLIP, Tokenizer]:
    """The shipped CLIP, verified, in float32, and its tokenizer. Raises CheckpointError."""
    model, card = load_model(name, lambda sizes: CLIP(CLIPConfig(**sizes)), "CLIP", ("merges",))
    return model, Tokenizer(tuple(pair.split(" ")) for pair in card["merges"])


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
    with TemporaryDirectory() as temporary:
        _, result = fit(partial(CLIP, config()), training, batches, Path(folder or temporary))
        return read_log(result.log)


def train(name: str = "clip", folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) the CLIP in runs/NAME, run the experiments, save it as folder/NAME; returns its path.

    Experiments that were run already are not run again.
    """
    from soralab.experiments.clip_trainings import experiments

    full = TRAINING.steps
    training = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=4 * full))
    count, few = by_profile(smoke=100, laptop=SCENES, gpu=4 * SCENES), by_profile(smoke=True, laptop=False, gpu=False)
    words = tokenizer()
    batches = Pairs([sample(SEED, index) for index in range(count)], words, BATCH, SEED)
    model, result = fit(partial(CLIP, config()), training, batches, RUNS / name)
    log = read_log(result.log)
    card = {
        "config": asdict(model.config), "data_seed": SEED, "scenes": count, "steps": result.steps,
        "batch": batches.batch, "seconds": round(result.seconds), "command": f"soralab train {name}",
        "merges": [" ".join(pair) for pair in words.merges],
        "metrics": {
            **{split: measure(model, words, split, few) for split in ("test", "held_out")},
            "binding": binding(model, words, 10 if few else 500),
            "scale": [[int(s), round(float(v), 2)] for s, v in zip(log["step"], log["scale"], strict=True)],
            **experiments(RUNS / f"{name}_experiments", model, words),
        },
    }  # fmt: skip
    return publish((folder or RUNS / name) / name, model.state_dict(), card)


def evaluate(name: str = "clip", checkpoint: str | None = None) -> str:
    """What the shipped CLIP finds among scenes that it never saw, measured now, on both splits."""
    model, words = load(checkpoint or name)
    few = by_profile(smoke=True, laptop=False, gpu=False)
    rows = {split: measure(model, words, split, few) for split in ("test", "held_out")}
    return "\n".join(
        f"{split:10s}" + "   ".join(f"{key} {value:.2%}" for key, value in row.items()) for split, row in rows.items()
    )
