"""MNIST: 60,000 handwritten digits to learn from, 10,000 to be judged on, grey, 28 x 28 (LeCun et al. 1998); and
Fashion-MNIST, as many pieces of clothing in the same form (Xiao et al. 2017, 1708.07747).

Neither is part of the course: `soralab data get mnist` fetches the digits into FOLDER/mnist/MNIST/raw, `fashionmnist`
the clothes into FOLDER/fashionmnist/FashionMNIST/raw, with FOLDER as `soralab.datasets.registry` has it. The files are
read as they were published, .gz or unpacked, so the folder may be one that cannot be written.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soralab.datasets.registry import mend, place
from soralab.files.damage import damage_named

SIDE, CLASSES = 28, 10
COUNTS = {"train": 60_000, "test": 10_000}
STEMS = {"train": "train", "test": "t10k"}
KINDS = {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}  # set: what torchvision calls its folder


def folder(name: str = "mnist") -> Path:
    """Where a set's files are looked for; its folder two above is the one that torchvision calls `root`."""
    return place(name) / KINDS[name] / "raw"


def available(name: str = "mnist") -> bool:
    """Whether the reader has the set, all four files of it."""
    files = [f"{stem}-{kind}-ubyte" for stem in STEMS.values() for kind in ("images-idx3", "labels-idx1")]
    return all((folder(name) / file).is_file() or (folder(name) / f"{file}.gz").is_file() for file in files)


def load(split: str = "train", name: str = "mnist") -> tuple[Tensor, Tensor]:
    """Pictures and what they are: float32 [n, 1, 28, 28] in [-1, 1] (ink is 1) and int64 [n], 0 to 9.

    split: "train" (n = 60,000) or "test" (10,000), in the published order. Raises ValueError for another split or a
    file that is no such data, FileNotFoundError that says how to get the set.
    """
    if split not in COUNTS:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(COUNTS)}")
    count = COUNTS[split]
    pixels = _read(name, f"{STEMS[split]}-images-idx3-ubyte", (count, SIDE, SIDE))
    labels = _read(name, f"{STEMS[split]}-labels-idx1-ubyte", (count,))
    return torch.from_numpy(pixels[:, None]).float().div_(127.5).sub_(1), torch.from_numpy(labels).long()


def _read(name: str, file: str, shape: tuple[int, ...]) -> np.ndarray:
    """One file in the format idx as uint8: a magic number (8 is for bytes, then the number of axes), sizes, bytes."""
    path = folder(name) / file
    head = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    most = len(head) + math.prod(shape) + 1  # to its end, where a .gz has its checksum, and not beyond a byte
    try:
        packed = not path.is_file()
        found = path.with_name(f"{file}.gz") if packed else path
        with damage_named(found, f"remove it, and {mend(name)}"), (gzip.open if packed else open)(found, "rb") as data:
            bytes_ = data.read(most)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}: {mend(name)}") from None
    if not bytes_.startswith(head) or len(bytes_) != most - 1:
        sizes = " x ".join(map(str, shape))
        raise ValueError(f"{path} is not {KINDS[name]}'s: it takes {sizes} bytes after a head of {len(head)}")
    return np.frombuffer(bytes_, np.uint8, offset=len(head)).reshape(shape).copy()
