"""The ISBI-2012 membranes: 30 slices of a fly's nerve cord in the electron microscope, and every membrane in them.

The data set of the paper's table 1 (Cardona et al. 2010; Arganda-Carreras et al. 2015): 512 x 512 grey pictures with
labels, 255 where a cell is and 0 on a membrane. It is for research, with citation, and is not part of the course:
`soralab data get isbi2012` fetches 8-bit PNG files of the slices that lie in zhixuhao/unet on GitHub, as

    FOLDER/isbi2012/membrane/train/image/0.png ... 29.png
    FOLDER/isbi2012/membrane/train/label/0.png ... 29.png

with FOLDER as `soralab.datasets.registry` has it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soralab.datasets.registry import mend, place
from soralab.files.damage import picture

NAME = "isbi2012"
SLICES, SIDE = 30, 512
TRAIN, TEST = range(24), range(24, 30)


def folder() -> Path:
    """Where the slices are looked for."""
    return place(NAME) / "membrane" / "train"


def available() -> bool:
    """Whether the reader has the slices."""
    return (folder() / "image").is_dir() and (folder() / "label").is_dir()


def load(indices: range | list[int] = range(SLICES)) -> tuple[np.ndarray, np.ndarray]:
    """Slices and labels: images float32 [n, 512, 512] in [-1, 1], cells bool [n, 512, 512] (False: membrane).

    Raises FileNotFoundError that says where the slices come from and where they go, and ValueError for a file of
    another size, a label that is neither 0 nor 255, and an index that is none of 0 to 29.
    """
    wrong = [index for index in indices if not 0 <= index < SLICES]
    if wrong:
        raise ValueError(f"indices: got {wrong}; it takes numbers from 0 to {SLICES - 1}")
    images = np.stack([_read("image", index) for index in indices])
    labels = np.stack([_read("label", index) for index in indices])
    strange = set(np.unique(labels)) - {0, 255}
    if strange:
        raise ValueError(f"labels in {folder() / 'label'} hold {sorted(map(int, strange))[:4]}; they take 0 (membrane) "
                         "and 255 (cell)")  # fmt: skip
    return images.astype(np.float32) / 127.5 - 1, labels == 255


def _read(kind: str, index: int) -> np.ndarray:
    """One file as uint8 [512, 512]."""
    path = folder() / kind / f"{index}.png"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {mend(NAME)}")
    with picture(path, f"remove it, and {mend(NAME)}") as shown:
        pixels = np.asarray(shown.convert("L"))
    if pixels.shape != (SIDE, SIDE):
        raise ValueError(f"{path} is {pixels.shape[0]}x{pixels.shape[1]}; a slice takes {SIDE}x{SIDE}")
    return pixels
