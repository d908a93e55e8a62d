"""The contrastive loss of many pairs without the table of all their products (NaViT, 2307.06304, section 2.3)."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chunked_contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor | float, chunk: int) -> Tensor:
    """Chapter 04's loss of n pairs without its n x n logits (section 2.3): a scalar.

    images, texts [n, embed], unit vectors; chunk: rows of logits that are held at once, from 1. A packed row holds
    several pictures, and logits grow by the square of their number. A chunk is computed again in the backward pass.
    """
    if images.shape != texts.shape or images.ndim != 2 or not len(images) or chunk < 1:
        got = f"{list(images.shape)}, {list(texts.shape)}, {chunk}"
        raise ValueError(f"images, texts, chunk: got {got}; takes n pairs of one width, and a chunk from 1")

    def share(part: Tensor, others: Tensor, start: int) -> Tensor:
        logits = scale * part @ others.T
        return (logits.logsumexp(1) - logits.diagonal(start)).sum()

    ways = ((images, texts), (texts, images))
    parts = ((ask[a : a + chunk], answer, a) for ask, answer in ways for a in range(0, len(ask), chunk))
    return sum(checkpoint(share, *part, use_reentrant=False) for part in parts) / (2 * len(images))
