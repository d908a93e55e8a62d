"""A reader's own pictures and films: every form they may have, what is said of them, their splits, and what is none."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from soralab.datasets import own
from soralab.files.films import save_film

REAL = Path(os.environ.get("SORALAB_DATA", "nowhere")) / "ucf101_mini"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    for name in ("pictures", "films"):
        (tmp_path / name).mkdir()
    return tmp_path


def picture(path, colour="red", size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def levels(count=6, height=16, width=24):
    """A film uint8 [time, height, width, 3] whose frame k is 40 k bright."""
    return np.broadcast_to(40 * np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)).copy()


def brightness(film):
    return ((film.mean((1, 2, 3)) + 1) * 127.5).round().tolist()


# --------------------------------------------------------------------------------------------------------- pictures


def test_pictures_in_folders_with_their_words(place):
    for k, colour in enumerate(("red", "lime", "blue", "white", "black")):
        picture(place / "pictures" / f"deep/{k}.png", colour)
    (place / "pictures" / "deep" / "0.txt").write_text("a red one\n\na wide one\n", encoding="utf-8-sig")  # Windows'
    picture(place / "pictures" / "f.JPG", "blue")
    picture(place / "pictures" / ".hidden" / "g.png")
    (place / "pictures" / "captions.txt").write_text(
        "f.JPG\ta blue one\nf.JPG\tnot red\ndeep/1.png#0\ta green one\ndeep/2.png\tblue\n", encoding="utf-8-sig"
    )
    said = own.captions("pictures")
    assert [path.name for path in said] == ["0.png", "1.png", "2.png", "3.png", "4.png", "f.JPG"]
    assert list(said.values()) == [["a red one", "a wide one"], ["a green one"], ["blue"], [], [],
                                   ["a blue one", "not red"]]  # fmt: skip
    shown = {which: own.pictures(which, 8) for which in own.SPLITS}  # of those that something is said of
    assert [len(shown[which][0]) for which in own.SPLITS] == [2, 1, 1]
    texts = [text for pictures, texts in shown.values() for text in texts]
    assert sorted(texts) == sorted([["a red one", "a wide one"], ["a green one"], ["blue"], ["a blue one", "not red"]])
    for pictures, words in shown.values():
        assert pictures.dtype == torch.uint8 and pictures.shape[1:] == (3, 8, 8)
        for one, text in zip(pictures, words, strict=True):
            colour = {"a red one": 0, "a green one": 1, "blue": 2, "a blue one": 2}[text[0]]
            assert one[colour].min() > 250 and one.float().mean() < 90


def test_splits_do_not_hang_on_the_order_and_leave_nothing_out(place):
    items = [place / f"{k}.png" for k in range(47)]
    parts = {which: own.split(items, which, place) for which in own.SPLITS}
    assert sorted(sum(parts.values(), [])) == sorted(items) and len(parts["test"]) == len(parts["val"]) == 5
    assert own.split(items[::-1], "test", place) == parts["test"]
    moved = [Path("elsewhere") / item.name for item in items]
    assert [item.name for item in own.split(moved, "test", Path("elsewhere"))] == [p.name for p in parts["test"]]
    with pytest.raises(ValueError, match="which is 'dev'|split is 'dev'"):
        own.split(items, "dev", place)
    with pytest.raises(ValueError, match="holds 2; it takes three or more"):
        own.split(items[:2], "test", place)


def test_what_is_wrong_with_pictures_is_named(place):
    with pytest.raises(FileNotFoundError, match="none of your pictures in .*: put your own pictures into"):
        own.pictures()
    assert not own.available("pictures")
    for k in range(3):
        picture(place / "pictures" / f"{k}.png")
    assert own.available("pictures")
    with pytest.raises(FileNotFoundError, match="nothing is said of the pictures .*: put NAME.txt beside NAME.jpg"):
        own.pictures()
    for k in range(3):
        (place / "pictures" / f"{k}.txt").write_text("a square\n")
        (place / "pictures" / f"{k}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"\d.png is damaged .*: remove it, and put your own"):
        own.pictures()
    (place / "pictures" / "captions.txt").write_text("0.png a square\n")
    with pytest.raises(ValueError, match="captions.txt, line 1: got '0.png a square', takes NAME"):
        own.pictures()
    with pytest.raises(ValueError, match="name is 'songs'; it takes pictures or films"):
        own.available("songs")


# ------------------------------------------------------------------------------------------------------------ films


def film_file(path, suffix):
    save_film(path.with_suffix(suffix), torch.from_numpy(levels()).permute(0, 3, 1, 2) / 127.5 - 1)


FORMS = {
    "gif": lambda path: film_file(path, ".gif"),
    "mp4": lambda path: film_file(path, ".mp4"),
    "frames": lambda path: [picture(path / f"{k:03d}.png", (40 * k,) * 3, (24, 16)) for k in range(6)],
    "npy": lambda path: np.save(path.with_suffix(".npy"), levels()),
    "npz": lambda path: np.savez(path.with_suffix(".npz"), film=levels()),
    "npz, channels first": lambda path: np.savez_compressed(path.with_suffix(".npz"), levels().transpose(0, 3, 1, 2)),
    "npz, grey": lambda path: np.savez(path.with_suffix(".npz"), levels()[..., 0]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_film_in_every_form(place, form):
    FORMS[form](place / "films" / "shot.1")
    (item,) = own.captions("films")
    (film,) = own._read(item, 5, 2, 8)
    assert film.shape == (3, 3, 8, 8)
    assert brightness(film) == pytest.approx([0, 80, 160], abs=3 if form == "mp4" else 1)


@pytest.mark.parametrize("shape", [(4, 6, 16, 24, 3), (4, 6, 3, 16, 24), (4, 6, 16, 24)])
def test_an_array_of_several_films(place, shape):
    films = np.zeros(shape, np.uint8)
    films += 30 * np.arange(4, dtype=np.uint8).reshape(4, *[1] * (len(shape) - 1))
    np.savez(place / "films" / "several.npz", films)
    (item,) = own.captions("films")
    read = list(own._read(item, 6, 1, 8))
    assert [film.shape for film in read] == [(6, 3, 8, 8)] * 4
    assert [brightness(film)[0] for film in read] == [0, 30, 60, 90]


def test_films_of_a_split_with_what_is_said_of_them(place):
    for k in range(8):
        np.save(place / "films" / f"{k}.npy", levels(6 + k))
        (place / "films" / f"{k}.txt").write_text(f"film {k}\n")
    parts = [own.films(which, frames=4, step=2, side=8) for which in own.SPLITS if which != "train"]
    with pytest.warns(UserWarning, match=r"\d.npy is left out: it has not 7 frames"):  # film 0 has six
        parts.append(own.films("train", frames=4, step=2, side=8))
    assert sorted(text[0] for _, texts in parts for text in texts) == [f"film {k}" for k in range(1, 8)]
    assert all(brightness(film) == [0, 80, 160, 240] for films, _ in parts for film in films)
    assert all(films.shape[1:] == (4, 3, 8, 8) and films.dtype == torch.float32 for films, _ in parts)
    with pytest.raises(ValueError, match="no film of test in .* has 31 frames: take fewer"), pytest.warns(UserWarning):
        own.films("test", frames=31)


def packed(name, content, how=zipfile.ZIP_STORED, spoilt=False):
    """An archive of one file."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", how) as archive:
        archive.writestr(name, content)
    data = bytearray(buffer.getvalue())
    if spoilt:
        data[60:90] = bytes(30)
    return bytes(data)


def headless():
    """An array whose head has no end."""
    np.save(buffer := io.BytesIO(), np.zeros((6, 8, 8, 3), np.uint8))
    return buffer.getvalue().replace(b"), }", b",   ")


class Dangerous:
    def __reduce__(self):
        return os.system, ("touch dangerous",)


@pytest.mark.parametrize("name, content, said", [
    ("a.npy", b"no array", "is no array that can be read|is damaged"), ("a.npy", b"", "is damaged|is no array"),
    ("a.npy", packed("film.npy", b"x"), "is no array that can be read"),
    ("a.npz", packed("a.txt", b"x"), "is no array that can be read"), ("a.npy", headless(), "is damaged|is no array"),
    ("a.npz", packed("film.npy", headless()), "is damaged|is no array"),
    ("a.npz", packed("film.npy", bytes(range(256)) * 99, zipfile.ZIP_LZMA, spoilt=True), "is damaged"),
    ("a.npz", b"no archive", "a.npz is damaged"), ("a.npz", b"PK\5\6" + bytes(18), "a.npz is damaged"),
    ("a.npy", np.zeros((6, 8, 8, 3), np.float32), r"holds float32 \[6, 8, 8, 3\]; it takes uint8"),
    ("a.npy", np.zeros((6, 8), np.uint8), r"holds uint8 \[6, 8\]; it takes"),
    ("a.npy", np.zeros((2, 6, 8, 8, 4), np.uint8), r"holds uint8 \[2, 6, 8, 8, 4\]; it takes"),
    ("a.npy", np.zeros((0, 8, 8, 3), np.uint8), r"holds uint8 \[0, 8, 8, 3\]; it takes"),
    ("a.npy", np.array([Dangerous()], object), "is no array that can be read"),
    ("a.npz", np.array([Dangerous()], object), "is no array that can be read"),
    ("a.mp4", b"no film", "a.mp4"), ("a.gif", b"GIF89a" + bytes(9), "a.gif"),
], ids=lambda value: value if isinstance(value, str) else type(value).__name__)  # an archive's bytes hold the hour
def test_what_is_no_film_is_named_and_no_pickle_is_read(place, monkeypatch, name, content, said):
    monkeypatch.chdir(place)
    path = place / "films" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        (np.save if name.endswith(".npy") else np.savez)(path, content)
    with pytest.raises((ValueError, OSError), match=said) as error:
        list(own._read(path, 6, 1, 8))
    assert "\n" not in str(error.value) and not (place / "dangerous").exists()


def test_the_size_of_an_array_is_looked_at_before_it_is_read(place, monkeypatch):
    monkeypatch.setattr(own, "MOST", 1 << 20)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (40, 256, 256, 3)})
    with zipfile.ZipFile(place / "films" / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("film.npy", head.getvalue() + bytes(40 * 256 * 256 * 3))
    with pytest.raises(ValueError, match=r"bomb.npz holds an array of 7,864,\d+ bytes; it takes at most 1,048,576"):
        list(own._read(place / "films" / "bomb.npz", 6, 1, 8))
    np.save(place / "films" / "wide.npy", np.zeros((1, 4097, 4097, 3), np.uint8)[:, :, :1].repeat(1, 0))
    monkeypatch.setattr(own, "MAX_SIDE_PRODUCT", 64)
    with pytest.raises(ValueError, match="wide.npy has frames of 1x4097 pixels: make them smaller first"):
        list(own._read(place / "films" / "wide.npy", 6, 1, 8))


@pytest.mark.skipif(not REAL.is_dir(), reason="SORALAB_DATA names no folder with real films")
def test_real_films(place):
    for k, path in enumerate(sorted(REAL.rglob("*.avi")) * 2):
        shutil.copy(path, place / "films" / f"{k}_{path.name}")
    films, texts = own.films("train", frames=8, step=2, side=32)
    assert len(films) == 2 and texts == [[], []] and films.std() > 0.2
    assert (films[:, 1:] - films[:, :-1]).abs().mean() > 0.005
