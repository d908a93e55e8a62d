"""How a diffusion transformer is told the time: embeddings and adaptive layer norm (DiT, 2212.09748, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soralab.blocks.positions import sincos


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift: x [batch, tokens, dim], shift and scale [batch, dim]."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


class TimestepEmbedding(nn.Module):
    """Diffusion time t [batch] in [0, 1] to [batch, dim]: sines and cosines of 1000 t, then a two-layer network."""

    def __init__(self, dim: int, frequencies: int = 256):
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """t [batch] in [0, 1] (1 is pure noise); returns [batch, dim]."""
        return self.mlp(sincos(1000 * t, self.frequencies).to(self.mlp[0].weight.dtype))
