"""What several verbs ask of their arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path


def verb(verbs, name: str, text: str) -> argparse.ArgumentParser:
    """A verb of the command, with one text for the list of verbs and its own help."""
    return verbs.add_parser(name, help=text, description=text)


def count(low: int, high: int):
    """The type of an argument that takes a whole number from `low` to `high`."""

    def whole(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"is {value}; it takes a whole number from {low} to {high}")
        return value

    whole.__name__ = "whole number"  # what argparse calls it in its message
    return whole


def check_png(path: str) -> None:
    """Raises ValueError unless --output is the name of a .png that can be written there."""
    from soralab.files.atomic import check_writable

    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"--output is {path!r}; it takes a name that ends in .png")
    check_writable(path)


def check_other(output: str, given: Iterable[str]) -> None:
    """Raises ValueError where --output is one of the files that are `given`: what is made of it would replace it."""
    for path in given:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"--output is {output!r}, which is what you give: name another file, or yours is lost")
