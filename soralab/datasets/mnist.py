"""MNIST: 60,000 handwritten digits to learn from, 10,000 to be judged on, grey, 28 x 28 (LeCun et al. 1998).

The digits are not part of the course. The reader fetches them once, 12 MB, through torchvision, with

    python -m soralab.datasets.mnist

which puts them into FOLDER/mnist/MNIST/raw, with FOLDER the one that the environment variable SORALAB_DATA names, or
data/downloads in the repository. Nothing else here uses the network. The files are read as they were published, .gz or
unpacked, so the folder may be one that cannot be written.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soralab.files.damage import damage_named

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
SIDE, CLASSES = 28, 10
COUNTS = {"train": 60_000, "test": 10_000}
STEMS = {"train": "train", "test": "t10k"}


def folder() -> Path:
    """Where the digits are looked for: mnist/MNIST/raw in SORALAB_DATA, or in data/downloads."""
    return root() / "MNIST" / "raw"


def root() -> Path:
    """The folder that torchvision calls `root`."""
    return Path(os.environ.get("SORALAB_DATA") or DOWNLOADS) / "mnist"


def available() -> bool:
    """Whether the reader has the digits, all four files of them."""
    names = [f"{stem}-{kind}-ubyte" for stem in STEMS.values() for kind in ("images-idx3", "labels-idx1")]
    return all((folder() / name).is_file() or (folder() / f"{name}.gz").is_file() for name in names)


def load(split: str = "train") -> tuple[Tensor, Tensor]:
    """Digits and what they are: float32 [n, 1, 28, 28] in [-1, 1] (ink is 1) and int64 [n], 0 to 9.

    split: "train" (n = 60,000) or "test" (10,000), in the published order. Raises ValueError for another split or a
    file that is no such data, FileNotFoundError that says how to get the digits.
    """
    if split not in COUNTS:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(COUNTS)}")
    count = COUNTS[split]
    pixels = _read(f"{STEMS[split]}-images-idx3-ubyte", (count, SIDE, SIDE))
    labels = _read(f"{STEMS[split]}-labels-idx1-ubyte", (count,))
    return torch.from_numpy(pixels[:, None]).float().div_(127.5).sub_(1), torch.from_numpy(labels).long()


def _read(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One file in the format idx as uint8: a magic number (8 is for bytes, then the number of axes), sizes, bytes."""
    path = folder() / name
    try:
        if path.is_file():
            data = path.read_bytes()
        else:
            with damage_named(f"{path}.gz", "remove it and fetch it again"), gzip.open(f"{path}.gz") as file:
                data = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no {path}: fetch the digits once with `python -m soralab.datasets.mnist`, or set SORALAB_DATA "
            "to the folder that holds mnist/"
        ) from None
    head = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if not data.startswith(head) or len(data) != len(head) + math.prod(shape):
        sizes = " x ".join(map(str, shape))
        raise ValueError(f"{path} is not MNIST's: it takes {sizes} bytes after a head of {len(head)}")
    return np.frombuffer(data, np.uint8, offset=len(head)).reshape(shape).copy()


def download() -> Path:
    """Fetch the digits through torchvision, which compares their checksums; what is there already is not fetched.

    Raises OSError of one line where the servers refuse, send something else, or cannot be reached.
    """
    from torchvision.datasets import MNIST

    try:
        MNIST(str(root()), download=True)
    except (OSError, RuntimeError, EOFError, ValueError, zlib.error) as error:  # 404, no network, a page in HTML
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":")
        raise OSError(f"the digits could not be fetched ({reason}): try again later, or put the four files from "
                      f"elsewhere into {folder()}") from error
    return folder()


def main() -> int:
    """Fetch the digits, or say in one line why not; returns the exit code."""
    try:
        print(f"the digits are in {download()}", file=sys.stderr)
    except OSError as error:
        print(f"soralab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
