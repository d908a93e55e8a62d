"""Chapter 17 on the processor: what packing saves, by torch's backend, and what a call of the kernels costs before
anything is computed. The kernels themselves need a GPU: see gpu.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks.spine import seconds
from soralab.kernels import attention, dispatch
from soralab.kernels.configs import bulk

LENGTHS = (64, 80, 100, 144, 196, 256, 400, 576)  # tokens of pictures of mixed size, as NaViT packs them
HEADS, DIM = 4, 48  # chapter 16's


def run() -> Iterator[str]:
    """The benchmark's lines: one batch of pictures, packed, padded to the longest, and each by itself."""
    q, k, v = torch.randn(3, sum(LENGTHS), HEADS, DIM)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0)
    packed = seconds(lambda: attention(q, k, v, cu_seqlens_q=bounds, backend="torch"))

    longest = max(LENGTHS)
    padded = torch.randn(3, len(LENGTHS), HEADS, longest, DIM)
    mask = (torch.arange(longest) < torch.tensor(LENGTHS)[:, None])[:, None, None]
    full = seconds(lambda: F.scaled_dot_product_attention(*padded, attn_mask=mask))

    pairs, padded_pairs = sum(n * n for n in LENGTHS), len(LENGTHS) * longest**2
    yield (f"attention over {len(LENGTHS)} pictures of {min(LENGTHS)} to {longest} tokens, torch's backend: packed "
           f"{1e3 * packed:.1f} ms, padded {1e3 * full:.1f} ms: ratio {full / packed:.1f}; "
           f"{padded_pairs / pairs:.1f} times as many pairs when padded")  # fmt: skip
    yield from call_work()


class Nothing:
    """A kernel, before and after it is compiled, that starts nothing."""

    def __getitem__(self, grid: tuple) -> Callable:
        return lambda *given, **options: self


@contextmanager
def nothing_started() -> Iterator[None]:
    """Triton's backend on tensors of the processor, with all of a call's work but the start of its kernels."""
    from soralab.kernels import triton_launch

    chosen = {("triton", torch.device("cpu"), torch.bfloat16): "triton"}
    kernels = SimpleNamespace(forward=Nothing(), backward_q=Nothing(), backward_k=Nothing())
    changed = dict(kernels=kernels, INTERPRETED=False, config=lambda *_: bulk(64, 64, 4, 2))
    with mock.patch.multiple(triton_launch, **changed), mock.patch.dict(dispatch._CHOSEN, chosen):
        triton_launch.tables.dense.cache_clear()
        yield
        triton_launch.tables.dense.cache_clear()


def call_work() -> Iterator[str]:
    """What a call costs the processor, forwards and with a backward pass, dense and packed."""
    if dispatch.why_no_triton():
        yield f"a call of the kernels: not measured, {dispatch.why_no_triton()}"
        return
    dense = torch.randn(3, 1, 4, 16, 64, dtype=torch.bfloat16)
    bounds = torch.tensor([0, 5, 16], dtype=torch.int32)
    for name, x, given in (("dense", dense, {}), ("packed", dense[:, 0].transpose(1, 2), {"cu_seqlens_q": bounds})):
        call = partial(attention, **given, backend="triton")
        asked = [part.clone().requires_grad_() for part in x]
        with nothing_started():
            forward, both = (1e6 * seconds(work, 1000) for work in (partial(call, *x), partial(gradients, call, asked)))
        yield f"a call of the kernels, {name}, without them: {forward:.0f} us forwards, {both:.0f} us with gradients"


def gradients(call: Callable, asked: list[torch.Tensor]) -> None:
    """Forwards and backwards."""
    torch.autograd.grad(call(*asked), asked, asked[0].detach())
