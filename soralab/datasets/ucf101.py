"""UCF101: films of 101 things that people do (Soomro et al. 2012), for a reader of films that sees the real world.

The films are for research, with citation; they are not part of the course. The reader puts them in a folder, as

    FOLDER/ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi         and so on, a folder a class
    FOLDER/ucf101/ucfTrainTestlist/classInd.txt                               "1 ApplyEyeMakeup", one line a class
    FOLDER/ucf101/ucfTrainTestlist/trainlist01.txt, testlist01.txt, ...       the films of three folds

with FOLDER the one that the environment variable SORALAB_DATA names, or data/downloads in the repository; a part of the
films in a folder ucf101_mini will do as well. Films that a list names and the folder lacks are left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from soralab.files.damage import damage_named
from soralab.files.films import read_film

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
SPLITS = ("train", "test")
FOLDS = (1, 2, 3)
WHERE_FROM = "get UCF101 and its lists for action recognition from the data set's authors (Soomro, Zamir and Shah 2012)"


def folder() -> Path:
    """Where the films are looked for: ucf101, or else ucf101_mini, in SORALAB_DATA or in data/downloads."""
    root = Path(os.environ.get("SORALAB_DATA") or DOWNLOADS)
    part = not _whole(root / "ucf101") and _whole(root / "ucf101_mini")
    return root / ("ucf101_mini" if part else "ucf101")


def available() -> bool:
    """Whether the reader has films and lists."""
    return _whole(folder())


def _whole(place: Path) -> bool:
    files = ("classInd.txt", *(f"{split}list{fold:02d}.txt" for split in SPLITS for fold in FOLDS))
    return (place / "UCF-101").is_dir() and all((place / "ucfTrainTestlist" / file).is_file() for file in files)


def classes() -> list[str]:
    """The 101 classes in the order of their numbers. Raises FileNotFoundError that says where the file comes from."""
    return [line.split()[-1] for line in _lines("classInd.txt")]


def paths(split: str = "train", fold: int = 1) -> list[Path]:
    """The films of a split that are there, in the list's order. Raises ValueError for another split or fold,
    FileNotFoundError where there is none."""
    for name, value, known in (("split", split, SPLITS), ("fold", fold, FOLDS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(map(str, known))}")
    listed = [folder() / "UCF-101" / line.split()[0] for line in _lines(f"{split}list{fold:02d}.txt")]
    there = [path for path in listed if path.is_file()]
    if not there:
        raise FileNotFoundError(f"none of the {len(listed)} films of {split}, fold {fold}, is in "
                                f"{folder() / 'UCF-101'}: {WHERE_FROM}")  # fmt: skip
    return there


def load(
    split: str = "train", fold: int = 1, frames: int = 8, step: int = 2, side: int = 32
) -> tuple[Tensor, Tensor]:
    """The first `frames` frames of each film, every `step`-th, their middle squares made smaller: [n, frames, 3, side,
    side] in [-1, 1], and their classes [n], as `classes` orders them.

    Raises as `paths` does, and ValueError for a film that is too short or damaged.
    """
    there, numbers = paths(split, fold), {name: k for k, name in enumerate(classes())}
    unknown = sorted({path.parent.name for path in there} - set(numbers))
    if unknown:
        raise ValueError(f"{unknown[0]} is no class of classInd.txt: {WHERE_FROM}")
    films = []
    for path in there:
        with damage_named(path, f"remove it, or {WHERE_FROM}"):
            films.append(read_film(path, frames, side, side, step=step))
    return torch.stack(films), torch.tensor([numbers[path.parent.name] for path in there])


def _lines(name: str) -> list[str]:
    path = folder() / "ucfTrainTestlist" / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {WHERE_FROM}, and put them into {folder()}")
    with damage_named(path, WHERE_FROM):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
