"""Chapter 12's data: what a picture is called by the web, a hurried and a patient writer; and the batches."""

from collections import Counter
from random import Random

import pytest
import torch

from soralab import world
from soralab.datasets import recaptions, stills
from soralab.datasets.recaptions import (
    Captioned,
    described_film,
    descriptive,
    film_scene,
    place,
    short,
    short_film,
    shortened,
    told_places,
    web,
    web_text,
)
from soralab.recaptioning import to_ids
from soralab.recipes.latent_diffusion import CONFIG as PAINTER
from soralab.world.claims import STILL, judge, keeps, precision, recall, together
from soralab.world.language import DESCRIPTIVE_LENGTH, words
from soralab.world.reader import read_caption, read_setting

SCENES = [stills.mixed(12, k) for k in range(400)]
RED = world.Object("circle", "red", "small", "stays still", x=-0.3, y=-0.2)
BLUE = world.Object("square", "blue", "medium", "stays still", x=0.1, y=0.2)
TWO = world.Scene((RED, BLUE), "grey", relation=world.Relation("left of", 0, 1))


def test_the_four_ways_to_call_a_picture():
    assert descriptive(TWO) == ("a small red circle up on the left is left of a medium blue square down "
                                "on a grey background")  # fmt: skip
    assert descriptive(TWO, places=False) == "a small red circle is left of a medium blue square on a grey background"
    assert short(TWO) == "a blue square"  # the larger one
    assert short(world.Scene((BLUE, RED))) == short(world.Scene((RED, BLUE)))
    same = world.Object("moon", "green", "small", "stays still")
    assert short(world.Scene((RED, same))) == "a red circle" and short(world.Scene((same, RED))) == "a green moon"
    assert web(TWO, Random(0)) == web(TWO, Random(0)) and web_text(1, 2, TWO) != web_text(1, 3, TWO)


@pytest.mark.parametrize("x, y, says", [
    (0, 0, ""), (-0.16, 0.16, ""), (-0.17, 0, "on the left"), (0.3, 0, "on the right"), (0, -0.2, "up"),
    (0, 0.2, "down"), (0.2, -0.2, "up on the right"), (-0.4, 0.4, "down on the left"),
])  # fmt: skip
def test_places_are_thirds_of_the_frame(x, y, says):
    assert place(world.Object("ring", "red", "small", "stays still", x=x, y=y)) == says


def test_a_description_claims_all_that_is_there_and_nothing_else():
    for scene in SCENES:
        table = judge(descriptive(scene), scene)
        assert precision(table) == recall(table) == 1
        assert told_places(descriptive(scene)) == [place(one) for one in scene.objects]
        assert precision(judge(short(scene), scene)) == 1
    assert recall(together(judge(short(scene), scene) for scene in SCENES)) < 0.5
    assert told_places("a red circle slides up and left") == [""]
    assert told_places("a red circle left of a ring") == ["", ""]


def test_short_and_descriptive_captions_have_lengths_of_their_own():
    """And none is cut: a painter reads so many words."""
    lengths = {say: {len(words(say(scene))) for scene in SCENES} for say in (short, descriptive)}
    assert max(lengths[short]) < min(lengths[descriptive])
    assert max(lengths[descriptive]) <= 23 < PAINTER.words == 24
    longest = max(len(words(described_film(film_scene(12, k)))) for k in range(300))
    assert longest < DESCRIPTIVE_LENGTH


def test_films_are_described_whole():
    for k in range(100):
        scene = film_scene(12, k, "held_out" if k % 2 else "test")
        table = judge(described_film(scene), scene, film=True)
        assert precision(table) == recall(table) == 1
        assert not set(words(short_film(scene))) & set(world.SIZES)
        assert precision(judge(short_film(scene), scene, film=True)) == 1


def test_a_hurried_prompt_is_kept_by_its_description():
    rng, said = Random(5), []
    for scene in SCENES * 3:
        prompt = shortened(scene, rng)
        assert keeps(prompt, descriptive(scene)), prompt
        said.append((prompt, len(scene.objects)))
    two = [prompt for prompt, things in said if things == 2]
    assert sum(read_setting(p)["relation"] is not None for p in two) / len(two) == pytest.approx(0.75, abs=0.06)
    things = [one for prompt, _ in said for one in read_caption(prompt)]
    assert sum(one["size"] is None for one in things) / len(things) == pytest.approx(recaptions.DROP, abs=0.05)
    assert sum(one["colour"] is None for one in things) / len(things) == pytest.approx(recaptions.DROP / 2, abs=0.05)
    assert not any(told_places(prompt)[0] for prompt, _ in said)
    assert sum("background" in prompt for prompt, _ in said) / len(said) == pytest.approx(0.2, abs=0.05)
    turned = [p for p, s in zip((p for p, _ in said), SCENES * 3, strict=True)
              if len(s.objects) == 2 and read_setting(p)["relation"] is None
              and read_caption(p)[0]["shape"] != s.objects[0].shape]  # fmt: skip
    assert turned  # side by side, in either order


def test_alt_texts_are_written_with_the_captioners_words():
    for k, scene in enumerate(SCENES):
        to_ids([web_text(12, k, scene)])
    assert judge(web_text(12, 0, SCENES[0]), SCENES[0]).keys() >= set(STILL)


# ------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_a_function_of_its_number():
    batches = Captioned(descriptive, to_ids, 6, 3, described_film, film_batch=2)
    a, b = batches(1), batches(1)
    assert all(torch.equal(a[key], b[key]) for key in a) and set(a) == {"film", "target"}
    assert a["film"].shape == (6, 1, 3, 32, 32) and -1 <= a["film"].min() < a["film"].max() <= 1
    assert not torch.equal(a["film"], batches(3)["film"])
    assert batches(2)["film"].shape == (2, recaptions.FRAMES, 3, 32, 32)  # every third is of films
    scenes = [film_scene(3, k) for k in (4, 5)]
    assert torch.equal(batches(2)["film"], recaptions.films(scenes))
    assert torch.equal(batches(2)["target"], to_ids([described_film(scene) for scene in scenes]))
    alone = Captioned(descriptive, to_ids, 6, 3)
    assert alone(2)["film"].shape[1] == 1


def test_texts_belong_to_their_pictures():
    scenes = [stills.mixed(3, k) for k in range(6, 12)]
    batch = Captioned(descriptive, to_ids, 6, 3, read=lambda texts: torch.tensor([len(t) for t in texts]))(1)
    assert torch.equal(batch["film"][:, 0], stills.pictures(scenes))
    assert torch.equal(batch["target"], to_ids([descriptive(scene) for scene in scenes]))
    assert batch["ids"].tolist() == [len(descriptive(scene)) for scene in scenes]


def test_a_limited_set_comes_again():
    few = Captioned(short, to_ids, 50, 3, count=4)
    seen = Counter(bytes(picture.numpy()) for step in range(3) for picture in few(step)["film"])
    assert len(seen) == 4 and min(seen.values()) > 15
