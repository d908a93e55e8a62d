"""Films that play inside a notebook, and strips that lay their frames side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soralab.figures import style
from soralab.figures.grids import MARGIN, describe, lay_out, lines_of, one_each
from soralab.figures.pictures import (
    Board,
    Picture,
    board_palette,
    encode,
    line_height,
    nearest,
    to_array,
    to_pixels,
)
from soralab.files.counts import so_many

AXES = "time channel height width"
STOPPED = 64  # pixels that a frame takes where a film is stopped, at most


def show_film(
    film, caption: str | None = None, fps: float = 8, scale: int | None = None, alt: str | None = None
) -> Picture:
    """One film [time, channel, height, width] in [-1, 1], playing in a loop, its caption under it.

    fps: frames a second. scale: whole-number enlargement; by itself up to about 256 pixels a side.
    alt: the text alternative; by itself made of the caption. Raises ValueError for other shapes or values.
    """
    pixels = to_pixels(to_array(film, "film", AXES))
    return _playing([pixels], [caption or ""], 1, fps, scale, 256, alt)


def show_films(
    films,
    captions: Sequence[str] | None = None,
    columns: int = 4,
    fps: float = 8,
    scale: int | None = None,
    alt: str | None = None,
) -> Picture:
    """Films [n, time, channel, height, width] in [-1, 1], or a list of films of several sizes, in rows,
    playing.

    captions: one a film, drawn under it. columns: at most so many. A film that is shorter than the others
    holds its last frame. Raises ValueError for other shapes or values, or where captions and films differ in
    number.
    """
    pixels = [to_pixels(to_array(film, f"films[{i}]", AXES)) for i, film in enumerate(films)]
    return _playing(pixels, captions, columns, fps, scale, 160, alt)


def _playing(pixels: list[np.ndarray], captions, columns, fps, scale, largest, alt) -> Picture:
    if not 0 < fps <= 100:
        raise ValueError(f"fps: got {fps}, takes a number above 0 and at most 100")
    sheet = lay_out(pixels, captions, columns, scale, largest)
    frames = [sheet.frame(time) for time in range(max(map(len, pixels)))]
    if alt is None:
        what = "A film" if len(pixels) == 1 else f"{len(pixels)} films"
        alt = describe(f"{what} of {so_many(len(frames), 'frame')}", captions)
    if len(frames) == 1:
        return Picture(encode(frames, sheet.table), alt, frames[0].shape[1])
    strip = _strips(_padded(pixels), captions, f"Frame by frame: {alt}", STOPPED)
    data = encode(frames, sheet.table, round(1000 / fps), sheet.still())
    return Picture(data, alt, frames[0].shape[1], strip)


def film_strip(film, caption: str | None = None, alt: str | None = None) -> Picture:
    """The frames of a film [time, channel, height, width] in [-1, 1] side by side, with their numbers
    above."""
    return film_strips([film], None if caption is None else [caption], alt)


def film_strips(films, captions: Sequence[str] | None = None, alt: str | None = None) -> Picture:
    """Several films [n, time, channel, height, width] as strips, one under another, captions under each.

    All of one size. A film that is too long for the page is shown by every second, third, ... frame; the
    numbers above, counted from 0, say which. Raises ValueError for other shapes or values.
    """
    pixels = np.stack(_same_size([to_pixels(to_array(f, f"films[{i}]", AXES)) for i, f in enumerate(films)]))
    return _strips(pixels, captions, alt, 128)


def _strips(pixels: np.ndarray, captions: Sequence[str] | None, alt: str | None, largest: int) -> Picture:
    """Films, uint8 [n, time, height, width, 3], as strips; largest: pixels that a frame's width may take."""
    captions = one_each(captions, len(pixels), "films")
    count, length, height, width = pixels.shape[:4]
    gap, room = 4, style.MAX_WIDTH - 2 * MARGIN
    every = -(-length // max(1, room // (max(width, 40) + gap)))
    shown = list(range(0, length, every))
    scale = max(1, min(room // len(shown) - gap, largest) // width)
    step = max(width * scale, 24) + gap
    texts = [lines_of(text, f"film {i + 1}", max(len(shown) * step - gap, 240)) for i, text in enumerate(captions)]
    small = style.font(11)
    heights = [height * scale + (4 + len(lines) * line_height(face) if lines else 0) + 10 for lines, face in texts]
    top = MARGIN + line_height(small)
    wide = max(len(shown) * step - gap, 240 if any(captions) else 0)
    board = Board(2 * MARGIN + wide, top + sum(heights) - 10 + MARGIN)

    table = board_palette(list(pixels[:, shown]))
    for column, frame in enumerate(shown):
        centre = MARGIN + column * step + width * scale / 2
        board.write(centre, MARGIN - 2, [str(frame)], small, anchor="ma", shade=0.72)
    y = top
    for strip, (lines, face), tall in zip(nearest(pixels[:, shown], table), texts, heights, strict=True):
        for column, tile in enumerate(strip):
            board.paste(MARGIN + column * step, y, tile, scale)
        board.write(MARGIN, y + height * scale + 4, lines, face)
        y += tall
    if alt is None:
        frames = so_many(length, "frame") if every == 1 else f"{len(shown)} of {length} frames"
        alt = describe(f"{'A film' if count == 1 else f'{count} films'} as a strip of {frames}", captions)
    return Picture(encode([board.index], table), alt, board.index.shape[1])


def _same_size(films: list[np.ndarray]) -> list[np.ndarray]:
    if not films or any(film.shape != films[0].shape for film in films):
        raise ValueError(
            f"films: got {[list(f.shape[:3]) for f in films]} (time, height, width), takes one or more "
            "films of one size"
        )
    return films


def _padded(films: list[np.ndarray]) -> np.ndarray:
    """Films, uint8 [time, height, width, 3] each, as one array: the smaller on paper, the shorter hold their last
    frame. [n, time, height, width, 3]"""
    sizes = np.array([film.shape[:3] for film in films])
    length, height, width = sizes.max(0)
    out = np.empty((len(films), length, height, width, 3), np.uint8)
    out[:] = [int(style.PAPER[i : i + 2], 16) for i in (1, 3, 5)]
    for sheet, film in zip(out, films, strict=True):
        held = film[np.minimum(np.arange(length), len(film) - 1)]
        sheet[:, : film.shape[1], : film.shape[2]] = held
    return out
