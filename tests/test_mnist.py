"""MNIST's reader: on files made here in its format, and on the real ones where SORALAB_DATA has them."""

import gzip
import struct

import numpy as np
import pytest
import torch

from soralab.datasets import mnist

COUNTS = {"train": 6, "test": 4}


def idx(array):
    """A uint8 array as the bytes of an idx file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Four small files; returns what is in them."""
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "COUNTS", COUNTS)
    rng = np.random.default_rng(0)
    mnist.folder().mkdir(parents=True)
    truth = {}
    for split, stem in mnist.STEMS.items():
        images = rng.integers(0, 256, (COUNTS[split], 28, 28), np.uint8)
        images[0, 0, :2] = 0, 255
        labels = rng.integers(0, 10, COUNTS[split], np.uint8)
        truth[split] = images, labels
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            with gzip.open(mnist.folder() / f"{stem}-{name}-ubyte.gz", "wb") as file:
                file.write(idx(array))
    return truth


def unpack():
    for path in mnist.folder().glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_read_packed_or_not(made, split, packed):
    if not packed:
        unpack()
    assert mnist.available()
    digits, labels = mnist.load(split)
    images, truth = made[split]
    assert digits.shape == (COUNTS[split], 1, 28, 28) and digits.dtype == torch.float32
    assert digits[0, 0, 0, :2].tolist() == [-1, 1]
    assert np.array_equal(((digits[:, 0] + 1) * 127.5).round().numpy(), images)
    assert labels.tolist() == truth.tolist()


def test_torchvision_reads_the_same(made):
    datasets = pytest.importorskip("torchvision.datasets")
    unpack()
    for split in COUNTS:
        theirs = datasets.MNIST(str(mnist.folder().parents[1]), train=split == "train")
        digits, labels = mnist.load(split)
        assert torch.equal(((digits[:, 0] + 1) * 127.5).round().to(torch.uint8), theirs.data)
        assert torch.equal(labels, theirs.targets)


def test_what_is_missing_is_told_with_the_mend(made):
    (mnist.folder() / "t10k-labels-idx1-ubyte.gz").unlink()
    assert not mnist.available()
    mnist.load("train")
    with pytest.raises(FileNotFoundError, match="t10k-labels.*: `soralab data get mnist` fetches it, or set SORALAB"):
        mnist.load("test")


@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"\0\0\x09" + d[3:], lambda d: b""])
def test_other_files_are_refused(made, spoil):
    path = mnist.folder() / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(spoil(gzip.decompress(path.read_bytes()))))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is not MNIST's: it takes 6 x 28 x 28 bytes"):
        mnist.load("train")


@pytest.mark.parametrize("cut", [20, 3])
def test_a_file_cut_short_is_refused(made, cut):
    path = mnist.folder() / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[: cut if cut == 3 else -cut])
    with pytest.raises(ValueError, match="is damaged"):
        mnist.load("train")


def test_an_unknown_split_is_refused(made):
    with pytest.raises(ValueError, match="split is 'val'; it takes one of train, test"):
        mnist.load("val")


@pytest.mark.skipif(not mnist.available(), reason="the reader has no MNIST")
def test_the_real_digits():
    digits, labels = mnist.load("test")
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]  # how the test set begins, as every reader of MNIST knows it
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert ((digits + 1) / 2).mean().item() == pytest.approx(0.1325, abs=1e-4)  # of the test set's pixels
    train, classes = mnist.load("train")
    assert ((train + 1) / 2).mean().item() == pytest.approx(0.1307, abs=1e-4)  # the mean that everybody subtracts
    assert classes.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
