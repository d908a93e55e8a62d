"""A reader's own pictures and films, with what they show in words, or without.

    FOLDER/pictures/        .jpg, .png, .webp, ..., in folders of folders as you like
    FOLDER/films/           .mp4, .mov, .avi, .gif, ...; a folder of frames, in the order of their names; .npy and .npz

with FOLDER as `soralab.datasets.registry` has it. What is seen stands in NAME.txt beside NAME.jpg, a sentence a line,
or in one captions.txt at the top: NAME<tab>SENTENCE, the name with the folders that it lies in.

An array is uint8, one film [time, height, width, 3] or [time, 3, height, width] or grey [time, height, width], or
several with one axis more; of an .npz the first is taken. No pickle is read.
"""

from __future__ import annotations

import lzma
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soralab.datasets.flickr import lines, square, told
from soralab.datasets.registry import mend, place
from soralab.files.damage import damage_named
from soralab.files.films import MAX_SIDE_PRODUCT, read_film
from soralab.files.upright import resized

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
FILMS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif"}
ARRAYS = {".npy", ".npz"}
SPLITS = ("train", "val", "test")
DAMAGED = (OSError, EOFError, SyntaxError, IndexError, KeyError, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
           tokenize.TokenError)  # fmt: skip
"""What numpy raises for an array's file that is damaged, beside ValueError."""
MOST = 4 << 30  # bytes of one array


def available(name: str) -> bool:
    """Whether there is something of the reader's in the folder `name`, "pictures" or "films"."""
    return next(iter(_items(name)), None) is not None


def captions(name: str) -> dict[Path, list[str]]:
    """Everything in the folder "pictures" or "films", sorted by name: {its path: what is said of it, [] for nothing}.

    Raises FileNotFoundError where there is nothing, ValueError for a caption file that cannot be read.
    """
    folder, items = place(name), list(_items(name))
    if not items:
        raise FileNotFoundError(f"there is none of your {name} in {folder}: {mend(name)}")
    together = folder / "captions.txt"
    said = told(together, mend(name)) if together.is_file() else {}
    found = {}
    for item in items:
        beside = item.with_name(f"{item.name if item.is_dir() else item.stem}.txt")
        found[item] = said.get(item.relative_to(folder).as_posix(), [])
        if not found[item] and beside.is_file():
            found[item] = [line.strip() for line in lines(beside, mend(name))]
    return found


def split(items: list[Path], which: str, folder: Path) -> list[Path]:
    """A split of the items: of ten, one is for "test" and one for "val", at least one each; "train" is the rest.

    Chosen by a checksum of the name, so that the order in which files came does not count. Raises ValueError for
    another split, or fewer than three items.
    """
    if which not in SPLITS:
        raise ValueError(f"split is {which!r}; it takes one of {', '.join(SPLITS)}")
    if len(items) < 3:
        raise ValueError(f"{folder} holds {len(items)}; it takes three or more, to learn, to choose and to judge")
    names = {item: item.relative_to(folder).as_posix() for item in items}
    order = sorted(items, key=lambda item: (zlib.crc32(names[item].encode()), names[item]))
    few = max(1, round(len(items) / 10))
    return sorted({"test": order[:few], "val": order[few : 2 * few], "train": order[2 * few :]}[which])


def pictures(which: str = "train", side: int = 32) -> tuple[Tensor, list[list[str]]]:
    """The pictures of a split that something is said of: uint8 [n, 3, side, side], the middle squares, and their words.

    Raises as `captions` and `split` do, and ValueError for a picture that is damaged.
    """
    said = {path: texts for path, texts in captions("pictures").items() if texts}
    if not said:
        raise FileNotFoundError(f"nothing is said of the pictures in {place('pictures')}: put NAME.txt beside "
                                "NAME.jpg, or a captions.txt with lines NAME, a tab, and a sentence")  # fmt: skip
    chosen = split(list(said), which, place("pictures"))
    return torch.stack([square(path, side, mend("pictures")) for path in chosen]), [said[path] for path in chosen]


def films(
    which: str = "train", frames: int = 8, step: int = 1, side: int = 32
) -> tuple[Tensor, list[list[str]]]:
    """The films of a split: [n, frames, 3, side, side] in [-1, 1], of each the first frames, every `step`-th, their
    middle squares; and what is said of each, [] for nothing.

    A film that is too short is left out, with a warning. Raises as `captions` and `split` do, ValueError for one that
    is damaged, and where none is long enough.
    """
    said, need = captions("films"), step * (frames - 1) + 1
    found, texts = [], []
    for path in split(list(said), which, place("films")):
        for film in _read(path, need, step, side):
            if len(film) < frames:
                warnings.warn(f"{path.name} is left out: it has not {need} frames", stacklevel=2)
                continue
            found.append(film)
            texts.append(said[path])
    if not found:
        raise ValueError(f"no film of {which} in {place('films')} has {need} frames: take fewer")
    return torch.stack(found), texts


def _items(name: str) -> Iterator[Path]:
    """The pictures, or the films: files by their suffix; among films a folder that holds pictures is one."""
    if name not in ("pictures", "films"):
        raise ValueError(f"name is {name!r}; it takes pictures or films")
    for path in sorted(place(name).rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(place(name)).parts):
            continue
        kind = path.suffix.lower()
        if name == "pictures":
            wanted = path.is_file() and kind in PICTURES
        else:
            wanted = path.is_file() and kind in FILMS | ARRAYS or path.is_dir() and bool(_frames(path))
        if wanted:
            yield path


def _frames(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def _read(path: Path, most: int, step: int, side: int) -> Iterator[Tensor]:
    """The films of an item, float [time, 3, side, side]: every `step`-th of the first `most` frames, or of all."""
    if path.is_dir():
        chosen = _frames(path)[:most:step]
        yield torch.stack([square(file, side, mend("films")) for file in chosen]).float().div(127.5).sub(1)
    elif path.suffix.lower() in ARRAYS:
        for film in _array(path):
            yield torch.stack([resized(frame, side, side) for frame in film[:most:step]])
    else:
        with damage_named(path, f"remove it, and {mend('films')}"):
            yield read_film(path, (most - 1) // step + 1, side, side, step=step, fewer=True)


def _array(path: Path) -> np.ndarray:
    """An array as films uint8 [n, time, height, width, 3]; its size is looked at before it is read."""
    takes = "it takes uint8 [time, height, width, 3], [time, 3, height, width] or [time, height, width], or several"
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as packed:
                first = packed.infolist()[0]
            if first.file_size > MOST:
                raise ValueError(f"{path} holds an array of {first.file_size:,} bytes; it takes at most {MOST:,}")
            with np.load(path, allow_pickle=False) as arrays:
                films = arrays[arrays.files[0]]
        else:
            films = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(films, np.ndarray):
            raise ValueError("it holds no array where one should be")
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}): remove it; {takes}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no array that can be read ({str(error).splitlines()[0]}): {takes}") from error
    shape = list(films.shape)
    if films.dtype != np.uint8 or not 3 <= films.ndim <= 5 or 0 in shape:
        raise ValueError(f"{path} holds {films.dtype} {shape}; {takes}")
    if films.ndim > 3 and shape[-1] != 3 and shape[-3] == 3:
        films = np.moveaxis(films, -3, -1)
    elif films.ndim == 5 and shape[-1] != 3:
        raise ValueError(f"{path} holds {films.dtype} {shape}; {takes}")
    elif films.ndim == 3 or shape[-1] != 3:
        films = np.broadcast_to(films[..., None], (*shape, 3))
    films = films if films.ndim == 5 else films[None]
    if films.shape[2] * films.shape[3] > MAX_SIDE_PRODUCT:
        raise ValueError(f"{path} has frames of {films.shape[3]}x{films.shape[2]} pixels: make them smaller first")
    return films
