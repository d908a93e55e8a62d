"""`soralab ask`: what it shows to the model, and one line for a file or a question that is none."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import matplotlib
import pytest
import torch
from PIL import Image
from test_cli import litter, refused
from tiny_models import randomise

from soralab import world
from soralab.command import main
from soralab.datasets.instructions import WORDS
from soralab.datasets.short_films import film_scene
from soralab.files.checkpoints import CHECKPOINTS, save_checkpoint
from soralab.files.films import MAX_FRAMES, read_film, save_film
from soralab.llava import Assistant, LLaVA, LLaVAConfig, pick_frames

ROOT = Path(__file__).resolve().parents[1]
COLOUR, MANY = "What colour is the circle?", "How many objects are there?"
MOVES = "What moves?"


@torch.no_grad()
def save_llava(folder, name="llava"):
    """An untrained model whose answers hang on what it is shown, and chapter 04's tower."""
    tokens = ("<pad>", "<image>", "<stop>", "<human>", "<assistant>", *WORDS)
    model = randomise(LLaVA(LLaVAConfig.small(len(tokens), N=1, d_model=16, d_ff=16, h=2, d_k=8, d_v=8)), 22)
    model.layers[0].attention.W_O.weight.mul_(10)
    model.layers[0].norm2.reset_parameters()
    model.embedding.weight.div_(model.embedding.weight.norm(dim=1, keepdim=True))  # no word is likely everywhere
    card = {"config": asdict(model.config), "tokens": tokens, "tower": "clip", "layer": -2}
    save_checkpoint(folder / name, model.state_dict(), card)
    for suffix in (".json", ".safetensors"):
        shutil.copy(CHECKPOINTS / f"clip{suffix}", folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    save_llava(folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, tiny, monkeypatch):
    """An empty working folder, and small checkpoints elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tiny))
    return tmp_path


@pytest.fixture(scope="module")
def film():
    """Two things, one after the other: eight frames of 32 x 32, all different."""
    return world.to_film(world.render([film_scene(0, 3)], 8, 32, 32))[0]


@pytest.fixture
def shown(monkeypatch):
    """The pictures that the tower is shown, and that see nothing."""
    found = []
    nothing = torch.zeros(16, 264)
    monkeypatch.setattr(Assistant, "see", lambda _, pixels: found.append(pixels) or nothing.expand(len(pixels), -1, -1))
    return found


def asked(capsys, *argv, warned=False):
    """The lines of an answer, and whether it is warned that the file is none of the world's, in one line."""
    assert main(["ask", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == warned and ("does not look like the toy world" in err) == warned
    return out.splitlines()


def test_the_answer_is_the_models_one_line_a_question(here, capsys, film):
    assistant = Assistant.load()
    save_film("a.png", film[:1])
    wanted = [assistant(film[0], question) for question in (COLOUR, MANY)]
    assert asked(capsys, "a.png", COLOUR) == wanted[:1]
    assert asked(capsys, "a.png", "What COLOR is the ball", "how many things are there?") == wanted
    save_film("b.gif", film)
    assert asked(capsys, "b.gif", MOVES) == [assistant(film, MOVES)]
    assert litter(here) == ["a.png", "b.gif"]
    dark = torch.full((1, 3, 32, 32), -1.0)
    save_film("c.png", dark)
    wanted_of_nothing = [assistant(dark[0], question) for question in (COLOUR, MANY)]
    assert asked(capsys, "c.png", COLOUR, MANY, warned=True) == wanted_of_nothing
    assert wanted[0] not in (wanted[1], assistant(dark[0], COLOUR))  # another question or picture, another answer
    assert assistant(film, MOVES) != assistant(film.flip(0), MOVES)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "mp4"])
def test_of_a_film_four_frames_are_shown_evenly_from_the_first_on(here, capsys, shown, film, suffix):
    save_film(f"a.{suffix}", film)
    asked(capsys, f"a.{suffix}", MOVES)
    worst = 0.35 if suffix == "mp4" else 0.05  # its colours have half of the height and width
    assert (shown[0] - film[[0, 2, 4, 6]]).abs().max() < worst < (shown[0] - film[[1, 3, 5, 7]]).abs().max()
    save_film(f"a.{suffix}", film[:3])
    asked(capsys, f"a.{suffix}", MOVES)
    assert (shown[1] - film[[0, 0, 1, 2]]).abs().max() < worst
    assert torch.equal(pick_frames(film), film[[0, 2, 4, 6]])


def test_pictures_of_any_kind_and_size_are_cut_to_their_middle_square(here, capsys, shown, film):
    square = ((film[0] + 1) * 127.5).round().byte().permute(1, 2, 0).repeat_interleave(4, 0).repeat_interleave(4, 1)
    wide = torch.full((128, 200, 3), 255, dtype=torch.uint8)
    wide[:, 36:164] = square
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp"):
        Image.fromarray(wide.numpy()).save(name, quality=95)
        asked(capsys, name, COLOUR)
    Image.fromarray(square[::4, ::4].contiguous().numpy()).convert("P").save("small.gif")
    asked(capsys, "small.gif", COLOUR)
    assert len(shown) == 5 and all(pixels.shape == (1, 3, 32, 32) for pixels in shown)
    assert all((pixels[0] - film[0]).abs().max() < 0.3 for pixels in shown)
    assert (shown[0][0] - film[0]).abs().max() < 0.01


def test_a_checkpoint_of_ones_own_answers(here, capsys, film, tmp_path):
    save_film("a.png", film[:1])
    assert "there is no checkpoint mine" in refused(capsys, "ask", "a.png", COLOUR, "--checkpoint", "runs/mine")
    assert "holds no LLaVA" in refused(capsys, "ask", "a.png", COLOUR, "--checkpoint", "clip")
    save_llava(here / "runs", "mine")
    asked(capsys, "a.png", COLOUR, "--checkpoint", "runs/mine")


@pytest.mark.skipif(not (CHECKPOINTS / "llava.json").exists(), reason="the model is not trained yet")
def test_the_shipped_model_answers(capsys, monkeypatch):
    from soralab.datasets import stills

    monkeypatch.delenv("SORALAB_CHECKPOINTS")
    scenes = [stills.sample(13, k, "test", 1) for k in range(8)]
    right = 0
    for k, picture in enumerate(stills.pictures(scenes)):
        save_film(f"{k}.png", picture[None])
        right += asked(capsys, f"{k}.png", "What colour is the object?") == [scenes[k].objects[0].colour]
    assert right >= 6


# --------------------------------------------------------------------------------- what the model has never seen


def test_of_what_is_no_picture_of_the_world_the_answer_comes_with_a_warning(here, capsys, film):
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    assistant = Assistant.load()
    line, = asked(capsys, photograph, COLOUR, warned=True)
    assert line == assistant(read_film(photograph, height=32, width=32)[0], COLOUR)
    save_film("paper.gif", film.where(film.amax(1, keepdim=True) > -0.8, 1.0))
    line, = asked(capsys, "paper.gif", MOVES, warned=True)
    save_film("world.gif", film)
    line, = asked(capsys, "world.gif", MOVES)


def test_the_warning_says_what_the_model_knows(here, capsys):
    Image.new("RGB", (40, 30), "white").save("white.png")
    assert main(["ask", "white.png", COLOUR]) == 0
    line, = capsys.readouterr().err.splitlines()
    assert line == ("soralab: white.png does not look like the toy world (flat shapes in its eight colours on a dark "
                    "ground), and the model knows nothing else: its answers mean little")  # fmt: skip


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("question, says", [
    ("", 'the question is empty; try "What colour is the circle?"'), (" ?", "the question is empty"),
    ("What is the colour of the ball?", 'no form that was learnt; the nearest: "What colour is the circle?"; "'),
    ("Is the elephant red?", "nor the word 'elephant'; the nearest: \"Is the circle red?\"; "),
    (MOVES, '"What moves?" is asked of a film, and this is a picture; here: "'),
    ("a red\ncircle\x00 \udc80 walks", "no form that was learnt"), ("red " * 3000, "no form that was learnt"),
])  # fmt: skip
def test_a_question_that_cannot_be_put_gets_the_nearest_ones(here, capsys, film, question, says):
    save_film("a.png", film[:1])
    line = refused(capsys, "ask", "a.png", COLOUR, question)
    assert says in line and line.count('"') <= 8 and len(line) < 300
    assert litter(here) == ["a.png"]


def test_what_is_asked_of_a_picture_is_refused_of_a_film(here, capsys, film):
    save_film("a.gif", film)
    line = refused(capsys, "ask", "a.gif", "Where is the circle?")
    assert line.startswith('soralab: "Where is the circle?" is asked of a picture, and this is a film; here: "Where is')
    assert "at the start?" in line


@pytest.mark.parametrize("argv, says", [
    ([], "FILE, QUESTION"), (["a.png"], "QUESTION"), (["a.png", COLOUR, "--size", "64"], "--size"),
])  # fmt: skip
def test_an_ask_without_a_question_gets_one_line(here, capsys, argv, says):
    with pytest.raises(SystemExit) as stopped:
        main(["ask", *argv])
    assert stopped.value.code == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("soralab ask: ") or line.startswith("soralab: ")
    assert says in line and line.endswith("--help tells what it takes")


@pytest.mark.parametrize("name, data, says", [
    ("a.png", None, "there is no file a.png"), ("a.png", b"", "a.png is empty"), ("folder", "folder", "is a folder"),
    ("a.png", bytes(range(256)) * 9, "not a film that can be read"), ("a.jpg", b"\xff\xd8\xff\xe0JFIF", "a.jpg is"),
    ("a.gif", b"GIF89a broken", "a.gif is damaged"), ("a.txt", b"a small red circle", "not a film that can be read"),
    ("a.mp4", b"\0\0\0\x20ftypisom" + bytes(99), "not a film that can be read"),
])  # fmt: skip
def test_a_file_that_is_no_picture_and_no_film(here, capsys, name, data, says):
    if data == "folder":
        Path(name).mkdir()
    elif data is not None:
        Path(name).write_bytes(data)
    before = litter(here)
    assert says in refused(capsys, "ask", name, COLOUR)
    assert litter(here) == before


def test_a_film_without_frames(here, capsys, film):
    """A container with a stream for frames, and none in it."""
    import av

    with av.open("none.avi", "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    assert "none.avi has no frames: name another film" in refused(capsys, "ask", "none.avi", COLOUR)


def test_of_a_very_long_film_it_is_said_what_is_looked_at(here, capsys):
    frames = [Image.new("RGB", (8, 8), (16, 16, k % 30)) for k in range(MAX_FRAMES + 5)]
    for frame in frames:
        frame.paste((214, 57, 41), (2, 2, 5, 5))
    frames[0].save("long.gif", save_all=True, append_images=frames[1:])
    assert main(["ask", "long.gif", MOVES]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and err == f"soralab: of this film the first {MAX_FRAMES} frames are looked at\n"


def test_a_bad_question_is_told_without_torch(here):
    code = (
        "import sys\nfrom soralab.command import main\n"
        "try:\n    sys.exit(main(sys.argv[1:]))\nfinally:\n    print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words, says in ((["nothing.png", "Who are you?"], "'who'"), (["nothing.png", COLOUR], "there is no file")):
        told = subprocess.run([sys.executable, "-c", code, "ask", *words], capture_output=True, text=True,
                              env=environment, cwd=here)  # fmt: skip
        assert (told.returncode, told.stdout.strip()) == (2, "False")
        assert says in told.stderr and len(told.stderr.splitlines()) == 1


def test_the_help_says_what_becomes_of_a_file(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ask", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    for told in ("its largest middle square, scaled to 32x32", "of a film four frames, evenly", "QUESTION [QUESTION"):
        assert told in said
