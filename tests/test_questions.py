"""Questions about a scene: exact, unique answers, and yes/no without a prior."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from soralab.world.questions import KINDS, _claims, ask, questions
from soralab.world.sampling import sample_scene
from soralab.world.scene import COLOURS, MOTIONS, SHAPES, WALL, Object, Relation, Scene, held_out

RED = Object("circle", "red", "small", "slides right", "fast")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    full = [sample_scene(101, i) for i in range(900)]
    return full + [sample_scene(101, i, "simple", "held_out" if i % 2 else "test") for i in range(200)]


def referents(scene: Scene, name: str) -> list[Object]:
    """Every object that a definite description fits, read from its words alone."""
    name = name.removeprefix("the ")
    if name.startswith("object that "):
        return [o for o in scene.objects if o.motion == name.removeprefix("object that ")]
    return [o for o in scene.objects if all(w in (o.colour, o.shape, "object") for w in name.split())]


def answer_of(scene: Scene, question: str) -> str:
    """Answer a question from its words and the scene alone."""

    def the(name: str) -> Object:
        fits = referents(scene, name)
        assert len(fits) == 1, f"{question}: {len(fits)} objects fit {name!r}"
        return fits[0]

    def related(kind: str, a: Object, b: Object) -> bool:
        r = scene.relation
        return bool(r) and (r.kind, scene.objects[r.a], scene.objects[r.b]) == (kind, a, b)

    def yes(claim: bool) -> str:
        return "yes" if claim else "no"

    if found := re.fullmatch(r"What (colour|shape|size) is (the .+)\?", question):
        return getattr(the(found[2]), found[1])
    if question == "What does the camera do?":
        return "stays still" if scene.camera == "still" else scene.camera
    if question == "What does the background look like?":
        return scene.background
    if found := re.fullmatch(r"How many (?:(\w+) )?objects are there\?", question):
        return ("zero", "one", "two", "three")[sum(found[1] in (None, o.size) for o in scene.objects)]
    if found := re.fullmatch(r"Is (the .+) slow or fast\?", question):
        return the(found[1]).speed
    if found := re.fullmatch(r"Which way does (the .+) (turn|move)\?", question):
        assert (the(found[1]).motion == WALL) == (found[2] == "move")
        return the(found[1]).turn
    sides = "left or right of|above or below|in front of or behind"
    if found := re.fullmatch(rf"Is (the .+) ({sides}) (the .+)\?", question):
        first, second = found[2].split(" or ")
        kind = "left of" if first == "left" else first
        a, b = the(found[1]), the(found[3])
        assert related(kind, a, b) != related(kind, b, a)
        return (first if related(kind, a, b) else second).removesuffix(" of")
    if found := re.fullmatch(r"What does (the .+) bump into\?|What bumps into (the .+)\?", question):
        known = the(found[1] or found[2])
        ways = {o: (known, o) if found[1] else (o, known) for o in scene.objects}
        [other] = [o for o in ways if related("bumps into", *ways[o])]
        return f"the {other.colour} {other.shape}"
    if found := re.fullmatch(r"Is (the .+) (left of|above|in front of) (the .+)\?", question):
        a, b = the(found[1]), the(found[3])
        assert related(found[2], a, b) or related(found[2], b, a)
        return yes(related(found[2], a, b))
    if found := re.fullmatch(r"Is the background (\w+)\?|Does the camera (pan \w+)\?", question):
        return yes(found[1] == scene.background or scene.camera == (found[2] or "").replace("pan", "pans"))
    if found := re.fullmatch(r"What does (the .+) do\?", question):
        return the(found[1]).motion
    if found := re.fullmatch(r"Does (the (?:\w+ )?object) (turn|move) (\w+)\?", question):
        return yes(the(found[1]).turn == found[3])
    if found := re.fullmatch(r"Does (the (?:\w+ )?object) (.+)\?", question):
        verb, _, rest = found[2].partition(" ")
        motion = f"{verb}{'es' if verb == 'pass' else 's'} {rest}".strip()
        assert motion in MOTIONS
        return yes(the(found[1]).motion == motion)
    found = re.fullmatch(r"Is (the (?:\w+ )?object) (?:a )?(\w+)\?", question)
    obj = the(found[1])
    return yes(found[2] in (obj.colour, obj.shape, obj.size, obj.speed))


def test_answers_are_exact_and_unique(scenes):
    seen = Counter()
    for scene in scenes:
        for kind in KINDS:
            pairs = ask(scene, kind)
            seen[kind] += bool(pairs)
            assert len({question for question, _ in pairs}) == len(pairs)
            for question, answer in pairs:
                assert answer == answer_of(scene, question), (question, answer, scene)
    assert all(seen[kind] >= 30 for kind in KINDS), seen
    assert seen["yes/no"] == len(scenes)  # questions() counts on it


def test_questions_asks_each_kind_once(scenes):
    for number, scene in enumerate(scenes[:300]):
        asked = questions(scene, Random(number))
        possible = [set(ask(scene, kind)) for kind in KINDS if ask(scene, kind)]
        assert len(asked) == len(possible)
        assert all(pair in options for pair, options in zip(asked, possible, strict=True))
    with pytest.raises(ValueError, match="weight"):
        ask(scenes[0], "weight")


@pytest.mark.parametrize("kind, begins, ends", [
    ("speed", "Is ", " slow or fast?"), ("turn", "Which way does ", " turn?"),
])  # fmt: skip
def test_how_fast_and_which_way_are_asked_by_colour_and_shape(scenes, kind, begins, ends):
    """Not of "the object that spins": of what a thing does, these two are a part."""
    alone = [scene for scene in scenes if len(scene.objects) == 1 and scene.objects[0].motion != WALL]
    asked = [(scene.objects[0], {question for question, _ in ask(scene, kind)}) for scene in alone if ask(scene, kind)]
    assert len(asked) >= 20
    for thing, found in asked:
        names = ("the object", f"the {thing.colour} object", f"the {thing.shape}")
        assert found == {f"{begins}{name}{ends}" for name in names}


@pytest.mark.parametrize("level", ["simple", "full"])
def test_yes_and_no_are_balanced_given_the_question(level):
    """Questions that differ only in the colour of "the red object" are counted together."""
    rng, asked, yes = Random(1), Counter(), Counter()
    for index in range(1200):
        scene = sample_scene(9, index, level)
        for _ in range(5):
            question, answer = questions(scene, rng)[-1]
            key = re.sub(rf"the ({'|'.join(COLOURS)}) object", "the _ object", question)
            asked[key] += 1
            yes[key] += answer == "yes"
    assert sum(yes.values()) / sum(asked.values()) == pytest.approx(0.5, abs=0.02)
    common = [key for key in asked if asked[key] >= 100]
    assert len(common) >= 12
    for key in common:
        assert yes[key] / asked[key] == pytest.approx(0.5, abs=0.12), key


def test_no_claim_of_a_combination_that_training_lacks(scenes):
    """Is the red object a moon? That would be a giveaway: no training scene answers it with yes."""
    for scene in scenes:
        for question, _ in ask(scene, "yes/no"):
            if found := re.fullmatch(r"Is the (\w+) object a (\w+)\?", question):
                assert not held_out(found[2], found[1]), question


def test_nothing_is_asked_that_cannot_be_told():
    growing = Scene((Object("circle", "red", "small", "grows", "slow"),))
    assert ask(growing, "size") == [] and ask(growing, "turn") == []
    assert ask(Scene((Object("square", "blue", "large", "stays still"),)), "speed") == []
    twins = Scene((RED, Object("circle", "blue", "small", "slides right", "fast")))
    assert ask(twins, "colour") == []  # neither "the circle" nor "the object that slides right" is one thing
    assert not any("the circle" in question for kind in KINDS for question, _ in ask(twins, kind))


def test_false_claims_are_drawn_as_often_as_training_has_them():
    """One thing: every wrong value, never the right one, as often as training shapes have it; the same for motions."""
    for index in range(200):
        scene = sample_scene(17, index, "simple")
        thing = scene.objects[0]
        claims = {true[0]: false for true, false in _claims(scene)}
        for kind, values, ask_for in (
            ("colour", COLOURS, "Is the object {}?"), ("shape", SHAPES, "Is the object a {}?"),
        ):  # fmt: skip
            mine = getattr(thing, kind)
            odds = {v: sum(not held_out(s, **({kind: v} if kind == "colour" else {})) for s in SHAPES)
                    for v in values if v != mine}  # fmt: skip
            false = Counter(claims[ask_for.format(mine)])
            assert false == {ask_for.format(v): odds[v] if kind == "colour" else 6 for v in odds}
        motions = [false for true, false in _claims(scene) if true[0].startswith("Does the object ")][0]
        assert len(set(motions)) == len(MOTIONS) - 1 and len(motions) == sum(
            sum(not held_out(s, motion=m) for s in SHAPES) for m in MOTIONS if m != thing.motion
        )


def test_a_false_claim_is_drawn_evenly():
    """Of the false claims of one kind each is as likely as its odds."""
    scene = Scene((Object("circle", "red", "small", "stays still"),))
    rng, said = Random(3), Counter()
    for _ in range(12_000):
        question, answer = questions(scene, rng)[-1]
        if answer == "no" and question.startswith("Is the object a "):
            said[question] += 1
    assert len(said) == 5 and all(abs(n / said.total() - 0.2) < 0.04 for n in said.values()), said


def test_things_are_counted_in_all_and_by_size():
    sizes = zip(COLOURS, ("small", "small", "large"), strict=False)
    three = tuple(Object("circle", colour, size, "stays still") for colour, size in sizes)
    assert ask(Scene(three), "count") == [
        ("How many objects are there?", "three"), ("How many small objects are there?", "two"),
        ("How many medium objects are there?", "zero"), ("How many large objects are there?", "one"),
    ]  # fmt: skip
    growing = Object("square", "white", "small", "grows", "slow")  # has no one size, so sizes are not counted
    assert ask(Scene((*three[:1], growing)), "count") == [("How many objects are there?", "two")]


def test_a_relation_is_claimed_and_denied():
    """Both ways round: "Is the red object left of the blue object?" """
    blue = Object("square", "blue", "small", "stays still")
    for kind in ("left of", "above", "in front of"):
        claims = ask(Scene((RED, blue), relation=Relation(kind, 0, 1)), "yes/no")
        assert (f"Is the red object {kind} the blue object?", "yes") in claims
        assert (f"Is the blue object {kind} the red object?", "no") in claims
    bump = ask(Scene((RED, blue), relation=Relation("bumps into", 0, 1)), "yes/no")
    assert not any("bump" in question for question, _ in bump)  # the second may seem to bump into the first


def test_no_shape_is_claimed_where_training_lacks_either_pair():
    """A green circle and a pink square are held out: neither way round is a shape asked for."""
    for colours in (("red", "green"), ("pink", "red")):
        a, b = (Object(shape, colour, "small", "stays still")
                for shape, colour in zip(("square", "circle"), colours, strict=True))  # fmt: skip
        for pair in ((a, b), (b, a)):
            assert not any(" a circle?" in q or " a square?" in q for q, _ in ask(Scene(pair), "yes/no"))
    free = (Object("square", "white", "small", "stays still"), Object("circle", "cyan", "small", "stays still"))
    assert ("Is the white object a circle?", "no") in ask(Scene(free), "yes/no")
