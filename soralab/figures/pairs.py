"""Which picture belongs to which text: a table with the pictures at its left and the texts at its right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from soralab.figures import style
from soralab.figures.pictures import Picture, picture, to_array, to_pixels
from soralab.files.counts import so_many


def pairs_table(pictures, texts: Sequence[str], values, words=None, alt: str | None = None) -> Picture:
    """values [n, n] of n pictures [n, channel, height, width] (rows) with n texts (columns, T1 to Tn), the larger the
    lighter.

    `words` [n][n] is written into the cells; by default the values, with one decimal. Raises ValueError where the
    numbers of pictures, texts and values differ.
    """
    frames, count = to_array(pictures, "pictures", "count channel height width"), len(texts)
    values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"values: got {values.dtype} of shape {list(values.shape)}, takes numbers [n, n]")
    if len(frames) != count or tuple(values.shape) != (count, count):
        raise ValueError(f"values are {list(values.shape)} and pictures {len(frames)}; {count} texts take as many")
    side = min(0.62, 4.2 / count)  # of a cell, in inches
    fig, axes = style.figure(2.2 * side + count * side + 3.7, (count + 0.9) * side)
    axes.imshow(values, cmap="cividis", extent=(0, count, count, 0), zorder=2)
    for k, (frame, text) in enumerate(zip(frames, texts, strict=True)):
        shown = to_pixels(frame)
        axes.imshow(shown, extent=(-1.1, -0.15, k + 0.95, k + 0.05), cmap="gray", vmin=0, vmax=255, zorder=2)
        axes.text(k + 0.5, -0.25, f"T{k + 1}", ha="center", va="center")
        lines = "\n".join(textwrap.wrap(f"T{k + 1}  {text}", 46)[:3])
        axes.text(count + 0.25, k + 0.5, style.plain(lines), va="center", fontsize=8, linespacing=1.05)
        for j in range(count):
            said = f"{values[k][j]:.1f}" if words is None else words[k][j]
            dark = values[k][j] > (values.max() + values.min()) / 2
            axes.text(j + 0.5, k + 0.5, style.plain(said), ha="center", va="center", fontsize=8,
                      color="black" if dark else "white")  # fmt: skip
    axes.set(xlim=(-1.2, count + 0.2 + 3.7 / side), ylim=(count + 0.1, -0.7), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)
    axes.axis("off")
    shown = f"A table of {so_many(count, 'picture')} (rows) and texts (columns): {'; '.join(texts)}."
    return picture(fig, alt=alt or shown)
