"""What the painter of the film chapters learns from: stills, frames of films, and what they are called."""

from random import Random

import pytest
import torch

from soralab import world
from soralab.datasets import frames, stills
from soralab.latent_diffusion import word_ids
from soralab.world.language import short_caption
from soralab.world.scene import WALL

SAMPLES = [frames.sample(5, k) for k in range(300)]


def test_four_of_ten_are_stills_and_one_has_a_wall():
    rest = [k for k, (scene, _) in enumerate(SAMPLES) if scene == stills.mixed(5, k)]
    assert rest == [k for k in range(300) if k % 5 in (0, 2)] and all(SAMPLES[k][1] == 0 for k in rest)
    walls = [k for k, (scene, _) in enumerate(SAMPLES) if scene.objects[0].motion == WALL]
    assert {k for k in range(300) if k % 10 == 9} <= set(walls) and len(walls) < 60
    films = [SAMPLES[k] for k in range(300) if k % 5 not in (0, 2)]
    assert {frame for _, frame in films} == set(range(9))
    assert {scene.objects[0].motion for scene, _ in films} == set(world.MOTIONS)


def test_a_sample_is_of_its_numbers_alone():
    assert frames.sample(5, 3) == SAMPLES[3] and frames.sample(6, 3) != SAMPLES[3]
    assert frames.sample(5, 3, "test") != SAMPLES[3] and frames.sample(5, 13) != SAMPLES[3]
    held = [frames.sample(5, k, "held_out")[0] for k in range(40)]
    assert all(any(world.held_out(o.shape, o.colour, o.motion) for o in scene.objects) for scene in held)
    assert not any(scene.held_out for scene, _ in SAMPLES)
    with pytest.raises(ValueError, match="split"):
        frames.sample(5, 1, "tset")


@pytest.mark.parametrize("chunk", [7, 500])
def test_a_picture_is_that_frame_of_its_film(chunk):
    few = SAMPLES[:20]
    shown = frames.pictures(few, chunk=chunk)
    assert shown.shape == (20, 3, 32, 32)
    for picture, (scene, frame) in zip(shown, few, strict=True):
        assert torch.equal(picture, world.to_film(world.render([scene], 9, 32, 32))[0, frame])
    assert torch.equal(frames.pictures(few[:1]), stills.pictures([few[0][0]]))  # which stands still


@pytest.mark.parametrize("text, said", [
    ("a small red circle slides right", "a small red circle"),
    ("a blue square", "a blue square"),
    ("a large green ring quickly orbits clockwise on a grey background", "a large green ring on a grey background"),
    ("a small red circle grows", "a red circle"),
    ("a large red circle shrinks", "a red circle"),
    ("a small cyan triangle passes behind a wall", "a small cyan triangle behind a wall"),
    ("a red circle is left of a blue square", "a red circle is left of a blue square"),
    ("a red circle slides up and a blue square spins", "a red circle and a blue square"),
])  # fmt: skip
def test_what_a_picture_can_show_of_a_film(text, said):
    assert frames.still(text) == said
    word_ids([said], 24)  # the painter knows every word


def test_a_prompt_without_a_thing_is_refused():
    with pytest.raises(ValueError, match="text is ''; it takes a prompt that names a thing"):
        frames.still("")


def test_what_training_pictures_are_called():
    rng = Random(0)
    told = [(scene, frames.prompt(scene, rng)) for scene, _ in SAMPLES * 4]
    empty = sum(not text for _, text in told) / len(told)
    ground = sum("background" in text for _, text in told) / len(told)
    assert 0.07 < empty < 0.13 and 0.22 < ground < 0.32
    moving = [(scene, text) for scene, text in told if text and scene.objects[0].motion != "stays still"]
    for scene, text in moving:
        plain = text.split(" on a ")[0]
        want = frames.still(short_caption(scene))
        assert plain in (want, " ".join(word for word in want.split() if word not in world.SIZES))
        assert text == plain or text == f"{plain} on a {scene.background} background"
    sizes = [any(size in text for size in world.SIZES) for scene, text in moving
             if scene.objects[0].motion not in ("grows", "shrinks")]  # fmt: skip
    assert 0.6 < sum(sizes) / len(sizes) < 0.8
    assert frames.prompt(SAMPLES[1][0], Random(1), null=1.0) == ""
