"""Cases that tell a right attention kernel from a wrong one, and the reference in float64 that they are held against.

Every case is tiny: what an interpreter needs is the number of tile pairs. Inputs lie strided in a buffer of NaN, so a
read past an edge shows; what kernels write into is NaN at first, so a row that is never written shows as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Of the error's norm over the reference's; of the largest: 12 times.
LIMIT = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
ARGUMENTS = ("cu_q", "cu_k", "row_map", "causal", "scale", "sliding")


@dataclass
class Case:
    """Inputs of the operator and the mask [queries, keys] (True = may attend) that they mean."""

    name: str
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor
    rest: dict = field(default_factory=dict)
    blocks: tuple[tuple[int, int], ...] = ((32, 16), (16, 32), (32, 16))  # forward, backward_q, backward_k
    slack: float = 1.0  # what LIMIT is multiplied by

    def arguments(self) -> list:
        """What follows q, k and v in a call of the operator."""
        default = {"causal": False, "scale": self.q.shape[-1] ** -0.5, "sliding": []}
        return [{**default, **self.rest}.get(name) for name in ARGUMENTS]


def numbers(*shape, seed=0, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def strided(
    packed: bool, count: int, tokens: int, heads: int, dim: int, dtype, seed: int, batch=1, pad=8
) -> list[Tensor]:  # fmt: skip
    """`count` tensors cut out of one buffer of NaN, [tokens, heads, dim] or [batch, heads, tokens, dim]. Their strides
    are such that a tensor descriptor can describe them, unless `pad`, the NaN after each row, is odd."""
    buffer = torch.full((batch + 2, tokens + 2, count, heads, dim + pad), math.nan, dtype=dtype)
    buffer[..., :dim][1:-1, 1:-1] = numbers(batch, tokens, count, heads, dim, seed=seed, dtype=dtype)
    parts = buffer[..., :dim][1:-1, 1:-1].unbind(2)
    return [part[0] if packed else part.transpose(1, 2) for part in parts]


def bounds(lengths) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def segment_mask(q_lengths, k_lengths, causal=False) -> Tensor:
    """The definition, segment by segment and query by query."""
    mask = torch.zeros(sum(q_lengths), sum(k_lengths), dtype=torch.bool)
    q0 = k0 = 0
    for n, m in zip(q_lengths, k_lengths, strict=True):
        for i in range(n):
            mask[q0 + i, k0 : k0 + (max(0, min(m, i + m - n + 1)) if causal else m)] = True
        q0, k0 = q0 + n, k0 + m
    return mask


def packed(name, q_lengths, k_lengths=None, heads=1, dim=16, causal=False, dtype=torch.float32, seed=1, **rest) -> Case:
    keys = q_lengths if k_lengths is None else k_lengths
    q, *kv = strided(True, 3, sum(q_lengths), heads, dim, dtype, seed)
    if k_lengths is not None:  # other strides for k than for v
        kv = [strided(True, n, sum(keys), heads, dim, dtype, seed + n)[0] for n in (1, 2)]
    extra = {"cu_q": bounds(q_lengths), "cu_k": None if k_lengths is None else bounds(keys), "causal": causal, **rest}
    return Case(name, q, *kv, segment_mask(q_lengths, keys, causal), extra)


def mapped(name, lengths, dim=16, causal=False) -> Case:
    """Segments that lie scattered in memory, as a row map says that has a stride itself."""
    order = torch.randperm(sum(lengths), generator=torch.Generator().manual_seed(5))
    column = torch.stack([order, order.flip(0)], 1).to(torch.int32)[:, 0]
    case = packed(name, lengths, dim=dim, causal=causal, row_map=column)
    mask = torch.empty_like(case.mask)
    mask[order[:, None], order[None, :]] = case.mask
    case.mask = mask
    return case


def dense(name, batch, heads, queries, keys, dim, causal=False, seed=7, slack=1.0, pad=8, **rest) -> Case:
    (q,) = strided(False, 1, queries, heads, dim, torch.float32, seed, batch, pad)
    k, v = strided(False, 2, keys, heads, dim, torch.float32, seed + 1, batch, pad)
    return Case(name, q, k, v, segment_mask([queries], [keys], causal), {"causal": causal, **rest}, slack=slack)


def far_below(name) -> Case:
    """Logits around -120: a key that does not exist, whose logit is 0, would have a weight above all numbers.

    Float32 rounds such a logit by a hundred-thousandth. Backwards it is computed anew, and where it is added up in
    another order the weights of a row no longer fit its output; keys of mean -5.5 multiply that. Plain float32, in
    twelve orders drawn at random, has dq off by 3.9e-5 to 6.7e-5 of its norm: hence the slack.
    """
    case = dense(name, 1, 4, 17, 24, 16, slack=50.0)
    case.q += 5.5
    case.k -= 5.5
    return case


def sliding(name, size, tile, window, batch=1, dim=16) -> Case:
    """The definition, token by token: a window of whole tiles that is centred where the film allows it."""
    q, k, v = strided(False, 3, math.prod(size), 1, dim, torch.float32, 9, batch)
    near = torch.ones(math.prod(size), math.prod(size), dtype=torch.bool)
    places = torch.cartesian_prod(*map(torch.arange, size))
    for axis, (n, t, w) in enumerate(zip(size, tile, window, strict=True)):
        at, tiles = places[:, axis] // t, -(-n // t)
        w = min(w, tiles)
        middle = at.clamp(w // 2, tiles - 1 - (w - 1) // 2)
        begin = middle - w // 2
        near &= (at[None, :] >= begin[:, None]) & (at[None, :] < begin[:, None] + w)
    return Case(name, q, k, v, near, {"sliding": [*size, *tile, *window]})


def cases() -> Iterator[Case]:
    """The battery, the cheapest first."""
    yield packed("packed", [1, 0, 19, 33], heads=2, dim=24)
    yield packed("packed, causal, other lengths", [5, 0, 20, 7, 3], [0, 4, 37, 3, 3], causal=True)
    # Float32 holds a logit of 100 to a hundred-thousandth, and so its weight: hence the slack, of any implementation.
    yield dense("dense, large logits", 2, 2, 17, 40, 16, scale=8.0, slack=10.0)
    yield dense("rows that no descriptor describes", 1, 1, 17, 40, 24, pad=7)
    yield far_below("dense, logits far below 0")
    yield dense("dense, causal, whole tiles", 1, 1, 64, 64, 16, causal=True)
    yield mapped("row map", [16, 0, 21], dim=24)
    yield sliding("sliding tiles", (1, 4, 18), (1, 4, 4), (1, 1, 3))


def large() -> Iterator[Case]:
    """For a right kernel only: half precision, other head dimensions, lengths around a tile's, films in three axes."""
    yield packed("float16", [1, 0, 37, 33], dim=64, dtype=torch.float16)
    yield packed("lengths around a tile", [0, 15, 16, 17, 31, 32, 33, 1], causal=True)
    for dim in (72, 80, 96, 128):
        yield dense(f"head dimension {dim}", 1, 1, 20, 33, dim)
    yield mapped("row map, causal", [18, 23], dim=24, causal=True)
    yield dense("more queries than keys, causal", 1, 1, 40, 21, 16, causal=True)
    yield sliding("sliding tiles, two films", (2, 4, 9), (1, 4, 4), (1, 1, 3), batch=2)
    yield sliding("sliding tiles in time", (8, 2, 4), (2, 2, 4), (3, 1, 1))


def reference(case: Case, do: Tensor) -> list[Tensor]:
    """(o, dq, dk, dv) in float64 by the definition, with the weights written out."""
    leaves = [x.double().detach().requires_grad_() for x in (case.q, case.k, case.v)]
    q, k, v = (x.transpose(0, 1) if x.ndim == 3 else x for x in leaves)
    s = (q @ k.transpose(-1, -2) * case.arguments()[4]).masked_fill(~case.mask, -1e300)
    p = s.softmax(-1).masked_fill(~case.mask, 0)
    o = p @ v
    o = o.transpose(0, 1) if case.q.ndim == 3 else o
    return [o.detach(), *torch.autograd.grad(o, leaves, do.double())]


def run(operator: Callable, case: Case, do: Tensor) -> list[Tensor]:
    """(o, dq, dk, dv) of the operator."""
    leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
    o = operator(*leaves, *case.arguments())
    return [o.detach(), *torch.autograd.grad(o, leaves, do)]


def grad_of(case: Case) -> Tensor:
    """A gradient of the output that is neither contiguous nor of the output's layout."""
    return numbers(*reversed(case.q.shape), seed=11, dtype=case.q.dtype).permute(*reversed(range(case.q.ndim)))


def trouble(operator: Callable, case: Case) -> str:
    """What is wrong with an operator on a case, "" if nothing is."""
    do = grad_of(case)
    found = apart(case, run(operator, case, do), reference(case, do))
    return f"{case.name}: something was written beside an output" if spilled() else found


def apart(case: Case, got: list[Tensor], want: list[Tensor]) -> str:
    """Which of (o, dq, dk, dv) differs by more than LIMIT, "" if none does."""
    limit = LIMIT[case.q.dtype] * case.slack
    for name, a, b in zip(("o", "dq", "dk", "dv"), got, want, strict=True):
        if not a.isfinite().all():
            return f"{case.name}: {name} is not finite"
        error, size = a.double() - b, b.norm()
        norm, most = (error.norm() / size).item(), (error.abs().max() / size).item() * math.sqrt(b.numel())
        if norm > limit or most > 12 * limit:
            return f"{case.name}: {name} is off by {norm:.1e} of its norm, {most:.1e} at worst; it takes {limit:.0e}"
    return ""


GUARDED: list[tuple[Tensor, int, int]] = []  # what poisoned() gave away: (the whole buffer, first value, end)


def poisoned(shape, stride, dtype: torch.dtype) -> Tensor:
    """NaN, where kernels get memory to write into, amid more NaN: a write past the edge is seen, and does no harm."""
    size = math.prod(shape)
    pad = 8 * size + 4096
    buffer = torch.full((size + 2 * pad,), math.nan, dtype=dtype)
    GUARDED.append((buffer, pad, pad + size))
    return buffer[pad : pad + size].as_strided(shape, stride)


def poison(patch, launch) -> None:
    """Have the launcher give poisoned memory to its kernels."""
    patch.setattr(launch, "empty_like", lambda x: poisoned(x.shape, torch.empty_like(x).stride(), x.dtype))
    rows = launch.empty_rows
    patch.setattr(launch, "empty_rows", lambda q: poisoned(rows(q).shape, rows(q).stride(), rows(q).dtype))


def spilled() -> bool:
    """Whether anything was written beside what poisoned() gave away since the last call."""
    beside = [part for buffer, first, end in GUARDED for part in (buffer[:first], buffer[end:])]
    GUARDED.clear()
    return not all(part.isnan().all() for part in beside)


# ------------------------------------------------------------------------- what one call of a launcher cannot show


def output(launch, case: Case) -> Tensor:
    return launch.attention(case.q, case.k, case.v, *case.arguments())


def strides_differ(launch) -> str:
    """Tensors of one shape and two layouts in memory, one after the other."""
    case = dense("", 1, 2, 17, 24, 16)
    prepare(launch, case)
    first = output(launch, case)
    case.k, case.v = case.k.contiguous(), case.v.transpose(1, 2).contiguous().transpose(1, 2)
    same = torch.allclose(output(launch, case), first, rtol=1e-5, atol=1e-6)
    return "" if same else "the strides of the first call are kept"


def alignments_differ(launch) -> str:
    """Memory that a tensor descriptor describes, then memory that begins between its steps."""
    case = dense("", 1, 1, 16, 16, 16)
    prepare(launch, case)
    case.k, case.v = case.k.contiguous(), case.v.contiguous()
    first = output(launch, case)
    for name in ("k", "v"):
        beside = torch.zeros(16 * 16 + 1)[1:].view(1, 1, 16, 16)
        setattr(case, name, beside.copy_(getattr(case, name)))
    same = torch.equal(output(launch, case), first)
    return "" if same else "another alignment gives other numbers"


def neighbours_are_nan(launch) -> str:
    """A tile reaches past its segment into one of NaN, whose weight is 0: and 0 times NaN is NaN."""
    case = packed("", [21, 11])
    prepare(launch, case)
    for x in (case.q, case.k, case.v):
        x[21:] = math.nan
    found = [x[:21] for x in run(launch.attention, case, grad_of(case))]
    return "" if all(x.isfinite().all() for x in found) else "a neighbour's NaN comes in"


def bounds_die(launch) -> str:
    """cu_seqlens_k goes and others come, while cu_seqlens_q lives: they get its id, and are not it. Which tensor gets
    the place of one that is gone is Python's own affair, so here all of these have one id."""
    tables, cu_q = launch.tables, bounds([5, 7])
    tables.id = lambda t: id(cu_q) if t is cu_q else 7
    try:
        for n in range(1, 12):
            cu_k = bounds([n, 12 - n])
            if tables.packed(cu_q, cu_k, None, 12, 12, False).k_end[0] != n:
                return "bounds that are gone are taken for those that have their place"
            del cu_k
    finally:
        del tables.id
    return ""


def rows_are_far(launch) -> str:
    """Batch entries, heads and rows 2^30 numbers apart: the third is at 2^31, which as an int32 is -2^31. Memory is
    reserved, not used; a machine that reserves no 8 GB has the types in the compiled code looked at alone."""
    try:
        far = torch.empty(2**32 + 2**12, dtype=torch.float16)
    except RuntimeError:
        return ""
    for axis in range(3):
        shape, strides = [1, 1, 1, 16], [16, 16, 16, 1]
        shape[axis], strides[axis] = 3, 2**30
        near = numbers(*shape, dtype=torch.float16)
        x = far.as_strided(shape, strides, 2**31).copy_(near)  # so that a wrong address is still in the memory
        prepare(launch, Case("", x, x, x, None, blocks=((16, 16),) * 3))
        arguments = [None, None, None, False, 0.25, []]
        if not torch.equal(launch.attention(x, x, x, *arguments), launch.attention(near, near, near, *arguments)):
            return f"offsets along axis {axis} pass 2^31"
    return ""


SCENES = (strides_differ, alignments_differ, neighbours_are_nan, bounds_die, rows_are_far)


def prepare(launch, case: Case, bulk: bool = True) -> None:
    """Have the launcher use a case's tile sizes, which are not the tuned ones; bulk: descriptors where they can be."""
    from soralab.kernels.configs import PASSES, Config

    launch.config = lambda direction, x, layout, describable: Config(
        *case.blocks[PASSES.index(direction)], 4, 1, bulk and describable
    )
    for remembered in (launch.tables.dense, launch.tables.sliding):
        remembered.cache_clear()
    launch.tables._PACKED.clear()
