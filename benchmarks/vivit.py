"""Chapter 08: a training step of ViViT's Model 1 beside transformers', of Models 2 and 3 beside vit-pytorch's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rows import Case, Work, training
from soralab.vivit import ViViT, ViViTConfig

TRANSFORMERS, VIT_PYTORCH = "transformers.models.vivit.modeling_vivit", "vit_pytorch.vivit"
VARIANTS = {2: "factorized_encoder", 3: "factorized_self_attention"}


def cases() -> Iterator[Case]:
    """The rows."""
    large = ViViTConfig.b16x2(frames=8, depth=1, classes=14)
    for name, config, films in (("the course's", ViViTConfig(), 16), ("B/16x2, 8 frames, 1 layer", large, 1)):
        ours, theirs = (partial(step, kind, config, films) for kind in (ViViT, OfTransformers))
        yield Case(f"ViViT 1, {name}", ours, "transformers", theirs, (TRANSFORMERS,))
    for model in VARIANTS:
        config = ViViTConfig(model)
        ours, theirs = (partial(step, kind, config, 16) for kind in (ViViT, OfVitPytorch))
        yield Case(f"ViViT {model}, the course's", ours, "vit-pytorch", theirs, (VIT_PYTORCH,))


def step(kind: type[nn.Module], config: ViViTConfig, films: int) -> Work:
    """A training step on noise."""
    shown = torch.randn(films, config.frames, config.channels, config.image, config.image)
    labels = torch.randint(config.classes, (films,))
    return training(kind(config).train(), shown, loss=partial(F.cross_entropy, target=labels))


class OfTransformers(nn.Module):
    """transformers' Model 1 of these sizes."""

    def __init__(self, c: ViViTConfig):
        super().__init__()
        from transformers import VivitConfig, VivitForVideoClassification

        self.model = VivitForVideoClassification(VivitConfig(
            image_size=c.image, num_frames=c.frames, tubelet_size=list(c.tubelet), hidden_size=c.dim,
            num_hidden_layers=c.depth, num_attention_heads=c.heads, intermediate_size=4 * c.dim, hidden_act="gelu",
            num_labels=c.classes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        ))  # fmt: skip

    def forward(self, films: Tensor) -> Tensor:
        """As ours."""
        return self.model(films).logits


class OfVitPytorch(nn.Module):
    """vit-pytorch's Models 2 and 3 of these sizes."""

    def __init__(self, c: ViViTConfig):
        super().__init__()
        from vit_pytorch.vivit import ViViT as Theirs

        self.model = Theirs(
            image_size=c.image, image_patch_size=c.tubelet[1], frames=c.frames, frame_patch_size=c.tubelet[0],
            num_classes=c.classes, dim=c.dim, spatial_depth=c.depth, heads=c.heads,
            temporal_depth=c.temporal_depth if c.model == 2 else c.depth,
            dim_head=c.dim // c.heads, mlp_dim=4 * c.dim, variant=VARIANTS[c.model],
            pool="cls" if c.model == 2 else "mean",
        )  # fmt: skip

    def forward(self, films: Tensor) -> Tensor:
        """As ours; it takes the channels before the time."""
        return self.model(films.transpose(1, 2))
