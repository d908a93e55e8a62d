"""Moving MNIST as it is read: on a file made here in its form, and on the real one where SORALAB_DATA has it."""

import numpy as np
import pytest
import torch

from soralab.datasets import moving_mnist

REAL = moving_mnist.available()  # before a test sets another folder


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Nine films, of which film n has, in frame k, the grey level 10 n + k."""
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    monkeypatch.setattr(moving_mnist, "SPLITS", {"train": slice(0, -4), "val": slice(-4, -2), "test": slice(-2, None)})
    monkeypatch.setattr(moving_mnist, "JUDGED", 2)
    films = np.zeros((20, 9, 64, 64), np.uint8)
    films += (10 * np.arange(9)[None, :, None, None] + np.arange(20)[:, None, None, None]).astype(np.uint8)
    films[:, :, :32] = 255  # the upper half
    moving_mnist.path().parent.mkdir(parents=True)
    np.save(moving_mnist.path(), films)
    return films


def test_films_are_parted_and_not_their_frames(made):
    for split, first, count in (("train", 0, 5), ("val", 5, 2), ("test", 7, 2)):
        films = moving_mnist.load(split)
        assert films.shape == (count, 20, 3, 64, 64) and films.dtype == torch.float32
        levels = ((films[:, :, 0, 63, 63] + 1) * 127.5).round().tolist()
        assert levels == [[10 * n + k for k in range(20)] for n in range(first, first + count)]
        assert (films[:, :, :, 0] == 1).all() and (films[:, :, 0] == films[:, :, 2]).all()


def test_fewer_and_smaller_ones(made):
    films = moving_mnist.load("train", 2, 3, 16)
    assert films.shape == (2, 3, 3, 16, 16)
    torch.testing.assert_close(films[1, 2, 0, 15, 15], torch.tensor(12 / 127.5 - 1))
    assert (films[:, :, :, :8] == 1).all() and (films[:, :, :, 8:] < -0.8).all()
    for arguments, said in (((0,), "count is 0; it takes 1 to 5"), ((6,), "count is 6"), ((1, 21), "frames is 21"),
                            ((1, 2, 65), "side is 65; it takes 1 to 64")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            moving_mnist.load("train", *arguments)


@pytest.mark.parametrize("spoil, said", [
    (lambda path: path.write_bytes(b"no array"), "is damaged"), (lambda path: path.write_bytes(b""), "is damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:500]), "is damaged"),
    (lambda path: np.save(path, np.zeros((20, 9, 64, 64), np.float32)), r"float32 \[20, 9, 64, 64\]; it takes uint8"),
    (lambda path: np.save(path, np.zeros((9, 20, 64, 64), np.uint8)), r"uint8 \[9, 20, 64, 64\]; it takes"),
    (lambda path: np.save(path, np.zeros((20, 4, 64, 64), np.uint8)), "holds 4 films; it takes more than 4"),
    (lambda path: np.save(path, np.array([{}], object), allow_pickle=True), "is damaged"),
    (lambda path: path.write_bytes(path.read_bytes().replace(b"), }", b",   ", 1)), "is damaged"),
    (lambda path: np.savez(path.open("wb"), np.zeros(3)), "is damaged"),
])  # fmt: skip
def test_other_files_are_refused(made, spoil, said):
    spoil(moving_mnist.path())
    with pytest.raises(ValueError, match=said):
        moving_mnist.load()


def test_what_is_missing_is_told_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="mnist_test_seq.npy: `soralab data get movingmnist` fetches it"):
        moving_mnist.load()
    with pytest.raises(ValueError, match="split is 'dev'; it takes one of train, val, test"):
        moving_mnist.load("dev")


@pytest.mark.skipif(not REAL, reason="SORALAB_DATA names no folder with the real films")
def test_the_real_films():
    films = moving_mnist.load("test", 50)
    assert films.min() == -1 and films.max() == 1 and 0.02 < (films > 0).float().mean() < 0.1
    assert (films[:, 1:] - films[:, :-1]).abs().mean() > 0.01
