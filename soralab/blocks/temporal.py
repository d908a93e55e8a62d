"""Layers over time that chapters lay behind those of a U-Net of pictures; what they add starts at zero.

Frames lie beside places: [batch, channel, frames, places]. The layers are those of Stable Video Diffusion
(2311.15127), whose authors wrote Align your Latents (2304.08818).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks.attention import Attention
from soralab.blocks.convolution import GEGLU
from soralab.blocks.positions import sincos


class TemporalConv(nn.Module):
    """A residual block of convolutions over three frames, (3, 1, 1); what it adds starts at zero.

    time: width of the embedded time of the noise; None for a block that is told none, as the decoder's.
    """

    def __init__(self, dim: int, time: int | None = None, groups: int = 32):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, dim), nn.GroupNorm(groups, dim)
        self.conv1, self.conv2 = (nn.Conv2d(dim, dim, (3, 1), padding=(1, 0)) for _ in range(2))
        self.time = None if time is None else nn.Linear(time, dim)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x [batch, dim, frames, places], time [batch, width]; returns x's shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            h = h + self.time(F.silu(time))[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


class TemporalTransformer(nn.Module):
    """Each place attends to itself in all frames, then to the prompt; everything that is added starts at zero.

    Which frame is which, sines tell: without them a film and its frames in another order would be one. The parts are
    those of the authors' later code (Stable Video Diffusion, 2311.15127).
    """

    def __init__(self, dim: int, heads: int, context: int):
        super().__init__()
        self.place = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
        self.norm_in, self.mlp_in = nn.LayerNorm(dim), GEGLU(dim)
        self.norm1, self.over_time = nn.LayerNorm(dim), Attention(dim, heads, bias=False)
        self.norm2, self.across = nn.LayerNorm(dim), Attention(dim, heads, context, bias=False)
        self.norm3, self.mlp = nn.LayerNorm(dim), GEGLU(dim)
        for last in (self.place[2], self.mlp_in[1], self.over_time.to_out, self.across.to_out, self.mlp[1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, moments: Tensor, words: Tensor, mask: Tensor | None) -> Tensor:
        """x [batch, dim, frames, places], moments [frames] or [batch, frames], words [batch, n, context], mask [batch,
        n], True = may attend; returns x's shape."""
        dim, frames, places = x.shape[1:]
        place = self.place(sincos(moments.flatten(), dim).to(x)).reshape(-1, 1, frames, dim)
        z = (rearrange(x, "b c t p -> b p t c") + place).flatten(0, 1)
        z = z + self.mlp_in(self.norm_in(z))
        z = z + self.over_time(self.norm1(z))
        z = rearrange(z, "(b p) t c -> b (p t) c", p=places)
        z = z + self.across(self.norm2(z), words, None if mask is None else mask[:, None, None])
        z = z + self.mlp(self.norm3(z))
        return rearrange(z, "b (p t) c -> b c t p", p=places)


class Hint(nn.Module):
    """What a prompt lets expect at each place and moment: what slides right is on the left at first. It starts at zero.

    Attention over time sees one place in all frames, and is not told which place that is. So it hears a word such as
    "right" by chance at best; with this it knows where it looks.
    """

    AXIS, UNIT = 32, 8.0  # numbers for each of row, column and moment; a frame is UNIT long and wide

    def __init__(self, dim: int, context: int, hidden: int = 128):
        super().__init__()
        self.where, self.prompt = nn.Linear(3 * self.AXIS, hidden), nn.Linear(context, hidden)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim))
        nn.init.zeros_(self.mlp[-1].weight)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, prompt: Tensor, moments: Tensor, size: Sequence[int]) -> Tensor:
        """prompt [batch, context], moments [frames] or [batch, frames], size (height, width) to [batch * frames, dim,
        height, width]."""
        moments = moments.expand(len(prompt), -1)
        down, across = (self.UNIT * (torch.arange(n, device=prompt.device) + 0.5) / n for n in size)
        axes = [sincos(part, self.AXIS).to(prompt) for part in (down, across, moments)]
        row, column, moment = (self.where.weight[:, k * self.AXIS : (k + 1) * self.AXIS] for k in range(3))
        h = (axes[0] @ row.T)[None, None, :, None] + (axes[1] @ column.T)[None, None, None]
        h = h + (axes[2] @ moment.T)[:, :, None, None] + (self.prompt(prompt) + self.where.bias)[:, None, None, None]
        return rearrange(self.mlp(h), "b t h w c -> (b t) c h w")
