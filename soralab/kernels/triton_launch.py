"""Launching the kernels, as an operator that autograd and torch.compile know. Imports triton; see dispatch.py."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from soralab.kernels import tables
from soralab.kernels import triton_kernels as kernels

# Whether TRITON_INTERPRET was 1 when triton itself came in: its own tl.zeros is decorated then, the kernels only here.
INTERPRETED = not any(isinstance(fn, triton.runtime.JITFunction) for fn in (tl.zeros, kernels.forward))


class Config(NamedTuple):
    """Tile sizes and what the compiler is told: warps a program, tiles loaded ahead."""

    block_q: int
    block_k: int
    warps: int
    stages: int


# (rows for, bits of a number, head dimension rounded up): forward, backward_q, backward_k. Chosen so that the compiled
# kernels use tensor cores, spill no register and fit into shared memory, as the tests check without a GPU. Their speed
# was not measured on one: `python -m benchmarks gpu` does that. Rows: see `rows_for`.
CONFIGS = {
    (90, 16, 64): (Config(128, 64, 4, 3), Config(128, 64, 8, 2), Config(64, 128, 8, 2)),
    (90, 16, 128): (Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(64, 64, 8, 2)),
    (80, 16, 64): (Config(128, 64, 8, 2), Config(64, 64, 4, 2), Config(64, 64, 8, 2)),
    (80, 16, 128): (Config(128, 32, 8, 2), Config(64, 32, 4, 2), Config(32, 64, 8, 2)),
    (80, 32, 64): (Config(32, 32, 4, 2), Config(32, 32, 4, 2), Config(32, 32, 8, 2)),
    (80, 32, 128): (Config(32, 32, 8, 2), Config(32, 16, 8, 2), Config(32, 32, 8, 2)),
}
PASSES = ("forward", "backward_q", "backward_k")


def rows_for(x: Tensor) -> int:
    """Which rows of CONFIGS the tensor's GPU takes: 90 where a program has Hopper's shared memory (data-centre chips of
    capability 9 and 10), else 80, which fits into the 99 KB of the smaller chips, older and newer."""
    large = x.is_cuda and torch.cuda.get_device_capability(x.device)[0] in (9, 10)
    return 90 if large else 80


def config(direction: str, x: Tensor, layout: tables.Layout) -> Config:
    """The configuration of a pass for tensors like x [batch, heads, tokens, dim]."""
    bits, dim = (16 if x.element_size() == 2 else 32), max(64, block_dim(x.shape[-1]))
    rows = rows_for(x)
    chosen = CONFIGS[rows if (rows, bits, dim) in CONFIGS else 80, bits, dim][PASSES.index(direction)]
    if isinstance(layout, tables.SlidingTiles):
        chosen = for_film_tiles(chosen, direction, bits, layout.volume)
    return chosen


def for_film_tiles(chosen: Config, direction: str, bits: int, volume: int) -> Config:
    """The configuration where a tile of the film is a tile of the kernel. The list of visits takes registers that
    float32 has not to spare forwards, so nothing is loaded ahead there."""
    stages = 1 if (direction, bits) == ("forward", 32) else chosen.stages
    return chosen._replace(block_q=volume, block_k=volume, stages=stages)


def block_dim(dim: int) -> int:
    """The head dimension rounded up to a power of two, at least 16: tl.dot takes nothing else."""
    return max(16, triton.next_power_of_2(dim))


def empty(shape, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory that a kernel will write. Tests put NaN into it."""
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device)


def four_axes(x: Tensor) -> Tensor:
    """[batch, heads, tokens, dim] of a dense or packed ([tokens, heads, dim]) tensor; its last axis contiguous."""
    x = x.transpose(0, 1)[None] if x.ndim == 3 else x
    return x if x.stride(-1) == 1 else x.contiguous()


def layout_of(q: Tensor, k: Tensor, cu_q, cu_k, row_map, causal: bool, sliding: list[int]) -> tables.Layout:
    """The layout that the operator's arguments describe, built at the first call and remembered."""
    if sliding:
        s = tuple(sliding)
        return tables.sliding(s[:3], s[3:6], s[6:], q.shape[0], q.device)
    if cu_q is not None:
        return tables.packed(cu_q, cu_k, row_map, q.shape[0], k.shape[0], causal)
    return tables.dense(q.shape[0], q.shape[2], k.shape[2], causal, q.device)


def launch(direction: str, layout: tables.Layout, like: Tensor, tensors: list[Tensor], numbers: list[float], strided):
    """Start one kernel: a program for each row of the table and each head."""
    c = config(direction, like, layout)
    table, visits = layout.table("keys" if direction == "backward_k" else "queries", c.block_q, c.block_k)
    if not len(table):
        return
    constants = dict(
        CAUSAL=layout.causal, MAPPED=layout.row_map is not None, LISTED=visits is not None, BLOCK_Q=c.block_q,
        BLOCK_K=c.block_k, DIM=like.shape[-1], BLOCK_D=block_dim(like.shape[-1]),
        ACC=tl.float64 if like.dtype == torch.float64 else tl.float32,
    )  # fmt: skip
    strides = [tuple(x.stride()[:3]) for x in strided]
    absent = table  # a pointer that is not followed
    where = [absent if layout.row_map is None else layout.row_map, table, absent if visits is None else visits]
    kernel = getattr(kernels, direction)[(len(table), like.shape[1])]
    with torch.cuda.device_of(like):
        kernel(*tensors, *where, *numbers, *strides, **constants, num_warps=c.warps, num_stages=c.stages)


SCHEMA = (
    "Tensor q, Tensor k, Tensor v, Tensor? cu_q, Tensor? cu_k, Tensor? row_map, bool causal, float scale, int[] sliding"
)


@torch.library.custom_op("soralab::attention", mutates_args=(), schema=f"({SCHEMA}) -> (Tensor, Tensor)")
def attention(q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    """(o like q, lse [batch, heads, tokens] in log2, +inf for a query without keys)."""
    layout = layout_of(q, k, cu_q, cu_k, row_map, causal, sliding)
    o = empty(q.shape, q)
    lse = empty(lse_shape(q), q, lse_dtype(q))
    q4, k4, v4, o4 = map(four_axes, (q, k, v, o))
    launch("forward", layout, q4, [q4, k4, v4, o4, lse], [scale * math.log2(math.e)], [q4, k4, v4, o4, lse[..., None]])
    return o, lse


@torch.library.custom_op(
    "soralab::attention_backward", mutates_args=(),
    schema=f"(Tensor do, Tensor o, Tensor lse, {SCHEMA}) -> (Tensor, Tensor, Tensor)",
)  # fmt: skip
def attention_backward(do, o, lse, q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    """The gradients (dq, dk, dv)."""
    layout = layout_of(q, k, cu_q, cu_k, row_map, causal, sliding)
    dq, dk, dv = (empty(x.shape, x) for x in (q, k, v))
    delta = empty(lse.shape, lse)
    q4, k4, v4, o4, do4, dq4, dk4, dv4 = map(four_axes, (q, k, v, o, do, dq, dk, dv))
    numbers, at = [scale * math.log2(math.e), scale], lse[..., None]
    launch("backward_q", layout, q4, [q4, k4, v4, o4, do4, lse, delta, dq4], numbers, [q4, k4, v4, o4, do4, at, dq4])
    launch("backward_k", layout, q4, [q4, k4, v4, do4, lse, delta, dk4, dv4], numbers, [q4, k4, v4, do4, at, dk4, dv4])
    return dq, dk, dv


def lse_shape(q: Tensor) -> tuple[int, int, int]:
    """[batch, heads, tokens], for dense and packed queries."""
    return tuple(q.shape[:3]) if q.ndim == 4 else (1, q.shape[1], q.shape[0])


def lse_dtype(q: Tensor) -> torch.dtype:
    """Sums are float32; float64 is for checking gradients in the interpreter."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


@attention.register_fake
def _(q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), q.new_empty(lse_shape(q), dtype=lse_dtype(q))


@attention_backward.register_fake
def _(do, o, lse, q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def keep(ctx, inputs, output):
    """What the backward pass needs: the inputs, the output and lse; never the matrix of weights."""
    q, k, v, cu_q, cu_k, row_map, ctx.causal, ctx.scale, ctx.sliding = inputs
    ctx.save_for_backward(*output, q, k, v, cu_q, cu_k, row_map)


def differentiate(ctx, do, _):
    """Gradients for q, k and v. Of lse there is none: it is for the backward pass alone."""
    o, lse, *inputs = ctx.saved_tensors
    return *attention_backward(do, o, lse, *inputs, ctx.causal, ctx.scale, ctx.sliding), *[None] * 6


attention.register_autograd(differentiate, setup_context=keep)
