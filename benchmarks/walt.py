"""Chapter 11: attention in windows beside full attention and beside torch's with a mask of blocks; a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.spine import side_by_side
from soralab.experiments.walt_ablations import WINDOWS, attention_flops, step_seconds
from soralab.recipes.walt import Latents, load_autoencoder
from soralab.walt import InWindows

SIZES = ((3, 6, 6), (3, 12, 12), (5, 16, 16))  # films in tokens: the shipped model's, twice its sides, the paper's
BATCH, HEADS, DIM = 4, 4, 32


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured: forward and backward pass, float32."""
    for t, h, w in SIZES:
        for window in ((1, h, w), (t, h // 2, w // 2)):
            yield attention_line((t, h, w), window)
    few = replace(WINDOWS, scenes=50)
    full = replace(few, config=replace(few.config, windows=None))
    seconds = step_seconds([few, full], Latents(load_autoencoder(), few))
    share = attention_flops(few) / attention_flops(full)
    ratio = seconds[0] / seconds[1]
    yield (f"W.A.L.T a step of {few.batch} films of 9x{few.side}x{few.side}: in windows {seconds[0]:.2f} s, full "
           f"{seconds[1]:.2f} s: ratio {ratio:.2f}, {share:.2f} of attention's operations")  # fmt: skip


def attention_line(size: tuple[int, int, int], window: tuple[int, int, int]) -> str:
    """One kind of window on films of `size` tokens: by packed rows, by a mask of blocks, and without windows."""
    n = size[0] * size[1] * size[2]
    q, k, v = (torch.randn(BATCH, HEADS, n, DIM, requires_grad=True) for _ in range(3))
    places = torch.cartesian_prod(*(torch.arange(side) for side in size)) // torch.tensor(window)
    mask = (places[:, None] == places[None]).all(-1)
    ways = (InWindows(size, window), partial(F.scaled_dot_product_attention, attn_mask=mask), InWindows(size, size))
    times = [1e3 * each for each in side_by_side(*(partial(step, way, q, k, v) for way in ways))]
    shape, cut = ("x".join(map(str, of)) for of in (size, window))
    return (f"W.A.L.T {shape:8s} in windows {cut:8s}{times[0]:8.1f} ms, torch with a mask {times[1]:8.1f} ms, full "
            f"{times[2]:8.1f} ms: ratio {times[0] / times[2]:.2f}")  # fmt: skip


def step(attention: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> None:
    """One forward and backward pass."""
    attention(q, k, v).sum().backward()
