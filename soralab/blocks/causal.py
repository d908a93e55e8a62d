"""Layers for films that never look ahead: convolutions in space and in time, on [batch, time, height, width, channel].

Causal in time as in W.A.L.T (2312.06662, section 4.1): one frame is then a film of length one, and a film's beginning
is encoded as it would be without its end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class CausalTime(nn.Linear):
    """A convolution over three frames (`taps`), of which the last is the present: no frame sees the future.

    Works on [batch, time, height, width, channel]; before the first frame there is nothing (zeros). Frame j of what
    comes out stands where frame stride * j went in, so with a stride of 2 1 + 2k frames become 1 + k.
    """

    def __init__(self, dim_in: int, dim_out: int, taps: int = 3, stride: int = 1):
        super().__init__(taps * dim_in, dim_out)
        self.taps, self.stride = taps, stride

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, time, height, width, dim_in] to [batch, ceil(time / stride), height, width, dim_out]."""
        past = F.pad(x, (0, 0, 0, 0, 0, 0, self.taps - 1, 0))
        return super().forward(
            torch.cat([past[:, k : k + x.shape[1] : self.stride] for k in range(self.taps)], dim=-1)
        )


class Space(nn.Conv2d):
    """A 3 x 3 convolution of every frame by itself, on [batch, time, height, width, channel]."""

    def __init__(self, dim_in: int, dim_out: int, stride: int = 1):
        super().__init__(dim_in, dim_out, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, time, height, width, dim_in] to [batch, time, height / stride, width / stride, dim_out]; sides are
        rounded up."""
        frames = super().forward(rearrange(x, "b t h w c -> (b t) c h w"))
        return rearrange(frames, "(b t) c h w -> b t h w c", b=x.shape[0])


class ResBlock(nn.Module):
    """norm, SiLU, convolution in space; norm, SiLU, a second convolution, in space or in time; plus the input.

    The norm is over the channels of one position. A norm over time (GroupNorm) would let frames see the future.
    """

    def __init__(self, dim: int, second: Callable[[int, int], nn.Module]):
        super().__init__()
        self.norm1, self.conv1 = nn.LayerNorm(dim), Space(dim, dim)
        self.norm2, self.conv2 = nn.LayerNorm(dim), second(dim, dim)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, time, height, width, dim] to the same."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))
