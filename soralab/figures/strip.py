"""The course's map as a strip: every chapter a disc in a row, and where the reader is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import matplotlib

from soralab.figures import style
from soralab.figures.diagrams import LIT, written
from soralab.figures.pictures import Picture, picture
from soralab.figures.shapes import Box, badge, frame, word
from soralab.figures.syllabus import CHAPTERS, PARTS

WIDTH, HEIGHT = 860, 84
CELL, GROUP_GAP, LEFT = 44, 16, 10


def road_strip(here: int, available: Iterable[int] | None = None, alt: str | None = None) -> Picture:
    """The chapters 00 to 17 in a row by group, the reader's own lit; its title and the part of Sora that it feeds.

    here: the number of the chapter that the reader is in. available: as in `road_map`.
    Raises ValueError for a number that is no chapter.
    """
    available = written() if available is None else set(available)
    wrong = ({here} | available) - {chapter.number for chapter in CHAPTERS}
    if wrong:
        raise ValueError(f"here, available: got {sorted(wrong, key=str)}, takes chapters from 0 to 17")
    return picture(_draw(here, available | {here}), alt or f"The course's chapters in a row; you are at {says(here)}.")


def says(here: int) -> str:
    """A chapter's number, title and what it is for: "03, ViT: it feeds Sora's spacetime patches"."""
    chapter = CHAPTERS[here]
    feeds = f": it feeds Sora's {chapter.feeds}" if chapter.feeds else ""
    return f"{here:02d}, {chapter.title}{feeds}"


def _places() -> dict[int, Box]:
    """Each chapter's box: one row, with a gap between groups."""
    boxes, x = {}, LEFT
    for _, group in groupby(CHAPTERS, lambda chapter: chapter.group):
        for chapter in group:
            boxes[chapter.number] = Box(x, 30, CELL - 8, 30)
            x += CELL
        x += GROUP_GAP - 2
    return boxes


@matplotlib.rc_context(style.STYLE)
def _draw(here: int, available: set):
    fig, axes = style.drawing(WIDTH, HEIGHT)
    boxes = _places()
    for name, group in groupby(CHAPTERS, lambda chapter: chapter.group):
        word(axes, boxes[next(group).number].x, 70, name, 9, style.MUTED, "left", style="italic")
    for chapter in CHAPTERS:
        there, own = chapter.number in available, chapter.number == here
        colour = PARTS.get(chapter.feeds, style.INK)
        edge = style.INK if own else colour if there else style.FAINT
        box = boxes[chapter.number]
        frame(axes, box, LIT if own else "white" if there else style.PAPER, edge, 2.4 if own else 1.2, not there)
        badge(axes, (box.x + box.width / 2, box.y + box.height / 2), chapter.number, colour, 0.85 if there else 0.3)
    box, text = boxes[here], f"you are here: {says(here)}"
    side = "right" if box.x > WIDTH / 2 else "left"  # the words stay on the strip
    word(axes, WIDTH - LEFT if side == "right" else box.x, 15, text, 9.5, "#A84300", side, weight="bold")
    return fig
