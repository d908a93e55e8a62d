"""Flickr8k as it is read; with the real pictures where SORALAB_DATA has them."""

import os

import pytest
from PIL import Image

from soralab.datasets import flickr


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A folder laid out as the data set's, with a wide, a tall and a missing picture."""
    place = tmp_path / "flickr8k"
    (place / "Images").mkdir(parents=True)
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("blue", (10, 0, 30, 20))  # the middle square
    wide.save(place / "Images" / "wide.png")
    Image.new("L", (10, 30), 255).save(place / "Images" / "tall.png")
    lines = [f"{name}.png#{k}\t{name} sentence {k} .\n" for name in ("wide", "tall", "gone") for k in range(5)]
    (place / "Flickr8k.token.txt").write_text("".join(lines), encoding="utf-8")
    for split, names in {"train": "wide gone", "dev": "tall", "test": "tall wide"}.items():
        text = "\n".join(f"{name}.png" for name in names.split()) + "\n"
        (place / f"Flickr_8k.{split}Images.txt").write_text(text, encoding="utf-8")
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    return place


def test_pictures_are_their_middle_squares(few):
    assert flickr.available()
    pictures, lines = flickr.load("test", 8)
    assert pictures.shape == (2, 3, 8, 8) and lines[1] == [f"wide sentence {k} ." for k in range(5)]
    assert (pictures[0] == 255).all()
    assert (pictures[1, 2, :, 1:-1] == 255).all() and (pictures[1, 0, :, 1:-1] == 0).all()


def test_a_picture_that_is_not_there_is_left_out(few):
    pictures, lines = flickr.load("train", 8)
    assert len(pictures) == len(lines) == 1
    for file in (few / "Images").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="none of the 2 pictures of train is in .*Images: `soralab data"):
        flickr.load("train")


def test_a_part_will_do(few):
    few.rename(few.with_name("flickr8k_mini"))
    assert flickr.available() and len(flickr.load("val")[0]) == 1


def test_what_is_missing_or_broken_is_named(few):
    with pytest.raises(ValueError, match="split is 'dev'; it takes one of train, val, test"):
        flickr.load("dev")
    token = few / "Flickr8k.token.txt"
    token.write_text("wide.png#0\ta dog .\n", encoding="utf-8")
    with pytest.raises(ValueError, match="wide.png has 1 sentences; it takes 5"):
        flickr.load("train")
    token.write_text("wide.png a dog\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Flickr8k.token.txt, line 1: got 'wide.png a dog', takes NAME.jpg#0"):
        flickr.load("train")
    token.unlink()
    assert not flickr.available()
    with pytest.raises(FileNotFoundError, match="there is no .*Flickr8k.token.txt: `soralab data get flickr8k` says"):
        flickr.load("train")


@pytest.mark.skipif("SORALAB_DATA" not in os.environ, reason="SORALAB_DATA names no folder with the real pictures")
def test_the_real_pictures():
    if not flickr.available():
        pytest.skip("no flickr8k in SORALAB_DATA")
    pictures, lines = flickr.load("test", 32)
    assert len(pictures) == len(lines) and pictures.float().std() > 30
    assert all(len(several) == 5 for several in lines)
