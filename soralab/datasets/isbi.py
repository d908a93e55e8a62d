"""The ISBI-2012 membranes: 30 slices of a fly's nerve cord in the electron microscope, and every membrane in them.

The data set of the paper's table 1 (Cardona et al. 2010; Arganda-Carreras et al. 2015): 512 x 512 grey pictures with
labels, 255 where a cell is and 0 on a membrane. It is for research, with citation, and is not part of the course: the
reader puts it in a folder, as

    FOLDER/isbi2012/membrane/train/image/0.png ... 29.png
    FOLDER/isbi2012/membrane/train/label/0.png ... 29.png

with FOLDER the one that the environment variable SORALAB_DATA names, or data/downloads in the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from soralab.files.damage import damage_named

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
SLICES, SIDE = 30, 512
TRAIN, TEST = range(24), range(24, 30)
WHERE_FROM = (
    "get the 30 labelled slices from the ISBI 2012 challenge on membranes (8-bit PNG files of them lie in the folder "
    "data/membrane of zhixuhao/unet on GitHub)"
)


def folder() -> Path:
    """Where the slices are looked for: isbi2012/membrane/train in SORALAB_DATA, or in data/downloads."""
    return Path(os.environ.get("SORALAB_DATA") or DOWNLOADS) / "isbi2012" / "membrane" / "train"


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
        raise FileNotFoundError(
            f"there is no {path}: {WHERE_FROM} and put them into {folder()}, or set SORALAB_DATA to the folder that "
            "holds isbi2012/"
        )
    with damage_named(path, WHERE_FROM), Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    if pixels.shape != (SIDE, SIDE):
        raise ValueError(f"{path} is {pixels.shape[0]}x{pixels.shape[1]}; a slice takes {SIDE}x{SIDE}")
    return pixels
