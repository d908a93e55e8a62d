"""Moving MNIST: 10,000 films of two digits that move and bounce, 20 frames of 64 x 64 (Srivastava et al. 2015).

Not part of the course: `soralab data get movingmnist` fetches the file, 819 MB, as

    FOLDER/movingmnist/MovingMNIST/mnist_test_seq.npy                              uint8 [20, 10,000, 64, 64]

with FOLDER as `soralab.datasets.registry` has it. It is published as one test set; here its films are parted, the last
thousand to be judged on and the thousand before to choose by. (torchvision's splits part each film's frames instead.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.datasets.own import DAMAGED
from soralab.datasets.registry import mend, place

NAME = "movingmnist"
FRAMES, SIDE, JUDGED = 20, 64, 1000
SPLITS = {"train": slice(0, -2 * JUDGED), "val": slice(-2 * JUDGED, -JUDGED), "test": slice(-JUDGED, None)}


def path() -> Path:
    """Where the file is looked for."""
    return place(NAME) / "MovingMNIST" / "mnist_test_seq.npy"


def available() -> bool:
    """Whether the reader has it."""
    return path().is_file()


def load(split: str = "train", count: int | None = None, frames: int = FRAMES, side: int = SIDE) -> Tensor:
    """The first `count` films of a split (default: all), of each the first frames: [n, frames, 3, side, side] in
    [-1, 1], three equal colours; smaller ones by the mean over each pixel's square.

    Only what is asked for is read. Raises ValueError for another split, more than there is, or a file that is no such
    data; FileNotFoundError that says how to get it.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(SPLITS)}")
    films = _opened()[:, SPLITS[split]]
    count = films.shape[1] if count is None else count
    for name, value, most in (("count", count, films.shape[1]), ("frames", frames, FRAMES), ("side", side, SIDE)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} is {value}; it takes 1 to {most}")
    cut = torch.from_numpy(np.array(films[:frames, :count])).transpose(0, 1)
    pictures = F.interpolate(cut.float().div(127.5).sub(1), (side, side), mode="area")  # the frames as channels
    return pictures[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()


def _opened() -> np.ndarray:
    """The file's films [20, n, 64, 64], not yet read."""
    if not available():
        raise FileNotFoundError(f"there is no {path()}: {mend(NAME)}")
    try:
        films = np.load(path(), mmap_mode="r", allow_pickle=False)
        if not isinstance(films, np.ndarray):
            raise ValueError("it is no array")
    except (*DAMAGED, ValueError) as error:
        raise ValueError(f"{path()} is damaged ({str(error).splitlines()[0]}): remove it, and {mend(NAME)}") from error
    if films.dtype != np.uint8 or films.ndim != 4 or films.shape[0] != FRAMES or films.shape[2:] != (SIDE, SIDE):
        raise ValueError(f"{path()} holds {films.dtype} {list(films.shape)}; it takes uint8 [20, n, 64, 64]")
    if films.shape[1] <= 2 * JUDGED:
        raise ValueError(f"{path()} holds {films.shape[1]} films; it takes more than {2 * JUDGED}")
    return films
