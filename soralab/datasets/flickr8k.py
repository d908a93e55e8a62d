"""Flickr8k: photographs with five sentences each (Hodosh et al. 2013), for a CLIP that sees the real world.

The pictures are for research, with citation, and belong to their photographers; they are not part of the course. The
reader puts them in a folder, as

    FOLDER/flickr8k/Images/*.jpg
    FOLDER/flickr8k/Flickr8k.token.txt                   one line a sentence: NAME.jpg#0<tab>A child in a pink dress ...
    FOLDER/flickr8k/Flickr_8k.trainImages.txt            the names of a split; also devImages, testImages

with FOLDER the one that the environment variable SORALAB_DATA names, or data/downloads in the repository; a part of the
pictures in a folder flickr8k_mini will do as well. Pictures that a split names and the folder lacks are left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from soralab.files.damage import damage_named

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"
SPLITS = {"train": "trainImages", "val": "devImages", "test": "testImages"}
SENTENCES = 5  # of each picture
WHERE_FROM = "get the images and the text files from the data set's authors (Hodosh, Young and Hockenmaier 2013)"


def folder() -> Path:
    """Where the pictures are looked for: flickr8k, or else flickr8k_mini, in SORALAB_DATA or in data/downloads."""
    root = Path(os.environ.get("SORALAB_DATA") or DOWNLOADS)
    part = not _whole(root / "flickr8k") and _whole(root / "flickr8k_mini")
    return root / ("flickr8k_mini" if part else "flickr8k")


def available() -> bool:
    """Whether the reader has pictures, sentences and splits."""
    return _whole(folder())


def _whole(place: Path) -> bool:
    files = ("Flickr8k.token.txt", *(f"Flickr_8k.{name}.txt" for name in SPLITS.values()))
    return (place / "Images").is_dir() and all((place / file).is_file() for file in files)


def sentences() -> dict[str, list[str]]:
    """Every picture's sentences, in the file's order: {name: [five sentences]}.

    Raises FileNotFoundError that says where the file comes from, and ValueError for a line that is none.
    """
    path = folder() / "Flickr8k.token.txt"
    found: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), 1):
        name, tab, text = line.partition("\t")
        name, hash_, _ = name.rpartition("#")
        if not (tab and hash_ and text.strip()):
            raise ValueError(f"{path.name}, line {number}: got {line[:60]!r}, takes NAME.jpg#0, a tab, and a sentence")
        found.setdefault(name, []).append(text.strip())
    return found


def load(split: str = "train", side: int = 32) -> tuple[Tensor, list[list[str]]]:
    """Pictures uint8 [n, 3, side, side], the middle square of each made smaller, and their five sentences each.

    split: "train", "val" or "test", in the file's order. Raises ValueError for another split or a picture without its
    five sentences, FileNotFoundError that says how to get the data.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(SPLITS)}")
    said = sentences()
    names = [name.strip() for name in _lines(folder() / f"Flickr_8k.{SPLITS[split]}.txt") if name.strip()]
    there = [name for name in names if (folder() / "Images" / name).is_file()]
    short = [name for name in there if len(said.get(name, ())) != SENTENCES]
    if short:
        raise ValueError(f"{short[0]} has {len(said.get(short[0], ()))} sentences; it takes {SENTENCES}")
    pictures = [torch.from_numpy(_square(folder() / "Images" / name, side)) for name in there]
    if not pictures:
        where = folder() / "Images"
        raise FileNotFoundError(f"none of the {len(names)} pictures of {split} is in {where}: {WHERE_FROM}")
    return torch.stack(pictures), [said[name] for name in there]


def _square(path: Path, side: int) -> np.ndarray:
    """The middle square of a picture, uint8 [3, side, side]."""
    with damage_named(path, f"remove it, or {WHERE_FROM}"), Image.open(path) as picture:
        short = min(picture.size)
        left, top = ((length - short) // 2 for length in picture.size)
        square = picture.convert("RGB").resize((side, side), Image.BICUBIC, box=(left, top, left + short, top + short))
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {WHERE_FROM}, and put them into {folder()}")
    with damage_named(path, WHERE_FROM):
        return path.read_text(encoding="utf-8").splitlines()
