"""How chapter 04's CLIP is judged: which text belongs to which picture, and classes that are given as texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from soralab import world
from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP, zero_shot
from soralab.datasets import still_captions
from soralab.datasets.still_captions import descriptive, frames, label, name_of, prompts, sample, to_pixels
from soralab.recipes.clip import SEED
from soralab.training.data import beside

POOL = 256  # pictures, or texts, among which the right one is to be found
TEST_SCENES, TEST_THINGS = 4 * POOL, 1000


@torch.no_grad()
def images(model: CLIP, pictures: Tensor, chunk: int = 250) -> Tensor:
    """I_e of uint8 pictures [n, 3, side, side]: [n, embed], on the CPU."""
    return torch.cat([model.encode_image(to_pixels(beside(model, part))).cpu() for part in pictures.split(chunk)])


@torch.no_grad()
def texts(model: CLIP, words: Tokenizer, lines: list[str], chunk: int = 250) -> Tensor:
    """T_e of texts: [n, embed], on the CPU."""
    parts = [words(lines[k : k + chunk], model.config.context) for k in range(0, len(lines), chunk)]
    return torch.cat([model.encode_text(beside(model, part)).cpu() for part in parts])


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
    """The zero-shot classifier of these texts, some for each class: [classes, embed], on the CPU."""
    return zero_shot(model, beside(model, [words(several, model.config.context) for several in lines])).cpu()

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


def exchangeable(scene: world.Scene) -> bool:
    """Whether exchanging the colours makes a text that is wrong, and that only the picture shows to be wrong: two
    things of other shapes and colours, and no combination that training holds out, which would be wrong anywhere."""
    if len(scene.objects) != 2:
        return False
    a, b = scene.objects
    return a.shape != b.shape and a.colour != b.colour and not swapped(scene).held_out


def binding(model: CLIP, words: Tokenizer, count: int = 500) -> dict[str, float]:
    """Of two texts with the same words, how often the right one is nearer to the picture: {"colours", "another"}.

    "colours": the things' colours exchanged, a thing for a thing. "another": the text of another scene of two things,
    to compare. Only scenes that are `exchangeable`.
    """
    scenes = (sample(SEED, index, "test") for index in range(40 * count))
    found = list(islice((scene for scene in scenes if exchangeable(scene)), count))
    I_e, right = images(model, frames(found)), texts(model, words, [descriptive(scene) for scene in found])
    others = {"colours": texts(model, words, [descriptive(swapped(s)) for s in found]), "another": right.roll(1, 0)}
    nearer = {key: ((I_e * right).sum(1) > (I_e * wrong).sum(1)).float().mean() for key, wrong in others.items()}
    return {key: round(share.item(), 4) for key, share in nearer.items()}


def measure(model: CLIP, words: Tokenizer, split: str, few: bool = False) -> dict[str, float]:
    """A split's line: recall@1 of descriptive texts in both directions, and the zero-shot classifier's shares."""
    scenes, count = (40, 40) if few else (TEST_SCENES, TEST_THINGS)
    found = {f"recall, {key}": value for key, value in retrieval(model, words, split, scenes).items()}
    return found | {f"zero-shot, {k}": v for k, v in zero_shot_shares(model, words, *things(split, count)).items()}
