"""Backwards without the matrix, when the loss depends on lse too."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, lse: Tensor, dlse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What one tile of keys adds to the gradients of attention, given those of both its results: (dq, dk, dv).

    q, o, do [queries, dim], k, v [keys, dim]: some of the keys. o and lse are the results over *all* keys, these and
    others: lse [queries] the log of the sum of exp(scale q k^T), o the softmax's average of the values. do and dlse
    [queries] are the loss's gradients by o and by lse.
    """
    raise NotImplementedError


def solution(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, lse: Tensor, dlse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What one tile of keys adds to the gradients of attention, given those of both its results: (dq, dk, dv)."""
    p = torch.exp(scale * q @ k.T - lse[:, None])
    delta = (do * o).sum(-1) - dlse
    ds = p * (do @ v.T - delta[:, None])
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


def cases() -> Iterator[Case]:
    def draw(queries: int, keys: int, dim: int, tile: slice, far: float = 0.0, dtype=torch.float32) -> tuple:
        shapes = (queries, dim), (keys, dim), (keys, dim), (queries, dim), (queries,)
        q, k, v, do, dlse = (torch.randn(shape, dtype=dtype) for shape in shapes)
        scale = 0.3 + torch.rand(()).item()
        q[:, 0] += far
        k[:, 0] += far / scale
        s = scale * q @ k.T
        return q, k[tile], v[tile], s.softmax(-1) @ v, do, s.logsumexp(-1), dlse, scale

    yield Case(draw(1, 2, 1, slice(0, 1)), "the first of two keys")
    yield Case(draw(5, 7, 4, slice(None)), "all keys")
    yield Case(draw(5, 12, 4, slice(0, 7), dtype=torch.float64), "the first 7 of 12 keys, float64")
    yield Case(draw(5, 12, 4, slice(7, 12), dtype=torch.float64), "the last 5 of 12 keys, float64")
    for _ in range(4):
        queries, keys, dim, first = torch.randint(2, 8, (4,)).tolist()
        yield Case(draw(queries, keys + first, dim, slice(first, None)), "a tile of the keys")
    yield Case(draw(4, 9, 3, slice(2, 6), 12.0), "logits around 144: exp of one alone is no float32")
    yield Case(draw(3, 5, 2, slice(5, None)), "an empty tile")


def forget_lse(q, k, v, o, do, lse, dlse, scale):
    return solution(q, k, v, o, do, lse, torch.zeros_like(dlse), scale)


def no_delta(q, k, v, o, do, lse, dlse, scale):
    return solution(q, k, v, torch.zeros_like(o), do, lse, dlse, scale)


def wrong_sign(q, k, v, o, do, lse, dlse, scale):
    return solution(q, k, v, o, do, lse, -dlse, scale)


def no_scale(q, k, v, o, do, lse, dlse, scale):
    dq, dk, dv = solution(q, k, v, o, do, lse, dlse, scale)
    return dq / scale, dk / scale, dv


def no_lse(q, k, v, o, do, lse, dlse, scale):
    p = torch.exp((scale * q @ k.T).float()).to(q)  # as in the float32 of the cases
    ds = p * (do @ v.T - ((do * o).sum(-1) - dlse)[:, None])
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


def softmax_of_the_tile(q, k, v, o, do, lse, dlse, scale):
    return solution(q, k, v, o, do, (scale * q @ k.T).logsumexp(-1), dlse, scale)


def o_of_the_tile(q, k, v, o, do, lse, dlse, scale):
    s = scale * q @ k.T
    return solution(q, k, v, s.softmax(-1) @ v, do, s.logsumexp(-1), dlse, scale)


def row_sum_of_the_tile(q, k, v, o, do, lse, dlse, scale):
    p = torch.exp(scale * q @ k.T - lse[:, None])
    return solution(q, k, v, p @ v, do, lse, dlse, scale)


def dv_from_ds(q, k, v, o, do, lse, dlse, scale):
    dq, dk, _ = solution(q, k, v, o, do, lse, dlse, scale)
    p = torch.exp(scale * q @ k.T - lse[:, None])
    ds = p * (do @ v.T - ((do * o).sum(-1) - dlse)[:, None])
    return dq, dk, ds.T @ do


def plain_mean(q, k, v, o, do, lse, dlse, scale):
    p, dp = torch.exp(scale * q @ k.T - lse[:, None]), do @ v.T
    ds = p * (dp - dp.mean(-1, keepdim=True) + dlse[:, None])
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


EXERCISE = Exercise(
    name="triton_attention.gradients",
    title="Backwards, one tile at a time",
    difficulty=3,
    minutes=20,
    statement="""
        A film's keys may lie on several machines, each with its own tile. What a loss sees then depends on $O$ and on
        $L$ (`lse`) as well, since $L$ decides how much each machine's part counts. So a gradient comes back through
        both, $dO$ and $dL$. *Backwards* above has the formulas for $dO$ alone: find what $dL$ adds. A tile sees some
        of the keys, so no sum over a row can be taken in it, neither a softmax nor autograd's.
        """,
    hints=(
        "With lse at hand a weight is exp(scale q k - lse), for any tile. By how much does L move if one logit does?",
        "L is the log of a sum of exponentials: its derivative by s is the weight p. So ds gets p * dlse on top.",
        "ds = p * (do v^T - delta + dlse) with delta = sum(do * o) over the channels; dq, dk and dv as before.",
    ),
    compare="Compare: the course's own takes dlse off delta. A kernel for dO alone then serves both as it is.",
    stub=stub,
    solution=solution,
    cases=cases,
    tolerance=1e-3,
    gradients=False,  # it is one
    mistakes={
        "forget_lse": Mistake(forget_lse, "right for a loss that does not depend on lse: dlse has no effect on what "
                              "you return. If a logit grows, so does lse."),
        "no_delta": Mistake(no_delta, "you let each weight move by itself. They sum to one: delta = sum(do * o) must "
                            "be taken off dp."),
        "wrong_sign": Mistake(wrong_sign, "dlse enters with the wrong sign: if a logit grows, lse grows."),
        "no_scale": Mistake(no_scale, "dq and dk lack the scale: the logits are scale q k^T."),
        "no_lse": Mistake(no_lse, "exp of the logits is no weight yet: subtract lse first."),
        "softmax_of_the_tile": Mistake(softmax_of_the_tile, "you sum the weights over the tile (a softmax, or lse "
                                       "computed again). The row goes on outside it: lse has the whole sum."),
        "o_of_the_tile": Mistake(o_of_the_tile, "you compute attention over this tile again (autograd does, too). "
                                 "o and lse are those of all keys: use them as they come."),
        "row_sum_of_the_tile": Mistake(row_sum_of_the_tile, "your delta sums p dp over the tile. The row goes on "
                                       "outside it: sum(do * o) over the channels has all of it."),
        "dv_from_ds": Mistake(dv_from_ds, "dv comes from the weights p themselves, not from ds: o = p v."),
        "plain_mean": Mistake(plain_mean, "delta is the mean of dp weighted by p over the whole row, which is "
                              "sum(do * o), not the tile's plain mean."),
    },
)  # fmt: skip
