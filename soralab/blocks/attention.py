"""Multi-head attention and the feed-forward layer (Vaswani et al. 2017, 1706.03762, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks.positions import rotate
from soralab.files.published import Layout, under

# On CPUs torch's fused products are the faster ones, at the course's lengths up to three times; but not for training in
# bfloat16, where their gradient is up to four times slower, below about this many pairs of query and key.
FUSED_FROM = 512 * 512


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, Eq. 1 of 1706.03762.

    q [batch, heads, queries, d]; k, v [batch, heads, keys, d]; mask broadcastable to [batch, heads, queries, keys],
    True = may attend. A query that may attend nothing gets zeros. Returns [batch, heads, queries, d].
    """
    slow = not q.is_cuda and q.dtype == torch.bfloat16 and q.shape[-2] * k.shape[-2] < FUSED_FROM
    if mask is None and not (slow and torch.is_grad_enabled() and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v)
    if q.dtype == torch.float16:  # whose largest number, 65504, logits exceed
        return attention(q.float(), k.float(), v.float(), mask).to(v.dtype)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is None:
        return logits.softmax(-1).to(v.dtype) @ v
    lowest = torch.finfo(logits.dtype).min  # not -inf: the softmax of a row of -inf is NaN, and so is its gradient
    weights = logits.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)
    return weights.to(v.dtype) @ v


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """[length, length], True where query i may attend key j: j <= i (1706.03762, section 3.2.3)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class Attention(nn.Module):
    """Self-attention, or cross-attention when `context` is given.

    `context_dim` is the width of the context's tokens (default: `dim`). With `qk_norm`, queries and keys are
    normalised per head before their product (Dehghani et al. 2023, 2302.05442), which keeps the logits bounded.
    `bias` is that of queries, keys and values; the output always has one.
    """

    def __init__(
        self, dim: int, heads: int, context_dim: int | None = None, qk_norm: bool = False, bias: bool = True
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim is {dim}; it takes a multiple of heads, which is {heads}")
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_kv = nn.Linear(context_dim or dim, 2 * dim, bias=bias)
        self.to_out = nn.Linear(dim, dim)
        self.norm_q = nn.LayerNorm(dim // heads, bias=False) if qk_norm else nn.Identity()
        self.norm_k = nn.LayerNorm(dim // heads, bias=False) if qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, angles: Tensor | None = None,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """x [batch, queries, dim], context [batch, keys, context_dim], mask as in `attention`; returns x's shape.

        `angles` [queries, dim / heads / 2] turn queries and keys by their places (`rotate`), in self-attention.
        `attend` is a function (q, k, v) -> output in `attention`'s place, such as one of soralab.kernels, that knows
        itself what may attend what. Raises ValueError if it is given a mask besides, and for angles of a context, whose
        keys stand at other places.
        """
        if mask is not None and attend is not None:
            raise ValueError("mask: got one beside attend, which decides what may attend what; takes one of the two")
        if angles is not None and context is not None:
            raise ValueError("angles: got them beside a context, whose keys stand elsewhere; takes one of the two")
        source = x if context is None else context
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.to_kv(source), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = attention(q, k, v, mask) if attend is None else attend(q, k, v)
        return self.to_out(rearrange(mixed, "b h n d -> b n (h d)"))


def multihead_layout(stem: str, layer: Attention) -> Layout:
    """Where the weights of a torch.nn.MultiheadAttention lie in `layer`: queries, keys and values are one there."""
    joined = {
        f"{stem}in_proj_{kind}": (getattr(layer.to_q, kind), getattr(layer.to_kv, kind)) for kind in ("weight", "bias")
    }
    return joined | under(stem, {"out_proj": layer.to_out})


class FeedForward(nn.Sequential):
    """The position-wise two-layer network with GELU: [batch, tokens, dim] to the same.

    `gelu` is how nn.GELU is worked out: "none" (exactly, which is the faster here) or "tanh".
    """

    def __init__(self, dim: int, ratio: float = 4.0, gelu: str = "none"):
        hidden = int(dim * ratio)
        super().__init__(nn.Linear(dim, hidden), nn.GELU(gelu), nn.Linear(hidden, dim))


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), an approximation of GELU; CLIP's published weights are used to it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)
