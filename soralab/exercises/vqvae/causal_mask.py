"""What a prior may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Exercise, WrongAnswer


def _mask_stub(size: int, first: bool) -> Tensor:
    """The mask of a convolution of size x size (odd) in a PixelCNN: bool [size, size], True where it may look.

    Codes are written row by row, each row from left to right. `first`: in the first layer, whose input are the codes
    themselves, it must not see its own place (mask A); in later layers it may (mask B).
    """
    raise NotImplementedError


def _mask(size: int, first: bool) -> Tensor:
    """The mask of a convolution of size x size in a PixelCNN: bool [size, size], True where it may look."""
    order = torch.arange(size * size).reshape(size, size)
    own = size * size // 2
    return order < own if first else order <= own


def _never_own(size: int, first: bool) -> Tensor:
    return _mask(size, True)


def _always_own(size: int, first: bool) -> Tensor:
    return _mask(size, False)


def _exchanged(size: int, first: bool) -> Tensor:
    return _mask(size, not first)


def _columns(size: int, first: bool) -> Tensor:
    return _mask(size, first).T


def _rectangle(size: int, first: bool) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[: size // 2 + 1, : size // 2 + 1] = True
    mask[size // 2, size // 2] = not first
    return mask


def _whole_row(size: int, first: bool) -> Tensor:
    mask = _mask(size, first)
    mask[size // 2, size // 2 + 1 :] = True
    return mask


def _upside_down(size: int, first: bool) -> Tensor:
    return _mask(size, first).flip(0, 1)


def _rows_above_only(size: int, first: bool) -> Tensor:
    mask = _mask(size, first)
    mask[size // 2, : size // 2] = False
    return mask


MASK_MISTAKES = (
    (_upside_down, "your mask looks at what comes after. torch's convolution does not turn its kernel round."),
    (_columns, "that is the order of columns. Codes are written row by row."),
    (_exchanged, "A and B are exchanged: it is the first layer that must not see its own place."),
    (_always_own, "in the first layer its own place is the code that is to be guessed: leave it out."),
    (_never_own, "in later layers its own place holds what came before, not the code itself: it may look there."),
    (_whole_row, "its own row is open to the right as well: these codes are not written yet."),
    (_rectangle, "above and to the right is written already: the rows above are open over their whole length."),
    (_rows_above_only, "its own row is open to the left: these codes are written."),
)  # fmt: skip


def _mask_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    cases = [(size, first) for size in (3, 5, 7) for first in (True, False)]
    got = {case: fn(*case) for case in cases}
    for (size, first), mask in got.items():
        case = f"size {size}, {'first' if first else 'later'} layer"
        yield isinstance(mask, Tensor), f"{case}: the result is no tensor."
        yield mask.shape == (size, size), f"{case}: the mask is {list(mask.shape)}; it takes [{size}, {size}]."
        yield mask.dtype == torch.bool, f"{case}: the mask is {mask.dtype}; it takes bool, True where it may look."
    right = all(torch.equal(mask, _mask(*case)) for case, mask in got.items())
    for mistake, says in MASK_MISTAKES:
        yield right or not all(torch.equal(mask, mistake(*case)) for case, mask in got.items()), says
    yield right, "a written place is missing, or another one is open. Number the places of a kernel as you read."


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
    stub=_mask_stub,
    solution=_mask,
    check=_mask_check,
    wrong={
        "upside_down": WrongAnswer(_upside_down, "what comes after"),
        "columns": WrongAnswer(_columns, "the order of columns"),
        "exchanged": WrongAnswer(_exchanged, "A and B are exchanged"),
        "always_own": WrongAnswer(_always_own, "the code that is to be guessed"),
        "never_own": WrongAnswer(_never_own, "in later layers"),
        "whole_row": WrongAnswer(_whole_row, "open to the right as well"),
        "rectangle": WrongAnswer(_rectangle, "over their whole length"),
        "rows_above_only": WrongAnswer(_rows_above_only, "open to the left"),
    },
)
