"""What several papers share: attention, positions, patches, modulation, convolutions. One home for each.

Blocks work on token sequences [batch, tokens, dim], those of `causal` on films with the channels last, those of
`convolution` (whose residual block is `convolution.ResBlock`) and `perception` on pictures [batch, channel, height,
width]; a mask is True where a query may attend a key.
"""

from soralab.blocks.attention import Attention, FeedForward, attention, causal_mask
from soralab.blocks.causal import CausalTime, ResBlock, Space
from soralab.blocks.convolution import SpatialAttention, SpatialTransformer, Upsample
from soralab.blocks.modulation import TimestepEmbedding, modulate
from soralab.blocks.patches import grid_positions, patchify, unpatchify
from soralab.blocks.positions import rotary_angles, rotate, sincos, sincos_grid

__all__ = [
    "Attention", "CausalTime", "FeedForward", "ResBlock", "Space", "SpatialAttention",
    "SpatialTransformer", "TimestepEmbedding", "Upsample", "attention", "causal_mask", "grid_positions", "modulate",
    "patchify", "rotary_angles", "rotate", "sincos", "sincos_grid", "unpatchify",
]  # fmt: skip
