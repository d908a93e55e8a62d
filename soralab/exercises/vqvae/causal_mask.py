"""What a prior may see."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(size: int, first: bool) -> Tensor:
    """The mask of a convolution of size x size (odd) in a PixelCNN: bool [size, size], True where it may look.

    Codes are written row by row, each row from left to right. `first`: in the first layer, whose input are the codes
    themselves, it must not see its own place (mask A); in later layers it may (mask B).
    """
    raise NotImplementedError


def solution(size: int, first: bool) -> Tensor:
    """The mask of a convolution of size x size in a PixelCNN: bool [size, size], True where it may look."""
    order = torch.arange(size * size).reshape(size, size)
    own = size * size // 2
    return order < own if first else order <= own


def cases() -> Iterator[Case]:
    for size in (1, 3, 5, 7, 11):
        for first in (True, False):
            yield Case((size, first), "the first layer" if first else "a later layer")


def never_own(size: int, first: bool) -> Tensor:
    return solution(size, True)


def always_own(size: int, first: bool) -> Tensor:
    return solution(size, False)


def exchanged(size: int, first: bool) -> Tensor:
    return solution(size, not first)


def columns(size: int, first: bool) -> Tensor:
    return solution(size, first).T


def rectangle(size: int, first: bool) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[: size // 2 + 1, : size // 2 + 1] = True
    mask[size // 2, size // 2] = not first
    return mask


def whole_row(size: int, first: bool) -> Tensor:
    mask = solution(size, first)
    mask[size // 2, size // 2 + 1 :] = True
    return mask


def upside_down(size: int, first: bool) -> Tensor:
    return solution(size, first).flip(0, 1)


def rows_above_only(size: int, first: bool) -> Tensor:
    mask = solution(size, first)
    mask[size // 2, : size // 2] = False
    return mask


def what_is_forbidden(size: int, first: bool) -> Tensor:
    return ~solution(size, first)


EXERCISE = Exercise(
    name="vqvae.causal_mask",
    title="What a prior may see",
    difficulty=1,
    minutes=10,
    statement="""
        A prior writes a map code by code, and may look at what is written. In a convolution this is a mask on its
        kernel. The package needs none, since it shifts; but with your mask a cell below draws what a stack of masked
        layers sees, and what it never does.
        """,
    hints=(
        "Number the places of the kernel in reading order. Where is the place itself, and what comes before it?",
        "Strictly before in the first layer, up to and with itself in the later ones: one comparison.",
        "order = torch.arange(size * size).reshape(size, size); the middle is number size * size // 2.",
    ),
    compare="Compare: in reading order, a mask is one comparison. What would change for a film, frame after frame?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "upside_down": Mistake(upside_down, "your mask looks at what comes after. torch's convolution does not turn "
                               "its kernel round."),
        "what_is_forbidden": Mistake(what_is_forbidden, "True stands where it must not look, and False where it may: "
                                     "turn the mask round with ~."),
        "columns": Mistake(columns, "that is the order of columns. Codes are written row by row."),
        "exchanged": Mistake(exchanged, "A and B are exchanged: it is the first layer that must not see its own "
                             "place."),
        "always_own": Mistake(always_own, "in the first layer its own place is the code that is to be guessed: leave "
                              "it out."),
        "never_own": Mistake(never_own, "in later layers its own place holds what came before, not the code itself: it "
                             "may look there."),
        "whole_row": Mistake(whole_row, "its own row is open to the right as well: these codes are not written yet."),
        "rectangle": Mistake(rectangle, "above and to the right is written already: the rows above are open over their "
                             "whole length."),
        "rows_above_only": Mistake(rows_above_only, "its own row is open to the left: these codes are written."),
    },
)  # fmt: skip
