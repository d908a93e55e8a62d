"""Chapter 03 beside torchvision: a training step of our ViT and of theirs, at the same sizes with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from benchmarks.spine import side_by_side
from soralab.training.data import model_flops, peak_gflops
from soralab.vit import ViT

SIZES = {  # image, patch, dim, depth, heads, classes, pictures a step
    "the course's": (32, 4, 64, 4, 4, 54, 32),
    "B/32, 2 layers": (224, 32, 768, 2, 12, 1000, 8),
    "B/16, 2 layers": (224, 16, 768, 2, 12, 1000, 2),
}


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured: forward and backward pass, float32."""
    peak = peak_gflops()
    for name, size in SIZES.items():
        theirs, ours = pair(size)
        image, pictures = size[0], size[-1]
        pixels, labels = torch.randn(pictures, 3, image, image), torch.randint(0, size[5], (pictures,))
        flops = 3 * model_flops(ours, pixels)
        times = side_by_side(*(partial(step, model, pixels, labels) for model in (ours, theirs)))
        yield (f"ViT {name:16s}{1e3 * times[0]:8.1f} ms a step, torchvision's {1e3 * times[1]:8.1f} ms: ratio "
               f"{times[0] / times[1]:.2f}; {flops / times[0] / 1e9:4.0f} of {peak:4.0f} GFLOP/s")  # fmt: skip


def pair(size: tuple[int, ...]) -> tuple[nn.Module, ViT]:
    """torchvision's model of these sizes, and ours with its weights."""
    image, patch, dim, depth, heads, classes, _ = size
    theirs = VisionTransformer(image, patch, depth, heads, dim, 4 * dim, num_classes=classes)
    return theirs.train(), ViT.from_torchvision(theirs).train()


def step(model: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    """One forward and backward pass."""
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(pixels), labels).backward()
