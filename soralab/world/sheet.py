"""A contact sheet: films of the world one below the other, each with its frames side by side and its caption."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from soralab.world.language import short_caption
from soralab.world.render import render
from soralab.world.sampling import sample_scene

ROOM = 8  # pixels between rows and around the sheet
TYPE = 17  # pixels of a caption's letters
PAPER, INK = (251, 250, 247), (31, 35, 40)


def contact_sheet(
    seed: int, indices: Iterable[int], frames: int = 8, height: int = 32, width: int = 32, scale: int = 2,
    columns: int = 2, level: str = "full", split: str = "train",
) -> Image.Image:  # fmt: skip
    """Draw the clips (seed, index) at `scale`, in `columns` columns, each over its short caption.

    Raises ValueError for no clips, or what `sample_scene` and `render` refuse.
    """
    scenes = [sample_scene(seed, index, level, split, width / height) for index in indices]
    if not scenes:
        raise ValueError("indices is empty; it takes at least one clip's number")
    films = render(scenes, frames, height, width)
    strip_width, strip_height = frames * (width * scale + 2) - 2, height * scale
    font = ImageFont.load_default(TYPE)
    captions = [_wrap(short_caption(scene), font, strip_width) for scene in scenes]
    lines = max(len(caption) for caption in captions)
    cell = strip_width + 3 * ROOM, strip_height + lines * (TYPE + 5) + 2 * ROOM
    rows = -(-len(scenes) // columns)
    sheet = Image.new("RGB", (min(columns, len(scenes)) * cell[0] + ROOM, rows * cell[1] + ROOM), PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, (film, caption) in enumerate(zip(films, captions, strict=True)):
        left, top = ROOM + k % columns * cell[0], ROOM + k // columns * cell[1]
        for j, frame in enumerate(film):
            picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
            size = width * scale, height * scale
            sheet.paste(picture.resize(size, Image.NEAREST), (left + j * (width * scale + 2), top))
        draw.multiline_text((left, top + strip_height + 4), "\n".join(caption), INK, font, spacing=4)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a caption into lines no wider than `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
