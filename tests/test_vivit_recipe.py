"""How chapter 08's readers are trained and measured: what they are given, which is chosen, that a training goes on."""

import json
import math
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from tiny_models import numbers, randomise

from soralab.datasets import order
from soralab.experiments import vivit as experiment
from soralab.files.checkpoints import save_checkpoint
from soralab.recipes import vivit as recipe
from soralab.vit import ViT
from soralab.vivit import ViViT, ViViTConfig, cost, uniform_frames

TINY = {"tubelet": (2, 16, 16), "dim": 8, "depth": 1, "heads": 2}
FEW = {"steps": 2, "log_every": 1, "save_every": 1, "warmup": 0, "precision": "float32"}


def tiny(model=4, **changes):
    return ViViTConfig(model, **{**TINY, **changes})


def test_the_readers_are_the_papers_four_and_a_bag():
    assert [config.model for config in recipe.READERS.values()] == [1, 2, 3, 4, 2]
    bag = recipe.READERS[recipe.BAG]
    assert (bag.tubelet[0], bag.temporal_depth) == (1, 0)  # every frame by itself, then their mean
    assert all(config.classes == order.CLASSES for config in recipe.READERS.values())
    macs = [cost(config)[1] for config in recipe.READERS.values()]
    assert macs[0] > macs[2] > macs[1] > macs[3]  # the paper's order


@torch.no_grad()
def test_the_bag_cannot_tell_a_film_from_its_reverse():
    """All frames, so that those of the film shown backwards are the same; of every second one they would be others."""
    bag, films = randomise(ViViT(recipe.READERS[recipe.BAG])), numbers(2, 8, 3, 32, 32)
    torch.testing.assert_close(recipe.answers(bag, films), recipe.answers(bag, films.flip(1)), rtol=0, atol=1e-5)
    few = randomise(ViViT(replace(bag.config, frames=4)))
    assert (recipe.answers(few, films) - recipe.answers(few, films.flip(1))).abs().max() > 1e-3


@torch.no_grad()
def test_a_reader_is_given_as_many_frames_as_it_takes():
    films = numbers(2, 8, 3, 32, 32)
    for config in (tiny(), tiny(frames=4, tubelet=(1, 16, 16))):
        model = randomise(ViViT(config))
        assert torch.equal(recipe.answers(model, films), model(uniform_frames(films, config.frames)))


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_and_beside_it_stands_what_is_right():
    model, films, labels = randomise(ViViT(tiny())), numbers(5, 8, 3, 32, 32), torch.tensor([0, 1, 2, 3, 13])
    loss, beside = recipe.loss(model, {"films": films, "label": labels}, None)
    chances = model(films).softmax(-1)
    assert loss.item() == pytest.approx(-sum(math.log(chances[k, label]) for k, label in enumerate(labels)) / 5)
    assert beside["right"] == (chances.argmax(-1) == labels).float().mean()


def test_a_reader_begins_from_nothing_or_from_the_picture_model(monkeypatch):
    vit = randomise(ViT(recipe.load_vit().config), 3)
    monkeypatch.setattr(recipe, "load_vit", lambda: vit)
    config = ViViTConfig(4)
    begun, other = recipe.begun(config, "central frame"), recipe.begun(config, "inflated")
    inside = vit.state_dict()["blocks.2.mlp.0.weight"]
    assert torch.equal(begun.blocks[2].mlp[0].weight, inside) and torch.equal(other.blocks[2].mlp[0].weight, inside)
    assert not torch.equal(begun.embed.weight, other.embed.weight)
    assert not torch.equal(recipe.begun(config).blocks[2].mlp[0].weight, inside)


@torch.no_grad()
@pytest.mark.parametrize("kind", (1, 2, 3, 4))
def test_moments_are_told_apart_at_the_start(kind):
    config, readers = ViViTConfig(kind, frames=4, tubelet=(1, 4, 4)), []
    for apart in (0.0, 0.3):
        torch.manual_seed(0)
        readers.append(recipe.begun(config, "central frame", apart))
    alike, told = readers
    changed = {name for name, p in alike.named_parameters() if not torch.equal(p, told.get_parameter(name))}
    assert changed == {"over_moments.positions" if kind == 2 else "positions"}
    if kind != 2:
        added = (told.positions - alike.positions)[-4 * 64 :].unflatten(0, (4, 64))
        torch.testing.assert_close(added, added[:, :1].expand_as(added), atol=1e-6, rtol=0)  # one for all places
        assert 0.2 < added[:, 0].std() < 0.4 and (added[0] - added[1]).abs().max() > 0.1
        assert torch.equal(told.positions[: -4 * 64], alike.positions[: -4 * 64])  # the class token's, if any


def test_a_training_goes_on_where_it_was_stopped(tmp_path):
    training = replace(recipe.TRAINING, **FEW)
    build = partial(recipe.begun, tiny())
    whole, _ = recipe.fit(build, replace(training, steps=4, cooldown=0.0), tmp_path / "whole", batch=3)
    recipe.fit(build, replace(training, cooldown=0.0), tmp_path / "parts", batch=3)
    parts, result = recipe.fit(build, replace(training, steps=4, cooldown=0.0), tmp_path / "parts", batch=3)
    assert result.steps == 4
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_the_blocks_matrices_train_with_muon(tmp_path, monkeypatch):
    seen = []
    train = recipe.loop.train
    monkeypatch.setattr(recipe.loop, "train", lambda *args, **named: seen.append(named["parameters"]) or
                        train(*args, **named))  # fmt: skip
    model, _ = recipe.fit(partial(recipe.begun, tiny(2)), replace(recipe.TRAINING, **FEW), tmp_path, batch=2)
    muon = {id(p) for p in seen[0][0]["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in muon}
    assert "over_moments.blocks.0.mlp.0.weight" in named and "blocks.0.attention.to_q.weight" in named
    assert not named & {"embed.weight", "positions", "head.weight", "over_moments.positions", "class_token"}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The recipe with tiny readers, in a folder of its own, under the smoke profile."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(recipe, "RUNS", tmp_path)
    monkeypatch.setattr(experiment, "RUNS", tmp_path)
    bag = tiny(2, tubelet=(1, 16, 16), temporal_depth=0)
    monkeypatch.setattr(recipe, "READERS", {f"model {k}": tiny(k) for k in (1, 2, 3, 4)} | {recipe.BAG: bag})
    return tmp_path


@pytest.mark.parametrize("best", ("model 2", "model 4"))
def test_the_best_of_the_four_is_chosen_by_films_that_are_neither_training_nor_test(small, monkeypatch, best):
    asked = []
    drawn = order.films

    def films(seed, *arguments, **named):
        asked.append(seed)
        return drawn(seed, *arguments, **named)

    monkeypatch.setattr(recipe.order, "films", films)
    held = recipe.held_loss
    wanted = dict.fromkeys(recipe.READERS, 3.0) | {best: 1.0, recipe.BAG: 0.5}
    names = iter(recipe.READERS)
    monkeypatch.setattr(recipe, "held_loss", lambda model, count: held(model, count) * 0 + wanted[next(names)])
    trained = recipe.train("tried", 2)
    assert trained.card["best"] == best and trained.card["held_loss"] == wanted  # the bag is none of the four
    assert trained.card["config"]["model"] == int(best[-1]) and trained.card["steps"] == 2
    assert trained.log == small / "tried" / best.replace(" ", "_") / "log.jsonl"
    assert set(asked) == {recipe.SEED, recipe.SEED + 1}


def test_held_loss_is_the_mean_over_all_films():
    model = randomise(ViViT(tiny()))
    films, labels = order.films(recipe.SEED + 1, range(120))
    with torch.no_grad():
        want = torch.nn.functional.cross_entropy(model(order.to_pixels(films)), labels).item()
    assert recipe.held_loss(model, 120) == pytest.approx(want, abs=1e-5)


def test_everything_is_measured_once(small, monkeypatch):
    """The card has every reader and start; a second measuring reads what the first has found."""
    few = tiny(frames=4)
    monkeypatch.setattr(experiment, "STARTS", {"one": (tiny(), None), "few": (few, None)})
    monkeypatch.setattr(experiment, "PAIRS_BAG", tiny(2, temporal_depth=0))
    monkeypatch.setattr(experiment, "SINGLE", {"model 3": (ViViTConfig(3, frames=4, tubelet=(1, 4, 4)), 0.3)})
    monkeypatch.setattr(experiment, "beside_the_referee", lambda model, count: {"prompts": count})
    trained = recipe.train("tried", 2)
    found = experiment.metrics("tried", trained)
    assert set(found["models"]) | {recipe.BAG} == set(recipe.READERS)
    row = found["models"]["model 3"]
    assert row["parameters"] == cost(tiny(3))[0] and row["macs"] == cost(tiny(3))[1] and row["seconds"] > 0
    assert row["learnt"][-1][0] == 2 and 0 <= row["learnt"][-1][2] <= 1
    assert set(row["test"]) == set(row["held_out"]) == {*experiment.COLUMNS, "by pair"}
    assert row["test"] != row["held_out"]
    assert found["bag"]["macs"] == cost(recipe.READERS[recipe.BAG])[1]
    assert set(found["starts"]) == {"one", "few"} and found["starts"]["few"]["macs"] == cost(few)[1]
    assert found["films"] == 20 and found["trained on"] == 32
    assert found["turns"]["test"]["by pair"].keys() == {"orbits clockwise", "spins clockwise"}
    assert found["bag of pairs"]["macs"] == cost(tiny(2, temporal_depth=0))[1]
    assert found["single frames"]["model 3"]["parameters"] == cost(ViViTConfig(3, frames=4, tubelet=(1, 4, 4)))[0]
    assert found["sora"] == {"prompts": 3} and set(found["order of time"]) == set(found["models"])
    assert set(found["order of time"]["model 1"]) == {"turned", "moments turned", "tubelets turned", "shuffled"}
    json.dumps(found, allow_nan=False)

    def never(*_):
        raise AssertionError("measured twice")

    for name in ("measure", "order_of_time", "beside_the_referee", "fit", "table_row", "turns"):
        monkeypatch.setattr(experiment, name, never)
    assert experiment.metrics("tried", trained) == found


def test_the_best_is_measured_as_it_is_shipped(small, monkeypatch):
    monkeypatch.setattr(experiment, "STARTS", {})
    monkeypatch.setattr(experiment, "SINGLE", {})
    monkeypatch.setattr(experiment, "arm", lambda *_: {})
    for other in ("beside_the_referee", "turns"):
        monkeypatch.setattr(experiment, other, lambda *_: {})
    measured = []
    monkeypatch.setattr(experiment, "measure", lambda model, split, count: measured.append(model) or {})
    trained = recipe.train("tried", 2)
    experiment.metrics("tried", trained)
    assert trained.model in measured and len({id(model) for model in measured}) == len(recipe.READERS)


def test_what_is_loaded_is_what_was_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    model = randomise(ViViT(tiny(2)))
    save_checkpoint(tmp_path / "vivit", model.state_dict(), {"config": asdict(model.config)})
    again = recipe.load()
    films = numbers(1, 8, 3, 32, 32)
    assert again.config == model.config and torch.equal(again(films), model(films))


def test_a_short_run_is_watched(monkeypatch):
    monkeypatch.setattr(recipe, "READERS", {"model 4": tiny()})
    monkeypatch.setattr(recipe, "PROBED", 32)
    log = recipe.short_run(seed=3, steps=10)
    assert log["step"].tolist() == [2, 4, 6, 8, 10]
    assert {"held", "pairing", "lag", "way", "still"} <= set(log)
    truth = log["samples"]["truth"][0].split("; ")
    assert len(truth) == 3 and set(truth) <= set(order.NAMES)
    assert set(log["samples"]) == {2, 4, 10, "truth"}
    assert set(log["samples"][10][0].split("; ")) <= set(order.NAMES)
