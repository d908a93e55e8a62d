"""Multi30k's sentences (Elliott et al. 2016, 1605.00459), and the byte-pair pieces that they are cut into.

The texts are for research and not part of the course: `soralab data get multi30k` fetches German and English, as

    FOLDER/multi30k/raw/train.de.gz, train.en.gz, val.de.gz, val.en.gz, test_2016_flickr.de.gz, test_2016_flickr.en.gz

with FOLDER as `soralab.datasets.registry` has it; French and Czech (.fr.gz, .cs.gz) lie beside them in data/task1/raw
of multi30k/dataset on GitHub.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from soralab.blocks import bpe
from soralab.datasets.registry import mend, place
from soralab.files.damage import damage_named

NAME = "multi30k"
SPLITS = {"train": "train", "val": "val", "test": "test_2016_flickr"}
LANGUAGES = ("de", "en", "fr", "cs")
UNKNOWN = "<unknown>"
SPACE = "\u2581"  # stands for the space before a word, so that pieces can be put together again
_CHUNK = re.compile(r" ?[\w\u0900-\u0963]+| ?[^\w\s]+")  # Devanagari's vowel signs are no \w, and end no word


def folder() -> Path:
    """Where the texts are looked for."""
    return place(NAME) / "raw"


def available(*languages: str) -> bool:
    """Whether the reader has every split in these languages (default: German and English)."""
    files = (f"{split}.{language}.gz" for split in SPLITS.values() for language in languages or ("de", "en"))
    return all((folder() / file).is_file() for file in files)


def sentences(split: str, language: str) -> list[str]:
    """The sentences of a split ("train" 29,000, "val" 1,014, "test" 1,000) in one language, in the file's order.

    Raises ValueError for a name that is not known, FileNotFoundError that says where a missing file comes from.
    """
    for name, value, known in (("split", split, SPLITS), ("language", language, LANGUAGES)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(known)}")
    path = folder() / f"{SPLITS[split]}.{language}.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}: {mend(NAME)}")
    with (
        damage_named(path, f"remove it, and {mend(NAME)}"),
        gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines,
    ):
        return [line.strip() for line in lines]


def pairs(split: str, source: str = "de", target: str = "en") -> list[tuple[str, str]]:
    """(source, target) sentences of a split. Raises as `sentences`, and ValueError if they are not as many."""
    left, right = sentences(split, source), sentences(split, target)
    if len(left) != len(right):
        raise ValueError(f"{split} has {len(left)} lines of {source} and {len(right)} of {target}; it takes as many")
    return list(zip(left, right, strict=True))


class BytePairs:
    """Byte-pair encoding (Sennrich et al. 2016, 1508.07909): the most frequent pair of pieces becomes a piece.

    `pieces[i]` is what id `first + i` stands for; the ids below `first` are the model's own (PAD and so on).
    """

    def __init__(self, letters: Iterable[str], merges: Iterable[tuple[str, str]], first: int = 3):
        self.merges = [tuple(pair) for pair in merges]
        self.pieces = [UNKNOWN, *letters, *dict.fromkeys(a + b for a, b in self.merges)]
        self.first = first
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._id = {piece: first + place for place, piece in enumerate(self.pieces)}
        self._cut = lru_cache(maxsize=100_000)(lambda chunk: bpe.merged(list(chunk), self._rank))

    @classmethod
    def learn(cls, lines: Iterable[str], size: int, first: int = 3) -> BytePairs:
        """Learn from lines as many merges as make `size` ids in all, or as there are pairs that occur twice."""
        words = Counter(chunk for line in lines for chunk in chunks(line))
        cut = {word: list(word) for word in words}
        letters = sorted({letter for word in words for letter in word})
        merges = bpe.learn_merges(cut, words, size - first - 1 - len(letters))
        return cls(letters, merges, first)

    def __len__(self) -> int:
        return self.first + len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """The ids of a text's pieces; a letter that was never seen becomes the id of UNKNOWN."""
        unknown = self._id[UNKNOWN]
        return [self._id.get(piece, unknown) for chunk in chunks(text) for piece in self._cut(chunk)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; ids below `first` are left out."""
        text = "".join(self.pieces[id - self.first] for id in ids if id >= self.first)
        return text.replace(SPACE, " ").strip()


def chunks(text: str) -> list[str]:
    """Words and runs of other signs, each with the space before it; no piece reaches over their borders."""
    return [chunk.replace(" ", SPACE) for chunk in _CHUNK.findall(" " + " ".join(text.split()))]
