"""What chapter 04 measures: `soralab evaluate clip`, and the card's metrics.

Beside the scores on unseen scenes (`clip_scores`) the card holds supervised classifiers (`clip_classifiers`), the
temperature and the other image tower, and real pictures where the reader has them (`clip_trainings`).
"""

from __future__ import annotations

from soralab.blocks.bpe import Tokenizer
from soralab.clip import CLIP
from soralab.datasets import flickr
from soralab.experiments.clip_binding import exchanged
from soralab.experiments.clip_classifiers import classifiers
from soralab.experiments.clip_scores import binding, measure
from soralab.experiments.clip_trainings import photos, short_runs
from soralab.figures import read_log
from soralab.recipes import RUNS, Trained
from soralab.recipes.clip import load, tokenizer
from soralab.training.profiles import by_profile, device


def metrics(name: str, trained: Trained) -> dict:
    """The card's: the scores of both splits, binding as it is and after exchanged texts, exp(t) as it was learned,
    classifiers by background, temperatures and towers, and Flickr8k's (None without it).

    What was run already is not run again.
    """
    model, words, folder = trained.model, tokenizer(), RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    log = read_log(trained.log)
    few = by_profile(smoke={"steps": 2, "train_things": 150, "count": 20}, laptop={}, gpu={})
    short = by_profile(smoke={"steps": 2, "scenes": 64, "count": 20}, laptop={}, gpu={})
    steps = by_profile(smoke={"steps": 2, "merges": 20}, laptop={}, gpu={})
    tuned = by_profile(smoke={"steps": 2, "scenes": 64, "count": 4, "seeds": (1,)}, laptop={}, gpu={})
    return {
        **both_splits(model, words),
        "binding": binding(model, words, by_profile(smoke=10, laptop=500, gpu=500)),
        "exchanged texts": exchanged(folder / "exchanged", model, words, **tuned),
        "scale": [[int(s), round(float(v), 2)] for s, v in zip(log["step"], log["scale"], strict=True)],
        "classifiers": classifiers(folder / "classifiers", model, words, **few),
        "short runs": short_runs(folder / "short_runs", **short),
        "flickr8k": photos(folder / "flickr8k", **steps) if flickr.available() else None,
    }


def both_splits(model: CLIP, words: Tokenizer) -> dict[str, dict[str, float]]:
    """What `measure` finds on the splits "test" and "held_out"."""
    few = by_profile(smoke=True, laptop=False, gpu=False)
    return {split: measure(model, words, split, few) for split in ("test", "held_out")}


def evaluate(name: str = "clip", checkpoint: str | None = None) -> str:
    """What the shipped CLIP finds among scenes that it never saw, measured now, on both splits."""
    model, words = load(checkpoint or name)
    rows = both_splits(model.to(device()), words)
    return "\n".join(
        f"{split:10s}" + "   ".join(f"{key} {value:.2%}" for key, value in row.items()) for split, row in rows.items()
    )
