"""Attention that the course's models call: one function for dense, causal, packed and windowed, two backends.

"torch" is the reference and runs everywhere. "triton" is triton_kernels.py, for NVIDIA GPUs; nothing imports triton
until it is chosen. `attention` says what each argument takes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from soralab.blocks.attention import FUSED_FROM
from soralab.kernels import tables

BACKENDS = ("auto", "torch", "triton")
HEAD_DIMS = (16, 128)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # float64 is torch's alone
TESTED = ((3, 6), (3, 9))  # the oldest and the newest triton that the tests were seen to pass with
OLDEST_GPU = 8  # compute capability: Ampere


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor | None = None, cu_seqlens_k: Tensor | None = None,
    row_map: Tensor | None = None, causal: bool = False, scale: float | None = None, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """softmax(scale q k^T) v, differentiable.

    Dense: q [batch, heads, queries, dim], k and v [batch, heads, keys, dim]. Packed: q [queries, heads, dim], k and v
    [keys, heads, dim], and cu_seqlens [segments + 1]; segment s, the tokens cu_seqlens[s] up to cu_seqlens[s + 1],
    attends within itself (with cu_seqlens_k: to segment s of the keys). It may be empty. Bounds are read once; write to
    them by torch, not by numpy or .data, which nobody sees. Returns the shape of q.

    row_map [tokens], packed self-attention only: segment s is the rows row_map[cu_seqlens[s] : cu_seqlens[s + 1]], in
    that order. W.A.L.T's windows are such segments (`windows` makes both).
    causal: query i of n may attend key j of m iff j <= i + m - n, so the last query sees every key. (For n = m as in
    torch's SDPA, for others as in its varlen_attn.)  A query that may attend nothing gets zeros.
    scale: above 0; default 1 / sqrt(dim). dim from 16 to 128; float32, float16 or bfloat16, and with torch float64; any
    strides.
    backend: "torch", "triton", or "auto": Triton on a GPU from Ampere on with a tested version, else torch.

    Raises ValueError that names the argument, before anything runs.
    """
    packed = cu_seqlens_q is not None
    check(q, k, v, packed)
    check_packing(q, k, cu_seqlens_q, cu_seqlens_k, row_map)
    scale = check_scale(scale, q)
    if choose(backend, q) == "triton":
        from soralab.kernels import triton_launch

        return triton_launch.attention(q, k, v, cu_seqlens_q, cu_seqlens_k, row_map, causal, scale, [])
    if not packed:
        return reference(q, k, v, causal, scale)
    layout = tables.packed(cu_seqlens_q, cu_seqlens_k, row_map, len(q), len(k), causal)
    return reference_packed(q, k, v, layout, scale)


def sliding_tile_attention(
    q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int, int], tile: tuple[int, int, int] = (4, 4, 4),
    window: tuple[int, int, int] = (3, 3, 3), scale: float | None = None, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """Attention of each token of a film to the tiles around its own (Zhang et al. 2025, 2502.04507).

    q, k, v [batch, heads, time * height * width, dim], tokens row by row; size: (time, height, width) in tokens; tile:
    of a tile; window: how many tiles a query sees along each axis, odd. At the border the window stops moving. Returns
    the shape of q; differentiable. Raises ValueError that names the argument.
    """
    check(q, k, v, packed=False)
    size, tile, window = tuple(size), tuple(tile), tuple(window)
    tables.check_sliding(size, tile, window)
    if not q.shape[2] == k.shape[2] == math.prod(size):
        raise ValueError(f"size is {size}, {math.prod(size)} tokens; q has {q.shape[2]} and k {k.shape[2]}")
    scale = check_scale(scale, q)
    if choose(backend, q) == "triton":
        from soralab.kernels import triton_launch

        return triton_launch.attention(q, k, v, None, None, None, False, scale, [*size, *tile, *window])
    mask = tables.sliding(size, tile, window, len(q), q.device).mask()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


@dataclass(frozen=True, eq=False)
class Packed:
    """How a row of packed tokens attends, for soralab.blocks.Attention's `attend`: tokens as a batch of one token each.

    In q [queries, heads, 1, dim], k and v [keys, heads, 1, dim] all that works on single tokens (norms, modulation, the
    feed-forward layer) does not know that they are packed. The arguments are those of `attention`.
    """

    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor | None = None
    row_map: Tensor | None = None
    causal: bool = False
    backend: str = "auto"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns the shape of q. Raises ValueError for a batch of more than one token each."""
        for name, x in (("q", q), ("k", k), ("v", v)):
            if x.ndim != 4 or x.shape[2] != 1:  # the others would be left out without a word
                raise ValueError(f"{name} is {list(x.shape)}; packed, it takes [tokens, heads, 1, dim]")
        bounds = dict(cu_seqlens_q=self.cu_seqlens_q, cu_seqlens_k=self.cu_seqlens_k, row_map=self.row_map)
        rest = dict(causal=self.causal, backend=self.backend)
        return attention(q[:, :, 0], k[:, :, 0], v[:, :, 0], **bounds, **rest)[:, :, None]


# ------------------------------------------------------------------------------------------------- torch's backend


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    """Dense attention by torch's SDPA; axes as there."""
    queries, keys = q.shape[-2], k.shape[-2]
    if not (queries and keys):
        return nothing(q, k, v)
    if not causal:
        return dense(q, k, v, None, scale)
    blind = max(0, queries - keys)  # the first queries, which see nothing: a softmax over nothing is NaN
    mask = torch.ones(queries - blind, keys, dtype=torch.bool, device=q.device).tril(max(0, keys - queries))
    seeing = dense(q[..., blind:, :], k, v, mask, scale)
    return F.pad(seeing, (0, 0, blind, 0))


def nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Zeros of q's shape, whose gradients by all three are zeros too."""
    return q.new_zeros(q.shape) + sum(x[..., :0].sum() for x in (q, k, v))


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(scale q k^T) v by SDPA, or by plain products where these train faster: see soralab.blocks.attention."""
    short = q.shape[-2] * k.shape[-2] < FUSED_FROM
    if not (short and q.dtype == torch.bfloat16 and not q.is_cuda and torch.is_grad_enabled() and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    logits = (q * scale) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return logits.softmax(-1).to(v.dtype) @ v


def reference_packed(q: Tensor, k: Tensor, v: Tensor, layout: tables.Layout, scale: float) -> Tensor:
    """Packed attention, one segment after the other; neighbours with as many queries each go together."""
    if layout.row_map is not None:
        order = layout.row_map.long()
        q, k, v = q[order], k[order], v[order]
    queries, keys = (layout.q_end - layout.q_first).tolist(), (layout.k_end - layout.k_first).tolist()
    runs = [list(run) for _, run in groupby(zip(queries, keys, strict=True), lambda n: (n[0], layout.causal and n[1]))]
    each = ([sum(of[side] for of in run) for run in runs] for side in (0, 1))
    q_rows, k_rows = each
    split = zip(runs, q.split(q_rows), k.split(k_rows), v.split(k_rows), strict=True)  # a slice's gradient is a whole q
    parts = [alike(run, *rows, layout.causal, scale) for run, *rows in split]
    o = torch.cat(parts) if parts else nothing(q, k, v)
    return o if layout.row_map is None else o[order.argsort()]


def alike(run: list[tuple[int, int]], q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    """Packed attention of neighbouring segments, (queries, keys) each, with as many queries each.

    Where they have not as many keys each, keys are filled up to the longest's, and masked.
    """
    keys = [n for _, n in run]
    q = q.reshape(len(run), run[0][0], *q.shape[1:]).transpose(1, 2)
    if len(set(keys)) == 1:
        k, v = (x.unflatten(0, (len(run), keys[0])).transpose(1, 2) for x in (k, v))
        return reference(q, k, v, causal, scale).transpose(1, 2).flatten(0, 1)
    k, v = (pad_sequence(x.split(keys), batch_first=True).transpose(1, 2) for x in (k, v))
    count = torch.tensor(keys, device=q.device)[:, None, None, None]
    mask = torch.arange(k.shape[2], device=q.device) < count.clamp(min=1)  # of none, the one that is filled in: zeros
    return dense(q, k, v, mask, scale).transpose(1, 2).flatten(0, 1)


# ---------------------------------------------------------------------------------------------- what the arguments take


def check(q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
    """Raise ValueError unless q, k and v fit together."""
    axes, names = (3, "[tokens, heads, dim]") if packed else (4, "[batch, heads, tokens, dim]")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != axes:
            other = "" if packed or x.ndim != 3 else "; packed tensors come with cu_seqlens_q"
            raise ValueError(f"{name} is {list(x.shape)}; it takes {names}{other}")
        if x.device != q.device:
            raise ValueError(f"{name} is on {x.device} and q on {q.device}; move them to one device")
        if x.dtype != q.dtype:
            raise ValueError(f"{name} is {kind(x)} and q {kind(q)}; convert them to one dtype")
    if q.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"q is {kind(q)}; it takes float32, float16 or bfloat16")
    if k.shape != v.shape:
        raise ValueError(f"v is {list(v.shape)}; it takes k's shape, {list(k.shape)}")
    token = 0 if packed else 2
    want = [k.shape[a] if a == token else q.shape[a] for a in range(axes)]
    if list(k.shape) != want:
        raise ValueError(f"k is {list(k.shape)}; with q {list(q.shape)} it takes {want}")
    if not HEAD_DIMS[0] <= q.shape[-1] <= HEAD_DIMS[1]:
        raise ValueError(f"q has heads of dimension {q.shape[-1]}; it takes {HEAD_DIMS[0]} to {HEAD_DIMS[1]}")


def check_packing(q: Tensor, k: Tensor, cu_q: Tensor | None, cu_k: Tensor | None, row_map: Tensor | None) -> None:
    """Raise ValueError unless bounds and row map go together. What they hold is read by `tables.packed`."""
    for name, x in (("cu_seqlens_k", cu_k), ("row_map", row_map)):
        if x is not None and cu_q is None:
            raise ValueError(f"{name} is given and cu_seqlens_q is not; packed attention takes both")
    if row_map is not None and cu_k is not None:
        raise ValueError("row_map is for self-attention, where keys lie as queries do; it takes no cu_seqlens_k")
    for name, x in (("cu_seqlens_q", cu_q), ("cu_seqlens_k", cu_k), ("row_map", row_map)):
        if x is not None and x.device != q.device:
            raise ValueError(f"{name} is on {x.device} and q on {q.device}; move it there once a batch")


def check_scale(scale: float | None, q: Tensor) -> float:
    """The scale; raises ValueError unless it is above 0 (the kernels take the largest logit before they scale)."""
    if scale is None:
        return q.shape[-1] ** -0.5
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}; it takes a number above 0")
    return float(scale)


_CHOSEN: dict[tuple, str] = {}  # what `choose` found: packages and chips do not change while a process runs


def choose(backend: str, q: Tensor) -> str:
    """The backend to run: "torch" or "triton". Raises ValueError, with the remedy, if it cannot."""
    if torch.compiler.is_compiling():
        return find(backend, q)
    key = (backend, q.device, q.dtype)
    if key not in _CHOSEN:
        _CHOSEN[key] = find(backend, q)
    return _CHOSEN[key]


def find(backend: str, q: Tensor) -> str:
    """As `choose`, by asking the installed packages and the chip."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it takes {', '.join(map(repr, BACKENDS))}")
    interpreting = os.environ.get("TRITON_INTERPRET") == "1"  # slow, on a GPU too, and wrong in bfloat16
    if backend == "auto":
        able = q.is_cuda and q.dtype in DTYPES and not (interpreting or too_old(q) or why_no_triton())
        return "triton" if able else "torch"
    if backend == "triton":
        if q.dtype not in DTYPES:
            raise ValueError(f"q is {kind(q)}; Triton's backend takes float32, float16 or bfloat16")
        trouble = why_no_triton()
        if trouble:
            raise ValueError(f"backend is 'triton', and {trouble}")
        if interpreting or not q.is_cuda:
            check_interpreter(q)
        elif too_old(q):
            raise ValueError(f"q is on {q.device}, of compute capability below {OLDEST_GPU}; take backend='torch'")
    return backend


def too_old(q: Tensor) -> bool:
    """Whether the GPU is older than what the kernels are compiled for in the tests."""
    return torch.cuda.get_device_capability(q.device)[0] < OLDEST_GPU


def why_no_triton() -> str:
    """Why Triton cannot be used here, with the remedy; "" if it can."""
    oldest, newest = (".".join(map(str, bound)) for bound in TESTED)
    try:
        tested = TESTED[0] <= release("triton") <= TESTED[1]
    except PackageNotFoundError:
        return "triton is not installed; pip install 'soralab[triton]' (Linux only), or backend='torch'"
    if not tested:
        return f"triton is {version('triton')}, which is untested; it takes {oldest} to {newest}, or backend='torch'"
    return ""


def check_interpreter(q: Tensor) -> None:
    """Raise ValueError unless Triton's interpreter runs, and runs this dtype: without a GPU there is nothing else."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend is 'triton' and q is on {q.device}; it takes a CUDA tensor, or TRITON_INTERPRET=1 in the "
            "environment before Python starts (slow, for learning), or backend='torch'"
        )
    if release("triton") < (3, 7) and release("numpy") >= (2, 4):
        raise ValueError(
            f"backend is 'triton', and the interpreter of triton {version('triton')} cannot work with numpy "
            f"{version('numpy')}; take numpy below 2.4 or triton from 3.7 on, or backend='torch'"
        )
    from soralab.kernels import triton_launch

    if not triton_launch.INTERPRETED:
        raise ValueError(
            "backend is 'triton', and Triton was imported before TRITON_INTERPRET=1 was set, so it compiles; start "
            "Python (or the notebook's kernel) anew, with the variable set first"
        )
    if q.dtype == torch.bfloat16:
        raise ValueError("q is bfloat16, and Triton's interpreter multiplies it wrongly; it takes float32 or float16")


def release(package: str) -> tuple[int, ...]:
    """The first two numbers of an installed package's version. Raises PackageNotFoundError."""
    return tuple(int(number) for number in version(package).split(".")[:2])


def kind(x: Tensor) -> str:
    """A tensor's dtype in words."""
    return str(x.dtype).removeprefix("torch.")
