"""Byte-pair encoding, and CLIP's lower-cased tokenizer on bytes.

Sennrich et al. 2016 (1508.07909): begin with letters, and make the most frequent pair of neighbours one piece, again
and again. CLIP's letters are the 256 bytes (as GPT-2's are), each once inside a word and once at its end, so that no
text is unknown: what was never seen is spelt.
"""

from __future__ import annotations

import gzip
import html
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

Pair = tuple[str, str]
ENDS = "</w>"  # the mark of a letter, and of a piece, that ends a word
START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
PUBLISHED_MERGES = 49_152 - 256 - 2  # of the file's lines, as many as the published vocabulary has
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


# ------------------------------------------------------------------------------------------------ learning the merges


def learn_merges(cut: dict[str, list[str]], times: Mapping[str, int], most: int) -> list[Pair]:
    """Up to `most` merges, in the order in which they are found; fewer where no pair is left that occurs twice.

    cut: each word as its letters; it holds the pieces afterwards. times: how often each word occurs.
    """
    counts: Counter = Counter()
    where: dict[Pair, dict[str, None]] = defaultdict(dict)  # not sets: their order is not fixed
    for word, parts in cut.items():
        _count(word, parts, times[word], counts, where)
    merges: list[Pair] = []
    while len(merges) < most and counts:
        best = max(counts, key=counts.get)
        if counts[best] < 2:
            break
        merges.append(best)
        for word in list(where[best]):
            _count(word, cut[word], -times[word], counts, where)
            cut[word] = join(cut[word], best)
            _count(word, cut[word], times[word], counts, where)
    return merges


def join(parts: Sequence[str], pair: Pair) -> list[str]:
    """`parts` with every occurrence of the pair made one part, from the left."""
    joined: list[str] = []
    place = 0
    while place < len(parts):
        found = tuple(parts[place : place + 2]) == pair
        joined.append("".join(pair) if found else parts[place])
        place += 2 if found else 1
    return joined


def merged(parts: Sequence[str], rank: Mapping[Pair, int]) -> tuple[str, ...]:
    """`parts` after all merges that apply, the earliest learned first."""
    while len(parts) > 1:
        best = min(zip(parts, parts[1:], strict=False), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            break
        parts = join(parts, best)
    return tuple(parts)


def _count(word: str, parts: list[str], times: int, counts: Counter, where: dict) -> None:
    """Add `times` occurrences of the pairs in a word; pairs that are gone leave the counts."""
    for pair in zip(parts, parts[1:], strict=False):
        counts[pair] += times
        if counts[pair] <= 0:
            del counts[pair]
        if times > 0:
            where[pair][word] = None


# -------------------------------------------------------------------------------------------------- CLIP's tokenizer


def byte_letters() -> dict[int, str]:
    """A visible letter for each of the 256 bytes, in the published order: those that have one keep it."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + k) for k, byte in enumerate(others)}


def words(text: str) -> list[str]:
    """Lower-cased words: runs of letters, single digits, runs of other signs, and endings like 's."""
    text = html.unescape(html.unescape(text)).strip().lower()
    found, place = [], 0
    while place < len(text):
        ending = next((e for e in CONTRACTIONS if text.startswith(e, place)), None)
        kind, end = _kind(text[place]), place + 1
        while not ending and kind in ("letter", "sign") and end < len(text) and _kind(text[end]) == kind:
            end += 1
        end = place + len(ending) if ending else end
        found += [text[place:end]] if kind != "space" else []
        place = end
    return found


def _kind(letter: str) -> str:
    if letter.isspace():
        return "space"
    return {"L": "letter", "N": "digit"}.get(unicodedata.category(letter)[0], "sign")


class Tokenizer:
    """Texts to ids and back. Ids: 256 letters, the same at a word's end, the merges, start of text, end of text."""

    def __init__(self, merges: Iterable[Pair]):
        self.merges = [tuple(pair) for pair in merges]
        self.bytes = byte_letters()
        letters = list(self.bytes.values())
        self.pieces = [*letters, *(letter + ENDS for letter in letters), *(a + b for a, b in self.merges)]
        self.start, self.end = len(self.pieces), len(self.pieces) + 1
        self._id = {piece: number for number, piece in enumerate(self.pieces)}
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._cut = lru_cache(maxsize=100_000)(lambda word: merged(self._spelt(word), self._rank))

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int) -> Tokenizer:
        """Learn up to `merges` merges from texts."""
        times = Counter(word for text in texts for word in words(text))
        letters = cls([])
        return cls(learn_merges({word: letters._spelt(word) for word in times}, times, merges))

    @classmethod
    def published(cls, path: str | Path) -> Tokenizer:
        """The published vocabulary of 49,408 ids, from its file bpe_simple_vocab_16e6.txt.gz.

        The file lies in github.com/openai/CLIP (folder clip) and in the package open_clip_torch. Raises
        FileNotFoundError, and ValueError for another file.
        """
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                lines = file.read().split("\n")[1 : 1 + PUBLISHED_MERGES]  # the first line is a heading
        except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"path is {path}, which cannot be read ({error}); it takes a gzipped text") from error
        pairs = [tuple(line.split()) for line in lines]
        if len(pairs) < PUBLISHED_MERGES or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"path is {path}, which has {len(pairs)} lines; it takes {PUBLISHED_MERGES:,} pairs")
        return cls(pairs)

    def __len__(self) -> int:
        return self.end + 1

    def encode(self, text: str) -> list[int]:
        """The ids of a text's pieces, without start and end."""
        return [self._id[piece] for word in words(text) for piece in self._cut(word)]

    def split(self, text: str) -> list[str]:
        """The text's pieces as one reads them, "·" where a word ends: ["a·", "circle·"]; parts of a letter in hex."""
        found = [self._bytes([number]) for number in self.encode(text)]
        read = [value.decode("utf-8", errors="ignore") for value in found]
        whole = [text if text.encode("utf-8") == value else value.rstrip(b" ").hex() + " " * value.endswith(b" ")
                 for value, text in zip(found, read, strict=True)]  # fmt: skip
        return [text.replace(" ", "·") for text in whole]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids, lower-cased as it is, up to the end of text; the start is left out."""
        kept = []
        for number in ids:
            if number == self.end:
                break
            kept += [int(number)] if number != self.start else []
        return self._read(kept).strip()

    def __call__(self, texts: Sequence[str], context: int = 77, cut: bool = False) -> Tensor:
        """Ids [texts, context]: start of text, the pieces, end of text, and zeros up to `context`.

        Zero is the id of "!" as well: nobody reads it, since the end of text stands before and attention is causal.
        cut: a text that is too long loses its last pieces and keeps its end. Raises ValueError for one text instead of
        several, and, without `cut`, for a text that is too long.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts is {texts[:40]!r}; it takes a list of texts")
        ids = torch.zeros(len(texts), context, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            found = [self.start, *self.encode(text), self.end]
            if cut and len(found) > context:
                found = [*found[: context - 1], self.end]
            if len(found) > context:
                raise ValueError(f"texts holds one of {len(found)} ids, {text[:40]!r}; it takes {context} at most")
            row[: len(found)] = torch.tensor(found)
        return ids

    def _spelt(self, word: str) -> list[str]:
        letters = [self.bytes[byte] for byte in word.encode("utf-8")]
        return [*letters[:-1], letters[-1] + ENDS]

    def _bytes(self, ids: Sequence[int]) -> bytes:
        """What these pieces spell, a space where a word ends."""
        byte = {letter: number for number, letter in self.bytes.items()}
        pieces = [self.pieces[number] for number in ids]
        values = [[*(byte[letter] for letter in piece.removesuffix(ENDS)), *([32] if piece.endswith(ENDS) else [])]
                  for piece in pieces]  # fmt: skip
        return bytes(value for piece in values for value in piece)

    def _read(self, ids: Sequence[int]) -> str:
        return self._bytes(ids).decode("utf-8", errors="replace")
