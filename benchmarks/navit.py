"""Chapter 07: a training step on pictures of all sizes, ours packed beside ours padded, timm's, and vit-pytorch's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rows import Case, Work, training
from soralab.datasets.native_sizes import size
from soralab.experiments.navit_speed import COUNT, PaddedNaViT, padded
from soralab.navit import NaViT, collate
from soralab.recipes.navit import CONFIG, LENGTH, SEED, packed


def cases() -> Iterator[Case]:
    """The rows."""
    what = f"NaViT, {COUNT} pictures, packed"
    yield Case(what, partial(step, OnRows), "ours, padded", partial(step, Padded))
    yield Case(what, partial(step, OnRows), "timm NaFlexVit, padded", partial(step, OfTimm), ("timm.models.naflexvit",))
    ours, theirs = partial(step, Packs), partial(step, OfVitPytorch)
    yield Case(f"NaViT, {COUNT} pictures, and packing", ours, "vit-pytorch", theirs, ("vit_pytorch.na_vit",))


def step(kind: type[nn.Module]) -> Work:
    """A training step on noise of the sizes of chapter 07's pictures."""
    generator = torch.Generator().manual_seed(SEED)
    shown = [2 * torch.rand(3, *size(SEED, k), generator=generator) - 1 for k in range(COUNT)]
    labels = torch.randint(CONFIG.classes, (COUNT,), generator=generator)
    model = kind(shown)
    return training(model, shown, loss=partial(F.cross_entropy, target=labels))


class OnRows(nn.Module):
    """Ours, on rows that were packed before: training packs in a thread beside it."""

    def __init__(self, shown: list[Tensor]):
        super().__init__()
        self.model, self.batch = NaViT(CONFIG), packed(shown)

    def forward(self, _: list[Tensor]) -> Tensor:
        """Pictures, each [channel, height, width], to logits [pictures, classes]; here and below."""
        return self.model(**self.batch)


class Padded(OnRows):
    """The same weights, a picture a row, each row as long as the longest."""

    def __init__(self, shown: list[Tensor]):
        super().__init__(shown)
        self.model, self.batch = PaddedNaViT(self.model), padded(shown)


class OfTimm(nn.Module):
    """timm's NaFlexViT of these sizes, on padded rows, which is what it takes."""

    def __init__(self, shown: list[Tensor]):
        super().__init__()
        from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg

        rows = padded(shown)
        self.batch = {"patches": rows["patches"], "patch_coord": rows["places"], "patch_valid": rows["real"]}
        self.model = NaFlexVit(NaFlexVitCfg(
            patch_size=CONFIG.patch, embed_dim=CONFIG.dim, depth=CONFIG.depth, num_heads=CONFIG.heads, qkv_bias=False,
            qk_norm=True, pos_embed="factorized", pos_embed_grid_size=CONFIG.grid, global_pool="map",
        ), num_classes=CONFIG.classes)  # fmt: skip

    def forward(self, _: list[Tensor]) -> Tensor:
        """As ours."""
        return self.model(self.batch)


class Packs(nn.Module):
    """Ours, and its packing, which vit-pytorch's model does in its forward pass."""

    def __init__(self, _: list[Tensor]):
        super().__init__()
        self.model = NaViT(CONFIG)

    def forward(self, shown: list[Tensor]) -> Tensor:
        """As above."""
        return self.model(**collate(shown, CONFIG.patch, LENGTH))


class OfVitPytorch(nn.Module):
    """vit-pytorch's model of these sizes with its packing; its queries and keys are normalised with learned scales."""

    def __init__(self, shown: list[Tensor]):
        super().__init__()
        from vit_pytorch.na_vit import NaViT as Theirs

        longest = max(max(picture.shape) for picture in shown)  # where its tables of positions end
        self.model = Theirs(
            image_size=longest, patch_size=CONFIG.patch, num_classes=CONFIG.classes, dim=CONFIG.dim,
            depth=CONFIG.depth, heads=CONFIG.heads, mlp_dim=4 * CONFIG.dim, dim_head=CONFIG.dim // CONFIG.heads,
        )  # fmt: skip

    def forward(self, shown: list[Tensor]) -> Tensor:
        """As ours."""
        return self.model(shown, group_images=True, group_max_seq_len=LENGTH)
