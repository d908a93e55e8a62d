"""Reading a prompt whole: what people type becomes a caption of the world, or is refused with what was not understood.

    read_prompt("Two small red balls, sliding to the right!").text
    -> "a small red circle slides right and a small red circle slides right"

What has one reading is taken: capitals, punctuation, plurals with a number, "is sliding", "to the right", words such as
"big" and "ball"; "a circle and a square slide right" is said of both. What is left over when the grammar of
`soralab.world.language` ends is never dropped.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from soralab.world.language import (
    ADVERBS,
    DESCRIPTIVE_LENGTH,
    PROMPT_WORDS,
    SYNONYMS,
    article,
    encode,
    words,
)
from soralab.world.reader import read_caption, read_setting
from soralab.world.scene import BACKGROUNDS, CAMERAS, COLOURS, DIRECTIONS, INVISIBLE, MOTIONS, SHAPES, SIZES, WALL

EXAMPLE = '"a small red circle slides right on a black background"'
_PUNCTUATION = set(" \t\r\n.,;:!?'\"()-\u2018\u2019\u201c\u201d\u2013\u2014\u2026")
_NUMBERS = {"one": 1, "1": 1, "two": 2, "2": 2, "three": 3, "3": 3}
_NOUNS = (*SHAPES, "object")
_PLURALS = {"crosses": "cross"} | {f"{noun}s": noun for noun in _NOUNS if noun != "cross"}
_ARTICLES = ("a", "an", "the")
_VERBS = ("stay", "slide", "bounce", "orbit", "spin", "grow", "shrink", "pass", "bump", "pan", "move", "rotate", "turn",
          "jump")  # fmt: skip
_SPELT = {"passes": "passes", "passing": "passes", "sliding": "slides", "bouncing": "bounces", "moving": "slides",
          "rotating": "rotates", "spinning": "spins", "fast": "quickly", "slow": "slowly"}  # fmt: skip
_WARDS = {f"{way}{end}": way for way in ("up", "down", "left", "right") for end in ("ward", "wards")}
_MOTIONS = sorted((tuple(motion.split()) for motion in MOTIONS), key=len, reverse=True)  # the longest first
_PLACES = (("left", "of"), ("right", "of"), ("above",), ("in", "front", "of"))
_ALL, _ANY = "+", "?"  # before a verb: it is said of all things before it ("slide"), or may be ("sliding")
_MARKS = (_ALL, _ANY)


@dataclass(frozen=True)
class Prompt:
    """A prompt that was read whole. `text` is what the model is given, in the world's own words."""

    text: str

    @property
    def things(self) -> list[dict[str, str | None]]:
        """What it speaks of, as `soralab.world.reader.read_caption` tells it."""
        return read_caption(self.text)

    def unlearnt(self, level: str = "simple") -> list[str]:
        """What a model of this level of the world never saw, each in a few words; [] for what it did."""
        setting, simple = read_setting(self.text), level == "simple"
        found = [f"{len(self.things)} things"] if len(self.things) > (1 if simple else 3) else []
        colours = [thing["colour"] for thing in self.things if thing["colour"]]
        found += [f"two things that are {colour}" for colour in dict.fromkeys(colours) if colours.count(colour) > 1]
        several, plain = len(self.things) > 1, setting["background"] in BACKGROUNDS[:2]
        if several and any(thing["motion"] == WALL for thing in self.things):
            found.append("a wall with several things")
        if not simple and plain and setting["camera"] in CAMERAS[1:]:
            found.append(f"a camera that {setting['camera']} over a {setting['background']} background")
        if simple and setting["background"] in ("striped", "checkered"):
            found.append(f"a {setting['background']} background")
        if simple and setting["camera"] in CAMERAS[1:]:
            found.append(f"a camera that {setting['camera']}")
        unseen = [(t["shape"], t["motion"]) for t in self.things if (t["shape"], t["motion"]) in INVISIBLE]
        return found + [f"a {shape} that {motion} (nobody can see it turn)" for shape, motion in unseen]


def read_prompt(text: str) -> Prompt:
    """Read an English prompt whole. Raises ValueError, in one line: what was not understood and what is taken."""
    if not isinstance(text, str):
        raise ValueError(f"the prompt is {text!r}; it takes text, such as {EXAMPLE}")
    said = _usual(words(text))
    known = [_PLURALS.get(word, word) for word in said if word not in (*_NUMBERS, *_MARKS)]
    if known or not (said or _odd(text)):
        encode(" ".join(known), DESCRIPTIVE_LENGTH, PROMPT_WORDS)
    if _odd(text):
        odd = ", ".join(_odd(text)[:3])
        raise ValueError(f"the prompt holds {odd}, which is no word: say it in words, such as {EXAMPLE}")
    found = _Reader(said).whole()
    if not read_caption(found):
        raise ValueError(f'the prompt names no thing ("{found}"): it takes one, such as {EXAMPLE}')
    encode(found, DESCRIPTIVE_LENGTH, PROMPT_WORDS)  # a number makes it longer
    return Prompt(found)


def _odd(text: str) -> list[str]:
    """The characters that are neither letters, digits nor punctuation, an emoji for example; each once."""
    strange = (c for c in unicodedata.normalize("NFC", text) if not c.isalnum() and c not in _PUNCTUATION)
    return [repr(c) for c in dict.fromkeys(strange) if unicodedata.category(c) not in ("Mn", "Zs", "Cc")]


def _usual(typed: list[str]) -> list[str]:
    """The words in their usual form: "is sliding to the right" is "slides right"; plural nouns stay as they are, and
    before what may be said of several things stands one of _MARKS."""
    text = " ".join(_WARDS.get(word, word) for word in typed)
    text = re.sub(r"\b(counter|anti) clockwise\b", "anticlockwise", text)
    text = re.sub(r"\b(?:to|towards?) the (right|left)\b", r"\1", text)
    text = re.sub(r"(?<!wall )\b(?=(?!ring\b)\w+ing\b)", f"{_ANY} ", text)
    text = re.sub(r"\bis \? ", "", text)
    text = re.sub(r"\bare \? |\b(?=(?:are|stand|remain|stay) still\b)", f"{_ALL} ", text)
    text = re.sub(r"\b(?:is|are|stands?|remains?|stay|staying|standing) still\b", "stays still", text)
    text = re.sub(r"\bcamera stays still\b", "camera is still", text)
    text = re.sub(r"\bare\b", "is", text)
    text = re.sub(r"\b(?:behind) the wall\b", "behind a wall", text)
    text = re.sub(r"\b(right|left) (?:and )?(up|down)\b", r"\2 and \1", text)
    text = re.sub(r"\b(up|down) (right|left)\b", r"\1 and \2", text)
    said: list[str] = []
    for word in text.split():
        if word == "moving" and said[-1:] == ["wall"]:
            said.append(word)  # the world's own: "passes behind a wall, moving left"
        else:
            said += [_ALL] * (word in _VERBS) + [_usual_word(word)]
    moves = {phrase[0] for phrase in _MOTIONS}
    return [word for word, after in zip(said, [*said[1:], ""], strict=False) if word not in _MARKS or after in moves]


def _usual_word(word: str) -> str:
    word = _SPELT.get(word, word)
    for stem in _VERBS:
        if word in (stem, f"{stem}s", f"{stem}ing"):
            word = f"{stem}s" if stem != "pass" else "passes"
    one = re.sub("(?<=x)es$|s$", "", word)
    plural = one != word and SYNONYMS.get(one) in SHAPES
    return next(p for p, noun in _PLURALS.items() if noun == SYNONYMS[one]) if plural else SYNONYMS.get(word, word)


class _Reader:
    """A walk over the words; what it has read it writes down in the world's own order."""

    def __init__(self, said: list[str]):
        self.said, self.at, self.out = said, 0, []
        self.named: list[str] = []  # things that "the ..." may mean
        self.last, self.moving = -1, set()  # the number of the thing that was named last; of those that have a motion
        self.idle: dict[int, list[int]] = {}  # of those since the last motion: where in `out` theirs would stand
        self.placed, self.unclear = set(), False  # those in a relation; whether it is, who does what

    def take(self, *phrase: str) -> bool:
        """Take these words if they come next."""
        there = tuple(self.said[self.at : self.at + len(phrase)]) == phrase
        self.at += len(phrase) * there
        return there

    def one_of(self, known) -> str | None:
        """Take the next word if it is one of these."""
        word = self.said[self.at] if self.at < len(self.said) else None
        if word not in known:
            return None
        self.at += 1
        return word

    def whole(self) -> str:
        """Read to the end, or refuse what is left over."""
        while self.at < len(self.said):
            began, written = self.at, len(self.out)
            if written and self.take("and"):
                self.out.append("and")
            if not (self.setting() or self.camera() or self.clause()):
                self.at = began
                del self.out[written:]
                self.refuse()
        return " ".join(self.out)

    def refuse(self) -> None:
        rest = [word for word in self.said[self.at :] if word not in _MARKS]
        read, left = " ".join(self.out), " ".join(rest)
        noun = next((word for word in rest if word in _PLURALS), None)
        line = f'"{left}" is not understood in the prompt' + (f' after "{read}"' if read else "")
        if self.unclear:
            tip = 'say of each thing what it does, such as "a red circle slides right and a blue square slides right"'
        elif noun:
            tip = f'how many {noun} are there? say "{article(noun)} {_PLURALS[noun]}" or "two {noun}"'
        elif rest[0] in ("slides", *DIRECTIONS):
            tip = f"slides takes one direction: {', '.join(DIRECTIONS)}"
        else:
            motions = ", ".join(dict.fromkeys(motion.split()[0] for motion in MOTIONS))
            tip = (f"it takes a thing and one motion ({motions}), and a background ({', '.join(BACKGROUNDS)}), "
                   f"such as {EXAMPLE}")  # fmt: skip
        raise ValueError(f"{line}: {tip}")

    def setting(self) -> bool:
        """on a BACKGROUND background"""
        began = self.at
        if self.take("on") and (self.one_of(_ARTICLES) or True):
            colour = self.one_of(BACKGROUNDS)
            if colour and self.take("background"):
                self.out += ["on", article(colour), colour, "background"]
                return True
        self.at = began
        return False

    def camera(self) -> bool:
        """the camera is still, the camera pans left"""
        began = self.at
        if (self.take("the") or True) and self.take("camera"):
            for kind in ("is still", *CAMERAS[1:]):
                if self.take(*kind.split()):
                    self.out += ["the", "camera", *kind.split()]
                    return True
        self.at = began
        return False

    def clause(self) -> bool:
        """A thing, what it does, and how it stands to another."""
        written = len(self.out)
        number = _NUMBERS.get(self.one_of(_NUMBERS), 0)
        if not self.thing(number):
            return False
        end = len(self.out)
        mark = self.told("that")
        does, one = self.out[end:], self.out[written:]
        for _ in range(number - 1):
            self.out += ["and", *one]
        if mark is None:
            self.idle[self.last] = [end + k * (len(one) + 1) for k in range(number or 1)]
        else:
            self.share(does if mark == _ALL else [])
        if number < 2:  # of two, which one?
            self.relation()
        return True

    def share(self, does: list[str]) -> None:
        """What the last of several things does, the others do too."""
        for place in sorted((place for places in self.idle.values() for place in places), reverse=True):
            self.out[place:place] = does
        self.moving |= set(self.idle) if does else set()
        self.idle = {}

    def told(self, *opening: str) -> str | None:
        """Words such as "that", which may be missing, and a motion; returns the mark before it, "" for none. Nothing is
        taken and None returned where no motion follows, or nobody knows of which things it is said."""
        began, written = self.at, len(self.out)
        self.out += [word for word in opening if self.take(word)]
        mark = None if self.last in self.moving else self.motion()  # one for each thing, however often it is named
        others = set(self.idle) if mark == _ANY else set(self.idle) & (self.moving | self.placed)
        if mark and others:
            self.unclear = True
        if mark is None or self.unclear:
            self.at = began
            del self.out[written:]
            return None
        self.moving.add(self.last)
        return mark

    def thing(self, number: int = 0) -> bool:
        """[a] [SIZE] [COLOUR] SHAPE, the adjectives in either order; a shape or a colour must be there."""
        began = self.at
        first = "a" if number else self.one_of(_ARTICLES)
        size = self.one_of(SIZES)
        colour = self.one_of(COLOURS)
        size = size or self.one_of(SIZES)
        many = tuple(_PLURALS) if number or first in ("a", "an") else ()
        noun = self.one_of((*_NOUNS, *many))
        noun = _PLURALS.get(noun, noun)
        adjective_next = self.said[self.at : self.at + 1] and self.said[self.at] in (*SIZES, *COLOURS)
        alone = colour and not adjective_next and not any(word in (*_NOUNS, *_PLURALS) for word in self.said)
        if not (noun or alone):
            self.at = began
            return False
        said = [word for word in (size, colour, noun) if word]
        name = " ".join(said)
        same = (k for k, other in enumerate(self.named) if first == "the" and set(said) <= set(other.split()))
        self.last, known = next(same, len(self.named)), len(self.named)
        if first or number:
            self.out.append("the" if self.last < known else article(said[0]))
        self.named.append(name)
        self.out += said
        return True

    def motion(self) -> str | None:
        """[slowly] MOTION [slowly] [clockwise], as the world says it: the adverb first. Returns the mark before it, ""
        for none; None where no motion comes next."""
        began = self.at
        speeds = tuple(adverb for adverb in ADVERBS.values() if adverb)
        speed, mark = self.one_of(speeds), self.one_of(_MARKS) or ""
        found = next((phrase for phrase in _MOTIONS if self.follows(phrase)), None)
        if found is None:
            self.at = began
            return None
        self.at += len(found)
        speed = speed or self.one_of(speeds)
        turn = []
        if found[0] in ("spins", "orbits"):
            turn = [self.one_of(("clockwise", "anticlockwise"))]
        elif " ".join(found) == WALL and self.take("moving"):
            turn = ["moving", self.one_of(("left", "right"))]
        if turn[-1:] == [None] and len(turn) == 2:
            self.at -= 1
            turn = []
        speed = speed or self.one_of(speeds)
        self.out += [word for word in (speed, *found, *turn) if word]
        return mark

    def follows(self, phrase: tuple[str, ...]) -> bool:
        end = self.at + len(phrase)
        return tuple(self.said[self.at : end]) == phrase and self.said[end : end + 1] != ["of"]

    def relation(self) -> None:
        """[is] left of THING [that MOTION], and bumps into THING [that then MOTION]"""
        began, written, first = self.at, len(self.out), self.last
        if self.take("and", "bumps", "into") or self.take("bumps", "into"):
            self.out += ["and"] * (self.said[began] == "and") + ["bumps", "into"]
        else:
            there = ["is"] if self.take("is") else []
            kind = next((place for place in _PLACES if self.take(*place)), None)
            if kind is None or kind == ("right", "of"):
                self.at = began
                return
            self.out += [*there, *kind]
        if not self.thing():
            self.at = began
            del self.out[written:]
            return
        self.placed |= {first, self.last}
        if self.said[self.at : self.at + 1] == ["that"]:  # else the motion may be the first thing's
            self.told("that", "then")
        if self.last not in self.moving:
            self.idle[self.last] = []
