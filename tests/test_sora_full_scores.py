"""What chapter 16's whole model is asked, and how its films are judged: by the referee alone, on true films right."""

from dataclasses import replace
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from soralab import world
from soralab.experiments import sora_full_scores as scores
from soralab.experiments.sora_full_scores import ASKED, Asked, marks, related
from soralab.world import referee
from soralab.world.language import descriptive_caption, short_caption
from soralab.world.scene import RELATIONS

FEW = 4


def of(kind, number=FEW):
    """The first unseen scenes of two things of which one is so to the other."""
    drawn = (world.sample_scene(scores.SEED, k, "full", "test") for k in count())
    return list(islice((s for s in drawn if len(s.objects) == 2 and s.relation and s.relation.kind == kind), number))


def film(scene, frames=9):
    return world.to_film(world.render([scene], frames, 32, 32))[0]


def shown(frames, text):
    return related(referee.read(frames), text, frames)


def exchanged(scene):
    """The things stand in each other's place and do what the other did: only their looks have gone across."""
    a, b = scene.objects
    looks = [{key: getattr(thing, key) for key in ("shape", "colour")} for thing in (a, b)]
    return replace(scene, objects=(replace(a, **looks[1]), replace(b, **looks[0])))


@pytest.mark.parametrize("kind", RELATIONS)
def test_the_relation_of_true_films_is_right_and_of_swapped_ones_wrong(kind):
    """Of the same film with the looks of its two things exchanged."""
    for scene in of(kind):
        for text in (descriptive_caption(scene), short_caption(scene)):
            assert shown(film(scene), text) is True
        assert shown(film(exchanged(scene)), descriptive_caption(scene)) is False


def test_what_lies_behind_is_not_in_front():
    """The same paths and looks, drawn the other way round."""
    for scene in of("in front of"):
        behind = replace(scene, objects=scene.objects[::-1])
        assert shown(film(behind), descriptive_caption(scene)) is False


@pytest.mark.parametrize("kind, axis", [("left of", -1), ("above", -2)])
def test_mirrored_films_are_wrong(kind, axis):
    for scene in of(kind):
        assert shown(film(scene).flip(axis), descriptive_caption(scene)) is False
        assert shown(film(scene).flip(-3 - axis), descriptive_caption(scene)) is True  # the other way


def test_a_film_that_runs_backwards_has_no_bump():
    """Then what should have been hit is what moves first."""
    for scene in of("bumps into"):
        assert shown(film(scene).flip(0), descriptive_caption(scene)) is False


def seen(path, colour, shape="square", radius=0.1):
    path = np.array(path, float)
    return SimpleNamespace(trajectory=path, colour=colour, shape=shape, radius=np.full(len(path), radius), size="small",
                           motion=None, speed="", turn="")  # fmt: skip


def told(kind, a, b):
    """What is made of a film with these two, in any order, if the red one should be so to the blue one."""
    text = f"a red square is {kind} a blue square" if kind != "bumps into" else "a red square bumps into a blue square"
    answers = {related(SimpleNamespace(objects=pair), text, None) for pair in ((a, b), (b, a))}
    (answer,) = answers
    return answer


STILL, NEVER = [(0.0, 0.0)] * 8, [(np.nan, np.nan)] * 8


@pytest.mark.parametrize("kind, a, b, right", [
    ("left of", [(-0.3, 0.0)] * 8, STILL, True), ("left of", [(0.3, 0.0)] * 8, STILL, False),
    ("left of", [(-0.3, 0.0)] * 7 + [(0.01, 0.0)], STILL, False),  # the whole time
    ("left of", [(-0.3, 0.0)] * 7 + [(np.nan, np.nan)], STILL, True),  # but for what nobody sees
    ("left of", NEVER, STILL, False), ("above", NEVER, STILL, False), ("in front of", NEVER, STILL, False),
    ("above", [(0.0, -0.3)] * 8, STILL, True), ("above", [(0.0, 0.3)] * 8, STILL, False),
    ("above", [(-0.3, 0.0)] * 8, STILL, False), ("left of", [(0.0, -0.3)] * 8, STILL, False),
    ("bumps into", [(-0.1 * k, 0.0) for k in range(4, 0, -1)] + [(-0.1, 0.0)] * 4,
     [(0.0, 0.0)] * 4 + [(0.1 * k, 0.0) for k in range(4)], True),
    ("bumps into", [(-0.4, 0.0)] * 4 + [(-0.1 * k, 0.0) for k in range(4, 0, -1)],
     [(0.1 * k, 0.0) for k in range(4)] + [(0.3, 0.0)] * 4, False),  # the wrong way round
    ("bumps into", STILL, STILL, False), ("bumps into", [(-0.1 * k, 0.0) for k in range(8)], STILL, False),
    ("bumps into", NEVER, STILL, False),
])  # fmt: skip
def test_relations_of_paths_by_hand(kind, a, b, right):
    assert told(kind, seen(a, "red"), seen(b, "blue")) is right


def test_a_thing_that_is_not_there_is_in_no_relation():
    assert related(SimpleNamespace(objects=(seen(STILL, "red"),)), "a red square is above a blue square", None) is False
    assert related(SimpleNamespace(objects=()), "a red square is above a blue square", None) is False
    assert related(SimpleNamespace(objects=()), "a red square slides right", None) is None


# ------------------------------------------------------------------------------------------------------------- marks


def test_true_films_have_every_mark_and_each_wrong_one_misses_its_own():
    things = (world.Object("square", "red", "large", "stays still", x=-0.2, y=0.0),)
    scene = world.Scene(things, background="grey")
    text = descriptive_caption(scene)
    right = marks(film(scene), text)
    assert all(right.values()) and {"background", "camera", "all", "everything", "count"} <= set(right)
    assert "relation" not in right
    for changed, missed in ((replace(scene, background="black"), "background"),
                            (replace(scene, objects=(replace(things[0], colour="blue"),)), "colour"),
                            (replace(scene, objects=(replace(things[0], size="small"),)), "size"),
                            (replace(scene, objects=(*things, replace(things[0], x=0.3))), "count")):  # fmt: skip
        found = marks(film(changed), text)
        assert not found[missed] and not found["everything"], missed
        assert scores.verdict(film(changed), text) == missed
    assert scores.verdict(film(scene), text) == "right"
    other = replace(scene, objects=(replace(things[0], motion="slides right", velocity=(0.3, 0.0), shape="ring"),))
    assert scores.verdict(film(other), text) == "motion, shape"
    two = descriptive_caption(replace(scene, objects=(*things, replace(things[0], colour="blue", x=0.3))))
    assert scores.verdict(film(scene), two) == "count"  # and not all else that cannot be told then
    striped = replace(scene, background="striped")
    panning = replace(striped, camera="pans left")
    assert marks(film(panning), descriptive_caption(panning))["camera"]
    assert not marks(film(striped), descriptive_caption(panning))["camera"]


def test_a_relation_that_is_not_there_is_named_by_the_verdict():
    scene = of("above", 1)[0]
    told = descriptive_caption(scene)
    assert scores.verdict(film(scene), told) == "right"
    found = marks(film(exchanged(scene)), told)
    assert "relation" in scores.verdict(film(exchanged(scene)), told).split(", ") and found["count"]


def test_what_is_not_said_is_not_marked():
    scene = of("above", 1)[0]
    found = marks(film(scene), short_caption(scene))
    assert "background" not in found and "camera" not in found and found["relation"]
    assert "relation" in marks(film(scene), descriptive_caption(scene))


def test_shares_count_the_films_that_were_asked_for_it(monkeypatch):
    told = [{"a": True, "b": False}, {"a": np.bool_(True)}, {"a": False, "b": True}]
    monkeypatch.setattr(scores, "marks", lambda film, text: told[int(film)])
    assert scores.shares(torch.arange(3), ["", "", ""]) == {"a": [2, 3], "b": [1, 2]}


# --------------------------------------------------------------------------------------------------- what is asked


def test_the_prompts_are_of_unseen_scenes_of_their_kind():
    seen_ones = {world.sample_scene(20, k, "simple", "train") for k in range(40)}
    for kind, asked in ASKED.items():
        texts, scenes = scores.asked(kind, 5)
        assert [asked.told(scene) for scene in scenes] == texts and scores.asked(kind, 3)[0] == texts[:3]
        assert all(scene.held_out == ("held out" in kind) for scene in scenes) and not seen_ones & set(scenes)
        assert all(scene.aspect == asked.size[2] / asked.size[1] for scene in scenes)
        number = next((n for word, n in (("one", 1), ("two", 2), ("three", 3)) if f", {word} thing" in kind), None)
        assert number is None or all(len(scene.objects) == number for scene in scenes)
        assert "related" not in kind or all(scene.relation for scene in scenes)
    assert scores.things(2)(of("above", 1)[0]) and not scores.things(1)(of("above", 1)[0])
    plain = replace(of("above", 1)[0], relation=None)
    assert scores.things(2)(plain) and not scores.things(2, True)(plain)


class Maker:
    """Films the truth of its prompts, and remembers what it was asked."""

    def __init__(self, kind):
        self.kind, self.calls = kind, []

    def film(self, prompts, seed, size, **options):
        first = sum(len(p) for p, *_ in self.calls)
        self.calls.append((prompts, seed, size, options))
        return scores.true_films(self.kind, first + len(prompts))[0][first:]


def test_an_oracle_is_right_and_is_asked_in_parts(monkeypatch):
    monkeypatch.setattr(scores, "CHUNK", 2)
    monkeypatch.setitem(scores.ASKED, "small", Asked("simple", "test", short_caption, size=(9, 32, 48)))
    maker = Maker("small")
    table = scores.measure(maker, "small", 5, steps=3)
    assert table["everything"] == [5, 5] and table["count"] == [5, 5] and "camera" not in table
    texts, scenes = scores.asked("small", 5)
    assert [prompts for prompts, *_ in maker.calls] == [texts[:2], texts[2:4], texts[4:]]
    assert [seed for _, seed, *_ in maker.calls] == [scores.NOISE + k for k in (0, 2, 4)]  # film k from noise NOISE + k
    assert all(size == (9, 32, 48) and options == {"steps": 3} for *_, size, options in maker.calls)
    true, said = scores.true_films("small", 5)
    assert said == texts and torch.equal(true, world.to_film(world.render(scenes, 9, 32, 48)))
    assert scores.shares(true.flip(0), texts)["everything"][0] < 3
