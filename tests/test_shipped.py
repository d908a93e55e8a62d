"""What lies in data/experiments is the course's: a smoke run leaves it alone, and a file keeps its form."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

from soralab.experiments import shipped, transformer

CALLS = [  # of each main that measures what lies there: its file's name, and its arguments
    *((name, ()) for name in ("navit_dropping", "navit_positions", "sora_framing", "sora_full_compute",
                              "sora_full_readers", "sora_full_sizes", "sora_full_speed", "sora_physics",
                              "sora_prediction", "tune_a_video", "walt_windows")),
    *(("dit", (arguments,)) for arguments in ([], ["conditioning"], ["sizes"])),
    *(("four_ways", (arguments,)) for arguments in ([], ["sora", "1"])),
    *(("transformer", (what,)) for what in ("key_size", "multi30k")),
]  # fmt: skip
FIRST = ("measure", "load_experiment", "key_size_ablation", "train_multi30k")  # of a main without threads


class Begun(Exception):
    """A main has begun to measure."""


def begin(*_, **__):
    raise Begun


@pytest.fixture
def stopped(monkeypatch):
    """A main's module by its name, in which nothing can be measured, nor written."""

    def of(name):
        module = import_module(f"soralab.experiments.{name}")
        monkeypatch.setattr(torch, "set_num_threads", begin)
        for each in ("write", *FIRST):
            if hasattr(module, each):
                monkeypatch.setattr(module, each, begin)
        return module

    return of


@pytest.mark.parametrize("name, arguments", CALLS, ids=str)
def test_the_smoke_profile_measures_nothing_that_the_course_ships(name, arguments, stopped, monkeypatch, capsys):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    with pytest.raises(SystemExit) as stop:
        stopped(name).main(*arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1 and err.startswith(name)
    assert "the smoke profile is for trying; SORALAB_PROFILE=laptop measures what data/experiments holds" in err


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
@pytest.mark.parametrize("name, arguments", CALLS, ids=str)
def test_other_profiles_go_on(name, arguments, profile, stopped, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", profile)
    with pytest.raises(Begun):
        stopped(name).main(*arguments)


@pytest.mark.parametrize("name, arguments", [call for call in CALLS if call[0] != "transformer"], ids=str)
def test_what_lies_elsewhere_is_measured_under_any_profile(name, arguments, stopped, monkeypatch, tmp_path):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    module = stopped(name)
    monkeypatch.setattr(module, "FILE", tmp_path / "data" / "experiments" / f"{name}.json")
    with pytest.raises(Begun):
        module.main(*([module.FILE] if name.startswith("navit") else arguments))


def test_each_main_that_writes_there_asks_first():
    folder = Path(shipped.__file__).parent
    writes = {path.stem for path in folder.glob("*.py") if "\nfrom soralab.experiments.shipped import" in (
        text := path.read_text(encoding="utf-8")) and "\ndef main(" in text}  # fmt: skip
    assert writes == {name for name, _ in CALLS}


@pytest.mark.parametrize("path", sorted(shipped.EXPERIMENTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_file_is_written_as_those_that_are_there(path, tmp_path):
    """But for the card beside the films of `sora_full_compute`, which `save_checkpoint` writes."""
    indent = {"sora_physics": None, "sora_full_compute": 2}.get(path.stem, 1)
    for ensure_ascii in (True, False):
        shipped.write(tmp_path / "new" / path.name, json.loads(path.read_bytes()), indent, ensure_ascii)
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def test_the_transformers_files_keep_letters_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(transformer, "EXPERIMENTS", tmp_path / "new")
    monkeypatch.setattr(transformer, "train_multi30k", lambda: {"word": "लाल"})
    transformer.main("multi30k")
    assert (tmp_path / "new" / "transformer_multi30k.json").read_text(encoding="utf-8") == '{\n "word": "लाल"\n}\n'
    assert transformer.load_experiment("multi30k") == {"word": "लाल"}
