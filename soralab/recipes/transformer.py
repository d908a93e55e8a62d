"""How chapter 02's translator is trained: `soralab train transformer`. It reads the world's Hindi and writes English.

`python -m soralab.recipes.transformer key_size` makes the ablation of Table 3's rows (B) again, `... multi30k` trains
the same code on Multi30k's German and English and measures BLEU.
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from soralab import world
from soralab.datasets import multi30k
from soralab.figures import read_log
from soralab.figures.curves import BANDS, wilson
from soralab.files.atomic import atomic_write, make_folder
from soralab.files.checkpoints import load_checkpoint, save_checkpoint
from soralab.recipes import RUNS, publish
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.training.progress import progress
from soralab.transformer import (
    END,
    PAD,
    START,
    Transformer,
    TransformerConfig,
    Translator,
    average_checkpoints,
    beam_search,
    label_smoothing_loss,
)
from soralab.world.hindi import ADJECTIVES, FEMININE, HINDI_VOCABULARY, MASCULINE, agree, hindi_caption
from soralab.world.hindi_reader import read_hindi
from soralab.world.language import PROMPT_WORDS, article, short_caption, words

SEED, TEST_SEED = 2, 402
PAIRS = 96_000  # sentence pairs, drawn once
TOKENS = 3000  # source and target together, padding counted, in a batch
KEPT, EVERY = 5, 50  # checkpoints that are averaged, and the steps between them
CHUNK = 100  # sentences translated at once
TOKENS_OF_WORLD = ("<pad>", "<start>", "<end>", *HINDI_VOCABULARY[1:], *PROMPT_WORDS)
TRAINING = TrainConfig(
    steps=1800, lr=1.5e-3, warmup=300, cooldown=0.4, betas=(0.9, 0.98), seed=SEED, log_every=EVERY, save_every=250,
    precision="float32",
)  # fmt: skip
KINDS = {  # what is measured: (level, split, what is left out)
    "test": ("full", "test", ""),
    "held_out": ("full", "held_out", ""),
    "simple": ("simple", "test", ""),
    "without sizes": ("full", "test", "size"),
}

# ------------------------------------------------------------------------------------------------- sentence pairs


def _forms(names: tuple[str, ...]) -> str:
    """The Hindi forms of these adjectives, as alternatives of a regular expression."""
    cases = ((MASCULINE, False), (MASCULINE, True), (FEMININE, False))
    return "|".join(sorted({agree(ADJECTIVES[name], *case) for name in names for case in cases}))


# In both languages size, colour and noun follow each other; "बड़ा होता जाता है" (grows) has no colour behind it.
_HINDI_SIZE = re.compile(rf"(?:{_forms(world.SIZES)}) (?={_forms(world.COLOURS)})")
_HINDI_COLOUR = re.compile(rf"(?:{_forms(world.COLOURS)}) ")
_ENGLISH_SIZE = re.compile(rf"\ban? (?:{'|'.join(world.SIZES)}) (\w+)")
_ENGLISH_COLOUR = re.compile(rf" (?:{'|'.join(world.COLOURS)})\b")


def pair(scene: world.Scene, leave_out: str = "") -> tuple[str, str]:
    """(Hindi, English) of a scene; a prompt need not say everything, so leave_out may be "size" or "colour"."""
    hindi, english = hindi_caption(scene), short_caption(scene)
    if leave_out == "size":
        hindi = _HINDI_SIZE.sub("", hindi)
        english = _ENGLISH_SIZE.sub(lambda found: f"{article(found[1])} {found[1]}", english)
    if leave_out == "colour":
        hindi, english = _HINDI_COLOUR.sub("", hindi), _ENGLISH_COLOUR.sub("", english)
    return hindi, english


def draw_pairs(seed: int, count: int) -> list[tuple[str, str]]:
    """`count` training pairs: three in four of the full world, and one in three leaves sizes or colours out."""
    found = []
    for index in progress(range(count), desc="sentence pairs", unit="pair"):
        rng = Random(f"{seed}/{index}")
        scene = world.sample_scene(seed, index, "full" if rng.random() < 0.75 else "simple")
        draw = rng.random()
        found.append(pair(scene, "size" if draw < 0.22 else "colour" if draw < 0.33 else ""))
    return found


def to_ids(pairs: list[tuple[str, str]], tokens: tuple[str, ...] = TOKENS_OF_WORLD) -> list[tuple[list[int], ...]]:
    """Pairs of sentences as pairs of ids; English ends with END."""
    index = {word: id for id, word in enumerate(tokens)}
    return [([index[w] for w in read_hindi(h)], [index[w] for w in words(e)] + [END]) for h, e in pairs]


class Batches:
    """Batches of pairs of about one length (section 5.1), so that little is padding; another order in each epoch."""

    def __init__(self, pairs: list[tuple[list[int], ...]], tokens: int = TOKENS, seed: int = SEED):
        self.pairs, self.tokens, self.seed = pairs, tokens, seed
        self.epoch, self.rows = -1, []
        self._arrange(0)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.rows)

    def _arrange(self, epoch: int) -> None:
        """Shuffle, sort by length (the shuffle stays among equals), cut, shuffle the batches."""
        rng = Random(f"{self.seed}/{epoch}")
        order = sorted(range(len(self.pairs)), key=lambda _: rng.random())
        order.sort(key=lambda i: (len(self.pairs[i][1]), len(self.pairs[i][0])))
        rows: list[list[int]] = [[]]
        widest = 0
        for i in order:
            source, target = self.pairs[i]
            widest = max(widest, len(source)) if rows[-1] else len(source)
            if rows[-1] and (widest + len(target)) * (len(rows[-1]) + 1) > self.tokens:
                rows.append([])
                widest = len(source)
            rows[-1].append(i)
        self.rows = sorted(rows, key=lambda _: rng.random())
        self.epoch = epoch

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"source": [b, n], "target": [b, m]}, PAD at the end; the target has no START."""
        epoch, place = divmod(step, len(self.rows))
        if epoch != self.epoch:
            self._arrange(epoch)
        sides = zip(*(self.pairs[i] for i in self.rows[place]), strict=True)
        source, target = (pad_sequence([torch.tensor(ids) for ids in side], batch_first=True) for side in sides)
        return {"source": source, "target": target}


def loss(model: Transformer, batch: dict[str, Tensor], generator=None, epsilon: float = 0.1) -> Tensor:
    """Label smoothing's loss of a batch. The decoder reads START and every word but the last, and says the next."""
    target = batch["target"]
    shifted = torch.cat([torch.full_like(target[:, :1], START), target[:, :-1]], dim=1)
    return label_smoothing_loss(model(batch["source"], shifted), target, epsilon)


# ------------------------------------------------------------------------------------------------ train and measure


def train(name: str = "transformer", folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) the translator in runs/NAME, then save the mean of its last checkpoints as folder/NAME."""
    config = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=TRAINING.steps, gpu=TRAINING.steps))
    sizes = TransformerConfig.small(len(TOKENS_OF_WORLD))
    torch.manual_seed(SEED)
    model = Transformer(sizes)
    batches = Batches(to_ids(draw_pairs(SEED, by_profile(smoke=100, laptop=PAIRS, gpu=PAIRS))))
    result, states = train_and_keep(model, batches, config, RUNS / name)
    count = by_profile(smoke=4, laptop=1000, gpu=1000)
    rows = {}
    for title, weights in (("last", states[-1]), ("averaged", average_checkpoints(states))):
        model.load_state_dict(weights)
        rows[title] = {kind: exact_match(Translator(model.eval(), TOKENS_OF_WORLD), kind, count) for kind in KINDS}
    card = {
        "config": asdict(sizes), "tokens": TOKENS_OF_WORLD, "data_seed": SEED, "pairs": len(batches.pairs),
        "steps": result.steps, "batch": f"{TOKENS} tokens", "checkpoints_averaged": len(states),
        "seconds": round(result.seconds), "command": f"soralab train {name}",
        "metrics": {"sentences": count, **rows["averaged"], "last checkpoint": rows["last"]},
    }  # fmt: skip
    return publish((folder or RUNS / name) / name, model.state_dict(), card)


def train_and_keep(model: Transformer, batches, config: TrainConfig, folder: Path):
    """Train in `folder`; returns (the loop's result, the states of the last KEPT checkpoints, EVERY steps apart)."""
    kept = folder / "kept"

    def keep(record: dict) -> None:
        if record["step"] > config.steps - KEPT * EVERY:
            save_checkpoint(kept / f"{record['step']:07d}", model.state_dict(), {"step": record["step"]})

    result = loop.train(model, loss, batches, config, folder, on_log=keep)
    last = range(max(1, config.steps - KEPT * EVERY + 1), config.steps + 1)
    paths = [kept / f"{step:07d}" for step in last]
    states = [load_checkpoint(path)[0] for path in paths if path.with_suffix(".json").exists()]
    return result, states or [model.state_dict()]


def exact_match(translator: Translator, kind: str = "test", count: int = 1000, beam: int = 4) -> float:
    """The share of a kind's sentences (see KINDS), of scenes new to it, that are translated word for word."""
    level, split, leave_out = KINDS[kind]
    told = [pair(world.sample_scene(TEST_SEED, k, level, split), leave_out) for k in range(count)]
    right = 0
    for start in progress(range(0, count, CHUNK), desc=f"translating, {kind}", unit="batch"):
        part = told[start : start + CHUNK]
        found = translator([hindi for hindi, _ in part], beam)
        right += sum(text == " ".join(words(english)) for text, (_, english) in zip(found, part, strict=True))
    return right / count


def evaluate(name: str = "transformer", checkpoint: str | None = None, count: int = 1000) -> str:
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


# -------------------------------------------------------------------------------------------- the notebook's runs

SHORT = TransformerConfig.small(len(TOKENS_OF_WORLD), N=2, d_model=64, d_ff=256, d_k=16, d_v=16)
SHORT_STEPS, SHORT_PAIRS, SHORT_TOKENS = 400, 4000, 1500
KEY_SIZES = (1, 4, 16)  # d_k of the ablation
EXPERIMENTS = BANDS.parent / "experiments"  # data/experiments: what the two below found, and the notebook shows


def short_run(
    seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None, d_k: int = SHORT.d_k
) -> tuple[dict, Transformer]:
    """Train a small translator for `steps` steps: its log as columns {"step", "loss", ...}, and the model.

    Float32 on any machine, so that the band holds on any machine.
    """
    torch.manual_seed(seed)
    model = Transformer(replace(SHORT, d_k=d_k))
    batches = Batches(to_ids(draw_pairs(SEED, min(SHORT_PAIRS, 100 * steps))), SHORT_TOKENS, seed)
    config = replace(
        TRAINING, steps=steps, lr=4e-3, warmup=100, cooldown=0.3, seed=seed, log_every=4, save_every=steps,
        precision="float32",
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        result = loop.train(model, loss, batches, config, folder or temporary)
        return read_log(result.log), model.eval()


@torch.no_grad()
def perplexity(model: Transformer, count: int = 500) -> float:
    """exp of the mean of -log P of a held-out word (no smoothing): what Table 3 calls PPL, here for whole words."""
    told = [pair(world.sample_scene(TEST_SEED, k, "full", "test")) for k in range(count)]
    batches = Batches(to_ids(told))
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


# -------------------------------------------------------------------------------------------------------- Multi30k

MULTI30K = replace(TRAINING, steps=1400, cooldown=0.5)  # about ten minutes of processor time
PIECES = 4000  # of both languages together


def train_multi30k(steps: int = MULTI30K.steps, folder: Path = RUNS / "multi30k") -> dict:
    """German to English with the same code: train, average, translate the test set of 2016; returns what was found.

    The pieces are learnt on the training text alone; nothing is chosen on the test set.
    """
    told = multi30k.pairs("train")
    pieces = multi30k.BytePairs.learn((text for both in told for text in both), PIECES)
    torch.manual_seed(SEED)
    model = Transformer(TransformerConfig.small(len(pieces)))
    batches = Batches([(pieces.encode(de), [*pieces.encode(en), END]) for de, en in told])
    result, states = train_and_keep(model, batches, replace(MULTI30K, steps=steps), folder)
    model.load_state_dict(average_checkpoints(states))
    german, english = zip(*multi30k.pairs("test"), strict=True)
    found = translate_pieces(model.eval(), pieces, list(german))
    return {
        "BLEU": bleu(found, list(english)), "sentences": len(found), "steps": result.steps,
        "epochs": round(result.steps / len(batches), 2), "seconds": round(result.seconds),
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip


def translate_pieces(model: Transformer, pieces: multi30k.BytePairs, texts: list[str], beam: int = 4) -> list[str]:
    """Translations of texts, by beam search, in batches of about one length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, str] = {}
    for start in progress(range(0, len(texts), CHUNK), desc="translating", unit="batch"):
        part = order[start : start + CHUNK]
        source = pad_sequence([torch.tensor(pieces.encode(texts[i])) for i in part], batch_first=True)
        best = beam_search(model, source, beam)
        found.update((i, pieces.decode(one.ids)) for i, one in zip(part, best, strict=True))
    return [found[i] for i in range(len(texts))]


def bleu(found: list[str], right: list[str]) -> float:
    """Corpus BLEU of sacrebleu's defaults (cased, its own tokenisation "13a"). Raises ValueError without sacrebleu."""
    try:
        import sacrebleu
    except ImportError:
        raise ValueError("BLEU is measured by sacrebleu, which is not installed: pip install sacrebleu") from None
    return sacrebleu.corpus_bleu(found, [right]).score


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
