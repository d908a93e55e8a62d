"""Tatoeba's pairs as they are read and parted; with the real sentences where SORALAB_DATA has them."""

import pytest

from soralab.datasets import tatoeba

REAL = tatoeba.available()  # before a test sets another folder


@pytest.fixture
def few(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    path = tmp_path / "tatoeba_hin_eng" / "hin.txt"
    path.parent.mkdir()
    lines = [f"Sentence {k}.\tवाक्य {k}।\tCC-BY 2.0 (France)" for k in range(400)] + ["Duck!\tझुको!\tx", "Duck!\tबतख़!\tx"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_pairs_are_hindi_and_english_without_whose_they_are(few):
    told = tatoeba.pairs("train") + tatoeba.pairs("val") + tatoeba.pairs("test")
    assert len(told) == 402 and ("वाक्य 7।", "Sentence 7.") in told
    assert 12 < len(tatoeba.pairs("val")) < 30 and 25 < len(tatoeba.pairs("test")) < 60


def test_no_english_sentence_is_in_two_splits_and_a_longer_file_keeps_its_splits(few):
    english = {split: {text.lower() for _, text in tatoeba.pairs(split)} for split in tatoeba.SPLITS}
    assert not english["train"] & english["test"] and not english["train"] & english["val"]
    assert tatoeba.split_of(" DUCK! ") == tatoeba.split_of("Duck!")
    before = tatoeba.pairs("test")
    few.write_text("A new one.\tनया।\tx\n" + few.read_text(encoding="utf-8"), encoding="utf-8")
    assert [pair for pair in tatoeba.pairs("test") if pair[1] != "A new one."] == before


def test_what_is_missing_or_broken_is_named(few):
    with pytest.raises(ValueError, match="split is 'dev'; it takes one of train, val, test"):
        tatoeba.pairs("dev")
    few.write_text("no tab\n", encoding="utf-8")
    with pytest.raises(ValueError, match="hin.txt, line 1: got 'no tab', takes English, a tab, and Hindi"):
        tatoeba.pairs()
    few.write_bytes(b"Wow!\t\xff\xfe\n")
    with pytest.raises(ValueError, match="hin.txt is damaged .*`soralab data get tatoeba_hin_eng`"):
        tatoeba.pairs()
    few.unlink()
    assert not tatoeba.available()
    with pytest.raises(FileNotFoundError, match="there is no .*hin.txt: `soralab data get tatoeba_hin_eng` fetches it"):
        tatoeba.pairs()


@pytest.mark.skipif(not REAL, reason="SORALAB_DATA names no folder with the real sentences")
def test_the_real_sentences():
    counts = {split: len(tatoeba.pairs(split)) for split in tatoeba.SPLITS}
    assert sum(counts.values()) > 2900 and 0.8 < counts["train"] / sum(counts.values()) < 0.9
    assert all(any("\u0900" <= letter <= "\u097f" for letter in hindi) for hindi, _ in tatoeba.pairs("test"))
    assert "Attribution" not in "".join(text for pair in tatoeba.pairs("test") for text in pair)
