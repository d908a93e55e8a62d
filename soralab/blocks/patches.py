"""Spacetime patches: a film cut into boxes, each one a token (ViT's patches, ViViT's tubelets)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def patchify(film: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Cut films into tokens: [batch, time, channel, height, width] to [batch, tokens, pt * ph * pw * channel].

    `patch` is (pt, ph, pw). Tokens run over time, then rows, then columns. Raises ValueError if a side does not divide,
    and for a patch that is not of whole numbers from 1.
    """
    if not all(isinstance(p, int) and p >= 1 for p in patch):  # after 4.0, which einops caches as 4, no 4 would do
        raise ValueError(f"patch is {tuple(patch)}; it takes whole numbers from 1")
    if film.ndim != 5:
        raise ValueError(f"film is {list(film.shape)}; it takes [batch, time, channel, height, width]")
    _check_sides((film.shape[1], *film.shape[3:]), patch)
    pt, ph, pw = patch
    return rearrange(film, "b (t pt) c (h ph) (w pw) -> b (t h w) (pt ph pw c)", pt=pt, ph=ph, pw=pw)


def unpatchify(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    """The inverse of `patchify`; `size` is the film's (time, height, width). Raises ValueError if a side does not
    divide."""
    _check_sides(size, patch)
    pt, ph, pw = patch
    t, h, w = (side // p for side, p in zip(size, patch, strict=True))
    return rearrange(
        tokens, "b (t h w) (pt ph pw c) -> b (t pt) c (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw
    )


def _check_sides(size: tuple[int, ...], patch: tuple[int, int, int]) -> None:
    for name, side, p in zip(("time", "height", "width"), size, patch, strict=True):
        if side % p:
            raise ValueError(f"{name} is {side}; it takes a multiple of the patch's {p}")


def grid_positions(size: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Where each cell of a grid stands, in `patchify`'s order: size (t, h, w) gives [t * h * w, 3]."""
    axes = [torch.arange(side, device=device) for side in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(size))
