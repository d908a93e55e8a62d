"""The four blocks of figure 3 of DiT (2212.09748), drawn: where each is told the time and the label."""

from __future__ import annotations

import matplotlib
from matplotlib.patches import Circle

from soralab.figures import style
from soralab.figures.pictures import Picture, picture
from soralab.figures.shapes import Box, arrow, frame, tint, word

TOLD = style.VERMILLION
WIDE, TALL, STEP, FIRST = 116, 24, 34, 78  # of a layer's box; from one layer to the next; the first one's foot
NORM, ATTENTION, CROSS, MLP, SHIFT, GATE, ADD = (
    "layer norm", "self-attention", "cross-attention", "MLP", "scale, shift", "gate", "+"
)  # fmt: skip
BLOCKS = {
    "in-context": (NORM, ATTENTION, ADD, NORM, MLP, ADD),
    "cross-attention": (NORM, ATTENTION, ADD, NORM, CROSS, ADD, NORM, MLP, ADD),
    "adaLN": (NORM, SHIFT, ATTENTION, ADD, NORM, SHIFT, MLP, ADD),
    "adaLN-Zero": (NORM, SHIFT, ATTENTION, GATE, ADD, NORM, SHIFT, MLP, GATE, ADD),
}
SAYS = {
    "in-context": "two more tokens,\ntaken away at the end",
    "cross-attention": "two tokens that\nthe others look at",
    "adaLN": "one vector sets the\nnorms' scale and shift",
    "adaLN-Zero": "and gates; at the start\nall gates are shut",
}


def dit_blocks(alt: str | None = None) -> Picture:
    """The four blocks side by side, read from the bottom up; what is told the time and the label is coloured."""
    if alt is None:
        alt = (
            "Four transformer blocks, read from the bottom up. In-context: the embeddings of time and label stand "
            "among the picture's tokens, and the block is ViT's: norm, self-attention, norm, MLP, each half added to "
            "what came in. Cross-attention: between the two halves a third, in which the tokens look at the two "
            "embeddings. adaLN: after each norm a scale and a shift that a linear layer makes of the embeddings' sum. "
            "adaLN-Zero: the same, and a gate at the end of each half, which is shut at the start."
        )
    return picture(_draw(), alt)


@matplotlib.rc_context(style.STYLE)
def _draw():
    fig, axes = style.drawing(860, 492)
    for number, (name, layers) in enumerate(BLOCKS.items()):
        x = 24 + 212 * number
        word(axes, x + WIDE / 2, 472, name, 11, weight="bold")
        word(axes, x + WIDE / 2, 442, SAYS[name], 8.5, style.MUTED, linespacing=1.25)
        told = _layers(axes, x, layers)
        _tokens(axes, x, name == "in-context")
        if name != "in-context":
            _told(axes, x, name, told)
    return fig


def _layers(axes, x: float, layers) -> list[float]:
    """A block's boxes from the bottom up, with the ways around its halves; returns how high the told ones stand."""
    middle, told, start = x + WIDE / 2, [], FIRST - 16
    for place, layer in enumerate(layers):
        foot = FIRST + STEP * place
        listens = layer in (CROSS, SHIFT, GATE)
        if layer == ADD:
            centre = foot + TALL / 2
            axes.add_patch(Circle((middle, centre), 9, fc="white", ec=style.MUTED, linewidth=1.4, zorder=3))
            word(axes, middle, centre, "+", 11)
            arrow(axes, (middle, start), (x - 12, start), (x - 12, centre), (middle - 9, centre))
            start = foot + TALL + 3
        else:
            edge, face = (TOLD, tint(TOLD)) if listens else (style.MUTED, "white")
            frame(axes, Box(x, foot, WIDE, TALL), face, edge, 1.4, rounding=5)
            word(axes, middle, foot + TALL / 2, layer, 9)
        if listens:
            told.append(foot + TALL / 2)
    top = FIRST + STEP * len(layers) + 4
    axes.plot([middle, middle], [FIRST - 26, top - 6], color=style.MUTED, linewidth=1.4, zorder=1)
    arrow(axes, (middle, top - 14), (middle, top))
    return told


def _tokens(axes, x: float, told: bool):
    """The picture's tokens below a block, and the two embeddings behind them."""
    count = 6
    left = x + WIDE / 2 - 8 * count
    for k in range(count):
        mine = told and k >= count - 2
        colour = TOLD if mine else style.BLUE
        frame(axes, Box(left + 16 * k, 34, 13, 13), tint(colour, 0.75 if mine else 0.45), colour, 1, rounding=2)
    if told:
        word(axes, left + 16 * (count - 1) - 1.5, 22, "t  y", 9, TOLD)
    word(axes, left + (16 * (count - 2) if told else 16 * count) / 2, 22, "tokens", 8.5, style.MUTED)


def _told(axes, x: float, name: str, places: list[float]):
    """What is beside a block: the two embeddings, or their sum and the layer that makes vectors of it."""
    right = x + WIDE + 40
    if name == "cross-attention":
        for k, letter in enumerate("ty"):
            frame(axes, Box(right - 15 + 16 * k, 34, 13, 13), tint(TOLD, 0.75), TOLD, 1, rounding=2)
            word(axes, right - 8.5 + 16 * k, 22, letter, 9, TOLD)
    else:
        frame(axes, Box(right - 7, 34, 13, 13), tint(TOLD, 0.75), TOLD, 1, rounding=2)
        word(axes, right, 22, "t + y", 9, TOLD)
        frame(axes, Box(right - 21, 60, 42, 20), tint(TOLD), TOLD, 1.4, rounding=5)
        word(axes, right, 70, "linear", 8.5)
    foot = 47 if name == "cross-attention" else 80
    axes.plot([right, right], [foot, places[-1]], color=TOLD, linewidth=1.6, zorder=1)
    if name != "cross-attention":
        axes.plot([right, right], [47, 60], color=TOLD, linewidth=1.6, zorder=1)
    letters = {"adaLN": ("γ, β",) * 2, "adaLN-Zero": ("γ, β", "α") * 2}.get(name, ("",))
    for letter, height in zip(letters, places, strict=True):
        arrow(axes, (right, height), (x + WIDE + 2, height), colour=TOLD)
        word(axes, right - 16, height + 9, letter, 9, TOLD)
