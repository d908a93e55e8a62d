"""Does an English prompt say what the Hindi one says? A dictionary cannot translate, but it can check a translation.

Each Hindi word that means something must have its English word, each English word its Hindi one, and the things must be
the same, each with its own size and colour. What the dictionary cannot see is who does what.
"""

from __future__ import annotations

from soralab.world.hindi import ADJECTIVES, FEMININE, MASCULINE, NOUNS, RINGS, agree
from soralab.world.hindi_reader import read_hindi
from soralab.world.language import words
from soralab.world.prompt import PromptError
from soralab.world.reader import is_caption
from soralab.world.scene import COLOURS, SHAPES, SIZES

FORMS = ((MASCULINE, False), (MASCULINE, True), (FEMININE, False))
GROWS = ("होता", "होती", "हो")  # "बड़ा होता जाता है" is no size
# Hindi word -> the English words of which one must be there
MEANINGS: dict[str, tuple[str, ...]] = {
    **{agree(word, *form): (name,) for name, word in ADJECTIVES.items() for form in FORMS},
    **{agree(word, MASCULINE, case): (name,) for name, (word, _) in NOUNS.items() for case in (False, True)},
    **{word: ("ring",) for word in RINGS},
    **{word: (english,) for english, forms in {
        "slides": "खिसकता खिसकती खिसक", "bounces": "उछलता उछलती उछल", "orbits": "चक्कर", "spins": "घूमता घूमती घूम",
        "grows": "होता होती हो", "shrinks": "सिकुड़ता सिकुड़ती सिकुड़", "passes": "गुज़रता गुज़रती गुज़र", "still": "स्थिर",
        "bumps": "टकराता टकराती टकरा", "wall": "दीवार", "behind": "पीछे", "right": "दाईं", "left": "बाईं", "down": "नीचे",
        "front": "आगे", "then": "फिर", "two": "दो", "three": "तीन", "object": "वस्तु", "objects": "वस्तुएँ",
    }.items() for word in forms.split()},
    "ऊपर": ("up", "above"),
}  # fmt: skip
SILENT = frozenset(
    "एक और है हैं जो के की से ओर पर अपनी धुरी रहता रहती रहा रही लगाता लगाती लगा जाता जाती जा".split()
)  # they say how the others belong together
DOES = frozenset(("slides", "bounces", "orbits", "spins", "grows", "shrinks", "passes", "bumps"))
ENGLISH = frozenset(word for meaning in MEANINGS.values() for word in meaning)


def check_translation(hindi: str, english: str) -> None:
    """Raises PromptError, in one line, if the English is no caption or does not say what the Hindi says.

    It names the Hindi words that have no English one, or else the things that are not the same.
    """
    typed, said = read_hindi(hindi), words(english)
    meanings = [_meaning(typed, place) for place in range(len(typed))]
    lost = [word for word, meaning in zip(typed, meanings, strict=True) if meaning and not set(meaning) & set(said)]
    if not lost:
        things, known = _things(typed), {frozenset(thing) for thing in _things(said)}
        lost = [word for thing in things if frozenset(_english(thing)) not in known for word in thing]
        lost += [thing[-1] for thing in things[-1:] if _new(typed, ("एक",)) > _new(said, ("a", "an"))]
        does = [[meaning[0] for meaning in meanings if meaning and meaning[0] in DOES],
                [word for word in said if word in DOES]]  # fmt: skip
        lost += [word for word, meaning in zip(typed, meanings, strict=True)
                 if meaning and does[0].count(meaning[0]) > does[1].count(meaning[0])]  # fmt: skip
    invented = set(said) & ENGLISH - {word for meaning in meanings for word in meaning}
    if lost or invented or not is_caption(english) or len(_things(said)) > len(_things(typed)):
        names = ", ".join(f"'{word}'" for word in dict.fromkeys(lost)) or f"'{' '.join(typed)}'"
        shown = english if len(english) <= 80 else english[:80] + "..."
        raise PromptError(f"Hindi that was not understood: {names}; it was translated as '{shown}', which is not what "
                         "the prompt says. Captions read like this: एक छोटा लाल वृत्त दाईं ओर खिसकता है")  # fmt: skip


def _new(said: list[str], one: tuple[str, ...]) -> int:
    """How many things are named as new ones, by "a" and what is on it."""
    found, after = 0, False
    for word in said:
        name = _english([word])[0]
        found += after and name in SHAPES
        after = word in one or after and name in (*SIZES, *COLOURS)
    return found


def _meaning(typed: list[str], place: int) -> tuple[str, ...]:
    """What the word at a place means; () for one that says nothing by itself."""
    word, after = typed[place], typed[place + 1 : place + 2]
    if MEANINGS.get(word) == ("large",) and after and after[0] in GROWS:
        return ()
    return MEANINGS.get(word, ())


def _english(thing: list[str]) -> list[str]:
    return [MEANINGS[word][0] if word in MEANINGS else word for word in thing]


def _things(said: list[str]) -> list[list[str]]:
    """Each noun with the sizes and colours before it, in either language."""
    found: list[list[str]] = []
    begun: list[str] = []
    for word in said:
        name = _english([word])[0]
        begun = [*begun, word] if name in (*SIZES, *COLOURS, *SHAPES) else []
        if name in SHAPES:
            found.append(begun)
            begun = []
    return found
