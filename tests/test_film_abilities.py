"""`soralab film` with the whole model: pictures, films of any size, from pictures and from other films."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_full import save_full
from tiny_models import PROMPT, numbers, save_all

from soralab import recaptioning, world
from soralab.command import film, main
from soralab.command.film import nearest_learnt
from soralab.files import checkpoints
from soralab.files import films as films_file
from soralab.files.checkpoints import save_checkpoint
from soralab.files.films import read_film, save_film
from soralab.sora import Filmmaker
from soralab.sora_full import FullFilmmaker
from soralab.training import profiles
from soralab.world.prompts import read_prompt

TWO = "a small red circle slides right and a large blue square spins"
GIVEN = ("a.png", "b.png", "picture.png")
SIZES = {"a.png": (9, 32, 32), "b.png": (6, 32, 32), "picture.png": (1, 32, 64)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    save_all(folder)
    save_full(folder, level="full")
    save_checkpoint(folder / "bare", {"x": torch.ones(2)}, {})
    save_checkpoint(folder / "another", {"x": torch.ones(2)}, {"config": {"rank": 2}, "autoencoder": "x"})
    save_checkpoint(folder / "number", {"x": torch.ones(2)}, {"config": 5})
    save_full(folder, "orphan", level="full")
    card = json.loads((folder / "orphan.json").read_text())
    (folder / "orphan.json").write_text(json.dumps(card | {"autoencoder": None}))
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Files of two films and of a picture that is twice as wide as high, {name: what they hold}."""
    folder = tmp_path_factory.mktemp("films")
    held = {name: numbers(t, 3, h, w, seed=t).clamp(-1, 1) for name, (t, h, w) in SIZES.items()}
    for name, frames in held.items():
        save_film(folder / name, frames)
    return folder, held


@pytest.fixture(autouse=True)
def here(tmp_path, shelf, films, monkeypatch):
    """A working folder that holds the films, and small checkpoints elsewhere."""
    for name in GIVEN:
        shutil.copy(films[0] / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(shelf))
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What the filmmakers are asked for, [(what, {argument: value})]; their films are black."""
    calls = []

    def told(cls, name):
        signature = inspect.signature(getattr(cls, name))

        def film(*given, **options):
            found = signature.bind(*given, **options).arguments
            found |= found.pop("options", {})
            calls.append((name if cls is FullFilmmaker else "sora", found))
            assert found["callback"](1, 0.5, torch.ones(1), torch.ones(1)) is None  # else it is the next film
            return torch.full((len(found["prompts"]), 9, 3, 32, 32), -1.0)

        monkeypatch.setattr(cls, name, film)

    for name in ("film", "animate", "extend", "loop", "join", "edit"):
        told(FullFilmmaker, name)
    told(Filmmaker, "film")
    return calls


def refused(capsys, *argv):
    """Run a command that must be refused, by argparse or by us; returns its one line."""
    try:
        code = main(["film", *map(str, argv)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith("soralab"), (code, err)
    assert "Traceback" not in out + err and "[Errno" not in err
    return err.strip()


def litter(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


# ------------------------------------------------------------------------------------------------ what is asked for

ASKED = {  # the words of the command; what is asked for, the files that are read for it, their size, and what is said
    ("--size", "48x64"): ("film", {}, None, {"size": (9, 48, 64)}),
    ("--size", "48\u00d764", "--frames", "17"): ("film", {}, None, {"size": (17, 48, 64)}),
    ("--frames", "1"): ("film", {}, None, {"size": (1, 32, 32)}),
    ("--from", "picture.png"): ("animate", {"pictures": "picture.png"}, (32, 48), {"frames": 9}),
    ("--from", "picture.png", "--size", "32x32"): ("animate", {"pictures": "picture.png"}, (32, 32), {"frames": 9}),
    ("--from", "picture.png", "--frames", "5", "--size", "16X24"):
        ("animate", {"pictures": "picture.png"}, (16, 24), {"frames": 5}),
    ("--from", "a.png", "--size", "32x32"): ("animate", {"pictures": "a.png"}, (32, 32), {"frames": 9}),
    ("--extend", "a.png"): ("extend", {"films": "a.png"}, (32, 32), {"by": 8, "backwards": False}),
    ("--extend", "a.png", "--by", "3", "--backwards"):
        ("extend", {"films": "a.png"}, (32, 32), {"by": 3, "backwards": True}),
    ("--edit", "a.png"): ("edit", {"films": "a.png"}, (32, 32), {"strength": 0.6}),
    ("--edit", "b.png", "--strength", "0.25"): ("edit", {"films": "b.png"}, (32, 32), {"strength": 0.25}),
    ("--edit", "b.png", "--strength", "0"): ("edit", {"films": "b.png"}, (32, 32), {"strength": 0.0}),
    ("--join", "a.png", "b.png"): ("join", {"a": "a.png", "b": "b.png"}, (32, 32), {"between": 8}),
    ("--join", "b.png", "a.png", "--by", "17"): ("join", {"a": "b.png", "b": "a.png"}, (32, 32), {"between": 17}),
    ("--loop", "a.png", "--by", "5"): ("loop", {"films": "a.png"}, (32, 32), {"by": 5}),
    ("--loop", "a.png", "--size", "24x40"): ("loop", {"films": "a.png"}, (24, 40), {"by": 8}),
}  # fmt: skip


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_each_option_reaches_the_filmmaker(asked, films, capsys, words):
    what, files, size, want = ASKED[words]
    usual = ("--seed", "7", "--steps", "3", "--guidance", "2.5", "--n", "2", "-o", "out.png")
    assert main(["film", PROMPT, *words, *usual]) == 0
    ((name, found),) = asked
    assert name == what and capsys.readouterr().err == ""
    want = {"prompts": [PROMPT] * 2, "seed": 7, "steps": 3, "guidance": 2.5, **want}
    assert {key: found[key] for key in want} == want
    for argument, file in files.items():
        frames, got = films[1][file], found[argument]
        assert got.shape == ((2, 3, *size) if what == "animate" else (2, len(frames), 3, *size))
        if size[0] == 32:  # of a picture that is wider, the middle
            edge = (frames.shape[-1] - size[1]) // 2
            middle = frames[..., edge : frames.shape[-1] - edge]
            assert all((film - (middle[0] if what == "animate" else middle)).abs().max() < 0.01 for film in got)
    assert len(read_film("out.png")) == 9


SAID = {  # what is said of the files; those that `save_film` writes have 256 pixels a side
    ("--from", "picture.png"): ["picture.png: the middle 256x384 of 256x512, scaled to 32x48"],
    ("--from", "picture.png", "--size", "32x64"): ["picture.png: 256x512, scaled to 32x64"],
    ("--extend", "a.png"): ["a.png: 256x256, scaled to 32x32"],
    ("--loop", "a.png", "--size", "48x64"): ["a.png: the middle 192x256 of 256x256, scaled to 48x64"],
    ("--edit", "a.png", "--size", "256x256"): [],
    ("--edit", "picture.png", "--size", "256x256"): ["picture.png: the middle 256x256 of 256x512"],
    ("--join", "a.png", "picture.png", "--size", "32x32"):
        ["a.png: 256x256, scaled to 32x32", "picture.png: the middle 256x256 of 256x512, scaled to 32x32"],
    ("--join", "a.png", "a.png"): ["a.png: 256x256, scaled to 32x32"],
    ("--frames", "1"): [],
}  # fmt: skip


@pytest.mark.parametrize("words", SAID, ids=" ".join)
def test_what_is_done_to_a_file_is_said(asked, capsys, words):
    assert main(["film", PROMPT, *words]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if ".png: " in line] == SAID[words]


@pytest.mark.parametrize("shown, size", [
    ([(256, 256)], (32, 32)), ([(480, 640)], (48, 64)), ([(1080, 1920)], (32, 48)), ([(1920, 1080)], (48, 32)),
    ([(640, 480)], (48, 32)), ([(100, 110)], (32, 32)), ([(3, 4)], (48, 64)), ([(10, 3000)], (32, 48)),
    ([(32, 48), (256, 384)], (32, 48)), ([(32, 64), (64, 32)], (32, 32)), ([(32, 48), (32, 40), (30, 40)], (48, 64)),
])  # fmt: skip
def test_of_the_sizes_that_were_learnt_the_nearest_in_shape_is_taken(shown, size):
    assert nearest_learnt(shown) == size


MUCH = {
    ("--frames", "17", "--size", "48x64"): "", ("--frames", "9", "--size", "64x64"): "",
    ("--extend", "a.png"): "", ("--extend", "a.png", "--backwards", "--by", "17"): "",
    ("--join", "a.png", "b.png", "--by", "17"): "", ("--edit", "a.png"): "",
    ("--frames", "18"): "21 frames at once (up to 17)",
    ("--extend", "a.png", "--by", "9"): "21 frames at once (up to 17)",
    ("--from", "picture.png", "--frames", "21"): "21 frames at once (up to 17)",
    ("--edit", "long.png"): "25 frames at once (up to 17)", ("--loop", "b.png", "--by", "18"): "21 frames at once",
    ("--frames", "9", "--size", "64x96"): "288 tokens at once (up to 240)",
    ("--join", "a.png", "b.png", "--size", "48x64"): "336 tokens at once (up to 240)",
    ("--frames", "65", "--size", "64x64"): "65 frames at once (up to 17) or 1088 tokens at once (up to 240)",
}  # fmt: skip


@pytest.mark.parametrize("words", MUCH, ids=" ".join)
def test_more_than_was_learnt_is_warned_of_and_tried(asked, capsys, words):
    save_film("long.png", numbers(22, 3, 32, 32).clamp(-1, 1))
    assert main(["film", PROMPT, *words]) == 0
    err = capsys.readouterr().err
    assert len(asked) == 1 and err.count("\n") == bool(MUCH[words])
    if MUCH[words]:
        assert err.startswith(f"soralab: the model never learnt {MUCH[words]}") and "films this all the same" in err


@pytest.mark.parametrize("words, size", [
    (("--frames", "6"), (16, 16)), (("--from", "picture.png", "--frames", "10"), (16, 16)),
    (("--extend", "a.png", "--by", "3"), (16, 16)), (("--extend", "b.png", "--by", "6"), (16, 16)),
    (("--extend", "a.png", "--by", "6", "--backwards"), (16, 16)),
    (("--join", "a.png", "picture.png", "--by", "6"), (16, 16)), (("--loop", "a.png"), (16, 16)),
    (("--edit", "b.png"), (16, 16)),
])  # fmt: skip
def test_what_is_warned_of_is_what_is_walked(monkeypatch, words, size):
    told, walked, walk = [], [], FullFilmmaker.walk

    def seen(self, given, clips, *rest, **options):
        walked.append((clips, 4 * given.shape[3], 4 * given.shape[4]))
        return walk(self, given, clips, *rest, **options)

    monkeypatch.setattr(FullFilmmaker, "walk", seen)
    monkeypatch.setattr(film, "beyond", lambda *much: told.append(much) or [])
    assert main(["film", PROMPT, *words, "--size", "16x16", "--steps", "1"]) == 0
    assert told == walked and len(told) == 1


def test_the_model_is_chosen_by_what_is_asked(asked):
    """sora for what it learnt; the whole model for sizes and what only it learnt; a name that is given, always."""
    for words, who in (((PROMPT,), "sora"), ((PROMPT, "--frames", "9"), "film"), ((PROMPT, "--size", "32x32"), "film"),
                       ((TWO,), "film"), ((PROMPT, "--checkpoint", "sora_full"), "film"),
                       ((TWO, "--checkpoint", "sora"), "sora")):  # fmt: skip
        assert main(["film", *words]) == 0
        assert asked.pop()[0] == who, words


def test_without_the_whole_model_sora_films_what_it_can(here, shelf, asked, monkeypatch, capsys):
    for name in ("sora", "sora_autoencoder"):
        for suffix in (".json", ".safetensors"):
            shutil.copy(shelf / f"{name}{suffix}", here)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(here))
    assert main(["film", TWO]) == 0 and asked.pop()[0] == "sora"
    assert "the model never learnt 2 things; it films this all the same" in capsys.readouterr().err
    assert "there is no checkpoint sora_full" in refused(capsys, TWO, "--size", "32x32")


def test_a_model_in_training_films_and_says_so(here, shelf, asked, monkeypatch, capsys):
    """Where the course's own folder lacks it, it lies in data/in_training, with the first stage that it films through;
    a reader's own folder of checkpoints has what it has."""
    (own := here / "shelf").mkdir(), (begun := here / "begun").mkdir()
    for name, folder in (("sora", own), ("sora_autoencoder", own), ("sora_full_autoencoder", begun)):
        for suffix in (".json", ".safetensors"):
            shutil.copy(shelf / f"{name}{suffix}", folder)
    save_full(begun, level="full", steps=12_345)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(own))
    monkeypatch.setattr(checkpoints, "BEGUN", begun)
    assert "there is no checkpoint sora_full" in refused(capsys, TWO, "--size", "32x32")
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", own)
    assert main(["film", TWO]) == 0 and asked.pop()[0] == "film"
    assert "sora_full is still in training: this is what 12,345 steps made of it" in capsys.readouterr().err
    assert main(["film", PROMPT]) == 0 and asked.pop()[0] == "sora" and not capsys.readouterr().err
    assert "it takes sides that 8 divides" in refused(capsys, TWO, "--size", "33x32")  # one line, as ever
    (begun / "sora_full.safetensors").write_bytes(b"cut off")
    assert "git checkout -- data/in_training" in refused(capsys, TWO)


def test_what_the_whole_model_learnt_is_not_called_new(asked, capsys):
    assert main(["film", TWO]) == 0
    assert capsys.readouterr().err == ""
    assert main(["film", "a red circle spins", "--frames", "9"]) == 0
    assert "the model never learnt a circle that spins" in capsys.readouterr().err


def test_the_prompt_is_expanded_where_that_is_asked(asked, monkeypatch, capsys):
    longer = "A small red circle slowly slides right on a black background. The camera is still."
    told = []

    class Told:
        @classmethod
        def load(cls):
            return lambda prompts, seed: told.append((prompts, seed)) or [longer]

    monkeypatch.setattr(recaptioning, "Expander", Told)
    assert main(["film", "a big red ball moves right", "--frames", "9", "--expand", "--seed", "4", "--n", "2"]) == 0
    out = capsys.readouterr().out
    assert told == [(["a large red circle slides right"], 4)] and asked[0][1]["prompts"] == [longer] * 2
    assert f"expanded: {longer}\n" in out and "read as: a large red circle slides right\n" in out
    assert main(["film", PROMPT, "--frames", "9"]) == 0
    assert len(told) == 1 and "expanded" not in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------- films and pictures


@pytest.mark.parametrize("words, frames, size", [
    (("--frames", "1", "--size", "16x24"), 1, (16, 24)), (("--frames", "3", "--size", "16x16"), 3, (16, 16)),
    (("--from", "picture.png", "--frames", "5", "--size", "16x32"), 5, (16, 32)),
    (("--extend", "b.png", "--by", "3", "--backwards", "--size", "16x16"), 9, (16, 16)),
    (("--join", "b.png", "picture.png", "--by", "2", "--size", "16x16"), 9, (16, 16)),
    (("--loop", "b.png", "--by", "1", "--size", "16x16"), 7, (16, 16)),
    (("--edit", "b.png", "--strength", "0.5", "--size", "16x16"), 6, (16, 16)),
])  # fmt: skip
def test_films_are_written(here, capsys, words, frames, size):
    assert main(["film", PROMPT, *words, "--steps", "1", "-o", "out.png"]) == 0
    out, err = capsys.readouterr()
    assert f"out.png: 1 of {frames}x{size[0]}x{size[1]} in " in out and err == ""
    assert read_film("out.png", height=size[0]).shape == (frames, 3, *size)
    assert litter(here) == sorted([*GIVEN, "out.png"])


def test_what_is_given_stays_in_the_film_and_strength_0_changes_nothing(films):
    """To the rounding of the files."""
    shown = films[1]["b.png"]
    main(["film", PROMPT, "--extend", "b.png", "--by", "2", "--steps", "1", "-o", "on.png"])
    main(["film", PROMPT, "--extend", "b.png", "--by", "2", "--backwards", "--steps", "1", "-o", "back.png"])
    main(["film", PROMPT, "--edit", "b.png", "--strength", "0", "--steps", "1", "-o", "same.png"])
    for name, where in (("on.png", slice(0, 6)), ("back.png", slice(2, 8)), ("same.png", slice(0, 6))):
        assert (read_film(name, height=32)[where] - shown).abs().max() < 0.02


def test_a_film_of_any_kind_comes_in(asked, films):
    """What is lossy comes near."""
    for name in ("a.mp4", "a.webp", "a.gif"):
        smooth = torch.linspace(-1, 1, 32).expand(5, 3, 32, 32)
        save_film(name, smooth)
        assert main(["film", PROMPT, "--extend", name]) == 0
        assert (asked.pop()[1]["films"][0] - smooth).abs().mean() < 0.1


@pytest.mark.parametrize("prompt", [
    "a small red square slides right", "a large blue cross spins clockwise",
    "a small white moon quickly spins anticlockwise", "a medium green square slowly grows",
    "a large yellow cross that bounces is above a small red moon that stays still",
])  # fmt: skip
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_the_referee_looks_at_a_picture_for_what_a_picture_shows(monkeypatch, capsys, prompt, frames):
    """Whether what is asked for moves, no picture can tell: it is right if the things are there."""
    shown = world.to_film(world.render([pictured(prompt)], 1, 48, 48)).expand(-1, frames, -1, -1, -1)
    monkeypatch.setattr(FullFilmmaker, "film", lambda *_, **__: shown)
    assert main(["film", prompt, "--frames", str(frames)]) == 0
    out = capsys.readouterr().out
    if frames == 1:
        assert "the referee: 1 of 1 show what the prompt says" in out
    elif frames == 2:
        assert "the referee reads a picture, or 4 frames and more, of 16 pixels and more" in out
    else:
        assert "the referee: 0 of 1 show what the prompt says" in out  # four frames that stand still are a film


def pictured(prompt):
    """A scene in which the things of a prompt stand still, one above the other."""
    things = read_prompt(prompt).things
    places = [(0.0, 0.0)] if len(things) == 1 else [(0.0, -0.2), (0.0, 0.3)]
    objects = [world.Object(t["shape"], t["colour"], t["size"], "stays still", x=x, y=y)
               for t, (x, y) in zip(things, places, strict=True)]  # fmt: skip
    return world.Scene(tuple(objects))


def test_a_wrong_picture_is_called_wrong(monkeypatch, capsys):
    shown = world.to_film(world.render([pictured("a large blue cross spins")], 1, 48, 48))
    monkeypatch.setattr(FullFilmmaker, "film", lambda *_, **__: shown)
    assert main(["film", "a large red cross spins clockwise", "--frames", "1"]) == 0
    out = capsys.readouterr().out
    assert "the referee: 0 of 1 show" in out and "the referee saw a large blue cross" in out


def test_a_film_just_large_enough_for_the_referee_is_read(capsys):
    assert main(["film", PROMPT, "--size", "16x16", "--steps", "1"]) == 0
    assert "the referee: " in capsys.readouterr().out


def test_the_whole_model_films_on_the_device(monkeypatch, asked):
    where, load = [], FullFilmmaker.load.__func__
    noted = classmethod(lambda cls, *given: where.append(given) or load(cls, given[0]))
    monkeypatch.setattr(FullFilmmaker, "load", noted)
    assert main(["film", PROMPT, "--frames", "9"]) == 0
    assert where == [("sora_full", profiles.device())]


def test_a_film_too_small_for_the_referee_is_written_all_the_same(here, capsys):
    assert main(["film", PROMPT, "--size", "8x16", "--steps", "1", "-o", "out.png"]) == 0
    out, err = capsys.readouterr()
    assert "out.png: 1 of 9x8x16" in out and err == "" and "of 16 pixels and more" in out


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("words, says", [
    (("--from", "picture.png", "--extend", "a.png"), "--from and --extend are two films: give one of them at a time"),
    (("--loop", "a.png", "--join", "a.png", "b.png"), "--join and --loop are two films"),
    (("--edit", "a.png", "--extend", "a.png", "--loop", "a.png"), "--extend and --edit and --loop are two films"),
    (("--by", "4"), "--by goes with --extend or --join or --loop: give one of these, too"),
    (("--from", "picture.png", "--by", "4"), "--by goes with --extend or --join or --loop"),
    (("--edit", "a.png", "--by", "4"), "--by goes with"),
    (("--backwards",), "--backwards goes with --extend"), (("--loop", "a.png", "--backwards"), "--backwards goes with"),
    (("--strength", "0.5"), "--strength goes with --edit"), (("--strength", "0"), "--strength goes with --edit"),
    (("--extend", "a.png", "--strength", "0"), "--strength goes with --edit"),
    (("--extend", "a.png", "--frames", "9"), "--frames is of a new film, and --extend takes those that there are"),
    (("--edit", "a.png", "--frames", "9"), "and --edit takes those"), (("--loop", "a.png", "--frames", "1"), "--loop"),
    (("--join", "a.png", "b.png", "--frames", "9"), "and --join takes those"),
    (("--from", "picture.png", "--frames", "1"), "--frames is 1, and a picture is no film: --from takes 2 or more"),
    (("--size", "30x40"), "size is 30x40; it takes sides that 8 divides, such as 32x40 or 24x40"),
    (("--size", "32x44", "--frames", "1"), "such as 32x48 or 32x40"),
    (("--from", "picture.png", "--size", "20x20"), "such as 24x24 or 16x16"),
    (("--edit", "a.png", "--size", "20x20"), "such as 24x24 or 16x16"),
    (("--checkpoint", "sora", "--size", "32x32"), "sora films 9 frames of 32x32 from a prompt alone, and --size asks"),
    (("--checkpoint", "sora", "--frames", "9", "--from", "picture.png"), "--frames, --from asks for more: leave"),
    (("--checkpoint", "sora_full_autoencoder",), "sora_full_autoencoder holds no"),
    (("--checkpoint", "another", "--frames", "9"), "another holds no FullSora"),
    (("--checkpoint", "bare"), "bare holds no"), (("--checkpoint", "number"), "number holds no"),
    (("--checkpoint", "orphan", "--frames", "9"), "there is no checkpoint None"),
    (("--checkpoint", "nowhere", "--frames", "9"), "there is no checkpoint nowhere"),
    (("--size", "31x33"), "such as 32x32 or 24x32 or 32x40"),
    (("--from", ""), "is a folder: name a film"), (("--extend", "", "--by", "3"), "is a folder: name a film"),
    (("--size", "48"), "--size: is 48; it takes HEIGHTxWIDTH in pixels, each from 8 to 256"),
    (("--size", "7x40"), "it takes HEIGHTxWIDTH"), (("--size", "300x32"), "it takes HEIGHTxWIDTH"),
    (("--size", "axb"), "it takes HEIGHTxWIDTH"), (("--size", "32x32x32"), "it takes HEIGHTxWIDTH"),
    (("--frames", "0"), "--frames: is 0; it takes a whole number from 1 to 65"), (("--frames", "66"), "--frames"),
    (("--frames", "x"), "--frames"), (("--extend", "a.png", "--by", "0"), "--by: is 0; it takes a whole number from 1"),
    (("--edit", "a.png", "--strength", "1.5"), "--strength: is 1.5; it takes a number from 0 to 1"),
    (("--edit", "a.png", "--strength", "nan"), "--strength"), (("--edit", "a.png", "--strength", "x"), "--strength"),
    (("--join", "a.png"), "--join: expected 2 arguments"),
    (("--from", "missing.png"), "there is no file missing.png"), (("--extend", "."), "is a folder"),
    (("--edit", "empty.gif"), "empty.gif is empty"), (("--loop", "text.txt"), "text.txt is not a film that can be"),
    (("--join", "a.png", "half.png"), "half.png is damaged"), (("--from", "text.png"), "text.png is not a film"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(here, shelf, films, capsys, words, says):
    for name in ("text.txt", "text.png"):
        Path(name).write_text("no film")
    Path("empty.gif").write_text("")
    Path("half.png").write_bytes((films[0] / "b.png").read_bytes()[:3000])
    before = litter(here)
    assert says in refused(capsys, PROMPT, *words, "--steps", "1")
    assert litter(here) == before and not Path("film.gif").exists()


@pytest.mark.parametrize("words", [("--edit", "a.png"), ("--extend", "a.png"), ("--loop", "a.png"),
                                   ("--join", "b.png", "a.png")])  # fmt: skip
def test_a_film_of_too_many_frames_is_refused_by_a_mend_that_the_command_allows(capsys, monkeypatch, words):
    """It has no option for how many frames of a film are taken: --frames is of a new one."""
    most = min(len(read_film(name)) for name in words[1:]) - 1
    monkeypatch.setattr(films_file, "MAX_FRAMES", most)
    line = refused(capsys, PROMPT, *words)
    assert f"has more than {most} frames: cut a part of it into a file of its own" in line
    assert "say how many" not in line and "--" not in line
    refused(capsys, PROMPT, *words, "--frames", str(most))  # what one might try


def test_a_refusal_is_one_line_where_the_prompt_is_new_too(capsys):
    for words in (("--size", "20x20", "--frames", "65"), ("--from", "missing.png"), ("--checkpoint", "another")):
        assert "never learnt" not in refused(capsys, "a red circle spins", "--frames", "9", *words)


def test_what_cannot_be_written_is_told_before_anything_is_filmed(here, asked, monkeypatch, capsys):
    """A Pillow that was built without WebP knows the suffix, and fails only when it has the frames."""
    from PIL import Image

    Image.init()
    monkeypatch.delitem(Image.SAVE_ALL, "WEBP")
    Path("out.webp").write_bytes(b"mine")
    for words in ((), ("--frames", "9"), ("--extend", "a.png")):
        assert refused(capsys, PROMPT, *words, "-o", "out.webp") == (
            "soralab: out.webp cannot be written as .webp on this machine: take .gif .mp4 .png")
    assert asked == [] and Path("out.webp").read_bytes() == b"mine" and litter(here) == sorted([*GIVEN, "out.webp"])


def test_one_frame_of_the_films_own_size_is_encoded_first(asked, monkeypatch):
    tried = []
    monkeypatch.setattr(films_file, "_write", lambda path, frames, fps: tried.append((len(asked), frames.shape)))
    for words, shape in ((("--size", "48x64"), (1, 48, 64, 3)), ((), (1, 32, 32, 3)),
                         (("--from", "picture.png", "--n", "2"), (1, 32, 97, 3))):  # fmt: skip
        assert main(["film", PROMPT, *words]) == 0
        (before, shown), (after, _) = tried
        assert (before, shown, after) == (0, shape, 1)
        tried.clear()
        asked.clear()


def test_a_film_before_is_kept_where_another_is_refused(here, capsys):
    Path("film.gif").write_bytes(b"mine")
    refused(capsys, PROMPT, "--size", "30x40")
    refused(capsys, "a red elephant", "--extend", "a.png")
    assert Path("film.gif").read_bytes() == b"mine"


def test_contradictions_are_told_before_a_checkpoint_is_looked_for(monkeypatch, capsys):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", "nowhere")
    assert "two films" in refused(capsys, PROMPT, "--loop", "a.png", "--edit", "a.png")
    assert "--by goes with" in refused(capsys, PROMPT, "--by", "4")


@pytest.mark.parametrize("words", [
    ["--edit", "a.png"], ["--extend", "./a.png"], ["--loop", "a.png"], ["--join", "b.png", "a.png"],
    ["--from", "picture.png"],
])  # fmt: skip
def test_what_is_given_is_not_replaced(here, capsys, words):
    """Not by its own name, and not by another name of the same file."""
    path = here / words[-1]
    before = path.read_bytes()
    for output in (words[-1], str(path)):
        assert main(["film", PROMPT, *words, "-o", output]) == 2
        assert "which is what you give: name another file, or yours is lost" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_more_than_memory_holds_is_refused(here, capsys):
    assert main(["film", PROMPT, "--size", "256x256", "--frames", "65", "--n", "64", "--steps", "1"]) == 2
    said = capsys.readouterr().err
    assert f"64 of 65 frames of 256x256 are over {film.MOST:,} pixels: ask for fewer (--n)" in said
    assert not (here / "film.gif").exists()
