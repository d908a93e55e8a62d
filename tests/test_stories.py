"""What chapter 13's language model reads: true sentences, and some of them twice."""

import re
from random import Random

import pytest

from soralab import world
from soralab.datasets import stills
from soralab.datasets.instructions import Turn, conversation, description, options, place, symbols
from soralab.datasets.short_films import film_scene
from soralab.datasets.stories import BESIDES, around, follows, lesson, places, story

PICTURES = [stills.sample(13, k, "test", 1 + k % 2) for k in range(120)]
FILMS = [film_scene(13, k, "test") for k in range(60)]
TOLD = [(scene, symbols(scene)) for scene in PICTURES] + [(scene, symbols(scene, "film")) for scene in FILMS]
PAIRS = [(scene, told) for scene, told in TOLD if len(scene.objects) == 2]
BETWEEN = r"(left of|right of|above|below)"


def thing_of(scene, name):
    """The one thing that "the red object", "the circle" or "the red circle" names."""
    words = set(name.split()) - {"the", "object"}
    found = [o for o in scene.objects if words <= {o.colour, o.shape}]
    assert words and len(found) == 1, (name, scene)
    return found[0]


def true(scene, sentence):
    """Whether a scene holds what a sentence says of its things."""
    if match := re.fullmatch(f"(the .*) is {BETWEEN} (the .*)", sentence):
        a, side, b = match.groups()
        (ax, ay, *_), (bx, by, *_) = (thing_of(scene, name).pose(0) for name in (a, b))
        return {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}[side]
    name, does = re.fullmatch("(the (?:\\w+) (?:object )?)(.*)", sentence).groups()
    o = thing_of(scene, name.strip())
    return does in (f"is {o.size}", f"is {o.colour}", o.motion)


def test_what_follows_is_true_and_names_one_thing():
    for scene, told in TOLD:
        sentences = [*follows(told), *around(told)]
        assert all(true(scene, sentence) for sentence in sentences), (sentences, scene)
        assert not (len(scene.objects) == 1 and sentences)


def test_the_judge_of_sentences_refuses_what_another_scene_says():
    wrong = 0
    for (scene, _), (_, other) in zip(PAIRS, PAIRS[7:], strict=False):
        for sentence in [*follows(other), *around(other)]:
            try:
                wrong += not true(scene, sentence)
            except AssertionError:  # it names nothing that is there
                wrong += 1
    assert wrong > 300


def test_a_thing_is_told_by_its_shape_where_that_names_it_alone():
    for scene, told in PAIRS:
        a, b = scene.objects
        sentences = follows(told)
        assert any(f"the {a.shape} is {a.colour}" == sentence for sentence in sentences) == (a.shape != b.shape)
        assert f"the {a.colour} object is {a.size}" in sentences
        moves = [f"the {o.colour} object {o.motion}" for o in (a, b)]
        assert set(moves) <= set(sentences) if told.show == "film" else not set(moves) & set(sentences)


def test_a_relation_is_told_from_either_side():
    for scene, told in PAIRS:
        sentences = around(told)
        if scene.relation is None or scene.relation.kind == "bumps into":
            assert sentences == []
        else:
            assert len(sentences) == 2 and len({sentence.split()[1] for sentence in sentences}) == 2


def test_stories_say_more_than_the_caption_and_their_parts_in_any_order():
    for _, told in PAIRS[:40]:
        once_more, sides, counts = follows(told), around(told), []
        for seed in range(40):
            text = f" {story(told, Random(seed))} "
            assert f" {told.caption.replace(',', '')} " in text and all(f" {spot} " in text for spot in places(told))
            counts.append((sum(f" {s} " in text for s in once_more), sum(f" {s} " in text for s in sides)))
        more, around_it = (set(column) for column in zip(*counts, strict=True))
        assert min(more) == 0 and len(more) > 2 and max(more) <= BESIDES + 2  # some stand in the caption as well
        assert around_it == ({1, 2} if sides else {0})
    starts = {tuple(story(PAIRS[0][1], Random(k)).split()[:4]) for k in range(30)}
    assert len(starts) > 3


def test_a_place_in_a_story_is_where_the_thing_is_then():
    told_of = 0
    for _, told in TOLD:
        for sentence in places(told):
            colour, where, when = re.fullmatch(
                "the (\\w+) \\w+ is ((?:in|at) the .*?)(| at the start| at the end)", sentence).groups()  # fmt: skip
            assert bool(when) == (told.show == "film")
            assert place(*told.middle(colour, -1 if when == " at the end" else 0)) == where
            told_of += when == " at the end"
    assert told_of > 20


def test_who_moves_first_is_not_the_last_to_leave_its_place():
    strictly = 0
    for _, told in TOLD:
        if match := re.search("the (\\w+) (\\w+) moves first", story(told, Random(0))):
            left = {name.split()[0]: next((k for k, box in enumerate(boxes) if box != boxes[0]), len(boxes))
                    for name, boxes in told.boxes.items()}  # fmt: skip
            first, other = left.pop(match[1]), *left.values()
            assert told.show == "film" and first <= other
            strictly += first < other
    assert strictly > 5


def test_a_lesson_asks_all_that_a_picture_is_asked_and_all_by_shape():
    for scene, told in PAIRS:
        turns = lesson(told, Random(4))
        assert len(set(turns)) == len(turns) and all(isinstance(turn, Turn) for turn in turns)
        kinds = {turn.kind for turn in turns}
        assert {turn.kind for turn in (*conversation(told, Random(0)), description(told, Random(0)))} <= kinds
        asked = {turn.question for turn in turns}
        a, b = scene.objects
        if a.shape != b.shape:
            assert {f"What colour is the {o.shape}?" for o in (a, b)} <= asked
            assert {f"What size is the {o.shape}?" for o in (a, b)} <= asked
            does = {f"What does the {o.shape} do?" for o in (a, b)}
            assert does <= asked if told.show == "film" else not does & asked
        truth = {q: a for kind in kinds - {"yes/no", "description"} for q, a in options(told, kind)}
        assert all(truth[turn.question] == turn.answer for turn in turns if turn.question in truth)


@pytest.mark.parametrize("show", ["picture", "film"])
def test_one_thing_is_told_as_before(show):
    scene, told = next((s, t) for s, t in TOLD if len(s.objects) == 1 and t.show == show)
    assert follows(told) == around(told) == []
    text = story(told, Random(0))
    assert told.caption.replace(",", "") in text and isinstance(scene, world.Scene)
