"""Where a word stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import is_tensor, same
from soralab.workbook.task import Exercise, WrongAnswer


def _sinusoid_stub(length: int, d_model: int) -> Tensor:
    """The position encodings of places 0, 1, ..., length - 1: [length, d_model]; d_model is even."""
    raise NotImplementedError


def _sinusoid(length: int, d_model: int) -> Tensor:
    """The position encodings of places 0, 1, ..., length - 1: [length, d_model]; d_model is even."""
    rates = 10_000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _in_halves(length: int, d_model: int) -> Tensor:
    table = _sinusoid(length, d_model)
    return torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)


def _cosines_first(length: int, d_model: int) -> Tensor:
    return _sinusoid(length, d_model).unflatten(1, (-1, 2)).flip(-1).flatten(1)


def _half_the_exponent(length: int, d_model: int) -> Tensor:
    angles = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(d_model // 2) / d_model)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _every_channel_its_own(length: int, d_model: int) -> Tensor:
    angles = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(d_model) / d_model)
    return torch.where(torch.arange(d_model) % 2 == 0, angles.sin(), angles.cos())


def _multiplied(length: int, d_model: int) -> Tensor:
    angles = torch.arange(length)[:, None] * 10_000.0 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _from_one(length: int, d_model: int) -> Tensor:
    return _sinusoid(length + 1, d_model)[1:]


def _sinusoid_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for length, d_model in ((6, 8), (20, 4), (3, 16)):
        case = f"{length} places, d_model {d_model}"
        got, right = fn(length, d_model), _sinusoid(length, d_model)
        yield from is_tensor(got, (length, d_model), case)
        for wrong, message in (
            (_in_halves, "sines in the first half of the channels and cosines in the second. The paper's sine and "
             "cosine of one wavelength are neighbours: channels 2i and 2i + 1."),
            (_cosines_first, "sine and cosine have changed places: the even channels are sines, so place 0 begins "
             "0, 1, 0, 1."),
            (_half_the_exponent, "your wavelengths grow half as fast as they should: i numbers the pairs of channels, "
             "and the exponent is 2i / d_model, which comes close to 1 at the last pair."),
            (_every_channel_its_own, "each channel has a wavelength of its own. A sine and its cosine share one: "
             "otherwise a shift of position is no rotation."),
            (_multiplied, "the position is multiplied by 10000^(2i / d_model), and not divided: your waves become "
             "ever shorter, and neighbours are strangers."),
            (_from_one, "your first place is 1; the paper's is 0, where all sines are 0 and all cosines 1."),
        ):  # fmt: skip
            yield same(got, right) or not same(got, wrong(length, d_model)), f"{case}: {message}"
        rows = [[round(x, 3) for x in table[1].tolist()] for table in (got, right)]
        yield same(got, right), f"{case}: place 1 is {rows[0]}, it should be {rows[1]}."


EXERCISE = Exercise(
    name="transformer.sinusoid",
    title="Where a word stands",
    difficulty=2,
    minutes=15,
    statement=r"""
        Attention alone cannot tell "left of" from "of left": it sees a set of words. So each word's place is added to
        it, as waves of many lengths (section 3.5):

        $$PE_{(pos, 2i)} = \sin\left(pos / 10000^{2i / d_\text{model}}\right), \qquad
          PE_{(pos, 2i + 1)} = \cos\left(pos / 10000^{2i / d_\text{model}}\right).$$
        """,
    hints=(
        "How many different wavelengths are there for d_model = 8, and in which channels does each of them stand?",
        "Make a table of angles [length, d_model / 2] first. Put its sines and its cosines into every other channel.",
        "table = torch.zeros(length, d_model); table[:, 0::2] = angles.sin(); table[:, 1::2] = angles.cos()",
    ),
    stub=_sinusoid_stub,
    solution=_sinusoid,
    check=_sinusoid_check,
    wrong={
        "in_halves": WrongAnswer(_in_halves, "in the first half of the channels"),
        "cosines_first": WrongAnswer(_cosines_first, "have changed places"),
        "half_the_exponent": WrongAnswer(_half_the_exponent, "half as fast"),
        "every_channel_its_own": WrongAnswer(_every_channel_its_own, "a wavelength of its own"),
        "multiplied": WrongAnswer(_multiplied, "not divided"),
        "from_one": WrongAnswer(_from_one, "your first place is 1"),
    },
)
