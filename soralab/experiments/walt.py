"""What chapter 11 measures of its transformer: `soralab evaluate walt`, and the card's metrics.

The card holds two experiments: windows beside full attention, and the paper's ablations in small (`walt_ablations`).
"""

from __future__ import annotations

from dataclasses import replace

from soralab.experiments.walt_ablations import BASE, WINDOWS, arms, judged, windows
from soralab.recipes import RUNS, Trained
from soralab.recipes.walt import load
from soralab.training.profiles import by_profile, device


def metrics(name: str, trained: Trained) -> dict[str, dict]:
    """The card's: the shipped model and one with full attention; each arm of the ablations by its seeds.

    What was run already is not run again.
    """
    steps, count = trained.card["steps"], by_profile(smoke=2, laptop=100, gpu=100)
    folder = RUNS / f"{name}_ablations" / f"{steps}_steps"
    own = replace(WINDOWS, training=replace(WINDOWS.training, steps=steps), scenes=trained.card["scenes"])
    tiny = replace(BASE, training=replace(BASE.training, steps=2), scenes=20)
    few = by_profile(smoke={"count": 2, "seeds": (1,), "base": tiny}, laptop={}, gpu={})
    return {"films": count, **windows(folder, count, own, RUNS / name), "arms": arms(folder, **few)}


def evaluate(name: str = "walt", checkpoint: str | None = None, count: int = 100) -> str:
    """The shipped model's scores on scenes that training never saw, measured now."""
    maker = load(checkpoint or name, device())
    found = judged(maker.walt, maker.autoencoder, count)
    lines = [f"{'loss':12s}{found['loss']:.4f}"]
    for kind in ("words", "continued"):
        shares = [f"{key} {value:.2f}" for key, value in found[kind].items()]
        lines.append(f"{kind:12s}" + "   ".join(shares))
    return "\n".join(lines)
