"""What chapter 05 measures: `soralab evaluate vqvae`, `vqvae_films` and `vqvae_prior`, and the cards' metrics.

The card of `vqvae` also holds the experiments of `vqvae_rate_distortion`.
"""

from __future__ import annotations

from torch import nn

from soralab.experiments.vqvae_rate_distortion import experiments
from soralab.experiments.vqvae_scores import TEST_FILMS, measure, measure_films, measure_prior
from soralab.recipes import RUNS, Trained
from soralab.training.profiles import by_profile, device
from soralab.vqvae import PixelCNN, load


def metrics(name: str, trained: Trained) -> dict:
    """The card's: the rows of `scores`; of `vqvae` also the experiments, which are not run again if they were run."""
    more = experiments(RUNS / "vqvae_experiments") if name == "vqvae" else {}
    return {**scores(name, trained.model), **more}


def kind(model: nn.Module) -> str:
    """The shipped checkpoint whose like a model is."""
    return "vqvae_prior" if isinstance(model, PixelCNN) else "vqvae_films" if model.config.films else "vqvae"


def scores(name: str, model: nn.Module) -> dict[str, dict[str, float]]:
    """The rows of a model's table."""
    if name == "vqvae_films":
        return {"test": measure_films(model, by_profile(smoke=4, laptop=TEST_FILMS, gpu=TEST_FILMS))}
    small = by_profile(smoke={"count": 20}, laptop={}, gpu={})
    if name == "vqvae_prior":
        small |= {"samples": by_profile(smoke=1, laptop=20, gpu=20)}
        return {"test": measure_prior(model, load("vqvae").to(device()), **small)}
    return {split: measure(model, split, **small) for split in ("test", "held_out")}


def evaluate(name: str = "vqvae", checkpoint: str | None = None) -> str:
    """The table of a model, by default the shipped one, measured now. Raises ValueError for one of another kind."""
    model = load(checkpoint or name)
    if kind(model) != name:
        raise ValueError(f"--checkpoint is {checkpoint!r}, which `soralab evaluate {kind(model)}` measures: name "
                         f"another for {name}")  # fmt: skip
    rows = scores(name, model.to(device()))
    return "\n".join(f"{split:10s}" + "".join(f"{key} {value:g}   " for key, value in row.items())
                     for split, row in rows.items())
