"""The Oxford-IIIT pets: photographs of cats and dogs, hardly two of one size (Parkhi et al. 2012, CC BY-SA 4.0).

Not part of the course: the reader puts them in a folder, as

    FOLDER/oxford_pets/oxford-iiit-pet/images/NAME.jpg        (or FOLDER/oxford_pets_mini/..., a part of them)

with FOLDER the one that the environment variable SORALAB_DATA names, or data/downloads in the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from soralab.files.damage import damage_named

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
WHERE_FROM = (
    "get them with torchvision.datasets.OxfordIIITPet(FOLDER / 'oxford_pets', download=True), where there is a network"
)


def folder() -> Path:
    """Where the photographs are looked for: oxford_pets, or else oxford_pets_mini, as said at the top."""
    root = Path(os.environ.get("SORALAB_DATA") or DOWNLOADS)
    names = [name for name in ("oxford_pets", "oxford_pets_mini") if (root / name).is_dir()] or ["oxford_pets"]
    return root / names[0] / "oxford-iiit-pet" / "images"


def available() -> bool:
    """Whether the reader has photographs."""
    return any(folder().glob("*.jpg"))


def sizes(count: int | None = None) -> list[tuple[int, int]]:
    """(height, width) in pixels of the first `count` photographs by name (default: all), read from their headers."""
    return [_opened(path, lambda picture: picture.size[::-1]) for path in _files(count)]


def load(sizes: list[tuple[int, int]]) -> list[Tensor]:
    """The first photographs by name, resized to these (height, width): uint8, each [3, height, width]."""
    return [
        _opened(path, lambda picture, size=size: torch.frombuffer(
            bytearray(picture.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC).tobytes()), dtype=torch.uint8
        ).reshape(*size, 3).permute(2, 0, 1))
        for path, size in zip(_files(len(sizes)), sizes, strict=True)
    ]  # fmt: skip


def _opened(path: Path, read):
    with damage_named(path, WHERE_FROM), Image.open(path) as picture:
        return read(picture)


def _files(count: int | None) -> list[Path]:
    """The files; raises FileNotFoundError that says where they come from, ValueError for more than there are."""
    found = sorted(folder().glob("*.jpg"))
    if not found:
        raise FileNotFoundError(f"there is no photograph in {folder()}: {WHERE_FROM}, or set SORALAB_DATA to the "
                                "folder that holds oxford_pets/")  # fmt: skip
    if count is not None and not 1 <= count <= len(found):
        raise ValueError(f"count is {count}; it takes 1 to {len(found)}")
    return found[:count]
