"""What chapter 16 measures of the whole model's first stage: `soralab evaluate sora_full_autoencoder`."""

from __future__ import annotations

from soralab.experiments import walt_autoencoder
from soralab.experiments.walt_autoencoder import measure
from soralab.recipes import Trained
from soralab.training.profiles import by_profile


def metrics(name: str, trained: Trained) -> dict:
    """The card's: chapter 11's table, of as many films."""
    count = by_profile(smoke=4, laptop=walt_autoencoder.FILMS, gpu=walt_autoencoder.FILMS)
    return {"films": count, name: measure(trained.model, count)}


def evaluate(name: str = "sora_full_autoencoder", checkpoint: str | None = None) -> str:
    """The table of chapter 11, with this autoencoder in the place of that chapter's."""
    return walt_autoencoder.evaluate(name, checkpoint)
