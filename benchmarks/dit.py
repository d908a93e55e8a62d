"""Chapter 16: a training step of DiT beside diffusers' DiTTransformer2DModel at the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.rows import Case, Work, training
from soralab.dit import DiT, DiTConfig

DIT = "diffusers.models.transformers.dit_transformer_2d"
SIZES = {  # sizes, latents a step
    "S/2, 2 layers": (DiTConfig.published("S/2", depth=2), 4),
    "B/4, 2 layers": (DiTConfig.published("B/4", depth=2), 4),
}


def cases() -> Iterator[Case]:
    """The rows."""
    for name, (config, latents) in SIZES.items():
        ours, theirs = (partial(step, kind, config, latents) for kind in (DiT, Theirs))
        yield Case(f"DiT, {name}, {latents} latents", ours, "diffusers", theirs, (DIT,))


def step(kind: type[nn.Module], config: DiTConfig, latents: int) -> Work:
    """A training step on noise."""
    x = torch.randn(latents, 1, config.channels, *config.size[1:])
    labels = torch.randint(config.classes, (latents,))
    return training(kind(config).train(), x, torch.rand(latents).clamp(min=0.001), labels)


class Theirs(nn.Module):
    """diffusers' model of these sizes; each of its blocks has the embeddings of time and label once more."""

    def __init__(self, c: DiTConfig):
        super().__init__()
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        self.model = DiTTransformer2DModel(
            c.heads, c.dim // c.heads, in_channels=c.channels, out_channels=2 * c.channels, num_layers=c.depth,
            sample_size=c.size[1], patch_size=c.patch[1], activation_fn="gelu-approximate",
            num_embeds_ada_norm=c.classes, norm_eps=1e-6,
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """As ours."""
        return self.model(x[:, 0], timestep=1000 * t - 1, class_labels=y).sample
