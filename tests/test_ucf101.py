"""UCF101 as it is read; with the real films where SORALAB_DATA has them."""

import os

import pytest
import torch

from soralab.datasets import ucf101
from soralab.files.films import save_film

LISTED = ("Archery/v_Archery_g01_c01.avi", "Bowling/v_Bowling_g02_c01.avi", "Bowling/v_Bowling_g03_c01.avi")


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A folder laid out as the data set's, CRLF and all, with two films of three; frame k is k tenths bright."""
    place = tmp_path / "ucf101"
    lists = place / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_bytes(b"1 Archery\r\n2 Bowling\r\n")
    for fold in ucf101.FOLDS:
        train, test = (LISTED[:1], LISTED[1:]) if fold == 1 else (LISTED[1:], LISTED[:1])
        (lists / f"trainlist0{fold}.txt").write_bytes("".join(f"{name} 1\r\n" for name in train).encode())
        (lists / f"testlist0{fold}.txt").write_bytes("".join(f"{name}\r\n" for name in test).encode())
    film = (torch.arange(10) / 10)[:, None, None, None] * torch.ones(10, 3, 16, 24) * 2 - 1
    for name in LISTED[:2]:
        path = place / "UCF-101" / name
        path.parent.mkdir(parents=True)
        save_film(path.with_suffix(".png"), film).rename(path)  # its first bytes, not its name, say what a film is
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    return place


def test_every_second_frame_of_the_films_that_are_there(few):
    assert ucf101.available() and ucf101.classes() == ["Archery", "Bowling"]
    films, labels = ucf101.load("test", 1, frames=4, step=2, side=8)
    assert films.shape == (1, 4, 3, 8, 8) and labels.tolist() == [1]
    torch.testing.assert_close(films.mean((2, 3, 4)), (torch.arange(0, 8, 2) / 5 - 1)[None], atol=0.01, rtol=0)
    assert ucf101.load("train", 1, 2)[1].tolist() == [0] and ucf101.load("train", 2, 2)[1].tolist() == [1]


def test_a_part_will_do(few):
    few.rename(few.with_name("ucf101_mini"))
    assert ucf101.available() and len(ucf101.paths("train")) == 1


def test_what_is_missing_or_broken_is_named(few):
    with pytest.raises(ValueError, match="split is 'val'; it takes one of train, test"):
        ucf101.load("val")
    with pytest.raises(ValueError, match="fold is 4; it takes one of 1, 2, 3"):
        ucf101.load("test", 4)
    with pytest.raises(ValueError, match="has 10 frames, too few"):
        ucf101.load("test", frames=8, step=2)
    (few / "ucfTrainTestlist" / "classInd.txt").write_text("1 Archery\n")
    with pytest.raises(ValueError, match="Bowling is no class of classInd.txt"):
        ucf101.load("test", frames=2)
    (few / "UCF-101" / LISTED[0]).write_bytes(b"no film")
    with pytest.raises((ValueError, OSError), match="v_Archery_g01_c01.avi"):
        ucf101.load("train", frames=2)
    (few / "UCF-101" / LISTED[0]).unlink()
    with pytest.raises(FileNotFoundError, match="none of the 1 film of train, fold 1, is in .*UCF-101: `soralab data"):
        ucf101.load("train")
    (few / "ucfTrainTestlist" / "classInd.txt").unlink()
    assert not ucf101.available()
    with pytest.raises(FileNotFoundError, match="there is no .*classInd.txt: `soralab data get ucf101`"):
        ucf101.classes()


@pytest.mark.skipif("SORALAB_DATA" not in os.environ, reason="SORALAB_DATA names no folder with the real films")
def test_the_real_films():
    if not ucf101.available():
        pytest.skip("no ucf101 in SORALAB_DATA")
    films, labels = ucf101.load("test", 1, frames=8, side=32)
    assert len(films) == len(labels) and len(ucf101.classes()) == 101
    assert films.shape[1:] == (8, 3, 32, 32) and films.std() > 0.2
    assert (films[:, 1:] - films[:, :-1]).abs().mean() > 0.005  # they move
