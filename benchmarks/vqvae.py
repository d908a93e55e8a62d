"""Chapter 05 beside diffusers: a forward and backward pass of our codebook and of theirs, with the same codes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.spine import side_by_side
from soralab.vqvae import VectorQuantizer

SIZES = {  # codes, D, side of the map, maps a step
    "the course's": (128, 16, 8, 32),
    "the paper's ImageNet": (512, 64, 32, 8),
    "8192 codes": (8192, 4, 32, 4),
}


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured, in float32."""
    for name, (codes, dim, side, maps) in SIZES.items():
        ours, theirs = pair(codes, dim)
        z = torch.randn(maps, dim, side, side)
        times = side_by_side(*(partial(step, model, z) for model in (ours, theirs)))
        yield (f"codebook {name:22s}{1e3 * times[0]:8.2f} ms a step, diffusers' {1e3 * times[1]:8.2f} ms: "
               f"ratio {times[0] / times[1]:.2f}")  # fmt: skip


def pair(codes: int, dim: int) -> tuple[nn.Module, nn.Module]:
    """Our codebook, which learns by gradient, and diffusers' with the same codes; each takes [n, D, rows, columns]."""
    from diffusers.models.autoencoders.vae import VectorQuantizer as Theirs

    ours, theirs = VectorQuantizer(codes, dim), Theirs(codes, dim, beta=0.25, legacy=False)
    with torch.no_grad():
        theirs.embedding.weight.copy_(ours.codebook)
    return ours, theirs


def step(model: nn.Module, z: Tensor) -> None:
    """One forward and backward pass from z [n, D, rows, columns]; ours wants D to be the last axis."""
    z = z.clone().requires_grad_()
    if isinstance(model, VectorQuantizer):
        out = model(z.movedim(1, -1))
        z_q, loss = out.z_q, out.loss
    else:
        z_q, loss, _ = model(z)
    (z_q.sum() + loss).backward()
