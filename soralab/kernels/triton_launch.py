"""Launching the kernels, for autograd, and as an operator for torch.compile. Imports triton; see dispatch.py.

A call costs little: what depends on the layout, the strides and the alignment is prepared at the first call and kept
with the layout; later calls hand pointers to the compiled kernel.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from soralab.kernels import tables
from soralab.kernels import triton_kernels as kernels
from soralab.kernels.configs import block_dim, config

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # a Triton without them: whole tiles are loaded by pointers too
    TensorDescriptor = None

# Whether TRITON_INTERPRET was 1 when triton itself came in: its own tl.zeros is decorated then, the kernels only here.
INTERPRETED = not any(isinstance(fn, triton.runtime.JITFunction) for fn in (tl.zeros, kernels.forward))


def empty_like(x: Tensor) -> Tensor:
    """Memory in the layout of x that a kernel will write. Tests put NaN into it."""
    return torch.empty_like(x)


def empty_rows(q: Tensor) -> Tensor:
    """Memory for a number a query, [batch, heads, tokens]. Sums are float32; float64 is for checking gradients in the
    interpreter."""
    shape = q.shape[:3] if q.ndim == 4 else (1, q.shape[1], q.shape[0])
    return torch.empty(shape, dtype=torch.float64 if q.dtype == torch.float64 else torch.float32, device=q.device)


def rows_together(x: Tensor) -> Tensor:
    """The tensor with its last axis contiguous, as the kernels take it."""
    return x if x.stride(-1) == 1 else x.contiguous()


# ----------------------------------------------------------------------------------------------------- launching a pass


def forward(q: Tensor, k: Tensor, v: Tensor, layout: tables.Layout, scale: float) -> tuple[Tensor, Tensor]:
    """(o like q, lse [batch, heads, tokens] in log2, +inf for a query without keys)."""
    o, lse = empty_like(q), empty_rows(q)
    launch("forward", layout, (q, k, v, o), (lse,), (k, v), (scale * math.log2(math.e),))
    return o, lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, layout: tables.Layout, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients (dq, dk, dv)."""
    dq, dk, dv, delta = empty_like(q), empty_like(k), empty_like(v), empty_rows(q)
    numbers = scale * math.log2(math.e), scale
    launch("backward_q", layout, (q, k, v, o, do, dq), (lse, delta), (k, v), numbers)
    launch("backward_k", layout, (q, k, v, do, dk, dv), (lse, delta), (q, do), numbers)
    return dq, dk, dv


def launch(direction: str, layout: tables.Layout, tensors: tuple, rows: tuple, visited: tuple, numbers: tuple) -> None:
    """Start one kernel: a program for each row of the table and each head.

    tensors: those with a head dimension; rows: those with a number a query; visited: those whose tiles are visited.
    """
    like = tensors[0]
    places = (*[x.stride() for x in tensors], *[x.data_ptr() % 16 for x in (*tensors, *rows)])
    key = (direction, like.dtype, like.shape, places)
    if key not in layout.prepared:
        layout.prepared[key] = Pass(direction, layout, tensors, visited)
    if like.is_cuda and like.device.index != torch.cuda.current_device():
        with torch.cuda.device(like.device):
            layout.prepared[key](tensors, rows, visited, numbers)
    else:
        layout.prepared[key](tensors, rows, visited, numbers)


class Pass:
    """One kernel over one layout, ready for tensors of known strides and alignment."""

    def __init__(self, direction: str, layout: tables.Layout, tensors: tuple, visited: tuple):
        like, dim = tensors[0], block_dim(tensors[0].shape[-1])
        c = config(direction, like, layout, layout.row_map is None and all(map(describable, visited)))
        table, *maps = layout.tiles("keys" if direction == "backward_k" else "queries", c.block_q, c.block_k)
        self.maps = (*maps, table)
        *_, heads, tokens, _ = four_axes(like)[0]
        at = [tuple(four_axes(x)[1][:3]) for x in tensors]
        acc = tl.float64 if like.dtype == torch.float64 else tl.float32
        rows = c.block_q if direction == "backward_k" else c.block_k
        self.rest = (*at, (heads * tokens, tokens, 1), layout.causal, maps[0] is not None, c.bulk, c.block_q, c.block_k,
                     tables.piece(rows), like.shape[-1], dim, acc)  # fmt: skip
        self.described = [(*four_axes(x), [1, 1, rows, dim]) for x in visited] if c.bulk else None
        self.grid = (len(table), heads, 1)
        self.start = partial(getattr(kernels, direction)[self.grid], num_warps=c.warps, num_stages=c.stages)
        self.compiled = None if len(table) else lambda *arguments: None

    def __call__(self, tensors: tuple, rows: tuple, visited: tuple, numbers: tuple) -> None:
        """Start it. The first time, Triton compiles it or finds it compiled; in its interpreter every time is one."""
        tiles = (None, None)
        if self.described:
            tiles = [TensorDescriptor(x, *known) for x, known in zip(visited, self.described, strict=True)]
        arguments = (*tensors, *rows, *tiles, *self.maps, *numbers, *self.rest)
        if self.compiled is not None:
            self.compiled(*arguments)
            return
        compiled = self.start(*arguments)
        if not INTERPRETED:
            self.compiled = compiled[self.grid]


def four_axes(x: Tensor) -> tuple[list[int], list[int]]:
    """Shape and strides as [batch, heads, tokens, dim] of a dense or packed ([tokens, heads, dim]) tensor."""
    shape, stride = list(x.shape), list(x.stride())
    if x.ndim == 3:
        shape, stride = [1, shape[1], shape[0], shape[2]], [shape[0] * stride[0], stride[1], stride[0], stride[2]]
    return shape, stride


def describable(x: Tensor) -> bool:
    """Whether a tensor descriptor can describe x: the copy engine takes addresses in steps of 16 bytes."""
    steps = (x.data_ptr(), *(stride * x.element_size() for stride in x.stride()[:-1]))
    return TensorDescriptor is not None and x.numel() > 0 and all(step % 16 == 0 for step in steps)


# ------------------------------------------------------------------------------------------ for autograd, torch.compile


def layout_of(q: Tensor, k: Tensor, cu_q, cu_k, row_map, causal: bool, sliding: list[int]) -> tables.Layout:
    """The layout that the arguments describe, built at the first call and remembered."""
    if sliding:
        s = tuple(sliding)
        return tables.sliding(s[:3], s[3:6], s[6:], q.shape[0], q.device)
    if cu_q is not None:
        return tables.packed(cu_q, cu_k, row_map, q.shape[0], k.shape[0], causal)
    return tables.dense(q.shape[0], q.shape[2], k.shape[2], causal, q.device)


def attention(q, k, v, cu_q, cu_k, row_map, causal: bool, scale: float, sliding: list[int]) -> Tensor:
    """The output, differentiable. Arguments as in dispatch.attention; sliding: [*size, *tile, *window] or []."""
    if torch.compiler.is_compiling():
        return operator(q, k, v, cu_q, cu_k, row_map, causal, scale, sliding)[0]
    layout = layout_of(q, k, cu_q, cu_k, row_map, causal, sliding)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return Attention.apply(q, k, v, layout, scale)
    return forward(rows_together(q), rows_together(k), rows_together(v), layout, scale)[0]


class Attention(torch.autograd.Function):
    """What the backward pass needs are the inputs, the output and lse; never the matrix of weights."""

    @staticmethod
    def forward(ctx, q, k, v, layout, scale):
        q, k, v = map(rows_together, (q, k, v))
        o, lse = forward(q, k, v, layout, scale)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.layout, ctx.scale = layout, scale
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        return *backward(rows_together(do), *ctx.saved_tensors, ctx.layout, ctx.scale), None, None


# While torch.compile traces, the same as an operator that it does not look into.
SCHEMA = (
    "Tensor q, Tensor k, Tensor v, Tensor? cu_q, Tensor? cu_k, Tensor? row_map, bool causal, float scale, int[] sliding"
)


@torch.library.custom_op("soralab::attention", mutates_args=(), schema=f"({SCHEMA}) -> (Tensor, Tensor)")
def operator(q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    """As `forward`."""
    layout = layout_of(q, k, cu_q, cu_k, row_map, causal, sliding)
    return forward(*map(rows_together, (q, k, v)), layout, scale)


@torch.library.custom_op(
    "soralab::attention_backward", mutates_args=(),
    schema=f"(Tensor do, Tensor o, Tensor lse, {SCHEMA}) -> (Tensor, Tensor, Tensor)",
)  # fmt: skip
def operator_backward(do, o, lse, q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    """As `backward`."""
    layout = layout_of(q, k, cu_q, cu_k, row_map, causal, sliding)
    return backward(*map(rows_together, (do, q, k, v)), o, lse, layout, scale)


@operator.register_fake
def _(q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    return torch.empty_like(rows_together(q)), empty_rows(q)


@operator_backward.register_fake
def _(do, o, lse, q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    return tuple(torch.empty_like(rows_together(x)) for x in (q, k, v))


def keep(ctx, inputs, output):
    """As Attention.forward."""
    q, k, v, cu_q, cu_k, row_map, ctx.causal, ctx.scale, ctx.sliding = inputs
    ctx.save_for_backward(*output, q, k, v, cu_q, cu_k, row_map)


def differentiate(ctx, do, _):
    """As Attention.backward. Of lse there is no gradient: it is for the backward pass alone."""
    o, lse, *inputs = ctx.saved_tensors
    return *operator_backward(do, o, lse, *inputs, ctx.causal, ctx.scale, ctx.sliding), *[None] * 6


operator.register_autograd(differentiate, setup_context=keep)
