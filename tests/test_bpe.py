"""Byte pairs on bytes, CLIP's way. That the published vocabulary cuts as open_clip's does is in tests/parity."""

import gzip
from collections import Counter

import pytest
import torch

from soralab.blocks.bpe import ENDS, PUBLISHED_MERGES, Tokenizer, byte_letters, join, words

LINES = ["low low low low low lower lower", "newest newest newest newest newest newest widest widest widest"]


def test_words():
    want = ["a", "red", "-", "hot", "circle", "'s", "1", "2", "½", "tops", "!?"]
    assert words("A  red-hot CIRCLE's 12 ½ tops!?\n") == want
    assert words("don't we'll") == ["don", "'t", "we", "'ll"]
    assert words("a &amp;lt; b") == ["a", "<", "b"]  # unescaped twice
    assert words("snake_case") == ["snake", "_", "case"]
    assert words(" \t ") == []


def test_256_visible_letters():
    letters = byte_letters()
    assert len(set(letters.values())) == 256 and set(letters) == set(range(256))
    assert letters[ord("a")] == "a" and letters[ord(" ")] == "Ġ"
    assert all(not letter.isspace() for letter in letters.values())


def test_the_most_frequent_pair_is_merged_each_time():
    """Sennrich's algorithm, plainly: count all pairs anew before each merge."""
    tokenizer = Tokenizer.learn(LINES, 8)
    assert len(tokenizer.merges) == 8 and len(tokenizer) == 512 + 8 + 2
    cut = [[*word[:-1], word[-1] + ENDS] for line in LINES for word in line.split()]
    for pair in tokenizer.merges:
        counts = Counter(both for word in cut for both in zip(word, word[1:], strict=False))
        assert counts[pair] == max(counts.values())
        cut = [join(word, pair) for word in cut]
    got = [tokenizer.pieces[number] for line in LINES for number in tokenizer.encode(line)]
    assert got == [part for word in cut for part in word]


def test_join_goes_from_the_left():
    assert join(["a", "a", "a"], ("a", "a")) == ["aa", "a"]
    assert join(["a", "b", "a", "b"], ("a", "b")) == ["ab", "ab"]
    assert join(["b"], ("b", "b")) == ["b"]


def test_nothing_is_unknown_and_every_text_comes_back():
    tokenizer = Tokenizer.learn(LINES, 50)
    for text in ("low", "zebra", "straße", "你好", "🙂 ok", "newest widest lower"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.split("low zoo") == ["low·", "z", "o", "o·"]
    assert tokenizer.split("é") == ["c3", "a9·"]  # two bytes, neither of them a letter
    assert tokenizer.decode(tokenizer.encode("LOW")) == "low"  # lower-cased for good


def test_a_text_has_a_start_an_end_and_zeros():
    tokenizer = Tokenizer.learn(LINES, 50)
    ids = tokenizer(["low", "", "newest low"], 6)
    start, end = tokenizer.start, tokenizer.end
    assert end == len(tokenizer) - 1 == ids.max() and ids.dtype == torch.long
    low, newest = tokenizer.encode("low newest")
    assert ids.tolist() == [[start, low, end, 0, 0, 0], [start, end, 0, 0, 0, 0], [start, newest, low, end, 0, 0]]
    assert tokenizer.decode(ids[2].tolist()) == "newest low"
    with pytest.raises(ValueError, match="texts holds one of 7 ids, 'low low low low low'; it takes 6 at most"):
        tokenizer(["low low low low low"], 6)
    assert tokenizer(["low low low low low", "low"], 4, cut=True).tolist() == [
        [start, low, low, end], [start, low, end, 0],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="texts is 'low'; it takes a list of texts"):
        tokenizer("low")


def test_the_published_file_is_recognised(tmp_path):
    path = tmp_path / "merges.txt.gz"
    lines = ["heading", *(f"a{k} b{k}" for k in range(PUBLISHED_MERGES)), "not used"]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    assert len(Tokenizer.published(path)) == 49_408
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines[:99]))
    with pytest.raises(ValueError, match="which has 98 lines; it takes 48,894 pairs"):
        Tokenizer.published(path)


@pytest.mark.parametrize("damage", [
    lambda data: b"hello", lambda data: data[:-20], lambda data: data[:40] + bytes(40) + data[80:],
    lambda data: gzip.compress(b"\xff\xfe" + bytes([200] * 99)),
], ids=["no gzip", "cut", "other bytes", "no text"])  # fmt: skip
def test_a_damaged_file_is_refused_like_another(tmp_path, damage):
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(damage(gzip.compress("".join(f"a{k} b{k}\n" for k in range(999)).encode())))
    with pytest.raises(ValueError, match="path is .*merges.txt.gz, which cannot be read .*; it takes a gzipped text"):
        Tokenizer.published(path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.published(tmp_path / "none.gz")


def test_one_line_that_is_no_pair_is_enough_to_refuse_a_file(tmp_path):
    path = tmp_path / "merges.txt.gz"
    lines = ["heading", *(f"a{k} b{k}" for k in range(PUBLISHED_MERGES))]
    lines[7] = "a b c"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    with pytest.raises(ValueError, match="it takes 48,894 pairs"):
        Tokenizer.published(path)
