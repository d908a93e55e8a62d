"""Files that somebody else made, or a machine spoiled: read, or refused in one line; and nothing in them is run.

The corpus is made here: a good file of each kind, and the same file damaged in many ways, by a fixed seed.
"""

import io
import json
import random
import shutil
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from soralab.datasets import flickr, ucf101
from soralab.files import checkpoints, upright
from soralab.files.atomic import kept
from soralab.files.checkpoints import SHIPPED, CheckpointError, list_checkpoints, load_checkpoint, load_model
from soralab.files.damage import picture
from soralab.files.films import read_film, save_film
from soralab.workbook import progress

CHECKPOINTS = checkpoints.CHECKPOINTS


def one_line(error, *said):
    text = str(error)
    assert "\n" not in text and all(part in text for part in said), text


# ---------------------------------------------------------------- pictures and films


def photograph(kind, orientation=None):
    """The bytes of a picture of 24x32 pixels; with Exif's entry, as every telephone writes it, if one is given."""
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    data, entries = io.BytesIO(), Image.Exif()
    if orientation is not None:
        entries[upright.ORIENTATION], entries[0x010F] = orientation, "Maker"
    shown.save(data, kind, **({"exif": entries} if orientation is not None else {}))
    return data.getvalue()


def film_file(folder, suffix):
    film = torch.rand(6, 3, 12, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return save_film(folder / f"good{suffix}", film).read_bytes()


def checked(data):
    """A PNG's bytes with the sums of its chunks put right, so that damage comes further in than the sum's test."""
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        data[end : end + 4] = zlib.crc32(bytes(data[at + 4 : end])).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def damaged(data, number, seed):
    """`number` damaged copies: bits turned, lengths made huge, bytes lost, doubled or zero, the end cut off."""
    rng = random.Random(seed)
    for _ in range(number):
        spoilt, near = bytearray(data), min(len(data), rng.choice([40, 200, len(data)]))
        at, how = rng.randrange(near), rng.randrange(6)
        if how == 0:
            spoilt[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            spoilt[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif how == 2:
            del spoilt[at : at + rng.choice([1, 4, 40])]
        elif how == 3:
            spoilt[at:at] = spoilt[at : at + 40]
        elif how == 4:
            spoilt[at : at + 40] = bytes(len(spoilt[at : at + 40]))
        else:
            spoilt[at:] = b""
        yield bytes(spoilt)
        if data.startswith(b"\x89PNG"):
            yield checked(spoilt)


MAKE = {".gif": film_file, ".webp": film_file, ".png": film_file, ".mp4": film_file,
        ".jpg": lambda *_: photograph("JPEG", 6), ".tif": lambda *_: photograph("TIFF", 6)}  # fmt: skip


def refused_or_read(path):
    """Whether the file was read; if not, it was refused in one line of ours, and no warning was shown beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            film = read_film(path, frames=64, height=16, width=16, fewer=True)
        except (OSError, ValueError) as error:
            assert not isinstance(error, UnicodeError)
            one_line(error, path.name, ": ")
            return False
    assert film.shape[1:] == (3, 16, 16) and film.isfinite().all()
    return True


@pytest.mark.parametrize("suffix", MAKE)
def test_a_damaged_film_or_picture_is_read_or_refused_in_one_line(tmp_path, suffix):
    data, path = MAKE[suffix](tmp_path, suffix), tmp_path / f"spoilt{suffix}"
    path.write_bytes(data)
    assert refused_or_read(path)
    read = []
    for spoilt in damaged(data, 50, seed=suffix):
        path.write_bytes(spoilt)
        read.append(refused_or_read(path))
    assert 0 < len(read) - sum(read)  # the cases are cases


def test_damage_that_libraries_meet_by_errors_of_their_own(tmp_path):
    """Each of these once ended in another error than the two kinds that a caller waits for, or in a raw text."""
    film, gif = film_file(tmp_path, ".mp4"), film_file(tmp_path, ".gif")
    title = film.replace(b"Lavf", b"L\xe4vf")  # a title in Latin letters, but not UTF-8: read all the same
    assert title != film
    path = tmp_path / "a.mp4"
    path.write_bytes(title)
    assert refused_or_read(path)
    path.write_bytes(film.replace(b"avc1", b"zzz1"))  # a codec that nobody knows
    assert not refused_or_read(path)
    at = gif.index(b",", 800)  # the first frame: what it begins with is cut short
    found = set()
    for end in range(at, min(at + 60, len(gif))):
        (tmp_path / "a.gif").write_bytes(gif[:end] + b"\x00" * 3)
        found.add(refused_or_read(tmp_path / "a.gif"))
    assert False in found


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_a_photograph_is_read_as_the_camera_was_held(tmp_path, kind):
    """What telephones write beside the pixels, Exif, once stopped every photograph of .jpg and .tif."""
    for orientation in (None, *range(10)):
        path = tmp_path / "photo"
        path.write_bytes(photograph(kind, orientation))
        with Image.open(path) as shown:
            wanted = np.asarray(ImageOps.exif_transpose(shown).convert("RGB"))
        [frame] = ((read_film(path) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        assert frame.shape == wanted.shape and (frame == wanted).all(), orientation


def test_what_lies_beside_a_frame_and_has_no_name_yet_does_not_stop_it():
    """A newer FFmpeg writes more kinds beside a frame than the av library can name; the turn alone is then told."""

    class Beside:
        def get(self, _):
            raise ValueError("31 is not a valid Type")

    class Frame:
        side_data = Beside()

        def __init__(self, rotation):
            self.rotation = rotation

    picture = np.arange(24).reshape(2, 4, 3)
    pytest.importorskip("av")
    assert (upright.upright(picture, Frame(0)) == picture).all()
    assert (upright.upright(picture, Frame(90)) == np.rot90(picture)).all()  # degrees are anticlockwise
    assert (upright.upright(picture, Frame(-90)) == np.rot90(picture, -1)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP"])
def test_a_damaged_picture_of_a_data_set_is_read_or_refused_in_one_line(tmp_path, kind):
    path, read = tmp_path / "a", []
    for spoilt in damaged(photograph(kind), 80, seed=kind):
        path.write_bytes(spoilt)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                with picture(path, "fetch it again") as shown:
                    read.append(shown.convert("RGB").size != (0, 0))
            except ValueError as error:
                one_line(error, f"{path} is damaged (", "): fetch it again")
                read.append(False)
    assert False in read
    if kind == "JPEG":
        path.write_bytes(photograph(kind)[:-200])
        with picture(path, "fetch it again", whole=False) as shown:  # its head is good, and no more is asked for
            assert shown.size == (32, 24)


# ---------------------------------------------------------------- lists that lead elsewhere


HOSTILE = ("../../secret.jpg", "/etc/secret.jpg", "a/../../b.jpg", "..\\..\\secret.jpg")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_list_of_files_leads_to_no_other_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    place = tmp_path / "flickr8k"
    (place / "Images").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(photograph("JPEG"))
    (place / "Flickr8k.token.txt").write_text("".join(f"{name}#{k}\ta dog runs\n" for k in range(5)))
    for split in flickr.FILES["flickr8k"][2].values():
        (place / split).write_text(name + "\n")
    with pytest.raises(ValueError) as error:
        flickr.load("train")
    one_line(error.value, "which is no file of ")
    lists = tmp_path / "ucf101" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (tmp_path / "ucf101" / "UCF-101").mkdir()
    for file in ("classInd.txt", *(f"{s}list0{fold}.txt" for s in ("train", "test") for fold in (1, 2, 3))):
        (lists / file).write_text(name.replace(".jpg", ".avi") + " 1\n")
    with pytest.raises(ValueError) as error:
        ucf101.paths("train")
    one_line(error.value, "trainlist01.txt names", "it takes CLASS/FILM.avi")


# ---------------------------------------------------------------- checkpoints


def shelf(folder, monkeypatch, **pairs):
    """A folder of checkpoints: each NAME=other has the course's `other` under the name NAME, card and all."""
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(folder))
    for name, other in pairs.items():
        for suffix in (".json", ".safetensors"):
            shutil.copy(CHECKPOINTS / f"{other}{suffix}", folder / f"{name}{suffix}")


def edited(card_path, **entries):
    card_path.write_text(json.dumps(json.loads(card_path.read_text(encoding="utf-8")) | entries))


def test_checkpoints_that_changed_places_are_told(tmp_path, monkeypatch):
    """Their hashes are right, and their models may even be of one class: the card says by which recipe it was made."""
    from soralab.unet import load_unet

    shelf(tmp_path, monkeypatch, unet_denoiser="unet", unet="unet_denoiser", vit="vit")
    for name, other in (("unet", "unet_denoiser"), ("unet_denoiser", "unet")):
        with pytest.raises(CheckpointError) as error:
            load_unet(name)
        one_line(error.value, f"{name}.safetensors is the checkpoint {other} under another name: copy it from")
    assert [entry["name"] for entry in list_checkpoints() if entry["verified"]] == ["vit"]
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(CHECKPOINTS))
    load_checkpoint(tmp_path / "unet")  # by its path it may be called anything
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    shutil.copy(tmp_path / "vit.safetensors", tmp_path / "unet.safetensors")  # and the tensors alone
    with pytest.raises(CheckpointError, match="unet.safetensors (is truncated|is too long|was altered)"):
        load_unet("unet")


@pytest.mark.parametrize("made_as", [2, "2", None, [], 0.5])
def test_a_checkpoint_of_a_later_format_is_refused(tmp_path, monkeypatch, made_as):
    shelf(tmp_path, monkeypatch, vit="vit")
    assert load_checkpoint("vit")[1].get("format", 1) == 1
    edited(tmp_path / "vit.json", format=made_as)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint("vit")
    one_line(error.value, "vit.json is of format ", "this soralab reads 1: take a newer copy of the course, or ")
    assert not list_checkpoints()[0]["verified"]


def test_what_is_saved_names_its_format(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "a", {"w": torch.ones(2)}, {})
    assert load_checkpoint(tmp_path / "a")[1]["format"] == checkpoints.FORMAT == 1


BAD = (0, 10**9, None, "x", [])


@pytest.mark.parametrize("name", ["vit", "vqvae"])
def test_a_card_that_was_edited_gives_one_line_and_no_giant(tmp_path, monkeypatch, name):
    """Its hash is that of the tensors still, so only what it says can be wrong; 10⁹ layers would take all memory."""
    from soralab import vqvae
    from soralab.recipes import vit

    load = {"vit": vit.load, "vqvae": vqvae.load}[name]
    shelf(tmp_path, monkeypatch, **{name: name})
    path, refused = tmp_path / f"{name}.json", 0
    config = json.loads(path.read_text(encoding="utf-8"))["config"]
    load(name)
    for entry in config:
        for value in BAD:
            edited(path, config=config | {entry: value})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about tensors without elements
                try:
                    load(name)
                except (OSError, ValueError) as error:
                    one_line(error)
                    refused += 1
                else:
                    assert value != 10**9, entry
    assert refused > 2 * len(config)


def test_lists_in_lists_in_lists_are_no_card(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "a", {"w": torch.ones(2)}, {})
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match="a.json is not JSON"):
        load_checkpoint(tmp_path / "a")


def test_want_of_memory_is_not_called_a_damaged_checkpoint(tmp_path):
    def build(_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 31457280 bytes")

    checkpoints.save_checkpoint(tmp_path / "a", {"w": torch.ones(2)}, {"config": {}})
    with pytest.raises(RuntimeError, match="allocate"):
        load_model(tmp_path / "a", build, "model")
    with pytest.raises(CheckpointError, match="holds no model"):
        load_model(tmp_path / "a", lambda _: nn.Linear(2, 2), "model")


def test_the_shipped_checkpoints_lie_under_their_own_names():
    for name in SHIPPED:
        card = json.loads((CHECKPOINTS / f"{name}.json").read_text(encoding="utf-8"))
        assert card["command"] == f"soralab train {name}" and card.get("format", 1) == 1
        checkpoints._fits(card["config"], card["parameters"])


# ---------------------------------------------------------------- measures and records


def test_a_damaged_measure_is_named(tmp_path):
    path = tmp_path / "windows.json"
    assert kept(path, lambda: {"right": 3}) == {"right": 3}
    path.write_text(path.read_text()[:-4])
    with pytest.raises(ValueError) as error:
        kept(path, lambda: pytest.fail("it was measured again, unasked"))
    one_line(error.value, "windows.json is damaged (", "remove it, and it is measured again")


def test_a_damaged_record_is_read_or_refused_in_one_line(tmp_path):
    path, entry = tmp_path / "record.json", progress.Entry("2026-03-14", 2, (1,))
    progress.write(path, progress.Record("ada", {"unet.weight_map": entry}))
    refused = 0
    for spoilt in damaged(path.read_bytes(), 150, seed="record"):
        path.write_bytes(spoilt)
        try:
            progress.read(path)
        except progress.DamagedRecord as error:
            one_line(error, "record.json is no record of exercises: ")
            refused += 1
    assert refused > 50
