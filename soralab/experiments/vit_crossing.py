"""Chapter 03's crossing: the ViT and a small ResNet of as many FLOPs, as data grows (figure 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.datasets.by_kind import CLASSES as TEN
from soralab.datasets.by_kind import labelled
from soralab.datasets.what_and_where import CLASSES, Batches, frames
from soralab.experiments.vit_scores import TEST_FRAMES, accuracy
from soralab.recipes.vit import BATCH, CONFIG, SEED, TRAINING, fit
from soralab.training.data import model_flops
from soralab.vit import ViT


class Residual(nn.Module):
    """norm, ReLU, 3 x 3 convolution, twice, plus the input (He et al. 2016, 1603.05027), with GroupNorm as in BiT."""

    def __init__(self, dim_in: int, dim_out: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, dim_in), nn.GroupNorm(8, dim_out)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(dim_in, dim_out, 1, stride, bias=False) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, dim_in, height, width] to [batch, dim_out, height / stride, width / stride]."""
        h = F.relu(self.norm1(x))
        return (self.skip(h) if self.skip else x) + self.conv2(F.relu(self.norm2(self.conv1(h))))


class ResNet(nn.Module):
    """A small residual network with as many FLOPs as the small ViT, and about as many parameters."""

    def __init__(self, channels: int = 3, classes: int = CLASSES, widths: tuple[int, ...] = (32, 64, 96)):
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, stride=2, padding=1, bias=False)
        dims = (widths[0], *widths)
        self.blocks = nn.Sequential(
            Residual(widths[0], widths[0], 1),
            *(Residual(a, b, 1 if k == 0 else 2) for k, (a, b) in enumerate(zip(dims, widths, strict=False))),
        )
        self.norm, self.head = nn.GroupNorm(8, widths[-1]), nn.Linear(widths[-1], classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, channel, height, width] in [-1, 1] to [batch, classes]; the mean over all places is read."""
        return self.head(F.relu(self.norm(self.blocks(self.stem(pixels)))).mean((2, 3)))


def shuffled(pictures: Tensor, patch: int = CONFIG.patch) -> Tensor:
    """Pictures [n, channel, height, width] with their patches in another order, the same one for all of them.

    A ViT cannot tell: it would learn the positions in that order. What a convolution takes for granted, that near
    pixels belong together, no longer holds across the patches' edges.
    """
    rows = pictures.shape[2] // patch
    patches = rearrange(pictures, "n c (r p) (s q) -> n (r s) c p q", p=patch, q=patch)
    order = torch.randperm(patches.shape[1], generator=torch.Generator().manual_seed(SEED))
    return rearrange(patches[:, order], "n (r s) c p q -> n c (r p) (s q)", r=rows)

ARMS = ("ViT", "ResNet", "ResNet, patches shuffled")
SEEDS = (1, 2, 3)
WORLD_STEPS = {300: 1000, 1000: 1500, 3000: 2000, 10_000: 3000, 30_000: 6000}  # of training, by number of pictures
MNIST_STEPS = {300: 600, 3000: 1000, 60_000: 2000}
ARM_TRAINING = replace(TRAINING, warmup=100, ema=0.99)


def builder(arm: str, channels: int = 3, image: int = 32, classes: int = CLASSES) -> Callable[[], nn.Module]:
    """What makes a fresh network of an arm."""
    if arm == "ViT":
        return partial(ViT, replace(CONFIG, channels=channels, image=image, classes=classes, hidden=0))
    return partial(ResNet, channels, classes)


def costs() -> dict[str, dict[str, int]]:
    """Parameters and multiply-accumulates of one frame, of both networks."""
    table = {}
    for arm in ARMS[:2]:
        model = builder(arm)()
        pixels = torch.zeros(1, 3, CONFIG.image, CONFIG.image)
        table[arm] = {"parameters": sum(p.numel() for p in model.parameters()), "macs": model_flops(model, pixels) // 2}
    return table


def crossing(
    folder: Path, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, steps: dict[int, int]
) -> dict[str, dict[str, list[float]]]:
    """Test accuracies {arm: {number of training pictures: [one for each seed]}}.

    train, test: (pictures, labels). steps: of training, by number of pictures, the same for all arms. The first and the
    last size run with SEEDS, those between with the first seed alone; another seed also draws other pictures.
    """
    table = {arm: {} for arm in ARMS}
    channels, image = train[0].shape[1], train[0].shape[2]
    for arm in ARMS:
        change = shuffled if "shuffled" in arm else lambda pictures: pictures
        for size in steps:
            for seed in SEEDS if size in (min(steps), max(steps)) else SEEDS[:1]:
                order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))[:size]
                batches = Batches(change(train[0][order]), train[1][order], BATCH, seed)
                where = folder / f"{arm.replace(', ', '_').replace(' ', '_')}_{size}_{seed}"
                training = replace(ARM_TRAINING, steps=steps[size], seed=seed, save_every=steps[size])
                model, _ = fit(builder(arm, channels, image, classes), training, batches, where)
                table[arm].setdefault(str(size), []).append(accuracy(model, change(test[0]), test[1]))
    return table


def world_crossing(folder: Path, steps: dict[int, int] = WORLD_STEPS, count: int = TEST_FRAMES) -> dict:
    """The crossing on the world's frames, tested on the first `count` of the split "test"."""
    pool = frames(SEED + 1, range(max(steps)))
    return crossing(folder, pool, frames(SEED, range(count), split="test"), CLASSES, steps)


def mnist_crossing(
    folder: Path, steps: dict[int, int] = MNIST_STEPS, count: int = 10_000, name: str = "mnist"
) -> dict:
    """The same on MNIST, or another set of its kind, and `count` of its test pictures. Raises FileNotFoundError where
    there are none."""
    pictures, labels = labelled(name, "test")
    return crossing(folder, labelled(name, "train"), (pictures[:count], labels[:count]), TEN, steps)
