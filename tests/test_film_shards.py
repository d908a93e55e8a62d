"""Films of one's own in tar shards: a batch is a pure function of its step, and what is damaged is named."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from soralab import world
from soralab.command import main
from soralab.datasets import film_shards
from soralab.datasets.film_shards import FilmShards, table, write
from soralab.files.checkpoints import load_checkpoint
from soralab.recipes import sora as recipe
from soralab.recipes import sora_autoencoder
from soralab.recipes.stream import captioned
from soralab.world.language import short_caption

SCENES = [world.sample_scene(3, k, "simple") for k in range(10)]
FILMS = world.to_film(world.render(SCENES, 9, 32, 32))
TEXTS = [short_caption(scene) for scene in SCENES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten films in shards of four, four and two."""
    folder = tmp_path_factory.mktemp("shards")
    write(folder, zip(FILMS, TEXTS, strict=True), each=4)
    return folder


def add(path, members):
    """An archive of (name or TarInfo, bytes)."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def keys(shards, steps):
    return [[(sample.shard.name, sample.key) for sample in shards.samples(step)] for step in steps]


def test_films_and_words_come_back_as_they_were(folder):
    shards = FilmShards(folder, 2, 9, 32, seed=1)
    seen = {}
    for step in range(5):
        films, texts = shards(step)
        assert films.shape == (2, 9, 3, 32, 32) and films.dtype == torch.float32
        for film, text, sample in zip(films, texts, shards.samples(step), strict=True):
            number = int(sample.key.lstrip("/"))
            assert text == TEXTS[number]
            torch.testing.assert_close(film, FILMS[number], rtol=0, atol=1.01 / 127.5)
            seen[number] = True
    assert len(seen) == 10 and len(list(folder.glob("*.tar"))) == 3


def test_a_half_written_archive_is_none_and_archives_have_an_order(tmp_path, folder):
    """A killed writer leaves a hidden file; what the names' order is, is not the file system's."""
    for path in sorted(folder.glob("*.tar"), reverse=True):
        shutil.copy(path, tmp_path)
    whole = sorted(folder.glob("*.tar"))[0].read_bytes()
    (tmp_path / ".0a1b.part.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "._000.tar").write_bytes(b"")
    shards = FilmShards(tmp_path, 1, 9, 32)
    assert [found[0].shard.name for found in shards.shards] == sorted(path.name for path in folder.glob("*.tar"))
    assert shards.films == 10


def test_a_batch_follows_from_its_step_alone(folder):
    """Another object, asked in another order and for late steps only, gives the same: there is no other position."""
    steps = [0, 1, 2, 7, 23, 24, 100]
    first, again = FilmShards(folder, 3, 9, 32, seed=1), FilmShards(folder, 3, 9, 32, seed=1)
    assert keys(first, steps) == keys(again, reversed(steps))[::-1]
    assert torch.equal(first(23)[0], again(23)[0])
    assert keys(FilmShards(folder, 3, 9, 32, seed=2), steps) != keys(first, steps)


def test_an_epoch_shows_each_film_once_and_one_archive_after_another(folder):
    shards = FilmShards(folder, 2, 9, 32)
    epochs = [[key for batch in keys(shards, range(5 * e, 5 * e + 5)) for key in batch] for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == 10
        archives = [name for name, _ in epoch]
        assert sum(a != b for a, b in zip(archives, archives[1:], strict=False)) == 2
    assert epochs[0] != epochs[1] != epochs[2]
    inside = [[key for name, key in epoch if name == "000000.tar"] for epoch in epochs]
    assert any(order != sorted(order) for order in inside) and inside[0] != inside[1], "in the archive's order"


def test_what_fills_no_batch_is_left_out_and_the_next_epoch_begins(folder):
    """Ten films by threes: batches 0 to 2 are of the first epoch, 3 to 5 of the second, and all are whole."""
    shards = FilmShards(folder, 3, 9, 32)
    batches = keys(shards, range(12))
    assert [len(batch) for batch in batches] == [3] * 12
    for epoch in range(4):
        shown = [key for batch in batches[3 * epoch : 3 * epoch + 3] for key in batch]
        assert len(set(shown)) == 9 and shown == [(s.shard.name, s.key) for s in shards.order(epoch)[:9]]


def test_what_is_no_film_is_passed_over_and_names_do_not_reach_the_disk(tmp_path, folder):
    film = film_shards.contents(folder / "000000.tar", table(folder / "000000.tar")[0].film)
    link = tarfile.TarInfo("c.webp")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    add(tmp_path / "a.tar", [("../../up/a.webp", film), ("/abs/b.WEBP", film), (link, b""), ("d.json", b"{}"),
                             ("a.txt", b"of another folder"), (".webp", film), ("no.txt", b"without a film")])
    assert [sample.key for sample in table(tmp_path / "a.tar")] == ["../../up/a", "/abs/b"]
    before = sorted(Path(tmp_path).rglob("*"))
    films, texts = FilmShards(tmp_path, 2, 9, 32)(0)
    assert texts == ["", ""] and torch.equal(films[0], films[1])
    assert sorted(Path(tmp_path).rglob("*")) == before


def test_damage_is_named(tmp_path, folder):
    good = (folder / "000000.tar").read_bytes()
    sample = table(folder / "000000.tar")[0]
    last = max(table(folder / "000000.tar"), key=lambda s: s.film.start)
    for data, message in (
        (good[: last.film.start + 3], "ends before|damaged"), (b"no tar at all" * 100, "damaged or no plain tar"),
        (good[: sample.film.start] + bytes(8) + good[sample.film.start + 8 :], "000000 cannot be taken"),
    ):  # fmt: skip
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(ValueError, match=message) as info:
            shards = FilmShards(tmp_path, 4, 9, 32)
            shards(0)
        assert "a.tar" in str(info.value) and "\n" not in str(info.value)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(ValueError, match=r"whose \.tar files hold 0 films; it takes 1 or more"):
        FilmShards(tmp_path, 1, 9, 32)
    write(tmp_path, [(FILMS[0], TEXTS[0])])
    with pytest.raises(ValueError, match=r"whose \.tar files hold 1 film; it takes 2 or more"):
        FilmShards(tmp_path, 2, 9, 32)
    with pytest.raises(ValueError, match="cannot be taken .*too few to take 12"):
        FilmShards(folder, 1, 12, 32)(0)


@pytest.mark.parametrize("where", ["missing", "a.tar"])
def test_a_folder_that_there_is_not_is_told_as_missing(tmp_path, monkeypatch, capsys, where):
    monkeypatch.chdir(tmp_path)
    Path("a.tar").touch()
    for name in ("sora_autoencoder", "sora_pixels"):
        assert main(["train", name, "--stream", where]) == 2
        line = capsys.readouterr().err
        assert line == f"soralab: stream is {where}, and there is no such folder: name one with .tar files of films\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_words_that_nobody_knows_are_refused_before_the_training(tmp_path):
    write(tmp_path, [(FILMS[0], TEXTS[0]), (FILMS[1], "a small green zebra gallops")])
    with pytest.raises(ValueError, match="000001 cannot be taken .*zebra"):
        captioned(FilmShards(tmp_path, 1, 9, 32), 0.1)


def test_batches_are_what_the_loss_takes(folder):
    batches = captioned(FilmShards(folder, 5, 9, 32), null=0.0, encode=lambda films: films[:, ::2])
    batch = batches(1)
    assert batch["x0"].shape == (5, 5, 3, 32, 32) and batch["ids"].shape[0] == 5 and (batch["ids"] > 0).any(1).all()
    lost = [captioned(FilmShards(folder, 5, 9, 32), null=0.5)(step)["ids"] for step in range(40)]
    share = sum(int((ids == 0).all(1).sum()) for ids in lost) / 200
    assert 0.4 < share < 0.6
    assert len({tuple((ids == 0).all(1).tolist()) for ids in lost}) > 10, "the same in each step"


def test_the_command_trains_on_shards_and_goes_on_with_them(tmp_path, folder, monkeypatch, capsys):
    from tiny_models import tiny_autoencoder

    from soralab.experiments import sora_autoencoder as experiments

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(sora_autoencoder, "build", tiny_autoencoder)
    monkeypatch.setattr(sora_autoencoder, "BATCH", 4)
    monkeypatch.setattr(experiments, "metrics", lambda name, trained: {})
    seen, real = [], sora_autoencoder.loss
    monkeypatch.setattr(sora_autoencoder, "loss", lambda model, film, generator: (
        seen.append(film.clone()), real(model, film, generator))[1])  # fmt: skip
    command = ["train", "sora_autoencoder", "--stream", str(folder), "--steps"]
    assert main([*command, "2"]) == 0 and main([*command, "2"]) == 0
    shards = FilmShards(folder, 4, 9, 32, sora_autoencoder.SEED)
    assert len(seen) == 2 and all(torch.equal(film, shards(step)[0]) for step, film in enumerate(seen))
    card = load_checkpoint(tmp_path / "runs" / "sora_autoencoder" / "sora_autoencoder")[1]
    assert card["stream"] == folder.name
    capsys.readouterr()
    assert main(["train", "unet", "--stream", str(folder)]) == 2
    assert "stream takes sora, sora_pixels or sora_autoencoder; unet draws its own" in capsys.readouterr().err


def test_sora_in_pixels_learns_from_shards(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(recipe, "BATCH", 4)
    small = recipe.RECIPES["sora_pixels"]
    monkeypatch.setitem(recipe.RECIPES, "sora_pixels", type(small)(**{
        **vars(small), "config": type(small.config)(**{**vars(small.config), "depth": 1, "dim": 48})}))  # fmt: skip
    given = []
    train = recipe.loop.train
    monkeypatch.setattr(recipe.loop, "train", lambda model, loss, batches, *rest, **more: (
        given.append(batches(0)), train(model, loss, batches, *rest, **more))[1])  # fmt: skip
    trained = recipe.train("sora_pixels", 1, stream=folder)
    assert trained.card["stream"] == folder.name and trained.card["steps"] == 1
    assert torch.equal(given[0]["x0"], FilmShards(folder, 4, 9, 32, recipe.SEED)(0)[0])


def test_shards_of_the_world_are_written(tmp_path, capsys):
    assert film_shards.main([str(tmp_path / "films"), "--films", "3"]) == 0
    assert "wrote 3 films in 1 shard to" in capsys.readouterr().out
    once = (tmp_path / "films" / "000000.tar").read_bytes()
    film_shards.main([str(tmp_path / "again"), "--films", "3"])
    assert (tmp_path / "again" / "000000.tar").read_bytes() == once
    assert all(FilmShards(tmp_path / "films", 3, 9, 32)(0)[1])
