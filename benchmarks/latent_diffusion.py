"""Chapter 06 beside diffusers: a training step of our U-Net and of UNet2DConditionModel at the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.spine import side_by_side
from soralab.latent_diffusion import UNet, UNetConfig
from soralab.recipes.latent_diffusion import CONFIG
from soralab.training.data import model_flops, peak_gflops

SIZES = {  # sizes, side of the latents, pictures a step
    "the course's": (CONFIG.unet, 8, 32),
    "SD's, 96 wide": (UNetConfig.stable_diffusion(width=96), 32, 1),
}


class Theirs(nn.Module):
    """diffusers' U-Net of the same sizes, called as ours is."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        from diffusers import UNet2DConditionModel

        levels = range(len(config.multipliers))
        kind = ["CrossAttn{}Block2D" if level in config.attention else "{}Block2D" for level in levels]
        self.body = UNet2DConditionModel(
            in_channels=config.channels, out_channels=config.out, layers_per_block=config.blocks,
            block_out_channels=[config.width * m for m in config.multipliers], norm_num_groups=config.groups,
            down_block_types=[name.format("Down") for name in kind], attention_head_dim=config.heads,
            up_block_types=[name.format("Up") for name in reversed(kind)], cross_attention_dim=config.context,
        )  # fmt: skip

    def forward(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """As ours."""
        return self.body(z, 1000 * t, context).sample


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured: forward and backward pass, float32."""
    peak = peak_gflops()
    for name, (config, side, pictures) in SIZES.items():
        given = torch.randn(pictures, 4, side, side), torch.rand(pictures), torch.randn(pictures, 24, config.context)
        ours = UNet(config)
        flops = 3 * model_flops(ours, *given)
        try:
            models = (ours, Theirs(config))
        except ImportError:
            models = (ours,)
        times = side_by_side(*(partial(step, model, given) for model in models))
        beside = [f"diffusers' {1e3 * other:8.1f} ms: ratio {times[0] / other:.2f}" for other in times[1:]]
        yield (f"U-Net {name:14s}{1e3 * times[0]:8.1f} ms a step, {beside[0] if beside else 'diffusers is not here'}; "
               f"{flops / times[0] / 1e9:4.0f} of {peak:4.0f} GFLOP/s")  # fmt: skip


def step(model: nn.Module, given: tuple[Tensor, ...]) -> None:
    """One forward and backward pass."""
    model.zero_grad(set_to_none=True)
    model(*given).square().mean().backward()
