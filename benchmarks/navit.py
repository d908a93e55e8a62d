"""Chapter 07: a training step on pictures of all sizes, packed, padded and squeezed; with fewer tokens; beside timm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.spine import side_by_side
from soralab.datasets.native_sizes import pictures
from soralab.experiments.navit_speed import COUNT, dropping, padded, step, throughput
from soralab.navit import NaViT
from soralab.recipes.navit import CONFIG, SEED, packed


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured: forward and backward pass, float32."""
    table = throughput()
    for way, row in table.items():
        ratio = row["pictures a second"] / table["padded"]["pictures a second"]
        yield (f"NaViT {way:14s}{row['pictures a second']:8.1f} pictures a second, {row['padding']:.1%} padding: "
               f"{ratio:.2f} times padded")  # fmt: skip
    speeds = dropping()
    for rate, value in speeds.items():
        times = value / speeds["0.0"]
        yield f"NaViT {float(rate):4.0%} dropped{value:13.1f} pictures a second: {times:.2f} times whole"
    yield beside_timm()


def beside_timm(count: int = COUNT) -> str:
    """Ours packed and timm's NaFlexViT padded, of the same sizes, on the same pictures."""
    from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg

    shown, labels = pictures(SEED, range(count))
    batch, row = padded(shown), {"label": labels, **packed(shown)}
    theirs = NaFlexVit(NaFlexVitCfg(
        patch_size=CONFIG.patch, embed_dim=CONFIG.dim, depth=CONFIG.depth, num_heads=CONFIG.heads, qkv_bias=False,
        qk_norm=True, pos_embed="factorized", pos_embed_grid_size=CONFIG.grid, global_pool="map",
    ), num_classes=CONFIG.classes)  # fmt: skip
    given = {"patches": batch["patches"], "patch_coord": batch["places"], "patch_valid": batch["real"]}
    times = side_by_side(partial(step, NaViT(CONFIG), row), partial(their_step, theirs, given, labels))
    return (f"NaViT packed{1e3 * times[0]:10.1f} ms a step of {count} pictures, timm's NaFlexViT padded "
            f"{1e3 * times[1]:8.1f} ms: ratio {times[0] / times[1]:.2f}")  # fmt: skip


def their_step(model: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> None:
    """One forward and backward pass of timm's model."""
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch), labels).backward()
