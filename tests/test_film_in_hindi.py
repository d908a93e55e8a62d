"""`soralab film` with a prompt in Hindi: the shipped translator, and a tiny model that films."""

import shutil
from pathlib import Path

import pytest
from tiny_models import save_all

from soralab.command import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    save_all(folder)
    for suffix in (".json", ".safetensors"):
        shutil.copy(ROOT / "data" / "checkpoints" / f"transformer{suffix}", folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, shelf, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(shelf))
    return tmp_path


@pytest.mark.parametrize("hindi, english", [
    ("एक वृत्त उछलता है", "a circle bounces"),  # neither size nor colour
    ("लाल वृत्त", "a red circle"),
    ("छोटी लाल अंगूठी दाईं ओर खिसक रही है", "a small red ring slides right"),
    ("एक सफेद चांद ऊपर बायीं तरफ खिसकता है।", "a white moon slides up and left"),
])  # fmt: skip
def test_a_prompt_as_people_type_it_is_translated_and_filmed(capsys, hindi, english):
    assert main(["film", hindi, "-o", "hindi.png", "--steps", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"translated: {english}" and err == ""
    assert main(["film", english, "-o", "english.png", "--steps", "1"]) == 0
    assert Path("hindi.png").read_bytes() == Path("english.png").read_bytes()


@pytest.mark.parametrize("hindi, said", [
    ("दो लाल वृत्त", "Hindi that was not understood: 'दो'"),
    ("एक लाल वृत्त एक नीले वर्ग के पीछे है", "Hindi that was not understood: "),
    ("एक लाल वृत उछलता है", "unknown Hindi word in the prompt: 'वृत' (nearest: वृत्त"),
    ("एक लाल रिंग उछलती है", "unknown Hindi word in the prompt: 'रिंग' (nearest: छल्ला)"),
])  # fmt: skip
def test_what_is_not_understood_is_refused_in_one_line_and_not_filmed(here, capsys, hindi, said):
    assert main(["film", hindi]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"soralab: {said}") and len(err.splitlines()) == 1
    assert not list(here.iterdir())
