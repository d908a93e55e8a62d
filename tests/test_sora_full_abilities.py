"""How the abilities of chapter 16's whole model are judged: true films pass, and spoilt ones do not."""

import json
from types import SimpleNamespace

import pytest
import torch
from test_device import here_and_there
from tiny_full import tiny_filmmaker
from tiny_models import randomise

from soralab import world
from soralab.experiments import sora_full, sora_prediction
from soralab.experiments import sora_full_abilities as abilities
from soralab.experiments import sora_full_scores as scores
from soralab.files.checkpoints import load_checkpoint, save_checkpoint
from soralab.sora_full import EDGE, FullSora
from soralab.training import profiles
from soralab.training.state import weights_hash
from soralab.world.language import short_caption
from soralab.world.reader import read_caption
from soralab.world.scene import COLOURS, held_out

TOLD = abilities.scenes(12)
TEXTS = [short_caption(scene) for scene in TOLD]
TRUE = world.to_film(world.render(TOLD, abilities.LONG))


class Truth:
    """A filmmaker that answers with the true films."""

    @staticmethod
    def some(frames, count):
        return world.to_film(world.render(TOLD[:count], frames))

    def extend(self, films, by, texts, seed, backwards, **options):
        assert films.shape[1] == by == abilities.SHORT and options["rate"] == abilities.LONG
        true = self.some(abilities.LONG, len(films))
        given = true[:, by:] if backwards else true[:, :by]
        assert texts == TEXTS[: len(films)] and torch.equal(given, films)
        return true

    def animate(self, pictures, texts, frames, seed):
        assert pictures.ndim == 4
        return self.some(frames, len(pictures))

    def join(self, a, b, by, texts, seed, rate):
        true = self.some(2 * EDGE + by, len(a))
        assert rate == 19 == true.shape[1] and by == abilities.SHORT and texts == TEXTS[: len(a)]
        assert torch.equal(true[:, :5], a) and torch.equal(true[:, 14:], b)
        return true

    def loop(self, films, by, texts, seed):
        """There and back: the way back is the way there, backwards."""
        assert by == films.shape[1] == abilities.SHORT
        return torch.cat([films, films.flip(1)], dim=1)

    def edit(self, films, new, strength, seed, told, rate):
        assert rate == abilities.SHORT and new == [abilities.recoloured(scene) for scene in TOLD]
        self.told = told
        return films


def shares(table):
    return {what: right / of for what, (right, of) in table.items()}


@pytest.mark.parametrize("backwards", [False, True])
def test_true_films_keep_their_things_and_have_smooth_seams(backwards):
    found = shares(abilities.extended(Truth(), 12, backwards))
    assert found["identity"] == found["all"] == 1 and found["seam"] > 0.8


def test_a_first_frame_of_a_true_film_is_brought_to_life():
    found = shares(abilities.animated(Truth(), 12))
    assert found["identity"] == found["all"] == 1 and found["seam"] > 0.8


def test_ends_of_a_true_film_are_joined_by_what_lies_between():
    found = shares(abilities.joined(Truth(), 12))
    assert found["identity"] == found["all"] == 1 and found["seam"] > 0.8


def test_a_loop_that_goes_back_as_it_came_is_smooth_at_both_ends():
    found = shares(abilities.looped(Truth(), 12))
    assert found["identity"] == found["seam"] == 1


JUMPS = {  # where the films of an ability jump, and whether that is at a seam
    "extended": [(abilities.SHORT, True), (abilities.SHORT - 3, False), (1, False)],
    "animated": [(1, True), (5, False)],
    "joined": [(EDGE, True), (EDGE + abilities.SHORT, True), (EDGE + 1, False)],
    "looped": [(abilities.SHORT, True), (5, False)],
}


@pytest.mark.parametrize("name, place, seam", [(name, *row) for name, rows in JUMPS.items() for row in rows])
def test_a_jump_is_seen_at_the_seam_and_nowhere_else_and_is_held_against_true_films(name, place, seam):
    class Jumpy(Truth):
        def jump(self, films):
            return torch.cat([films[:, :place], -films[:, place:]], dim=1)

        def extend(self, *given, **options):
            return self.jump(super().extend(*given, **options))

        def animate(self, *given):
            return self.jump(super().animate(*given))

        def join(self, *given, **options):
            return self.jump(super().join(*given, **options))

        def loop(self, *given):
            return self.jump(super().loop(*given))

    ask = {"extended": lambda maker: abilities.extended(maker, 12, False)}.get(name, lambda maker: getattr(
        abilities, name)(maker, 12))  # fmt: skip
    smooth, usual = shares(ask(Jumpy()))["seam"], shares(ask(Truth()))["seam"]
    if name == "looped":  # turned to its negative it ends another: the second seam jumps too
        assert smooth == 0
    else:
        assert smooth == (0 if seam else usual)


def test_a_loop_must_close():
    class Open(Truth):
        def loop(self, films, *given):
            return torch.cat([films, films[:, -1:].expand(-1, abilities.SHORT, -1, -1, -1)], dim=1)

    moving = [thing.motion != "stays still" for scene in TOLD for thing in scene.objects]
    right, of = abilities.looped(Open(), 12)["seam"]
    assert right <= of - sum(moving) // 2  # what has moved is not where it was


def test_each_part_of_the_films_has_its_own_noise(monkeypatch):
    monkeypatch.setattr(abilities, "CHUNK", 5)
    seeds = []

    class Noted(Truth):
        def extend(self, films, by, texts, seed, backwards, **options):
            seeds.append((seed, len(films)))
            at = seed - abilities.NOISE
            assert torch.equal(films, TRUE[at : at + len(films), :by]) and texts == TEXTS[at : at + len(films)]
            return TRUE[at : at + len(films)]

    assert abilities.extended(Noted(), 12, False)["all"] == [12, 12]
    assert seeds == [(abilities.NOISE, 5), (abilities.NOISE + 5, 5), (abilities.NOISE + 10, 2)]


def test_each_part_of_what_is_joined_has_its_own_noise(monkeypatch):
    monkeypatch.setattr(abilities, "CHUNK", 5)
    seeds = []

    class Noted:
        def join(self, a, b, by, texts, seed, rate):
            seeds.append((seed, len(a)))
            assert texts == TEXTS[seed - abilities.NOISE :][: len(a)]
            return torch.cat([a, a[:, :1].expand(-1, by, -1, -1, -1), b], dim=1)

    abilities.joined(Noted(), 12)
    assert seeds == [(abilities.NOISE, 5), (abilities.NOISE + 5, 5), (abilities.NOISE + 10, 2)]


def test_each_ability_is_measured_under_its_own_name():
    work = sora_full.work_on("maker", 8)

    def asked(title):
        return work[title].func, work[title].args, work[title].keywords

    assert asked("extended") == (abilities.extended, ("maker", 2, False), {})
    assert asked("extended backwards") == (abilities.extended, ("maker", 2, True), {})
    assert asked("joined") == (abilities.joined, ("maker", 2), {})
    assert asked("looped") == (abilities.looped, ("maker", 2), {})
    assert asked("brought to life") == (abilities.animated, ("maker", 2), {})
    assert asked("edited by noise, 0.7") == (abilities.edited, ("maker", 2, 0.7), {})
    assert asked("edited by inversion, 0.7") == (abilities.edited, ("maker", 2, 0.7, True), {})
    assert asked("simple") == (scores.measure, ("maker", "simple", 8), {})
    assert asked("48 x 64") == (scores.measure, ("maker", "48 x 64", 2), {})
    assert asked("simple, in 4 steps") == (scores.measure, ("maker", "simple", 8), {"steps": 4})


def test_another_thing_after_the_seam_is_not_the_same_and_its_seam_is_seen():
    other = world.to_film(world.render(abilities.scenes(24)[12:], abilities.LONG))
    halves = torch.cat([TRUE[:, :9], other[:, 9:]], dim=1)
    assert sum(abilities.same(halves, TEXTS)) <= 1 and sum(abilities.smooth(halves, [9], TRUE)) <= 1
    assert all(abilities.same(TRUE, TEXTS))


def test_smooth_is_asked_at_every_seam_that_is_named():
    jump = TRUE.clone()
    jump[:, 5:] = -jump[:, 5:]
    assert not any(abilities.smooth(jump, [5], TRUE)) and not any(abilities.smooth(jump, [9, 5], TRUE))
    assert abilities.smooth(jump, [9], TRUE) == abilities.smooth(TRUE, [9], TRUE)


def test_an_edit_that_changes_nothing_keeps_the_motion_and_not_the_colour():
    found = shares(abilities.edited(Truth(), 12, 0.6))
    assert found["motion"] == found["shape"] == 1 and found["colour"] == found["both"] == 0


def test_an_edit_by_inversion_tells_what_the_films_are_and_one_by_noise_does_not():
    for inverted, told in ((True, TEXTS), (False, None)):
        abilities.edited(maker := Truth(), 12, 0.6, inverted)
        assert maker.told == told


def test_an_edit_asks_for_another_colour_and_nothing_else():
    for scene in TOLD:
        old, new = (read_caption(text)[0] for text in (short_caption(scene), abilities.recoloured(scene)))
        assert old.pop("colour") != new.pop("colour") and old == new


def test_no_edit_asks_for_what_training_held_out():
    scenes = abilities.scenes(50)
    new = [read_caption(abilities.recoloured(scene))[0]["colour"] for scene in scenes]
    assert not any(held_out(scene.objects[0].shape, colour) for scene, colour in zip(scenes, new, strict=True))
    third = [COLOURS[(COLOURS.index(scene.objects[0].colour) + 3) % len(COLOURS)] for scene in scenes]
    assert sum(a == b for a, b in zip(third, new, strict=True)) == 43  # the others' third was held out


def test_all_abilities_compute_on_the_card():
    def act():
        maker = tiny_filmmaker()
        maker.sora.to(profiles.device()), maker.autoencoder.to(profiles.device())
        for ability in (
            lambda: abilities.extended(maker, 1, False, steps=1), lambda: abilities.extended(maker, 1, True, steps=1),
            lambda: abilities.animated(maker, 1, steps=1), lambda: abilities.joined(maker, 1, steps=1),
            lambda: abilities.looped(maker, 1, steps=1), lambda: abilities.edited(maker, 1, 0.5, True, steps=1),
        ):  # fmt: skip
            yield ability()

    here, there = here_and_there(lambda: list(act()))
    assert here == there


def test_what_is_measured_is_kept_and_told_in_a_table(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(sora_full, "work_on", lambda maker, count: {"a, b": lambda: calls.append(1) or {"all": [3, 4]}})
    monkeypatch.setattr(sora_full, "decoded_by", lambda decoder, first: f"{decoder} of {first}")
    monkeypatch.setattr(sora_full, "load_autoencoder", lambda name: torch.nn.Identity())
    hashes = {"sora_full_decoder of one": "1" * 64, "sora_full_decoder of another": "2" * 64}
    monkeypatch.setattr(sora_full, "read_card", lambda name: {"sha256": hashes[name]})
    monkeypatch.setattr(sora_full, "RUNS", tmp_path)
    models = [torch.nn.Linear(2, 2) for _ in range(2)]
    for steps, first, model, anew in (
        (5, "one", 0, True), (5, "one", 0, False), (6, "one", 0, True), (6, "another", 0, True),
        (6, "another", 1, True), (6, "one", 0, False),
    ):  # fmt: skip
        trained = SimpleNamespace(model=models[model], card={"steps": steps, "autoencoder": first})
        before = len(calls)
        assert sora_full.metrics("sora_full", trained) == {"a, b": {"all": [3, 4]}}
        assert len(calls) - before == anew, (steps, first, model)
    before = len(calls)
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")  # of more films, anew
    sora_full.metrics("sora_full", trained)
    assert len(calls) == before + 1
    assert "a, b" in (line := sora_full.table({"a, b": {"all": [3, 4]}})) and "of 4: all 75 (30\u201395)" in line


def test_a_compact_table_has_a_line_for_each_title_and_what_is_true_beside_it():
    found = {"a": {"shape": [1, 2], "all": [3, 4]}, "b, c": {"all": [0, 8]}, f"{sora_full.TRUE}a": {"all": [4, 4]},
             f"{sora_full.TRUE}b, c": {"all": [7, 8]}}  # fmt: skip
    head, first, second = sora_full.compact(found, ["a", "b, c"], ("shape", "all")).splitlines()
    assert head.split() == ["shape", "all", "true"] and first.split() == ["a", "50", "75", "(30\u201395)", "100"]
    assert second.split() == ["b,", "c", "\u2013", "0", "(0\u201332)", "88"]
    assert head.endswith("true") and {len(head), len(first), len(second)} == {len(head)}
    head, line = sora_full.compact({"a": found["a"]}, ["a"], ("all",)).splitlines()
    assert head.split() == ["all"] and line.split() == ["a", "75", "(30\u201395)"]


def test_true_films_stand_beside_every_kind_of_prompt():
    work = sora_full.work_on(Truth(), 8)
    assert {"simple", "brought to life", "edited by noise, 0.6"} <= set(work)
    for kind in ("simple", "full, two things"):
        found = work[f"{sora_full.TRUE}{kind}"]()
        assert sora_full.FEW == tuple(work[f"simple, in {steps} steps"].keywords["steps"] for steps in sora_full.FEW)
        assert found["all"] == [8, 8] and list(work)[list(work).index(kind) + 1] == f"{sora_full.TRUE}{kind}"


def test_the_first_decoder_shows_the_same_films(monkeypatch):
    """The row that tells what the decoder of its own is worth: all else is the same."""
    maker, plain, asked = tiny_filmmaker(), torch.nn.Identity(), []
    monkeypatch.setattr(sora_full, "load_autoencoder", {sora_full.AUTOENCODER: plain}.get)
    monkeypatch.setattr(sora_full, "measure", lambda *a, **options: asked.append((*a, options)))
    sora_full.work_on(maker, 8)[sora_full.FIRST]()
    ((other, kind, count, options),) = asked
    assert other.autoencoder is plain and other.sora is maker.sora and (kind, count, options) == ("simple", 8, {})


def test_what_the_repository_holds_is_measured_and_its_card_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sora_full, "BEGUN", tmp_path)
    monkeypatch.setattr(sora_full, "RUNS", tmp_path / "runs")
    held = [tiny_filmmaker().sora]
    monkeypatch.setattr(sora_full, "begun", lambda: (held[0], {}))
    monkeypatch.setattr(sora_full, "decoded_by", lambda decoder, first: first)
    monkeypatch.setattr(sora_full, "load_autoencoder", {"x": (own := tiny_filmmaker().autoencoder)}.get)
    monkeypatch.setattr(sora_full, "read_card", lambda name: {"sha256": "0123456789"})
    seen = []
    monkeypatch.setattr(sora_full, "work_on", lambda maker, count: {"a": lambda: seen.append(maker) or {"all": [3, 4]}})
    weights = {"weight": torch.randn(3, 4)}
    save_checkpoint(tmp_path / "sora_full", weights, {"steps": 7, "autoencoder": "x"}, eight_bits=True)
    before, _ = load_checkpoint(tmp_path / "sora_full")
    sora_full.main()
    after, card = load_checkpoint(tmp_path / "sora_full")
    torch.testing.assert_close(after["weight"], before["weight"], rtol=1e-6, atol=0)
    assert card["metrics"] == {"a": {"all": [3, 4]}} and card["steps"] == 7 and not seen[0].sora.training
    assert "of 4: all 75" in capsys.readouterr().out and seen[0].autoencoder is own
    of = weights_hash(held[0])[:8]
    folders = tmp_path / "runs" / "sora_full"
    assert [path.name for path in folders.iterdir()] == [f"metrics_7_{of}_2_01234567"]
    sora_full.main()
    assert len(seen) == 1  # what was measured is kept
    held[0] = randomise(FullSora(held[0].config), 9)
    sora_full.main()
    assert len(seen) == 2 and len(list(folders.iterdir())) == 2  # of another training that ended at the same step, not


@pytest.mark.parametrize("run", [("latents", "v", "x"), ("pixels", "eps", "v")])
def test_one_of_the_eighteen_runs(monkeypatch, tmp_path, run):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    found = sora_prediction.measured(sora_prediction.Run(*run), tmp_path / "run")
    assert len(found["errors"]) == len(sora_prediction.TIMES) and found["films"] == 2
    assert json.loads(json.dumps(found)) == found
