"""UCF101: films of 101 things that people do (Soomro et al. 2012), for a reader of films that sees the real world.

The films are for research, with citation; they are not part of the course. `soralab data get ucf101` fetches them,
7 GB, as the second of these lines has them; the first is how their authors' own archive (.rar) lays them out:

    FOLDER/ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi         and so on, a folder a class
    FOLDER/ucf101/UCF101/v_ApplyEyeMakeup_g01_c01.avi                         and so on, all in one folder
    FOLDER/ucf101/ucfTrainTestlist/classInd.txt                               "1 ApplyEyeMakeup", one line a class
    FOLDER/ucf101/ucfTrainTestlist/trainlist01.txt, testlist01.txt, ...       the films of three folds

with FOLDER as `soralab.datasets.registry` has it; a part of the films in a folder ucf101_mini will do as well. Films
that a list names and the folder lacks are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from soralab.datasets.registry import mend, place
from soralab.files.counts import so_many
from soralab.files.damage import damage_named
from soralab.files.films import read_film

NAME = "ucf101"
SPLITS = ("train", "test")
FOLDS = (1, 2, 3)
FOLDERS = ("UCF-101", "UCF101")
FILM = re.compile(r"[\w-]+/[\w-]+\.avi")


def folder() -> Path:
    """Where the films and lists are looked for: ucf101, or else ucf101_mini."""
    return place(NAME, _whole)


def available() -> bool:
    """Whether the reader has films and lists."""
    return _whole(folder())


def _whole(folder: Path) -> bool:
    files = ("classInd.txt", *(f"{split}list{fold:02d}.txt" for split in SPLITS for fold in FOLDS))
    films = any((folder / name).is_dir() for name in FOLDERS)
    return films and all((folder / "ucfTrainTestlist" / file).is_file() for file in files)


def classes() -> list[str]:
    """The 101 classes in the order of their numbers. Raises FileNotFoundError that says where the file comes from."""
    return [line.split()[-1] for line in _lines("classInd.txt")]


def paths(split: str = "train", fold: int = 1) -> dict[Path, str]:
    """The films of a split that are there, in the list's order, and the class of each. Raises ValueError for another
    split or fold and for a name that is none of a film, FileNotFoundError where there is none."""
    for name, value, known in (("split", split, SPLITS), ("fold", fold, FOLDS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(map(str, known))}")
    films, listed = folder(), [line.split()[0] for line in _lines(f"{split}list{fold:02d}.txt")]
    outside = [name for name in listed if not FILM.fullmatch(name)]
    if outside:
        raise ValueError(f"{split}list{fold:02d}.txt names {outside[0][:60]!r}; it takes CLASS/FILM.avi: {mend(NAME)}")
    there = {}
    for class_, file in (name.split("/") for name in listed):
        both = (films / FOLDERS[0] / class_ / file, films / FOLDERS[1] / file)
        there |= {path: class_ for path in both if path.is_file()}
    if not there:
        raise FileNotFoundError(f"none of the {so_many(len(listed), 'film')} of {split}, fold {fold}, is in "
                                f"{films / FOLDERS[0]}: {mend(NAME)}")  # fmt: skip
    return there


def load(
    split: str = "train", fold: int = 1, frames: int = 8, step: int = 2, side: int = 32, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """The first `frames` frames of each film, every `step`-th, their middle squares made smaller: [n, frames, 3, side,
    side] in [-1, 1], and their classes [n], as `classes` orders them. count: at most so many, spread over the list.

    Raises as `paths` does, and ValueError for a film that is too short or damaged.
    """
    there, numbers = paths(split, fold), {name: k for k, name in enumerate(classes())}
    unknown = sorted(set(there.values()) - set(numbers))
    if unknown:
        raise ValueError(f"{unknown[0]} is no class of classInd.txt: {mend(NAME)}")
    every = torch.linspace(0, len(there) - 1, min(count or len(there), len(there))).long().tolist()
    chosen = [list(there.items())[k] for k in every]
    films = []
    for path, _ in chosen:
        with damage_named(path, f"remove it, and {mend(NAME)}"):
            films.append(read_film(path, frames, side, side, step=step))
    return torch.stack(films), torch.tensor([numbers[class_] for _, class_ in chosen])


def _lines(name: str) -> list[str]:
    path = folder() / "ucfTrainTestlist" / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {mend(NAME)}")
    with damage_named(path, f"remove it, and {mend(NAME)}"):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
