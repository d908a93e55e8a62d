"""Three words to the left."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def _stub(k: int, d_model: int) -> Tensor:
    """The matrix M [d_model, d_model] for which PE(pos) @ M is PE(pos + k), at every pos; k may be negative."""
    raise NotImplementedError


def _shift(k: int, d_model: int) -> Tensor:
    """The matrix M [d_model, d_model] for which PE(pos) @ M is PE(pos + k), at every pos; k may be negative."""
    even = torch.arange(0, d_model, 2)
    angles = k * 10_000.0 ** (-even / d_model)
    matrix = torch.zeros(d_model, d_model)
    matrix[even, even] = matrix[even + 1, even + 1] = angles.cos()
    matrix[even + 1, even] = angles.sin()  # sin(a + b) = sin a cos b + cos a sin b
    matrix[even, even + 1] = -angles.sin()  # cos(a + b) = cos a cos b - sin a sin b
    return matrix


def _cases() -> Iterator[Case | tuple]:
    yield Case((0, 4), "no shift at all")
    yield (1, 2)
    yield (3, 8)
    yield Case((-3, 8), "to the left")
    yield from zip(torch.randint(-30, 31, (5,)).tolist(), (4, 6, 10, 16, 32), strict=True)


def _turns(angles: Tensor) -> Tensor:
    return torch.block_diag(*[torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]]) for a in angles])


def _no_minus(k: int, d_model: int) -> Tensor:
    even, matrix = torch.arange(0, d_model, 2), _shift(k, d_model)
    matrix[even, even + 1] *= -1
    return matrix


def _other_minus(k: int, d_model: int) -> Tensor:
    even, matrix = torch.arange(0, d_model, 2), _shift(k, d_model)
    matrix[even + 1, even] *= -1
    return matrix


def _one_angle(k: int, d_model: int) -> Tensor:
    return torch.block_diag(*[_shift(k, 2)] * (d_model // 2))


def _halves(k: int, d_model: int) -> Tensor:
    order = torch.cat([torch.arange(0, d_model, 2), torch.arange(1, d_model, 2)])
    return _shift(k, d_model)[order][:, order]


def _half_the_exponent(k: int, d_model: int) -> Tensor:
    return _turns(k * 10_000.0 ** (-torch.arange(d_model // 2) / d_model))


def _multiplied(k: int, d_model: int) -> Tensor:
    return _turns(k * 10_000.0 ** (torch.arange(0, d_model, 2).double() / d_model))


def _multiplied_in_float32(k: int, d_model: int) -> Tensor:
    return _turns(k * 10_000.0 ** (torch.arange(0, d_model, 2) / d_model))  # other numbers: the angles are large


_MINUS = "the minus is missing or in the wrong place: cos(a + b) is cos a cos b − sin a sin b, sin(a + b) has none."
_DIVIDED = "the place is multiplied by 10000^(2i / d_model), and not divided."

EXERCISE = Exercise(
    name="transformer.shift",
    title="Three words to the left",
    difficulty=2,
    minutes=15,
    statement=r"""
        "Three words to the left is one matrix", says the text. Write it: the $M$ that takes the encoding of *every*
        place to the encoding of the place $k$ further on. An encoding is a row, so $M$ stands on its right.
        """,
    hints=(
        "Take d_model = 2 first: one sine and one cosine of the same angle. What are the sine and the cosine of a sum?",
        "M is zero but for a block of 2 × 2 for each pair of channels, which turns by k times the pair's own rate. "
        "Channel 2i is a sine: its column says how the new sine is made of the old sine and the old cosine.",
        "For a pair's angle a = k / 10000^(2i / d_model) the block is [[cos a, -sin a], [sin a, cos a]].",
    ),
    stub=_stub,
    solution=_shift,
    cases=_cases,
    mistakes={
        "backwards": Mistake(lambda k, d_model: _shift(-k, d_model),
                             "it goes k words the other way. Encodings are rows here, and M stands on their right: "
                             "yours is the transpose."),
        "no_minus": Mistake(_no_minus, _MINUS),
        "other_minus": Mistake(_other_minus, _MINUS),
        "one_angle": Mistake(_one_angle, "every pair turns by the same angle. Each has its own wavelength: the first "
                             "turns by k, the last hardly at all."),
        "halves": Mistake(_halves, "you take the sines to be the first half of the channels. The paper's sine and "
                          "cosine of one wavelength are neighbours: channels 2i and 2i + 1."),
        "half_the_exponent": Mistake(_half_the_exponent, "your angles fall half as fast as they should: i numbers the "
                                     "pairs of channels, and the exponent is 2i / d_model."),
        "multiplied": Mistake(_multiplied, _DIVIDED),
        "multiplied_in_float32": Mistake(_multiplied_in_float32, _DIVIDED),
    },
    tolerance=1e-3,
    compare="Compare: the matrix holds k and no pos. Of what else than waves could that be said?",
)  # fmt: skip
