"""The look of every picture: colours that colour-blind readers tell apart, type, and one `figure()`.

Pictures stand on a light card of their own (`PAPER`), so that they read the same on a light and on a dark
page. Figures are made without pyplot: nothing global changes, and nothing is shown twice.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

# Okabe and Ito's eight colours, without the yellow, which is lost on a light card.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
)
INK, MUTED, FAINT, PAPER = "#1F2328", "#5B6270", "#C9CDD3", "#FBFAF7"
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, INK)
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (8, 2)), "-")  # a second cue beside the colour

DPI = 100  # one CSS pixel is 1/100 inch; pictures are stored at twice that, for sharp type
MAX_WIDTH = 860  # CSS pixels: what a notebook's output column shows without shrinking

STYLE = {
    "figure.dpi": DPI,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
    "grid.color": "#E4E5E3",
    "grid.linewidth": 0.8,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}

# Fonts that hold scripts DejaVu Sans lacks (Devanagari), by the systems that bring them: Linux, Windows,
# macOS.
OTHER_FONTS = (
    "Noto Sans Devanagari",
    "Lohit Devanagari",
    "FreeSans",
    "Nirmala UI",
    "Mangal",
    "Kohinoor Devanagari",
    "Devanagari MT",
    "Arial Unicode MS",
)


def plain(text) -> str:
    """A text for matplotlib to write as it stands: between two dollar signs it would set mathematics."""
    return str(text).replace("$", r"\$")


def figure(width: float = 7.2, height: float = 3.6, rows: int = 1, columns: int = 1, **subplots):
    """A figure in the course's style and its axes, as `plt.subplots` gives them.

    width, height: inches; 8.6 inches fill a notebook's column. `subplots` goes to `Figure.subplots`.
    End the cell with `picture(fig, alt="...")` to show it.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        fig.get_layout_engine().set(wspace=0.06 if columns > 1 else 0.02)  # a label stands off its neighbour's frame
        FigureCanvasAgg(fig)
        return fig, fig.subplots(rows, columns, **subplots)


def drawing(width: int, height: int):
    """An empty figure whose one axes spans it and counts CSS pixels, (0, 0) at the lower left: for
    diagrams."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(fig)
        axes = fig.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        return fig, axes


@lru_cache(maxsize=64)
def _face(path: str, size: int) -> ImageFont.FreeTypeFont:
    # BASIC would draw Devanagari unjoined; the default engine shapes it where Pillow was built with Raqm.
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=16)
def _glyphs(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont | None:
    """The Pillow font, `size` pixels high, that holds every letter of `text`; None where no installed one
    does.

    DejaVu Sans comes with matplotlib, so ordinary text looks the same on every machine.
    """
    path = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    letters = {ord(c) for c in text if not c.isspace()}
    if letters <= _glyphs(path):
        return _face(path, size)
    for entry in font_manager.fontManager.ttflist:
        if entry.name in OTHER_FONTS and letters <= _glyphs(entry.fname):
            return _face(entry.fname, size)
    return None


def wrap(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`text` in lines at most `width` pixels wide. Breaks between words; a word that is too long is cut."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            trial = f"{line} {word}".strip()
            if line and face.getlength(trial) > width:
                lines.append(line)
                trial = word
            while face.getlength(trial) > width and len(trial) > 1:
                cut = next(n for n in range(len(trial) - 1, 0, -1) if n == 1 or face.getlength(trial[:n]) <= width)
                lines.append(trial[:cut])
                trial = trial[cut:]
            line = trial
        lines.append(line)
    return lines
