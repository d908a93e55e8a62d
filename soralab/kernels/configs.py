"""How large the tiles are, for each chip, type, head dimension, mask and pass: measured, and held by the tests.

`python -m benchmarks gpu --sweep` measures candidates where there is a GPU. Nothing here needs Triton.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from soralab.kernels.tables import Layout


class Config(NamedTuple):
    """Tile sizes and what the compiler is told: warps a program, tiles loaded ahead, whether by the copy engine."""

    block_q: int
    block_k: int
    warps: int
    stages: int
    bulk: bool = False


def bulk(*numbers: int) -> Config:
    """A configuration whose whole tiles are copied by tensor descriptors."""
    return Config(*numbers, True)


PASSES = ("forward", "backward_q", "backward_k")
# (rows for, bits of a number, head dimension rounded up): {family: the three passes}. A layout's family is "dense",
# "causal", "packed", "windows" (any row map) or "sliding", "wide" where 128 queries have one list of keys. "pointers"
# serves those that have no row of their own here, and tensors that tensor descriptors cannot describe.
# Rows 90 are from times on an H200 (data/benchmarks/gpu.json). Dense: the fastest, with descriptors. Packed and causal:
# the shapes that were fastest for them by pointers (causal, D 128: dense's). Windows and pointers: the fastest.
# Sliding: the fastest where a program owned one tile; keys' gradients, and "wide", as the dense mask by pointers.
# Rows 80 were chosen so that the compiled kernels use tensor cores, spill no register and fit into shared memory; their
# speed was not measured.
CONFIGS = {
    (90, 16, 64): {
        "dense": (bulk(64, 128, 4, 2), bulk(128, 64, 4, 3), bulk(128, 64, 4, 2)),
        "causal": (bulk(128, 64, 8, 3), bulk(64, 128, 4, 3), bulk(64, 64, 4, 2)),
        "packed": (bulk(128, 64, 4, 3), bulk(64, 64, 4, 3), bulk(128, 64, 4, 2)),
        "windows": (Config(128, 64, 4, 3), Config(64, 64, 4, 1), Config(128, 64, 4, 3)),
        "sliding": (Config(64, 64, 4, 3), Config(64, 64, 4, 3), Config(128, 64, 4, 2)),
        "sliding, wide": (Config(128, 64, 4, 3), Config(64, 64, 4, 3), Config(128, 64, 4, 2)),
        "pointers": (Config(128, 64, 4, 3), Config(128, 64, 4, 3), Config(128, 64, 4, 2)),
    },
    (90, 16, 128): {
        "dense": (bulk(64, 64, 4, 3), bulk(128, 64, 8, 3), bulk(64, 64, 4, 2)),
        "causal": (bulk(64, 64, 4, 3), bulk(128, 64, 8, 3), bulk(64, 64, 4, 2)),
        "packed": (bulk(128, 64, 8, 3), bulk(64, 32, 4, 3), bulk(64, 64, 4, 2)),
        "windows": (Config(128, 32, 4, 3), Config(64, 32, 4, 3), Config(64, 64, 4, 3)),
        "sliding": (Config(64, 64, 4, 4), Config(64, 64, 4, 2), Config(64, 64, 4, 3)),
        "sliding, wide": (Config(128, 64, 8, 3), Config(64, 64, 4, 2), Config(64, 64, 4, 2)),
        "pointers": (Config(128, 128, 8, 3), Config(128, 64, 8, 3), Config(64, 64, 4, 2)),
    },
    (80, 16, 64): {"pointers": (Config(128, 64, 8, 2), Config(64, 64, 4, 2), Config(64, 64, 8, 2))},
    (80, 16, 128): {"pointers": (Config(128, 32, 8, 2), Config(64, 32, 4, 2), Config(32, 64, 8, 2))},
    (80, 32, 64): {"pointers": (Config(32, 32, 4, 2), Config(32, 32, 4, 2), Config(32, 32, 8, 2))},
    (80, 32, 128): {"pointers": (Config(32, 32, 8, 2), Config(32, 16, 8, 2), Config(32, 32, 8, 2))},
}


def rows_for(x: Tensor) -> int:
    """Which rows of CONFIGS the tensor's GPU takes: 90 where a program has Hopper's shared memory (data-centre chips of
    capability 9 and 10), else 80, which fits into the 99 KB of the smaller chips, older and newer."""
    large = x.is_cuda and torch.cuda.get_device_capability(x.device)[0] in (9, 10)
    return 90 if large else 80


def config(direction: str, x: Tensor, layout: Layout, describable: bool) -> Config:
    """The configuration of a pass for tensors like x. describable: tensor descriptors can describe what is visited."""
    bits, dim, rows = 16 if x.element_size() == 2 else 32, max(64, block_dim(x.shape[-1])), rows_for(x)
    families = CONFIGS[(rows, bits, dim) if (rows, bits, dim) in CONFIGS else (80, bits, dim)]
    chosen = families.get(layout.family, families["pointers"])[PASSES.index(direction)]
    return chosen if describable or not chosen.bulk else families["pointers"][PASSES.index(direction)]


def block_dim(dim: int) -> int:
    """The head dimension rounded up to a power of two, at least 16: the product of tiles takes nothing else."""
    return max(16, 1 << (dim - 1).bit_length())
