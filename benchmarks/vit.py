"""Chapter 03 beside torchvision and timm: a training step at the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.rows import Case, Work, training
from soralab.vit import ViT, ViTConfig

TORCHVISION, TIMM = "torchvision.models.vision_transformer", "timm.models.vision_transformer"
SIZES = {  # pictures a step
    "the course's": (ViTConfig(classes=54), 32),
    "B/32, 2 layers": (ViTConfig.b32(depth=2), 8),
    "B/16, 2 layers": (ViTConfig.b16(depth=2), 2),
}


def cases() -> Iterator[Case]:
    """The rows."""
    for name, size in SIZES.items():
        ours, theirs = partial(step, "ours", *size), partial(step, "torchvision", *size)
        yield Case(f"ViT, {name}, {size[1]} pictures", ours, "torchvision", theirs, (TORCHVISION,))
    yield Case(f"ViT, {name}, {size[1]} pictures", ours, "timm", partial(step, "timm", *size), (TIMM,))


def step(whose: str, c: ViTConfig, pictures: int) -> Work:
    """A training step of `whose` model."""
    if whose == "torchvision":
        from torchvision.models.vision_transformer import VisionTransformer

        model = VisionTransformer(c.image, c.patch, c.depth, c.heads, c.dim, 4 * c.dim, num_classes=c.classes)
    elif whose == "timm":
        from timm.models.vision_transformer import VisionTransformer

        model = VisionTransformer(
            c.image, c.patch, num_classes=c.classes, embed_dim=c.dim, depth=c.depth, num_heads=c.heads
        )
    else:
        model = ViT(c)
    pixels, labels = torch.randn(pictures, 3, c.image, c.image), torch.randint(0, c.classes, (pictures,))
    return training(model, pixels, loss=partial(F.cross_entropy, target=labels))
