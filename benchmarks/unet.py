"""Chapter 01: a training step of our U-Net beside one of plain PyTorch modules in a row, at the same configuration."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.spine import seconds, side_by_side
from soralab.training.data import model_flops, peak_gflops
from soralab.unet import UNet, UNetConfig, overlap_tile


class Plain(nn.Module):
    """The same network as most repositories write it: nn.Sequential blocks, cropping by slices, no checks."""

    def __init__(self, width: int, levels: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        dims = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(self.block(a, b) for a, b in zip([1, *dims], dims, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, b // 2, 2, 2) for b in dims[:0:-1])
        self.merge = nn.ModuleList(self.block(b, b // 2) for b in dims[:0:-1])
        self.last = nn.Conv2d(width, 2, 1)

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


def step(model: nn.Module, x: torch.Tensor) -> None:
    """One forward and backward pass."""
    model.zero_grad(set_to_none=True)
    model(x).square().mean().backward()


def run() -> Iterator[str]:
    """The benchmark's lines: both training steps, their ratio, the share of the peak, and overlap-tile."""
    peak = peak_gflops()
    for config, batch, tile in ((UNetConfig.small(), 8, 100), (UNetConfig.small(levels=4), 4, 188)):
        x = torch.randn(batch, 1, tile, tile)
        ours, plain = UNet(config), Plain(config.width, config.levels, config.dropout)
        theirs, mine = side_by_side(partial(step, plain, x), partial(step, ours, x))
        rate = 3 * model_flops(ours, x) / mine / 1e9
        yield (
            f"unet {config.levels} levels, {batch} x {tile}: {mine * 1e3:6.0f} ms a step, a plain U-Net "
            f"{theirs * 1e3:6.0f} ms, ratio {mine / theirs:.2f}; {rate:.0f} of {peak:.0f} GFLOP/s"
        )
    model, picture = UNet(UNetConfig.small()).eval(), torch.randn(1, 1, 512, 512)
    for tile in (100, 252):
        took = seconds(lambda tile=tile: overlap_tile(model, picture, tile))
        yield f"overlap-tile, 512 x 512 in tiles of {tile}: {took:6.2f} s"
