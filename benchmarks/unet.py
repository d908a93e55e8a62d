"""Chapter 01: a training step of our U-Net beside one of plain PyTorch modules in a row, at the same configuration."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.rows import Case, Work, training
from soralab.unet import UNet, UNetConfig

SIZES = ((UNetConfig.small(), 8, 100), (UNetConfig.small(levels=4), 4, 188))  # sizes, tiles a step, their side


class Plain(nn.Module):
    """The same network as most repositories write it: nn.Sequential blocks, cropping by slices, no checks."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        dims = [config.width * 2**level for level in range(config.levels)]
        self.down = nn.ModuleList(self.block(a, b) for a, b in zip([1, *dims], dims, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, b // 2, 2, 2) for b in dims[:0:-1])
        self.merge = nn.ModuleList(self.block(b, b // 2) for b in dims[:0:-1])
        self.last = nn.Conv2d(config.width, 2, 1)

    @staticmethod
    def block(a: int, b: int) -> nn.Sequential:
        """Two valid convolutions with their ReLUs."""
        return nn.Sequential(nn.Conv2d(a, b, 3), nn.ReLU(), nn.Conv2d(b, b, 3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [batch, 1, h, w]."""
        kept = []
        for number, block in enumerate(self.down):
            x = block(x)
            x = self.dropout(x) if number >= len(self.up) - 1 else x  # in the two deepest levels, as ours
            if number < len(self.up):
                kept.append(x)
                x = F.max_pool2d(x, 2)
        for up, block in zip(self.up, self.merge, strict=True):
            x, copy = up(x), kept.pop()
            cut = (copy.shape[-1] - x.shape[-1]) // 2
            x = block(torch.cat([copy[..., cut : cut + x.shape[-2], cut : cut + x.shape[-1]], x], 1))
        return self.last(x)


def cases() -> Iterator[Case]:
    """The rows."""
    for config, batch, side in SIZES:
        ours, theirs = (partial(step, kind, config, batch, side) for kind in (UNet, Plain))
        yield Case(f"U-Net, {config.levels} levels, {batch} x {side} x {side}", ours, "plain torch modules", theirs)


def step(kind: type[nn.Module], config: UNetConfig, batch: int, side: int) -> Work:
    """A training step."""
    return training(kind(config), torch.randn(batch, 1, side, side))
