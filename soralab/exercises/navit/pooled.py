"""One vector for each picture: masked attention pooling."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(z: Tensor, ids: Tensor, query: Tensor, pictures: int) -> Tensor:
    """One vector for each picture of a batch of packed rows, [pictures, dim]; vector k is picture k's.

    z [rows, length, dim], the tokens after the last layer; ids [rows, length], the picture that each is of, -1 for
    padding, which holds whatever it holds; all of a picture's tokens lie in one row, and every picture has some. query
    [dim] asks each picture by itself: a softmax of q . z_i / sqrt(dim) over the picture's own tokens weighs them.
    """
    raise NotImplementedError


def solution(z: Tensor, ids: Tensor, query: Tensor, pictures: int) -> Tensor:
    """One vector for each picture of a batch of packed rows: [pictures, dim]."""
    own = ids.flatten() == torch.arange(pictures)[:, None]  # [pictures, tokens]
    z = z.flatten(0, 1).masked_fill(ids.flatten()[:, None] < 0, 0.0)
    logits = z @ query / z.shape[-1] ** 0.5
    return logits.masked_fill(~own, float("-inf")).softmax(-1) @ z


def _case(rows: list[list[int]], dim: int, scale: float = 1.0, pad: float = 1.0, dtype=torch.float32) -> tuple:
    ids = torch.tensor(rows)
    z = torch.randn(*ids.shape, dim, dtype=dtype)
    z[ids < 0] *= pad
    return z, ids, scale * torch.randn(dim, dtype=dtype), int(ids.max()) + 1


def cases() -> Iterator[Case]:
    yield Case(_case([[0, 0, 0, 1, 1, -1]], 4), "two pictures and padding")
    yield Case(_case([[0, 0, 1, 1, 1]], 4), "no padding")
    yield Case(_case([[2, 2, 0], [1, 1, 1]], 6), "pictures that do not lie in their order")
    yield Case(_case([[0, 1, 1, -1], [2, 2, 2, 2], [3, -1, -1, -1]], 5), "pictures of one token")
    yield Case(_case([[0, 0, 1, -1, -1]], 4, pad=1e4), "large numbers in the padding")
    yield Case(_case([[0, 0, 0, 0]], 8), "one picture")
    yield Case(_case([[1, 1, 1, 0, 0, 0, -1]], 8, scale=5.0), "large logits")
    z, ids, query, pictures = _case([[0, 0, 1, 1, -1]], 8)
    yield Case((6 + 0.1 * z, ids, -10 - 0.1 * query, pictures), "logits far below zero")
    yield Case(_case([[0, 0, 2, 2, 2, -1], [1, 1, 1, 3, 3, -1]], 7, dtype=torch.float64), "float64")
    for _ in range(3):
        counts = torch.randint(1, 5, (int(torch.randint(2, 6, ())),)).tolist()
        row = [k for k, count in enumerate(counts) for _ in range(count)] + [-1, -1]
        yield Case(_case([row], int(torch.randint(3, 9, ()))))


def _weights(z: Tensor, ids: Tensor, query: Tensor, pictures: int, allowed: Tensor) -> Tensor:
    flat = z.flatten(0, 1)
    logits = flat @ query / z.shape[-1] ** 0.5
    return logits.masked_fill(~allowed, float("-inf")).softmax(-1) @ flat


def check(fn) -> Iterator[tuple[bool, str]]:
    z, ids, query, pictures = _case([[0, 0, 1, -1, -1]], 4)
    want = fn(z.clone(), ids, query, pictures)
    z[ids < 0] = float("nan")
    yield torch.equal(fn(z, ids, query, pictures), want), (
        "with NaN in the padding the vectors are others. Padding holds whatever it holds, and a weight of 0 times NaN "
        "is NaN: leave its tokens out of the sum, or set them to zero first."
    )


def padding_weighed_with_0(z, ids, query, pictures):
    return _weights(z, ids, query, pictures, ids.flatten() == torch.arange(pictures)[:, None])


def over_the_row(z, ids, query, pictures):
    row = (ids[None] == torch.arange(pictures)[:, None, None]).any(-1)  # [pictures, rows]
    return _weights(z, ids, query, pictures, row.repeat_interleave(ids.shape[1], 1))


def over_the_batch(z, ids, query, pictures):
    return _weights(z, ids, query, pictures, torch.ones(pictures, ids.numel(), dtype=torch.bool))


def padding_too(z, ids, query, pictures):
    own = ids.flatten() == torch.arange(pictures)[:, None]
    row = (ids[None] == torch.arange(pictures)[:, None, None]).any(-1).repeat_interleave(ids.shape[1], 1)
    return _weights(z, ids, query, pictures, own | (row & (ids.flatten() < 0)))


def mean(z, ids, query, pictures):
    return torch.stack([z[ids == k].mean(0) for k in range(pictures)])


def masked_after(z, ids, query, pictures):
    own = ids.flatten() == torch.arange(pictures)[:, None]
    flat = z.flatten(0, 1)
    return ((flat @ query / z.shape[-1] ** 0.5).softmax(-1) * own) @ flat


def zeros_for_others(z, ids, query, pictures):
    own = ids.flatten() == torch.arange(pictures)[:, None]
    flat = z.flatten(0, 1)
    return ((flat @ query / z.shape[-1] ** 0.5) * own).softmax(-1) @ flat


def unscaled(z, ids, query, pictures):
    return solution(z, ids, query * z.shape[-1] ** 0.5, pictures)


def one_after_the_other(z, ids, query, pictures):
    first = [int((ids.flatten() == k).nonzero()[0]) for k in range(pictures)]
    order = sorted(range(pictures), key=lambda k: first[k])
    return solution(z, ids, query, pictures)[order]


def channel_by_channel(z, ids, query, pictures):
    return torch.stack([((z[ids == k] * query / z.shape[-1] ** 0.5).softmax(0) * z[ids == k]).sum(0)
                        for k in range(pictures)])  # fmt: skip


EXERCISE = Exercise(
    name="navit.pooled",
    title="One vector for each picture",
    difficulty=2,
    minutes=15,
    statement="""
        At the end of the network a row holds the tokens of several pictures, and each picture wants one vector, for
        its label. Section 2.1 calls this masked pooling; NaViT's is by attention: a learned query looks over the
        tokens of *one* picture. (The package's query has heads, projections and an MLP behind it. Here it is bare.)
        """,
    hints=(
        "For each picture: which of all the tokens may its query look at?",
        "A table own [pictures, tokens] says it. What must stand in the logits where it is False, before the softmax?",
        'own = ids.flatten() == torch.arange(pictures)[:, None]; logits of z.flatten(0, 1); .masked_fill(~own, '
        'float("-inf")).softmax(-1) @ the tokens.',
    ),
    compare="Compare: what does 0 times NaN give, where padding holds one?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={"padding_weighed_with_0": WrongAnswer(padding_weighed_with_0, "with NaN in the padding")},
    mistakes={
        "over_the_row": Mistake(over_the_row, "every picture of a row has the same vector: the query looks over the "
                                "whole row, neighbours and padding included."),
        "over_the_batch": Mistake(over_the_batch, "all pictures have the same vector. ids says which token is whose."),
        "padding_too": Mistake(padding_too, "the padding of the row is counted with each picture. It is of none."),
        "mean": Mistake(mean, "that is the mean of a picture's tokens. The query weighs them."),
        "masked_after": Mistake(masked_after, "the weights of a picture do not add up to 1: you mask after the "
                                "softmax, which has then spent weight on neighbours. Mask the logits."),
        "zeros_for_others": Mistake(zeros_for_others, "a logit of 0 is not closed: e to the 0 is 1, and the "
                                    "neighbours get weight. It takes minus infinity."),
        "unscaled": Mistake(unscaled, "the logits are not divided by sqrt(dim)."),
        "one_after_the_other": Mistake(one_after_the_other, "the vectors come in the order in which the pictures lie. "
                                       "Vector k is picture k's."),
        "channel_by_channel": Mistake(channel_by_channel, "every channel has weights of its own. A token's logit is "
                                      "one number, the product of query and token summed over the channels."),
    },
)  # fmt: skip
