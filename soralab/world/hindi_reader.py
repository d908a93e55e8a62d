"""Reading typed Hindi: is it Hindi, and which of the world's words does it consist of?"""

from __future__ import annotations

import difflib
import re
import unicodedata

from soralab.world.hindi import HINDI_VOCABULARY
from soralab.world.prompt import PromptError

# Other spellings, and other words of the same gender: they are read as these.
ALSO = {
    "दायीं": "दाईं", "बायीं": "बाईं", "तरफ़": "ओर", "त्रिकोण": "त्रिभुज", "चंद्रमा": "चाँद", "क्रास": "क्रॉस",
    "मँझला": "मँझोला", "मँझली": "मँझोली", "मँझले": "मँझोले",
}  # fmt: skip
# What people type for a word of the world; only error messages use it.
_SYNONYMS = {
    "रिंग": "छल्ला", "गोला": "वृत्त", "गेंद": "वृत्त", "चौकोर": "वर्ग", "डिब्बा": "वर्ग", "आसमानी": "नीला",
    "सरकता": "खिसकता", "सरकती": "खिसकती", "चलता": "खिसकता", "चलती": "खिसकती", "कूदता": "उछलता", "कूदती": "उछलती",
    "रहे": "रहा", "रुका": "स्थिर", "मध्यम": "मँझोला",
}  # fmt: skip
LONGEST = 48  # words; no caption of the world has more than 40
_BETWEEN = re.compile(r"[\s।॥.,;:!?\"'()\u2018-\u201d-]+")
_INVISIBLE = re.compile("[\u200b-\u200d\ufeff]")  # joiners and marks that keyboards put in


def is_hindi(text: str) -> bool:
    """Whether a text has a letter of Devanagari in it."""
    return any("\u0900" <= character <= "\u097f" for character in text)


def read_hindi(text: str, longest: int = LONGEST) -> list[str]:
    """The words of a Hindi text, spelt as `HINDI_VOCABULARY` spells them.

    The dot of फ़ and the difference between ँ and ं are often left out in typing, so they need not be there; see also
    `ALSO`.
    Raises PromptError (a ValueError), in one line: no words, more than `longest`, words that are not the world's
    (with the nearest).
    """
    found = [_typed(word) for word in _BETWEEN.split(_INVISIBLE.sub("", text)) if word]
    if not found:
        raise PromptError('the Hindi text is empty; try "एक लाल वृत्त दाईं ओर खिसकता है"')
    if len(found) > longest:
        raise PromptError(f"the Hindi text has {len(found)} words; it takes at most {longest}")
    known = {_typed(word): word for word in HINDI_VOCABULARY[1:]}
    known |= {_typed(other): word for other, word in ALSO.items()}
    unknown = list(dict.fromkeys(word for word in found if word not in known))
    if unknown:
        raise PromptError(_unknown_words(unknown, known))
    return [known[word] for word in found]


def _typed(word: str) -> str:
    """A word without the marks that typing leaves out: the dot (U+093C), and ँ written as ं."""
    return unicodedata.normalize("NFC", word).replace("\u093c", "").replace("\u0901", "\u0902")


def _unknown_words(unknown: list[str], known: dict[str, str]) -> str:
    parts = []
    for word in unknown[:3]:
        near = list(dict.fromkeys(known[other] for other in difflib.get_close_matches(word, known, 3, 0.6)))
        near = [_SYNONYMS[word]] if word in _SYNONYMS else near
        parts.append(f"'{word[:20]}'" + (f" (nearest: {', '.join(near)})" if near else ""))
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    line = f"unknown Hindi word{'s' if len(unknown) > 1 else ''} in the prompt: {', '.join(parts)}{more}"
    return line if "nearest" in line else f"{line}; the words are {', '.join(HINDI_VOCABULARY[1:])}"
