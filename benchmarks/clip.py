"""Chapter 04 beside open_clip: a training step of our CLIP and of theirs at the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.rows import Case, Work, training
from soralab.clip import CLIP, CLIPConfig, contrastive_loss

TEXT = {"context": 32, "vocabulary": 640, "text_width": 128, "head": 64}
SIZES = {  # pairs a step
    "ViT, patches of 4": (CLIPConfig(layers=4, width=64, patch=4, **TEXT), 64),
    "ViT-B/32, 2 layers": (CLIPConfig(image=224, layers=2, width=768, patch=32, **TEXT), 8),
    "ResNet, 1-1-1-1": (CLIPConfig(image=64, layers=(1, 1, 1, 1), width=32, **TEXT), 32),
}


def cases() -> Iterator[Case]:
    """The rows."""
    for name, size in SIZES.items():
        ours, theirs = partial(step, False, *size), partial(step, True, *size)
        yield Case(f"CLIP, {name}, {size[1]} pairs", ours, "open_clip", theirs, ("open_clip.model",))


def step(open_clip: bool, config: CLIPConfig, pairs: int) -> Work:
    """A training step of our CLIP, or of open_clip's, to the contrastive loss."""
    model = of_open_clip(config) if open_clip else CLIP(config)
    pixels = torch.randn(pairs, 3, config.image, config.image)
    ids = torch.randint(1, config.vocabulary - 2, (pairs, config.context))
    ids[:, -1] = config.vocabulary - 1
    return training(Features(model, open_clip).train(), pixels, ids, loss=lambda out: contrastive_loss(*out))


def of_open_clip(c: CLIPConfig) -> nn.Module:
    """Their model of these sizes."""
    from open_clip.model import CLIP as OpenCLIP

    vision = {"image_size": c.image, "layers": c.layers, "width": c.width}
    vision |= {"patch_size": c.patch} if c.patch else {"head_width": c.head}
    text = {"context_length": c.context, "vocab_size": c.vocabulary, "width": c.text_width,
            "heads": c.text_width // c.head, "layers": c.text_layers}  # fmt: skip
    return OpenCLIP(c.embed, vision, text, quick_gelu=True)


class Features(nn.Module):
    """I_e, T_e and exp(t) of either model."""

    def __init__(self, model: nn.Module, open_clip: bool):
        super().__init__()
        self.model, self.open_clip = model, open_clip

    def forward(self, pixels, ids):
        """pixels [n, 3, image, image], ids [n, context] to ([n, embed], [n, embed], scalar)."""
        if self.open_clip:
            return self.model(pixels, ids)[:3]
        return self.model.encode_image(pixels), self.model.encode_text(ids), self.model.scale
