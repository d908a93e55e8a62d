"""English for the world: captions, noisy alt texts, and a closed vocabulary; `soralab.world.reader` reads them.

Grammar of a short caption (all in lower case, no full stop):

    caption  = clause | clause ", and " clause | clause ", " clause ", and " clause
    clause   = thing motion                                   "a small red circle slides right"
             | thing slide "in front of" thing "that" motion  "... in front of a blue square that stays still"
             | thing motion "and bumps into" thing "that then" motion
             | thing "that" motion "is" (left of | above | in front of) thing "that" motion
    thing    = "a" size colour shape

A prompt may say less: no size, no colour, or no motion, and then what is left of a clause is

    clause   = thing | thing "is" (left of | above | in front of) thing | thing "bumps into" thing

A related pair shares one clause, which comes first; other things follow in depth order, the furthest first.
Every word belongs to `VOCABULARY`, and a caption means the same with its punctuation taken off.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from random import Random

from soralab.world.prompt import PromptError
from soralab.world.scene import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    SLIDES,
    WALL,
    Object,
    Scene,
)

PAD = "<pad>"

# Checkpoints hold one embedding row per word, by position: add words at the END, never move or remove one.
VOCABULARY: tuple[str, ...] = tuple(
    f"""
    {PAD}
    a an the and that is of on into in front above behind left right up down then
    small medium large red orange yellow green cyan blue pink white
    circle square triangle cross ring moon
    stays still slides bounces orbits spins grows shrinks passes wall bumps moving
    slowly quickly clockwise anticlockwise background black grey striped checkered camera pans
    what which colour shape size object objects how many does do are there or way like look below
    stay slide bounce orbit spin grow shrink pass bump turn move pan slow fast yes no zero one two three
    photo picture image img clip video gif jpg file stock free download untitled new copy
    0 1 2 3 4 5 6 7 8 9
    """.split()
)
_INDEX = {word: index for index, word in enumerate(VOCABULARY)}
PROMPT_WORDS = VOCABULARY[1 : _INDEX["pans"] + 1]  # the words of captions; errors recommend no others

LENGTH = 32  # words; no short caption is longer than 30
DESCRIPTIVE_LENGTH = 48  # words; no descriptive caption is longer

ADVERBS = {"slow": "slowly", "fast": "quickly", "": ""}

# How unreliable an alt text is. Each is the probability of one independent throw.
ALT_IRRELEVANT = 0.12  # the whole text says nothing of the film: a file name, "free stock video"
ALT_KEEP_OBJECT = 0.5  # each thing after the first is mentioned
ALT_KEEP_SIZE, ALT_KEEP_COLOUR, ALT_KEEP_MOTION = 0.25, 0.75, 0.35  # the attribute is mentioned
ALT_WRONG_SIZE, ALT_WRONG_COLOUR, ALT_WRONG_SHAPE, ALT_WRONG_MOTION = 0.05, 0.1, 0.05, 0.05  # another one
ALT_JUNK = 0.3  # the text has "photo of" before it or a file's tail after it

# What people type for a word of the world: a prompt is read by it, and an error names it.
SYNONYMS = {
    "ball": "circle", "big": "large", "box": "square", "counterclockwise": "anticlockwise",
    "crescent": "moon", "crimson": "red", "disc": "circle", "disk": "circle", "donut": "ring", "gray": "grey",
    "huge": "large", "jumps": "bounces", "little": "small", "moves": "slides", "plus": "cross",
    "rotates": "spins", "scarlet": "red", "tiny": "small", "turns": "spins", "turquoise": "cyan",
}  # fmt: skip


# --------------------------------------------------------------------------------------------------- captions


def article(word: str) -> str:
    """The indefinite article, by the word that follows it."""
    return "an" if word[0] in "aeiou" else "a"


def thing(obj: Object) -> str:
    """The object with its size, colour and shape: "a small red circle"; what is empty is not said."""
    said = [word for word in (obj.size, obj.colour, obj.shape) if word]
    return f"{article(said[0])} {' '.join(said)}"


def mention_order(scene: Scene) -> list[int]:
    """Indices of the objects as every caption names them: the related pair first, then the rest by depth."""
    first = [scene.relation.a, scene.relation.b] if scene.relation else []
    return first + [index for index in range(len(scene.objects)) if index not in first]


def short_caption(scene: Scene) -> str:
    """What is there and what it does: "a small red circle slides right". At most 30 words.

    What is empty in an object (size, colour, motion) is not said.
    """
    clauses = [f"{thing(obj)} {obj.motion}".strip() for obj in (scene.objects[i] for i in mention_order(scene))]
    if scene.relation:
        a, b = scene.objects[scene.relation.a], scene.objects[scene.relation.b]
        clauses[:2] = [_related_clause(scene.relation.kind, a, b)]
    return _listed(clauses)


def _related_clause(kind: str, a: Object, b: Object) -> str:
    if not a.motion:
        return f"{thing(a)} {kind if kind == 'bumps into' else f'is {kind}'} {thing(b)}"
    if kind == "bumps into":
        return f"{thing(a)} {a.motion} and bumps into {thing(b)} that then {b.motion}"
    if kind == "in front of" and a.motion in SLIDES:
        return f"{thing(a)} {a.motion} in front of {thing(b)} that {b.motion}"
    return f"{thing(a)} that {a.motion} is {kind} {thing(b)} that {b.motion}"


def _listed(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + ", and " + clauses[-1]


def descriptive_caption(scene: Scene) -> str:
    """Everything that can be seen, in sentences: also speed, turn, background, camera. At most 48 words.

    "A small red circle quickly slides right on a black background. The camera is still."
    """
    objects = [scene.objects[i] for i in mention_order(scene)]
    body = _listed([f"{thing(obj)} {_described_motion(obj)}" for obj in objects])
    setting = f"on {article(scene.background)} {scene.background} background"
    sentences = [f"{body} {setting}" if len(objects) == 1 else f"{setting}, {body}"]
    if scene.relation:
        a, b = objects[:2]
        kind = scene.relation.kind if scene.relation.kind == "bumps into" else f"is {scene.relation.kind}"
        sentences.append(f"the {a.colour} {a.shape} {kind} the {b.colour} {b.shape}")
    sentences.append("the camera " + ("is still" if scene.camera == "still" else scene.camera))
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences)


def _described_motion(obj: Object) -> str:
    adverb = ADVERBS[obj.speed]
    if obj.motion == WALL:
        tail = f", moving {obj.turn}," if obj.turn else ""
    else:
        tail = f" {obj.turn}" if obj.turn else ""
    return f"{adverb} {obj.motion}{tail}".strip()


# -------------------------------------------------------------------------------------------------- alt texts


def alt_text(scene: Scene, rng: Random) -> str:
    """A text such as the web puts beside a film: short, patchy, sometimes wrong, sometimes about nothing.

    The `ALT_` constants are its error rates. Its words are in the vocabulary.
    """
    if rng.random() < ALT_IRRELEVANT:
        return _junk_name(rng)
    order = list(range(len(scene.objects)))
    first = order.pop(int(rng.random() * len(order)))
    kept = [first] + [index for index in order if rng.random() < ALT_KEEP_OBJECT]
    text = " ".join(_alt_thing(scene.objects[index], rng) for index in kept)
    if rng.random() < ALT_JUNK:
        if rng.random() < 0.5:
            text = f"{_pick(rng, ('photo', 'picture', 'image', 'video', 'clip'))} of {article(text)} {text}"
        else:
            text = f"{text} {_pick(rng, ('gif', 'clip', 'stock video', 'free download', 'copy 2'))}"
    return text


def _alt_thing(obj: Object, rng: Random) -> str:
    said = []
    for value, choices, keep, wrong in (
        (obj.size, SIZES, ALT_KEEP_SIZE, ALT_WRONG_SIZE),
        (obj.colour, COLOURS, ALT_KEEP_COLOUR, ALT_WRONG_COLOUR),
        (obj.shape, SHAPES, 1.0, ALT_WRONG_SHAPE),
        (obj.motion, MOTIONS, ALT_KEEP_MOTION, ALT_WRONG_MOTION),
    ):
        if rng.random() < wrong:
            value = _pick(rng, [choice for choice in choices if choice != value])
        if rng.random() < keep:
            said.append(value)
    return " ".join(said)


def _junk_name(rng: Random) -> str:
    digits = "".join(str(int(rng.random() * 10)) for _ in range(4))
    names = f"IMG_{digits}.jpg", f"file {digits}.gif", f"clip {digits[0]}"
    return _pick(rng, (*names, "untitled", "free stock video", "new video"))


def _pick(rng: Random, items):
    return items[int(rng.random() * len(items))]  # rng.random() alone is the same on every Python, for good


# ------------------------------------------------------------------------------------------------- vocabulary


def words(text: str) -> list[str]:
    """The words in lower case, without punctuation; each digit is a word of its own ("img_04": img, 0, 4)."""
    return re.findall(r"[^\W\d_]+|\d", unicodedata.normalize("NFC", text).lower())


def encode(text: str, length: int = LENGTH, known: tuple[str, ...] = VOCABULARY) -> list[int]:
    """Indices into `VOCABULARY`, filled up with PAD (0) to `length` words; [length] integers.

    Raises PromptError (a ValueError), in one line: no words, more than `length` words, words that `known` lacks
    (with the nearest of `PROMPT_WORDS`), Hindi script (which chapter 02 translates).
    """
    if any("\u0900" <= character <= "\u097f" for character in text):
        mend = "translate it first, as chapter 02 does (soralab.transformer.translate)"
        raise PromptError(f"the text is Hindi (Devanagari): {mend}")
    found = words(text)
    if not found:
        raise PromptError('the prompt is empty; try "a small red circle slides right"')
    if len(found) > length:
        raise PromptError(f"the prompt has {len(found)} words; it takes at most {length}")
    unknown = list(dict.fromkeys(word for word in found if word not in known))
    if unknown:
        raise PromptError(_unknown_words(unknown))
    return [_INDEX[word] for word in found] + [0] * (length - len(found))


def decode(ids) -> str:
    """The words of these indices, PAD left out. Raises ValueError for an index outside the vocabulary."""
    ids = [int(index) for index in ids]
    for index in ids:
        if not 0 <= index < len(VOCABULARY):
            raise ValueError(f"ids holds {index}; it takes 0 to {len(VOCABULARY) - 1}")
    return " ".join(VOCABULARY[index] for index in ids if index)


def _unknown_words(unknown: list[str]) -> str:
    """One line: each unknown word with the nearest known ones, or what the world consists of."""
    parts, lost = [], False
    for word in unknown[:3]:
        shown = repr(word if len(word) <= 20 else word[:20] + "...")
        near = difflib.get_close_matches(word, PROMPT_WORDS, 3, 0.7)
        near = [SYNONYMS[word]] if word in SYNONYMS else near
        lost = lost or not near
        parts.append(f"{shown} (nearest: {', '.join(near)})" if near else shown)
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    line = f"unknown word{'s' if len(unknown) > 1 else ''} in the prompt: {', '.join(parts)}{more}"
    if lost:
        verbs = dict.fromkeys(motion.split()[0] if motion in SLIDES else motion for motion in MOTIONS)
        line += (
            f"; the world has the shapes {', '.join(SHAPES)}; the colours {', '.join(COLOURS)};"
            f" the sizes {', '.join(SIZES)}; the motions {', '.join(verbs)}"
        )
    return line
