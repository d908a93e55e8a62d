"""A picture that a notebook shows: PNG bytes (animated for films), a text alternative, a width.

A cell shows it as `<img alt="..." src="data:image/png;base64,...">`, since no page reads the text alternative out
of an image's metadata. Films are palette APNG: the one format that plays in JupyterLab (trusted or not), in
nbconvert's pages and on code hosts. All frames share one palette, so that the file stays small and nothing
flickers.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Real

import numpy as np
from PIL import Image, ImageDraw

from soralab.figures import style

SLACK = 1e-3  # pixels may leave [-1, 1] by rounding, no further
RAMP = 8  # grey steps between paper and ink at the palette's start: what smooth type needs
COLOURS = 120  # palette entries left for pixels
SHOWN: Counter = Counter()  # how often this kernel has shown each film


@dataclass(frozen=True)
class Picture:
    """What every function of `soralab.figures` returns. As a cell's last line it is shown; `save(path)`
    keeps it.

    data: PNG or APNG bytes. alt: one describing sentence, also the picture's plain text. width: CSS pixels.
    strip: of a film, the picture of its frames side by side, for readers who stop it.
    """

    data: bytes = field(repr=False)
    alt: str
    width: int
    strip: Picture | None = field(default=None, repr=False)

    def __post_init__(self):
        if not self.alt.strip():
            raise ValueError("alt: got an empty text, takes a sentence that says what the picture shows")

    def __repr__(self) -> str:
        return self.alt

    def html(self) -> str:
        """The picture as HTML without script or style, which a page keeps also where it trusts nothing."""
        source = base64.b64encode(self.data).decode("ascii")
        image = f'<img alt="{escape(self.alt)}" width="{self.width}" src="data:image/png;base64,{source}">'
        if self.strip is None:
            return image
        # Of details that share a name one is open at a time: opening the frames stops the film.
        name = named(self.data)
        return (
            f'<details name="{name}" open><summary>film</summary>{image}</details>\n'
            f'<details name="{name}"><summary>stopped: its frames side by side</summary>{self.strip.html()}</details>'
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html(), "text/plain": self.alt}

    def save(self, path) -> None:
        """Write the PNG bytes to `path`. Raises OSError where the folder cannot be written."""
        with open(path, "wb") as file:
            file.write(self.data)


def named(data: bytes) -> str:
    """A name on the page for what has these bytes: "film-0a1b2c3d", and where it is shown again "film-0a1b2c3d_2".

    The same whenever a notebook runs from its top. Two of one name would be one to the page: of two films one would
    shut the other, of two figures with sliders one would have none.
    """
    name = f"film-{hashlib.sha256(data).hexdigest()[:8]}"
    SHOWN[name] += 1
    return name if SHOWN[name] == 1 else f"{name}_{SHOWN[name]}"


def picture(fig, alt: str, colours: int = 96) -> Picture:
    """A matplotlib figure as a `Picture`, stored at two pixels to one of the page so that type is sharp.

    colours: of its palette; a plan of few colours needs 64, one with pictures in it up to 256."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=2 * style.DPI, pil_kwargs={"compress_level": 0})
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    table = palette(pixels, colours)  # a fifth of the bytes, and no eye sees it
    return Picture(encode([nearest(pixels, table)], table), alt, pixels.shape[1] // 2)


def to_array(value, name: str, ndim: str) -> np.ndarray:
    """A tensor or array of pixels in [-1, 1] as float32 numpy; `ndim` names its axes, as "time channel
    height width".

    Raises ValueError, naming what it got, where the axes, the channels (1 or 3) or the range do not fit.
    """
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    axes = ndim.split()
    if value.ndim != len(axes) or 0 in value.shape:
        raise ValueError(f"{name}: got shape {list(value.shape)}, takes [{', '.join(axes)}]")
    channels = value.shape[axes.index("channel")]
    if channels not in (1, 3):
        raise ValueError(f"{name}: got {channels} channels in shape {list(value.shape)}, takes 1 or 3")
    if value.dtype.kind != "f":
        raise ValueError(f"{name}: got {value.dtype}, takes floats in [-1, 1] (uint8 pixels / 127.5 - 1)")
    value = value.astype(np.float32)
    low, high = float(value.min()), float(value.max())
    if not (low >= -1 - SLACK and high <= 1 + SLACK):
        raise ValueError(f"{name}: got values from {low:.4g} to {high:.4g}, takes [-1, 1] (clamp a sample)")
    return value


def whole(value, name: str) -> int:
    """A whole number from 1 as an int, also where it is given as 2.0. Raises ValueError, naming it, for another."""
    if not (isinstance(value, Real) and value >= 1 and float(value).is_integer()):
        raise ValueError(f"{name}: got {value}, takes a whole number from 1")
    return int(value)


def to_pixels(value: np.ndarray) -> np.ndarray:
    """[..., channel, height, width] in [-1, 1] to uint8 [..., height, width, 3]."""
    value = np.moveaxis(np.rint((value.clip(-1, 1) + 1) * 127.5).astype(np.uint8), -3, -1)
    return np.repeat(value, 3, axis=-1) if value.shape[-1] == 1 else value


def palette(pixels: np.ndarray, colours: int) -> np.ndarray:
    """At most `colours` colours for uint8 `pixels` [..., 3]; all of them, exactly, where there are no more.
    [colours, 3]"""
    unique, inverse = _ranked(pixels)
    if len(unique) > colours:
        # Each colour stands for the root of its area: fewer pixels to sort, and small things count for more.
        weights = np.sqrt(np.bincount(inverse)).astype(int)
        image = Image.fromarray(_unpacked(np.repeat(unique, weights))[None])
        few = image.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        unique = np.unique(_packed(np.array(few.getpalette(), np.uint8)[: 3 * colours]))
    return _unpacked(unique)


def nearest(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """For uint8 pixels [..., 3] the indices [...] of the nearest colours of `table` [colours, 3]."""
    unique, inverse = _ranked(pixels)
    colours, table = _unpacked(unique).astype(np.float32), table.astype(np.float32)
    closest = np.empty(len(unique), np.uint8)
    for start in range(0, len(unique), 65536):
        part = colours[start : start + 65536]
        closest[start : start + 65536] = ((table**2).sum(1) - 2 * part @ table.T).argmin(1)
    return closest[inverse].reshape(pixels.shape[:-1])


def _packed(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3).astype(np.int32) @ np.array([65536, 256, 1], np.int32)


def _ranked(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct colours, packed and rising, and each pixel's place among them: np.unique, of large pictures by
    counting, not sorting."""
    packed = _packed(pixels)
    if len(packed) < 1 << 17:
        return np.unique(packed, return_inverse=True)
    there = np.zeros(1 << 24, bool)
    there[packed] = True
    unique = np.flatnonzero(there)
    rank = np.empty(1 << 24, np.int32)
    rank[unique] = np.arange(len(unique))
    return unique, rank[packed]


def _unpacked(numbers: np.ndarray) -> np.ndarray:
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def board_palette(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """The palette of a `Board`: `RAMP` greys from paper to ink, then the colours of the pictures on it."""
    steps = np.linspace(0, 1, RAMP)[:, None]
    ramp = np.rint(_rgb(style.PAPER) * (1 - steps) + _rgb(style.INK) * steps).astype(np.uint8)
    return np.concatenate([ramp, palette(np.concatenate([p.reshape(-1, 3) for p in pixels]), COLOURS)])


class Board:
    """A sheet of palette indices [height, width] on which pictures and type are laid; 0 is paper."""

    def __init__(self, width: int, height: int):
        self.index = np.zeros((height, width), np.uint8)

    def paste(self, x: int, y: int, index: np.ndarray, scale: int) -> None:
        """Lay palette indices [height, width] at (x, y) from the top left, each pixel `scale` wide and
        high."""
        big = index.repeat(scale, 0).repeat(scale, 1)
        self.index[y : y + big.shape[0], x : x + big.shape[1]] = big

    def write(self, x: float, y: int, lines: Sequence[str], face, anchor: str = "la", shade: float = 1.0) -> None:
        """Write lines of type from (x, y) downwards, one `line_height` each; shade 1 is ink, less is
        greyer."""
        mask = Image.new("L", self.index.shape[::-1])
        draw = ImageDraw.Draw(mask)
        for number, line in enumerate(lines):
            draw.text((x, y + number * line_height(face)), line, fill=255, font=face, anchor=anchor)
        ink = np.rint(np.asarray(mask, np.float32) / 255 * shade * (RAMP - 1)).astype(np.uint8)
        self.index[ink > 0] = ink[ink > 0]


def line_height(face) -> int:
    """Pixels from one line of type to the next."""
    ascent, descent = face.getmetrics()
    return ascent + descent + 1


REST = 1000  # milliseconds that a film rests on its last frame before it begins again
LEVEL = 7  # of a film's compression; 9, which a single picture gets, makes it 6 % smaller, in six times the time


def encode(
    frames: Sequence[np.ndarray], table: np.ndarray, duration: int = 0, still: np.ndarray | None = None
) -> bytes:
    """Palette indices, one [height, width] array per frame, as a PNG; several frames make an APNG that loops
    for ever, with a rest on the last.

    table: uint8 [colours, 3]. duration: milliseconds a frame. A frame equal to the one before only prolongs
    it. still: what is seen where nothing moves (paper, old viewers) instead of the first frame.
    """
    images = []
    for frame in [*([] if still is None else [still]), *frames]:
        image = Image.fromarray(np.ascontiguousarray(frame))
        image.putpalette(np.ascontiguousarray(table).tobytes())
        images.append(image)
    buffer = io.BytesIO()
    if len(frames) == 1:
        images[-1].save(buffer, "PNG", compress_level=9)
    else:
        durations = [duration] * (len(frames) - 1) + [duration + REST]
        images[0].save(
            buffer, "PNG", save_all=True, append_images=images[1:], duration=durations, loop=0,
            compress_level=LEVEL, default_image=still is not None,
        )  # fmt: skip
    return buffer.getvalue()
