"""Chapter 02 on real sentences with the same code, where the reader has them, measured by BLEU: Multi30k's German, or
another set of pairs, into English."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from soralab.datasets import multi30k
from soralab.datasets.by_kind import paired
from soralab.recipes import RUNS
from soralab.recipes.transformer import CHUNK, SEED, TRAINING, Batches, train_and_keep
from soralab.training.data import beside
from soralab.training.ema import average_checkpoints
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress
from soralab.transformer import END, Transformer, TransformerConfig, beam_search

MULTI30K = replace(TRAINING, steps=1400, cooldown=0.5)  # about ten minutes of processor time
PIECES = 4000  # of both languages together


def train_multi30k(steps: int = MULTI30K.steps, folder: Path = RUNS / "multi30k", name: str = "multi30k") -> dict:
    """A set's sentences into English with the same code: train, average, translate the test set (Multi30k's of 2016);
    returns what was found.

    The pieces are learnt on the training text alone; nothing is chosen on the test set. Raises ValueError without
    sacrebleu, before the training.
    """
    bleu(["a"], ["a"])
    told = paired(name, "train")
    pieces = multi30k.BytePairs.learn((text for both in told for text in both), PIECES)
    torch.manual_seed(SEED)
    model = Transformer(TransformerConfig.small(len(pieces)))
    batches = Batches([(pieces.encode(de), [*pieces.encode(en), END]) for de, en in told])
    result, states = train_and_keep(model, batches, replace(MULTI30K, steps=steps), folder)
    model.load_state_dict(average_checkpoints(states))
    foreign, english = zip(*paired(name, "test")[: by_profile(smoke=20, laptop=None, gpu=None)], strict=True)
    found = translate_pieces(model.eval().to(device()), pieces, list(foreign))
    exact = sum(" ".join(one.split()) == " ".join(right.split()) for one, right in zip(found, english, strict=True))
    return {
        "BLEU": bleu(found, list(english)), "exact": round(exact / len(found), 4),
        "sentences": len(found), "steps": result.steps,
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
        best = beam_search(model, beside(model, source), beam)
        found.update((i, pieces.decode(one.ids)) for i, one in zip(part, best, strict=True))
    return [found[i] for i in range(len(texts))]


def bleu(found: list[str], right: list[str]) -> float:
    """Corpus BLEU of sacrebleu's defaults (cased, its own tokenisation "13a"). Raises ValueError without sacrebleu."""
    try:
        import sacrebleu
    except ImportError:
        raise ValueError("BLEU is measured by sacrebleu, which is not installed: pip install sacrebleu") from None
    return sacrebleu.corpus_bleu(found, [right]).score
