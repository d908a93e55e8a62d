"""Multi30k's texts as they are read, and byte pairs; with the real texts where SORALAB_DATA has them."""

import gzip
import os
from collections import Counter

import pytest

from soralab.datasets import multi30k
from soralab.datasets.multi30k import BytePairs, chunks

LINES = ["low low low low low lower lower newest newest newest newest newest newest widest widest widest"]


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A folder laid out as the data set's, with three sentences a file."""
    raw = tmp_path / "multi30k" / "raw"
    raw.mkdir(parents=True)
    german = ["Ein Hund läuft.", "Zwei Männer\x85sitzen.", "Straße"]
    texts = {"de": german, "en": ["A dog runs.", "Two men sit.", "Street"]}
    for split in ("train", "val", "test_2016_flickr"):
        for language, lines in texts.items():
            with gzip.open(raw / f"{split}.{language}.gz", "wt", encoding="utf-8", newline="\n") as file:
                file.write("\n".join(lines) + "\n")
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    return raw


def test_pairs_stand_side_by_side(few):
    assert multi30k.available()
    assert not multi30k.available("de", "fr")
    found = multi30k.pairs("test")
    assert found[0] == ("Ein Hund läuft.", "A dog runs.")
    assert len(found) == 3  # a line ends at \n alone: str.splitlines would cut the second sentence in two
    assert multi30k.pairs("val", "en", "de")[2] == ("Street", "Straße")


def test_files_of_different_length_are_refused(few):
    with gzip.open(few / "val.en.gz", "wt", encoding="utf-8") as file:
        file.write("A dog runs.\n")
    with pytest.raises(ValueError, match="val has 3 lines of de and 1 of en; it takes as many"):
        multi30k.pairs("val")


def test_what_is_missing_or_unknown_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    assert not multi30k.available()
    with pytest.raises(FileNotFoundError, match="train.de.gz is not in .*multi30k.*raw: `soralab data get multi30k`"):
        multi30k.sentences("train", "de")
    with pytest.raises(ValueError, match="split is 'tset'; it takes one of train, val, test"):
        multi30k.sentences("tset", "de")
    with pytest.raises(ValueError, match="language is 'hi'; it takes one of de, en, fr, cs"):
        multi30k.sentences("test", "hi")


def test_words_keep_the_space_before_them():
    assert chunks("Ein Hund,  der läuft.") == ["▁Ein", "▁Hund", ",", "▁der", "▁läuft", "."]


def merged(word, pair):
    """The parts of a word once the pair is one part, from the left."""
    k, parts = 0, []
    while k < len(word):
        together = tuple(word[k : k + 2]) == pair
        parts.append("".join(pair) if together else word[k])
        k += 2 if together else 1
    return parts


def test_the_most_frequent_pair_is_merged_each_time():
    """Sennrich's algorithm 1, plainly: count all pairs anew before each merge."""
    learnt = BytePairs.learn(LINES, size=3 + 1 + 11 + 8)
    assert len(learnt.merges) == 8 and len(learnt) == 23
    words = [list(chunk) for chunk in chunks(LINES[0])]
    for pair in learnt.merges:
        counts = Counter(both for word in words for both in zip(word, word[1:], strict=False))
        assert counts[pair] == max(counts.values())
        words = [merged(word, pair) for word in words]
    assert [learnt.pieces[id - 3] for id in learnt.encode(LINES[0])] == [part for word in words for part in word]


def test_a_text_comes_back(few):
    lines = [text for pair in multi30k.pairs("train") for text in pair]
    for size in (40, 60, 200):
        pieces = BytePairs.learn(lines, size)
        for text in ("Ein Hund läuft.", "Two men sit.", "Street dog. Männer"):
            ids = pieces.encode(text)
            assert pieces.decode([1, *ids, 2, 0]) == text
            assert min(ids) >= 3 and max(ids) < len(pieces)


def test_more_pieces_make_shorter_texts_and_no_pair_that_occurs_once(few):
    lines = LINES * 2
    lengths = [len(BytePairs.learn(lines, size).encode(lines[0])) for size in (15, 20, 25, 200)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[1]
    assert lengths[-1] == len(chunks(lines[0]))  # every word is one piece
    assert BytePairs.learn(["abc"], 100).merges == []


def test_a_letter_never_seen_is_unknown():
    pieces = BytePairs.learn(LINES, 30)
    assert pieces.decode(pieces.encode("low ñ")) == "low <unknown>"


@pytest.mark.skipif("SORALAB_DATA" not in os.environ, reason="SORALAB_DATA names no folder with the real texts")
def test_the_real_texts():
    if not multi30k.available():
        pytest.skip("no multi30k/raw in SORALAB_DATA")
    assert [len(multi30k.pairs(split)) for split in ("train", "val", "test")] == [29_000, 1_014, 1_000]
    german, english = multi30k.pairs("train")[0]
    assert german.startswith("Zwei junge weiße Männer") and english.startswith("Two young, White males")
