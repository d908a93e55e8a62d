"""Pictures in rows and columns, with captions under them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

from soralab.figures import style
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

GAP, MARGIN, TYPE = 12, 12, 13  # pixels: between tiles, round the board, height of captions
MIN_CELL = 120  # pixels: in a narrower column a long caption would be cut to ribbons


def image_grid(
    images,
    captions: Sequence[str] | None = None,
    columns: int = 8,
    scale: int | None = None,
    alt: str | None = None,
) -> Picture:
    """Pictures [n, channel, height, width] in [-1, 1], or a list of [channel, height, width] of several
    sizes.

    captions: one a picture, drawn under it. columns: at most so many. scale: whole-number enlargement; by
    itself as large as the page allows, up to about 120 pixels a side. Raises ValueError for other shapes or
    values.
    """
    tiles = [to_pixels(to_array(image, f"images[{i}]", "channel height width")) for i, image in enumerate(images)]
    if alt is None:
        alt = describe(f"{len(tiles)} picture{'s' * (len(tiles) != 1)}", captions)
    frames, table = lay_out([tile[None] for tile in tiles], captions, columns, scale, largest=120)
    return Picture(encode(frames, table), alt, frames[0].shape[1])


def describe(what: str, captions: Sequence[str] | None) -> str:
    """A text alternative made of what is shown and its captions."""
    return f"{what}: {'; '.join(captions)}." if captions and any(captions) else f"{what}."


def lay_out(
    tiles: Sequence[np.ndarray], captions: Sequence[str] | None, columns: int, scale: int | None, largest: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Tiles, uint8 [time, height, width, 3] each, on a board in rows; returns its frames and their palette.

    largest: pixels that a tile's longer side may take when `scale` is chosen here. A tile with fewer frames
    than the longest holds its last one. Captions stand under their tile and never on it.
    """
    captions = one_each(captions, len(tiles), "pictures")
    if columns < 1 or (scale is not None and (scale < 1 or scale != int(scale))):
        raise ValueError(f"columns, scale: got {columns}, {scale}, takes whole numbers from 1")
    height, width = max(t.shape[1] for t in tiles), max(t.shape[2] for t in tiles)
    columns = min(columns, len(tiles))
    if scale is None:
        room = (style.MAX_WIDTH - 2 * MARGIN + GAP) // columns - GAP
        scale = max(1, min(room // width, largest // max(height, width)))
    longest = max(style.font(TYPE).getlength(text) for text in captions)
    cell = max(width * scale, min(MIN_CELL, int(longest) + 1))
    columns = max(1, min(columns, (style.MAX_WIDTH - 2 * MARGIN + GAP) // (cell + GAP)))
    texts = [lines_of(text, f"picture {i + 1}", cell) for i, text in enumerate(captions)]

    places, y = [], MARGIN
    for start in range(0, len(tiles), columns):
        row = range(start, min(start + columns, len(tiles)))
        tall = max(tiles[i].shape[1] for i in row) * scale
        places += [(MARGIN + (i - start) * (cell + GAP), y, y + tall + 5) for i in row]
        type_height = max(len(texts[i][0]) * line_height(texts[i][1]) for i in row)
        y += tall + (10 + type_height if type_height else 0) + GAP
    board = Board(2 * MARGIN + columns * (cell + GAP) - GAP, y - GAP + MARGIN)
    for (x, _, under), (lines, face) in zip(places, texts, strict=True):
        board.write(x, under, lines, face)

    table = board_palette(tiles)
    indexed = [nearest(tile, table) for tile in tiles]
    frames = []
    for time in range(max(len(tile) for tile in tiles)):
        for (x, y, _), tile in zip(places, indexed, strict=True):
            board.paste(x, y, tile[min(time, len(tile) - 1)], scale)
        frames.append(board.index.copy())
    return frames, table


def one_each(captions: Sequence[str] | None, count: int, what: str) -> list[str]:
    """The captions, empty ones for None. Raises ValueError unless there are `count`, and at least one."""
    captions = [""] * count if captions is None else list(captions)
    if not count or len(captions) != count:
        raise ValueError(f"captions: got {len(captions)} for {count} {what}, takes one each, of one or more {what}")
    return captions


def lines_of(text: str, otherwise: str, width: int):
    """A caption's lines and font; where no installed font has its letters, `otherwise` instead of empty
    boxes."""
    face = style.font(TYPE, text)
    if face is None:
        face, text = style.font(TYPE), otherwise
    return (style.wrap(text, face, width) if text else []), face


def before_after(original, reconstruction, alt: str | None = None) -> Picture:
    """Three rows: originals, reconstructions and where they differ; under each column its PSNR in decibels.

    original, reconstruction: [n, channel, height, width] in [-1, 1], the same shape (a film's frames will
    do). The last row is the mean absolute difference over channels; its brightest colour is the number
    beside it.
    """
    a = to_array(original, "original", "n channel height width")
    b = to_array(reconstruction, "reconstruction", "n channel height width")
    if a.shape != b.shape:
        raise ValueError(f"reconstruction: got shape {list(b.shape)}, takes the original's {list(a.shape)}")
    error = np.abs(a - b).mean(1)
    top = max(float(error.max()), 1e-6)
    heat = np.rint(matplotlib.colormaps["magma"](error / top)[..., :3] * 255).astype(np.uint8)
    mse = ((a - b) ** 2).mean((1, 2, 3))
    # Pixels span 2, so the peak of the PSNR is 2² = 4.
    psnr = [f"{10 * np.log10(4 / m):.1f} dB" if m > 0 else "exact" for m in mse]
    rows = {
        "original": to_pixels(a),
        "reconstruction": to_pixels(b),
        f"difference\n(brightest: {top:.2g})": heat,
    }

    board, table = _labelled_rows(rows, psnr)
    if alt is None:
        alt = (
            f"{len(a)} pictures above their reconstructions, PSNR {', '.join(psnr)}; "
            f"below, the differences, at most {top:.2g} of a range of 2."
        )
    return Picture(encode([board.index], table), alt, board.index.shape[1])


def _labelled_rows(rows: dict[str, np.ndarray], footers: Sequence[str]) -> tuple[Board, np.ndarray]:
    """Rows of uint8 pictures [n, height, width, 3], each with its name on the left, a footer under each
    column."""
    count, height, width = next(iter(rows.values())).shape[:3]
    label, gap, face = 128, 6, style.font(TYPE)
    room = (style.MAX_WIDTH - 2 * MARGIN - label) // count - gap
    scale = max(1, min(room // width, 96 // max(height, width)))
    cell, pitch = max(width * scale, 56) + gap, height * scale + gap
    foot = MARGIN + len(rows) * pitch
    board = Board(2 * MARGIN + label + count * cell - gap, foot + line_height(face) + MARGIN)
    table = board_palette(list(rows.values()))
    for number, (name, pixels) in enumerate(rows.items()):
        y, lines = MARGIN + number * pitch, name.split("\n")
        board.write(MARGIN, y + (height * scale - len(lines) * line_height(face)) // 2, lines, face)
        for column, tile in enumerate(nearest(pixels, table)):
            board.paste(MARGIN + label + column * cell, y, tile, scale)
    for column, text in enumerate(footers):
        board.write(MARGIN + label + column * cell, foot, [text], face)
    return board, table
