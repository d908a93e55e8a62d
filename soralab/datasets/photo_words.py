"""Sentences about photographs as the course's models of language take them, and what they agree on.

Flickr8k and Flickr30k have five people's sentences of each photograph. A word that several of them use is what the
photograph shows, as nearly as anybody knows: there is no truth beside it, as there is of a drawn scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from soralab.datasets.by_kind import CAPTIONED
from soralab.datasets.multi30k import BytePairs
from soralab.world.language import words

PIECES = 2000  # of the language that is learnt from training's sentences
AGREED = 2  # people who say it, and it counts as shown
TOLD_BY_FIVE = tuple(name for name in CAPTIONED if name != "pictures")  # a reader's own may have one sentence
STOP = frozenset(
    """
    a about after all along an and another are around as at away back be being behind beside between both by down each
    for from front has have having he her him his in inside into is it its next near of off on one onto other out over
    picture photo s several she side some someone something that the their them there they this through to together top
    toward towards two under up very view while who with
    """.split()
)  # words of which none is a claim about the photograph


def plain(text: str) -> str:
    """A sentence in lower case and without punctuation, as the course's captions are."""
    return " ".join(words(text))


def plainly(lines: Iterable[Sequence[str]]) -> list[list[str]]:
    """Each photograph's sentences, `plain`."""
    return [[plain(text) for text in several] for several in lines]


def pieces_of(lines: Iterable[Sequence[str]], more: Iterable[str] = (), first: int = 3) -> BytePairs:
    """Byte pairs, learnt from photographs' sentences and from `more` texts; ids below `first` are a model's own."""
    return BytePairs.learn([*(text for several in lines for text in several), *more], PIECES, first)


def claims(text: str) -> set[str]:
    """The words of a plain text that say something of what is shown."""
    return {*text.split()} - STOP


def agreed(several: Sequence[str]) -> set[str]:
    """The words that AGREED or more of the plain sentences use."""
    times = Counter(word for text in several for word in claims(text))
    return {word for word, count in times.items() if count >= AGREED}


def judged(found: Sequence[str], people: Sequence[Sequence[str]]) -> dict[str, float]:
    """Plain texts about photographs, held against what people said: {"precision": the share of a text's words, but for
    STOP, that anybody said; "recall": the share of the words that people agree on that a text has; "words" a text}."""
    said = right = shown = told = 0
    for text, several in zip(found, people, strict=True):
        mine, any_of, both = claims(text), claims(" ".join(several)), agreed(several)
        said, right = said + len(mine), right + len(mine & any_of)
        shown, told = shown + len(both), told + len(mine & both)
    length = sum(len(text.split()) for text in found) / max(1, len(found))
    return {"precision": round(right / max(1, said), 4), "recall": round(told / max(1, shown), 4),
            "words": round(length, 1)}  # fmt: skip
