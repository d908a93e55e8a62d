"""Chapter 05 beside diffusers: a forward and backward pass of our codebook and of theirs at the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.rows import Case, Work, parameters
from soralab.training.data import model_flops
from soralab.vqvae import VectorQuantizer

SIZES = {  # codes, D, side of the map, maps a step
    "the course's": (128, 16, 8, 32),
    "512 codes": (512, 64, 32, 8),
    "8192 codes": (8192, 4, 32, 4),
}


class Ours(VectorQuantizer):
    """Our codebook, which learns by gradient, called as theirs is; it wants D to be the last axis."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [n, D, rows, columns] to (the nearest codes, the loss)."""
        out = super().forward(z.movedim(1, -1))
        return out.z_q, out.loss


def cases() -> Iterator[Case]:
    """The rows."""
    for name, size in SIZES.items():
        ours, theirs = partial(step, False, *size), partial(step, True, *size)
        yield Case(f"codebook, {name}", ours, "diffusers", theirs, ("diffusers.models.autoencoders.vae",))


def step(diffusers: bool, codes: int, dim: int, side: int, maps: int) -> Work:
    """Forwards and backwards from z [n, D, rows, columns]."""
    if diffusers:
        from diffusers.models.autoencoders.vae import VectorQuantizer as Theirs

        model: nn.Module = Theirs(codes, dim, beta=0.25, legacy=False)
    else:
        model = Ours(codes, dim)
    z = torch.randn(maps, dim, side, side)

    def run() -> None:
        z_q, loss = model(z.clone().requires_grad_())[:2]
        (z_q.sum() + loss).backward()

    return Work(run, parameters(model), partial(model_flops, model, z))
