"""Tatoeba's sentences in Hindi and English, as manythings.org gives them: short, written and translated by volunteers.

Not part of the course: `soralab data get tatoeba_hin_eng` fetches them, under a megabyte, as

    FOLDER/tatoeba_hin_eng/hin.txt                  a line a pair: ENGLISH<tab>HINDI<tab>whose they are (CC BY 2.0 FR)

with FOLDER as `soralab.datasets.registry` has it. The file grows with time, so no digest of it is published.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from soralab.datasets.registry import mend, place
from soralab.files.damage import damage_named

NAME = "tatoeba_hin_eng"
SPLITS = ("train", "val", "test")


def folder() -> Path:
    """Where the sentences are looked for."""
    return place(NAME)


def available() -> bool:
    """Whether the reader has them."""
    return (folder() / "hin.txt").is_file()


def pairs(split: str = "train") -> list[tuple[str, str]]:
    """(Hindi, English) sentences of a split, in the file's order.

    Of every twenty English sentences one is for "val" and two for "test", chosen by a checksum of the sentence: so one
    with several translations is in one split with all of them, and a file that has grown keeps its splits. Raises
    ValueError for another split or a line that is no pair, FileNotFoundError that says how to get the file.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it takes one of {', '.join(SPLITS)}")
    path = folder() / "hin.txt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {mend(NAME)}")
    found = []
    with damage_named(path, f"remove it, and {mend(NAME)}"):
        told = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(told, 1):
        english, _, rest = line.partition("\t")
        hindi = rest.partition("\t")[0]
        if not (english.strip() and hindi.strip()):
            raise ValueError(f"{path.name}, line {number}: got {line[:60]!r}, takes English, a tab, and Hindi")
        if split_of(english) == split:
            found.append((hindi.strip(), english.strip()))
    return found


def split_of(english: str) -> str:
    """The split of an English sentence; how it is spaced, and its capital letters, do not count."""
    place = zlib.crc32(" ".join(english.lower().split()).encode()) % 20
    return "val" if place == 0 else "test" if place < 3 else "train"
