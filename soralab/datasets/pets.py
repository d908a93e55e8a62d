"""The Oxford-IIIT pets: photographs of cats and dogs, hardly two of one size (Parkhi et al. 2012, CC BY-SA 4.0).

Not part of the course: `soralab data get oxford_pets` fetches them, 811 MB, as

    FOLDER/oxford_pets/oxford-iiit-pet/images/NAME.jpg        (or FOLDER/oxford_pets_mini/..., a part of them)
    FOLDER/oxford_pets/oxford-iiit-pet/annotations/trainval.txt    one line a photograph: NAME BREED SPECIES NUMBER
    FOLDER/oxford_pets/oxford-iiit-pet/annotations/test.txt

with FOLDER as `soralab.datasets.registry` has it. Photographs that a list names and the folder lacks are left out.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from soralab.datasets.flickr import lines
from soralab.datasets.registry import mend, place
from soralab.files.damage import picture

NAME = "oxford_pets"
LISTS = {"train": "trainval.txt", "test": "test.txt"}  # of each split
BREEDS = 37


def folder() -> Path:
    """Where the photographs are looked for: oxford_pets, or else oxford_pets_mini, as said at the top."""
    return place(NAME) / "oxford-iiit-pet" / "images"


def available() -> bool:
    """Whether the reader has photographs."""
    return any(folder().glob("*.jpg"))


def sizes(count: int | None = None, split: str | None = None) -> list[tuple[int, int]]:
    """(height, width) in pixels of the first `count` photographs (default: all), read from their headers: of a split in
    its list's order, without one of all by name."""
    return [_opened(path, lambda shown: shown.size[::-1], whole=False) for path in _files(count, split)]


def load(sizes: list[tuple[int, int]], split: str | None = None) -> list[Tensor]:
    """The first photographs, ordered as `sizes` has them, at these (height, width): uint8, each [3, height, width]."""
    return [
        _opened(path, lambda shown, size=size: torch.frombuffer(
            bytearray(shown.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC).tobytes()), dtype=torch.uint8
        ).reshape(*size, 3).permute(2, 0, 1))
        for path, size in zip(_files(len(sizes), split), sizes, strict=True)
    ]  # fmt: skip


def breeds(split: str, count: int | None = None) -> Tensor:
    """The breeds of the first `count` photographs of a split (default: all), 0 to BREEDS - 1: [n]."""
    return torch.tensor([breed for _, breed in _listed(split)][: len(_files(count, split))])


def _opened(path: Path, read, whole: bool = True):
    with picture(path, f"remove it, and {mend(NAME)}", whole) as shown:
        return read(shown)


def _files(count: int | None, split: str | None = None) -> list[Path]:
    """The files; raises FileNotFoundError that says where they come from, ValueError for more than there are."""
    found = sorted(folder().glob("*.jpg")) if split is None else [path for path, _ in _listed(split)]
    if not found:
        raise FileNotFoundError(f"there is no photograph in {folder()}: {mend(NAME)}")
    if count is not None and not 1 <= count <= len(found):
        raise ValueError(f"count is {count}; it takes 1 to {len(found)}")
    return found[:count]


def _listed(split: str) -> list[tuple[Path, int]]:
    """The photographs of a split that are there, in its list's order, and the breed of each, from 0. Raises ValueError
    for another split and for a line that is none, FileNotFoundError for a list that is not there."""
    if split not in LISTS:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(LISTS)}")
    found = []
    for line in lines(folder().parent / "annotations" / LISTS[split], mend(NAME)):
        name, breed, *_ = [*line.split(), ""]
        path = folder() / f"{name}.jpg"
        if not (breed.isdigit() and 1 <= int(breed) <= BREEDS and Path(name).name == name and "\\" not in name):
            raise ValueError(f"{LISTS[split]}: got {line[:60]!r}, takes NAME, and a breed from 1 to {BREEDS}")
        found += [(path, int(breed) - 1)] * path.is_file()
    return found
