"""Real data sets whose files are damaged or cannot be read: one line that names the file and the mend, for each."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from soralab.datasets import flickr, isbi, mnist, multi30k
from soralab.files.damage import damage_named


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.full((512, 512), 255, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {
    "text": b"no picture at all", "empty": b"", "cut": png()[:120], "head": png()[:20],
    "bytes inside": png()[:60] + bytes(40) + png()[100:],
}  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    return tmp_path


def one_line(error, *said):
    text = str(error.value)
    assert "\n" not in text and all(part in text for part in said), text


@pytest.mark.parametrize("how", PICTURES)
def test_a_damaged_slice(data, how):
    for kind in ("image", "label"):
        (isbi.folder() / kind).mkdir(parents=True, exist_ok=True)
        (isbi.folder() / kind / "0.png").write_bytes(png())
    assert isbi.load([0])[1].all()
    (isbi.folder() / "label" / "0.png").write_bytes(PICTURES[how])
    with pytest.raises(ValueError) as error:
        isbi.load([0])
    one_line(error, "label", "0.png is damaged (", "remove it, and `soralab data get isbi2012`")


@pytest.mark.parametrize("how", PICTURES)
def test_a_damaged_photograph(data, how):
    place = data / "flickr8k"
    (place / "Images").mkdir(parents=True)
    (place / "Images" / "a.jpg").write_bytes(PICTURES[how])
    (place / "Flickr8k.token.txt").write_text("".join(f"a.jpg#{k}\ta dog runs\n" for k in range(5)))
    for split in flickr.FILES["flickr8k"][2].values():
        (place / split).write_text("a.jpg\n")
    with pytest.raises(ValueError) as error:
        flickr.load("train")
    one_line(error, "a.jpg is damaged (", "remove it")
    (place / "Flickr8k.token.txt").write_bytes(b"a.jpg#0\t\xff\xfe\n")
    with pytest.raises(ValueError) as error:
        flickr.sentences()
    one_line(error, "Flickr8k.token.txt is damaged (", "soralab data get flickr8k")


@pytest.mark.parametrize("content", [
    b"not gzip", gzip.compress(b"ein Hund\n" * 500)[:-20], gzip.compress(b"\xff\xfe\n"), b"",
    gzip.compress(bytes(range(256)) * 99)[:40] + bytes(40),
], ids=["text", "cut", "not UTF-8", "empty", "bytes inside"])  # fmt: skip
def test_damaged_sentences(data, content):
    multi30k.folder().mkdir(parents=True)
    (multi30k.folder() / "val.de.gz").write_bytes(content)
    if content == b"":
        assert multi30k.sentences("val", "de") == []  # gzip takes an empty file for an empty text
        return
    with pytest.raises(ValueError) as error:
        multi30k.sentences("val", "de")
    one_line(error, "val.de.gz is damaged (", "soralab data get multi30k")


@pytest.mark.parametrize("content", [
    b"<html>", gzip.compress(bytes(5000))[:-9], gzip.compress(bytes(range(99)))[:20],
], ids=["HTML", "cut", "head"])  # fmt: skip
def test_damaged_digits(data, content):
    mnist.folder().mkdir(parents=True)
    (mnist.folder() / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError) as error:
        mnist.load("train")
    one_line(error, "train-images-idx3-ubyte.gz is damaged (", "remove it, and `soralab data get mnist`")


@pytest.mark.parametrize("error, told", [
    (EOFError("it ends too early\nand more"), "it ends too early"), (EOFError(), "EOFError"),
])  # fmt: skip
def test_the_reason_is_told_or_its_kind_where_it_has_no_words(error, told):
    with pytest.raises(ValueError) as info, damage_named("a", "mend it"):
        raise error
    assert str(info.value) == f"a is damaged ({told}): mend it"


def test_what_is_not_damage_passes_through():
    for error in (FileNotFoundError("gone"), KeyError("x"), ValueError("mine, with a mend")):
        with pytest.raises(type(error)) as info, damage_named("a", "mend it"):
            raise error
        assert info.value is error
    with pytest.raises(PermissionError, match="^a cannot be read"), damage_named("a", "mend it"):
        raise PermissionError(13, "Permission denied")
