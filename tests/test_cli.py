"""The command: films, and for every kind of bad input one line that names the mend, exit code 2, and no litter."""

import argparse
import errno
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import PROMPT, damage, save_all, save_sora, tiny_autoencoder

from soralab import world
from soralab.command import _parser, main
from soralab.files import checkpoints
from soralab.files.films import read_film, save_film

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    save_all(folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, tiny, monkeypatch):
    """An empty working folder, and small checkpoints elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tiny))
    return tmp_path


@pytest.fixture
def own_shelf(tiny, tmp_path_factory, monkeypatch):
    """A copy of the small checkpoints that may be damaged."""
    folder = tmp_path_factory.mktemp("shelf") / "checkpoints"
    shutil.copytree(tiny, folder)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(folder))
    return folder


def refused(capsys, *argv, code=2):
    """Run a command that must be refused; returns its one line."""
    assert main([str(word) for word in argv]) == code
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("soralab: ") and err.endswith("\n"), err
    assert "Traceback" not in out + err and "[Errno" not in err
    return lines[0]


def litter(folder):
    """Everything in a folder, also what is hidden."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


# ----------------------------------------------------------------------------------------------------------- films


@pytest.mark.parametrize("suffix", ["gif", "mp4", "webp", "png"])
def test_film_writes_a_film(here, capsys, suffix):
    assert main(["film", PROMPT, "-o", f"a.{suffix}", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    assert f"a.{suffix}: 1 of 9x16x16" in out and "the referee: " in out and err == ""
    assert litter(here) == [f"a.{suffix}"]
    assert read_film(f"a.{suffix}").shape == (9, 3, 256, 256)


def test_film_options_reach_the_filmmaker(here):
    """One thing is changed at a time, and each changes the film; the same command gives the same bytes."""
    said = {"--steps": "2", "--seed": "1", "--guidance": "2", "--n": "1", "--checkpoint": "sora"}

    def film(name, prompt=PROMPT, **changes):
        options = {**said, **{f"--{key}": value for key, value in changes.items()}}
        assert main(["film", prompt, "-o", name, *(word for pair in options.items() for word in pair)]) == 0
        return Path(name).read_bytes()

    first = film("a.png")
    assert film("b.png") == first
    changed = [film("c.png", **{key: value}) for key, value in
               (("steps", "3"), ("seed", "2"), ("guidance", "4"), ("n", "2"), ("checkpoint", "sora_pixels"))]
    changed.append(film("c.png", prompt="a large blue square spins"))
    assert len({first, *changed}) == 7
    film("c.png", n="3")
    assert read_film("c.png").shape[-1] > 2.5 * read_film("a.png").shape[-1]  # side by side


def test_a_hindi_prompt_is_translated_and_filmed(here, own_shelf, capsys):
    for suffix in (".json", ".safetensors"):
        shutil.copy(ROOT / "data" / "checkpoints" / f"transformer{suffix}", own_shelf)
    assert main(["film", "एक लाल वृत्त दाईं ओर खिसकता है", "-o", "hindi.png", "--steps", "2"]) == 0
    assert "translated: a red circle slides right" in capsys.readouterr().out
    assert main(["film", "a red circle slides right", "-o", "english.png", "--steps", "2"]) == 0
    assert Path("hindi.png").read_bytes() == Path("english.png").read_bytes()


def test_a_prompt_is_filmed_as_it_was_read(here, capsys):
    """The line says so where words changed; the film is that of the caption."""
    assert main(["film", "A big BLUE box is spinning!", "-o", "a.png", "--steps", "1"]) == 0
    assert "read as: a large blue square spins\n" in capsys.readouterr().out
    assert main(["film", "a large blue square spins", "-o", "b.png", "--steps", "1"]) == 0
    assert "read as" not in capsys.readouterr().out
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


@pytest.mark.parametrize("prompt, said", [
    ("a red circle spins", "a circle that spins (nobody"), ("two red circles bounce", "2 things"),
    ("a red cross grows on a striped background", "a striped background"),
    ("a red cross grows, the camera pans left", "a camera that pans left"),
])  # fmt: skip
def test_what_the_model_never_learnt_is_said_before_it_films(here, capsys, monkeypatch, prompt, said):
    from soralab.sora import Filmmaker

    def told(*_, **__):
        assert f"soralab: the model never learnt {said}" in capsys.readouterr().err
        raise KeyboardInterrupt

    monkeypatch.setattr(Filmmaker, "film", told)
    assert main(["film", prompt]) == 130


def test_a_model_of_the_full_world_is_not_said_to_know_less(here, capsys):
    """What was never learnt is told by the card of the model that films; one without a level learnt `simple`."""
    save_sora(here, "full", level="full")
    save_sora(here, "older", level=None)
    for name, silent in (("full", True), ("older", False)):
        two = "a red circle bounces and a blue ring bounces"
        assert main(["film", two, "--steps", "1", "--checkpoint", str(here / name)]) == 0
        assert ("never learnt" not in capsys.readouterr().err) == silent


def test_after_a_wrong_film_the_line_tells_what_the_referee_saw(here, capsys, monkeypatch):
    from soralab.sora import Filmmaker

    scenes = [world.sample_scene(0, k, "simple", "test") for k in range(60)]
    wrong, fine = (next(s for s in scenes if s.objects[0].motion == m) for m in ("bounces", "slides right"))
    films = world.to_film(world.render([fine, wrong], 9, 32, 32))
    monkeypatch.setattr(Filmmaker, "film", lambda *_, **__: films)
    thing, other = fine.objects[0], wrong.objects[0]
    assert main(["film", f"a {thing.colour} {thing.shape} slides right", "--n", "2"]) == 0
    out = capsys.readouterr().out
    assert "the referee: 1 of 2 show what the prompt says" in out
    assert f"the referee saw a {other.size} {other.colour} {other.shape} that bounces in film 2\n" in out
    assert out.count("the referee saw") == 1


def test_a_notebook_reads_a_prompt_as_the_command_does(here, own_shelf):
    from soralab.command.film import english

    for suffix in (".json", ".safetensors"):
        shutil.copy(ROOT / "data" / "checkpoints" / f"transformer{suffix}", own_shelf)
    assert english("A small red ball slides to the right.") == "a small red circle slides right"
    assert english("एक लाल वृत्त दाईं ओर खिसकता है") == "a red circle slides right"
    for prompt, said in (("a cross slides up then down", "then down"), ("लाल हाथी", "unknown Hindi word"), (3, "is 3")):
        with pytest.raises(ValueError, match=said):
            english(prompt)


def test_film_takes_a_checkpoint_of_ones_own(here):
    save_sora(here / "mine", "film")
    assert main(["film", PROMPT, "--steps", "1", "--checkpoint", "mine/film"]) == 0
    assert (here / "film.gif").exists()


# ------------------------------------------------------------------------------------------------------- bad prompts


@pytest.mark.parametrize("prompt, said", [
    ("a small red elephant slides right", "unknown word in the prompt: 'elephant'"),
    ("a smal red circle", "nearest: small"),
    ("", "the prompt is empty"),
    (" \n ", "the prompt is empty"),
    ("!?", "the prompt is empty"),
    ("red " * 60, "60 words; it takes at most 48"),
    ("\u0932\u093e\u0932 \u0935\u0943\u0924", "unknown Hindi word"),
    ("a red\ncircle\x00 \udc80 walks", "walks"),
    ("a red circle slides up then down", '"then down" is not understood in the prompt after "a red circle slides up"'),
    ("a red circle 🔴 slides right", "which is no word"), ("🔴", "which is no word"),
    ("red circles bounce", 'say "a circle" or "two circles"'), ("the camera is still", "names no thing"),
])  # fmt: skip
def test_a_prompt_that_cannot_be_read(here, capsys, prompt, said):
    assert said in refused(capsys, "film", prompt)
    assert litter(here) == []


def test_a_bad_prompt_and_the_help_are_answered_without_torch(here):
    """A typing error is told at once: importing torch takes seconds."""
    code = (
        "import sys\nfrom soralab.command import main\n"
        "try:\n    sys.exit(main(sys.argv[1:]))\nfinally:\n    print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def answer(*argv):
        return subprocess.run([sys.executable, *argv], capture_output=True, text=True, cwd=here, env=environment)

    asked = answer("-m", "soralab", "--help")
    assert asked.returncode == 0 and "patches" in asked.stdout and "doctor" in asked.stdout
    told = answer("-c", code, "--help")
    assert told.returncode == 0 and told.stdout.splitlines()[-1] == "False"
    for words, said in ((["a red elephant"], "elephant"), ([PROMPT, "-o", "film.avi"], ".avi")):
        told = answer("-c", code, "film", *words)
        assert (told.returncode, told.stdout.strip()) == (2, "False")
        assert said in told.stderr and len(told.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------------------------- bad outputs


@pytest.mark.parametrize("output, said", [
    ("film.avi", "has the suffix '.avi', known are .gif .mp4 .webp .png"),
    ("film", "has the suffix 'none'"),
    ("missing/film.gif", "the folder missing does not exist: make it"),
    ("two\nlines/film.gif", "the folder two lines does not exist"),
    ("folder.gif", "folder.gif is a folder"),
    ("file.txt/film.gif", "file.txt is not a folder"),
])  # fmt: skip
def test_a_film_that_cannot_be_written(here, capsys, output, said):
    (here / "folder.gif").mkdir()
    (here / "file.txt").write_text("mine")
    assert said in refused(capsys, "film", PROMPT, "-o", output)
    assert litter(here) == ["file.txt", "folder.gif"] and (here / "file.txt").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".webp", ".png"])
def test_a_disk_that_is_full_keeps_the_film_that_was_there(here, capsys, monkeypatch, suffix):
    """The disk fills while the film is saved: what was written goes, what was there stays."""
    film = here / f"film{suffix}"
    film.write_bytes(b"the film before")

    def full(handle):
        assert any(name.endswith(f".part{suffix}") and (here / name).stat().st_size for name in litter(here))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    line = refused(capsys, "film", PROMPT, "--steps", 1, "-o", film)
    assert f"the disk is full, film{suffix} was not written" in line and "make room" in line
    assert litter(here) == [film.name] and film.read_bytes() == b"the film before"


@pytest.mark.parametrize("error, code", [(OSError(errno.ENOSPC, "No space left"), 2), (KeyboardInterrupt, 130)])
def test_half_a_film_is_not_left(here, capsys, monkeypatch, error, code):
    from PIL import Image

    def half(self, path, **_):
        Path(path).write_bytes(b"GIF89a")
        raise error

    monkeypatch.setattr(Image.Image, "save", half)
    assert main(["film", PROMPT, "--steps", "1"]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err and len(err.splitlines()) == (code == 2)
    assert litter(here) == []


def test_ctrl_c_while_filming(here, capsys, monkeypatch):
    from soralab.sora import Sora

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sora, "forward", stop)
    assert main(["film", PROMPT]) == 130
    assert "Traceback" not in capsys.readouterr().err and litter(here) == []


def test_a_model_that_films_nan(here, capsys, monkeypatch):
    from soralab.sora import Sora

    monkeypatch.setattr(Sora, "forward", lambda self, x, *_, **__: x * float("nan"))
    assert "not finite" in refused(capsys, "film", PROMPT, "--steps", 2)
    assert litter(here) == []


@pytest.mark.parametrize("option, value", [
    ("--steps", "0"), ("--steps", "many"), ("--n", "65"), ("--n", "0"), ("--seed", "one"), ("--seed", "9" * 30),
    ("--seed", "-1"), ("--guidance", "much"), ("--guidance", "nan"), ("--guidance", "inf"), ("--guidance", "1e30"),
    ("--guidance", "-1"), ("--guidance", "30.5"),
])  # fmt: skip
def test_a_number_that_is_none(here, capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        main(["film", PROMPT, option, value])
    assert stopped.value.code == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"soralab film: argument {option}: ")
    assert line.endswith("soralab film --help tells what it takes")
    assert litter(here) == []


@pytest.mark.parametrize("argv, said", [
    ([], "VERB"), (["flim", "x"], "invalid choice: 'flim'"), (["film"], "prompt"), (["session", "99"], "from 1 to 17"),
    (["film", PROMPT, "--tall", "64"], "unrecognized arguments: --tall 64"),
    (["film", PROMPT, "--two\nlines"], "--two lines"),
])  # fmt: skip
def test_a_command_that_is_none_gets_one_line(here, capsys, argv, said):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("soralab") and said in line and line.endswith("--help tells what it takes")


def test_every_argument_says_in_the_help_what_it_is():
    def untold(parser):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    assert inner.description
                    yield from untold(inner)
            elif not (action.help or "").strip():
                yield f"{parser.prog} {action.dest}"

    assert list(untold(_parser())) == []


def test_slides_go_into_a_folder(here, capsys):
    assert "--output is 'deck.html'; it takes a folder" in refused(capsys, "slides", 0, "-o", "deck.html")
    assert litter(here) == []


# ------------------------------------------------------------------------------------------------------- checkpoints


DAMAGES = {
    "missing": "there is no checkpoint", "tensors missing": "are missing", "card missing": "has no card",
    "truncated": "is truncated", "altered": "was altered", "card of another model": "name another",
}  # fmt: skip


@pytest.mark.parametrize("name", ["sora", "sora_autoencoder"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint(here, capsys, own_shelf, name, how):
    damage(own_shelf / f"{name}.safetensors", how)
    line = refused(capsys, "film", PROMPT)
    assert DAMAGES[how] in line and name in line
    assert "copy it from the course's data/checkpoints" in line or "name another" in line
    assert litter(here) == []


@pytest.mark.parametrize("verb", [
    ["film", PROMPT, "--checkpoint", "nowhere/film"], ["film", PROMPT, "--checkpoint", ""],
    ["film", PROMPT, "--checkpoint", "sora_autoencoder"],
    ["evaluate", "sora", "--checkpoint", "nowhere/film"], ["evaluate", "sora_autoencoder", "--checkpoint", "sora"],
    ["evaluate", "nothing"], ["train", "nothing"], ["train", "../sora"], ["evaluate", "nothing", "--all"],
    ["evaluate", "sora", "--all", "--checkpoint", "sora"],
])  # fmt: skip
def test_a_name_of_nothing(here, capsys, verb):
    refused(capsys, *verb)
    assert litter(here) == []


def test_all_that_belongs_to_a_name_is_measured_in_turn(here, capsys, monkeypatch):
    """What is here of it: the whole model has no weights on this shelf."""
    from soralab import experiments

    module = SimpleNamespace(evaluate=lambda name: f"the table of {name}")
    monkeypatch.setattr(experiments, "experiment", lambda _: module)
    assert main(["evaluate", "sora", "--all"]) == 0
    lines = capsys.readouterr().out.split("\n")
    told = [line.removeprefix("the table of ") for line in lines if line.startswith("the table")]
    assert told == ["sora", "sora_pixels", "sora_autoencoder"]
    assert lines.index("sora_autoencoder") == lines.index("the table of sora_autoencoder") - 2
    monkeypatch.setenv("SORALAB_DATASET", "mnist")
    assert "SORALAB_DATASET names others" in refused(capsys, "evaluate", "sora", "--all")


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def short_training(monkeypatch):
    """The autoencoder's recipe with a small model, small batches and hardly any measuring."""
    from soralab.experiments import sora_autoencoder as experiments
    from soralab.recipes import sora_autoencoder as recipe

    measure = experiments.measure
    monkeypatch.setattr(recipe, "build", tiny_autoencoder)
    monkeypatch.setattr(recipe, "BATCH", 8)
    monkeypatch.setattr(experiments, "measure", lambda model: measure(model, 4))
    return recipe


def test_a_loss_that_is_nan(here, capsys, monkeypatch, short_training):
    real = short_training.loss
    monkeypatch.setattr(short_training, "loss", lambda *given: real(*given)[0] * float("nan"))
    line = refused(capsys, "train", "sora_autoencoder", "--folder", "out")
    assert "the loss became nan at step 1" in line and "lower learning rate" in line
    assert not list(here.rglob("*.safetensors")) and not list(here.rglob("*.part*"))


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(here, capsys, monkeypatch, short_training):
    from soralab.files.checkpoints import load_checkpoint

    real, steps = short_training.loss, []

    def interrupted(model, film, generator):
        steps.append(len(steps) + 1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(model, film, generator)

    monkeypatch.setattr(short_training, "loss", interrupted)
    command = ["train", "sora_autoencoder", "--steps", "4"]
    assert main([*command, "--folder", "first"]) == 130
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "stopped at step 2 of 4, state saved" in err and "run the same again" in err
    assert not (here / "first").exists() or litter(here / "first") == []
    assert main([*command, "--folder", "first"]) == 0
    assert len(steps) == 4 and f"saved {Path('first') / 'sora_autoencoder.safetensors'}" in capsys.readouterr().out
    shutil.rmtree(here / "runs")
    assert main([*command, "--folder", "second"]) == 0
    first, second = (load_checkpoint(Path(folder) / "sora_autoencoder") for folder in ("first", "second"))
    assert first[1]["sha256"] == second[1]["sha256"] and first[1]["steps"] == 4
    assert not torch.equal(first[0]["encoder.0.weight"].float(), tiny_autoencoder().encoder[0].weight)


@pytest.mark.parametrize("folder", ["file.txt", "file.txt/deeper"])
def test_a_folder_that_cannot_be_made_is_told_before_the_training(here, capsys, monkeypatch, short_training, folder):
    (here / "file.txt").write_text("mine")
    monkeypatch.setattr(short_training, "loss", lambda *_: pytest.fail("it trained"))
    assert "file is in the way" in refused(capsys, "train", "sora_autoencoder", "--folder", folder)
    assert litter(here) == ["file.txt"]


@pytest.mark.parametrize("more", [[], ["--folder", "one/two"], ["--folder", "there/two"]])
@pytest.mark.parametrize("refusal", ["profile", "stream", "recipe"])
def test_a_training_that_is_refused_leaves_no_folder(here, capsys, monkeypatch, short_training, more, refusal):
    (here / "there").mkdir()
    monkeypatch.setattr(short_training, "loss", lambda *_: pytest.fail("it trained"))
    command = ["train", "sora_autoencoder", *more]
    if refusal == "stream":
        (here / "there" / "a.tar").write_bytes(b"none")
        command += ["--stream", "there"]
    elif refusal == "profile":
        monkeypatch.setenv("SORALAB_PROFILE", "desktop")
    else:  # what a recipe finds out itself

        def refuse(*_, **__):
            raise OSError("another training runs there")

        monkeypatch.setattr(short_training, "train", refuse)
    before = litter(here)
    refused(capsys, *command)
    assert litter(here) == before


def test_a_disk_that_is_full_while_training(here, capsys, monkeypatch, short_training):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "the disk is full" in refused(capsys, "train", "sora_autoencoder")
    assert [path.name for path in here.rglob("*") if path.is_file() and path.suffix != ".jsonl"] == []


def test_an_unknown_profile(here, capsys, monkeypatch, short_training):
    monkeypatch.setenv("SORALAB_PROFILE", "desktop")
    line = refused(capsys, "train", "sora_autoencoder")
    assert "SORALAB_PROFILE is 'desktop', it takes one of smoke, laptop, gpu" in line


def test_two_trainings_in_one_folder(here, capsys, monkeypatch, short_training):
    """The second says so before it does anything; one that a crash left locked nothing."""
    monkeypatch.setattr(short_training, "loss", lambda *_: pytest.fail("it trained"))
    code = ("import sys, time\nfrom soralab.files.lock import alone\n"
            "with alone(sys.argv[1], 'command'):\n    print('in', flush=True)\n    time.sleep(60)")
    folder = here / "runs" / "sora_autoencoder"
    folder.mkdir(parents=True)
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    try:
        assert other.stdout.readline() == "in\n"
        line = refused(capsys, "train", "sora_autoencoder", "--steps", 1)
        assert f"another training runs in {Path('runs') / 'sora_autoencoder'} (process {other.pid})" in line
    finally:
        other.kill()
        other.wait()
    assert (folder / "command.lock").exists()  # killed, so it could not clean up
    from soralab.files.lock import alone

    for _ in range(2):
        with alone(folder, "command"):
            assert (folder / "command.lock").read_text() == str(os.getpid())
            with pytest.raises(OSError, match=f"process {os.getpid()}"), alone(folder, "command"):
                pass
            with alone(folder, "training"):  # another name is another lock
                pass
    assert litter(folder) == []


@pytest.mark.parametrize("folder", [None, "out"])
def test_a_place_for_runs_that_cannot_be_written_is_told_first(here, capsys, monkeypatch, short_training, folder):
    (here / "runs").write_text("a file")
    monkeypatch.setattr(short_training, "loss", lambda *_: pytest.fail("it trained"))
    more = ["--folder", folder] if folder else []
    assert "a file is in the way" in refused(capsys, "train", "sora_autoencoder", *more)


def test_a_reader_who_stops_reading_is_no_error(here):
    """`soralab session 1 | head -1`"""
    ran = subprocess.run(
        [sys.executable, "-c", "import subprocess, sys\n"
         "p = subprocess.Popen([sys.executable, '-m', 'soralab', 'session', '1'], stdout=subprocess.PIPE, "
         "stderr=subprocess.PIPE)\np.stdout.close()\nprint(p.stderr.read().decode(), p.wait())"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stdout.strip() == "0"


def test_a_systems_error_is_a_sentence(here, capsys, monkeypatch):
    from soralab.command import session

    def fail(_):
        raise OSError(errno.EIO, "Input/output error", "disk.file")

    monkeypatch.setattr(session, "run", fail)
    assert refused(capsys, "session", 1) == "soralab: disk.file: Input/output error"
    line = refused(capsys, "film", PROMPT, "-o", "n" * 300 + ".gif")
    assert "too long" in line


def test_training_what_has_nothing_to_train(here, capsys):
    assert "'referee', which has nothing to train" in refused(capsys, "train", "referee")


# --------------------------------------------------------------------------------------- world, patches, doctor


def test_world_draws_a_sheet(here, capsys):
    from PIL import Image

    assert main(["world", "-o", "a.png", "--n", "4", "--level", "simple"]) == 0
    assert main(["world", "-o", "b.png", "--n", "8", "--level", "simple"]) == 0
    assert "b.png: 8 films of the simple world" in capsys.readouterr().out
    assert main(["world", "-o", "c.png", "--n", "1"]) == 0
    assert "c.png: 1 film of the full world" in capsys.readouterr().out
    heights = [Image.open(name).size[1] for name in ("a.png", "b.png")]
    assert heights[1] > heights[0]


@pytest.mark.parametrize("argv, said", [
    (["--level", "hard"], "hard"), (["--split", "secret"], "secret"), (["-o", "sheet.gif"], "ends in .png"),
    (["-o", "missing/sheet.png"], "does not exist"),
])  # fmt: skip
def test_a_world_that_there_is_not(here, capsys, argv, said):
    assert said in refused(capsys, "world", "--n", 1, *argv)
    assert litter(here) == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return save_film(path, world.clip(0, 7, frames=20, height=64, width=96)[0])


def test_patches_of_a_clip(here, capsys, clip):
    from PIL import Image

    assert main(["patches", str(clip), "--frames", "5", "--height", "32"]) == 0
    out = capsys.readouterr().out
    assert "5 frames of 32x48: 23,040 numbers" in out  # 5 * 3 * 32 * 48
    assert "3 frames of 8x12x8: 2,304 numbers" in out  # half the time and one, a quarter of the sides, 8 channels
    assert "72 tokens of 32 numbers; each stands for 2 frames of 8x8 pixels (384 numbers)" in out  # 3 * 4 * 6
    assert "the 48 patches of 4 of its frames" in out  # 2 * 4 * 6: the first frame is not drawn
    assert float(out.split(" dB PSNR")[0].split()[-1]) < 30  # it is not trained
    assert litter(here) == ["patches.png"]
    assert min(Image.open("patches.png").size) > 100


@pytest.mark.parametrize("argv, said", [
    (["--frames", "6"], "odd number of frames"), (["--height", "36"], "8 divides"),
    (["--frames", "21"], "has 20 frames"),
    (["-o", "patches.gif"], "ends in .png"),
    (["-o", "missing/a.png"], "does not exist"),
])  # fmt: skip
def test_patches_that_cannot_be_cut(here, capsys, clip, argv, said):
    assert said in refused(capsys, "patches", clip, *argv)
    assert litter(here) == []


@pytest.mark.parametrize("data, said", [
    (None, "there is no file"), (b"", "is empty"), (bytes(range(256)) * 9, "not a film"), (b"GIF89a broken", "damaged"),
    (b"\0\0\0\x20ftypisom" + bytes(99), "not a film"),
])  # fmt: skip
def test_patches_of_garbage(here, capsys, data, said):
    if data is not None:
        (here / "clip.mp4").write_bytes(data)
    before = litter(here)
    assert said in refused(capsys, "patches", "clip.mp4")
    assert litter(here) == before


def test_patches_of_a_film_that_is_too_large_are_refused(here, capsys):
    """2000 wide and 10 high: at 64 of height 12,800 wide, which took minutes and 9 GB."""
    from PIL import Image

    frames = [Image.new("RGB", (2000, 10), (shade, 0, 0)) for shade in range(0, 170, 10)]
    frames[0].save("wide.gif", save_all=True, append_images=frames[1:])
    line = refused(capsys, "patches", "wide.gif")
    assert "17 frames of 64x12800, 13,926,400 pixels; it takes at most 2,000,000: ask for fewer frames" in line
    assert litter(here) == ["wide.gif"]


@pytest.mark.parametrize("there, taken", [(1, 1), (2, 1), (10, 9), (16, 15), (17, 17), (18, 17)])
def test_patches_of_a_short_film_take_what_there_is(here, capsys, there, taken):
    save_film("short.gif", world.clip(0, 7, frames=there, height=32, width=32)[0])
    assert main(["patches", "short.gif", "--height", "32"]) == 0
    out = capsys.readouterr().out
    assert f"{taken} frames of 32x32" in out
    assert (f"an odd number of the {there} that it has" in out) == (there < 17)
    drawn = max(min(taken - 1, 8) // 2, 1) * 16
    assert f"the {drawn} patches of {max(min(taken - 1, 8), 1)} of its frames" in out


def test_patches_do_not_replace_the_film(here, capsys):
    save_film("clip.png", world.clip(0, 7, frames=3, height=32, width=32)[0])
    before = (here / "clip.png").read_bytes()
    assert "which is what you give" in refused(capsys, "patches", "clip.png", "-o", "clip.png")
    assert (here / "clip.png").read_bytes() == before


def test_an_empty_checkpoint_is_not_the_shipped_one(here, capsys):
    assert "--checkpoint is empty" in refused(capsys, "evaluate", "vqvae", "--checkpoint", "")


def test_a_closed_output_is_no_error(here, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert main(["session", "1"]) == 0


def test_patches_of_a_film_that_is_too_narrow(here, capsys):
    """400 high, 20 wide: at the height asked for it is narrower than one patch."""
    from PIL import Image

    frames = [Image.new("RGB", (20, 400), (shade, 0, 0)) for shade in range(0, 90, 10)]
    frames[0].save("narrow.gif", save_all=True, append_images=frames[1:])
    assert "narrow" in refused(capsys, "patches", "narrow.gif", "--frames", 5)
    assert litter(here) == ["narrow.gif"]


@pytest.fixture
def few(monkeypatch):
    """The course ships no more than two small checkpoints."""
    monkeypatch.setattr(checkpoints, "SHIPPED", ("sora", "sora_autoencoder"))


@pytest.mark.parametrize("motion, turn, shape, told", [
    ("spins", "clockwise", "square", "a small red square that spins clockwise"),
    ("orbits", None, "ring", "a small red ring that orbits"),
    ("bounces", "clockwise", "circle", "a small red circle that bounces"),
    (None, None, None, "a small red thing of no known shape, whose motion is none of the world's"),
])  # fmt: skip
def test_what_the_referee_saw_is_told_in_words(motion, turn, shape, told):
    from soralab.command.film import seen

    thing = SimpleNamespace(size="small", colour="red", shape=shape, motion=motion, turn=turn)
    assert seen(SimpleNamespace(objects=[thing])) == told and seen(SimpleNamespace(objects=[])) == "nothing"
    assert seen(SimpleNamespace(objects=[thing, thing])) == f"{told} and {told}"


def test_doctor_is_content(here, capsys, few):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "all is well" in out and "MEND" not in out
    for said in ("python", "torch ", "device", "profile               smoke", "sora_autoencoder", "verified"):
        assert said in out


def test_doctor_looks_at_what_is_in_training(here, capsys, few, monkeypatch):
    """Beside the course's own checkpoints, and not beside a reader's folder of them."""
    monkeypatch.setattr(checkpoints, "BEGUN", begun := here / "begun")
    checkpoints.save_checkpoint(begun / "half_done", {"x": torch.ones(2)}, {"steps": 3})
    assert main(["doctor"]) == 0 and "half_done" not in capsys.readouterr().out
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", checkpoints.checkpoints_folder())
    assert main(["doctor"]) == 0 and "verified, in training" in capsys.readouterr().out
    damage(begun / "half_done.safetensors", "truncated")
    assert main(["doctor"]) == 2
    assert "git checkout -- data/in_training" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["missing", "tensors missing", "card missing", "truncated", "altered"])
def test_doctor_names_what_to_mend(here, capsys, own_shelf, how, few):
    damage(own_shelf / "sora.safetensors", how)
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    mends = [line for line in out.splitlines() if line.startswith("MEND")]
    assert len(mends) == 1 and "sora" in mends[0] and "copy it" in mends[0] and "all is well" not in out


def test_doctor_misses_every_checkpoint_that_the_course_ships(here, capsys):
    """All that have a recipe, not chapter 16's alone."""
    from soralab.recipes import RECIPES

    made = {*checkpoints.SHIPPED, *checkpoints.MEASURED, *checkpoints.IN_TRAINING}
    assert made == set(RECIPES) - {"referee"}
    assert main(["doctor"]) == 2
    mends = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MEND")]
    assert [line.split()[3] for line in mends] == [n for n in checkpoints.SHIPPED if not n.startswith("sora")]


@pytest.mark.parametrize("name, version", [("pillow", "10.2.0"), ("nbconvert", "7.16.0"), ("safetensors", "0.4.3"),
                                           ("av", "12.3.0")])  # fmt: skip
def test_doctor_tells_of_a_package_that_is_too_old(here, capsys, monkeypatch, few, name, version):
    """These four install and do not work; the floors are those of pyproject.toml."""
    from test_environment import pyproject

    from soralab.command import doctor

    real = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda other: version if other == name else real(other))
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: pyproject()["project"]["dependencies"])
    assert main(["doctor"]) == 2
    mends = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MEND")]
    assert len(mends) == 1 and f"{name} is {version}, it takes >=" in mends[0] and "pip install" in mends[0]


@pytest.mark.parametrize("name", ["av", "torchvision", "scipy.ndimage"])
def test_doctor_tells_of_a_package_that_does_not_import(here, capsys, monkeypatch, few, name):
    from soralab.command import doctor

    real = importlib.import_module

    def broken(module, package=None):
        if module == name:
            raise ImportError("libx.so: cannot open\nmore")
        return real(module, package)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert main(["doctor"]) == 2
    mends = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MEND")]
    assert len(mends) == 1 and f"{name.split('.')[0]} does not import (libx.so: cannot open)" in mends[0]


def test_doctor_tells_of_a_wrong_profile_a_full_disk_and_a_missing_package(here, capsys, monkeypatch, few):
    from soralab.command import doctor

    monkeypatch.setenv("SORALAB_PROFILE", "desktop")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    needs = [*doctor.requirements(), "soralab_no_such_package>=1"]
    monkeypatch.setattr(doctor, "requirements", lambda: needs)
    assert main(["doctor"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"profile +desktop \(SORALAB_PROFILE\)", line.strip()) for line in lines)
    mends = [line for line in lines if line.startswith("MEND")]
    assert len(mends) == 3
    for said in ("'desktop'", "make room", "soralab_no_such_package is missing"):
        assert any(said in line for line in mends)
