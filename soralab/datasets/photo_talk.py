"""Chapter 13's instruction data about real photographs, from their sentences alone: the teacher never sees one.

The paper's teacher is GPT-4, which reads the sentences and the boxes of a photograph and makes up conversation,
detailed description and reasoning. Here nobody has boxes, and the teacher is code that looks for words: it asks what
two people or more say and nobody contradicts. So there is conversation, of three kinds, and description; of reasoning
there is none.

    yes/no    Is there a dog?  Is anybody running?       no: nobody of the five says so (it may be there all the same)
    colour    What colour is the dog?                    of a thing that has one colour in two sentences or more
    count     How many dogs are there?                   of a thing of which two sentences or more say the same number

What is asked and is not there is taken from another photograph's sentences, so that to know what is often asked does
not help to answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from soralab.datasets.instructions import Turn
from soralab.datasets.photo_words import AGREED
from soralab.datasets.question_forms import BRIEF, DETAILED
from soralab.world.questions import YES_NO

KINDS = (YES_NO, "colour", "count")
COUNTED = {"man": "men", "woman": "women", "boy": "boys", "girl": "girls", "child": "children", "person": "people",
           "dog": "dogs", "horse": "horses"}  # fmt: skip
THINGS = COUNTED | {"bench": "benches", "dress": "dresses"} | {thing: f"{thing}s" for thing in (
    "ball", "bike", "car", "boat", "rock", "tree", "hat", "jacket", "shirt", "helmet", "table", "building", "wall",
    "swing", "rope", "backpack", "toy", "pool", "street", "mountain", "camera", "hill")}  # fmt: skip
PLACES = ("water", "snow", "grass", "sand", "beach", "field", "park", "road", "ice", "ocean", "air")  # have no number
DOINGS = {"running": "runs", "jumping": "jumps", "playing": "plays", "standing": "stands", "sitting": "sits",
          "walking": "walks", "climbing": "climbs", "riding": "rides", "swimming": "swims", "holding": "holds",
          "looking": "looks", "smiling": "smiles"}  # fmt: skip
COLOURS = ("black", "white", "brown", "red", "blue", "green", "yellow", "orange", "pink", "grey", "tan", "purple")
NUMBERS, ONE, NEAR = ("two", "three", "four"), {"a", "an", "one", "the"}, 3  # told at most so many words before a thing
_OF = "|".join(f"{name}|{many}" for name, many in THINGS.items())


def names(several: Sequence[str]) -> dict[str, int]:
    """How many of the plain sentences tell of each thing, place and doing, by its name; those of none are left out."""
    found: dict[str, int] = {}
    for text in several:
        for name in _named(text):
            found[name] = found.get(name, 0) + 1
    return found


@lru_cache(maxsize=200_000)
def _named(text: str) -> tuple[str, ...]:
    said = {*text.split()}
    pairs = (*THINGS.items(), *((place, place) for place in PLACES), *DOINGS.items())
    return tuple(name for name, other in pairs if name in said or other in said)


def is_there(name: str) -> str:
    """The question whether there is a thing or place, or whether somebody does something."""
    if name in DOINGS:
        return f"is anybody {name}"
    return f"is there {name}" if name in PLACES else f"is there a {name}"


def yes_no(several: Sequence[str], others: Sequence[str], rng: Random) -> Turn | None:
    """A question whether something is there: yes for what AGREED people tell of, no for what as many tell of another
    photograph and none of this one. A coin says which; None where there is nothing to ask."""
    told, elsewhere = names(several), names(others)
    yes = [name for name, count in told.items() if count >= AGREED]
    no = [name for name, count in elsewhere.items() if count >= AGREED and name not in told]
    asked, answer = (yes, "yes") if rng.random() < 0.5 else (no, "no")
    return Turn(YES_NO, is_there(asked[int(rng.random() * len(asked))]), answer) if asked else None


def colours(several: Sequence[str]) -> list[Turn]:
    """What colour each thing is that has one colour in AGREED sentences or more, and no other in any."""
    found: dict[str, list[str]] = {}
    for text in several:
        for colour, name in re.findall(rf"\b({'|'.join(COLOURS)}) ({_OF})\b", text):
            found.setdefault(name, []).append(colour)
        for name in re.findall(rf"\b(?:{'|'.join(COLOURS)}) and (?:{'|'.join(COLOURS)}) ({_OF})\b", text):
            found.setdefault(name, []).append("")  # of two colours: no answer
    return [Turn("colour", f"what colour is the {name}", said[0]) for name, said in found.items()
            if name in THINGS and len(said) >= AGREED and len({*said}) == 1]  # fmt: skip


def counts(several: Sequence[str]) -> list[Turn]:
    """How many there are of each of COUNTED of which AGREED sentences or more tell the same number, none another."""
    found = []
    for name, many in COUNTED.items():
        said = [_count(text, name, many) for text in several]
        numbers = {number for number in said if number}
        if len(numbers) == 1 and "many" not in numbers and sum(number in numbers for number in said) >= AGREED:
            found.append(Turn("count", f"how many {many} are there", numbers.pop()))
    return found


def _count(text: str, name: str, many: str) -> str:
    """The number of a thing that a sentence tells: "" where it does not tell of it, "many" where it tells no number."""
    said = text.split()
    if name not in said and many not in said:
        return ""
    at = said.index(many if many in said else name)
    before = {*said[max(0, at - NEAR) : at]}
    if many in said:
        return next((number for number in NUMBERS if number in before), "many")
    return "one" if before & ONE and said.count(name) == 1 and "another" not in said else "many"


def conversation(several: Sequence[str], others: Sequence[str], rng: Random) -> list[Turn]:
    """All that may be asked of a photograph, from its plain sentences and another one's: two questions whether
    something is there, each colour, each count, in an order drawn anew."""
    asked = [yes_no(several, others, rng), yes_no(several, others, rng), *colours(several), *counts(several)]
    return sorted(dict.fromkeys(turn for turn in asked if turn), key=lambda _: rng.random())


def description(several: Sequence[str], rng: Random, brief: bool = False) -> Turn:
    """An instruction to describe; the answer is the longest sentence, or, to be brief, one of all: stage 1's."""
    forms = BRIEF if brief else DETAILED
    question = forms[int(rng.random() * len(forms))].replace("SHOW", "picture").lower().rstrip("?")
    answer = several[int(rng.random() * len(several))] if brief else max(several, key=lambda text: len(text.split()))
    return Turn("description", question, answer)
