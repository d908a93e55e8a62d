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

from soralab import world
from soralab.experiments.transformer_multi30k import train_multi30k
from soralab.figures.bands import BANDS
from soralab.figures.curves import wilson
from soralab.files.atomic import atomic_write, make_folder
from soralab.recipes import RUNS, Trained
from soralab.recipes.transformer import CHUNK, TEST_SEED, TOKENS_OF_WORLD, Batches, kept, loss, short_run, to_ids
from soralab.training.profiles import by_profile
from soralab.training.progress import progress
from soralab.transformer import PAD, Transformer, Translator
from soralab.world.hindi_prompts import FORMS, pair
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


def exact_match(translator: Translator, kind: str = "test", count: int = 500, beam: int = 4) -> float:
    """The share of a kind's sentences (see KINDS), of scenes new to it, that are translated word for word."""
    told, right = kind_pairs(kind, count), 0
    for start in progress(range(0, count, CHUNK), desc=f"translating, {kind}", unit="batch"):
        part = told[start : start + CHUNK]
        found = translator([hindi for hindi, _ in part], beam)
        right += sum(text == " ".join(words(english)) for text, (_, english) in zip(found, part, strict=True))
    return right / count


def metrics(name: str, trained: Trained) -> dict:
    """The card's: the share of sentences translated word for word, of each kind, by the mean of the last checkpoints
    and by the last one alone."""
    count, model = by_profile(smoke=4, laptop=500, gpu=500), deepcopy(trained.model)
    states = kept(RUNS / name, trained.card["steps"]) or [trained.model.state_dict()]
    rows = {"averaged": trained.model.state_dict(), "last": states[-1]}
    for title, weights in rows.items():
        model.load_state_dict(weights)
        rows[title] = {kind: exact_match(Translator(model, TOKENS_OF_WORLD), kind, count) for kind in KINDS}
    return {"sentences": count, **rows["averaged"], "last checkpoint": rows["last"]}


def evaluate(name: str = "transformer", checkpoint: str | None = None, count: int = 500) -> str:
    """The chapter's table: sentences translated word for word, with 95 % Wilson intervals, by beam size."""
    translator = Translator.load(checkpoint or name)
    lines = [f"{'exact match, %, of ' + str(count):28s}{'greedy':>20s}{'beam 4':>20s}"]
    for kind in KINDS:
        shares = [exact_match(translator, kind, count, beam) for beam in (1, 4)]
        cells = [(share, *wilson(round(share * count), count)) for share in shares]
        lines.append(
            f"{kind:28s}" + "".join(f"{f'{100 * s:.1f} ({100 * a:.1f}–{100 * b:.1f})':>20s}" for s, a, b in cells)
        )
    return "\n".join(lines)


KEY_SIZES = (1, 4, 16)  # d_k of the ablation
EXPERIMENTS = BANDS.parent / "experiments"  # data/experiments: what the two below found, and the notebook shows


@torch.no_grad()
def perplexity(model: Transformer, count: int = 500) -> float:
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
    path = make_folder(EXPERIMENTS) / f"transformer_{what}.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(experiments[what](), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
