"""The painter that has met frames of films: what it learns from, how it is measured, and what its cards say."""

from itertools import count, islice
from random import Random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from soralab import world
from soralab.datasets import frames, stills
from soralab.experiments import film_painter as experiment
from soralab.files.checkpoints import ROOT, read_card
from soralab.latent_diffusion import PROCESS
from soralab.recipes import film_painter as recipe
from soralab.world.language import short_caption

FIRST, SECOND = (read_card(name)["metrics"] for name in (recipe.FIRST, recipe.SECOND))


def test_the_library_is_the_samples_and_their_pictures():
    scenes, pictures = recipe.library(20)
    samples = [frames.sample(recipe.SEED, k) for k in range(20)]
    assert scenes == [scene for scene, _ in samples] and torch.equal(pictures, frames.pictures(samples))


def test_a_prompt_is_that_of_its_own_picture():
    scenes, _ = recipe.library(20)
    prompts = recipe.prompts_of(scenes)
    for k in (4, 11):
        wanted = recipe.word_ids([frames.prompt(scenes[k], Random(k))], recipe.CONFIG.words)[0]
        assert torch.equal(prompts(k, Random(k)), wanted)


def test_nothing_that_is_learnt_has_two_things():
    """Four of ten pictures are chapter 06's, and all of these have one thing; its test pictures have two as well."""
    assert all(len(frames.sample(3, k)[0].objects) == 1 for k in range(100))
    assert {len(stills.mixed(3, k, "test").objects) for k in range(20)} == {1, 2}


@pytest.mark.parametrize("kind", experiment.KINDS)
def test_films_of_a_kind_are_of_that_kind_and_unseen(kind):
    scenes, films = experiment.films_of(kind, 3)
    assert films.shape == (3, frames.FRAMES, 3, 32, 32)
    assert all(scene.objects[0].motion in experiment.KINDS[kind] for scene in scenes)
    tested = (world.sample_scene(experiment.SEED, k, "simple", "test") for k in count())
    of_that_kind = (scene for scene in tested if scene.objects[0].motion in experiment.KINDS[kind])
    assert scenes == list(islice(of_that_kind, 3))
    assert not set(scenes) & {frames.sample(recipe.SEED, k)[0] for k in range(500)}


class Stub(nn.Module):
    """A painter's network that answers `share` of the noise, and notes the prompts' ids."""

    def __init__(self, share: float):
        super().__init__()
        self.share, self.config, self.z, self.ids = share, SimpleNamespace(words=24), None, []

    def forward(self, x, t, ids):
        self.ids.append(ids)
        alpha, sigma = (of(t).view(-1, 1, 1, 1).to(x) for of in (PROCESS.alpha, PROCESS.sigma))
        return self.share * (x - alpha * self.z) / sigma


@pytest.mark.parametrize("share, error", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_the_error_is_that_of_the_noise(share, error):
    model = Stub(share)

    seen = []

    def encode(pictures):
        seen.append(pictures)
        model.z = nn.functional.avg_pool2d(pictures, 4)
        return model.z

    table = experiment.measure_frames(SimpleNamespace(model=model, autoencoder=SimpleNamespace(encode=encode)), 4)
    assert set(table) == {"stills", *experiment.KINDS}
    for row in table.values():
        assert list(row) == [f"t={t}" for t in experiment.TIMES]
        assert all(value == pytest.approx(error, abs=0.12 * error + 1e-4) for value in row.values())
    _, films = experiment.films_of("slides", 4)
    assert torch.equal(seen[1], films[range(4), [4, 5, 6, 4]])  # frames in the middle, where things are under way
    # the prompt of a frame says what a frame shows: its motion is not in it
    scenes, _ = experiment.films_of("slides", 4)
    wanted = recipe.word_ids([frames.still(short_caption(scene)) for scene in scenes], 24)
    assert torch.equal(model.ids[len(experiment.TIMES)], wanted)


def test_copies_are_read_as_what_they_are_of():
    def stage(decode):
        return SimpleNamespace(encode=lambda x: x, decode=decode)

    right = experiment.measure_copies(stage(lambda z: z), 2)
    assert list(right) == ["stills", *experiment.KINDS]
    assert all(row == {"psnr": float("inf"), "read_right": 1.0} for row in right.values())
    black = experiment.measure_copies(stage(lambda z: -torch.ones_like(z)), 2)
    assert all(row["read_right"] == 0 and 5 < row["psnr"] < 30 for row in black.values())


def test_each_of_the_two_cards_has_its_own_measures(monkeypatch):
    class Paints:
        load = classmethod(lambda cls, **_: "chapter 06's")

        def __new__(cls, model, autoencoder):
            return model

    monkeypatch.setattr(experiment, "Painter", Paints)
    monkeypatch.setattr(experiment, "load_autoencoder", lambda *_: SimpleNamespace(to=lambda where: "before"))
    monkeypatch.setattr(experiment, "measure_copies", lambda model, count: model)
    monkeypatch.setattr(experiment, "measure_frames", lambda painter, count: painter)
    monkeypatch.setattr(experiment, "measure", lambda painter, count, **_: painter)
    trained = SimpleNamespace(model="ours", card={"autoencoder": "film_autoencoder"})
    assert experiment.metrics(recipe.FIRST, trained) == {"copies": "ours", "copies of chapter 06": "before"}
    assert experiment.metrics(recipe.SECOND, trained) == {
        "scores": "ours", "error": "ours", "error of chapter 06": "chapter 06's"}  # fmt: skip


def test_walls_were_the_hole_and_are_none_now():
    walls, before = FIRST["copies"]["wall"], FIRST["copies of chapter 06"]["wall"]
    assert walls["read_right"] > 0.95 and before["read_right"] < 0.05
    said = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"at {walls['psnr']:.1f} dB where chapter 06's stage has {before['psnr']:.1f}" in said
    for t in ("t=0.2", "t=0.4"):
        ours, theirs = SECOND["error"]["wall"], SECOND["error of chapter 06"]["wall"]
        assert ours[t] < theirs[t] / 5


def test_what_is_said_of_one_thing_and_of_two():
    said = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    shares = [SECOND["scores"][f"{split}, 1"]["all"] for split in ("test", "held_out")]
    assert {round(100 * share) for share in shares} == {95} and "in 95 % of pictures" in said
    assert SECOND["scores"]["test, 2"]["all"] < 0.01 and "two it has never met" in said
