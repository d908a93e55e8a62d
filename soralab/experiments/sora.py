"""What chapter 16 measures: `soralab evaluate sora`, `soralab evaluate sora_pixels`, and the cards' metrics."""

from __future__ import annotations

from soralab.experiments.sora_scores import measure, table
from soralab.recipes import Trained
from soralab.sora import Filmmaker, load_autoencoder
from soralab.training.profiles import by_profile, device


def metrics(name: str, trained: Trained) -> dict[str, dict]:
    """The card's: what the referee reads in films of each split's first prompts, in all and by motion."""
    card = trained.card
    autoencoder = load_autoencoder(card["autoencoder"]).to(device()) if card["autoencoder"] else None
    maker = Filmmaker(trained.model, autoencoder, card["kind"], card["shift"])
    return {split: measure(maker, split, by_profile(smoke=4, laptop=400, gpu=400)) for split in ("test", "held_out")}


def evaluate(name: str = "sora", checkpoint: str | None = None) -> str:
    """The chapter's table: the shipped models on prompts that training never saw, beside the referee's own errors."""
    return table(checkpoint or name, baseline="sora_pixels" if name == "sora" and not checkpoint else None)
