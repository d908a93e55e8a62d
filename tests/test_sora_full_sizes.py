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
    nothing = dict.fromkeys(world.SIZES, 0)
    true = {size: {"films": n, "shape": n, "read": nothing | {size: n}} for size, n in many.items()}
    assert sizes.by_size(films, texts) == true

    k = next(k for k, thing in enumerate(named) if thing["size"] == "small" and thing["shape"] != "circle")
    other = texts[k].replace("small", "large").replace(named[k]["shape"], "circle")
    for row, more, right in ((true["small"], -1, -1), (true["large"], 1, 0)):
        row["films"] += more
        row["shape"] += right
        row["read"]["small"] += more
    assert sizes.by_size(films, [*texts[:k], other, *texts[k + 1 :]]) == true

    films[k] = -1  # nothing is seen
    true["large"]["read"]["small"] -= 1
    assert sizes.by_size(films, [*texts[:k], other, *texts[k + 1 :]]) == true


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
    row = {"small": {"films": 4, "shape": 3, "read": {"small": 4, "medium": 0, "large": 0}},
           "medium": {"films": 2, "shape": 1, "read": {"small": 0, "medium": 2, "large": 0}},
           "large": {"films": 100, "shape": 0, "read": {"small": 3, "medium": 47, "large": 49}}}  # fmt: skip
    head, names, line = sizes.table({"48 x 64": row}).splitlines()
    assert head.split() == ["the", "shape", "is", "right", "large", "things", "are", "read", "as"]
    assert names.split() == [*world.SIZES, *world.SIZES]
    assert line.split() == "48 x 64 75 (30\u201395) 50 (9\u201391) 0 (0\u20134) 3 47 49".split()
    assert head.index("large") == names.index("small", names.index("large"))  # each above its own


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
        row = {"films": count + 9, "shape": len(calls), "read": dict.fromkeys(world.SIZES, 1)}
        return dict.fromkeys(world.SIZES, row)

    monkeypatch.setattr(sizes, "measure", measure)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        sizes.main()
    assert not sizes.FILE.exists()
    stop = False
    sizes.main()
    assert calls == list(sizes.NAMES) and json.loads(sizes.FILE.read_text()) == sizes.load_experiment()
    assert [rows["small"]["shape"] for rows in sizes.load_experiment().values()] == [1, 2, 3, 4]
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
