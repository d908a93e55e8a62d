"""How fast chapter 07's ways of feeding pictures of all sizes are: packed, padded to the longest, squeezed to squares.

Times are measured in turns, so that what disturbs one way disturbs all, and are for ratios: a second here is no second
elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.datasets.native_sizes import pictures
from soralab.experiments.navit_scores import RATES, squares
from soralab.navit import NaViT, keep
from soralab.recipes.navit import CONFIG, SEED, loss, packed
from soralab.vit import ViT, ViTConfig

COUNT = 128  # pictures a step


@dataclass(frozen=True)
class Padded:
    """How a batch of padded rows attends, in the place of `soralab.kernels.Packed`: dense, padding masked as a key."""

    real: Tensor  # [rows, length], True where there is a token

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [rows * length, heads, 1, d], or one query a row; returns its shape."""
        rows = len(self.real)
        q, k, v = (rearrange(x, "(rows place) heads 1 d -> rows heads place d", rows=rows) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.real[:, None, None])
        return rearrange(out, "rows heads place d -> (rows place) heads 1 d")


class PaddedNaViT(nn.Module):
    """A NaViT's weights on one picture a row, all rows as long as the longest picture: the habit before packing."""

    def __init__(self, model: NaViT):
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor, places: Tensor, sizes: Tensor, real: Tensor) -> Tensor:
        """As NaViT's: logits [rows, classes]. real [rows, length] is True where there is a token."""
        model, attend = self.model, Padded(real)
        z = model.embed(patches) + model.positions(places, sizes[:, None].expand_as(places))
        z = rearrange(z, "row place dim -> (row place) 1 dim")
        for block in model.blocks:
            z = block(z, attend)
        return model.head(model.pool(model.norm(z), attend, len(real)))


def padded(shown: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pictures [channel, height, width] as one row each, as long as the longest; for `PaddedNaViT`."""
    longest = max(picture[0].numel() // CONFIG.patch**2 for picture in shown)
    rows = [packed([picture], longest) for picture in shown]
    batch = {name: torch.cat([row[name] for row in rows]) for name in ("patches", "places", "sizes", "ids")}
    batch["real"] = batch.pop("ids") == 0
    return batch


def in_turns(works: dict[str, Callable[[], object]], times: int = 5) -> dict[str, float]:
    """The best of `times` runs of each, in turns, seconds; one run of each does not count."""
    best = dict.fromkeys(works, float("inf"))
    for run in range(times + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if run:
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def step(model: nn.Module, batch: dict[str, Tensor]) -> None:
    """One forward and backward pass."""
    model.zero_grad(set_to_none=True)
    loss(model, batch, torch.Generator())[0].backward()


@contextmanager
def seeded() -> Iterator[None]:
    """Weights are drawn from a fixed seed inside; what the caller draws afterwards is as if nothing had been."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed would reach a GPU's generator too
        yield


def throughput(count: int = COUNT, times: int = 9) -> dict[str, dict[str, float]]:
    """{way: {"pictures a second", "padding"}} of a training step on the same `count` pictures; no optimizer."""
    shown, labels = pictures(SEED, range(count))
    with seeded():
        model, square = NaViT(CONFIG), ViT(ViTConfig(classes=CONFIG.classes, hidden=CONFIG.dim))
    batches = {"packed": packed(shown), "padded": padded(shown), "squares": {"pixels": squares(shown)}}
    models = {"packed": model, "padded": PaddedNaViT(model), "squares": square}
    works = {way: partial(step, models[way], batch | {"label": labels}) for way, batch in batches.items()}
    padding = {"packed": batches["packed"]["ids"] < 0, "padded": ~batches["padded"]["real"]}
    return {
        way: {"pictures a second": round(count / took, 1),
              "padding": round(padding[way].float().mean().item(), 4) if way in padding else 0.0}
        for way, took in in_turns(works, times).items()
    }  # fmt: skip


def dropping(count: int = COUNT, times: int = 9) -> dict[str, float]:
    """Pictures a second in a training step where this share of the tokens is dropped before packing, at RATES."""
    shown, labels = pictures(SEED, range(count))
    with seeded():
        model, generator = NaViT(CONFIG), torch.Generator().manual_seed(SEED)
    counts = [picture[0].numel() // CONFIG.patch**2 for picture in shown]
    works = {}
    for rate in RATES:
        batch = packed(shown, kept=[keep(n, rate, generator) for n in counts])
        works[str(rate)] = partial(step, model, {"label": labels, **batch})
    return {rate: round(count / took, 1) for rate, took in in_turns(works, times).items()}
