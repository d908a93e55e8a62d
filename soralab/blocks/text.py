"""A small text encoder: words in, one vector a word out, trained together with the model that reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.blocks.attention import Attention, FeedForward
from soralab.blocks.patches import grid_positions
from soralab.blocks.positions import sincos_grid


class TextEncoder(nn.Module):
    """Word ids [batch, words] (0 is padding) to one vector a word, and one for the whole prompt.

    A learned start token stands before the words. A prompt of nothing but padding is the null prompt of
    classifier-free guidance: then the start token is all there is to read.
    """

    def __init__(self, vocabulary: int, dim: int, words: int = 48, depth: int = 2, heads: int = 4):
        super().__init__()
        self.words = words
        self.embed = nn.Embedding(vocabulary, dim)
        self.start = nn.Parameter(torch.randn(dim) * 0.02)
        self.register_buffer("position", sincos_grid(grid_positions((words + 1,)), (dim,)), persistent=False)
        self.layers = nn.ModuleList(TextLayer(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.embed.weight, std=0.5)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (tokens [batch, 1 + words, dim], mask [batch, 1 + words], True = a word)."""
        x = torch.cat([self.start.expand(len(ids), 1, -1), self.embed(ids)], dim=1)
        mask = F.pad(ids > 0, (1, 0), value=True)
        x = x + self.position[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, mask[:, None, None])
        return self.norm(x), mask


class TextLayer(nn.Module):
    """A pre-norm Transformer layer."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), FeedForward(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [batch, tokens, dim], mask [batch, 1, 1, tokens]."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.mlp(self.norm2(x))
