"""What may be asked of chapter 13's model: the forms of its questions, and the reading of a typed one.

    read_question("what COLOR is the ball", "picture") -> "what colour is the circle"

Every question of `soralab.datasets.instructions` has one of FORMS; a question of another form was never learnt, and is
refused with the nearest forms.
"""

from __future__ import annotations

import re
from collections import Counter

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
    "image": "picture", "photo": "picture", "video": "film", "clip": "film",
}  # fmt: skip
_SHORT = {"whats": ("what", "is"), "wheres": ("where", "is")}
NAMED = 3  # unknown words, and nearest questions, that a refusal names


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
_WORDS = {word for text in (*FORMS, *NAMES, *(value for values in SLOTS.values() for value in values))
          for word in words(re.sub(r"\b[A-Z]{2,}\b", "", text))}  # fmt: skip


def form_of(question: str) -> str | None:
    """Which of FORMS a question has, in the grammar's own words; None if it has none."""
    said = " ".join(words(question))
    return next((form for form, pattern in _PATTERNS.items() if pattern.fullmatch(said)), None)


def read_question(text: str, show: str | None = None) -> str:
    """A typed question about a "picture" or a "film" in the grammar's words, as the model is given it; without `show`
    about either.

    Capitals, punctuation, and words such as "ball" for "circle" are taken. Raises QuestionError, in one line: for no
    question, for one that has none of FORMS (with the words that none of them has, and the nearest questions), and for
    one that is asked of the other.
    """
    said = [part for word in words(re.sub(r"['\u2019]s\b", " is", text)) for part in _SHORT.get(word, (word,))]
    said = [_SAME.get(word, word) for word in said]
    said = [show if show and word in BOTH else word for word in said]  # what is shown is called what it is
    here = [form for form in FORMS if show is None or show in FORMS[form]]
    near = sorted(here, key=lambda form: -_likeness(said, form))[:NAMED]
    nearest = "; ".join(f'"{example(form, show or "picture")}"' for form in near)
    if not said:
        raise QuestionError(f'the question is empty; try "{example(here[0])}"')
    known = form_of(" ".join(said))
    if known is None:
        raise QuestionError(f"the question has no form that was learnt{_unknown(said)}; the nearest: {nearest}")
    if known not in here:
        other = f'"{example(known)}" is asked of a {FORMS[known][0]}'
        raise QuestionError(f"{other}, and this is a {show}; here: {nearest}")
    return " ".join(said)


def example(form: str, show: str = "picture") -> str:
    """A question of a form, about a picture or a film, with the first values in its slots."""
    name = NAMES[1] if "shape" in form.lower() else NAMES[2]  # nobody asks which shape the circle has
    text = form.replace("NAME", name).replace("SHOW", show)
    for slot, values in SLOTS.items():
        each = iter(values)
        text = re.sub(rf"\b{slot}\b", lambda _, each=each: next(each), text)
    return text


def _unknown(said: list[str]) -> str:
    """The words that no question has: ", nor the word 'purple'"."""
    new = [repr(word) for word in dict.fromkeys(said) if word not in _WORDS][:NAMED]
    return f", nor the word{'s' * (len(new) > 1)} {', '.join(new)}" if new else ""


def _likeness(said: list[str], form: str) -> float:
    """How much of the words of a question and a form together are the words of both, a word that k forms have counting
    1 / k: 0 to 1."""
    both, either = ({*words(example(form))} & {*said}, {*words(example(form))} | {*said})
    return sum(1 / _RARE.get(word, 1) for word in both) / sum(1 / _RARE.get(word, 1) for word in either)


_RARE = Counter(word for form in FORMS for word in {*words(example(form))})
