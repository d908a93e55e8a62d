"""What is known of a film, and that it is known."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(z: Tensor, given: Tensor) -> Tensor:
    """c_S = (m_S o z, m_S): [batch, frames, channels + 1, height, width].

    z [batch, frames, channels, height, width]; given [batch, frames] bool, True for a frame that is told. Where a frame
    is not told, z holds whatever it holds, and c_S must not depend on it. The mask is the last channel: 1 at every
    place of a frame that is told, else 0; of z's type.
    """
    raise NotImplementedError


def solution(z: Tensor, given: Tensor) -> Tensor:
    """c_S = (m_S o z, m_S): [batch, frames, channels + 1, height, width]."""
    m = given[:, :, None, None, None]
    return torch.cat([torch.where(m, z, 0), m.to(z).expand_as(z[:, :, :1])], dim=2)


def _case(batch: int, frames: int, c: int, h: int, w: int, dtype=torch.float32) -> tuple:
    return torch.randn(batch, frames, c, h, w, dtype=dtype), torch.rand(batch, frames) < 0.5


def cases() -> Iterator[Case]:
    z, given = _case(1, 3, 2, 1, 2)
    yield Case((z, torch.tensor([[True, False, False]])), "the first frame is told")
    yield Case((z, torch.zeros(1, 3).bool()), "nothing is told")
    yield Case((z, torch.ones(1, 3).bool()), "everything is told")
    yield Case((torch.randn(2, 5, 3, 2, 2), torch.tensor([[True, True, False, False, False],
                                                         [True, False, True, False, True]])), "two films, each its own")
    yield Case((torch.zeros(1, 2, 2, 2, 2), torch.tensor([[True, False]])), "a told frame of zeros")
    yield Case(_case(2, 2, 2, 2, 2), "all sides alike")
    yield Case(_case(2, 4, 3, 2, 3, torch.float64), "float64")
    for _ in range(4):
        yield Case(_case(*torch.randint(1, 6, (5,)).tolist()))


def check(fn) -> Iterator[tuple[bool, str]]:
    z, given = torch.randn(2, 4, 3, 2, 2), torch.tensor([[True, True, False, False], [False] * 4])
    want = fn(z.clone(), given)
    z[~given] = float("nan")
    yield torch.equal(fn(z, given), want), (
        "with NaN in the frames that are not told, c_S is another. 0 times NaN is NaN: choose between z and zero "
        "(torch.where, masked_fill), instead of multiplying."
    )
    for kind in (torch.float16, torch.float64):
        got = fn(torch.randn(1, 2, 3, 2, 2).to(kind), given[:1, :2]).dtype
        yield got == kind, f"for z of {kind} your c_S is of {got}: latents and mask are of z's type."


def _joined(kept: Tensor, m: Tensor) -> Tensor:
    return torch.cat([kept, m.expand_as(kept[:, :, :1])], dim=2)


def _mask(z: Tensor, given: Tensor) -> Tensor:
    return given.to(z)[:, :, None, None, None]


def by_a_product(z, given):
    m = _mask(z, given)
    return _joined(m * z, m)


def nothing_hidden(z, given):
    return _joined(z, _mask(z, given))


def mask_turned_round(z, given):
    m = _mask(z, given)
    return _joined(m * z, 1 - m)


def the_others_told(z, given):
    return solution(z, ~given)


def mask_first(z, given):
    m = _mask(z, given)
    return torch.cat([m.expand_as(z[:, :, :1]), m * z], dim=2)


def a_mask_a_channel(z, given):
    m = _mask(z, given)
    return torch.cat([m * z, m.expand_as(z)], dim=2)


def without_the_mask(z, given):
    return _mask(z, given) * z


def one_mask_for_all_films(z, given):
    return solution(z, given[:1].expand_as(given))


def where_there_is_something(z, given):
    m = _mask(z, given)
    kept = m * z
    return _joined(kept, (kept != 0).any(2, keepdim=True).to(z))


def always_float32(z, given):
    return solution(z, given).float()


EXERCISE = Exercise(
    name="align_your_latents.told",
    title="A frame of zeros, or no frame",
    difficulty=1,
    minutes=10,
    statement="""
        To go on from given frames, or to fill between them, the layers over time are told these frames: the latents
        with zeros where nothing is given, and a mask that says where (section 3.2). Without the mask a given frame of
        zeros and a frame that is not given would be one. Without the zeros the answer would be told.
        """,
    hints=(
        "Zeros may mean two things. Which channel tells them apart, and how many of that channel does a frame need?",
        "given has two axes, z has five: lay three empty axes behind. One mask channel, as large as the frame.",
        "m = given[:, :, None, None, None]; torch.where(m, z, 0); m in z's type, expanded to one channel of z; cat "
        "along the channels.",
    ),
    compare="Compare: in the next frames' places your z may hold anything. How does each of you keep it out?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={
        "by_a_product": WrongAnswer(by_a_product, "0 times NaN is NaN"),
        "always_float32": WrongAnswer(always_float32, "are of z's type"),
    },
    mistakes={
        "nothing_hidden": Mistake(nothing_hidden, "the frames that are not told are still in it: the network would be "
                                  "told what it is to film. Zeros belong there."),
        "mask_turned_round": Mistake(mask_turned_round, "your mask is 1 where a frame is missing. It is 1 where one is "
                                     "told."),
        "the_others_told": Mistake(the_others_told, "you tell the frames that are missing and hide those that are "
                                   "given: the mask is used the wrong way round, in both of its places."),
        "mask_first": Mistake(mask_first, "the mask stands before the latents; it is the last channel."),
        "a_mask_a_channel": Mistake(a_mask_a_channel, "your mask has a channel for each of z's. They would all be the "
                                    "same: one channel is enough."),
        "without_the_mask": Mistake(without_the_mask, "there is no mask in it. A told frame of zeros and one that is "
                                    "not told would look the same."),
        "one_mask_for_all_films": Mistake(one_mask_for_all_films, "every film has the first film's mask. Each has its "
                                          "own."),
        "where_there_is_something": Mistake(where_there_is_something, "your mask is 1 where the latent is not zero. A "
                                            "told frame may hold zeros: the mask comes from `given`."),
    },
)  # fmt: skip
