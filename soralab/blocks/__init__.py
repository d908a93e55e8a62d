"""What several papers share: attention, positions, patches, modulation, convolutions. One home for each.

A block works on token sequences [batch, tokens, dim], those of `convolution` and `perception` on pictures [batch,
channel, height, width]; a mask is True where a query may attend a key.
"""

from soralab.blocks.attention import Attention, FeedForward, attention
from soralab.blocks.convolution import ResBlock, SpatialAttention, SpatialTransformer, Upsample
from soralab.blocks.modulation import TimestepEmbedding, modulate
from soralab.blocks.patches import grid_positions, patchify, unpatchify
from soralab.blocks.positions import sincos, sincos_grid
from soralab.blocks.text import TextEncoder

__all__ = [
    "Attention", "FeedForward", "ResBlock", "SpatialAttention", "SpatialTransformer", "TextEncoder",
    "TimestepEmbedding", "Upsample", "attention", "grid_positions", "modulate", "patchify", "sincos", "sincos_grid",
    "unpatchify",
]  # fmt: skip
