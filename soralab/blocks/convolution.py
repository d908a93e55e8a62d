"""The convolutional blocks of diffusion's U-Nets: residual blocks that are told a time, and two ways to attend.

As DDPM (2006.11239, appendix B) built them and latent diffusion (2112.10752) kept them. Pictures are
[batch, channel, height, width] throughout.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks.attention import Attention


class ResBlock(nn.Module):
    """norm, SiLU, 3 x 3 convolution, plus the time; norm, SiLU, 3 x 3 convolution; plus the input.

    `time` is the width of the time's embedding, None for a block that is told no time. A 1 x 1 convolution takes the
    input along where the number of channels changes. The second convolution starts at zero, so the block starts as
    that input.
    """

    def __init__(self, dim_in: int, dim_out: int, time: int | None = None, groups: int = 32, eps: float = 1e-5):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, dim_in, eps), nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.time = None if time is None else nn.Linear(time, dim_out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, dim_out, eps), nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.skip = nn.Identity() if dim_in == dim_out else nn.Conv2d(dim_in, dim_out, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x [batch, dim_in, height, width], time [batch, width of the embedding]; returns dim_out channels."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            h = h + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Upsample(nn.Conv2d):
    """Every pixel becomes 2 x 2, then a 3 x 3 convolution."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, dim, height, width] to [batch, dim, 2 height, 2 width]."""
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class SpatialAttention(nn.Module):
    """norm, self-attention among all places, plus the input. What is added starts at zero."""

    def __init__(self, dim: int, heads: int = 1, groups: int = 32, eps: float = 1e-5):
        super().__init__()
        self.norm, self.attention = nn.GroupNorm(groups, dim, eps), Attention(dim, heads)
        nn.init.zeros_(self.attention.to_out.weight)
        nn.init.zeros_(self.attention.to_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, dim, height, width] to the same."""
        tokens = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[2])


class GEGLU(nn.Sequential):
    """The feed-forward layer whose hidden values are gated by GELU of others (Shazeer 2020, 2002.05202)."""

    def __init__(self, dim: int, ratio: int = 4):
        super().__init__(nn.Linear(dim, 2 * ratio * dim), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, tokens, dim] to the same."""
        value, gate = self[0](x).chunk(2, dim=-1)
        return self[1](value * F.gelu(gate))


class SpatialTransformer(nn.Module):
    """A picture read as tokens, which attend to one another, then to a context (2112.10752, section 3.3).

        Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V,  Q = W_Q phi(z_t),  K = W_K tau(y),  V = W_V tau(y)

    phi(z_t) are the U-Net's own values, tau(y) [batch, keys, context_dim] the encoded condition. What leaves the block
    is multiplied by weights that start at zero.
    """

    def __init__(self, dim: int, heads: int, context_dim: int, groups: int = 32):
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.norm1, self.among = nn.LayerNorm(dim), Attention(dim, heads, bias=False)
        self.norm2, self.across = nn.LayerNorm(dim), Attention(dim, heads, context_dim, bias=False)
        self.norm3, self.mlp = nn.LayerNorm(dim), GEGLU(dim)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [batch, dim, height, width], context [batch, keys, context_dim], mask [batch, keys], True = may attend."""
        z = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        z = z + self.among(self.norm1(z))
        z = z + self.across(self.norm2(z), context, None if mask is None else mask[:, None, None])
        z = z + self.mlp(self.norm3(z))
        return x + self.proj_out(rearrange(z, "b (h w) c -> b c h w", h=x.shape[2]))
