"""Chapter 15's comparison: equal films, prompts and minutes for every way, and what may not stand in its table."""

import json
import re
from dataclasses import replace
from itertools import combinations
from statistics import mean
from types import SimpleNamespace

import pytest
import torch
from prose import NOTEBOOKS, prose_of
from torch import nn

from soralab import world
from soralab.experiments import four_ways as experiment
from soralab.experiments import four_ways_trainings as trainings
from soralab.experiments.align_your_latents_scores import SHOWN, still_texts
from soralab.experiments.four_ways_trainings import WAYS, Part, Way, fitted, planned, shortened, step_seconds
from soralab.experiments.sora_scores import NOISE, prompts
from soralab.figures.curves import read_log
from soralab.files.checkpoints import read_card
from soralab.latent_diffusion import Painter
from soralab.recipes import align_your_latents as chapter_10
from soralab.recipes import imagen_video as chapter_09
from soralab.recipes import make_a_video as chapter_14
from soralab.recipes import sora as chapter_16
from soralab.training.loop import TrainConfig
from soralab.world.language import short_caption

TRAINING = TrainConfig(steps=1000, lr=1e-2, warmup=200, ema=0.999, log_every=50)


class Clock:
    """A processor's time that stands still but where a test lets it go on."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(trainings.time, "process_time", lambda: self.now)


def tiny(name="tiny", clock=None, drawing=(0.0,), step=(0.0,), coarse=0.0, coarsely=1.0, training=TRAINING, built=None):
    """A part whose batches and steps take as long as is said, the last time again and again; coarse ones `coarsely`
    times as long."""
    seen = []

    def take(seconds, number, factor):
        if clock:
            clock.now += factor * seconds[min(number, len(seconds) - 1)]

    def batches(first):
        def batch(number):
            rough = number < first
            take(drawing, number, coarsely if rough else 1.0)
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
            return {"x": x, "rough": torch.tensor(rough), "number": torch.tensor(number)}

        return batch

    def loss(model, batch, generator):
        seen.append((int(batch["number"]), bool(batch["rough"])))
        take(step, int(batch["number"]), coarsely if batch["rough"] else 1.0)
        return (model(batch["x"]) - torch.randn(4, 2, generator=generator)).square().mean()

    def build(done):
        if built is not None:
            built.append((name, {key: value.weight.detach().clone() for key, value in done.items()}))
        return nn.Linear(3, 2)

    part = Part(name, training, build, loss, lambda model: [{"params": list(model.parameters())}], batches, coarse)
    return part, seen


# ------------------------------------------------------------------------------------------------- what is trained


@pytest.fixture(scope="module")
def ways():
    """Every way with the first seed, on few films."""
    return {name: way(1) for name, way in WAYS.items()}


def scenes_of(way):
    return way.parts[0].batches(0).scenes


def test_every_way_learns_from_the_same_films(ways):
    """And with another seed from others, all of the split that training may see, and none of them a test film."""
    mine = [world.sample_scene(trainings.films_of(1), k, "simple", "train") for k in range(16)]
    assert all(scenes_of(way) == mine for name, way in ways.items() if name != "make_a_video")
    library = ways["make_a_video"].parts[1].batches(0).library
    first = trainings.load_autoencoder("film_autoencoder")
    with torch.no_grad():
        z = first.encode(world.to_film(world.render(mine, 9, 32, 32))[:, 0])
    apart = (library.z[:, 0].float()[:, None] - z[None]).square().mean((2, 3, 4))  # drawn from q(z | x), so not equal
    assert apart.argmin(1).tolist() == list(range(16))
    other = scenes_of(trainings.imagen_video(2))
    assert len(other) == 16 and not any(scene in mine for scene in other)
    assert len({trainings.films_of(seed) for seed in experiment.SEEDS}) == 3
    assert not {*map(short_caption, mine)} & {*prompts("held_out", 60)[0]}


def test_the_parts_are_the_recipes_own(ways):
    """Their losses and steps, and as many weights as the shipped models have."""
    parts = {part.name: part for way in ways.values() for part in way.parts}
    assert parts["align_your_latents"].training is chapter_10.TRAINING
    assert parts["align_your_latents"].coarse == chapter_10.COARSE
    assert {name: parts[name].training for name in chapter_09.TRAININGS} == chapter_09.TRAININGS
    assert [part.name for part in ways["imagen_video"].parts] == ["imagen_base", "imagen_time", "imagen_space"]
    assert [part.coarse for part in ways["imagen_video"].parts] == [chapter_09.COARSE, 0, 0]
    assert parts["sora"].training is chapter_16.RECIPES["sora"].training
    assert parts["make_a_video_frames"].training is chapter_14.PICTURES and parts["make_a_video_frames"].lesson
    assert parts["make_a_video"].training is chapter_14.TRAINING and parts["make_a_video"].coarse == chapter_14.SHORT
    assert not any(part.lesson for name, part in parts.items() if name != "make_a_video_frames")
    done = {"make_a_video_frames": parts["make_a_video_frames"].build({})}
    for name in ("align_your_latents", *chapter_09.TRAININGS, "make_a_video", "sora"):
        model, part = parts[name].build(done), parts[name]
        assert sum(p.numel() for p in model.parameters()) == read_card(name)["parameters"]
        assert [p for group in part.parameters(model) for p in group["params"]] != []


def test_batches_are_as_large_as_the_recipes(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    monkeypatch.setattr(trainings, "FILMS", 8)
    monkeypatch.setattr(trainings, "FINE", 2)
    sizes = {"align_your_latents": [(chapter_10.BATCH, "z")], "sora": [(chapter_16.BATCH, "x0")],
             "make_a_video": [(chapter_14.PICTURE_BATCH, "z"), (chapter_14.BATCH, "z")],
             "imagen_video": [(chapter_09.BATCH, "x"), (chapter_09.BATCH, "x"),
                              (chapter_09.SPACE_BATCH, "x")]}  # fmt: skip
    for name, expected in sizes.items():
        way = WAYS[name](1)
        found = [len(part.batches(0)(0)[key]) for part, (_, key) in zip(way.parts, expected, strict=True)]
        assert found == [size for size, _ in expected]
        if name == "imagen_video":
            assert len(way.parts[0].batches(0)(0)["pictures"]) == chapter_09.PICTURES
        assert way.options.get("steps", 25) == 25


def test_coarse_batches_are_the_first_ones(ways):
    for name in ("align_your_latents", "imagen_video"):
        batches = ways[name].parts[0].batches(2)
        assert ["t" in batches(step) for step in range(4)] == [True, True, False, False]
    windows = ways["make_a_video"].parts[1].batches(2)
    assert [windows(step)["z"].shape[1] for step in range(4)] == [chapter_14.WINDOW] * 2 + [9] * 2
    later = ways["imagen_video"].parts[1].batches(0)
    assert set(later(0)) == {"x", "low", "ids"}, "pictures are the base's alone"


def test_films_are_told_what_a_picture_of_their_prompt_looks_like(ways, monkeypatch):
    """And no more: two prompts that differ in their motion are the same film, of the same noise."""
    asked = []
    monkeypatch.setattr(trainings.chapter_14, "looks", lambda texts, prior, seed: asked.append((texts, seed)) or (
        torch.nn.functional.one_hot(torch.tensor([len(text) for text in texts]), 64).float()))  # fmt: skip
    way = ways["make_a_video"]
    done = {}
    for part in way.parts:
        done[part.name] = part.build(done)
    maker = way.maker(done)
    films = maker.film(["a small red circle slides right", "a small red circle bounces"], 5, steps=1)
    assert asked == [(["a small red circle"] * 2, 5)] and films.shape == (2, 9, 3, 32, 32)
    again = maker.film(["a small red circle bounces"], 5, steps=1)
    torch.testing.assert_close(again[0], films[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(films[0], films[1], atol=1e-2) and films.abs().max() <= 1


def test_the_lesson_with_frames_is_taken_over(ways):
    """Into the film decoder's own network, and the painter's weights before it; layers over time learn faster."""
    frames, films = ways["make_a_video"].parts
    first = frames.build({})
    second = films.build({frames.name: first})
    assert torch.equal(second.picture.tokens.weight, first.tokens.weight)
    torch.testing.assert_close(first.unet.down[0][0].weight, Painter.load("film_painter").model.unet.down[0][0].weight)
    scales = {group["scale"] for group in films.parameters(second)}
    assert min(scales) == pytest.approx(0.2 * chapter_14.OLD) and max(scales) == 1


def test_the_transformer_s_batches(ways):
    """Each latent is that of the film that its prompt tells of, drawn evenly, the same for a step at any time."""
    autoencoder = SimpleNamespace(encode=lambda film: film.mean((1, 3, 4), keepdim=True))
    scenes = [world.sample_scene(1, k, "simple") for k in range(5)]
    batches = trainings.Latents(autoencoder, scenes, 300, seed=7)
    true = world.to_film(world.render(scenes, 9, 32, 32)).mean((1, 3, 4)).half().float()
    batch, again = batches(3), batches(3)
    assert torch.equal(batch["x0"], again["x0"]) and torch.equal(batch["ids"], again["ids"])
    others = (batches(4), trainings.changed(batches, seed=8)(3))
    assert not any(torch.equal(batch["x0"], other["x0"]) for other in others)
    which = (batch["x0"].flatten(1)[:, None] - true[None]).abs().sum(2).argmin(1)
    assert torch.equal(batch["x0"].flatten(1), true[which]) and which.bincount().min() > 30
    for k, scene in enumerate(scenes):
        allowed = chapter_16.as_batch(true, chapter_16.wordings(scene))["ids"]
        said = {tuple(row[row > 0].tolist()) for row in batch["ids"][which == k]}
        assert said <= {tuple(row[row > 0].tolist()) for row in allowed}


def test_a_seed_of_the_films_is_a_seed_of_the_order():
    one, other = (chapter_09.FilmBatches("imagen_time", 6, 8, seed=seed) for seed in (5, 6))
    assert one.scenes == chapter_09.library(6, seed=5) != other.scenes
    assert chapter_10.library(3) == [world.sample_scene(chapter_10.SEED, k, "simple") for k in range(3)]
    changed = trainings.changed(one, seed=6)
    assert changed.films is one.films and one.seed == 5
    assert not torch.equal(changed(0)["x"], one(0)["x"])


# --------------------------------------------------------------------------------------------------- equal minutes


def test_the_pace_is_the_middle_step_after_the_first(monkeypatch):
    """A batch's drawing is counted, and nothing that comes before the first step."""
    monkeypatch.setattr(trainings, "count", lambda number, few: number)
    clock = Clock(monkeypatch)
    part, seen = tiny(clock=clock, drawing=(90, 3, 2, 4, 30, 2), step=(80, 9, 8, 7, 9, 70))
    assert step_seconds(part, nn.Linear(3, 2), coarse=False) == pytest.approx(3 + 9)
    assert [number for number, _ in seen] == list(range(1 + trainings.TIMED))
    part, seen = tiny(clock=clock, drawing=(2,), step=(7,), coarsely=0.5)
    assert step_seconds(part, nn.Linear(3, 2), coarse=True) == pytest.approx(4.5) and all(rough for _, rough in seen)


def test_a_plan_fills_the_minutes_and_keeps_the_proportions(monkeypatch):
    clock = Clock(monkeypatch)
    built = []
    parts = [tiny("first", clock, (1,), (2,), built=built)[0],
             tiny("second", clock, (0,), (0.5,), training=replace(TRAINING, steps=3000), built=built)[0]]  # fmt: skip
    plan = planned(parts, 10)
    assert {name: row["pace"] for name, row in plan.items()} == {"first": 3, "second": 0.5}
    assert sum(row["steps"] * row["pace"] for row in plan.values()) == pytest.approx(600, abs=2)
    assert plan["second"]["steps"] == pytest.approx(3 * plan["first"]["steps"], abs=2)
    assert [(name, list(done)) for name, done in built] == [("first", []), ("second", ["first"])]
    assert planned(parts, 20)["first"]["steps"] == pytest.approx(2 * plan["first"]["steps"], abs=1)
    assert planned(parts, 1e-9)["first"]["steps"] == 1


def test_coarse_steps_count_by_their_share(monkeypatch):
    clock = Clock(monkeypatch)
    part, _ = tiny(clock=clock, drawing=(1,), step=(1,), coarse=0.75, coarsely=3.0)
    assert planned([part], 1)["tiny"]["pace"] == pytest.approx(0.25 * 2 + 0.75 * 6)


def test_a_short_training_warms_up_and_averages_over_a_tenth():
    short = shortened(TRAINING, 400, seed=3)
    assert (short.steps, short.seed, short.warmup, short.precision) == (400, 3, 40, "float32")
    assert short.ema == pytest.approx(1 - 1 / 40) and short.lr == TRAINING.lr and short.cooldown == TRAINING.cooldown
    whole = shortened(TRAINING, 100_000, seed=3)
    assert (whole.warmup, whole.ema) == (TRAINING.warmup, TRAINING.ema)
    assert shortened(TRAINING, 1, seed=3).ema == 0


def test_what_a_training_took_is_added_up(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    part, seen = tiny(clock=clock, step=(0.5,), coarse=0.6)
    model, cost = fitted(part, {}, 25, 1, tmp_path)
    assert cost["core"] == pytest.approx(25 * 0.5) and cost["steps"] == 25 and cost["trained"] == 8
    assert cost["gb"] > 0.1 and cost["clock"] >= 0 and not model.training
    assert [rough for _, rough in seen] == 15 * [True] + 10 * [False]


def test_a_training_that_was_stopped_goes_on(monkeypatch, tmp_path):
    """To the weights of one that was not; what it took is counted once, and what is done is not done again."""
    clock = Clock(monkeypatch)
    part, _ = tiny(clock=clock, step=(0.5,))
    whole, _ = fitted(part, {}, 150, 1, tmp_path / "whole")

    def stops(model, batch, generator):
        if int(batch["number"]) == 120:
            raise RuntimeError("the power is gone")
        return part.loss(model, batch, generator)

    with pytest.raises(RuntimeError, match="power"):
        fitted(replace(part, loss=stops), {}, 150, 1, tmp_path / "rest")
    clock.now += 1000  # until it is begun again
    again, seen = tiny(clock=clock, step=(0.5,))
    rest, cost = fitted(again, {}, 150, 1, tmp_path / "rest")
    assert [number for number, _ in seen] == list(range(120, 150))  # where the rate began to fall it was saved too
    assert cost["core"] == pytest.approx(75)
    assert experiment.digest({"a": rest}) == experiment.digest({"a": whole})
    done, cost = fitted(again, {}, 150, 1, tmp_path / "rest")
    assert len(seen) == 30 and cost["core"] == pytest.approx(75) and torch.equal(done.weight, rest.weight)


def test_what_comes_out_is_the_average_and_each_seed_has_its_own(tmp_path):
    part, _ = tiny()
    models = {seed: fitted(part, {}, 60, seed, tmp_path / str(seed))[0] for seed in (1, 2)}
    assert experiment.digest({"a": models[1]}) != experiment.digest({"a": models[2]})
    state = fitted(replace(part, training=replace(TRAINING, ema=0)), {}, 60, 1, tmp_path / "last")[0]
    assert not torch.equal(models[1].weight, state.weight)


def test_a_later_part_is_built_of_the_trained_ones(tmp_path):
    built = []
    way = Way(tuple(tiny(name, built=built)[0] for name in ("a", "b")), SimpleNamespace, ())
    plan = {"a": {"steps": 20, "pace": 1.0}, "b": {"steps": 30, "pace": 1.0}}
    models, costs = trainings.trained(way, plan, 1, tmp_path)
    assert {name: cost["steps"] for name, cost in costs.items()} == {"a": 20, "b": 30}
    assert torch.equal(built[1][1]["a"], models["a"].weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert float(read_log(tmp_path / "b" / "log.jsonl")["step"][-1]) == 30


# ------------------------------------------------------------------------------------------------------ the measures


def scenes_by_text(films=60, still=30):
    """The scenes that the prompts were taken from."""
    found = dict(zip(*prompts("test", films), strict=True))
    scenes = (world.sample_scene(chapter_10.SEED, k, "simple", "test") for k in range(2000))
    calm = {short_caption(s): s for s in scenes if s.objects[0].motion == "stays still"}
    return found | {text: calm[text] for text in still_texts(still)}


class Drawn:
    """A maker that draws the films that it is asked for, as `spoil` changes them."""

    def __init__(self, spoil=lambda scene, film: film):
        self.spoil, self.scenes, self.seeds, self.told = spoil, scenes_by_text(), [], []

    def film(self, texts, seed, **told):
        self.seeds.append(seed)
        self.told.append(told)
        scenes = [self.scenes[text] for text in texts]
        films = world.to_film(world.render(scenes, 9, 32, 32))
        return torch.stack([self.spoil(scene, film) for scene, film in zip(scenes, films, strict=True)])


def test_true_films_are_right_and_do_not_flicker():
    maker = Drawn()
    row = experiment.judged(maker, {"steps": 3})
    assert row["films"] == 2 and all(row[name] == 1 for name in ("all", "motion", "colour", "shape", "count", "frames"))
    assert row["flicker"] == row["flicker of the still"] == 0 and row["still"] == 2
    assert set(maker.seeds) == {NOISE} and maker.told == 2 * [{"steps": 3}]


def test_flicker_is_told_apart_from_motion():
    """Grey that comes and goes is counted in grey levels; a film that moves, though it was told to stand, is none of
    the still ones."""
    blink = torch.tensor([0.0, 0.02] * 5)[:9].reshape(9, 1, 1, 1)
    row = experiment.judged(Drawn(lambda scene, film: 0.9 * film + blink))
    assert row["flicker of the still"] == pytest.approx(0.02 * 127.5, rel=0.01) and row["still"] == 2
    moving = world.to_film(world.render([next(s for s in prompts("test", 60)[1]
                                              if s.objects[0].motion.startswith("slides"))], 9, 32, 32))[0]  # fmt: skip
    row = experiment.judged(Drawn(lambda scene, film: moving))
    assert (row["still"], row["flicker of the still"]) == (0, None) and row["flicker"] > 5


def test_a_row_says_what_was_asked(monkeypatch):
    first = experiment.judged(Drawn())["asked"]
    assert first == experiment.judged(Drawn(lambda scene, film: film * 0))["asked"]
    monkeypatch.setattr(experiment, "still_texts", lambda count: still_texts(count + 1)[1:])
    assert experiment.judged(Drawn())["asked"] != first
    monkeypatch.undo()
    monkeypatch.setattr(experiment, "count", lambda number, few=2: 3)
    assert experiment.judged(Drawn())["asked"] != first


def test_the_copies_are_the_first_stage_s():
    row = experiment.copies_row()
    assert row["films"] == 2 and row["frames"] > 0.5 and 0 < row["flicker"] < 5


def test_what_one_film_can_say():
    found, edits = experiment.one_film(), experiment.tune_a_video.load_experiment()
    assert (found["edits"], found["motion"]) == (40, edits["arms"]["tuned"]["together"]["motion"])
    assert 0 < found["seconds"] < 120 and 0 < found["trained"] < read_card("film_painter")["parameters"] / 5


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_small(way, tmp_path, ways, monkeypatch):
    """Trained, measured on the painter's prompts, and not made twice; the plan is not either."""
    monkeypatch.setitem(experiment.WAYS, way, lambda seed: ways[way])
    found = experiment.row(way, 1, tmp_path)
    assert found["seed"] == 1 and found["films"] == 2 and found["gb"] > 0.1
    assert found["trained"] == sum(read_card(part.name)["parameters"] for part in ways[way].parts if not part.lesson)
    assert list(found["begins with"]) == list(ways[way].begins_with)
    assert found["asked"] == experiment.judged(Drawn())["asked"]
    logs = [read_log(tmp_path / way / "seed_1" / part.name / "log.jsonl") for part in ways[way].parts]
    core = sum(log["core"].sum() for log in logs)  # a quick machine needs less than the hundredth that is written
    assert core > 0 and found["minutes"] == pytest.approx(core / 60, abs=0.006)
    assert found["gb"] == pytest.approx(max(log["gb"].max() for log in logs), abs=0.001)
    plan = json.loads((tmp_path / way / "plan.json").read_text(encoding="utf-8"))
    assert found["planned"] == pytest.approx(sum(r["steps"] * r["pace"] for r in plan.values()) / 60, abs=0.006)
    assert found["steps"] == {name: row["steps"] for name, row in plan.items()}
    monkeypatch.setattr(experiment, "planned", lambda *_: pytest.fail("planned twice"))
    monkeypatch.setattr(experiment, "judged", lambda *_: {"judged": "again"})
    (tmp_path / way / "seed_1.json").unlink()
    again = experiment.row(way, 1, tmp_path)
    assert again.pop("judged") == "again" and again["weights"] == found["weights"]
    assert {name: again[name] for name in ("steps", "minutes", "gb")} == {name: found[name] for name in (
        "steps", "minutes", "gb")}  # fmt: skip
    monkeypatch.setitem(experiment.WAYS, way, lambda seed: pytest.fail("made twice"))
    assert experiment.row(way, 1, tmp_path)["weights"] == found["weights"]


def test_a_row_that_there_is_none_of(monkeypatch, tmp_path):
    for arguments, says in ((("tune_a_video", 1), "WAY is 'tune_a_video'"), (("sora", 4), "SEED is 4")):
        with pytest.raises(ValueError, match=says):
            experiment.row(*arguments, tmp_path)
    monkeypatch.setattr(experiment, "device", lambda: torch.device("cuda"))
    with pytest.raises(ValueError, match="SORALAB_DEVICE=cpu"):
        experiment.row("sora", 1, tmp_path)


# ------------------------------------------------------------------------------------------------------- the table


def made_up(seed=1, share=0.5, minutes=12.0, **other):
    """A row."""
    row = {"seed": seed, "minutes": minutes, "planned": 12.0, "clock": 12.5, "prepared": 50.0, "gb": 1.2,
           "trained": 2_000_000, "steps": {"a": 4}, "weights": f"w{seed}", "begins with": {"film_painter": 3480},
           "films": 60, "all": share, "motion": share, "frames": 0.9, "flicker": 2.0, "still": 20,
           "flicker of the still": 1.0, "asked": "the same"}  # fmt: skip
    return {**row, **other}


def rows(**changes):
    found = {way: [made_up(seed) for seed in experiment.SEEDS] for way in ("align_your_latents", "sora")}
    for one in found["sora"][-1:]:
        one.update(changes)
    return found


ALONE = {"films": 60, "asked": "the same", "all": 0.1, "motion": 0.05, "frames": 0.95, "flicker": 60.0, "still": 0,
         "flicker of the still": None}  # fmt: skip


def test_good_rows_pass(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    experiment.check(rows(), ALONE)
    experiment.check(rows(minutes=14.0), ALONE)


@pytest.mark.parametrize("change, says", [
    ({"asked": "other prompts"}, "prompts of sora, seed 3"),
    ({"films": 50}, "prompts of sora, seed 3"),
    ({"minutes": 24.0}, r"minutes are 12.0 .*24.0 \(sora, seed 3\)"),
    ({"minutes": 6.0}, r"minutes are 6.0 \(sora, seed 3\)"),
    ({"seed": 2}, r"seeds of sora are \[1, 2, 2\]"),
    ({"seed": 7}, r"seeds of sora are \[1, 2, 7\]"),
    ({"weights": "w1"}, "weights of sora are the same"),
])  # fmt: skip
def test_rows_that_cannot_be_compared_are_refused(change, says, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    with pytest.raises(ValueError, match=says):
        experiment.check(rows(**change), ALONE)


def test_a_seed_or_the_painter_may_not_be_missing():
    short = rows()
    short["sora"].pop()
    with pytest.raises(ValueError, match=r"seeds of sora are \[1, 2\]"):
        experiment.check(short, ALONE)
    for none in (None, {}):
        with pytest.raises(ValueError, match="takes the painter's row"):
            experiment.check(rows(), none)


def test_the_painter_is_asked_the_same():
    with pytest.raises(ValueError, match="are not the painter's"):
        experiment.check(rows(), {**ALONE, "asked": "other prompts"})


def test_a_column_over_the_seeds():
    three = [made_up(seed, share) for seed, share in zip((1, 2, 3), (0.5, 0.6, 0.4), strict=True)]
    assert experiment.over_seeds(three, "all", 100) == "50 (40–60)"
    assert experiment.over_seeds(three, "frames", 100) == "90" and experiment.over_seeds(three, "gb") == "1"


def test_the_table_says_what_is_there_and_what_is_not():
    found = {"ways": rows(flicker=5.0, gb=1.6, minutes=12.6, motion=0.8), "painter alone": ALONE, "minutes": 12,
             "true films, copied": {"all": 0.98, "motion": 1.0, "frames": 1.0, "flicker": 1.3}}  # fmt: skip
    lines = experiment.table(found).splitlines()
    assert len(lines) == 5 and lines[0].split() == " ".join(experiment.HEADS).split()
    assert lines[1].split() == ["painter", "alone", "10", "5", "95", "60.0", "–"]
    assert lines[2].split()[4:] == ["50", "50", "90", "2.0", "1.0", "12.0", "58", "2.00", "M", "1.2", "GB"]
    assert lines[3].split()[3:8] == ["50", "60", "(50–80)", "90", "3.0"] and lines[3].endswith("1.6 GB")
    assert "12.2" in lines[3] and lines[4].split() == ["true", "films,", "copied", "98", "100", "100", "1.3", "–"]
    assert max(map(len, lines)) <= 120
    assert experiment.missing(found) == ["14 Make-A-Video", "09 Imagen Video"]
    one = rows()
    one["sora"][1]["flicker of the still"] = None
    assert experiment.table({"ways": one}).splitlines()[2].split()[3:8] == ["50", "50", "90", "2.0", "–"]
    whole = {way: rows()["sora"] for way in experiment.NAMES}
    assert experiment.missing({"ways": whole}) == [] and len(experiment.table({"ways": whole}).splitlines()) == 5


def test_before_there_is_a_file(tmp_path):
    found = experiment.load_experiment(tmp_path / "four_ways.json")
    assert experiment.missing(found) == list(experiment.NAMES.values())
    assert experiment.table(found).splitlines()[1:] == []


def test_without_arguments_what_is_missing_is_made(monkeypatch, tmp_path, capsys):
    """Each row in a process of its own, and the file of all; what is there is not made again."""
    started = []

    def process(command, check):
        way, seed = command[-2:]
        assert check and command[1:3] == ["-m", "soralab.experiments.four_ways"]
        started.append((way, int(seed)))
        experiment.main([way, seed])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(experiment, "FILE", tmp_path / "data" / "four_ways.json")
    monkeypatch.setattr(experiment, "row", lambda way, seed, folder: experiment.kept(
        experiment.path_of(way, seed, folder), lambda: made_up(seed, way=way)))  # fmt: skip
    monkeypatch.setattr(experiment, "painter_row", lambda: ALONE)
    monkeypatch.setattr(experiment, "copies_row", lambda: {"all": 1.0})
    monkeypatch.setattr(experiment.subprocess, "run", process)
    monkeypatch.setattr(experiment.torch, "set_num_threads", lambda number: started.append(number))
    experiment.row("sora", 2, experiment.FOLDER)
    experiment.main([])
    every = [(way, seed) for seed in experiment.SEEDS for way in WAYS if (way, seed) != ("sora", 2)]
    assert [one for one in started if one != 1] == every and started[0] == 1
    found = json.loads((tmp_path / "data" / "four_ways.json").read_text(encoding="utf-8"))
    assert {way: [one["way"] for one in some] for way, some in found["ways"].items()} == {w: 3 * [w] for w in WAYS}
    assert found["painter alone"] == ALONE and "one film" in found and "wrote four_ways.json" in capsys.readouterr().out
    del started[:]
    experiment.main([])
    assert started == [1]


def test_the_page_says_what_is_measured():
    said = prose_of("15_tune_a_video")
    for number, sentence in (
        (experiment.MINUTES == 12, "each gets twelve minutes of one core"),
        (len(experiment.SEEDS) == 3, "three times, with three seeds"),
        (trainings.FILMS == 4000, "four thousand films of one thing, the same for all ways"),
        (trainings.TIMED == 5, "Five steps are timed"),
        (experiment.FILMS == 60, "the same sixty prompts of the split *test*"),
        (experiment.STILL == 30, "thirty more films, of things that are told to stay still"),
        (len(SHOWN) == 3, "three frames of each film, each judged as a picture"),
    ):
        assert number and sentence in said, sentence


def test_what_is_shipped_can_be_compared(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    found = experiment.load_experiment()
    experiment.check(found["ways"], found["painter alone"])
    assert found["minutes"] == experiment.MINUTES and found["films"] == experiment.FILMS
    assert experiment.missing(found) == [] and found["one film"] == experiment.one_film()


def test_the_page_reads_the_table_as_it_is():
    found, said = experiment.load_experiment(), prose_of("15_tune_a_video")
    ways, alone = found["ways"], found["painter alone"]
    shares = {(way, column): [100 * row[column] for row in rows] for way, rows in ways.items()
              for column in ("all", "motion", "frames")}  # fmt: skip
    middle = {key: f"{mean(values):.0f}" for key, values in shares.items()}
    layers, pseudo, cascade, whole = "align_your_latents", "make_a_video", "imagen_video", "sora"
    others = (layers, pseudo, cascade)
    most = max(int(middle[way, "all"]) for way in (pseudo, cascade, whole))
    assert f"of sixty films chapter 10's have {middle[layers, 'all']} % all right, the others {most}" in said
    low, high = (f"{bound(shares[whole, 'motion']):.0f}" for bound in (min, max))
    assert f"Its motion is right in {middle[whole, 'motion']} % of films ({low} to {high} by seed)" in said
    assert "the others have {}, {} and {}".format(*(middle[way, "motion"] for way in others)) in said
    assert f"the painter alone, whose films jump, {100 * alone['motion']:.0f}" in said and alone["flicker"] > 50
    asked = [scene.objects[0].motion for scene in prompts("test", experiment.FILMS)[1]].count("stays still")
    assert f"Films that never move would have {100 * asked / experiment.FILMS:.0f}: six of the sixty" in said
    assert asked == 6 and int(low) > 10
    calm = [f"{mean(row['still'] for row in ways[way]):.0f}" for way in (whole, *others)]
    assert "thirty things that are told to stay still, {} do; with chapter 10 {}, with 14 {}, with 09 {}".format(
        *calm) in said  # fmt: skip
    assert f"of its single frames {middle[whole, 'frames']} % are right" in said
    drawn = 100 * alone["frames"]
    assert f"right in {middle[layers, 'frames']} %, nearly as the painter's own ({drawn:.0f})" in said
    assert drawn - mean(shares[layers, "frames"]) < 3
    assert f"and has {middle[pseudo, 'frames']} % left" in said and set(shares[cascade, "frames"]) == {0}
    assert min(shares[whole, "motion"]) > max(max(shares[way, "motion"]) for way in others)
    for pair in combinations(others, 2):  # undecided
        moved = [shares[way, "motion"] for way in pair]
        assert max(map(min, moved)) <= min(map(max, moved))
    assert min(shares[layers, "frames"]) > max(shares[pseudo, "frames"]) > min(shares[pseudo, "frames"]) > max(
        shares[whole, "frames"] + shares[cascade, "frames"]) < 2  # fmt: skip
    assert min(shares[whole, "frames"]) > 0 and "In frames no two ways overlap, though two have next to none" in said
    assert max(row["still"] for way in (pseudo, cascade) for row in ways[way]) < 10 and "these are few films" in said
    calm = [mean(row["flicker of the still"] for row in rows) for rows in ways.values()]
    assert f"flickers by {min(calm):.0f} to {max(calm):.0f} grey levels" in said
    assert f"and by {found['true films, copied']['flicker']:.0f} in copies of true films" in said
    before = {way: round(sum(rows[0]["begins with"].values()) / 60) for way, rows in ways.items()}
    assert f"stands on {before[layers]} minutes of others' training, the transformer on {before[whole]}" in said
    cards = {name: read_card(name) for name in (whole, layers)}
    minutes, right = ({name: round(of(card)) for name, card in cards.items()} for of in (
        lambda card: card["seconds"] / 60, lambda card: 100 * card["metrics"]["test"]["all"]))  # fmt: skip
    assert f"after {minutes[whole]} minutes, has {right[whole]} % of its films all right" in said
    assert f"layers, after {minutes[layers]}, have {right[layers]}" in said


def test_the_guide_reads_the_table_as_it_is():
    found, said = experiment.load_experiment(), (NOTEBOOKS / "sessions" / "15_tune_a_video.md").read_text("utf-8")
    ways = found["ways"]
    middle = {(way, column): round(100 * mean(row[column] for row in rows)) for way, rows in ways.items()
              for column in ("all", "motion", "frames")}  # fmt: skip
    layers, pseudo, cascade, whole = "align_your_latents", "make_a_video", "imagen_video", "sora"
    before = {way: round(sum(rows[0]["begins with"].values()) / 60) for way, rows in ways.items()}
    assert not any(middle[way, "all"] for way in (pseudo, cascade, whole))
    cards = {name: read_card(name) for name in (whole, layers)}
    minutes, right = ({name: round(of(card)) for name, card in cards.items()} for of in (
        lambda card: card["seconds"] / 60, lambda card: 100 * card["metrics"]["test"]["all"]))  # fmt: skip
    for sentence in (
        f"{middle[layers, 'all']} % are all right with chapter 10, none with the others",
        f"in {middle[layers, 'frames']} %. Trained on, it has {middle[pseudo, 'frames']} %",
        f"right in {middle[whole, 'motion']} % with the transformer, in {middle[pseudo, 'motion']} or "
        f"{middle[layers, 'motion']} with the others",
        f"{before[layers]} and {before[pseudo]} minutes of others' training, none, and {before[whole]}",
        f"{right[whole]} % all right for the transformer after {minutes[whole]}, {right[layers]} for chapter 10's "
        f"layers after {minutes[layers]}",
        f"{middle[layers, 'frames']} % of frames right, and hardly move as told, {middle[layers, 'motion']} %",
        f"moves as told in {middle[whole, 'motion']} %",
    ):
        assert sentence in said, sentence
    numbers = {line[3:5]: [int(number) for number in re.findall(r"\d+", line[23:])]
               for line in said.splitlines() if re.match(r"   (10|14|09|16)  ", line)}  # fmt: skip
    assert numbers == {
        name[:2]: [before[way], middle[way, "frames"], middle[way, "motion"],
                   round(mean(row["still"] for row in ways[way]))] for way, name in experiment.NAMES.items()
    }  # fmt: skip


def test_the_budget_is_the_profile_s(monkeypatch):
    assert experiment.budget() < 0.1
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    assert experiment.budget() == experiment.MINUTES == 12
