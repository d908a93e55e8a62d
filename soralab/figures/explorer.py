"""Figures with sliders that need no kernel: every state is drawn beforehand and lies in one picture.

The page's own script shows one part of that picture at a time. Where scripts do not run (a notebook that is not
trusted yet, a code host), the whole picture stands there with its words, and says how one comes to the sliders.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from soralab.figures.pictures import encode, named, nearest, palette, to_array, to_pixels, whole

COLOURS = 96  # of the picture's palette
PAPER = 251  # grey between the parts
GAP = 4  # pixels of paper to the right of a state and below it, so that one sees where it ends
WIDEST, HIGHEST = 960, 480  # CSS pixels of the whole picture where it is enlarged
HOW = ("These are all the pictures at once. In JupyterLab sliders go through them one by one, once the cell is run or "
       "the notebook is trusted (menu View, Activate Command Palette, Trust Notebook).")  # fmt: skip
SCRIPT = """
(() => {
  const box = document.getElementById("NAME"), o = OPTIONS;
  if (!box || box.dataset.on) return;
  box.dataset.on = "1";
  const image = box.querySelector("img"), view = document.createElement("div"), said = document.createElement("output");
  const names = document.createElement("div"), row = document.createElement("div");
  box.querySelectorAll("p").forEach((p) => p.remove());
  view.style.cssText = `overflow:hidden;flex:none;width:${o.width - o.gap}px;height:${o.height - o.gap}px`;
  image.style.cssText = `width:${o.sheet}px;max-width:none;height:auto;margin:0;image-rendering:pixelated`;
  names.style.cssText = `display:flex;flex-direction:column;justify-content:space-around;height:${o.height - o.gap}px`;
  for (const text of o.rows) names.append(Object.assign(document.createElement("span"), { textContent: text }));
  row.style.cssText = "display:flex;gap:12px";
  view.append(image); row.append(view, names); said.style.display = "block";
  const inputs = o.axes.map(([name, values, start]) => {
    const label = document.createElement("label"), input = document.createElement("input");
    label.style.cssText = "display:inline-flex;gap:8px;align-items:center;margin-right:24px";
    Object.assign(input, { type: "range", min: 0, max: values.length - 1, step: 1, value: start });
    input.dataset.lmSuppressShortcuts = "true";  // JupyterLab would take the arrow keys for itself
    input.addEventListener("input", show);
    label.append(name, input);
    box.append(label);
    return input;
  });
  function show() {
    const at = inputs.map((input) => +input.value);
    o.axes.forEach(([name, values], k) => inputs[k].setAttribute("aria-valuetext", `${name} = ${values[at[k]]}`));
    const words = o.axes.map(([name, values], k) => `${name} = ${values[at[k]]}`).join(", ");
    said.textContent = o.says.length ? `${words}: ${o.says[at[0]]}` : words;
    const place = o.axes.reduce((sum, [, values], k) => sum * values.length + at[k], 0);
    image.style.marginTop = `${-Math.floor(place / o.across) * o.height}px`;
    image.style.marginLeft = `${-(place % o.across) * o.width}px`;
  }
  box.append(said, row);
  show();
})();
"""


@dataclass(frozen=True)
class Explorer:
    """A figure whose states a reader goes through with sliders. As a cell's last line it is shown.

    data: PNG bytes of all states. alt: what it shows, in a sentence. width: CSS pixels of the picture of all states,
    where no script runs. options: what the script is told; there width and height are a state's with the paper round
    it, in CSS pixels.
    """

    data: bytes = field(repr=False)
    alt: str
    width: int
    options: dict = field(repr=False)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html(), "text/plain": self.alt}

    def html(self) -> str:
        """The figure as HTML: the picture of all states with its words, and the script that makes sliders of it."""
        name = named(self.data)
        source = base64.b64encode(self.data).decode("ascii")
        script = SCRIPT.replace("NAME", name).replace("OPTIONS", json.dumps(self.options).replace("<", "\\u003c"))
        return (
            f'<div id="{name}"><img alt="{escape(self.alt)}" width="{self.width}" style="image-rendering:pixelated" '
            f'src="data:image/png;base64,{source}">\n<p>{escape(self._order())}</p>\n<p>{HOW}</p></div>\n'
            f"<script>{script}</script>"
        )

    def _order(self) -> str:
        """What the whole picture shows where no script runs."""
        axes, lines = self.options["axes"], -(-len(self.options["axes"][0][1]) // self.options["across"])
        where = ("From top to bottom", "from left to right") if len(axes) == 2 else (
            "From left to right" if lines == 1 else f"In {lines} lines, as one reads",)
        parts = [f"{way}: {axis} = {', '.join(values)}" for way, (axis, values, _) in zip(where, axes, strict=True)]
        rows = self.options["rows"]
        return "; ".join(parts) + (f". In each, from the top: {', '.join(rows)}." if any(rows) else ".")


def explorer(
    states, axes: Mapping[str, Sequence], alt: str, rows: Sequence[str] = (), says: Sequence[str] = (),
    start: Sequence[int] = (0, 0), scale: int = 3,
) -> Explorer:  # fmt: skip
    """Pictures that one or two sliders go through.

    states: [first axis, second axis, rows, frames, channel, height, width] in [-1, 1], of one slider without the
    second axis; what stands at one place of the sliders is `rows` films, each with its frames side by side. axes:
    each slider's name and the values on it, {"s": (1, 2, 3), "seed": (0, 1)}. rows: what each film is. says: for each
    value of the first axis a sentence. start: where the sliders stand first. scale: screen pixels to a pixel.
    Raises ValueError where these do not fit together.
    """
    lengths, scale = [len(values) for values in axes.values()], whole(scale, "scale")
    tail = "rows frames channel height width"
    array = to_array(states, "states", f"{'one two' if len(lengths) == 2 else 'one'} {tail}")
    if len(lengths) not in (1, 2) or list(array.shape[: len(lengths)]) != lengths:
        raise ValueError(f"axes: got {lengths} values for states of shape {list(array.shape)}, takes as many of each")
    if not alt.strip() or len(rows) not in (0, array.shape[-5]) or len(says) not in (0, lengths[0]):
        raise ValueError(
            f"alt, rows, says: got {alt!r}, {len(rows)} and {len(says)}, takes a sentence, a name for each of "
            f"{array.shape[-5]} rows and a sentence for each of {lengths[0]} values"
        )
    pixels = to_pixels(array).reshape(math.prod(lengths), *array.shape[-5:-3], *array.shape[-2:], 3)
    height, width = pixels.shape[1] * (pixels.shape[3] + 1) + GAP, pixels.shape[2] * (pixels.shape[4] + 1) + GAP
    across = lengths[1] if len(lengths) == 2 else _across(lengths[0], width, height)
    sheet = _sheet(pixels, across)
    table = palette(sheet, COLOURS)
    options = {
        "axes": [[name, [str(v) for v in axes[name]], at] for name, at in zip(axes, start, strict=False)],
        "rows": list(rows), "says": list(says), "width": width * scale, "height": height * scale, "gap": GAP * scale,
        "sheet": sheet.shape[1] * scale, "across": across,
    }  # fmt: skip
    larger = max(1, min(scale, WIDEST // sheet.shape[1], HIGHEST // sheet.shape[0]))
    return Explorer(encode([nearest(sheet, table)], table), alt, sheet.shape[1] * larger, options)


def _across(count: int, width: int, height: int) -> int:
    """How many of `count` states of this size stand in a line, for a sheet about twice as wide as it is high."""
    return min(range(1, count + 1), key=lambda n: abs(math.log(n * width / (math.ceil(count / n) * height) / 2)))


def _sheet(pixels: np.ndarray, across: int) -> np.ndarray:
    """uint8 [state, rows, frames, height, width, 3] on one sheet, `across` in a line, paper after each frame and more
    of it after each state."""
    framed = np.pad(pixels, [(0, -len(pixels) % across)] + [(0, 0)] * 2 + [(0, 1), (0, 1), (0, 0)],
                    constant_values=PAPER)  # fmt: skip
    count, rows, frames, height, width, _ = framed.shape
    each = framed.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * height, frames * width, 3)
    each = np.pad(each, [(0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=PAPER)
    lines = each.reshape(-1, across, *each.shape[1:]).transpose(0, 2, 1, 3, 4)
    return lines.reshape(-1, across * each.shape[2], 3)
