"""The reader's own slices: where they are looked for, what is said without them, and that what is read is right."""

import os

import numpy as np
import pytest
from PIL import Image

from soralab.datasets import isbi
from soralab.experiments import unet_isbi, unet_scores
from soralab.files.download import DOWNLOADS
from soralab.unet import UNet, UNetConfig

HERE = os.environ.get("SORALAB_DATA")
real = pytest.mark.skipif(
    not (HERE and isbi.available()), reason="SORALAB_DATA names no folder with the ISBI-2012 slices"
)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of three slices that code has drawn, in the layout of the real ones."""
    rng = np.random.default_rng(0)
    for kind in ("image", "label"):
        (tmp_path / "isbi2012" / "membrane" / "train" / kind).mkdir(parents=True)
    for index in range(3):
        cell = np.ones((512, 512), bool)
        cell[(40 * index + 30) :: 64] = cell[:, (10 * index + 5) :: 32] = False
        image = np.where(cell, 170, 60) + rng.integers(-20, 20, cell.shape)
        for kind, pixels in (("image", image), ("label", 255 * cell)):
            path = tmp_path / "isbi2012" / "membrane" / "train" / kind / f"{index}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path, compress_level=1)
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    return tmp_path


def test_what_is_read_is_what_lies_there(shelf):
    images, cells = isbi.load(range(1, 3))
    assert isbi.available() and images.dtype == np.float32 and cells.dtype == bool
    assert images.shape == cells.shape == (2, 512, 512)
    assert not cells[0, 70].any() and not cells[1, :, 25].any()  # the membranes of slices 1 and 2
    assert images[cells].mean() == pytest.approx(170 / 127.5 - 1, abs=0.01)
    assert images[~cells].mean() == pytest.approx(60 / 127.5 - 1, abs=0.01) and np.abs(images).max() <= 1


def test_without_the_slices_one_sentence_says_where_they_come_from_and_go(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    assert not isbi.available()
    with pytest.raises(FileNotFoundError, match="`soralab data get isbi2012` fetches it") as error:
        isbi.load()
    text = str(error.value)
    assert str(tmp_path / "isbi2012" / "membrane" / "train") in text and "SORALAB_DATA" in text and "\n" not in text
    monkeypatch.delenv("SORALAB_DATA")
    assert isbi.folder() == DOWNLOADS / "isbi2012" / "membrane" / "train"


def test_what_is_not_as_it_should_be_is_named(shelf):
    with pytest.raises(ValueError, match=r"indices: got \[30\]; it takes numbers from 0 to 29"):
        isbi.load([30])
    folder = isbi.folder()
    Image.fromarray(np.full((512, 512), 128, np.uint8)).save(folder / "label" / "0.png")
    with pytest.raises(ValueError, match=r"hold \[128\]; they take 0 \(membrane\) and 255 \(cell\)"):
        isbi.load([0])
    Image.fromarray(np.zeros((256, 512), np.uint8)).save(folder / "image" / "0.png")
    with pytest.raises(ValueError, match="is 256x512; a slice takes 512x512"):
        isbi.load([0])
    assert not set(isbi.TRAIN) & set(isbi.TEST) and len(isbi.TRAIN) + len(isbi.TEST) == isbi.SLICES


def test_batches_of_tiles_are_pure_and_their_targets_lie_under_them(shelf):
    images, truth = isbi.load(range(3))
    batches = unet_isbi.Slices(images, truth)
    batch = batches(2)
    assert all((batch[key] == value).all() for key, value in unet_isbi.Slices(images, truth)(2).items())
    side = unet_isbi.ISBI_NET.output_size(unet_isbi.ISBI_TILE)
    assert batch["x"].shape == (4, 1, 188, 188) and batch["target"].shape == batch["weights"].shape == (4, side, side)
    middle = batch["x"][:, 0, 44:144, 44:144]
    assert middle[batch["target"] == 1].mean() > middle[batch["target"] == 0].mean() + 0.5  # cells are the bright ones
    assert not (batches(3)["x"] == batch["x"]).all()


@real
def test_the_real_slices():
    images, cells = isbi.load()
    assert images.shape == (30, 512, 512)
    assert 0.2 < (~cells).mean() < 0.24  # 22 % of the pixels are membrane
    assert images[cells].mean() > images[~cells].mean() + 0.2


@real
def test_otsu_on_the_real_slices_is_far_from_right():
    """The baseline that the experiment reports: it finds most pixels, and hardly a cell."""
    images, truth = isbi.load(range(24, 26))
    for image, cell in zip(images, truth, strict=True):
        result = unet_scores.scores(image > unet_scores.otsu(image), cell)
        assert 0.05 < result["pixel_error"] < 0.4 and result["rand_error"] > 0.1


def test_the_experiment_chooses_its_thresholds_on_what_it_learnt_from(shelf, monkeypatch):
    """With a network that sees everything but says it with 0.3, only a threshold below that is right."""
    images, truth = isbi.load(range(3))
    six = [k % 3 for k in range(30)]
    monkeypatch.setattr(isbi, "load", lambda: (images[six][:, :96, :96], truth[six][:, :96, :96]))
    by_picture = {images[k, :96, :96].tobytes(): truth[k, :96, :96] * 0.3 + 0.05 for k in range(3)}
    monkeypatch.setattr(unet_isbi, "probability", lambda model, image: by_picture[image.tobytes()])
    model = UNet(UNetConfig(width=1, levels=1))
    monkeypatch.setattr(unet_isbi, "Slices", lambda *a: None)
    monkeypatch.setattr(unet_isbi, "fit", lambda *a: (model, type("Result", (), {"seconds": 1.2})))
    table = unet_isbi.isbi_runs(shelf)
    assert set(table) == {"Otsu", "no skips", "U-Net"}
    assert table["U-Net"]["pixel_error"] == table["U-Net"]["rand_error"] == 0
    assert all(0.05 <= level < 0.35 for level in table["U-Net"]["thresholds"].values())
    assert 0 < table["Otsu"]["pixel_error"] < 0.5
