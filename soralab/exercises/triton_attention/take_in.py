"""A softmax that has not seen everything."""

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


def _step_stub(m: Tensor, ell: Tensor, o: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take a tile of keys into what is known of the keys before it.

    m [queries]: the largest logit so far, -inf at first; ell [queries]: the sum of exp(s - m); o [queries, dim]: the
    sum of exp(s - m) v, not divided by anything. s [queries, keys]: the logits of the new tile, all finite; v
    [keys, dim]: its values. Returns the new (m, ell, o).
    """
    raise NotImplementedError


def _step(m: Tensor, ell: Tensor, o: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take a tile of keys into what is known of the keys before it."""
    m_new = torch.maximum(m, s.amax(-1))
    shrink = torch.exp(m - m_new)
    p = torch.exp(s - m_new[:, None])
    return m_new, shrink * ell + p.sum(-1), shrink[:, None] * o + p @ v


def _o_not_rescaled(m, ell, o, s, v):
    m_new, ell_new, _ = _step(m, ell, o, s, v)
    return m_new, ell_new, o + torch.exp(s - m_new[:, None]) @ v


def _sum_not_rescaled(m, ell, o, s, v):
    m_new, _, o_new = _step(m, ell, o, s, v)
    return m_new, ell + torch.exp(s - m_new[:, None]).sum(-1), o_new


def _tile_maximum(m, ell, o, s, v):
    m_new = s.amax(-1)
    shrink, p = torch.exp(m - m_new), torch.exp(s - m_new[:, None])
    return m_new, shrink * ell + p.sum(-1), shrink[:, None] * o + p @ v


def _divided(m, ell, o, s, v):
    m_new, ell_new, o_new = _step(m, ell, o, s, v)
    return m_new, ell_new, o_new / ell_new[:, None]


def _no_maximum(m, ell, o, s, v):
    p = torch.exp(s)
    return torch.zeros_like(m), ell + p.sum(-1), o + p @ v


STEP_MISTAKES = (
    (_o_not_rescaled, "o still counts the earlier keys by the old maximum: multiply it by exp(m_old - m_new)."),
    (_sum_not_rescaled, "ell still counts the earlier keys by the old maximum: multiply it by exp(m_old - m_new)."),
    (_no_maximum, "no maximum is subtracted: a logit of 100 is more than float32 can hold once it is exponentiated."),
    (_tile_maximum, "m is the maximum of the new tile alone. If an earlier logit was larger, exp(m_old - m_new) grows "
     "without bound."),
    (_divided, "o is divided by the sum already. Divide once, after the last tile: the next step adds to sums."),
)  # fmt: skip


def _step_check(fn) -> Iterator[tuple[bool, str]]:
    s, v = 3 * numbers(4, 12), numbers(12, 5, seed=1)
    s[0, 0] += 9  # one row has its largest logit in the first tile, one in the last
    s[1, 11] += 9
    state = (torch.full((4,), -torch.inf, dtype=s.dtype), torch.zeros(4, dtype=s.dtype), torch.zeros_like(v[:4]))
    for tile, part in enumerate((slice(0, 4), slice(4, 8), slice(8, 12)), 1):
        got, want = fn(*state, s[:, part], v[part]), _step(*state, s[:, part], v[part])
        trouble = three_tensors(got, "m, ell, o")
        yield not trouble, f"Tile {tile}: {trouble}"
        yield all(x.shape == y.shape for x, y in zip(got, want, strict=True)), f"Tile {tile}: a shape has changed."
        for mistake, says in STEP_MISTAKES:
            wrong = mistake(*state, s[:, part], v[part])
            yield same(got, want) or not same(got, wrong), f"Tile {tile}: {says}"
        yield same(got, want), (
            f"Tile {tile}: m, ell and o are not what the definition says. Write out each of the sums over the keys "
            "seen so far, and ask by what factor its old terms change when m does."
        )
        state = want
    yield torch.allclose(state[2] / state[1][:, None], s.softmax(-1) @ v), "o / ell is not the softmax's average."


EXERCISE = Exercise(
    name="triton_attention.take_in",
    title="A softmax that has not seen everything",
    difficulty=2,
    minutes=15,
    statement="""
        A softmax needs the largest logit and the sum of all exponentials before it can give the first weight. The
        online softmax does not wait: it keeps a maximum and two sums over the keys that it has seen, and mends them
        when a larger logit turns up. Write one step of it. This is the loop body of every fast attention kernel.
        """,
    hints=(
        "Each old term is exp(s - m_old). What must it be multiplied by to become exp(s - m_new)?",
        "The same factor for every old term of a row: so the sums are multiplied by it, not the terms.",
        "shrink = exp(m - m_new); then ell becomes shrink * ell + (sum of the new terms), and o likewise.",
    ),
    stub=_step_stub,
    solution=_step,
    check=_step_check,
    wrong={
        "o_not_rescaled": WrongAnswer(_o_not_rescaled, "o still counts the earlier keys"),
        "sum_not_rescaled": WrongAnswer(_sum_not_rescaled, "ell still counts the earlier keys"),
        "tile_maximum": WrongAnswer(_tile_maximum, "maximum of the new tile alone"),
        "divided_at_once": WrongAnswer(_divided, "divided by the sum already"),
        "no_maximum": WrongAnswer(_no_maximum, "no maximum is subtracted"),
    },
)
