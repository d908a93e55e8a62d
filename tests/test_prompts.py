"""A prompt is read whole or refused: what people type, what is left over, what the model never learnt."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from soralab.world.language import descriptive_caption, short_caption, words
from soralab.world.prompts import read_prompt
from soralab.world.reader import read_caption
from soralab.world.sampling import sample_scene
from soralab.world.scene import COLOURS, DIRECTIONS, MOTIONS, SHAPES, SIZES


def test_every_caption_of_the_world_is_read_as_it_stands():
    for index in range(600):
        for level in ("simple", "full"):
            scene = sample_scene(707, index, level)
            for caption in (short_caption(scene), descriptive_caption(scene)):
                prompt = read_prompt(caption)
                assert prompt.text == " ".join(words(caption))
                assert len(prompt.things) == len(scene.objects)
                assert prompt.unlearnt(level) == []


@pytest.mark.parametrize("typed, read", [
    ("A SMALL, red ball is sliding to the right!", "a small red circle slides right"),
    ("the red circle slides up", "a red circle slides up"),
    ("an orange ring; it", None),
    ("two red circles", "a red circle and a red circle"),
    ("2 small moons are growing", "a small moon grows and a small moon grows"),
    ("a circles grow", "a circle grows"), ("the circles grow", None), ("two grow", None),
    ("three crosses", "a cross and a cross and a cross"), ("two balls", "a circle and a circle"),
    ("one cross bounces", "a cross bounces"),
    ("a big blue box is rotating counter-clockwise", "a large blue square spins anticlockwise"),
    ("a red circle moves upwards", "a red circle slides up"),
    ("a red circle slides right and up", "a red circle slides up and right"),
    ("a red circle slides down-left", "a red circle slides down and left"),
    ("a red small circle stands still", "a small red circle stays still"),
    ("a ring is still", "a ring stays still"),
    ("a cross jumps slowly", "a cross slowly bounces"),
    ("a cross slides left fast", "a cross quickly slides left"),
    ("red slides right", "red slides right"),
    ("a moon passes behind the wall moving left", "a moon passes behind a wall moving left"),
    ("on grey background a moon grows", "on a grey background a moon grows"),
    ("a moon grows on the grey background. Camera is still.", "a moon grows on a grey background the camera is still"),
    ("a red cross spins. the red cross is above a blue ring", "a red cross spins the red cross is above a blue ring"),
    ("a red circle slides right and bumps into a blue square that then slides right",) * 2,
    ("a red circle in front of a blue square that grows",) * 2,
    ("an orange circle grows", "an orange circle grows"),
    ("a orange circle grows", "an orange circle grows"),
    ("crosses", None), ("circles bounce", None),
    ("a red circle slides up then down", None), ("a red circle slides up and down", None),
    ("a red circle slides", None), ("a red circle slides right slides left", None), ("a cross spins right", None),
    ("a cross grows clockwise", None), ("a square spins and grows", None), ("a red blue circle", None),
    ("a small large circle", None), ("a circle on a red background", None), ("bounces", None), ("two", None),
    ("a circle that", None), ("a circle and", None), ("a circle is", None), ("a circle left of", None),
    ("a circle right of a square", None), ("a moon passes behind a wall moving", None), ("and a circle", None),
    ("the camera pans left", None), ("a circle slowly", None), ("a circle the camera", None), ("a circle on a", None),
])  # fmt: skip
def test_a_prompt_is_read_whole_or_refused(typed, read):
    if read is None:
        with pytest.raises(ValueError, match="prompt") as info:
            read_prompt(typed)
        assert "\n" not in str(info.value)
    else:
        assert read_prompt(typed).text == read


def test_nothing_is_dropped():
    """Every word that is put into a caption changes what is read, or is named in the refusal."""
    rng, extra = Random(5), [*SIZES, *COLOURS, *SHAPES, "up", "then", "and", "clockwise", "behind", "wall", "of", "is"]
    for _ in range(400):
        caption = short_caption(sample_scene(11, rng.randrange(10**6), "simple")).split()
        word, at = rng.choice(extra), rng.randrange(len(caption) + 1)
        typed = " ".join([*caption[:at], word, *caption[at:]])
        try:
            read = read_prompt(typed).text
        except ValueError as error:
            assert "understood" in str(error), typed
        else:
            small = ("a", "an", "and")  # "up left" is read as "up and left"
            kept, given = (sorted(w for w in text.split() if w not in small) for text in (read, typed))
            assert kept == given, (typed, read)


def test_what_was_not_understood_is_named_with_what_is_taken():
    with pytest.raises(ValueError) as info:
        read_prompt("a red circle slides up then down")
    said = str(info.value)
    assert '"then down" is not understood in the prompt after "a red circle slides up"' in said
    with pytest.raises(ValueError, match='"right" is not understood .* after "red circle": slides takes one direction'):
        read_prompt("red circle right")
    assert all(motion.split()[0] in said for motion in MOTIONS) and "checkered" in said
    with pytest.raises(ValueError, match="one direction: " + ", ".join(DIRECTIONS)):
        read_prompt("a red circle slides")
    with pytest.raises(ValueError, match='how many moons are there\\? say "a moon" or "two moons"'):
        read_prompt("red moons grow")


@pytest.mark.parametrize("sign", ["\U0001f534", "\u2192", "#", "<", "\u2764\ufe0f", "+"])
def test_a_sign_is_never_dropped(sign):
    for typed in (f"a red circle {sign} grows", sign):
        with pytest.raises(ValueError, match="which is no word: say it in words"):
            read_prompt(typed)


@pytest.mark.parametrize("typed, missing", [
    ("a red circle grows", []), ("a red circle grows on a black background", []),
    ("a cross grows on a grey background, the camera is still", []),
    ("two crosses grow", ["2 things"]), ("a cross left of a ring, and a moon", ["3 things"]),
    ("a cross grows on a striped background", ["a striped background"]),
    ("a cross grows on a checkered background, the camera pans right",
     ["a checkered background", "a camera that pans right"]),
    ("a ring spins", ["a ring that spins (nobody can see it turn)"]), ("a cross spins", []),
])  # fmt: skip
def test_what_the_simple_world_never_shows_is_listed(typed, missing):
    assert read_prompt(typed).unlearnt() == missing
    assert read_prompt(typed).unlearnt("full") == [what for what in missing if "nobody can see it" in what]


@pytest.mark.parametrize("typed, missing", [
    ("two red circles", ["two things that are red"]), ("a red circle and a blue ring", []),
    ("a red circle passes behind a wall and a blue square bounces", ["a wall with several things"]),
    ("a red circle passes behind a wall", []),
    ("a red circle on a black background, the camera pans left", ["a camera that pans left over a black background"]),
    ("a red circle grows on a striped background, the camera pans left", []),
])  # fmt: skip
def test_what_the_full_world_never_shows_is_listed(typed, missing):
    assert read_prompt(typed).unlearnt("full") == missing


def test_of_the_full_worlds_own_prompts_nothing_is_new():
    for k in range(300):
        scene = sample_scene(5, k, "full", "train")
        assert read_prompt(short_caption(scene)).unlearnt("full") == [], short_caption(scene)


@pytest.mark.parametrize("typed", [
    "a circle red", "a red circle slides right blue", "red circle blue", "a red square spins. the red square grows",
    "the circle slides right and the circle bounces", "a red circle in front of a blue square slides right",
    "a red circle above a blue square slides right", "two circles bump into a square",
    "two small red circles above a blue square",
])  # fmt: skip
def test_what_could_be_said_of_another_thing_is_refused(typed):
    """A colour after its noun, a second motion, a motion after a relation, a relation of one of two."""
    with pytest.raises(ValueError, match="is not understood in the prompt after"):
        read_prompt(typed)


RIGHT = "a red circle slides right"


@pytest.mark.parametrize("typed, read", [
    ("two red circles and a blue square slide right", f"{RIGHT} and {RIGHT} and a blue square slides right"),
    ("a red circle and two squares are sliding to the right",
     f"{RIGHT} and a square slides right and a square slides right"),
    ("a circle, a ring and a moon quickly slide up",
     "a circle quickly slides up a ring quickly slides up and a moon quickly slides up"),
    ("a ring and a moon are still", "a ring stays still and a moon stays still"),
    ("a ring and a moon stand still", "a ring stays still and a moon stays still"),
    ("a moon grows and a cross and a ring spin", "a moon grows and a cross spins and a ring spins"),
    ("a red circle and a blue square slides right", "a red circle and a blue square slides right"),
    ("a ring and a moon is growing", "a ring and a moon grows"),
    ("a red circle slides right and a moon grow", f"{RIGHT} and a moon grows"),
    ("a ring moving up", "a ring slides up"), ("a ring that slide up", "a ring that slides up"),
])  # fmt: skip
def test_what_several_things_do_is_said_of_each(typed, read):
    """A verb in the plural is said of all things since the last motion; one in the singular of its own alone."""
    assert read_prompt(typed).text == read


@pytest.mark.parametrize("typed", [
    "two red circles and a blue square sliding right", "a ring is above a moon and a cross grow",
    "a ring left of a moon that grow", "a ring spins. the ring and a moon grow",
])  # fmt: skip
def test_where_nobody_knows_who_does_it_the_mend_is_named(typed):
    """All of them or the last, those of a relation, one that has a motion already."""
    with pytest.raises(ValueError, match=f'is not understood .*: say of each thing what it does, such as "{RIGHT} and'):
        read_prompt(typed)


def test_a_refusal_shows_no_sign_that_was_not_typed():
    for typed in ("two red circles slide", "a ring left of growing moons", "a ring and a moon growing", "grow"):
        with pytest.raises(ValueError) as info:
            read_prompt(typed)
        assert not set("+?") & set(str(info.value).replace("are there?", "")), typed


def test_a_thing_that_is_named_again_may_stand_in_a_relation():
    said = "a red circle slides right and a blue square spins. the red circle is above the blue square"
    assert [thing["motion"] for thing in read_prompt(said).things] == ["slides right", "spins"]
    assert read_prompt("a red slides right").things[0]["colour"] == "red"  # where no noun is, a colour is a thing


def test_four_things_are_more_than_the_full_world_shows():
    assert read_prompt("three crosses grow and a red moon bounces").unlearnt("full") == ["4 things"]


def test_the_things_are_those_of_the_text():
    prompt = read_prompt("two BIG blue boxes slide down")
    assert prompt.things == read_caption("a large blue square slides down and a large blue square slides down")
    with pytest.raises(ValueError, match="words; it takes at most 48"):
        read_prompt("red " * 60)
    with pytest.raises(ValueError, match="has 71 words; it takes at most 48"):  # a number makes a short prompt long
        read_prompt(" and ".join(["three small red circles quickly slide right"] * 3))
    for other in (None, 3, ["a red circle"]):
        with pytest.raises(ValueError, match="the prompt is .*; it takes text"):
            read_prompt(other)
    for nothing in ("", " \n", "!?"):
        with pytest.raises(ValueError, match="the prompt is empty"):
            read_prompt(nothing)


def test_readme_prompts_are_read():
    """Every English prompt that README.md shows, and the grounds that it says a prompt may end in."""
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    shown = [prompt for prompt in re.findall(r'soralab film "([^"]+)"', text) if prompt.isascii()]
    assert shown and 'may end in "on a black background" (or grey)' in text
    for prompt in shown:
        for end in ("", " on a black background", " on a grey background"):
            assert read_prompt(prompt + end).text == prompt + end and read_prompt(prompt + end).unlearnt() == []
