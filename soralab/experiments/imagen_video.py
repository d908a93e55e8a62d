"""What chapter 09 measures: `soralab evaluate imagen_base` and its like, and the cards' metrics."""

from __future__ import annotations

from soralab.recipes import Trained


def metrics(name: str, trained: Trained) -> dict:
    """The card's."""
    return {}


def evaluate(name: str, checkpoint: str | None = None) -> str:
    """The table."""
    return ""
