"""Chapters on real data by SORALAB_DATASET: on small sets made here in the real ones' forms, and what is refused."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from soralab.command import main
from soralab.datasets import by_kind, mnist, registry, ucf101
from soralab.datasets.multi30k import BytePairs, chunks
from soralab.experiments import real, real_films, real_vqvae
from soralab.files.checkpoints import read_card


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with an empty folder for data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path / "data"))
    return tmp_path


def digits(here, monkeypatch):
    monkeypatch.setattr(mnist, "COUNTS", {"train": 80, "test": 60})
    folder = here / "data" / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, stem in mnist.STEMS.items():
        count = mnist.COUNTS[split]
        labels = np.arange(count, dtype=np.uint8) % 10
        images = (rng.random((count, 28, 28)) * 20 * labels[:, None, None]).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            with gzip.open(folder / f"{stem}-{name}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
    return "mnist"


def photographs(here, monkeypatch):
    folder = here / "data" / "pictures"
    folder.mkdir(parents=True)
    for k in range(20):
        Image.new("RGB", (40, 40), (12 * k, 255 - 12 * k, 90)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"picture number {k}\n" + "it is plain\n" * (k % 3))
    return "pictures"


def sentences(here, monkeypatch):
    folder = here / "data" / "tatoeba_hin_eng"
    folder.mkdir(parents=True)
    text = "".join(f"The number is {k}.\tसंख्या {k} है।\tCC-BY 2.0\n" for k in range(120))
    (folder / "hin.txt").write_text(text, encoding="utf-8")
    return "tatoeba_hin_eng"


def films(here, monkeypatch):
    folder = here / "data" / "films"
    folder.mkdir(parents=True)
    for k in range(20):
        film = np.zeros((18, 32, 32, 3), np.uint8)
        for t in range(18):
            film[t, :, t : t + 8] = 255 - k
        np.save(folder / f"{k}.npy", film)
    return "films"


def pets(here, monkeypatch):
    """Tall ones of breed 1 and wide ones of breed 37, one of them named and not there."""
    folder = here / "data" / "oxford_pets" / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for split, count in (("trainval", 9), ("test", 6)):
        names = {f"{split}_{k}": k % 2 for k in range(count)}
        for name, wide in names.items():
            Image.new("RGB", (60, 30) if wide else (30, 60), "red").save(folder / "images" / f"{name}.jpg")
        listed = [f"{name} {36 * wide + 1} 1 1" for name, wide in names.items()] + ["gone_1 2 1 1"]
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(listed))
    return "oxford_pets"


def told_by_five(here, monkeypatch):
    """Photographs of dogs and of boys, in Flickr8k's form."""
    folder = here / "data" / "flickr8k"
    (folder / "Images").mkdir(parents=True)
    lines, listed = [], {"train": range(20), "dev": range(20, 22), "test": range(22, 30)}
    for k in range(30):
        Image.new("RGB", (50, 40), (8 * k, 255 - 8 * k, 90)).save(folder / "Images" / f"{k}.jpg")
        said = ("A red dog runs on the grass .", "The red dog is running over a field of grass .") if k % 2 else (
            "Two boys swim .", "Two boys are swimming in a pool , with a blue ball .")  # fmt: skip
        lines += [f"{k}.jpg#{j}\t{said[j % 2]}" for j in range(5)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines))
    for split, numbers in listed.items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(f"{k}.jpg" for k in numbers))
    return "flickr8k"


SETS = {"vit": digits, "vqvae": digits, "latent_diffusion": digits, "clip": photographs, "transformer": sentences,
        "navit": pets, "vivit": films, "recaptioning": told_by_five, "llava": told_by_five, "tune_a_video": films,
        "sora_autoencoder": films}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_one_switch_trains_a_chapter_and_shows_it_beside_the_world(here, monkeypatch, capsys, name):
    if name == "transformer":
        pytest.importorskip("sacrebleu")
    monkeypatch.setenv("SORALAB_DATASET", SETS[name](here, monkeypatch))
    chosen = registry.chosen()
    monkeypatch.setattr(real, "MNIST_STEPS", {30: 2000})  # else chapter 03 compares three sizes
    shipped = real.SHIPPED.get(name, ("",))[0] == chosen.name
    assert main(["evaluate", name]) == (0 if shipped else 2)
    out, err = capsys.readouterr()
    line = f"{name} on {chosen.name}, as it was found when the course was made"
    assert out.startswith(line) if shipped else f"SORALAB_DATASET={chosen.name} soralab train {name}` does it" in err
    assert main(["train", name]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == f"{name} on {chosen.name}, 2 steps" and len({len(line) for line in lines[1:]}) == 1
    assert any(line.startswith("the world, ") for line in lines) and lines[-1].startswith(f"{chosen.name}, ")
    kept = json.loads((real.place(name, chosen) / "found.json").read_text())
    assert kept["steps"] == 2 and all(np.isfinite(list(row.values())).all() for row in kept["rows"].values())
    monkeypatch.setattr(real, "CHAPTERS", {name: real.CHAPTERS[name]})
    assert main(["evaluate", name]) == 0 and capsys.readouterr().out == said  # nothing is trained again


@pytest.mark.parametrize("held", ["{", "5", "{}", '{"rows": 5, "steps": 1}', '{"rows": {"a": 1}, "steps": 1}'])
def test_what_was_found_and_then_damaged_is_told_with_the_mend(here, monkeypatch, capsys, held):
    monkeypatch.setenv("SORALAB_DATASET", digits(here, monkeypatch))
    path = real.place("vit", registry.chosen()) / "found.json"
    path.parent.mkdir(parents=True)
    path.write_text(held)
    assert main(["evaluate", "vit"]) == 2
    err = capsys.readouterr().err
    assert "found.json is damaged" in err and "soralab train vit` makes it again" in err and err.count("\n") == 1


def test_steps_and_folder_are_the_readers(here, monkeypatch, capsys):
    monkeypatch.setenv("SORALAB_DATASET", digits(here, monkeypatch))
    assert main(["train", "vqvae", "--steps", "1", "--folder", "elsewhere"]) == 0
    assert "vqvae on mnist, 1 steps" in capsys.readouterr().out
    assert (here / "elsewhere" / "found.json").is_file() and not (here / "runs").exists()


def test_chapter_01_on_its_slices(here, monkeypatch, capsys):
    """The experiment itself is tested in test_isbi.py."""
    found = {"U-Net": {"pixel_error": 0.1, "rand_error": 0.25, "thresholds": {}}, "Otsu": {"pixel_error": 0.3,
             "rand_error": 0.4}}  # fmt: skip
    monkeypatch.setattr(real, "isbi_runs", lambda folder, steps: found)
    monkeypatch.setenv("SORALAB_DATASET", "isbi2012")
    assert main(["train", "unet"]) == 0
    out = capsys.readouterr().out
    error = read_card("unet")["metrics"]["test"]["pixel_error"]
    assert f"the world, U-Net           {error:.3f}" in out and "isbi2012, U-Net            0.100        0.250" in out


@pytest.mark.parametrize("name", real.CHAPTERS)
def test_the_worlds_rows_are_the_shipped_cards(name):
    assert (real.CHAPTERS[name].measured is None) == (name != "tune_a_video")  # which ships no card
    found = real.CHAPTERS[name].measured
    rows = real.CHAPTERS[name].world(found() if found else read_card(name)["metrics"])
    assert rows and all(np.isfinite(list(row.values())).all() for row in rows.values())
    assert all(one in registry.DATASETS for one in real.CHAPTERS[name].sets)


def test_what_the_registry_says_of_chapters_is_what_the_switch_does():
    numbers = {"unet": 1, "transformer": 2, "vit": 3, "clip": 4, "vqvae": 5, "latent_diffusion": 6, "navit": 7,
               "vivit": 8, "recaptioning": 12, "llava": 13, "tune_a_video": 15, "sora_autoencoder": 16}  # fmt: skip
    for one in registry.DATASETS.values():
        runs = {numbers[name] for name, chapter in real.CHAPTERS.items() if one.name in chapter.sets}
        others = {"mnist": {10}}.get(one.name, set())  # which has no switch
        assert set(one.chapters) == runs | others, one.name


def test_the_data_card_shows_what_was_found_beside_the_world():
    text = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- numbers: real -->")[2].partition("<!-- /numbers: real -->")[0]
    assert shown.strip().splitlines()[2:] == real.card_lines()


@pytest.mark.parametrize("argv, switch, said", [
    (["train", "sora"], "mnist", "NAME is 'sora', and SORALAB_DATASET 'mnist': those that run on real data are unet, "),
    (["train", "vit"], "isbi2012", "SORALAB_DATASET is 'isbi2012'; for vit it takes one of mnist, fashionmnist"),
    (["evaluate", "vit"], "isbi2012", "for vit it takes one of"),
    (["train", "navit"], "flickr8k", "SORALAB_DATASET is 'flickr8k'; for navit it takes one of oxford_pets"),
    (["train", "recaptioning"], "pictures", "for recaptioning it takes one of flickr8k, flickr30k"),
    (["train", "llava"], "ucf101", "for llava it takes one of flickr8k, flickr30k"),
    (["evaluate", "tune_a_video"], "mnist", "for tune_a_video it takes one of ucf101, movingmnist, films"),
    (["train", "navit"], "oxford_pets", "test.txt: `soralab data get oxford_pets` fetches it"),
    (["train", "llava"], "flickr8k", "Flickr8k.token.txt: `soralab data get flickr8k` says where to get it"),
    (["train", "tune_a_video"], "films", "there is none of your films in"),
    (["train", "vit"], "nist", "SORALAB_DATASET is 'nist'; it takes one of mnist"),
    (["train", "vit"], "cifar10", "test_batch.bin: `soralab data get cifar10` fetches it"),
    (["evaluate", "vit", "--checkpoint", "x"], "mnist", "--checkpoint is 'x', which was trained on the world: unset"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(here, monkeypatch, capsys, argv, switch, said):
    monkeypatch.setenv("SORALAB_DATASET", switch)
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
    assert not Path("runs").exists(), "a training that was refused leaves a folder"


def test_the_arrow_of_time_is_judged_both_ways(here, monkeypatch):
    """A reader that sees where the bright column goes tells all, one that takes the mean over time tells none."""
    films(here, monkeypatch)

    class Oracle(torch.nn.Module):
        def forward(self, shown):
            later, earlier = (shown[:, k].mean((1, 2)).softmax(-1) @ torch.arange(32.0) for k in (-1, 0))
            return torch.stack([later - earlier, earlier - later], 1)

    class Bag(torch.nn.Module):
        def forward(self, shown):
            return shown.mean((1, 2, 3, 4))[:, None] * torch.tensor([1.0, -1.0])

    found = {"model 4": Oracle(), "bag of frames": Bag()}
    for model in found.values():
        model.config = type("Config", (), {"frames": 8})
    readers = iter(found.values())
    monkeypatch.setattr(real_films, "fit", lambda *_, **__: (next(readers), None))
    table = real_films.arrow_of_time("films", here / "runs", 2)
    assert table["model 4"]["direction"] == table["model 4"]["both ways"] == 1
    assert table["bag of frames"]["direction"] == 0.5 and table["bag of frames"]["both ways"] == 0


def test_films_are_turned_and_mirrored_by_coins(here, monkeypatch):
    films(here, monkeypatch)
    shown = by_kind.filmed("films", "train")
    assert shown.shape == (16, 8, 3, 32, 32)
    batches = real_films.Arrow(shown, 200)
    batch = batches(3)
    assert torch.equal(batch["films"], batches(3)["films"]) and not torch.equal(batch["films"], batches(4)["films"])
    place = (batch["films"][:, :, 0, 0] + 1).argmax(-1)  # of the bright column's left edge
    right = place[:, -1] > place[:, 0]
    left_first = place[:, 0] < 12
    backwards = batch["label"].bool()
    mirrored = right == backwards  # forwards and not mirrored it goes to the right
    assert 70 < backwards.sum() < 130 and 70 < mirrored.sum() < 130 and torch.equal(left_first, right)


def test_the_mean_picture_is_the_best_that_no_bits_can_do(here, monkeypatch):
    digits(here, monkeypatch)
    table = real_vqvae.copies("mnist", here / "runs", 1)
    train, test = (real_vqvae.shown("mnist", split, 99)[0] for split in ("train", "test"))
    assert train.shape == (80, 3, 32, 32) and test.shape == (60, 3, 32, 32)
    error = (test - train[:64].mean(0)).square().mean()  # smoke takes 64, and 20 of the test
    assert table["the mean picture"]["psnr"] == pytest.approx((10 * torch.log10(4 / error)).item(), abs=0.3)
    assert table["copies"]["bits"] == 448


def test_sets_are_spread_over_and_those_of_another_kind_refused(here, monkeypatch):
    films(here, monkeypatch)
    every = by_kind.filmed("films", "train")
    assert torch.equal(by_kind.filmed("films", "train", count=3), every[[0, 7, 15]])
    for ask, name in ((by_kind.labelled, "flickr8k"), (by_kind.paired, "mnist"), (by_kind.filmed, "pictures")):
        with pytest.raises(ValueError, match=f"name is '{name}'; it takes one of"):
            ask(name, "train")
    with pytest.raises(ValueError, match="name is 'mnist'; it takes one of flickr8k, flickr30k, pictures"):
        by_kind.captioned("mnist", "train", 8)


def test_a_few_films_of_ucf101_are_spread_over_its_list(here, monkeypatch):
    listed = {Path(f"v_A_g{k:02d}_c01.avi"): "A" if k < 6 else "B" for k in range(11)}
    monkeypatch.setattr(ucf101, "paths", lambda *_: listed)
    monkeypatch.setattr(ucf101, "classes", lambda: ["A", "B"])
    monkeypatch.setattr(ucf101, "read_film", lambda path, *_, **__: torch.full((1,), float(path.name[5:7])))
    shown, labels = ucf101.load(count=3)
    assert shown.flatten().tolist() == [0, 5, 10] and labels.tolist() == [0, 0, 1]
    assert len(ucf101.load()[0]) == 11


def test_hindi_words_are_not_cut_at_their_vowel_signs():
    assert chunks("झुको! यह किताब है।") == ["▁झुको", "!", "▁यह", "▁किताब", "▁है", "।"]
    pieces = BytePairs.learn(["किताब किताब है।"] * 3, 60)
    assert pieces.decode(pieces.encode("किताब है।")) == "किताब है।"
