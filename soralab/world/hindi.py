"""The world in Hindi: a short caption and a count, in Devanagari, with gender, number and case in agreement.

What agrees with what:

- Nouns have a gender. अंगूठी (ring) is feminine, the other shapes are masculine.
- Adjectives in -ा take the noun's gender and case: छोटा वृत्त, छोटी अंगूठी; before a postposition (के आगे, से) the
  masculine is oblique: छोटे वृत्त के आगे, but छोटी अंगूठी के आगे. Others never change: लाल, नारंगी, गुलाबी ...
- The verb agrees with its subject: वृत्त खिसकता है, अंगूठी खिसकती है, दो वस्तुएँ हैं.

All text is in Unicode's NFC form, so ड़ and ज़ are two code points each.
"""

from __future__ import annotations

from soralab.world.language import PAD, mention_order
from soralab.world.scene import Object, Scene

MASCULINE, FEMININE = "masculine", "feminine"

# shape -> (noun, gender); no noun here changes its form in the oblique singular
NOUNS = {
    "circle": ("वृत्त", MASCULINE),
    "square": ("वर्ग", MASCULINE),
    "triangle": ("त्रिभुज", MASCULINE),
    "cross": ("क्रॉस", MASCULINE),
    "ring": ("अंगूठी", FEMININE),
    "moon": ("चाँद", MASCULINE),
}
# the form of a dictionary: masculine, direct; those that end in -ा inflect
ADJECTIVES = {
    "small": "छोटा", "medium": "मँझोला", "large": "बड़ा",
    "red": "लाल", "orange": "नारंगी", "yellow": "पीला", "green": "हरा", "cyan": "फ़िरोज़ी", "blue": "नीला",
    "pink": "गुलाबी", "white": "सफ़ेद",
}  # fmt: skip
# {a} is the ending of participles and adjectives, -ा or -ी, by the subject's gender
VERBS = {
    "stays still": "स्थिर रहत{a} है",
    "slides right": "दाईं ओर खिसकत{a} है",
    "slides left": "बाईं ओर खिसकत{a} है",
    "slides up": "ऊपर की ओर खिसकत{a} है",
    "slides down": "नीचे की ओर खिसकत{a} है",
    "slides up and right": "ऊपर और दाईं ओर खिसकत{a} है",
    "slides up and left": "ऊपर और बाईं ओर खिसकत{a} है",
    "slides down and right": "नीचे और दाईं ओर खिसकत{a} है",
    "slides down and left": "नीचे और बाईं ओर खिसकत{a} है",
    "bounces": "उछलत{a} है",
    "orbits": "चक्कर लगात{a} है",
    "spins": "अपनी धुरी पर घूमत{a} है",
    "grows": "बड़{a} होत{a} जात{a} है",
    "shrinks": "सिकुड़त{a} जात{a} है",
    "passes behind a wall": "दीवार के पीछे से गुज़रत{a} है",
}
POSTPOSITIONS = {"left of": "के बाईं ओर है", "above": "के ऊपर है", "in front of": "के आगे है"}
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
    """.split()
)


def hindi_caption(scene: Scene) -> str:
    """What is there and what it does, in Hindi: "एक छोटा लाल वृत्त दाईं ओर खिसकता है।"

    It names the things in the order of the English captions. A relation has a sentence of its own, except a
    collision, which is told in one: "... से टकराता है, जो फिर ..." (bumps into ..., which then ...).
    """
    objects = [scene.objects[i] for i in mention_order(scene)]
    clauses = [f"{thing(obj)} {verb(obj)}" for obj in objects]
    if scene.relation is None:
        return _coordinated(clauses) + "।"
    a, b = objects[:2]
    if scene.relation.kind == "bumps into":
        bump = agree("टकराता", NOUNS[a.shape][1])
        clauses[:2] = [f"{clauses[0]} और {thing(b, oblique=True)} से {bump} है, जो फिर {verb(b)}"]
        return "। ".join(clauses) + "।"
    related = f"{described(a)} {described(b, oblique=True)} {POSTPOSITIONS[scene.relation.kind]}"
    return f"{_coordinated(clauses)}। {related}।"


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


def described(obj: Object, oblique: bool = False) -> str:
    """The object with its size and colour: "छोटा लाल वृत्त"; before a postposition "छोटे लाल वृत्त"."""
    noun, gender = NOUNS[obj.shape]
    size, colour = (agree(ADJECTIVES[word], gender, oblique) for word in (obj.size, obj.colour))
    return f"{size} {colour} {noun}"


def thing(obj: Object, oblique: bool = False) -> str:
    """The object with एक (a) before it."""
    return f"{NUMBERS[1]} {described(obj, oblique)}"


def verb(obj: Object) -> str:
    """What the object does, in agreement with its gender: "खिसकता है", "खिसकती है"."""
    return VERBS[obj.motion].format(a="ी" if NOUNS[obj.shape][1] == FEMININE else "ा")


def _coordinated(clauses: list[str]) -> str:
    return " और ".join([", ".join(clauses[:-1]), clauses[-1]]) if len(clauses) > 1 else clauses[0]
