"""What checks that are written by hand share: numbers to ask with, and what to say of a result."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(got: Tensor, want: Tensor) -> bool:
    """Whether two tensors agree, whatever their precision."""
    return got.shape == want.shape and torch.allclose(got.double(), want.double(), rtol=1e-4, atol=1e-4)


def is_tensor(got, shape: tuple[int, ...], case: str) -> Iterator[tuple[bool, str]]:
    """Probes for the kind and the shape of a result."""
    yield isinstance(got, Tensor), f"{case}: the result is no tensor."
    yield tuple(got.shape) == shape, f"{case}: the result is {list(got.shape)}, it should be {list(shape)}."
