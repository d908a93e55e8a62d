"""Chapter 13's instruction data, made the paper's way (section 3): by a teacher that never sees a picture.

The paper's teacher is GPT-4, which in 2023 read text alone. It was given what people had written beside a picture,
captions and boxes, and made up three kinds of talk about it: conversation, description, reasoning. Ours is code. It
gets `Symbols`, and nothing else of a scene:

    a small red circle is left of a medium blue square on a black background
    red circle: [0.12, 0.30, 0.37, 0.55]
    blue square: [0.61, 0.28, 0.91, 0.58]

A film has a box for each of its four frames, and from these the teacher tells what moves, where to and what first.
Nothing is asked that has two answers: no place of a thing near the border of two, no "what moves" if two do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from random import Random
from typing import NamedTuple

import numpy as np

from soralab import world
from soralab.datasets import stills
from soralab.datasets.question_forms import BOTH, BRIEF, DETAILED
from soralab.datasets.short_films import FRAMES
from soralab.datasets.still_captions import PLACES
from soralab.world.language import short_caption, thing
from soralab.world.questions import NUMBERS, YES_NO, ask, questions
from soralab.world.reader import read_caption, read_setting

BORDER = 0.03  # how close to the border of two places, or to the other edge, a thing has neither, in short sides
WORDS = tuple(
    """
    a above and are at background before below black blue bottom bounce bounces briefly bump bumps circle colour cross
    cyan describe description detail do does down edge end everything film first full give green grey grow grows have
    how in into is it large larger last left like look many medium middle moon move moves nearest no nothing object
    objects of on one or orange orbit orbits picture pink red right ring same see shape short show shows shrink shrinks
    size slide slides small so square start stay stays still sum tell that the then there to top triangle two up what
    where which white yellow yes zero
    """.split()
)  # all that the teacher says
MOVED = 0.06  # what a thing's middle goes at least, in short sides, if it is said to move


class Turn(NamedTuple):
    """One question with its answer, and of what kind it is."""

    kind: str
    question: str
    answer: str


# ------------------------------------------------------------------------------------------- what the teacher is given


@dataclass(frozen=True)
class Symbols:
    """A picture or film as text: its caption, and of each thing, named by its colour and shape, a box a frame.

    A box is (left, top, right, bottom) in shares of the frame, two digits.
    """

    caption: str
    boxes: dict[str, tuple[tuple[float, float, float, float], ...]]

    def __str__(self) -> str:
        lines = (f"{name}: " + " ".join(str(list(box)) for box in boxes) for name, boxes in self.boxes.items())
        return "\n".join([self.caption, *lines])

    @property
    def show(self) -> str:
        """What this is of: "picture" or "film"."""
        return BOTH[len(next(iter(self.boxes.values()))) > 1]

    @cached_property
    def told(self) -> world.Scene:
        """The caption's things, background and relation, as a scene without places: all that `questions` needs."""
        setting = read_setting(self.caption)
        # A picture shows no motion, and its caption tells none.
        things = tuple(
            world.Object(t["shape"], t["colour"], t["size"], t["motion"] or "stays still")
            for t in read_caption(self.caption)
        )
        relation = setting["relation"] and world.Relation(*setting["relation"])
        return world.Scene(things, setting["background"], relation=relation)

    def middle(self, colour: str, frame: int) -> tuple[float, float]:
        """The middle of a thing's box in a frame, from the left and from the top."""
        left, top, right, bottom = next(b for name, b in self.boxes.items() if name.split()[0] == colour)[frame]
        return (left + right) / 2, (top + bottom) / 2


def symbols(scene: world.Scene, show: str = "picture") -> Symbols:
    """What people would have written beside a scene: its first frame's picture, or its film."""
    if show not in BOTH:
        raise ValueError(f"show is {show!r}; it takes one of {', '.join(BOTH)}")
    frames = 1 if show == "picture" else FRAMES
    caption = stills.caption(scene) if show == "picture" else short_caption(scene)
    found = world.truth([scene], frames)[0]["boxes"] / 32
    boxes = {f"{o.colour} {o.shape}": tuple(tuple(round(float(v), 2) for v in box) for box in row)
             for o, row in zip(scene.objects, found, strict=True)}  # fmt: skip
    return Symbols(f"{caption} on a {scene.background} background", boxes)


# -------------------------------------------------------------------------------------------------------- the teacher


def conversation(told: Symbols, rng: Random) -> list[Turn]:
    """One question of each kind that the symbols allow, in an order drawn anew."""
    kinds = PICTURE_KINDS if told.show == "picture" else FILM_KINDS
    asked = [(kind, ask_about(told, kind, rng)) for kind in kinds]
    found = [Turn(kind, *pair) for kind, pair in asked if pair]
    return sorted(found, key=lambda _: rng.random())


def options(told: Symbols, kind: str) -> list[tuple[str, str]]:
    """All questions of a kind, but for "yes/no", that the symbols allow, with their answers."""
    found = MAKERS[kind](told) if kind in MAKERS else ask(told.told, kind)
    return [pair for pair in found if told.show == "film" or not _of_motion(pair[0])]


def ask_about(told: Symbols, kind: str, rng: Random) -> tuple[str, str] | None:
    """One question of a kind with its answer, drawn from all that the symbols allow; None if they allow none."""
    if kind == YES_NO:
        return _yes_no(told, rng)
    found = options(told, kind)
    return found[int(rng.random() * len(found))] if found else None


def _of_motion(question: str) -> bool:
    return question.startswith("Does ") or question.endswith(" do?") or " that " in question


def _yes_no(told: Symbols, rng: Random) -> tuple[str, str]:
    """One that a picture can answer: as many answers are yes as no, whatever is asked."""
    if told.show == "film" and len(told.told.objects) == 2 and rng.random() < 0.5 and (order := order_of(told)):
        a, b = order if rng.random() < 0.5 else order[::-1]
        return f"Does the {a} object move before the {b} object?", "yes" if (a, b) == order else "no"
    while True:
        question, answer = questions(told.told, rng)[-1]
        if not (_of_motion(question) if told.show == "picture" else re.search("spin|wall", question)):
            return question, answer


def place(x: float, y: float) -> str | None:
    """The ninth of the frame that a point lies in, in words; None if it is too near to the border of two."""
    if any(abs(v - border) < BORDER for v in (x, y) for border in (1 / 3, 2 / 3)):
        return None
    return PLACES[3 * min(2, int(3 * y)) + min(2, int(3 * x))]


def _places(told: Symbols) -> list[tuple[str, str]]:
    frames = {"": 0} if told.show == "picture" else {" at the start": 0, " at the end": -1}
    things, found = told.told.objects, []
    for o in things:
        names = ["the object"] * (len(things) == 1) + [f"the {o.colour} object"]
        names += [f"the {o.shape}"] * (sum(o.shape == other.shape for other in things) == 1)
        for when, frame in frames.items():
            where = place(*told.middle(o.colour, frame))
            found += [(f"Where is {name}{when}?", where) for name in names if where]
    return found


def _beside(told: Symbols) -> list[tuple[str, str]]:
    """"What is left of the red object?": both ways round."""
    if told.told.relation is None:
        return []
    kind, a, b = told.told.relation.kind, *(told.told.objects[k] for k in (told.told.relation.a, told.told.relation.b))
    back = {"left of": "right of", "above": "below"}[kind]
    return [(f"What is {kind} the {b.colour} object?", f"the {a.colour} {a.shape}"),
            (f"What is {back} the {a.colour} object?", f"the {b.colour} {b.shape}")]


def _reasons(told: Symbols) -> list[tuple[str, str]]:
    """Questions that take two steps; the answer tells both."""
    if len(told.told.objects) == 1:
        return _edge(told)
    found = []
    for question, answer in _beside(told):
        side, colour, shape = question.split()[2], *answer.split()[1:]
        where = side if side in ("above", "below") else f"{side} of"
        what = question.removeprefix(f"What is {where} ").removesuffix("?")
        found.append((f"What shape is the object {where} {what}?",
                      f"the object {where} it is {colour} and the {colour} object is a {shape}"))
    a, b = told.told.objects
    sizes = f"the {a.colour} object is {a.size} and the {b.colour} object is {b.size}"
    found.append(("Do the objects have the same size?", f"{sizes} so {'yes' if a.size == b.size else 'no'}"))
    if a.size != b.size:
        larger = max((a, b), key=lambda o: world.SIZES.index(o.size))
        found.append(("Which object is larger?", f"{sizes} so the {larger.colour} object"))
    return found


def _edge(told: Symbols) -> list[tuple[str, str]]:
    """Which edge of the picture the one thing is nearest to, by its place."""
    x, y = told.middle(told.told.objects[0].colour, 0)
    near = sorted({"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}.items(), key=lambda pair: pair[1])
    where = place(x, y)
    if where is None or near[1][1] - near[0][1] < 2 * BORDER:
        return []
    return [("Which edge is the object nearest to?", f"the object is {where} so the {near[0][0]} edge")]


def _shift(told: Symbols, colour: str, start: int, end: int) -> float:
    (x0, y0), (x1, y1) = told.middle(colour, start), told.middle(colour, end)
    return float(np.hypot(x1 - x0, y1 - y0))


def _movers(told: Symbols) -> list[str]:
    """The colours of the things whose boxes move over the film."""
    return [o.colour for o in told.told.objects
            if max(_shift(told, o.colour, 0, k) for k in range(1, FRAMES)) >= MOVED]


def _name(told: Symbols, colour: str) -> str:
    return next(f"the {o.colour} {o.shape}" for o in told.told.objects if o.colour == colour)


def _plain(told: Symbols) -> bool:
    """Whether each thing moves or plainly does not: what grows or shrinks does neither."""
    return not any(o.motion in ("grows", "shrinks", "orbits", "bounces") for o in told.told.objects)


def _what_moves(told: Symbols) -> list[tuple[str, str]]:
    moving = _movers(told)
    if not _plain(told) or len(moving) > 1:
        return []
    return [("What moves?", _name(told, moving[0]) if moving else "nothing")]


def order_of(told: Symbols) -> tuple[str, str] | None:
    """The colours of two things of which one has stopped before the other begins; None if they do not."""
    if len(told.told.objects) != 2:
        return None
    for a, b in permutations(o.colour for o in told.told.objects):
        first, last = (0, 1), (FRAMES - 2, FRAMES - 1)
        early = _shift(told, a, *first) >= MOVED / 2 > 2 * _shift(told, b, *first)
        late = _shift(told, b, *last) >= MOVED / 2 > 2 * _shift(told, a, *last)
        if early and late:
            return a, b
    return None


def _first(told: Symbols) -> list[tuple[str, str]]:
    if not (order := order_of(told)):
        return []
    return [("What moves first?", _name(told, order[0])), ("What moves last?", _name(told, order[1]))]


def _how_many(told: Symbols) -> list[tuple[str, str]]:
    found = [("How many objects are there?", NUMBERS[len(told.boxes)])]
    return found + [("How many objects move?", NUMBERS[len(_movers(told))])] * _plain(told)


MAKERS: dict[str, Callable[[Symbols], list[tuple[str, str]]]] = {
    "place": _places, "beside": _beside, "reasoning": _reasons, "what moves": _what_moves, "first": _first,
    "where": _places, "how many": _how_many,
}  # fmt: skip
PICTURE_KINDS = ("colour", "shape", "size", "count", "background", "place", "relation", "beside", "reasoning", YES_NO)
FILM_KINDS = (
    "colour", "shape", "size", "background", "motion", "what moves", "where", "how many", "first", "relation", YES_NO,
)  # fmt: skip

def _drawn(instructions: tuple[str, ...], told: Symbols, rng: Random) -> str:
    return instructions[int(rng.random() * len(instructions))].replace("SHOW", told.show)


def brief(told: Symbols, rng: Random) -> Turn:
    """Stage 1's: an instruction to be brief, drawn from BRIEF, and the caption as it was written, its things alone."""
    things = [thing(o) for o in told.told.objects]
    text = told.caption.removesuffix(f" on a {told.told.background} background") if len(things) > 1 else things[0]
    return Turn("description", _drawn(BRIEF, told, rng), " ".join(text.replace(",", "").split()))


def description(told: Symbols, rng: Random) -> Turn:
    """Everything that the symbols tell: the caption, and what happens in which order."""
    text = told.caption
    if told.show == "film" and (order := order_of(told)) and told.told.relation is None:
        first, then = (next(o for o in told.told.objects if o.colour == colour) for colour in order)
        text = (f"{thing(first)} {first.motion} and then {thing(then)} {then.motion} on a"
                f" {told.told.background} background")
    return Turn("description", _drawn(DETAILED, told, rng), text.replace(",", ""))

