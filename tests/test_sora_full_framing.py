"""What squares do to the framing, and what packing saves: how both are judged, on what is known."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
from tiny_full import CONFIG, tiny_full
from tiny_models import numbers

from soralab import world
from soralab.experiments import sora_framing, sora_full_speed
from soralab.experiments.sora_framing import KINDS, SIZES, SQUARE, Run, asked, counted, framed, middle, pictures, scenes
from soralab.experiments.sora_full_speed import WAYS, lengths, ratios
from soralab.recipes.sora_full import Batches, make_loss, still
from soralab.sora_full import Films
from soralab.world.language import short_caption
from soralab.world.scene import WALL


def pictured(x, y, size=(32, 48), shape="square", colour="blue"):
    """A picture of a thing at a place, in short sides from the middle."""
    thing = world.Object(shape, colour, "medium", "stays still", x=x, y=y)
    return world.to_film(world.render([world.Scene((thing,), aspect=size[1] / size[0])], 1, *size))[0]


# --------------------------------------------------------------------------------------------------------- the framing


@pytest.mark.parametrize("x, y, says", [
    (0.0, 0.0, "whole"), (0.55, 0.0, "whole"), (0.75, 0.0, "cut off"), (-0.75, 0.1, "cut off"), (0.0, 0.5, "cut off"),
    (0.3, -0.5, "cut off"), (2.0, 0.0, "not there"),
])  # fmt: skip
def test_a_thing_at_the_border_is_cut_off(x, y, says):
    assert framed(pictured(x, y), "a medium blue square") == says
    assert framed(pictured(x, y, shape="ring"), "a medium blue ring") == says
    assert framed(pictured(x, y), "a medium red square") == "not there"


def test_a_square_crop_cuts_what_the_drawn_truth_says_it_cuts():
    """Of what lost a tenth and more of its area nearly all is found cut off, of what is whole next to nothing."""
    some = list(islice(scenes((32, 48), "train"), 200))
    shown = pictures(some, (32, 48))
    masks = np.stack([there["masks"][0, 0] for there in world.truth(some, 1, 32, 48)])
    left = masks[..., 8:40].sum((1, 2)) / masks.sum((1, 2))
    texts = [short_caption(still(scene)) for scene in some]
    found = np.array([framed(picture, text) for picture, text in zip(middle(shown), texts, strict=True)])
    assert (found[left < 0.9] != "whole").mean() > 0.8 and (found[left > 0.99] == "cut off").mean() < 0.08
    assert (left < 0.9).sum() > 40 and (found[left < 0.02] == "not there").all()
    total = counted(shown, texts)
    assert total["whole"] + total["cut off"] + total["not there"] == 200
    assert total["cut off"] < 10 and total["not there"] == 0 and total["right"] > 185  # of true pictures


def test_no_scene_has_a_wall_and_things_are_inside():
    for size in SIZES:
        some = list(islice(scenes(size, "test"), 60))
        assert all(scene.objects[0].motion != WALL and scene.aspect == size[1] / size[0] for scene in some)
        assert [short_caption(still(scene)) for scene in some] == asked(size, 60)[0]
    assert all(middle(torch.zeros(2, 1, 3, *size)).shape == (2, 1, 3, *SQUARE) for size in SIZES)
    assert torch.equal(middle(torch.arange(6.0).view(1, 6)), torch.tensor([[2.0]]))


class Latents(torch.nn.Module):
    """In place of the autoencoder: every fourth pixel, so that a library can be looked at."""

    def __init__(self):
        super().__init__()
        self.std = torch.ones(1)

    def encode(self, clip):
        return clip[..., ::4, ::4]


def test_both_models_learn_from_the_same_pictures_and_words():
    native, crops = (sora_framing.libraries(Latents(), which, 5) for which in KINDS)
    assert [tuple(library["latents"].shape) for library in native] == [(5, 1, 3, 8, 12), (5, 1, 3, 12, 8)]
    assert [tuple(library["latents"].shape) for library in crops] == [(10, 1, 3, 8, 8)]
    assert torch.equal(torch.cat([library["ids"] for library in native]), crops[0]["ids"])
    assert torch.equal(native[0]["latents"][..., 2:10], crops[0]["latents"][:5])
    assert torch.equal(native[1]["latents"][..., 2:10, :], crops[0]["latents"][5:])
    for which, made in (("native sizes", native), ("square crops", crops)):
        batch = Batches(made, 4, KINDS[which])(3)
        assert sum(map(len, batch["x0"])) == len(batch["ids"]) == 4 and len(batch["x0"]) == len(KINDS[which])
        assert all(x.shape[3:] == library["latents"].shape[3:] for x, library in zip(batch["x0"], made, strict=True))


def test_the_file_and_its_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(sora_framing, "FILE", tmp_path / "framing.json")
    monkeypatch.setattr(sora_framing, "FOLDER", tmp_path / "runs")
    row = {"whole": 30, "cut off": 10, "not there": 10, "right": 25}
    runs = []
    monkeypatch.setattr(sora_framing, "measured", lambda run, _: runs.append(run) or {"32x48": row, "32x32": row})
    for _ in range(2):  # what is measured is kept
        sora_framing.main()
    assert runs == [Run("native sizes", 1), Run("square crops", 1)] and runs[0].name == "native_sizes_1"
    made = json.loads(sora_framing.FILE.read_text(encoding="utf-8"))
    many = {key: made[key] for key in ("pictures", "steps", "batch", "seeds")}
    assert many == {"pictures": 16, "steps": 2, "batch": 4, "seeds": [1]}  # what was used, under this profile
    found = sora_framing.load_experiment(sora_framing.FILE)
    assert list(found) == ["true pictures", *KINDS] and found["square crops"] == [{"32x48": row, "32x32": row}]
    line = next(x for x in sora_framing.table(found).splitlines() if x.startswith("square crops, 32x48"))
    assert line.split()[3:] == ["25", "(14\u201340)", "25", "20", "50"] and line in capsys.readouterr().out
    other = {**row, "cut off": 0}
    two = {"native sizes": [{"32x48": row}, {"32x48": other}], "square crops": [{"32x48": {**row, "not there": 50,
           "whole": 0, "cut off": 0}}]}  # fmt: skip
    assert sora_framing.cut_off(two) == {"native sizes": {"32x48": (10, 70)}, "square crops": {"32x48": (0, 1)}}
    lines = [line.split()[3:] for line in sora_framing.table(two).splitlines()[1:]]
    assert lines == [["14", "(8\u201324)", "25,", "0", "22", "56"], ["0", "(0\u201379)", "0", "100", "50"]]
    assert sora_framing.table({}).count("\n") == 0
    assert sora_framing.load_experiment(tmp_path / "none.json") == {}


# --------------------------------------------------------------------------------------------------------- the packing


def some_films():
    """Films of three sizes, two or one of each, and their prompts, one of which is empty."""
    sizes = ((2, (5,), 4, 4), (1, (9, 5), 4, 8), (2, (1,), 8, 4))
    films = []
    for count, clips, h, w in sizes:
        frames = sum(1 + clip // 4 for clip in clips)
        x = numbers(count, frames, CONFIG.channels, h, w, seed=h + w)
        films.append(Films(x, torch.rand(count, frames, generator=torch.Generator().manual_seed(1)), clips,
                           torch.tensor([0.0, 9.0][:count])))  # fmt: skip
    ids = torch.tensor([[3, 4, 5, 0], [0, 0, 0, 0], [7, 0, 0, 0], [9, 8, 7, 6], [2, 1, 0, 0]])
    return films, ids


@pytest.mark.parametrize("way", WAYS)
def test_each_way_answers_the_same_and_learns_the_same(way):
    model, (films, ids) = tiny_full(), some_films()
    gradients = []
    for each in (model, WAYS[way](model)):
        model.zero_grad()
        told = each(films, ids)
        sum((part.square().mean() for part in told), torch.zeros(())).backward()
        gradients.append(([part.detach() for part in told], [p.grad.clone() for p in model.parameters()]))
    (told, grads), (other, others) = gradients
    for a, b in zip(told, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(grads, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_what_fills_up_is_not_seen(monkeypatch):
    """Without the mask the shorter films answer something else: the mask is what keeps them apart."""
    model, (films, ids) = tiny_full(), some_films()
    right = model(films, ids)
    monkeypatch.setattr(sora_full_speed, "Padded", lambda real: Open(torch.ones_like(real)))
    wrong = WAYS["padded"](model)(films, ids)
    assert max((a - b).abs().max().item() for a, b in zip(right, wrong, strict=True)) > 1e-2


class Open(sora_full_speed.Padded):
    """A mask that hides nothing."""


def test_the_batches_are_the_recipes(monkeypatch):
    made = sora_full_speed.libraries(4)
    batch = Batches(made, 12)(7)
    assert [x.shape[1:] for x in batch["x0"]] == [made[k]["latents"].shape[1:] for k in batch["kinds"]]
    assert len(lengths(batch)) == len(batch["ids"]) and set(lengths(batch)) <= {16, 48, 72, 80, 96, 112, 144, 240}
    whole = Batches(sora_full_speed.libraries(30), 48)
    assert [max(lengths(whole(step))) for step in sora_full_speed.STEPS] == [240] * len(sora_full_speed.STEPS)
    assert [len(whole(step)["x0"]) for step in sora_full_speed.STEPS] == [11] * len(sora_full_speed.STEPS)  # calls
    model = tiny_full()
    losses = [make_loss()(make(model), batch, torch.Generator().manual_seed(0)).item() for make in WAYS.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_tokens_are_counted_over_all_batches_and_padding_up_to_each_ones_longest(monkeypatch):
    sizes = {1: [3, 5], 2: [4, 1, 1]}
    for name in ("build", "libraries", "make_loss"):
        monkeypatch.setattr(sora_full_speed, name, lambda *_: None)
    monkeypatch.setattr(sora_full_speed, "Batches", lambda *_: lambda number: number)
    monkeypatch.setattr(sora_full_speed, "lengths", sizes.get)
    monkeypatch.setattr(sora_full_speed, "WAYS", {"packed": lambda model: "a", "padded": lambda model: "b"})
    monkeypatch.setattr(sora_full_speed, "in_turns", lambda works, turns: [
        [work.args[0], work.args[2]] * turns for work in works])  # fmt: skip
    monkeypatch.setattr(sora_full_speed, "round", lambda value, _: value, raising=False)
    found = sora_full_speed.measured("float32", turns=1)
    assert found == {"tokens": 14, "padded to": 2 * 5 + 3 * 4,
                     "seconds": {"packed": [["a", 1], ["a", 2]], "padded": [["b", 1], ["b", 2]]}}  # fmt: skip


def test_turns_are_taken_and_a_ratio_is_of_one_turn(monkeypatch, tmp_path, capsys):
    calls, clock = [], iter(range(0, 1000))
    monkeypatch.setattr(sora_full_speed.time, "process_time", lambda: next(clock))
    assert sora_full_speed.in_turns([lambda: calls.append("a"), lambda: calls.append("b")], 2) == [[1, 1], [1, 1]]
    assert calls == ["a", "b"] * 3
    row = {"tokens": 100, "padded to": 400, "seconds": {"packed": [[1, 2], [1, 2]], "padded": [[4, 4], [4, 4]],
                                                        "bucketed": [[1, 2], [1, 4]]}}  # fmt: skip
    assert ratios(row, "padded") == [0.25, 0.5] and ratios(row, "bucketed") == [1.0, 4 / 6]
    monkeypatch.setattr(sora_full_speed, "FILE", tmp_path / "speed.json")
    monkeypatch.setattr(sora_full_speed, "measured", lambda *_: row)
    sora_full_speed.main()
    found = sora_full_speed.load_experiment(sora_full_speed.FILE)
    assert found == {name: row for name in sora_full_speed.PRECISIONS} and json.loads(sora_full_speed.FILE.read_text())
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("padded, float32"))
    assert line.split()[2:] == ["200", "25%", "4.00", "0.38", "(0.25\u20130.50)"]
