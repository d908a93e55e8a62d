"""Flickr8k (Hodosh et al. 2013) and Flickr30k (Young et al. 2014): photographs with five sentences each.

The pictures are for research, with citation, and belong to their photographers; they are not part of the course, and
their authors give them to who asks. The reader puts them in a folder, as

    FOLDER/flickr8k/Images/*.jpg
    FOLDER/flickr8k/Flickr8k.token.txt                   one line a sentence: NAME.jpg#0<tab>A child in a pink dress ...
    FOLDER/flickr8k/Flickr_8k.trainImages.txt            the names of a split; also devImages, testImages

    FOLDER/flickr30k/flickr30k-images/*.jpg
    FOLDER/flickr30k/results_20130124.token              in the same form
    FOLDER/flickr30k/train.txt                           also val.txt, test_2016_flickr.txt: Multi30k's splits

with FOLDER as `soralab.datasets.registry` has it; `soralab data get flickr30k` fetches the last three. A part of the
pictures in a folder flickr8k_mini will do as well. Pictures that a split names and the folder lacks are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from soralab.datasets.registry import mend, place
from soralab.files.counts import so_many
from soralab.files.damage import damage_named, picture

SENTENCES = 5  # of each picture
FILES = {  # set: (folder of the pictures, the sentences, the names of each split)
    "flickr8k": ("Images", "Flickr8k.token.txt", {
        "train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt",
    }),
    "flickr30k": ("flickr30k-images", "results_20130124.token", {
        "train": "train.txt", "val": "val.txt", "test": "test_2016_flickr.txt",
    }),
}  # fmt: skip


def folder(name: str = "flickr8k") -> Path:
    """Where a set's pictures, sentences and splits are looked for: in its folder, or else in NAME_mini."""
    return place(name, lambda folder: _whole(folder, name))


def available(name: str = "flickr8k") -> bool:
    """Whether the reader has pictures, sentences and splits."""
    return _whole(folder(name), name)


def _whole(folder: Path, name: str) -> bool:
    pictures, said, splits = FILES[name]
    return (folder / pictures).is_dir() and all((folder / file).is_file() for file in (said, *splits.values()))


def sentences(name: str = "flickr8k") -> dict[str, list[str]]:
    """Every picture's sentences, in the file's order: {name: [five sentences]}. Raises as `told` does."""
    return told(folder(name) / FILES[name][1], mend(name))


def load(split: str = "train", side: int = 32, name: str = "flickr8k") -> tuple[Tensor, list[list[str]]]:
    """Pictures uint8 [n, 3, side, side], the middle square of each made smaller, and their five sentences each.

    split: "train", "val" or "test", in the file's order. Raises ValueError for another split, a picture without its
    five sentences or a name that leads out of the folder, FileNotFoundError that says how to get the data.
    """
    images, _, splits = FILES[name]
    if split not in splits:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(splits)}")
    said, where = sentences(name), folder(name) / images
    listed = [line.strip() for line in lines(folder(name) / splits[split], mend(name))]
    outside = [file for file in listed if Path(file).name != file or "\\" in file]
    if outside:
        raise ValueError(f"{splits[split]} names {outside[0][:60]!r}, which is no file of {where}: {mend(name)}")
    there = [file for file in listed if (where / file).is_file()]
    short = [file for file in there if len(said.get(file, ())) != SENTENCES]
    if short:
        raise ValueError(f"{short[0]} has {len(said.get(short[0], ()))} sentences; it takes {SENTENCES}")
    pictures = [square(where / file, side, mend(name)) for file in there]
    if not pictures:
        raise FileNotFoundError(f"none of the {so_many(len(listed), 'picture')} of {split} is in {where}: {mend(name)}")
    return torch.stack(pictures), [said[file] for file in there]


def told(path: Path, mend: str) -> dict[str, list[str]]:
    """What a file says of things: {name: [sentences]} from lines NAME#0<tab>SENTENCE; #0 may be missing.

    Raises FileNotFoundError that ends in the mend, and ValueError for a line that is none.
    """
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines(path, mend), 1):
        name, tab, text = line.partition("\t")
        if not (tab and text.strip()):
            raise ValueError(f"{path.name}, line {number}: got {line[:60]!r}, takes NAME.jpg#0, a tab, and a sentence")
        stem, hash_, digit = name.rpartition("#")
        found.setdefault(stem if hash_ and digit.isdigit() else name, []).append(text.strip())
    return found


def square(path: Path, side: int, mend: str) -> Tensor:
    """The middle square of a picture, uint8 [3, side, side]."""
    with picture(path, f"remove it, and {mend}") as shown:
        short = min(shown.size)
        left, top = ((length - short) // 2 for length in shown.size)
        cut = shown.convert("RGB").resize((side, side), Image.BICUBIC, box=(left, top, left + short, top + short))
    return torch.from_numpy(np.ascontiguousarray(np.asarray(cut).transpose(2, 0, 1)))


def lines(path: Path, mend: str) -> list[str]:
    """The lines of a file that are not empty."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {mend}")
    with damage_named(path, f"remove it, and {mend}"):
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
