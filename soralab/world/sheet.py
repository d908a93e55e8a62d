"""Contact sheets: many films of the world on one picture, each with its caption."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from soralab.world.language import short_caption
from soralab.world.render import render
from soralab.world.scene import sample_scene

if TYPE_CHECKING:
    from PIL.Image import Image

PAPER, INK = (250, 250, 250), (30, 30, 30)
LINE, MARGIN, GAP = 14, 6, 2  # pixels: height of a caption, the sheet's border, between frames


def contact_sheet(
    seed: int = 0, indices: Iterable[int] = range(24), level: str = "full", split: str = "train", frames: int = 8,
    height: int = 32, width: int = 32, zoom: int = 2, columns: int = 1,
) -> Image:  # fmt: skip
    """A picture of films: each a strip of its frames with its short caption above, `columns` films beside each other.

    `zoom` enlarges every pixel. Raises ValueError for a level, split or size that the world does not know, or no films.
    """
    from PIL import Image, ImageDraw

    scenes = [sample_scene(seed, index, level, split, width / height) for index in indices]
    if not scenes:
        raise ValueError("indices is empty; it takes at least one film's number")
    films = render(scenes, frames, height, width).transpose(0, 1, 3, 4, 2)  # [film, frame, height, width, channel]
    films = films.repeat(zoom, 2).repeat(zoom, 3)
    tall, wide = films.shape[2], films.shape[3]
    strip, row = frames * (wide + GAP) - GAP, LINE + tall + MARGIN
    rows = -(-len(scenes) // columns)
    paper = np.full((MARGIN + rows * row, MARGIN + columns * (strip + MARGIN), 3), PAPER, np.uint8)
    places = []
    for k, film in enumerate(films):
        top, left = MARGIN + k % rows * row, MARGIN + k // rows * (strip + MARGIN)
        places.append((left, top))
        for t, picture in enumerate(film):
            x = left + t * (wide + GAP)
            paper[top + LINE : top + LINE + tall, x : x + wide] = picture
    sheet = Image.fromarray(paper)
    pen = ImageDraw.Draw(sheet)
    for scene, place in zip(scenes, places, strict=True):
        pen.text(place, _fitted(short_caption(scene), pen, strip), fill=INK)
    return sheet


def _fitted(text: str, pen, width: int) -> str:
    """The text, cut with an ellipsis if it is wider than the strip below it."""
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(text + " ...") > width:
        text = text.rsplit(" ", 1)[0] if " " in text else text[:-1]
    return text + " ..."
