"""The world in Hindi: a short caption and a count, in Devanagari, with gender, number and case in agreement.

What agrees with what:

- Nouns have a gender. All six of the captions are masculine; अंगूठी, a finger ring, which people type for छल्ला, is
  feminine.
- Adjectives in -ा take the noun's gender and case: छोटा वृत्त, छोटी अंगूठी; before a postposition (के आगे, से) the
  masculine is oblique, and so is छल्ला itself: छोटे छल्ले के आगे, but छोटी अंगूठी के आगे. Others never change: लाल,
  नारंगी, गुलाबी ...
- The verb agrees with its subject: वृत्त खिसकता है, अंगूठी खिसकती है, दो वस्तुएँ हैं.

A caption may be worded in another `Manner`, and what is empty in an object (size, colour, motion) is not said.
All text is in Unicode's NFC form, so ड़ and ज़ are two code points each.
"""

from __future__ import annotations

from dataclasses import dataclass

from soralab.world.language import PAD, mention_order
from soralab.world.scene import Object, Scene

MASCULINE, FEMININE = "masculine", "feminine"

NOUNS = {  # shape -> (noun, gender)
    "circle": ("वृत्त", MASCULINE),
    "square": ("वर्ग", MASCULINE),
    "triangle": ("त्रिभुज", MASCULINE),
    "cross": ("क्रॉस", MASCULINE),
    "ring": ("छल्ला", MASCULINE),
    "moon": ("चाँद", MASCULINE),
}
RINGS = {"छल्ला": MASCULINE, "वलय": MASCULINE, "अंगूठी": FEMININE}  # what people type for a ring
# the form of a dictionary: masculine, direct; those that end in -ा inflect
ADJECTIVES = {
    "small": "छोटा", "medium": "मँझोला", "large": "बड़ा",
    "red": "लाल", "orange": "नारंगी", "yellow": "पीला", "green": "हरा", "cyan": "फ़िरोज़ी", "blue": "नीला",
    "pink": "गुलाबी", "white": "सफ़ेद",
}  # fmt: skip
# {a} is the ending of participles and adjectives, -ा or -ी, by the subject's gender; {does} is "ता है" or " रहा है"
VERBS = {
    "stays still": "स्थिर रह{does}",
    "slides right": "दाईं ओर खिसक{does}",
    "slides left": "बाईं ओर खिसक{does}",
    "slides up": "ऊपर की ओर खिसक{does}",
    "slides down": "नीचे की ओर खिसक{does}",
    "slides up and right": "ऊपर और दाईं ओर खिसक{does}",
    "slides up and left": "ऊपर और बाईं ओर खिसक{does}",
    "slides down and right": "नीचे और दाईं ओर खिसक{does}",
    "slides down and left": "नीचे और बाईं ओर खिसक{does}",
    "bounces": "उछल{does}",
    "orbits": "चक्कर लगा{does}",
    "spins": "अपनी धुरी पर घूम{does}",
    "grows": "बड़{a} होत{a} जा{does}",
    "shrinks": "सिकुड़त{a} जा{does}",
    "passes behind a wall": "दीवार के पीछे से गुज़र{does}",
}
TERSE = {  # what people leave out of these
    "slides up": "ऊपर खिसक{does}",
    "slides down": "नीचे खिसक{does}",
    "slides up and right": "ऊपर दाईं ओर खिसक{does}",
    "slides up and left": "ऊपर बाईं ओर खिसक{does}",
    "slides down and right": "नीचे दाईं ओर खिसक{does}",
    "slides down and left": "नीचे बाईं ओर खिसक{does}",
    "spins": "घूम{does}",
    "grows": "बड़{a} हो{does}",
    "shrinks": "सिकुड़{does}",
}
BUMP = "टकरा{does}"
POSTPOSITIONS = {"left of": "के बाईं ओर", "above": "के ऊपर", "in front of": "के आगे"}
NUMBERS = {1: "एक", 2: "दो", 3: "तीन"}

# Checkpoints hold one embedding row per word, by position: add words at the END, never move or remove one.
HINDI_VOCABULARY: tuple[str, ...] = tuple(
    f"""
    {PAD}
    एक दो तीन और है हैं जो फिर के की से ओर वस्तु वस्तुएँ
    छोटा छोटी छोटे मँझोला मँझोली मँझोले बड़ा बड़ी बड़े
    लाल नारंगी पीला पीली पीले हरा हरी हरे फ़िरोज़ी नीला नीली नीले गुलाबी सफ़ेद
    वृत्त वर्ग त्रिभुज क्रॉस अंगूठी चाँद
    स्थिर रहता रहती दाईं बाईं ऊपर नीचे खिसकता खिसकती उछलता उछलती चक्कर लगाता लगाती
    अपनी धुरी पर घूमता घूमती होता होती जाता जाती सिकुड़ता सिकुड़ती दीवार पीछे गुज़रता गुज़रती
    आगे टकराता टकराती
    छल्ला छल्ले वलय रहा रही खिसक उछल लगा घूम हो जा सिकुड़ गुज़र टकरा
    """.split()
)


@dataclass(frozen=True)
class Manner:
    """How a caption is worded; the defaults are the world's own way."""

    ring: str = "छल्ला"  # one of RINGS
    article: bool = True  # एक before a thing
    progressive: bool = False  # खिसक रहा है, and not खिसकता है
    terse: bool = False  # ऊपर बाईं ओर for ऊपर और बाईं ओर, घूमता है for अपनी धुरी पर घूमता है: see TERSE
    colour_first: bool = False  # लाल छोटा वृत्त, and not छोटा लाल वृत्त
    place_first: bool = False  # नीले वर्ग के ऊपर लाल वृत्त है, where a relation is all that is said


CAPTION = Manner()


def hindi_caption(scene: Scene, manner: Manner = CAPTION) -> str:
    """What is there and what it does, in Hindi: "एक छोटा लाल वृत्त दाईं ओर खिसकता है।"

    It names the things in the order of the English captions. A relation has a sentence of its own, except a
    collision, which is told in one: "... से टकराता है, जो फिर ..." (bumps into ..., which then ...). It is the only
    sentence where the two things do nothing else.
    """
    objects = [scene.objects[i] for i in mention_order(scene)]
    clauses = [f"{thing(obj, manner)} {verb(obj, manner)}".strip() for obj in objects]
    if scene.relation is None:
        return _coordinated(clauses) + "।"
    (a, b), kind = objects[:2], scene.relation.kind
    hit = f"{thing(b, manner, oblique=True)} से {_inflected(BUMP, a, manner)}"
    if kind == "bumps into" and a.motion:
        clauses[:2] = [f"{clauses[0]} और {hit}, जो फिर {verb(b, manner)}"]
    elif kind == "bumps into":
        clauses[:2] = [f"{thing(a, manner)} {hit}"]
    elif not a.motion:
        one, place = thing(a, manner), f"{thing(b, manner, oblique=True)} {POSTPOSITIONS[kind]}"
        clauses[:2] = [f"{place} {one} है" if manner.place_first else f"{one} {place} है"]
    else:
        related = f"{described(a, manner)} {described(b, manner, oblique=True)} {POSTPOSITIONS[kind]} है"
        return f"{_coordinated(clauses)}। {related}।"
    return "। ".join(clauses) + "।"


def hindi_count(scene: Scene) -> str:
    """How many things there are: "एक वस्तु है।", "तीन वस्तुएँ हैं।"."""
    number = len(scene.objects)
    return f"{NUMBERS[number]} {'वस्तु है' if number == 1 else 'वस्तुएँ हैं'}।"


def hindi_words(text: str) -> list[str]:
    """The words of a Hindi text without its danda and commas."""
    return text.replace("।", " ").replace(",", " ").split()


def agree(adjective: str, gender: str, oblique: bool = False) -> str:
    """An adjective or participle in the singular: -ा becomes -ी (feminine) or -े (masculine oblique).

    One that does not end in -ा is returned as it is.
    """
    if not adjective.endswith("ा"):
        return adjective
    return adjective[:-1] + ("ी" if gender == FEMININE else "े" if oblique else "ा")


def noun(obj: Object, manner: Manner = CAPTION) -> tuple[str, str]:
    """What the object is called, in the direct case, and its gender."""
    return (manner.ring, RINGS[manner.ring]) if obj.shape == "ring" else NOUNS[obj.shape]


def described(obj: Object, manner: Manner = CAPTION, oblique: bool = False) -> str:
    """The object with its size and colour: "छोटा लाल वृत्त"; before a postposition "छोटे लाल वृत्त"."""
    name, gender = noun(obj, manner)
    said = [ADJECTIVES[word] for word in (obj.size, obj.colour) if word]
    said = said[::-1] if manner.colour_first else said
    return " ".join(agree(word, gender, oblique) for word in (*said, name))


def thing(obj: Object, manner: Manner = CAPTION, oblique: bool = False) -> str:
    """The object with एक (a) before it, unless the manner leaves that out."""
    return f"{NUMBERS[1]} {described(obj, manner, oblique)}" if manner.article else described(obj, manner, oblique)


def verb(obj: Object, manner: Manner = CAPTION) -> str:
    """What the object does, in agreement with its gender: "खिसकता है", "खिसकती है"; "" where that is not said."""
    if not obj.motion:
        return ""
    if obj.motion == "stays still" and (manner.terse or manner.progressive):
        return "स्थिर है"
    template = TERSE.get(obj.motion) if manner.terse else None
    return _inflected(template or VERBS[obj.motion], obj, manner)


def _inflected(template: str, subject: Object, manner: Manner) -> str:
    a = "ी" if noun(subject, manner)[1] == FEMININE else "ा"
    return template.format(a=a, does=f" रह{a} है" if manner.progressive else f"त{a} है")


def _coordinated(clauses: list[str]) -> str:
    return " और ".join([", ".join(clauses[:-1]), clauses[-1]]) if len(clauses) > 1 else clauses[0]
