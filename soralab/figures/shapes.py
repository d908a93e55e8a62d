"""What diagrams are drawn of: boxes, discs with numbers, arrows and ribbons, in CSS pixels."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from soralab.figures import style


@dataclass(frozen=True)
class Box:
    """A rectangle in CSS pixels, (x, y) its lower left."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self):
        return self.x, self.y + self.height / 2

    @property
    def right(self):
        return self.x + self.width, self.y + self.height / 2

    @property
    def top(self):
        return self.x + self.width / 2, self.y + self.height

    @property
    def bottom(self):
        return self.x + self.width / 2, self.y


def frame(axes, box: Box, face, edge, width=1.2, dashed=False, rounding=6, zorder=2):
    """A rectangle with round corners."""
    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y),
            box.width,
            box.height,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=face,
            edgecolor=edge,
            linewidth=width,
            linestyle=(0, (4, 3)) if dashed else "-",
            zorder=zorder,
        )
    )


def tint(colour: str, share: float = 0.16) -> tuple:
    """The colour thinned with paper."""
    one, paper = matplotlib.colors.to_rgb(colour), matplotlib.colors.to_rgb(style.PAPER)
    return tuple(share * a + (1 - share) * b for a, b in zip(one, paper, strict=True))


def ribbon(axes, start, end, colour, width, alpha):
    """A smooth curve that leaves and arrives level, with a head at its end."""
    (x0, y0), (tip, y1) = start, end
    x1 = tip - 8
    axes.fill([tip, x1, x1], [y1, y1 + 4.5, y1 - 4.5], color=tint(colour, alpha), linewidth=0, zorder=1)
    middle = (x0 + x1) / 2
    path = Path([(x0, y0), (middle, y0), (middle, y1), (x1, y1)], [Path.MOVETO] + [Path.CURVE4] * 3)
    axes.add_patch(PathPatch(path, fill=False, edgecolor=tint(colour, alpha), linewidth=width, zorder=1))


def arrow(axes, *points, colour=style.MUTED, dashed=False):
    """A straight or bent arrow through the points, its head at the last."""
    (x0, y0), (x1, y1) = points[-2:]
    length = max(abs(x1 - x0), abs(y1 - y0))
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    line = [*points[:-1], (x1 - 8 * dx, y1 - 8 * dy)]
    axes.plot(
        *zip(*line, strict=True),
        color=colour,
        linewidth=1.6,
        linestyle=(0, (4, 2.5)) if dashed else "-",
        solid_joinstyle="round",
        zorder=1,
    )
    axes.fill(
        [x1, x1 - 9 * dx - 4.5 * dy, x1 - 9 * dx + 4.5 * dy],
        [y1, y1 - 9 * dy + 4.5 * dx, y1 - 9 * dy - 4.5 * dx],
        color=colour,
        linewidth=0,
        zorder=2,
    )


def word(axes, x, y, text, size=10, colour=style.INK, ha="center", va="center_baseline", **more):
    """Type at (x, y), centred unless told otherwise, `size` in points."""
    axes.text(x, y, text, fontsize=size, color=colour, ha=ha, va=va, zorder=4, **more)


def badge(axes, centre, number: int, colour: str, share: float = 0.85):
    """A chapter's number on a disc of its part's colour."""
    ground = tint(colour, share)
    # White type on dark discs, ink on light ones, weighed as the eye weighs red, green and blue.
    luminance = sum(c * w for c, w in zip(ground, (0.2126, 0.7152, 0.0722), strict=True))
    axes.add_patch(Circle(centre, 11.5, facecolor=ground, linewidth=0, zorder=3))
    word(axes, *centre, f"{number:02d}", 8, "white" if luminance < 0.5 else style.INK, weight="bold")
