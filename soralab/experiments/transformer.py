"""What chapter 02 measures: `soralab evaluate transformer`, the card's metrics, and two experiments of the notebook.

`python -m soralab.experiments.transformer key_size` makes the ablation of Table 3's rows (B) again, `... multi30k`
trains the same code on Multi30k's German and English and measures BLEU (`transformer_multi30k`).
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from copy import deepcopy
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.transformer_multi30k import train_multi30k
from soralab.figures.curves import wilson
from soralab.recipes import RUNS, Trained
from soralab.recipes.transformer import CHUNK, TEST_SEED, TOKENS_OF_WORLD, Batches, kept, loss, short_run, to_ids
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress
from soralab.transformer import PAD, START, Transformer, Translator, padding_mask
from soralab.world.hindi_meaning import MEANINGS
from soralab.world.hindi_prompts import FORMS, pair
from soralab.world.hindi_reader import read_hindi
from soralab.world.language import words

KINDS = {  # what is measured: (level, split, form)
    "test": ("full", "test", "caption"),
    "held_out": ("full", "held_out", "caption"),
    "simple": ("simple", "test", "caption"),
    **{form: ("full", "held_out", form) for form in FORMS if form != "caption"},
}


def kind_pairs(kind: str, count: int, seed: int = TEST_SEED) -> list[tuple[str, str]]:
    """`count` pairs of one of the KINDS, of scenes that training has not seen."""
    level, split, form = KINDS[kind]
    prompts = (
        FORMS[form](world.sample_scene(seed, k, level, split), Random(f"{seed}/{kind}/{k}")) for k in itertools.count()
    )
    return [pair(*prompt) for prompt in itertools.islice(filter(None, prompts), count)]


def exact_match(translator: Translator, kind: str = "test", count: int = 300, beam: int = 4) -> float:
    """The share of a kind's sentences (see KINDS), of scenes new to it, that are translated word for word."""
    told, right = kind_pairs(kind, count), 0
    for start in progress(range(0, count, CHUNK), desc=f"translating, {kind}", unit="batch"):
        part = told[start : start + CHUNK]
        found = translator([hindi for hindi, _ in part], beam)
        right += sum(text == " ".join(words(english)) for text, (_, english) in zip(found, part, strict=True))
    return right / count


def metrics(name: str, trained: Trained) -> dict:
    """The card's: the share of sentences translated word for word, of each kind; and what averaging was good for, by
    the last checkpoint alone on two of them."""
    count, model = by_profile(smoke=4, laptop=300, gpu=300), deepcopy(trained.model)
    rows = {kind: exact_match(Translator(model, TOKENS_OF_WORLD), kind, count) for kind in KINDS}
    states = kept(RUNS / name, trained.card["steps"]) or [trained.model.state_dict()]
    model.load_state_dict(states[-1])
    last = {kind: exact_match(Translator(model, TOKENS_OF_WORLD), kind, count) for kind in ("held_out", "typed")}
    return {"sentences": count, **rows, "last checkpoint": last}


def evaluate(name: str = "transformer", checkpoint: str | None = None, count: int = 300) -> str:
    """The chapter's table: sentences translated word for word, with 95 % Wilson intervals, by beam size."""
    translator = Translator.load(checkpoint or name)
    translator.model.to(device())
    lines = [f"{'exact match, %, of ' + str(count):28s}{'greedy':>20s}{'beam 4':>20s}"]
    for kind in KINDS:
        shares = [exact_match(translator, kind, count, beam) for beam in (1, 4)]
        cells = [(share, *wilson(round(share * count), count)) for share in shares]
        lines.append(
            f"{kind:28s}" + "".join(f"{f'{100 * s:.1f} ({100 * a:.1f}–{100 * b:.1f})':>20s}" for s, a, b in cells)
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------- what a head looks at


def maps_of(translator: Translator, hindi: str, english: list[str]) -> Tensor:
    """Where the decoder looks when it is about to say each of these words: [layer, head, English words, Hindi words].

    Rows sum to 1.
    """
    read = [START, *(translator.tokens.index(word) for word in english[:-1])]
    return translator.model.attention_maps(translator.source([hindi]), torch.tensor([read]))[:, 0]


def looks_at_colours(translator: Translator, count: int) -> tuple[Tensor, float]:
    """For what share of colours does a head look most at the Hindi word of the colour that is to be said?

    Of colours that stand once in the captions of `count` test scenes. Returns ([layers, heads], the share of a head
    that chooses its words by chance).
    """
    hits, asked, chance = 0.0, 0, 0.0
    for index in range(count):
        scene = world.sample_scene(11, index, "full", "test")
        colours = [obj.colour for obj in scene.objects]
        hindi, english = pair(scene)
        source, target = read_hindi(hindi), words(english)
        peaks = maps_of(translator, hindi, target).argmax(-1)
        for colour in (c for c in colours if colours.count(c) == 1):
            named = torch.tensor([MEANINGS.get(word) == (colour,) for word in source])
            hits = hits + named[peaks[:, :, target.index(colour)]].float()
            asked, chance = asked + 1, chance + named.float().mean().item()
    return hits / asked, chance / asked


@torch.no_grad()
def direction_shares(translator: Translator, count: int = 100) -> list[float]:
    """Does the vector in the place of ओर (towards) know to which side a thing slides? The word itself does not say it.

    Told by the nearest of two means, of half of `count` sentences to each side; measured on the other half. Returns
    the shares told rightly by the vectors before the encoder and after each of its layers.
    """
    sides = []
    for motion in ("slides right", "slides left"):
        scenes = (world.sample_scene(13, k, "simple", "test") for k in itertools.count())
        told = (pair(scene)[0] for scene in scenes if scene.objects[0].motion == motion)
        sides.append(torch.stack([_vectors_at(translator, hindi, "ओर") for hindi in itertools.islice(told, count)]))
    means = torch.stack([vectors[: count // 2].mean(0) for vectors in sides])  # [side, depth, d_model]
    nearest = [(vectors[count // 2 :, None] - means).norm(dim=-1).argmin(1) for vectors in sides]
    return torch.cat([found == side for side, found in enumerate(nearest)]).float().mean(0).tolist()


def _vectors_at(translator: Translator, hindi: str, word: str) -> Tensor:
    """What stands in a word's place before the encoder and after each of its layers: [1 + N, d_model]."""
    source = translator.source([hindi])
    vectors, mask = [translator.model.embed(source)], padding_mask(source)
    for layer in translator.model.encoder:
        vectors.append(layer(vectors[-1], mask))
    return torch.stack(vectors)[:, 0, read_hindi(hindi).index(word)]


# ------------------------------------------------------------------------------------------------------- experiments

KEY_SIZES = (1, 4, 16)  # d_k of the ablation


@torch.no_grad()
def perplexity(model: Transformer, count: int = 300) -> float:
    """exp of the mean of -log P of a held-out word (no smoothing): what Table 3 calls PPL, here for whole words."""
    batches = Batches(to_ids(kind_pairs("test", count)))
    total = number = 0.0
    for step in range(len(batches)):
        batch = batches(step)
        size = int((batch["target"] != PAD).sum())
        total += loss(model, batch, epsilon=0.0).item() * size
        number += size
    return math.exp(total / number)


def key_size_ablation(seeds: tuple[int, ...] = (1, 2, 3), sizes: tuple[int, ...] = KEY_SIZES) -> list[dict]:
    """Rows (B) of Table 3 in small: the key size d_k alone differs. One row a run: d_k, seed, perplexity, exact."""
    rows = []
    for d_k in sizes:
        for seed in seeds:
            _, model = short_run(seed, d_k=d_k)
            exact = exact_match(Translator(model, TOKENS_OF_WORLD), "test", 200, beam=1)
            rows.append({"d_k": d_k, "seed": seed, "perplexity": round(perplexity(model), 4), "exact": exact})
    return rows


def load_experiment(name: str):
    """What the course ships of an experiment: "key_size" (rows of `key_size_ablation`) or "multi30k"."""
    return json.loads((EXPERIMENTS / f"transformer_{name}.json").read_text(encoding="utf-8"))


def main(what: str) -> None:
    """Make an experiment again and keep it in data/experiments."""
    experiments = {"key_size": key_size_ablation, "multi30k": train_multi30k}
    if what not in experiments:
        raise SystemExit(f"{what!r}: it takes {', '.join(experiments)}")
    path = EXPERIMENTS / f"transformer_{what}.json"
    for_the_course(path)
    write(path, experiments[what](), ensure_ascii=False)
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
