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

from benchmarks.rows import Case, Work
from soralab.kernels import attention, dispatch
from soralab.kernels.configs import bulk
from soralab.training.data import model_flops

LENGTHS = (64, 80, 100, 144, 196, 256, 400, 576)  # tokens of pictures of mixed size, as NaViT packs them
HEADS, DIM = 4, 48  # chapter 16's
CALLS = 100  # in a run


def cases() -> Iterator[Case]:
    """The rows: one batch of pictures packed and padded to the longest; calls of the kernels without the kernels."""
    yield Case(f"attention, {len(LENGTHS)} pictures, packed", packed, "torch, padded", padded)
    if dispatch.why_no_triton():
        return
    for kind in ("dense", "packed"):
        yield Case(f"{CALLS} calls of the kernels, {kind}", partial(calls, kind), memory=False)


def packed() -> Work:
    """Attention within each picture, forwards, by torch's backend."""
    q, k, v = torch.randn(3, sum(LENGTHS), HEADS, DIM)
    work = partial(attention, q, k, v, cu_seqlens_q=torch.tensor([0, *LENGTHS]).cumsum(0), backend="torch")
    return Work(work, flops=partial(model_flops, work))


def padded() -> Work:
    """The same with a mask, each picture as long as the longest."""
    longest = max(LENGTHS)
    q, k, v = torch.randn(3, len(LENGTHS), HEADS, longest, DIM)
    mask = (torch.arange(longest) < torch.tensor(LENGTHS)[:, None])[:, None, None]
    return Work(partial(F.scaled_dot_product_attention, q, k, v, attn_mask=mask))


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


def calls(kind: str) -> Work:
    """What calls cost the processor, forwards and backwards, on "dense" or on "packed" tokens."""
    x, given = torch.randn(3, 1, 4, 16, 64, dtype=torch.bfloat16), {}
    if kind == "packed":
        x, given = x[:, 0].transpose(1, 2), {"cu_seqlens_q": torch.tensor([0, 5, 16], dtype=torch.int32)}
    asked = [part.clone().requires_grad_() for part in x]

    def run() -> None:
        with nothing_started():
            for _ in range(CALLS):
                o = attention(*asked, **given, backend="triton")
                torch.autograd.grad(o, asked, asked[0].detach())

    return Work(run)
