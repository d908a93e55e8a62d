"""Chapter 17's exercises: the online softmax, the tiles that a causal mask leaves, the gradients without a softmax."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer


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


# -------------------------------------------------------------------------------------------------- the online softmax


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


STEP = Exercise(
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

# ------------------------------------------------------------------------------------ which tiles a causal mask leaves


def _visits_stub(first: int, last: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many key tiles, from the left, the queries first .. last (both counted) visit: (whole, touched).

    Query i of `queries` may attend key j of `keys` iff j <= i + keys - queries. Key tile t is the keys from t * block
    up to, not including, (t + 1) * block. whole: the tiles in which each of these queries may attend each key.
    touched: the tiles in which at least one of them may attend at least one key.
    """
    raise NotImplementedError


def _visits(first: int, last: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many key tiles, from the left, the queries first .. last (both counted) visit: (whole, touched)."""
    shift = keys - queries
    all_see = max(0, first + 1 + shift)
    any_sees = max(0, last + 1 + shift)
    return all_see // block, -(-any_sees // block)


def _no_shift(first, last, queries, keys, block):
    return _visits(first, last, queries, queries, block)


def _last_for_whole(first, last, queries, keys, block):
    return _visits(last, last, queries, keys, block)[0], _visits(first, last, queries, keys, block)[1]


def _floored(first, last, queries, keys, block):
    return _visits(first, last, queries, keys, block)[0], max(0, last + 1 + keys - queries) // block


def _not_itself(first, last, queries, keys, block):
    return _visits(first - 1, last - 1, queries, keys, block)


def _below_zero(first, last, queries, keys, block):
    return (first + 1 + keys - queries) // block, -(-(last + 1 + keys - queries) // block)


VISITS_MISTAKES = (
    (_below_zero, "a negative number of tiles. With more queries than keys the first ones may attend nothing."),
    (_no_shift, "you take query i to see the keys up to i. With other lengths it is i + keys - queries: the last query "
     "sees the last key."),
    (_last_for_whole, "whole tiles are counted for the last query. The first one sees least, and a tile is whole only "
     "if it may attend all of it."),
    (_floored, "the tile on the diagonal is left out: a tile with a single visible key must be visited. Round up."),
    (_not_itself, "query i sees i + 1 keys where the lengths are equal, its own among them; you count i."),
)  # fmt: skip


def _visits_check(fn) -> Iterator[tuple[bool, str]]:
    cases = ((0, 3, 8, 8, 4), (3, 6, 8, 8, 4), (2, 4, 5, 12, 4), (0, 1, 9, 3, 2), (0, 3, 8, 5, 4), (6, 8, 9, 20, 4))
    for case in cases:
        got, want = fn(*case), _visits(*case)
        where = "Queries {} to {} of {}, {} keys, tiles of {}".format(*case)
        yield isinstance(got, (tuple, list)) and len(got) == 2, f"{where}: it takes two numbers, (whole, touched)."
        got = tuple(got)
        for mistake, says in VISITS_MISTAKES:
            yield got == want or got != mistake(*case), f"{where}: {says}"
        yield got == want, f"{where}: you say {got}, it is {want}. Draw the rows of the mask and the tiles' borders."


VISITS = Exercise(
    name="triton_attention.visits",
    title="What the mask leaves to do",
    difficulty=2,
    minutes=15,
    statement="""
        A kernel does not compute a mask and throw the masked half away. It does not go there. For a tile of queries
        say how many tiles of keys lie wholly under the diagonal (no compare is needed) and how many are touched at all.
        The table of `soralab.kernels` holds these two numbers for every program.
        """,
    hints=(
        "How many keys does the first query see, and how many the last?",
        "Whole tiles fit into what the first one sees. Touched tiles cover what the last one sees.",
        "Query i sees max(0, i + 1 + keys - queries) keys. Divide and round down for the first, up for the last.",
    ),
    stub=_visits_stub,
    solution=_visits,
    check=_visits_check,
    wrong={
        "no_shift": WrongAnswer(_no_shift, "i + keys - queries"),
        "last_for_whole": WrongAnswer(_last_for_whole, "counted for the last query"),
        "floored": WrongAnswer(_floored, "the diagonal is left out"),
        "not_itself": WrongAnswer(_not_itself, "its own among them"),
        "below_zero": WrongAnswer(_below_zero, "a negative number of tiles"),
    },
)

# ------------------------------------------------------------------------------------------------------- the gradients


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


GRADIENTS = Exercise(
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

EXERCISES = (STEP, VISITS, GRADIENTS)
