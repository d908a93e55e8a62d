"""Pictures in rows and columns, with captions under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    whole,
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
    sheet = lay_out([tile[None] for tile in tiles], captions, columns, scale, largest=120)
    return Picture(encode([sheet.frame(0)], sheet.table), alt, sheet.board.index.shape[1])


def describe(what: str, captions: Sequence[str] | None) -> str:
    """A text alternative made of what is shown and its captions."""
    return f"{what}: {'; '.join(captions)}." if captions and any(captions) else f"{what}."


@dataclass
class Sheet:
    """Tiles laid out on a board with their captions. places: each tile's upper left corner, pixels. tiles: palette
    indices [time, height, width] each. table: their palette."""

    board: Board
    places: list[tuple[int, int]]
    tiles: list[np.ndarray]
    table: np.ndarray
    scale: int

    def frame(self, time: int) -> np.ndarray:
        """The sheet [height, width] at a frame; a tile that is shorter holds its last one."""
        for (x, y), tile in zip(self.places, self.tiles, strict=True):
            self.board.paste(x, y, tile[min(time, len(tile) - 1)], self.scale)
        return self.board.index.copy()

    def still(self) -> np.ndarray:
        """The sheet [height, width] with each tile's frames in rows in its place, first to last, as many as fit."""
        for (x, y), tile in zip(self.places, self.tiles, strict=True):
            side = min(self.scale, math.ceil(math.sqrt(len(tile))))
            shown = np.linspace(0, len(tile) - 1, min(len(tile), side**2)).round().astype(int)
            height, width, small = *tile.shape[1:], self.scale // side
            self.board.index[y : y + height * self.scale, x : x + width * self.scale] = 0
            for place, number in enumerate(shown):
                left = x + place % side * width * self.scale // side
                top = y + place // side * height * self.scale // side
                self.board.paste(left, top, tile[number], small)
                if small * side == self.scale and side > 1:  # a line of paper parts frames that touch
                    self.board.index[top : top + height * small, left + width * small - 1] = 0
                    self.board.index[top + height * small - 1, left : left + width * small] = 0
        return self.board.index.copy()


def lay_out(
    tiles: Sequence[np.ndarray], captions: Sequence[str] | None, columns: int, scale: int | None, largest: int
) -> Sheet:
    """Tiles, uint8 [time, height, width, 3] each, on a board in rows.

    largest: pixels that a tile's longer side may take when `scale` is chosen here. Captions stand under their tile
    and never on it.
    """
    captions = one_each(captions, len(tiles), "pictures")
    columns, scale = whole(columns, "columns"), None if scale is None else whole(scale, "scale")
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
    corners = [(x, y) for x, y, _ in places]
    return Sheet(board, corners, [nearest(tile, table) for tile in tiles], table, scale)


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
