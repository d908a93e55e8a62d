"""How chapter 15 tunes on a film, which edits are asked for, and how they are judged."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import numbers, randomise

from soralab import world
from soralab.datasets import frames
from soralab.experiments import tune_a_video as experiment
from soralab.experiments import tune_a_video_scores as scores
from soralab.latent_diffusion import PROCESS, LatentDiffusion, LatentDiffusionConfig, Painter, UNetConfig, noise
from soralab.recipes import tune_a_video as recipe
from soralab.recipes.tune_a_video import TUNING, Shot, fit, shot, tuned
from soralab.tune_a_video import TRAINED, inflate, latents_of
from soralab.world import referee
from soralab.world.language import short_caption
from soralab.world.scene import INVISIBLE

UNET = UNetConfig(width=8, blocks=1, groups=4, heads=2, context=16)


class Quarter(torch.nn.Module):
    """A first stage that keeps every fourth pixel, with a channel to spare."""

    def encode(self, x):
        small = x[:, :, ::4, ::4]
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, z):
        return z[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.fixture(scope="module")
def painter():
    model = LatentDiffusion(LatentDiffusionConfig(UNET, vocabulary=256, words=24, depth=1))
    return Painter(randomise(model, 1), Quarter())


def film_of(scene):
    return world.to_film(world.render([scene], frames.FRAMES, 32, 32))[0]


def sliding():
    """A shot whose thing slides without turning or growing."""
    return next((k, shot(k)) for k in range(50) if shot(k).scene.objects[0].motion.startswith("slides"))


# ---------------------------------------------------------------------------------------------------------- the films


def test_shots_are_unseen_and_named_by_what_a_picture_shows():
    for k in range(8):
        one = shot(k)
        assert one.scene == world.sample_scene(recipe.SEED, k, "simple", "test")
        assert torch.equal(one.film, film_of(one.scene)) and one.film.shape == (9, 3, 32, 32)
        assert one.prompt == frames.still(short_caption(one.scene))


def test_an_edit_changes_one_word_and_nothing_else():
    changed = set()
    for k in range(40):
        source = shot(k)
        pair = scores.edits(source, k)
        assert [edit.kind for edit in pair] == ["colour", "shape"]
        assert [edit.wanted.scene for edit in pair] == [edit.wanted.scene for edit in scores.edits(source, k)]
        for edit in pair:
            (before,), (after,) = source.scene.objects, edit.wanted.scene.objects
            assert getattr(after, edit.kind) != getattr(before, edit.kind)
            assert replace(after, **{edit.kind: getattr(before, edit.kind)}) == before
            assert replace(edit.wanted.scene, objects=source.scene.objects) == source.scene
            assert not world.held_out(after.shape, after.colour) and (after.shape, after.motion) not in INVISIBLE
            words = [set(text.split()) - {"a", "an"} for text in (source.prompt, edit.wanted.prompt)]
            assert words[0] ^ words[1] == {getattr(before, edit.kind), getattr(after, edit.kind)}
            changed.add(getattr(after, edit.kind))
    assert changed == {*world.COLOURS, *world.SHAPES}


# ------------------------------------------------------------------------------------------------------------ judging


def edit_of(kind):
    k, source = sliding()
    return next(edit for edit in scores.edits(source, k) if edit.kind == kind)


@pytest.mark.parametrize("kind", scores.KINDS)
def test_the_true_edit_has_every_mark_and_the_film_itself_all_but_the_change(kind):
    edit = edit_of(kind)
    assert all(scores.marks(edit, edit.wanted.film).values())
    found = scores.marks(edit, edit.source.film)
    assert {name for name, mark in found.items() if not mark} == {"changed", "both", "all"}


def spoilt(edit, how):
    scene = edit.wanted.scene
    (thing,) = scene.objects
    if how == "shifted":
        return film_of(replace(scene, objects=(replace(thing, x=thing.x * 0.3, y=thing.y * 0.3),)))
    if how == "backwards":
        return edit.wanted.film.flip(0)
    if how == "background":
        other = next(name for name in world.BACKGROUNDS[:2] if name != scene.background)
        return film_of(replace(scene, background=other))
    if how == "rest":
        other = "shape" if edit.kind == "colour" else "colour"
        return film_of(replace(scene, objects=(replace(thing, **{other: getattr(_third(edit, other), other)}),)))
    if how == "flicker":
        film = edit.wanted.film.clone()
        film[4] = edit.source.film[4]
        return film
    other = next(name for name in world.COLOURS if name not in (thing.colour, edit.source.scene.objects[0].colour))
    return film_of(replace(scene, objects=(thing, replace(thing, colour=other, size="small", x=-thing.x, y=-thing.y,
                                                          motion="stays still", velocity=(0.0, 0.0)))))  # fmt: skip


def _third(edit, name):
    (before,), (after,) = edit.source.scene.objects, edit.wanted.scene.objects
    names = world.SHAPES if name == "shape" else world.COLOURS
    new = next(one for one in names if one not in (getattr(before, name), getattr(after, name)))
    return replace(after, **{name: new})


@pytest.mark.parametrize("how, lost", [
    ("shifted", "place"), ("backwards", "motion"), ("background", "background"), ("rest", "rest"),
    ("flicker", "changed"), ("company", "changed"),
])  # fmt: skip
@pytest.mark.parametrize("kind", scores.KINDS)
def test_each_mark_is_lost_by_its_own_fault(kind, how, lost):
    edit = edit_of(kind)
    found = scores.marks(edit, spoilt(edit, how))
    assert not found[lost] and not found["all"]
    if how in ("shifted", "background", "rest"):
        assert {name for name, mark in found.items() if not mark} == {lost, "all"}


def test_how_far_a_thing_is_from_its_place():
    edit = edit_of("colour")
    (thing,) = edit.wanted.scene.objects
    report = referee.read(edit.wanted.film)
    assert scores.apart(report, thing) < 0.02
    moved = replace(thing, x=thing.x + 0.1)
    assert scores.apart(report, moved) == pytest.approx(0.1, abs=0.02)
    late = replace(thing, velocity=(0.0, 0.0))  # right in the first frame, and further off in each
    way = max(abs(v) for v in thing.velocity) * 8 / 9
    assert scores.apart(report, late) >= 0.9 * way
    assert scores.apart(referee.read(torch.full((9, 3, 32, 32), -1.0)), thing) == float("inf")


@pytest.mark.parametrize("pixels, near", [(1.5, True), (2.7, False)])
def test_two_pixels_are_near_and_three_are_not(pixels, near):
    edit = edit_of("colour")
    (thing,) = edit.wanted.scene.objects
    towards = -1 if thing.x > 0 else 1  # the middle, so that it stays in the frame
    moved = film_of(replace(edit.wanted.scene, objects=(replace(thing, x=thing.x + towards * pixels / 32),)))
    assert scores.marks(edit, moved)["place"] == near


def test_counts_and_intervals():
    rows = [dict.fromkeys(scores.COLUMNS, True), dict.fromkeys(scores.COLUMNS, False) | {"motion": True}]
    assert scores.counted(rows) == {"edits": 2, **dict.fromkeys(scores.COLUMNS, 1), "motion": 2}
    assert [scores.interval(right, 40) for right in (0, 34, 40)] == [
        "  0 % [0, 9]   ", " 85 % [71, 93] ", "100 % [91, 100]"]


# ------------------------------------------------------------------------------------------------------------- tuning


def test_tuning_moves_what_the_paper_trains_and_leaves_the_painter_alone(painter, tmp_path):
    before = {name: value.clone() for name, value in painter.model.state_dict().items()}
    source = shot(1)
    z = latents_of(painter, source.film)
    training = replace(TUNING, steps=3, warmup=0, ema=0.0)
    model, result = fit(painter, z, source.prompt, training, tmp_path / "a")
    torch.manual_seed(training.seed)
    start = dict(inflate(painter.model, 9).named_parameters())
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}
    named = {name for name in start if any(f".{part}" in name for part in TRAINED) and name.startswith("unet")}
    assert moved == named and result.steps == 3
    assert all(torch.equal(value, before[name]) for name, value in painter.model.state_dict().items())
    again, _ = fit(painter, z, source.prompt, training, tmp_path / "b")
    other, _ = fit(painter, z, source.prompt, replace(training, seed=16), tmp_path / "c")
    pairs = [(model.state_dict(), each.state_dict()) for each in (again, other)]
    assert [all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs] == [True, False]


def test_an_editor_of_a_tuned_and_of_an_untuned_painter(painter):
    source = shot(1)
    plain, moved = tuned(painter, source, 0), tuned(painter, source, 2)
    z = latents_of(painter, source.film)
    assert torch.equal(plain.z, z) and torch.equal(moved.z, z) and plain.prompt == moved.prompt == source.prompt
    silent, loud = ([p.abs().max() for n, p in e.model.named_parameters() if n.endswith("over_time.to_out.weight")]
                    for e in (plain, moved))  # fmt: skip
    assert max(silent) == 0 and min(loud) > 0
    t, ids = torch.full((9,), 0.5), torch.ones(9, 24, dtype=torch.long)
    own = tuned(painter, source, 0, "own").model(z, t, ids)
    torch.testing.assert_close(own, painter.model(z, t, ids))
    assert not torch.allclose(plain.model(z, t, ids), own, atol=1e-3)


def test_a_short_run_is_probed_with_draws_that_do_not_change(painter, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.Painter, "load", lambda name, device: painter)
    log = recipe.short_run(1, steps=10, folder=tmp_path)
    assert log["step"].tolist() == [2, 4, 6, 8, 10]
    held = log["held"][~torch.tensor(log["held"]).isnan().numpy()]
    assert len(held) == 3 and len({round(float(value), 12) for value in held}) == 3
    frozen = sum(not p.requires_grad for p in inflate(painter.model, 9).parameters())
    assert set(log["still"][~torch.tensor(log["still"]).isnan().numpy()]) == {frozen}
    samples = log["samples"]
    assert all(samples[step].shape == samples["truth"].shape == (3, 3, 32, 32) for step in (2, 4, 10))


# -------------------------------------------------------------------------------------------------------- the measures


def test_where_an_edit_starts(painter):
    editor = replace(tuned(painter, shot(1), 0), steps=3)
    assert torch.equal(experiment.start(editor, "inverted", 1), editor.inverted())
    assert torch.equal(experiment.start(editor, "inverted untold", 1), editor.inverted(""))
    fresh = experiment.start(editor, "fresh", 1)
    assert torch.equal(fresh, noise(experiment.NOISE + 100, 9, (4, 8, 8)))
    assert not torch.equal(fresh, experiment.start(editor, "fresh", 2))
    half = replace(editor, back=0.5)
    added = PROCESS.add_noise(editor.z, fresh, torch.full((9,), 0.5))
    torch.testing.assert_close(experiment.start(half, "added", 1), added)


def test_every_arm_films_both_edits_with_its_own_editor_and_start(painter, monkeypatch):
    """Which editor and which noise each film is made with, and that no tuning is done twice."""
    made, asked = [], []

    def tuning(painter, source, steps, sees):
        made.append((steps, sees))
        return replace(plain, prompt=source.prompt)

    def film(painter, editor, prompt, begun):
        asked.append((prompt, round(float(begun.double().sum()), 4), editor.back))
        return shot(1).film

    plain = tuned(painter, shot(1), 0)
    monkeypatch.setattr(experiment, "tuned", tuning)
    monkeypatch.setattr(experiment, "filmed", film)
    numbered = {"fresh": 1.0, "inverted": 2.0, "inverted untold": 3.0, "added": 4.0}
    monkeypatch.setattr(experiment, "start", lambda editor, kind, index: torch.full((2,), numbered[kind]))
    table = experiment.compare(painter, 1, steps=7, walk=3)
    assert made == [(7, "sparse-causal"), (0, "sparse-causal"), (0, "own"), (7, "all")]
    prompts = [edit.wanted.prompt for edit in scores.edits(shot(1), 1)]
    half = experiment.BACK
    starts = {"tuned": (4.0, half), "all the way back": (4.0, 1.0), "all the way, without a prompt": (6.0, 1.0),
              "all the way, not tuned": (4.0, 1.0), "walked back without a prompt": (6.0, half),
              "noise added": (8.0, half), "from fresh noise": (2.0, 1.0), "not tuned": (4.0, half),
              "frame by frame": (4.0, half), "sees all frames": (4.0, half)}  # fmt: skip
    assert asked == [(prompt, *starts[name]) for name in experiment.ARMS for prompt in prompts]
    assert set(table) == {*experiment.ARMS, "cost", "the film itself", "the true edit"}
    assert [row["kind"] for row in table["tuned"]] == ["colour", "shape"]
    assert not any(row["changed"] for row in table["tuned"])


def test_everything_is_measured_once_and_counted(painter, tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(experiment.Painter, "load", lambda name, device: painter)
    found = experiment.measure(tmp_path)
    assert json.loads(json.dumps(found)) == found and found["films"] == 2
    assert found["arms"]["tuned"]["together"]["edits"] == 4 and found["arms"]["tuned"]["colour"]["edits"] == 2
    assert found["arms"]["sees all frames"]["together"]["edits"] == 2
    assert {name: row["together"]["edits"] for name, row in found["steps of tuning"].items()} == {"0": 2, "1": 2}
    ways = [(1.0, 2, 1.0), (1.0, 2, 3.0), (experiment.BACK, 2, 1.0), (experiment.BACK, 2, 3.0)]
    assert [(row["back"], row["walk"], row["guidance"]) for row in found["way back"]] == ways
    tried = {f"{back:g}, {guidance:g}": 2 for back, guidance in experiment.SETTINGS}
    assert {name: row["together"]["edits"] for name, row in found["settings"].items()} == tried
    for name in ("compare", "sweep", "way_back", "settings"):
        monkeypatch.setattr(experiment, name, lambda *_: pytest.fail("made twice"))
    assert experiment.measure(tmp_path) == found


def test_settings_are_tried_by_one_tuned_painter(painter, monkeypatch):
    """Each with its own start, walked as far back as it says, and its own guidance."""
    made, asked = [], []
    monkeypatch.setattr(experiment, "tuned", lambda *_: made.append(1) or tuned(painter, shot(1), 0))

    def film(painter, editor, prompt, begun, guidance):
        torch.testing.assert_close(begun, editor.inverted())
        asked.append((editor.back, guidance))
        return shot(1).film

    monkeypatch.setattr(experiment, "filmed", film)
    found = experiment.settings(painter, 1, steps=7, walk=2)
    assert made == [1] and asked == [setting for setting in experiment.SETTINGS for _ in scores.KINDS]
    assert len(found) == len(experiment.SETTINGS) and {len(rows) for rows in found.values()} == {2}


def test_pairs_are_of_the_edits_that_both_arms_made():
    ours, theirs = ([{"all": bool(int(mark))} for mark in marks] for marks in ("11010111", "10100"))
    assert experiment.pairs(ours, theirs) == (2, 1)


def test_a_reader_s_film_is_cut_copied_and_walked_back(painter):
    film = numbers(5, 3, 40, 36).clamp(-1, 1)
    found = experiment.own_film(painter, film, walk=2)
    assert torch.equal(found["film"], film[:, :, 4:36, 2:34])
    small = painter.autoencoder.encode(found["film"])
    assert torch.equal(found["copy"], painter.autoencoder.decode(small).clamp(-1, 1))
    assert found["again"].shape == (5, 3, 32, 32) and not torch.equal(found["again"], found["copy"])
    for wrong in (film[:, :, :31], film[:1]):
        with pytest.raises(ValueError, match="film is"):
            experiment.own_film(painter, wrong)


def test_the_error_of_the_way_back_is_a_share_of_the_film(painter, monkeypatch):
    class Straight:
        """An editor that films half of itself."""

        def __init__(self, z):
            self.z, self.prompt, self.steps = z, "a circle", 0

        def inverted(self, guidance):
            return self.z

        def edit(self, prompt, noise, guidance):
            return noise / 2

    monkeypatch.setattr(experiment, "tuned", lambda *_: Straight(numbers(2, 4, 8, 8)))
    made = []
    monkeypatch.setattr(experiment, "replace", lambda editor, steps, back: made.append((back, steps)) or editor)
    rows = experiment.way_back(painter, shot(1), 1, (5, 10))
    assert [row["error"] for row in rows] == [0.5] * 8
    assert [(row["back"], row["walk"]) for row in rows] == made and set(made) == {
        (back, walk) for back in (1.0, experiment.BACK) for walk in (5, 10)
    }


def test_a_shot_of_another_scene():
    _, source = sliding()
    other = Shot.of(replace(source.scene, background="black" if source.scene.background == "grey" else "grey"))
    assert other.prompt == source.prompt and not torch.equal(other.film, source.film)


@pytest.mark.parametrize("ours, theirs, likely", [(0, 0, 1.0), (5, 0, 0.0625), (8, 1, 0.0390625), (3, 3, 1.0)])
def test_a_count_by_chance(ours, theirs, likely):
    assert scores.by_chance(ours, theirs) == scores.by_chance(theirs, ours) == pytest.approx(likely)
