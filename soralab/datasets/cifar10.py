"""CIFAR-10: 50,000 pictures of ten kinds of things to learn from, 10,000 to be judged on, 32 x 32 (Krizhevsky 2009).

Not part of the course: `soralab data get cifar10` fetches the set's binary version, 170 MB, as

    FOLDER/cifar10/cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin

with FOLDER as `soralab.datasets.registry` has it. The better known Python version is in pickles, which run what code
they hold when they are read; so nothing here reads it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soralab.datasets.registry import mend, place
from soralab.files.damage import damage_named

NAME = "cifar10"
SIDE, CLASSES = 32, 10
BATCH = 10_000  # pictures in a file, each a byte of its class and then 32 x 32 of red, of green, of blue
KINDS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}


def folder() -> Path:
    """Where the pictures are looked for."""
    return place(NAME) / "cifar-10-batches-bin"


def available() -> bool:
    """Whether the reader has all six files."""
    return all((folder() / file).is_file() for files in FILES.values() for file in files)


def load(split: str = "train") -> tuple[Tensor, Tensor]:
    """Pictures uint8 [n, 3, 32, 32] and their classes int64 [n], as KINDS orders them; "train" or "test".

    Raises ValueError for another split or a file that is no such data, FileNotFoundError that says how to get it.
    """
    if split not in FILES:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(FILES)}")
    rows = np.concatenate([_read(folder() / file) for file in FILES[split]])
    pictures, classes = rows[:, 1:].reshape(-1, 3, SIDE, SIDE), rows[:, 0].astype(np.int64)
    return torch.from_numpy(pictures.copy()), torch.from_numpy(classes)


def _read(path: Path) -> np.ndarray:
    """One file as uint8 [BATCH, 1 + 3 * 32 * 32]."""
    size = 1 + 3 * SIDE**2
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {mend(NAME)}")
    with damage_named(path, mend(NAME)), open(path, "rb") as file:
        data = file.read(BATCH * size + 1)
    rows = np.frombuffer(data, np.uint8)
    if len(rows) != BATCH * size or rows[::size].max() >= CLASSES:
        raise ValueError(f"{path} is not CIFAR-10's: it takes {BATCH} times a class (0 to 9) and {size - 1} bytes")
    return rows.reshape(BATCH, size)
