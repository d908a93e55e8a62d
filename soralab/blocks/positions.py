"""Positions as sines and cosines: added to a token (1706.03762, section 3.5), or turning queries and keys (RoPE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sincos(positions: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Embed real positions [...] as [..., dim]: cosines of the positions in the first half, sines in the second.

    The frequencies fall geometrically from 1 towards 1 / max_period, which is not reached: max_period^(-2i / dim),
    i = 0 .. dim/2 - 1. Raises ValueError for an odd dim.
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


def rotary_angles(positions: Tensor, pairs: tuple[int, ...], max_period: float = 10_000.0) -> Tensor:
    """By how much each pair of channels is turned at points of a grid [n, axes]: [n, sum(pairs)], in radians.

    Axis k turns its own `pairs[k]` pairs, by positions[:, k] times max_period^(-i / pairs[k]), i = 0 .. pairs[k] - 1
    (Su et al. 2021, 2104.09864, section 3.2.2, for each axis by itself). Raises ValueError for another number of axes.
    """
    if positions.shape[-1] != len(pairs):
        raise ValueError(f"positions have {positions.shape[-1]} axes; pairs names {len(pairs)}")
    return torch.cat(
        [
            positions[..., k, None].float()
            * torch.exp(-math.log(max_period) * torch.arange(n, dtype=torch.float32, device=positions.device) / n)
            for k, n in enumerate(pairs)
        ],
        dim=-1,
    )


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (channel i, channel i + d/2) of queries or keys x [..., n, d] by `angles` [n, d/2].

    The product of a query turned by its place and a key turned by its own depends on the two places' difference alone
    (2104.09864, Eq. 16). Raises ValueError where the pairs are not half of the channels.
    """
    if x.shape[-1] != 2 * angles.shape[-1]:
        raise ValueError(f"angles are of {angles.shape[-1]} pairs; x has {x.shape[-1]} channels, two for each pair")
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
