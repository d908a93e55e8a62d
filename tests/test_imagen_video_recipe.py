"""Chapter 09's trainings and scores: what each stage is taught, who teaches the student, that each measure can fail."""

import json
from collections import Counter
from dataclasses import asdict, replace
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import randomise

from soralab import world
from soralab.experiments import imagen_video as experiment
from soralab.experiments import imagen_video_ablations as ablations
from soralab.experiments import imagen_video_scores as scores
from soralab.experiments import publish
from soralab.files.eight_bits import pack, unpack
from soralab.imagen_video import PROCESS, Cascade, Stage, StageConfig, fold, unfold
from soralab.latent_diffusion import UNetConfig
from soralab.recipes import Trained
from soralab.recipes import imagen_video as recipe
from soralab.recipes.imagen_video import BASE, SPACE, STUDENT, TIME
from soralab.training.loop import TrainResult, step_seed
from soralab.world.language import decode, short_caption

STAGES = (BASE, TIME, SPACE)


def tiny(name):
    """A stage of the recipe's kind with a narrow network."""
    c = 3 * recipe.FOLDS[name] ** 2
    sizes = {"width": 8, "groups": 4, "heads": 2, "context": 16, "blocks": 1, "multipliers": (1,), "attention": ()}
    told = {"vocabulary": recipe.CONFIGS[name].vocabulary, "words": recipe.WORDS, "depth": 1}
    if name == BASE:
        return StageConfig(UNetConfig(channels=c, out=c, **sizes), **told)
    return StageConfig.enlarging(UNetConfig(channels=2 * c, out=c, **sizes), **told)


@pytest.fixture
def small(monkeypatch):
    """The recipe with narrow networks, in float32 and without a long warm-up."""
    monkeypatch.setattr(recipe, "CONFIGS", {name: tiny(name) for name in STAGES})


def stage(name, seed=1):
    return randomise(Stage(tiny(name)), seed)


def cascade(**options):
    return Cascade(*(stage(name, k) for k, name in enumerate(STAGES)), **options)


# -------------------------------------------------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def batches():
    return {name: recipe.FilmBatches(name, 30, 6, 5 if name == BASE else 0) for name in STAGES}


@pytest.mark.parametrize("name", STAGES)
def test_a_batch_is_a_pure_function_of_its_step(name, batches):
    one, again, other = (batches[name](step) for step in (3, 3, 4))
    assert one.keys() == again.keys() and all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["x"], other["x"]) and len(one["x"]) == 6
    assert ("pictures" in one) == (name == BASE) and ("low" in one) == (name != BASE)


def test_a_batch_is_cut_into_films_and_pictures_each_by_themselves():
    both = recipe.FilmBatches(BASE, 30, 16, pictures=5, coarse=1)
    fine, coarse = ([*both.cut(both(step), 2), both(step)] for step in (1, 0))
    assert [len(part["pictures"]) for part in fine[:2]] == [2, 3] and "moments" not in fine[0]
    assert all(torch.equal(part["moments"], coarse[2]["moments"]) for part in coarse[:2])
    for *parts, whole in (fine, coarse):
        assert all(part.keys() == whole.keys() for part in parts)
        for name in whole.keys() - {"moments"}:
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


def test_the_bases_first_steps_are_of_three_frames_much_noise_and_no_pictures():
    """More films, of its first, middle and last frame; after `coarse` steps, the batches of before."""
    both = recipe.FilmBatches(BASE, 30, 8, pictures=5, coarse=2)
    one, later = both(1), both(2)
    assert set(one) == {"x", "ids", "moments", "t"} and set(later) == {"x", "ids", "pictures", "names"}
    assert len(one["x"]) == len(one["ids"]) == len(one["t"]) == 8 * recipe.COARSE_BATCH // recipe.BATCH > 8
    assert one["moments"].tolist() == [0, 2, 4] and later["x"].shape[:2] == (8, 5)
    whole = recipe.seen(BASE, world.to_film(both.films))["x"]
    for x in one["x"]:
        assert any(torch.allclose(film[::2], x) for film in whole)
    times = torch.cat([both(step % 2)["t"] for step in range(2)] + [recipe.FilmBatches(BASE, 4, 200, 0, 1)(0)["t"]])
    low, high = recipe.TIMES
    assert low <= times.min() < low + 0.05 and high - 0.05 < times.max() <= high
    assert all(torch.equal(both(1)[key], one[key]) for key in one)


def test_every_second_film_of_the_last_stage_is_very_noisy():
    """The others, and all of the stage before it, have any noise."""
    times = recipe.FilmBatches(SPACE, 4, 400)(0)["t"]
    (low, high), noisy, others = recipe.NOISY, times[1::2], times[::2]
    assert low <= noisy.min() < low + 0.03 and high - 0.03 < noisy.max() <= high
    assert others.min() < 0.03 and others.max() > 0.97 and len(times) == 400
    assert set(recipe.FilmBatches(TIME, 4, 4)(0)) == {"x", "low", "ids"}


def test_each_stage_begins_where_the_one_before_it_ends():
    """Of true films, what the base is to make is what the next stage sees, and so on to the whole film."""
    film = world.to_film(recipe.films(recipe.library(4)))
    base, time, space = ({key: unfold(value, recipe.FOLDS[name]) for key, value in recipe.seen(name, film).items()}
                         for name in STAGES)  # fmt: skip
    small = F.avg_pool2d(film.flatten(0, 1), 4).unflatten(0, film.shape[:2])
    torch.testing.assert_close(base["x"], small[:, ::2])
    torch.testing.assert_close(time["low"], small[:, [0, 0, 2, 2, 4, 4, 6, 6, 8]])
    torch.testing.assert_close(time["x"], small)
    assert torch.equal(space["x"], film)
    want = F.interpolate(small[2], (32, 32), mode="bilinear")
    torch.testing.assert_close(space["low"][2], want)


@pytest.mark.parametrize("name", STAGES)
def test_films_are_of_their_prompts(name, batches):
    """Every film of a batch is found again among the world's own, at a place where it may begin."""
    source, found = batches[name], Counter()
    starts = range(9 - recipe.WINDOW + 1) if name == SPACE else range(1)
    frames = recipe.WINDOW if name == SPACE else 9
    whole = world.to_film(source.films)
    for step in range(3):
        batch = source(step)
        for x, ids in zip(batch["x"], batch["ids"], strict=True):
            places = [(k, f) for k in range(30) for f in starts
                      if torch.allclose(recipe.seen(name, whole[k : k + 1, f : f + frames])["x"][0], x)]
            assert places
            text, thing = decode(ids.tolist()), source.scenes[places[0][0]].objects[0]
            assert not text or (thing.colour in text and thing.shape in text)
            found[places[0][1]] += 1
    assert len(found) == (1 if name != SPACE else len(starts))


def test_pictures_are_single_frames_of_a_film_and_are_called_what_a_picture_shows(batches):
    source, words = batches[BASE], set()
    whole = fold(recipe.smaller(world.to_film(source.films)), 2)
    for step in range(4):
        batch = source(step)
        assert batch["pictures"].shape == (5, 1, 12, 4, 4)
        for x, ids in zip(batch["pictures"][:, 0], batch["names"], strict=True):
            k = next(k for k in range(30) if (whole[k] - x).flatten(1).abs().amax(1).min() < 1e-5)
            text, thing = decode(ids.tolist()), source.scenes[k].objects[0]
            assert not text or (thing.colour in text and thing.shape in text)
            words |= set(text.split())
    motions = set(" ".join(world.scene.MOTIONS).split()) - {"behind", "a"}
    assert words and not words & motions


@pytest.mark.parametrize("moving", [True, False])
def test_what_a_film_is_called(moving):
    scene = next(s for s in recipe.library(50) if s.objects[0].motion.startswith("slides"))
    thing, rng = scene.objects[0], Random(1)
    said = Counter(recipe.prompt(scene, rng, moving) for _ in range(2000))
    plain = short_caption(scene) if moving else f"a {thing.size} {thing.colour} {thing.shape}"
    bare = plain.replace(f"{thing.size} ", "")
    on = f" on a {scene.background} background"
    assert set(said) == {"", plain, plain + on, bare, bare + on}
    want = {"": 0.1, plain: 0.9 * 0.49, bare + on: 0.9 * 0.09}
    for text, share in want.items():
        assert abs(said[text] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", STAGES)
def test_the_loss_hears_all_of_a_batch(name, batches):
    """Each entry changes it; and what it draws comes from the step's generator."""
    model, batch = stage(name), batches[name](1)

    @torch.no_grad()
    def value(other=None, seed=0):
        generator = torch.Generator().manual_seed(step_seed(seed, 0))
        return float(recipe.loss(model, batch | (other or {}), generator))

    assert value() == value() != value(seed=1)
    for key in batch:
        assert value({key: batch[key].roll(1, 0)}) != value(), key
    if name == BASE:
        assert value({"t": torch.full((6,), 0.5)}) != value({"t": torch.full((6,), 0.9)}) != value()
        assert value({"moments": torch.arange(5)}) == value() != value({"moments": 2 * torch.arange(5)})


def test_pictures_count_by_their_frames_and_teach_no_layer_of_time(batches):
    model, batch = stage(BASE), batches[BASE](2)
    films = {key: batch[key] for key in ("x", "ids")}
    pictures = {"x": batch["pictures"], "ids": batch["names"]}
    with torch.no_grad():
        whole = recipe.loss(model, films, torch.Generator().manual_seed(1))
        both = recipe.loss(model, batch, torch.Generator().manual_seed(1))
        again = torch.Generator().manual_seed(1)
        recipe.loss(model, films, again)  # what films draw comes first
        single = recipe.stage_loss(model, **pictures, generator=again, alone=torch.ones(5).bool()).mean()
    torch.testing.assert_close(both, (5 * whole + single) / 6)
    seen = []
    spy = lambda *a, **k: seen.append(k.get("alone")) or model(*a, **k)  # noqa: E731
    with torch.no_grad():
        recipe.loss(spy, batch, torch.Generator().manual_seed(1))
    assert seen[0] is None and seen[1].all()


@pytest.mark.parametrize("most", [0.0, 0.4])
def test_the_level_of_noise_is_told_and_bounded(most, batches):
    levels, model = [], stage(TIME)
    spy = lambda z, t, ids, low, level: levels.extend(level.tolist()) or model(z, t, ids, low, level)  # noqa: E731
    with torch.no_grad():
        for step in range(3):
            recipe.loss(spy, batches[TIME](step), torch.Generator().manual_seed(step), most=most)
    assert max(levels) <= most and (len(set(levels)) > 9) == (most > 0)


@pytest.mark.parametrize("name", STAGES)
def test_every_part_is_trained_by_one_group(name):
    model = Stage(recipe.CONFIGS[name])
    muon, rest = recipe.parameters(model)
    names = {id(p): key for key, p in model.named_parameters()}
    first, second = ({names[id(p)] for p in group["params"]} for group in (muon, rest))
    assert not first & second and len(first | second) == len(names) == len(muon["params"]) + len(rest["params"])
    assert all(p.ndim > 1 for p in muon["params"]) and any("over_time" in key for key in first)
    assert {"unet.head.2.weight", "unet.down.0.0.weight", "text.token_embedding.weight"} <= second
    assert any("text.blocks" in key for key in first)


def test_a_fit_gives_the_averaged_weights(tmp_path, batches, small):
    training = replace(recipe.TRAINING, steps=2, warmup=1)
    model, result = recipe.fit(recipe.fresh(TIME), training, batches[TIME], tmp_path)
    assert all(torch.equal(value, result.ema.shadow[name]) for name, value in model.named_parameters())
    fresh = recipe.fresh(TIME)
    assert not model.training and any(not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(),
                                                                            strict=True))  # fmt: skip
    other = recipe.fresh(TIME, 8)
    assert not torch.equal(fresh.text.token_embedding.weight, other.text.token_embedding.weight)


def test_each_round_has_the_student_before_it_for_a_teacher(tmp_path, batches, monkeypatch, small):
    """Who is asked, at which times, and that the base stays as it is; and that rounds which are done come back."""
    base = stage(BASE)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    monkeypatch.setattr(recipe, "HALVINGS", (4, 2))
    asked = []

    def guided(student, teacher, x, ids, generator):
        asked.append(("guided", None, None))
        want = base(x, torch.full((len(x),), 0.5), ids)
        without = base(x, torch.full((len(x),), 0.5), ids * 0)
        torch.testing.assert_close(teacher(x, torch.full((len(x),), 0.5)), without + recipe.GUIDANCE * (want - without))
        return student(x, torch.ones(len(x)), ids).square().flatten(1).mean(1)

    def halving(student, teacher, x, ids, steps, generator):
        at = torch.full((len(x),), 0.5)
        same = {key: p.detach().clone() for key, p in teacher.func.state_dict().items()}
        asked.append((steps, same, torch.equal(teacher(x, at), student(x, at, ids))))
        return student(x, torch.ones(len(x)), ids).square().flatten(1).mean(1)

    monkeypatch.setattr(recipe, "guided_loss", guided)
    monkeypatch.setattr(recipe, "halving_loss", halving)
    training = replace(recipe.TAUGHT, steps=2, warmup=1, save_every=1)
    found = recipe.taught(base, training, batches[BASE], tmp_path)
    assert [kind for kind, *_ in asked] == ["guided"] * 2 + [4] * 2 + [2] * 2
    students = [student.state_dict() for student, _ in found]
    for rounds, teacher in ((asked[2:4], students[0]), (asked[4:6], students[1])):
        assert all(torch.equal(same[key], teacher[key]) for _, same, _ in rounds for key in teacher)
        assert rounds[0][2] and not rounds[1][2]  # the student begins as its teacher, and then learns
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    asked.clear()
    again = recipe.taught(base, training, batches[BASE], tmp_path)
    assert not asked and all(torch.equal(a.state_dict()[key], b[key]) for (a, _), b in zip(again, students, strict=True)
                             for key in b)  # fmt: skip


def test_students_of_a_training_that_is_done_are_found_by_name(tmp_path, monkeypatch, small):
    model, asked = stage(BASE), {}

    def taught(base, training, batches, folder):
        asked.update(steps=training.steps, folder=folder)
        return [(f"student {k}", None) for k in range(4)]

    monkeypatch.setattr(recipe, "taught", taught)
    monkeypatch.setattr(recipe, "load_stage", lambda name: model)
    log = tmp_path / "imagen_student" / "4_steps" / "log.jsonl"
    trained = Trained(model, {"steps": 20, "rounds": ["guided", 16, 8, 4]}, log)
    assert recipe.students(trained) == {"guided": "student 0", "16": "student 1", "8": "student 2", "4": "student 3"}
    assert asked == {"steps": 5, "folder": tmp_path / "imagen_student"}


def test_what_was_saved_is_loaded(tmp_path, monkeypatch):
    """All four checkpoints, in eight bits; films are those of the models as they were saved."""
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    models = {name: stage(name, k) for k, name in enumerate(STAGES)} | {STUDENT: stage(BASE, 7)}
    for model in models.values():
        model.load_state_dict(unpack(pack(model.half().float().state_dict())))
    for name, model in models.items():
        publish(tmp_path / name, model.state_dict(), {"config": asdict(model.config), "rounds": ["guided", 16, 8, 3]})
    text = ["a red circle slides right"]
    want = Cascade(*(models[name] for name in STAGES)).film(text, 5, steps=2)
    torch.testing.assert_close(recipe.load().film(text, 5, steps=2), want)
    student = recipe.load(student=True)
    assert student.student == 3
    torch.testing.assert_close(student.small(text, 5), Cascade(models[STUDENT], student=3).small(text, 5))


def test_the_shipped_stages_are_small():
    """8 MB in half precision, the student with them."""
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in Stage(recipe.CONFIGS[name]).parameters()) for name in (*STAGES, BASE)]
    assert 2 * sum(sizes) < 8e6


# --------------------------------------------------------------------------------------------------------------- scores


class Oracle:
    """A cascade whose stages hand on the truth, spoilt by `spoil`."""

    def __init__(self, count, spoil=lambda films: films):
        self.true, self.spoil, self.asked = scores.true_films(count)[0], spoil, []

    def _part(self, seed, count):
        return self.true[seed - scores.NOISE :][:count]

    def small(self, prompts, seed, **options):
        self.asked.append(("small", len(prompts), options))
        return recipe.smaller(self._part(seed, len(prompts)))[:, ::2]

    def more(self, low, prompts, seed, **options):
        self.asked.append(("more", list(low.shape[1:2]), options))
        return recipe.smaller(self._part(seed, len(prompts)))

    def larger(self, low, prompts, seed, **options):
        self.asked.append(("larger", list(low.shape[1:2]), options))
        return self.spoil(self._part(seed, len(prompts)))


def test_an_oracle_has_every_score_and_others_have_not():
    true, texts = scores.true_films(8)
    assert scores.shares(true, texts) == dict.fromkeys(scores.COLUMNS, 1.0)
    assert scores.shares(true.roll(1, 0), texts)["all"] < 0.4
    small = scores.shares(recipe.smaller(true), texts)
    assert small["colour"] > 0.8 and small["shape"] < 0.3


def test_films_are_made_in_chunks_each_with_its_noise_and_prompts(monkeypatch):
    monkeypatch.setattr(scores, "CHUNK", 3)
    maker, texts = Oracle(7), scores.true_films(7)[1]
    few = scores.base_films(maker, texts, steps=5)
    more = scores.more_films(maker, few, texts, level=0.2)
    whole = scores.larger_films(maker, more, texts)
    assert torch.equal(whole, maker.true) and few.shape == (7, 5, 3, 8, 8) and more.shape == (7, 9, 3, 8, 8)
    assert maker.asked[:3] == [("small", 3, {"steps": 5})] * 2 + [("small", 1, {"steps": 5})]
    assert maker.asked[3:] == [("more", [5], {"level": 0.2})] * 3 + [("larger", [9], {})] * 3


def test_by_stage_and_exposure_and_words_of_an_oracle():
    maker, texts = Oracle(4), scores.true_films(4)[1]
    table, made = scores.by_stage(maker, texts)
    assert list(table) == ["base", "time", "space"] and table["space"]["all"] == 1 and made["space"].shape[-1] == 32
    found = scores.exposure(maker, made["time"], texts, levels=(0.0, 0.3))
    assert found == {key: {"true": table["space"], "made": table["space"]} for key in ("0", "0.3")}
    assert [options for kind, _, options in maker.asked if kind == "larger"][1:] == [
        {"level": level} for level in (0.0, 0.0, 0.3, 0.3)]

    def told(low, prompts, seed, **options):
        said.append(prompts)
        return maker._part(seed, len(prompts))

    said, maker.larger = [], told
    assert set(scores.without_words(maker, texts)) == {"prompt", "none", "another"}
    assert said == [texts, [""] * 4, [*texts[1:], texts[0]]]


@pytest.mark.parametrize("name", STAGES)
def test_the_held_out_loss_is_of_v_at_fixed_noise(name):
    model = stage(name)
    assert scores.held_loss(model, name, 6) == scores.held_loss(model, name, 6) > 0
    v = {}

    class Knows(torch.nn.Module):
        """A network that answers for one film of black as if it knew it."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, z, t, ids, low=None, level=None):
            v.setdefault("t", []).extend(t.tolist())
            x = recipe.seen(name, world.to_film(recipe.films(recipe.library(6, "test"))))["x"]
            alpha, sigma = (f(t)[:, None, None, None, None] for f in (PROCESS.alpha, PROCESS.sigma))
            return (alpha * z - x) / sigma

    assert scores.held_loss(Knows(), name, 6) < 1e-3 and v["t"] == pytest.approx([(k + 0.5) / 6 for k in range(6)])


def test_guidance_and_thresholds_are_those_that_are_named(monkeypatch):
    asked = []

    def base_by(base, texts, scales, threshold):
        asked.append((scales, threshold))
        return 2 * torch.ones(len(texts), 5, 3, 8, 8)

    monkeypatch.setattr(scores, "base_by", base_by)
    table = scores.guidance(None, scores.true_films(2)[1], steps=8)
    assert list(table) == ["1", "2", "4", "8", "by turns", "clipped", "no threshold"]
    assert [scales for scales, _ in asked[:4]] == [[scale] * 8 for scale in (1, 2, 4, 8)]
    assert asked[4][0] == [8, 8, 8, 1, 8, 1, 8, 1] and asked[6][1] is None
    assert all(threshold is scores.dynamic_threshold for _, threshold in asked[:5])
    assert torch.equal(asked[5][1](torch.tensor([-3.0, 0.5])), torch.tensor([-1.0, 0.5]))
    assert all(row["far"] == 1 for row in table.values())


@torch.no_grad()
def test_the_base_by_hand_is_the_cascades():
    base, texts = stage(BASE), ["a red circle", "a blue square"]
    made = scores.base_by(base, texts, [2.0, 1.0], scores.dynamic_threshold)
    torch.testing.assert_close(made, Cascade(base).small(texts, scores.NOISE, guidance=[2.0, 1.0]))


@torch.no_grad()
def test_stochastic_films_begin_with_the_same_noise():
    student, texts = stage(BASE), ["a red circle", "a blue square"]
    one = scores.stochastic_films(student, texts, 1)
    torch.testing.assert_close(one, Cascade(student, student=1).small(texts, scores.NOISE))
    assert not torch.allclose(scores.stochastic_films(student, texts, 3), Cascade(student, student=3).small(
        texts, scores.NOISE), atol=1e-3)  # fmt: skip


def test_teacher_and_students_are_asked_for_their_steps(monkeypatch):
    made = []
    monkeypatch.setattr(experiment, "base_films", lambda c, texts, **options: made.append((c.base, c.student, options)))
    monkeypatch.setattr(experiment, "stochastic_films", lambda s, texts, steps: made.append((s, "stochastic", steps)))
    monkeypatch.setattr(experiment, "more_films", lambda c, few, texts: None)
    monkeypatch.setattr(experiment, "larger_films", lambda c, low, texts: None)
    monkeypatch.setattr(experiment, "shares", lambda some, texts: len(made))
    rounds = {"guided": "g", "16": "a", "8": "b", "4": "c"}
    table = experiment.distilled(Cascade("base"), rounds, [])
    assert made == [("base", None, {"steps": n}) for n in (32, 16, 8, 4)] + [
        ("g", 32, {}), ("a", 16, {}), ("b", 8, {}), ("c", 4, {}), ("b", "stochastic", 8), ("c", "stochastic", 4)]
    assert {kind: list(rows) for kind, rows in table.items()} == {
        "teacher": ["32", "16", "8", "4"], "student": ["32", "16", "8", "4"], "stochastic": ["8", "4"]}


def test_twins_are_trained_with_noise_and_without_and_the_stage_stays(tmp_path, monkeypatch):
    asked, maker = [], cascade()
    before = {key: value.clone() for key, value in maker.space.state_dict().items()}

    def fit(model, training, batches, folder, loss):
        asked.append((loss.keywords["most"], training.steps, batches.name, folder.name))
        return model.eval(), None

    monkeypatch.setattr(ablations, "fit", fit)
    monkeypatch.setattr(ablations, "scenes", lambda: 2)
    monkeypatch.setattr(ablations, "exposure", lambda c, made, texts, levels: levels)
    assert ablations.twins(maker, None, [], tmp_path, steps=3) == {"noise": (0.0, 0.1), "no noise": (0.0,)}
    assert asked == [(recipe.MOST, 3, SPACE, "noise"), (0.0, 3, SPACE, "no_noise")]
    assert all(torch.equal(value, before[key]) for key, value in maker.space.state_dict().items())


def test_joint_trainings_differ_in_their_pictures(tmp_path, monkeypatch, small):
    asked = []

    def fit(model, training, batches, folder):
        asked.append((batches.pictures, training.seed, training.steps))
        return randomise(model, training.seed), None

    monkeypatch.setattr(ablations, "fit", fit)
    monkeypatch.setattr(ablations, "scenes", lambda: 2)
    monkeypatch.setattr(ablations, "held_loss", lambda model, name: 1.0)
    table = ablations.joint(tmp_path, steps=4)
    assert asked == [(recipe.PICTURES, 1, 4), (recipe.PICTURES, 2, 4), (0, 1, 4), (0, 2, 4)]
    assert set(table) == {"with pictures", "films alone"} and all(len(row["films"]) == 2 for row in table.values())
    assert all(value > 0 for row in table.values() for value in row["pictures"])


def test_the_card_of_a_stage_is_its_loss(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    model = stage(TIME)
    found = experiment.metrics(TIME, Trained(model, {}, None))
    assert found == {"loss": scores.held_loss(model, TIME, 4)}


def test_the_base_is_coarse_for_its_first_steps_and_no_other_stage_is(monkeypatch):
    made = []
    monkeypatch.setattr(recipe, "FilmBatches", lambda name, *sizes, coarse=0, **told: made.append((name, coarse)))
    monkeypatch.setattr(recipe, "fit", lambda *told: (_ for _ in ()).throw(InterruptedError))
    for name, steps in ((BASE, 11), (BASE, 300), (TIME, 300), (SPACE, 300)):
        with pytest.raises(InterruptedError):
            recipe.train(name, steps)
    assert made == [(BASE, 5), (BASE, 150), (TIME, 0), (SPACE, 0)] and recipe.COARSE == 0.5


def test_a_training_is_told_on_its_card(tmp_path, monkeypatch, small):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.chdir(tmp_path)
    trained = recipe.train(SPACE, 1)
    assert trained.card["steps"] == 1 and trained.card["pictures"] == 0 and trained.card["batch"] == recipe.SPACE_BATCH
    assert json.loads((tmp_path / "runs" / SPACE / "log.jsonl").read_text().splitlines()[-1])["step"] == 1
    monkeypatch.setattr(recipe, "load_stage", lambda name: stage(BASE))
    result = TrainResult(2, 0.1, 3.0, 0.0, None, tmp_path / "log.jsonl", tmp_path / "state")
    monkeypatch.setattr(recipe, "taught", lambda *given: [(stage(BASE, k), result) for k in range(4)])
    card = recipe.train(STUDENT, 2).card
    assert card["steps"] == 8 and card["seconds"] == 12 and card["rounds"] == ["guided", 16, 8, 4]
    assert card["guidance"] == recipe.GUIDANCE and card["base"] == BASE


def test_numbers_of_films_are_bytes():
    some = recipe.films(recipe.library(3), chunk=2)
    assert some.dtype == np.uint8 and some.shape == (3, 9, 3, 32, 32)
    assert np.array_equal(some, world.render(recipe.library(3), 9, 32, 32))
