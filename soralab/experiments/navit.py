"""What chapter 07 measures: `soralab evaluate navit`, and the card's metrics.

Beside the scores on unseen pictures the card holds what the shipped model makes of each resolution and aspect ratio,
beside chapter 03's ViT, and of fewer tokens; how fast the ways of feeding pictures are (`navit_speed`); and the
comparisons at an equal budget (`navit_budget`).
"""

from __future__ import annotations

from soralab.experiments.navit_budget import compare, dropped
from soralab.experiments.navit_scores import TEST_PICTURES, by_aspect, by_side, measure, over_dropping
from soralab.experiments.navit_speed import COUNT, dropping, throughput
from soralab.navit import NaViT
from soralab.recipes import RUNS, Trained
from soralab.recipes import vit as squares
from soralab.recipes.navit import load
from soralab.training.profiles import by_profile, device


def metrics(name: str, trained: Trained) -> dict:
    """The card's: scores of both splits, accuracy over resolution, aspect ratio and dropped tokens, speeds, budgets."""
    model, folder = trained.model, RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    count = by_profile(smoke=20, laptop=TEST_PICTURES, gpu=TEST_PICTURES)
    few = by_profile(smoke={"steps": 2, "seeds": (1,), "count": 20, "pool": 100}, laptop={}, gpu={})
    first = by_profile(smoke={"first": 2}, laptop={}, gpu={})
    times = by_profile(smoke={"count": 4, "times": 1}, laptop={"count": COUNT}, gpu={"count": COUNT})
    vit = squares.load().to(device())
    return {
        **both_splits(model),
        "by side": {"NaViT": by_side(model, count // 2), "chapter 03's ViT": by_side(vit, count // 2)},
        "by aspect": {"NaViT": by_aspect(model, count), "chapter 03's ViT": by_aspect(vit, count)},
        "dropping": {"right": over_dropping(model, count), "pictures a second": dropping(**times)},
        "throughput": throughput(**times),
        "equal budget": compare(folder / "budget", vit, **few, **first),
        "dropped": dropped(folder / "dropped", model, **few),
    }


def both_splits(model: NaViT) -> dict[str, dict[str, float]]:
    """What `measure` finds on the splits "test" and "held_out"."""
    count = by_profile(smoke=20, laptop=TEST_PICTURES, gpu=TEST_PICTURES)
    return {split: measure(model, split, count) for split in ("test", "held_out")}


def evaluate(name: str = "navit", checkpoint: str | None = None) -> str:
    """The shares of unseen pictures that the shipped NaViT gets right, measured now, on both splits."""
    rows = both_splits(load(checkpoint or name).to(device()))
    return "\n".join(
        f"{split:10s}" + "".join(f"{key} {value:8.2%}   " for key, value in row.items() if key != "pictures")
        for split, row in rows.items()
    )
