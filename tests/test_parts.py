"""Libraries that are made part by part: what is kept, what is taken, and what a stop leaves."""

import pytest
import torch

from soralab.files.checkpoints import CheckpointError
from soralab.recipes import parts


@pytest.fixture
def library(tmp_path):
    """A library of seven numbers in parts of three, and the parts that were made."""
    done = []

    def of(folder=tmp_path, stop=None, films=7, **words):
        def make(first, end):
            if first == stop:
                raise KeyboardInterrupt
            done.append((first, end))
            return {"square": torch.arange(first, end) ** 2, "same": torch.arange(first, end)[:, None]}

        path = folder and folder / "numbers"
        return parts.made(path, {"films": films, "seed": 1, **words}, films, 3, make, "numbers squared")

    return of, done


@pytest.mark.parametrize("kept", [True, False])
def test_its_films_are_made_in_their_order_once(library, tmp_path, kept):
    of, done = library
    for again in range(2):
        found = of(tmp_path if kept else None)
        assert found["square"].tolist() == [k * k for k in range(7)]
        assert found["same"].tolist() == [[k] for k in range(7)]
        assert done == [(0, 3), (3, 6), (6, 7)] * (1 if kept else again + 1)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == (["numbers.json", "numbers.safetensors"] if kept else [])


def test_a_stop_keeps_the_parts_and_says_so(library, tmp_path, capsys):
    of, done = library
    for stop in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            of(stop=stop)
        said = f"stopped with {stop} of 7 films of numbers squared, kept in {tmp_path}: run the same again to go on\n"
        assert capsys.readouterr().err == said
    assert of()["same"].flatten().tolist() == list(range(7)) and done == [(0, 3), (3, 6), (6, 7)]
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(KeyboardInterrupt):
        of(None, stop=6)
    assert capsys.readouterr().err == "stopped with 6 of 7 films of numbers squared, not kept\n"


@pytest.mark.parametrize("words", [{"seed": 2}, {"films": 8}, {"films": 5}])
def test_parts_and_a_whole_of_another_are_made_anew(library, words):
    of, done = library
    with pytest.raises(KeyboardInterrupt):
        of(stop=6)
    done.clear()
    films = words.get("films", 7)
    assert len(of(**words)["same"]) == films and done[0] == (0, 3) and done[-1][1] == films
    done.clear()
    assert len(of()["same"]) == 7 and len(done) == 3


def test_a_stop_between_the_whole_and_its_parts_leaves_none_of_these(library, tmp_path, monkeypatch):
    of, done = library
    with monkeypatch.context() as patch:
        patch.setattr(parts, "remove_checkpoint", lambda path: None)
        of()
    assert len(list(tmp_path.iterdir())) == 8
    assert len(of()["same"]) == 7 and len(done) == 3 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["numbers", "numbers_part_0"])
def test_what_is_damaged_is_named_with_the_mend(library, tmp_path, name, monkeypatch):
    of, _ = library
    with monkeypatch.context() as patch:
        patch.setattr(parts, "remove_checkpoint", lambda path: None)
        of()
    if name != "numbers":
        (tmp_path / "numbers.json").unlink()
    tensors = tmp_path / f"{name}.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match=f"remove .*{name}.json, and its films are made again"):
        of()
