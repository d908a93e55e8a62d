"""The pets as they are read, and packed; with the real photographs where SORALAB_DATA has them."""

import os
from random import Random

import pytest
import torch
from PIL import Image

from soralab.datasets import pets
from soralab.files.download import DOWNLOADS
from soralab.navit import NaViT, NaViTConfig, collate, pack, resized, sample_side

HERE = os.environ.get("SORALAB_DATA")
real = pytest.mark.skipif(not (HERE and pets.available()), reason="SORALAB_DATA names no folder with the pets")


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A folder laid out as the data set's, with a wide and a tall picture and a file that is none."""
    place = tmp_path / "oxford_pets" / "oxford-iiit-pet" / "images"
    place.mkdir(parents=True)
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("blue", (20, 0, 40, 20))  # the right half
    wide.save(place / "b_wide.jpg", quality=100, subsampling=0)
    Image.new("L", (10, 30), 255).save(place / "a_tall.jpg")
    (place / "notes.mat").write_bytes(b"no picture")
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    return place


def test_pictures_come_at_the_size_that_is_asked_for(few):
    assert pets.available() and pets.sizes() == [(30, 10), (20, 40)] and pets.sizes(1) == [(30, 10)]
    tall, wide = pets.load([(12, 4), (8, 16)])
    assert tall.shape == (3, 12, 4) and wide.shape == (3, 8, 16) and wide.dtype == torch.uint8
    assert (tall > 250).all()
    assert (wide[0, :, :6] > 240).all() and (wide[2, :, 10:] > 240).all() and (wide[0, :, 10:] < 20).all()


def test_a_part_will_do_and_the_whole_is_preferred(few):
    root = few.parents[2]
    (root / "oxford_pets").rename(root / "oxford_pets_mini")
    assert pets.sizes() == [(30, 10), (20, 40)]
    (root / "oxford_pets").mkdir()
    assert not pets.available()


def test_what_is_missing_or_broken_is_named(few, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="count is 3; it takes 1 to 2"):
        pets.sizes(3)
    (few / "a_tall.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    with pytest.raises(ValueError, match="a_tall.jpg is damaged .*: remove it, and `soralab data get oxford_pets`"):
        pets.sizes()
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path / "empty"))
    assert not pets.available()
    with pytest.raises(FileNotFoundError, match="there is no photograph in .*oxford_pets.*SORALAB_DATA"):
        pets.load([(8, 8)])
    monkeypatch.delenv("SORALAB_DATA")
    assert pets.folder() == DOWNLOADS / "oxford_pets" / "oxford-iiit-pet" / "images"


@real
def test_photographs_of_many_sizes_pack_tightly_and_read_the_same_packed_and_alone():
    native = pets.sizes()
    assert len(set(native)) >= 34
    rng = Random(7)
    sizes = [resized(size, sample_side(rng, 32, 96), 4) for size in native]
    counts = [height * width // 16 for height, width in sizes]
    rows = pack(counts, 4096)
    assert max(counts) * len(counts) > 1.7 * sum(counts)  # padded to the longest, two fifths and more would be padding
    assert sum(counts[k] for row in rows[:-1] for k in row) > 0.95 * 4096 * (len(rows) - 1)
    torch.manual_seed(0)
    model = NaViT(NaViTConfig(dim=32, depth=2, heads=2))
    torch.nn.init.normal_(model.head.weight)
    shown = [picture.float() / 127.5 - 1 for picture in pets.load(sizes[:8])]
    with torch.no_grad():
        together = model(**collate(shown, 4, 1024))
        alone = torch.cat([model(**collate([picture], 4, 1024)) for picture in shown])
    torch.testing.assert_close(together, alone, atol=1e-5 * alone.abs().max().item(), rtol=0)
    assert len({tuple(row.round(decimals=3).tolist()) for row in together}) == 8
