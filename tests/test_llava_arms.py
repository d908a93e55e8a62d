"""Chapter 13's short trainings: what each begins with, what it is shown, and when it is judged."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from soralab import world
from soralab.experiments import llava as experiment
from soralab.experiments import llava_arms as arms
from soralab.experiments import llava_scores as scores
from soralab.llava import ASSISTANT, HUMAN, PAD, STOP
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
    return recipe.Talks({"picture": recipe.library()["picture"]}, batch=4, films=0)


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

    def watched(begin, configs, batches, folder, judge):
        seen[folder.name] = configs, batches(0), begin(), folder
        return {"1": {"one thing": {"all": {}}}}, None, type("Result", (), {"seconds": 1.0})

    monkeypatch.setattr(arms, "judged", watched)
    found = arms.arms(tmp_path, own, 8)
    assert list(found) == [*arms.SIGHTS, "after stage 1", "little read", "well read"]
    one, other, little, well = (seen[name] for name in (
        "penultimate_layer", "after_stage_1", "little_read", "well_read"))  # fmt: skip
    assert one[0] == other[0] and one[3] != other[3]
    assert set(one[2].state_dict()) - same(one[2], other[2]) == {"W.weight", "W.bias"}
    assert [(*each[1]["Z"].shape[1:],) for each in seen.values()] == [(1, 16, 264), (1, 4, 516), (1, 1, 64),
                                                                     *[(1, 16, 264)] * 3]  # fmt: skip
    assert all(torch.equal(each[1]["ids"], one[1]["ids"]) for each in seen.values())
    assert all(torch.equal(each[1]["Z"], one[1]["Z"]) for each in (other, little, well))
    assert [row["vectors"] for row in found.values()] == [16, 4, 1, 16, 16, 16]
    assert little[0] == well[0] and same(well[2], other[2]) == set(other[2].state_dict())
    assert len(same(little[2], well[2])) < len(same(one[2], other[2]))  # a reading of its own, and a stage 1
    assert {name for name, row in found.items() if "told" in row} == {"little read", "well read"}


def test_who_has_read_little_reads_in_a_place_of_its_own(own, tmp_path, monkeypatch):
    assert arms.reader("well read", tmp_path, own) == (own, None)
    assert arms.reader("little read", tmp_path, own) == (tmp_path / "own", 1)  # the smoke profile reads for two steps
    monkeypatch.setattr(arms, "told_in_words", lambda model, count: {"model": model, "count": count})
    well, little = (arms.told(name, tmp_path, own, 7) for name in ("well read", "little read"))
    read, _ = recipe.taught(recipe.library(), own, upto="read")
    assert same(well["model"], read) == set(read.state_dict()) and well["count"] == 7
    assert len(same(little["model"], read)) < len(read.state_dict())
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    assert arms.reader("little read", tmp_path, own)[1] == recipe.READING.steps / 8


def test_a_short_training_is_judged_when_half_of_its_steps_are_done_or_at_its_end_alone(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    assert [config.steps for config in arms.trainings(arms.SHORT)] == [175, 350]
    assert [config.steps for config in arms.trainings(arms.SHORT, halved=False)] == [350]
    assert [config.steps for config in arms.trainings(arms.BLIND)] == [150, 300]
    assert arms.ARMS["well read"].steps == arms.ARMS["little read"].steps == 700
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    assert [config.steps for config in arms.trainings(arms.SHORT)] == [1, 2]


# ------------------------------------------------------------------------------------------------- when they are judged


def halves(own, folder, pictures, judged):
    """`judged` after two steps and four; the weights that are judged are kept in `judged`."""
    def judge(assistant):
        judged.append({name: value.clone() for name, value in assistant.model.state_dict().items()})
        return {"judged": len(judged)}

    configs = [replace(CONFIG, steps=2), CONFIG]
    return arms.judged(partial(arms.begun, own, 264), configs, pictures, folder, judge)


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


def test_the_blind_model_is_taught_the_talks_of_stage_2(own, tmp_path, monkeypatch):
    asked, seen = [scores.Exam.of(recipe.tower(), "picture", 2)], []
    monkeypatch.setattr(arms, "judged", lambda begin, configs, batches, *_: seen.append(batches) or ({}, None, None))
    arms.blind(tmp_path, own, asked)
    plain = recipe.STAGES["stage_2"][1](recipe.library(), batch=seen[0].batch)
    assert all(torch.equal(seen[0](step)["ids"], plain(step)["ids"]) for step in range(4))


# ---------------------------------------------------------------------------------------------------------- the card


def test_where_on_the_card_what_was_found_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def table(right):
        return {"one thing": {"colour": {"right": right - 1, "of": 9}, "all": {"right": right, "of": 10}}}

    def row(right):
        steps = {"75": scores.totals(table(right - 1)), "150": scores.totals(table(right))}
        return {"probe": {"shape": right / 10}, "vectors": right, "seconds": 1, "kinds": {"colour": right},
                "told": {"colour": -right}, "steps": steps}  # fmt: skip

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
    assert found["read"] == {"little read": {"told": {"colour": -9}, "shown": {"colour": 9}},
                             "well read": {"told": {"colour": -10}, "shown": {"colour": 10}}}  # fmt: skip
    monkeypatch.setattr(experiment, "measure", lambda *_: pytest.fail("it is measured already"))
    assert experiment.metrics("llava", trained) == found


class Said(torch.nn.Module):
    """Says of a row what `of` makes of it: ids [1, n] in, the likeliest word at each place out; keeps what it read."""

    def __init__(self, of):
        super().__init__()
        self.of, self.read, self.embedding = of, [], torch.nn.Embedding(1, 1)

    def forward(self, ids):
        self.read.append(ids[0])
        return torch.nn.functional.one_hot(self.of(ids), len(recipe.TOKENS)).float()


def test_a_model_is_told_in_words_what_it_is_asked():
    following = partial(torch.roll, shifts=-1, dims=1)
    truth = Said(following)
    found = scores.told_in_words(truth, 40)
    assert all(row["right"] == row["of"] > 20 for row in found.values()) and found["shape"]["of"] == 40
    assert set(found) == {"shape", "size", "colour", "place", "relation"}
    silent = Said(lambda ids: following(ids).masked_fill(following(ids) == STOP, PAD))  # never stops
    assert all(row["right"] == 0 for row in scores.told_in_words(silent, 5).values())
    human, stop = (truth.read[0] == HUMAN).nonzero()[0, 0], (truth.read[0] == STOP).nonzero()[0, 0]
    begun = Said(lambda ids: torch.where(torch.arange(ids.shape[1]) < stop, PAD, following(ids)))
    assert (human, scores.told_in_words(begun, 1)["shape"]["right"]) == (0, 1)  # the text itself is not asked for
    late = Said(lambda ids: following(ids).masked_fill(ids == ASSISTANT, PAD))  # each answer's first word is wrong
    assert all(row["right"] == 0 for row in scores.told_in_words(late, 5).values())
    told = [" ".join(recipe.TOKENS[id] for id in ids) for ids in truth.read]
    assert all(" is left of " in text or " is above " in text for text in told) and "<image>" not in " ".join(told)
    placed = [" is at the " in text or " is in the middle" in text for text in told]
    assert sum(placed) > len(told) / 2  # a thing at the border of two places has none


def test_a_colour_is_asked_for_by_shape_when_it_is_told_in_words():
    truth = Said(partial(torch.roll, shifts=-1, dims=1))
    scores.told_in_words(truth, 20)
    asked = [" ".join(recipe.TOKENS[id] for id in ids) for ids in truth.read]
    colours = [text.split(" what colour is the ")[1].split()[0] for text in asked if " what colour is the " in text]
    assert len(colours) > 5 and set(colours) <= set(world.SHAPES)


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
        assert row["kinds"]["colour"]["of"] > 0 and row["kinds"].keys() >= {"place", "relation"} - {"all"}
        assert "all" not in row["kinds"]
    assert shapes == {516: (4, 1, 4, 516), 64: (4, 1, 1, 64)}


def test_a_number_of_steps_is_stage_2s_alone(tmp_path, monkeypatch):
    """The reading and stage 1 last as the profile says, unless the reading's steps are asked for by name."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    lasted = []
    monkeypatch.setattr(recipe, "fit", lambda model, training, *rest: (model, lasted.append(training.steps)))
    recipe.taught({}, tmp_path, steps=7)
    recipe.taught({}, tmp_path, upto="stage_1")
    recipe.taught({}, tmp_path, upto="stage_1", reading=5)
    assert lasted == [2, 2, 7, 2, 2, 5, 2]
