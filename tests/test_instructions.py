"""Chapter 13's teacher: it reads captions and boxes alone, what it says is true, and no question has two answers."""

import ast
import re
from collections import Counter, defaultdict
from random import Random

import pytest

from soralab import world
from soralab.datasets import stills
from soralab.datasets.instructions import (
    BORDER,
    FILM_KINDS,
    PICTURE_KINDS,
    WORDS,
    Symbols,
    ask_about,
    brief,
    conversation,
    description,
    options,
    place,
    symbols,
)
from soralab.datasets.question_forms import (
    FORMS,
    SLOTS,
    QuestionError,
    example,
    form_of,
    read_question,
)
from soralab.datasets.short_films import DOES, FRAMES, MIDDLE, film_scene
from soralab.datasets.stories import lesson, story
from soralab.world.language import words
from soralab.world.questions import YES_NO
from soralab.world.sampling import apart
from soralab.world.scene import SLIDES, Scene

PICTURES = [stills.sample(13, k, "test", 1 + k % 2) for k in range(120)]
FILMS = [film_scene(13, k, "test") for k in range(100)]
TOLD = [(scene, symbols(scene)) for scene in PICTURES] + [(scene, symbols(scene, "film")) for scene in FILMS]


def everything(told):
    """All questions with their answers that the teacher may ask about symbols, yes/no ones by drawing many."""
    kinds = PICTURE_KINDS if told.show == "picture" else FILM_KINDS
    found = {kind: options(told, kind) for kind in kinds if kind != YES_NO}
    rng = Random(1)
    return found | {YES_NO: list(dict.fromkeys(ask_about(told, YES_NO, rng) for _ in range(30)))}


def read_back(text):
    """Symbols from their own text."""
    caption, *lines = text.split("\n")
    boxes = {}
    for line in lines:
        name, _, numbers = line.partition(": ")
        boxes[name] = tuple(tuple(ast.literal_eval(box)) for box in re.findall(r"\[.*?\]", numbers))
    return Symbols(caption, boxes)


def test_the_teacher_is_given_text_and_nothing_else():
    for _, told in TOLD[::3]:
        again = read_back(str(told))
        assert again == told
        for make in (conversation, description, brief, story, lesson):
            assert make(again, Random(3)) == make(told, Random(3))


def test_the_symbols_are_the_captions_and_the_boxes_that_the_world_draws():
    for scene, told in TOLD:
        frames = 1 if told.show == "picture" else FRAMES
        truth = world.truth([scene], frames)[0]["boxes"]
        for o, row in zip(scene.objects, truth, strict=True):
            boxes = told.boxes[f"{o.colour} {o.shape}"]
            assert len(boxes) == frames
            for box, true in zip(boxes, row, strict=True):
                assert box == pytest.approx([v / 32 for v in true], abs=0.0051)
        assert told.told.background == scene.background
    still, moving = str(TOLD[1][1]), str(TOLD[-1][1])
    assert still.count("\n") == 2 and re.search(r"^white circle: \[0\.\d+(, [01]\.\d+){3}\]$", still, re.M)
    assert moving.split("\n")[1].count("[") == 4
    with pytest.raises(ValueError, match="show is 'text'; it takes one of picture, film"):
        symbols(PICTURES[0], "text")


# ------------------------------------------------------------------------------------------------- what it says is true


def named(scene: Scene, name: str):
    """The things that "the red object", "the circle" or "the object that slides right" may mean."""
    name = name.removeprefix("the ")
    if name.startswith("object that "):
        return [o for o in scene.objects if o.motion == name.removeprefix("object that ")]
    first = name.split()[0]
    return [o for o in scene.objects if first in ("object", o.colour, o.shape)]


@pytest.mark.parametrize("kind", ["colour", "shape", "size", "motion"])
def test_attributes_are_the_scenes_and_of_one_thing(kind):
    asked = 0
    for scene, told in TOLD:
        if kind == "motion" and told.show == "picture":
            continue
        for question, answer in options(told, kind):
            name = re.fullmatch(r"What (?:\w+ is|does) (.*?)(?: do)?\?", question)[1]
            (thing,) = named(scene, name)
            assert answer == getattr(thing, kind)
            asked += 1
    assert asked > 100


def test_places_are_the_scenes_and_never_near_a_border():
    seen = Counter()
    for scene, told in TOLD:
        for question, answer in options(told, "place"):
            name, when = re.fullmatch(r"Where is (.*?)(?: at the (start|end))?\?", question).groups()
            (thing,) = named(scene, name)
            assert (when is None) == (told.show == "picture")
            u = (FRAMES - 1) / FRAMES if when == "end" else 0.0
            x, y = (v + 0.5 for v in thing.pose(u)[:2])
            x, y = x - (0.0 if told.show == "picture" else scene.camera_x(u)), y
            column, row = min(2, int(3 * x)), min(2, int(3 * y))
            words = ("at the top", "in the", "at the bottom")[row] + ("left", "middle", "right")[column]
            want = {"at the topmiddle": "at the top", "in theleft": "at the left", "in themiddle": "in the middle",
                    "in theright": "at the right", "at the bottommiddle": "at the bottom"}.get(words)  # fmt: skip
            if thing.shape in ("circle", "square", "cross", "ring"):  # of others the box's middle is not theirs
                assert answer == (want or words.replace("top", "top ").replace("bottom", "bottom "))
            seen[answer] += 1
    assert len(seen) == 9
    assert place(1 / 3 + BORDER / 2, 0.5) is None and place(0.5, 2 / 3 - BORDER / 2) is None
    assert place(0.1, 0.9) == "at the bottom left" and place(0.99, 1.0) == "at the bottom right"


def test_relations_are_the_scenes_both_ways_round():
    sides = Counter()
    for scene in PICTURES[1::2]:
        told, (a, b) = symbols(scene), scene.objects
        beside = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
        for question, answer in options(told, "beside"):
            side, colour = re.fullmatch(r"What is (.*) the (\w+) object\?", question).groups()
            asked, other = (a, b) if a.colour == colour else (b, a)
            assert answer == f"the {other.colour} {other.shape}" and asked.colour == colour
            assert (beside[side] if other is a else -beside[side]) > 0
            sides[side] += 1
        for question, answer in options(told, "relation"):
            one, two = re.findall(r"the (\w+) object", question)
            first, second = (a, b) if a.colour == one else (b, a)
            true = {"left": first.x < second.x, "right": first.x > second.x, "above": first.y < second.y,
                    "below": first.y > second.y}  # fmt: skip
            assert true[answer] and second.colour == two
    assert len(sides) == 4 and all(not options(symbols(s), "beside") for s in PICTURES[::2])


def test_reasons_end_where_their_steps_lead():
    kinds = Counter()
    for scene in PICTURES:
        things = {o.colour: o for o in scene.objects}
        for question, answer in options(symbols(scene), "reasoning"):
            kinds[question.split()[0]] += 1
            if question.startswith("What shape"):
                colour, again, shape = re.search(r"is (\w+) and the (\w+) object is a (\w+)", answer).groups()
                assert colour == again and things[colour].shape == shape and colour not in question
            elif question.startswith("Which edge"):
                (o,) = scene.objects
                room = {"left": o.x, "right": -o.x, "top": o.y, "bottom": -o.y}
                assert answer.split()[-2] == min(room, key=room.get)
            else:
                a, b = scene.objects
                assert f"the {a.colour} object is {a.size} and the {b.colour} object is {b.size} so" in answer
                larger = a if world.SIZES.index(a.size) > world.SIZES.index(b.size) else b
                want = {"Do": "yes" if a.size == b.size else "no", "Which": f"the {larger.colour} object"}
                assert answer.split(" so ")[1] == want[question.split()[0]]
    assert set(kinds) == {"What", "Which", "Do"}


def test_what_happens_first_is_told_from_the_boxes():
    orders = Counter()
    for k, scene in enumerate(FILMS):
        told = symbols(scene, "film")
        said = dict(options(told, "first"))
        orders[k % 5, bool(said)] += 1
        if k % 5 in (3, 4):
            a, b = scene.objects
            if said:
                names = f"the {a.colour} {a.shape}", f"the {b.colour} {b.shape}"
                assert (said["What moves first?"], said["What moves last?"]) == names
        else:
            assert not said  # all moves at once, or there is one thing alone
    assert orders[4, True] == 20 and orders[3, True] >= 15


def test_what_moves_is_asked_where_one_thing_does_and_it_is_told_how_many_do():
    seen = Counter()
    for scene in FILMS:
        told = symbols(scene, "film")
        moving = [o for o in scene.objects if o.motion in SLIDES]
        plain = all(o.motion in (*SLIDES, "stays still") for o in scene.objects)
        asked = dict(options(told, "what moves"))
        assert bool(asked) == (plain and len(moving) < 2)
        if asked:
            want = f"the {moving[0].colour} {moving[0].shape}" if moving else "nothing"
            assert asked["What moves?"] == want
        many = dict(options(told, "how many"))
        assert many["How many objects are there?"] == ("one", "two")[len(scene.objects) - 1]
        if plain:
            assert many["How many objects move?"] == ("zero", "one", "two")[len(moving)]
            seen[len(moving)] += 1
    assert seen[1] > 20 and seen[2] > 20


def test_yes_and_no_are_equally_likely_whatever_is_asked():
    table = defaultdict(Counter)
    for show, scenes in (("picture", 400), ("film", 200)):
        for k in range(scenes):
            scene = film_scene(3, k) if show == "film" else stills.sample(3, k, "train", 1 + k % 2)
            told, rng = symbols(scene, show), Random(k)
            for _ in range(4):
                question, answer = ask_about(told, YES_NO, rng)
                form = form_of(question)
                table[show, form][answer] += 1
                table[show, "all"][answer] += 1
                if "move before" in question:
                    a, b = (o.colour for o in scene.objects)
                    assert (answer == "yes") == (re.findall(r"the (\w+) object", question) == [a, b])
                elif "SIDE" in form:
                    said = form_of(question) and re.search(r"object (left of|above) the", question)
                    assert said
    for key, row in table.items():
        count = sum(row.values())
        if count >= 60:
            assert abs(row["yes"] / count - 0.5) < 4 * (0.25 / count) ** 0.5, (key, row)


def test_no_question_has_two_answers_and_a_picture_is_not_asked_about_motion():
    for _, told in TOLD:
        answers = defaultdict(set)
        for kind, pairs in everything(told).items():
            for question, answer in pairs:
                answers[question].add(answer)
                form = form_of(question)
                assert form and told.show in FORMS[form], (question, kind)
                if told.show == "picture":
                    assert not re.search(r"that|move|slide|bounce|orbit|grow|shrink|stay|Does ", question)
        assert all(len(found) == 1 for found in answers.values())


def test_all_that_is_said_is_of_the_words_that_the_model_knows():
    said = set()
    for _, told in TOLD:
        turns = [pair for pairs in everything(told).values() for pair in pairs]
        turns += [make(told, Random(k))[1:] for k in range(8) for make in (brief, description)]
        for question, answer in turns:
            assert answer == " ".join(words(answer))  # plain words, as the model writes them
            said |= {*words(question), *words(answer)}
        said |= set(words(story(told, Random(2))))
    assert said <= set(WORDS) and len(set(WORDS)) == len(WORDS) and list(WORDS) == sorted(WORDS)
    assert set(WORDS) <= said


def test_descriptions_tell_what_the_caption_tells_and_the_order_of_events():
    scene = PICTURES[1]
    told = symbols(scene)
    assert description(told, Random(0)).answer == f"{stills.caption(scene)} on a {scene.background} background"
    assert brief(told, Random(0)).answer == stills.caption(scene)
    assert brief(symbols(PICTURES[0]), Random(0)).answer == stills.caption(PICTURES[0])
    a, b = FILMS[3].objects
    text = description(symbols(FILMS[3], "film"), Random(0)).answer
    first, then = (f"a {o.size} {o.colour} {o.shape} {o.motion}" for o in (a, b))
    assert text == f"{first} and then {then} on a {FILMS[3].background} background"
    asked = {description(told, Random(k)).question for k in range(40)}
    assert len(asked) == 4 and all("picture" in question for question in asked)


def test_a_conversation_has_each_kind_once_in_an_order_that_is_drawn():
    for _, told in TOLD[:20]:
        talk = conversation(told, Random(5))
        assert len({turn.kind for turn in talk}) == len(talk) > 5
        assert conversation(told, Random(5)) == talk
    orders = {tuple(turn.kind for turn in conversation(TOLD[1][1], Random(k))) for k in range(10)}
    assert len(orders) > 5


# ------------------------------------------------------------------------------------------------------------ the films


def test_films_are_of_four_sorts_and_nothing_touches_that_should_not():
    for k, scene in enumerate(FILMS):
        assert len(scene.objects) == (1 if k % 5 < 2 else 2) and scene.camera == "still" and not scene.wall
        assert scene.background in world.BACKGROUNDS[:2] and not scene.held_out
        assert all(o.motion in DOES for o in scene.objects)
        kinds = [o.motion in SLIDES for o in scene.objects]
        if k % 5 in (2, 3):
            assert apart(scene.objects[0], Scene(scene.objects[1:])) and sum(kinds) >= 1 and scene.relation is None
        if k % 5 == 3:
            first, second = scene.objects
            assert first.stops == second.starts == MIDDLE and all(kinds)
            assert first.pose(0.25)[:2] != first.pose(0)[:2] and second.pose(0.25)[:2] == second.pose(0)[:2]
            assert first.pose(0.75)[:2] == first.pose(0.5)[:2] and second.pose(0.75)[:2] != second.pose(0.5)[:2]
        if k % 5 == 4:
            assert scene.relation.kind == "bumps into"
    still = [any(o.motion == "stays still" for o in scene.objects) for scene in FILMS[2::5]]
    assert 0.4 < sum(still) / len(still) < 0.95


def test_films_are_functions_of_their_number_and_split():
    assert film_scene(13, 7, "test") == FILMS[7] != film_scene(13, 7) and film_scene(14, 7, "test") != FILMS[7]
    assert film_scene(13, 2, "held_out").held_out


# ------------------------------------------------------------------------------------------------------ typed questions


@pytest.mark.parametrize("typed, show, said", [
    ("What COLOR is the ball?", "picture", "what colour is the circle"),
    ("what colour's the moon", "picture", "what colour is the moon"),
    ("whats left of the red thing", "picture", "what is left of the red object"),
    ("Where's the ring?", "picture", "where is the ring"),
    ("  is the RED object left or right of the blue object ", "picture",
     "is the red object left or right of the blue object"),
    ("How many things are there?", "film", "how many objects are there"),
    ("What moves first", "film", "what moves first"),
    ("Which thing is bigger?", "picture", "which object is larger"),
    ("what does the object that slides up and left do", "film", "what does the object that slides up and left do"),
    ("What colour is the object that slides up and left?", "film", "what colour is the object that slides up and left"),
    ("Describe the film in detail", "film", "describe the film in detail"),
    ("Describe the image briefly", "picture", "describe the picture briefly"),
    ("What does the picture show?", "film", "what does the film show"),
    ("What moves?", None, "what moves"), ("Which object is bigger?", None, "which object is larger"),
])  # fmt: skip
def test_questions_as_people_type_them(typed, show, said):
    assert read_question(typed, show) == said


@pytest.mark.parametrize("typed, show, says", [
    ("", "picture", r'^the question is empty; try "What colour is the circle\?"$'),
    (" ?! ", "film", "the question is empty"),
    ("What colour is it?", "picture", r"that was learnt, nor the word 'it'; the nearest: \"What colour is the circle"),
    ("What's the shape?", "picture", r'that was learnt; the nearest: "What shape is the red object\?"; '),
    ("How many circles are there?", "film", r'the nearest: "How many objects are there\?"'),
    ("what moved", "film", r'nearest: "What moves\?"'),
    ("Describe this video", "film", r'"Describe the film briefly"; "Describe the film in detail"; '),
    ("Where is the ring?", "film", r'^"Where is the circle\?" is asked of a .* here: "Where is the circle at'),
    ("Is the dog left of a cat or a dog on the mat?", None, "nor the words 'dog', 'cat', 'on'; the nearest"),
    ("What moves?", "picture", r'^"What moves\?" is asked of a film, and this is a picture; here: "'),
    ("Which object is larger?", "film", "is asked of a picture, and this is a film"),
    ("What colour is the purple object?", "picture", r'nearest: "What colour is the circle\?"'),
    ("nonsense", "film", "the question has no form that was learnt, nor the word 'nonsense'; "),
])  # fmt: skip
def test_other_questions_are_refused_in_one_line(typed, show, says):
    with pytest.raises(QuestionError, match=says) as caught:
        read_question(typed, show)
    assert "\n" not in str(caught.value) and caught.value._render_traceback_() == [str(caught.value)]
    near = re.findall('"(.*?)"', str(caught.value).split("; ", 1)[1])
    assert len(near) == (3 if words(typed) else 1)
    assert all(read_question(question, show) for question in near)  # what is offered can be asked


def test_every_form_has_an_example_that_is_read_and_is_asked_by_the_teacher():
    asked = {(form_of(question), told.show)
             for _, told in TOLD for pairs in everything(told).values() for question, _ in pairs}  # fmt: skip
    for form, shows in FORMS.items():
        assert form_of(example(form)) == form
        for show in shows:
            assert read_question(example(form, show), show) == " ".join(words(example(form, show)))
            assert {*words(example(form, show))} <= {*WORDS}
            assert "SHOW" in form or (form, show) in asked
    assert set(SLOTS["MOTION"]) == set(DOES)
