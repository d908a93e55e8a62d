"""Whose shape and size is right, by the size that the prompt names."""

import json

import pytest
import torch

from soralab import world
from soralab.experiments import sora_full_sizes as sizes
from soralab.experiments.sora_full_scores import ASKED, true_films
from soralab.world.reader import read_caption


def test_each_film_counts_for_the_size_that_its_prompt_names():
    films, texts = true_films("simple", 12)
    named = [read_caption(text)[0] for text in texts]
    many = {size: sum(thing["size"] == size for thing in named) for size in world.SIZES}
    assert min(many.values()) > 0
    found = sizes.by_size(films, texts)
    assert found == {size: {"shape": [n, n], "size": [n, n]} for size, n in many.items()}

    k = next(k for k, thing in enumerate(named) if thing["size"] == "small" and thing["shape"] != "circle")
    other = texts[k].replace("small", "large").replace(named[k]["shape"], "circle")
    found = sizes.by_size(films, [*texts[:k], other, *texts[k + 1 :]])
    assert found["small"] == {what: [many["small"] - 1] * 2 for what in sizes.WHAT}
    assert found["large"] == {what: [many["large"], many["large"] + 1] for what in sizes.WHAT}


def test_the_model_films_the_prompts_of_the_kind_in_its_size(monkeypatch):
    asked = []

    class Maker:
        def film(self, texts, seed, size):
            asked.append((len(texts), size))
            return torch.zeros(len(texts), *(size[0], 3, *size[1:]))

    for kind in sizes.NAMES:
        sizes.measure(Maker(), kind, 2)
    assert asked == [(2, ASKED[kind].size) for kind in sizes.NAMES]
    assert [f"{h} x {w}" for _, h, w in (ASKED[kind].size for kind in sizes.NAMES)] == [
        name.split(",")[0] for name in sizes.NAMES.values()]  # fmt: skip


def test_the_table_has_percent_of_each_size():
    row = {"small": {"shape": [3, 4], "size": [4, 4]}, "medium": {"shape": [1, 2], "size": [0, 2]},
           "large": {"shape": [0, 100], "size": [49, 100]}}  # fmt: skip
    head, names, line = sizes.table({"48 x 64": row}).splitlines()
    assert head.split() == ["the", "shape", "is", "right", "the", "size", "is", "right"]
    assert names.split() == [*world.SIZES, *world.SIZES]
    assert line.split() == "48 x 64 75 (30\u201395) 50 (9\u201391) 0 (0\u20134) 100 0 49".split()
    assert head.index("the size") == names.index("small", names.index("large"))  # each above its own


@pytest.mark.parametrize("done", [0, 2])
def test_what_was_measured_is_kept_and_written_whole(tmp_path, monkeypatch, capsys, done):
    """Stopped after `done` sizes of frames, the next run measures the others alone; other models' are not taken."""
    monkeypatch.setattr(sizes, "FILE", tmp_path / "found.json")
    monkeypatch.setattr(sizes, "RUNS", tmp_path)
    monkeypatch.setattr(sizes.FullFilmmaker, "load", lambda *_: None)
    monkeypatch.setattr(sizes, "who", lambda: "a")
    calls = []

    def measure(maker, kind, count):
        if len(calls) == done and stop:
            raise KeyboardInterrupt
        calls.append(kind)
        return {size: {what: [len(calls), count + 9] for what in sizes.WHAT} for size in world.SIZES}

    monkeypatch.setattr(sizes, "measure", measure)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        sizes.main()
    assert not sizes.FILE.exists()
    stop = False
    sizes.main()
    assert calls == list(sizes.NAMES) and json.loads(sizes.FILE.read_text()) == sizes.load_experiment()
    assert [rows["small"]["shape"][0] for rows in sizes.load_experiment().values()] == [1, 2, 3, 4]
    assert sizes.table(sizes.load_experiment()) in capsys.readouterr().out
    monkeypatch.setattr(sizes, "who", lambda: "b")
    sizes.main()
    assert len(calls) == 2 * len(sizes.NAMES)


def test_another_transformer_or_decoder_is_somebody_else(monkeypatch):
    cards = {"sora_full": {"sha256": 8 * "a" + "1", "autoencoder": "first"}, "first": {"sha256": 8 * "b" + "2"},
             "own": {"sha256": 8 * "c" + "3"}}  # fmt: skip
    monkeypatch.setattr(sizes, "read_card", cards.__getitem__)
    monkeypatch.setattr(sizes, "decoded_by", lambda decoder, first: first)
    assert sizes.who() == "aaaaaaaa_bbbbbbbb"
    monkeypatch.setattr(sizes, "decoded_by", lambda decoder, first: "own")
    assert sizes.who() == "aaaaaaaa_cccccccc"
