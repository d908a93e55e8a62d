"""Backwards without the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Exercise, WrongAnswer


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Values that are the same in every check, in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(a, b) -> bool:
    """Whether two tuples hold the same numbers."""
    pairs = zip(a, b, strict=True)
    return all(x.shape == y.shape and torch.allclose(x.to(y), y, rtol=1e-6, atol=1e-9) for x, y in pairs)


def three_tensors(got, names: str) -> str:
    """What is wrong with the kind of an answer, "" if it is a tuple of three tensors."""
    if not isinstance(got, (tuple, list)) or len(got) != 3 or not all(isinstance(x, Tensor) for x in got):
        return f"it takes three tensors, ({names})."
    return ""


def _gradients_stub(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients (dq, dk, dv) of o = softmax(scale q k^T) v, given that of o, do.

    q, o, do [queries, dim], k, v [keys, dim]; lse [queries]: log of the sum over keys of exp(scale q k^T), kept by the
    forward pass. No softmax and no autograd: a kernel sees one tile of keys, and cannot add up a row.
    """
    raise NotImplementedError


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients (dq, dk, dv) of o = softmax(scale q k^T) v, given that of o, do."""
    p = torch.exp(scale * q @ k.T - lse[:, None])
    delta = (do * o).sum(-1, keepdim=True)
    ds = p * (do @ v.T - delta)
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


def _no_delta(q, k, v, o, do, lse, scale):
    p = torch.exp(scale * q @ k.T - lse[:, None])
    ds = p * (do @ v.T)
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


def _no_scale(q, k, v, o, do, lse, scale):
    dq, dk, dv = _gradients(q, k, v, o, do, lse, scale)
    return dq / scale, dk / scale, dv


def _no_lse(q, k, v, o, do, lse, scale):
    p = torch.exp(scale * q @ k.T)
    ds = p * (do @ v.T - (do * o).sum(-1, keepdim=True))
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


def _dv_from_ds(q, k, v, o, do, lse, scale):
    dq, dk, _ = _gradients(q, k, v, o, do, lse, scale)
    ds = torch.exp(scale * q @ k.T - lse[:, None]) * (do @ v.T - (do * o).sum(-1, keepdim=True))
    return dq, dk, ds.T @ do


def _tile_delta(q, k, v, o, do, lse, scale):
    p, dp = torch.exp(scale * q @ k.T - lse[:, None]), do @ v.T
    ds = p * (dp - dp.mean(-1, keepdim=True))
    return scale * ds @ k, scale * ds.T @ q, p.T @ do


GRADIENTS_MISTAKES = (
    (_no_delta, "the softmax's weights sum to one, and you let each move by itself: delta = sum(do * o) must be taken "
     "off dp."),
    (_no_scale, "dq and dk lack the scale: the logits are scale q k^T."),
    (_no_lse, "exp of the logits is no weight yet: subtract lse first."),
    (_dv_from_ds, "dv comes from the weights p themselves, not from ds: o = p v."),
    (_tile_delta, "delta is the mean of dp weighted by p, which is sum(do * o), not the plain mean."),
)  # fmt: skip


def _gradients_check(fn) -> Iterator[tuple[bool, str]]:
    q, k, v, do = numbers(5, 4), numbers(7, 4, seed=1), numbers(7, 4, seed=2), numbers(5, 4, seed=3)
    for scale in (0.5, 0.9):
        s = scale * q @ k.T
        given = (q, k, v, s.softmax(-1) @ v, do, s.logsumexp(-1), scale)
        got, want = fn(*given), _gradients(*given)
        trouble = three_tensors(got, "dq, dk, dv")
        yield not trouble, f"Scale {scale}: {trouble}"
        shapes = all(x.shape == y.shape for x, y in zip(got, want, strict=True))
        yield shapes, f"Scale {scale}: dq has the shape of q, dk that of k, dv that of v."
        for mistake, says in GRADIENTS_MISTAKES:
            yield same(got, want) or not same(got, mistake(*given)), f"Scale {scale}: {says}"
        yield same(got, want), f"Scale {scale}: the gradients are not autograd's. Compare dv first: o = p v is linear."


EXERCISE = Exercise(
    name="triton_attention.gradients",
    title="Backwards without the matrix",
    difficulty=3,
    minutes=25,
    statement="""
        The forward pass keeps no weights, only one number a row: lse. The backward pass computes the weights again,
        tile by tile, and needs no sum over a row for it. Write its formulas for one tile that happens to be everything.
        """,
    hints=(
        "With lse at hand a weight is exp(scale q k - lse). Then o = p v gives dv and dp.",
        "Through the softmax: ds = p (dp - sum of p dp over the row). That sum is do . o: why?",
        "delta = sum(do * o); ds = p * (do v^T - delta); dq = scale ds k; dk is its mirror image; dv = p^T do.",
    ),
    stub=_gradients_stub,
    solution=_gradients,
    check=_gradients_check,
    wrong={
        "no_delta": WrongAnswer(_no_delta, "let each move by itself"),
        "no_scale": WrongAnswer(_no_scale, "lack the scale"),
        "no_lse": WrongAnswer(_no_lse, "no weight yet"),
        "dv_from_ds": WrongAnswer(_dv_from_ds, "from the weights p themselves"),
        "plain_mean": WrongAnswer(_tile_delta, "not the plain mean"),
    },
)
