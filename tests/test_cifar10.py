"""CIFAR-10's reader: on files made here in its format, and on the real ones where SORALAB_DATA has them."""

import numpy as np
import pytest
import torch

from soralab.datasets import cifar10

REAL = cifar10.available()  # before a test sets another folder


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Six small files; returns {file: its rows}."""
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "BATCH", 7)
    rng = np.random.default_rng(0)
    cifar10.folder().mkdir(parents=True)
    rows = {}
    for file in (*cifar10.FILES["train"], *cifar10.FILES["test"]):
        rows[file] = rng.integers(0, 256, (7, 3073), np.uint8)
        rows[file][:, 0] %= 10
        (cifar10.folder() / file).write_bytes(rows[file].tobytes())
    return rows


def test_pictures_and_classes_in_the_published_order(made):
    assert cifar10.available() and len(cifar10.KINDS) == cifar10.CLASSES
    pictures, classes = cifar10.load("train")
    assert pictures.shape == (35, 3, 32, 32) and pictures.dtype == torch.uint8 and classes.dtype == torch.int64
    row = made["data_batch_2.bin"][3]  # the eleventh picture: first all red, row by row, then green, then blue
    assert classes[10] == row[0] and pictures[10, 0, 0, 1] == row[2] and pictures[10, 0, 1, 0] == row[33]
    assert pictures[10, 1, 0, 0] == row[1 + 1024] and pictures[10, 2, 31, 31] == row[3072]
    assert np.array_equal(cifar10.load("test")[0].reshape(7, -1).numpy(), made["test_batch.bin"][:, 1:])


@pytest.mark.parametrize("spoil", [
    lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"", lambda d: b"\x0a" + d[1:], lambda d: b"\x80\x02" * 4000,
], ids=["short", "long", "empty", "class 10", "pickle"])  # fmt: skip
def test_other_files_are_refused(made, spoil):
    path = cifar10.folder() / "test_batch.bin"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match="test_batch.bin is not CIFAR-10's: it takes 7 times a class"):
        cifar10.load("test")


def test_what_is_missing_is_told_with_the_mend(made):
    (cifar10.folder() / "data_batch_3.bin").unlink()
    assert not cifar10.available()
    with pytest.raises(FileNotFoundError, match="data_batch_3.bin: `soralab data get cifar10` fetches it"):
        cifar10.load("train")
    with pytest.raises(ValueError, match="split is 'val'; it takes one of train, test"):
        cifar10.load("val")


@pytest.mark.skipif(not REAL, reason="SORALAB_DATA names no folder with CIFAR-10's binary version")
def test_the_real_pictures():
    pictures, classes = cifar10.load("test")
    assert len(pictures) == 10_000 and classes.bincount().tolist() == [1000] * 10
    assert classes[:5].tolist() == [3, 8, 8, 0, 6]
