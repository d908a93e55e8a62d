"""Sine and cosine position embeddings (1706.03762, section 3.5), in one dimension and in many."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sincos(positions: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Embed real positions [...] as [..., dim]: cosines of the positions in the first half, sines in the second.

    The frequencies fall geometrically from 1 to 1 / max_period: max_period^(-2i / dim), i = 0 .. dim/2 - 1.
    Raises ValueError for an odd dim.
    """
    if dim % 2:
        raise ValueError(f"dim is {dim}; it takes an even number, for pairs of cosine and sine")
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=positions.device) / (dim // 2)
    angles = positions[..., None].float() * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_grid(positions: Tensor, dims: tuple[int, ...], max_period: float = 10_000.0) -> Tensor:
    """Embed points of a grid [..., axes] as [..., sum(dims)]: each axis has its own `dims[axis]` channels."""
    if positions.shape[-1] != len(dims):
        raise ValueError(f"positions have {positions.shape[-1]} axes; dims names {len(dims)}")
    return torch.cat([sincos(positions[..., k], dim, max_period) for k, dim in enumerate(dims)], dim=-1)
