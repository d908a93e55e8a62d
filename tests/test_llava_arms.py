"""Chapter 13's short trainings: what each begins with, what it is shown, and when it is judged."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from soralab.experiments import llava as experiment
from soralab.experiments import llava_arms as arms
from soralab.experiments import llava_scores as scores
from soralab.recipes import Trained
from soralab.recipes import llava as recipe
from soralab.training.loop import TrainConfig

CONFIG = TrainConfig(steps=4, lr=1e-3, warmup=1, cooldown=0.5, ema=0.5, log_every=1, save_every=1, precision="float32")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of a training of two steps each: the reading, and stage 1."""
    folder = tmp_path_factory.mktemp("runs") / "llava"
    recipe.taught(recipe.library(), folder, upto="stage_1")
    return folder


@pytest.fixture
def pictures():
    return recipe.Talks({"picture": recipe.library()["picture"]}, batch=4, films=False)


def same(one, other):
    """The names of the weights that two models share."""
    return {name for name, value in one.state_dict().items() if torch.equal(value, other.state_dict()[name])}


# ------------------------------------------------------------------------------------------------- what they begin with


def test_all_begin_after_the_reading_with_one_new_w_or_with_stage_1s(own):
    read, _ = recipe.taught(recipe.library(), own, upto="read")
    taught, _ = recipe.taught(recipe.library(), own, upto="stage_1")
    new, again, short = arms.begun(own, 264), arms.begun(own, 264), arms.begun(own, 64)
    after = arms.begun(own, 264, "stage_1")
    language = {name for name in read.state_dict() if not name.startswith("W.")}
    assert all(same(model, read) - {"W.bias"} == language for model in (new, short, after))  # a bias begins at zero
    assert same(new, again) == same(after, taught) == {*language, "W.weight", "W.bias"}
    assert float(new.W.weight.detach().abs().max()) == pytest.approx((6 / (264 + 128)) ** 0.5, rel=0.01)  # Xavier's
    assert "W.weight" not in same(new, after) and short.W.in_features == short.config.width == 64
    for model in (new, short, after):
        assert all(p.requires_grad for p in model.parameters())


def test_with_and_without_stage_1_are_twins(own, tmp_path, monkeypatch):
    """The same pictures, talks, order, steps and rates; W alone differs."""
    seen = {}

    def watched(begin, config, batches, folder, judge):
        batch = batches(0)
        seen[folder.name] = config, batch, begin(), batches.shown["picture"].Z, folder
        return {"1": {"one thing": {"all": {}}}}, None, type("Result", (), {"seconds": 1.0})

    monkeypatch.setattr(arms, "halfway", watched)
    found = arms.arms(tmp_path, own, 8)
    assert list(found) == [*arms.SIGHTS, "after stage 1"]
    one, other = seen["penultimate_layer"], seen["after_stage_1"]
    assert one[0] == other[0] and torch.equal(one[3], other[3]) and one[4] != other[4]
    assert all(torch.equal(one[1][key], other[1][key]) for key in ("ids", "Z"))
    assert set(one[2].state_dict()) - same(one[2], other[2]) == {"W.weight", "W.bias"}
    assert {name: (*seen[name.replace(" ", "_")][3].shape[1:],) for name in found} == {
        "penultimate layer": (1, 16, 264), "last layer": (1, 4, 516), "one vector": (1, 1, 64),
        "after stage 1": (1, 16, 264),
    }  # fmt: skip
    assert all(torch.equal(each[1]["ids"], one[1]["ids"]) and each[0] == one[0] for each in seen.values())
    assert [row["vectors"] for row in found.values()] == [16, 4, 1, 16]


# ------------------------------------------------------------------------------------------------- when they are judged


def halves(own, folder, pictures, judged):
    """`halfway` in four steps; the weights that it judges are kept in `judged`."""
    def judge(assistant):
        judged.append({name: value.clone() for name, value in assistant.model.state_dict().items()})
        return {"judged": len(judged)}

    return arms.halfway(partial(arms.begun, own, 264), CONFIG, pictures, folder, judge)


def test_half_and_whole_are_each_a_training_to_its_end(own, tmp_path, pictures):
    judged = []
    found, assistant, result = halves(own, tmp_path / "both", pictures, judged)
    assert found == {"2": {"judged": 1}, "4": {"judged": 2}} and result.steps == 4
    for steps, weights in zip((2, 4), judged, strict=True):
        alone, _ = recipe.fit(arms.begun(own, 264), replace(CONFIG, steps=steps), pictures, tmp_path / str(steps))
        assert all(torch.equal(weights[name], value) for name, value in alone.state_dict().items())
    assert all(torch.equal(judged[1][name], value) for name, value in assistant.model.state_dict().items())
    assert len([name for name in judged[0] if not torch.equal(judged[0][name], judged[1][name])]) > 10
    rates = [json.loads(line)["lr"] for line in result.log.read_text().splitlines()]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 0.5e-3])  # the short one's fall is not in it


def test_what_was_judged_is_not_judged_again_and_what_was_stopped_goes_on(own, tmp_path, pictures, monkeypatch):
    judged, real = [], arms.fit

    def stopped(model, config, batches, folder):
        if config.steps == 4:
            raise KeyboardInterrupt
        return real(model, config, batches, folder)

    monkeypatch.setattr(arms, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        halves(own, tmp_path, pictures, judged)
    monkeypatch.setattr(arms, "fit", real)
    first = halves(own, tmp_path, pictures, judged)[0]
    assert len(judged) == 2 and first == halves(own, tmp_path, pictures, judged)[0] and len(judged) == 2


def test_the_blind_model_is_judged_twice_and_never_sees(own, tmp_path):
    asked = [scores.Exam.of(recipe.tower(), show, 4) for show in ("picture", "film")]
    found, assistant = arms.blind(tmp_path, own, asked)
    assert list(found) == ["1", "2"] and set(found["1"]) == set(found["2"]) >= {"one thing", "films"}
    assert found["2"] == scores.measure(assistant, asked, arms.nothing)
    other = [replace(exam, Z=exam.Z.flip(0) + 3) for exam in asked]
    assert [e.answers(assistant, arms.nothing) for e in other] == [e.answers(assistant, arms.nothing) for e in asked]
    blind = arms.Blind(recipe.library(), batch=4)
    for step in (0, 2):  # pictures, films
        plain, batch = recipe.Talks(recipe.library(), batch=4)(step), blind(step)
        assert torch.equal(batch["ids"], plain["ids"]) and batch["Z"].shape == (*plain["Z"].shape[:2], 1, 264)
        assert not batch["Z"].any() and plain["Z"].any()


# ---------------------------------------------------------------------------------------------------------- the card


def test_where_on_the_card_what_was_found_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def table(right):
        return {"one thing": {"colour": {"right": right - 1, "of": 9}, "all": {"right": right, "of": 10}}}

    def row(right):
        return {"probe": {"shape": right / 10}, "vectors": right, "seconds": 1,
                "steps": {"75": scores.totals(table(right - 1)), "150": scores.totals(table(right))}}  # fmt: skip

    asked = [scores.Exam.of(recipe.tower(), "picture", 2)]
    monkeypatch.setattr(experiment, "exams", lambda: asked)
    monkeypatch.setattr(experiment, "taught", lambda *_, **__: (recipe.fresh(), {}))
    monkeypatch.setattr(experiment, "measure", lambda *_: table(9))
    monkeypatch.setattr(experiment, "blind", lambda *_: ({"75": table(3), "150": table(4)}, None))
    monkeypatch.setattr(experiment, "exchanged", lambda assistant, *_: 0 if assistant is None else 2)
    monkeypatch.setattr(experiment, "mistakes", lambda *_: [])
    monkeypatch.setattr(experiment, "speed", lambda *_: {})
    names = {name: k for k, name in enumerate(arms.ARMS, 5)}
    monkeypatch.setattr(experiment, "arms", lambda *_: {name: row(right) for name, right in names.items()})
    trained = Trained(recipe.fresh(), {"steps": 2}, Path("log"))
    found = experiment.metrics("llava", trained)
    assert found["blind"] == table(4) and found["swapped"] == {"pairs": 2, "both right": 2, "blind": 0}
    assert found["blind steps"] == {"75": scores.totals(table(3)), "150": scores.totals(table(4))}
    assert found["arms"] == {name: scores.totals(table(names[name])) for name in arms.SIGHTS}
    assert list(found["arms"]) == list(found["probe"]) == list(found["vectors"]) and found["vectors"]["one vector"] == 7
    assert found["begun"] == {"without stage 1": row(5)["steps"], "after stage 1": row(8)["steps"]}
    monkeypatch.setattr(experiment, "measure", lambda *_: pytest.fail("it is measured already"))
    assert experiment.metrics("llava", trained) == found


def test_the_last_of_the_steps_is_the_most():
    assert experiment.last({"75": 1, "150": 2}) == experiment.last({"150": 2, "75": 1}) == 2


def test_an_arms_exam_is_seen_as_the_arm_is_taught(own, tmp_path, monkeypatch):
    """The one-vector arm is asked with one vector, the last layer's with its four."""
    shapes, real = {}, arms.measure
    monkeypatch.setattr(arms, "measure", lambda assistant, exams: shapes.setdefault(
        assistant.model.config.width, exams[0].Z.shape) and real(assistant, exams))  # fmt: skip
    for name in ("last layer", "one vector"):
        row = arms.arm(name, tmp_path / name, own, 4)
        assert set(row["steps"]) == {"1", "2"} and row["steps"]["2"]["one thing"]["of"] > 0
    assert shapes == {516: (4, 1, 4, 516), 64: (4, 1, 1, 64)}


def test_a_number_of_steps_is_stage_2s_alone(tmp_path, monkeypatch):
    """The reading and stage 1 last as the profile says, whatever is asked for."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    lasted = []
    monkeypatch.setattr(recipe, "fit", lambda model, training, *rest: (model, lasted.append(training.steps)))
    recipe.taught({}, tmp_path, steps=7)
    recipe.taught({}, tmp_path, upto="stage_1")
    assert lasted == [2, 2, 7, 2, 2]
