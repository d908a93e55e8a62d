"""What may be asked of chapter 13's model: the forms of its questions, and the reading of a typed one.

    read_question("what COLOR is the ball", "picture") -> "what colour is the circle"

Every question of `soralab.datasets.instructions` has one of FORMS; a question of another form was never learnt, and is
refused with the nearest forms.
"""

from __future__ import annotations

import difflib
import re

from soralab.datasets.short_films import DOES
from soralab.world.language import SYNONYMS, words
from soralab.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES

PICTURE, FILM = ("picture",), ("film",)
BOTH = (*PICTURE, *FILM)
SIDES = ("left of", "right of", "above", "below")
DO = tuple(" ".join([m.split()[0].removesuffix("s"), *m.split()[1:]]) for m in DOES)
NAMES = ("the object", "the COLOUR object", "the SHAPE", "the object that MOTION")
SLOTS = {  # what may stand for each word of a form that is in capitals
    "COLOUR": COLOURS, "SHAPE": SHAPES, "SIZE": SIZES, "MOTION": DOES, "MOVE": DO, "BACKGROUND": BACKGROUNDS[:2],
    "SIDE": SIDES, "FIRST": ("first", "last"), "START": ("start", "end"), "SHOW": BOTH,
    "SIDES": ("left or right of", "above or below"),
}  # fmt: skip
FORMS = {  # each with what it may be asked of
    "What colour is NAME?": BOTH, "What shape is NAME?": BOTH, "What size is NAME?": BOTH,
    "How many objects are there?": BOTH, "How many SIZE objects are there?": PICTURE,
    "What does the background look like?": BOTH, "Where is NAME?": PICTURE,
    "Is the COLOUR object SIDES the COLOUR object?": PICTURE, "What is SIDE the COLOUR object?": PICTURE,
    "What shape is the object SIDE the COLOUR object?": PICTURE, "Do the objects have the same size?": PICTURE,
    "Which object is larger?": PICTURE, "Which edge is the object nearest to?": PICTURE,
    "Is NAME a SHAPE?": BOTH, "Is NAME COLOUR?": BOTH, "Is NAME SIZE?": BOTH, "Is the background BACKGROUND?": BOTH,
    "Is the COLOUR object SIDE the COLOUR object?": PICTURE,
    "What does NAME do?": FILM, "Does NAME MOVE?": FILM, "What moves?": FILM, "What moves FIRST?": FILM,
    "Where is NAME at the START?": FILM, "How many objects move?": FILM,
    "Does the COLOUR object move before the COLOUR object?": FILM,
    "What does the COLOUR object bump into?": FILM, "What bumps into the COLOUR object?": FILM,
}  # fmt: skip
BRIEF = ("Describe the SHOW briefly", "Give a short description of the SHOW", "What does the SHOW show?",
         "Sum up the SHOW")  # fmt: skip
DETAILED = ("Describe the SHOW in detail", "Tell everything that the SHOW shows",
            "What is there to see in the SHOW?", "Give a full description of the SHOW")  # fmt: skip
FORMS |= dict.fromkeys((*BRIEF, *DETAILED), BOTH)
_SAME = {word: meant for word, meant in SYNONYMS.items() if word != "moves"} | {
    "color": "colour", "colored": "colour", "things": "objects", "thing": "object", "bigger": "larger",
}  # fmt: skip
_SHORT = {"whats": ("what", "is"), "wheres": ("where", "is")}


class QuestionError(ValueError):
    """A question that cannot be put: its message is one line, and a notebook shows that line alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def _pattern(form: str) -> re.Pattern:
    """The form as an expression over words with one space between; BACKGROUND and START before what they contain."""
    text = " ".join(re.findall(r"\w+", form))
    text = re.sub(r"\bNAME\b", "(?:" + "|".join(NAMES) + ")", text)
    for slot, values in SLOTS.items():
        text = re.sub(rf"\b{slot}\b", "(?:" + "|".join(values) + ")", text)
    return re.compile(text, re.IGNORECASE)


_PATTERNS = {form: _pattern(form) for form in FORMS}


def form_of(question: str) -> str | None:
    """Which of FORMS a question has, in the grammar's own words; None if it has none."""
    said = " ".join(words(question))
    return next((form for form, pattern in _PATTERNS.items() if pattern.fullmatch(said)), None)


def read_question(text: str, show: str) -> str:
    """A typed question about a "picture" or a "film" in the grammar's words, as the model is given it.

    Capitals, punctuation, and words such as "ball" for "circle" are taken. Raises QuestionError, in one line: for no
    question, for one that has none of FORMS (with the nearest ones), and for one that is asked of the other.
    """
    said = [part for word in words(re.sub(r"['\u2019]s\b", "s", text)) for part in _SHORT.get(word, (word,))]
    said = [_SAME.get(word, word) for word in said]
    here = [form for form in FORMS if show in FORMS[form]]
    if not said:
        raise QuestionError(f'the question is empty; try "{example(here[0])}"')
    known = form_of(" ".join(said))
    if known is None:
        near = sorted(here, key=lambda form: -_likeness(said, form))[:3]
        raise QuestionError(f"the question has no form that was learnt; the nearest: {_listed(near)}")
    if known not in here:
        near = sorted(here, key=lambda form: -_likeness(said, form))[:2]
        raise QuestionError(f'"{known}" is asked of a {FORMS[known][0]}, and this is a {show}; here: {_listed(near)}')
    return " ".join(said)


def example(form: str) -> str:
    """A question of a form, with the first value in each slot."""
    text = form.replace("NAME", NAMES[2])
    for slot, values in SLOTS.items():
        text = re.sub(rf"\b{slot}\b", values[0], text)
    return text


def _likeness(said: list[str], form: str) -> float:
    """How much the words of a question are those of a form: 0 to 1."""
    return difflib.SequenceMatcher(None, said, words(example(form))).ratio()


def _listed(forms: list[str]) -> str:
    return "; ".join(f'"{example(form)}"' for form in forms)
