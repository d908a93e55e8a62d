"""A film cut into spacetime patches: the blocks pulled apart, and the row of tokens that they become."""

from __future__ import annotations

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

MARGIN = 16  # pixels round the drawing
WIDE = 2 * style.MAX_WIDTH  # drawn at two pixels to one of the page
SLABS, ROWS, COLUMNS = 4, 30, 40  # blocks of time and patches of each that are drawn at most
SPACE, TALL = 60, 640  # pixels: between blocks of time, height that these may take


def patches_diagram(film, patch: tuple[int, int, int] = (2, 8, 8), alt: str | None = None) -> Picture:
    """A film [time, channel, height, width] in [-1, 1], pulled apart into patches of (frames, rows, columns)
    each.

    Above, the film: each block of time beside the next, its patches with gaps between them, a patch's later
    frames looking out behind its first. Below, the tokens in the order in which the transformer reads them:
    rows, then down, then the next block of time. Raises ValueError where the patch does not divide the film.
    """
    film = to_array(film, "film", "time channel height width")
    length, channels, height, width = film.shape
    if len(patch) != 3 or any(p < 1 or size % p for p, size in zip(patch, (length, height, width), strict=False)):
        raise ValueError(
            f"patch: got {tuple(patch)} for a film of {length} frames of {height} x {width}, "
            "takes three sizes that divide them"
        )
    grid = (length // patch[0], height // patch[1], width // patch[2])
    tokens, values = grid[0] * grid[1] * grid[2], patch[0] * patch[1] * patch[2] * channels
    frames = f"{patch[0]} frame{'s' * (patch[0] > 1)}"
    text = (
        f"{grid[0]} × {grid[1]} × {grid[2]} = {tokens:,} patches, each {frames} × "
        f"{patch[1]} × {patch[2]} pixels × {channels} colours = {values:,} numbers"
    )
    pixels = to_pixels(film)
    table = board_palette([pixels])
    blocks = (
        nearest(pixels, table)
        .reshape(grid[0], patch[0], grid[1], patch[1], grid[2], patch[2])
        .transpose(0, 2, 4, 1, 3, 5)
    )  # [slabs, rows, columns, frames, patch height, patch width]
    top, bottom = _slabs(blocks[:, :ROWS, :COLUMNS]), _tokens(blocks.reshape(-1, *blocks.shape[3:]))
    if grid[1] > ROWS or grid[2] > COLUMNS:
        text += "  (a corner of the film is drawn)"
    face = style.font(24)
    middle = MARGIN + top.shape[0] + 20
    below = middle + line_height(face) + 22
    board = Board(WIDE, below + bottom.shape[0] + MARGIN)
    for y, part in ((MARGIN, top), (below, bottom)):
        board.paste((WIDE - part.shape[1]) // 2, y, part, 1)
    board.write(WIDE / 2, middle, [text], face, anchor="ma")
    what = "A picture pulled apart into patches" if length == 1 else "A film pulled apart into spacetime patches"
    return Picture(encode([board.index], table), alt or f"{what}: {text}.", WIDE // 2)


def _depth(frames: int, back: int) -> int:
    """Pixels by which a patch's last frame stands behind its first, `back` a frame but not without end."""
    return min(back * (frames - 1), 3 * back)


def _block(board: Board, x: int, y: int, patch: np.ndarray, scale: int, back: int) -> None:
    """Draw a patch [frames, height, width] with its first frame in front, at (x, y) the corner of the space
    it takes."""
    frames, height, width = patch.shape
    depth, line = _depth(frames, back), 1 + (back > 4)
    for frame in reversed(range(frames)):
        shift = round(depth * frame / max(1, frames - 1))
        left, top = x + shift, y + depth - shift
        if shift < depth or not depth:  # a line of paper parts each frame from the one behind
            board.index[max(0, top - line) : top, left : left + width * scale + line] = 0
            board.index[
                max(0, top - line) : top + height * scale, left + width * scale : left + width * scale + line
            ] = 0
        board.paste(left, top, patch[frame], scale)


def _slabs(blocks: np.ndarray) -> np.ndarray:
    """The first blocks of time [slabs, rows, columns, frames, height, width] side by side, frame numbers
    below."""
    slabs, rows, columns, frames, height, width = blocks.shape
    back = max(1, min(7, 56 // max(rows, columns)))  # many small patches stand closer
    depth, gap, face = _depth(frames, back), 2 * back, style.font(22)
    shown, scale = min(slabs, SLABS), 0
    while scale < 1 and shown:
        room = (WIDE - 2 * MARGIN - shown * SPACE) // shown
        scale = min((room // columns - gap - depth) // width, (TALL // rows - gap - depth) // height)
        shown -= scale < 1
    shown, scale = max(shown, 1), max(scale, 1)
    step_x, step_y = width * scale + depth + gap, height * scale + depth + gap
    wide, tall = columns * step_x - gap, rows * step_y - gap
    board = Board(shown * (wide + SPACE) - SPACE + (SPACE if shown < slabs else 0), tall + 8 + line_height(face))
    for slab in range(shown):
        left = slab * (wide + SPACE)
        for row in range(rows):
            for column in range(columns):
                _block(board, left + column * step_x, row * step_y, blocks[slab, row, column], scale, back)
        first, last = slab * frames, (slab + 1) * frames - 1
        name = f"frames {first}–{last}" if frames > 1 else f"frame {first}"
        board.write(left + wide / 2, tall + 6, [name], face, anchor="ma", shade=0.72)
    if shown < slabs:
        board.write(shown * (wide + SPACE) - SPACE / 2, tall // 2, ["…"], style.font(36), anchor="mm")
    return board.index


def _tokens(patches: np.ndarray) -> np.ndarray:
    """The row of patches [tokens, frames, height, width] with their numbers; its middle left out where it is
    long."""
    count, frames, height, width = patches.shape
    scale = max(1, 56 // max(height, width))
    depth, face = _depth(frames, 5), style.font(20)
    step = max(width * scale, 44) + depth + 14
    fits = max(4, (WIDE - 2 * MARGIN) // step)
    numbers = list(range(count)) if count <= fits else [*range(fits - 3), None, count - 2, count - 1]
    board = Board(len(numbers) * step, height * scale + depth + 8 + line_height(face))
    for place, number in enumerate(numbers):
        x = place * step + 7
        if number is None:
            board.write(x + step / 2 - 7, (height * scale + depth) // 2, ["…"], style.font(36), anchor="mm")
            continue
        _block(board, x, 0, patches[number], scale, 5)
        board.write(x + width * scale / 2, height * scale + depth + 6, [str(number)], face, anchor="ma", shade=0.72)
    return board.index
