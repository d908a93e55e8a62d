"""Chapter 04 beside open_clip: a training step of our CLIP and of theirs, at the same sizes with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.spine import side_by_side
from soralab.clip import CLIP, contrastive_loss
from soralab.training.data import model_flops, peak_gflops

TEXT = {"context_length": 32, "vocab_size": 640, "width": 128, "heads": 2, "layers": 2}
SIZES = {  # open_clip's description of the image tower, pairs a step
    "ViT, patches of 4": ({"image_size": 32, "layers": 4, "width": 64, "patch_size": 4}, 64),
    "ViT-B/32, 2 layers": ({"image_size": 224, "layers": 2, "width": 768, "patch_size": 32}, 8),
    "ResNet, 1-1-1-1": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 32}, 32),
}


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured: forward and backward pass, float32."""
    peak = peak_gflops()
    for name, (vision, pairs) in SIZES.items():
        theirs, ours = pair(vision)
        pixels = torch.randn(pairs, 3, vision["image_size"], vision["image_size"])
        ids = torch.randint(1, 638, (pairs, 32))
        ids[:, -1] = 639
        flops = 3 * model_flops(ours, pixels, ids)
        both = ((ours, our_features), (theirs, their_features))
        times = side_by_side(*(partial(step, model, features, pixels, ids) for model, features in both))
        yield (f"CLIP {name:19s}{1e3 * times[0]:8.1f} ms a step, open_clip's {1e3 * times[1]:8.1f} ms: ratio "
               f"{times[0] / times[1]:.2f}; {flops / times[0] / 1e9:4.0f} of {peak:4.0f} GFLOP/s")  # fmt: skip


def pair(vision: dict) -> tuple[nn.Module, CLIP]:
    """open_clip's model of these sizes, and ours with its weights."""
    from open_clip.model import CLIP as OpenCLIP

    theirs = OpenCLIP(64, vision, TEXT, quick_gelu=True)
    return theirs.train(), CLIP.from_openai(theirs.state_dict()).train()


def our_features(model: CLIP, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """I_e, T_e and exp(t) of our model."""
    return model.encode_image(pixels), model.encode_text(ids), model.scale


def their_features(model: nn.Module, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of open_clip's."""
    return model(pixels, ids)


def step(model: nn.Module, features: Callable, pixels: Tensor, ids: Tensor) -> None:
    """One forward and backward pass."""
    model.zero_grad(set_to_none=True)
    contrastive_loss(*features(model, pixels, ids)).backward()
