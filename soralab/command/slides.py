"""`soralab slides`: decks of the notebooks' cells that carry a Slide Type."""

from __future__ import annotations

from pathlib import Path

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    slides = verb(verbs, "slides", "turn notebooks into slides that need no network")
    slides.add_argument("numbers", nargs="*", type=count(0, 17), help="of chapters, 0 to 17 (default: all)")
    slides.add_argument("-o", "--output", type=Path, default=Path("slides"), help="a folder (default: slides)")
    return slides


def run(options) -> None:
    """Build the decks and say where they lie."""
    from soralab.sessions.slides import build

    if options.output.suffix.lower() in (".html", ".htm"):
        raise ValueError(f"--output is {str(options.output)!r}; it takes a folder: each deck has its chapter's name")
    for path in build(options.numbers, options.output):
        print(path)
