"""Chapter 06 beside diffusers: a training step of our U-Net and of theirs at the same sizes, and drawing by DDIM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.rows import Case, Work, parameters, training
from soralab.diffusion import ddim, guide
from soralab.latent_diffusion import PROCESS, UNet, UNetConfig
from soralab.recipes.latent_diffusion import CONFIG
from soralab.training.data import model_flops

UNET, SCHEDULER = "diffusers.models.unets.unet_2d_condition", "diffusers.schedulers.scheduling_ddim"
SIZES = {  # sizes, side of the latents, pictures a step
    "the course's": (CONFIG.unet, 8, 32),
    "SD's at 96": (UNetConfig.stable_diffusion(width=96), 16, 1),
}
STEPS, SCALE = 10, 3.0  # of drawing: DDIM's steps, guidance


class Theirs(nn.Module):
    """diffusers' U-Net of the same sizes, called as ours is."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

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


def cases() -> Iterator[Case]:
    """The rows."""
    for name, (config, side, pictures) in SIZES.items():
        ours, theirs = (partial(step, kind, config, side, pictures) for kind in (UNet, Theirs))
        yield Case(f"LDM U-Net, {name}, {pictures} of {side} x {side}", ours, "diffusers", theirs, (UNET,))
    config, side, _ = SIZES["the course's"]
    ours, theirs = (partial(drawing, diffusers, config, side) for diffusers in (False, True))
    yield Case(f"drawing 8 latents, DDIM, {STEPS} steps", ours, "diffusers", theirs, (UNET, SCHEDULER))


def inputs(config: UNetConfig, side: int, pictures: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, times, words."""
    return torch.randn(pictures, 4, side, side), torch.rand(pictures), torch.randn(pictures, 24, config.context)


def step(kind: type[nn.Module], config: UNetConfig, side: int, pictures: int) -> Work:
    """A training step."""
    return training(kind(config), *inputs(config, side, pictures))


def drawing(diffusers: bool, config: UNetConfig, side: int, pictures: int = 8) -> Work:
    """From noise to latents with guidance; the words' own network and the decoder are not in it."""
    model = (Theirs if diffusers else UNet)(config).eval()
    noise, t, words = inputs(config, side, pictures)
    flops = partial(model_flops, model, *(torch.cat([x, x]) for x in (noise, t, words)))
    if diffusers:
        return Work(partial(by_scheduler, model, noise, words), parameters(model))
    network = guide(model, {"context": words}, {"context": torch.zeros_like(words)}, SCALE, batched=True)
    draw = partial(ddim, PROCESS.denoiser(network, "eps"), noise, PROCESS, STEPS)
    return Work(draw, parameters(model), lambda: STEPS * flops())


@torch.no_grad()
def by_scheduler(model: Theirs, z: Tensor, words: Tensor) -> Tensor:
    """The loop of diffusers' pipelines."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.set_timesteps(STEPS)
    both = torch.cat([torch.zeros_like(words), words])
    for t in scheduler.timesteps:
        untold, told = model.body(torch.cat([z, z]), t, both).sample.chunk(2)
        z = scheduler.step(untold + SCALE * (told - untold), t, z).prev_sample
    return z
