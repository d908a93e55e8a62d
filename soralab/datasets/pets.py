"""The Oxford-IIIT pets: photographs of cats and dogs, hardly two of one size (Parkhi et al. 2012, CC BY-SA 4.0).

Not part of the course: `soralab data get oxford_pets` fetches them, 811 MB, as

    FOLDER/oxford_pets/oxford-iiit-pet/images/NAME.jpg        (or FOLDER/oxford_pets_mini/..., a part of them)

with FOLDER as `soralab.datasets.registry` has it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from soralab.datasets.registry import mend, place
from soralab.files.damage import picture

NAME = "oxford_pets"


def folder() -> Path:
    """Where the photographs are looked for: oxford_pets, or else oxford_pets_mini, as said at the top."""
    return place(NAME) / "oxford-iiit-pet" / "images"


def available() -> bool:
    """Whether the reader has photographs."""
    return any(folder().glob("*.jpg"))


def sizes(count: int | None = None) -> list[tuple[int, int]]:
    """(height, width) in pixels of the first `count` photographs by name (default: all), read from their headers."""
    return [_opened(path, lambda shown: shown.size[::-1], whole=False) for path in _files(count)]


def load(sizes: list[tuple[int, int]]) -> list[Tensor]:
    """The first photographs by name, resized to these (height, width): uint8, each [3, height, width]."""
    return [
        _opened(path, lambda shown, size=size: torch.frombuffer(
            bytearray(shown.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC).tobytes()), dtype=torch.uint8
        ).reshape(*size, 3).permute(2, 0, 1))
        for path, size in zip(_files(len(sizes)), sizes, strict=True)
    ]  # fmt: skip


def _opened(path: Path, read, whole: bool = True):
    with picture(path, f"remove it, and {mend(NAME)}", whole) as shown:
        return read(shown)


def _files(count: int | None) -> list[Path]:
    """The files; raises FileNotFoundError that says where they come from, ValueError for more than there are."""
    found = sorted(folder().glob("*.jpg"))
    if not found:
        raise FileNotFoundError(f"there is no photograph in {folder()}: {mend(NAME)}")
    if count is not None and not 1 <= count <= len(found):
        raise ValueError(f"count is {count}; it takes 1 to {len(found)}")
    return found[:count]
