"""What several papers share: attention, positions, patches, modulation. One home for each.

Every block works on token sequences [batch, tokens, dim]; a mask is True where a query may attend a key.
"""

from soralab.blocks.attention import Attention, FeedForward, attention
from soralab.blocks.modulation import TimestepEmbedding, modulate
from soralab.blocks.patches import grid_positions, patchify, unpatchify
from soralab.blocks.positions import rotary_angles, rotate, sincos, sincos_grid
from soralab.blocks.text import TextEncoder

__all__ = [
    "Attention", "FeedForward", "TextEncoder", "TimestepEmbedding", "attention", "grid_positions", "modulate",
    "patchify", "rotary_angles", "rotate", "sincos", "sincos_grid", "unpatchify",
]  # fmt: skip
