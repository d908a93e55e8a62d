"""FlashAttention in Triton and its reference in torch, for dense, causal, packed, windowed and sliding-tile attention.

`attention` and `sliding_tile_attention` are what models call; nothing imports triton until its backend is chosen.
    dispatch.py        the functions, their arguments' checks, torch's backend
    tables.py          which tiles meet: built once a batch, for every layer and both directions
    triton_kernels.py  the three kernels
    configs.py         how large their tiles are, by chip, type and mask
    triton_launch.py   starting them, for autograd and torch.compile
"""

from soralab.kernels.dispatch import Packed, attention, sliding_tile_attention
from soralab.kernels.tables import PAD, segments, windows

__all__ = ["PAD", "Packed", "attention", "segments", "sliding_tile_attention", "windows"]
