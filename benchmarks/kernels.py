"""Chapter 17 on the processor: what packing saves, by torch's backend. The kernels need a GPU: see gpu.py."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.spine import seconds
from soralab.kernels import attention

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
