"""The world in Hindi, against sentences written by hand."""

from __future__ import annotations

import hashlib
import unicodedata
from random import Random

import pytest

from soralab.world import hindi, hindi_prompts
from soralab.world.language import PAD, short_caption
from soralab.world.sampling import sample_scene
from soralab.world.scene import COLOURS, MOTIONS, SHAPES, SIZES, WALL, Object, Relation, Scene

RED = Object("circle", "red", "small", "slides right", "fast")
BLUE = Object("square", "blue", "large", "stays still")
GREEN = Object("ring", "green", "medium", "orbits", "slow", "anticlockwise")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(101, i) for i in range(900)]


def one(size, colour, shape, motion) -> Scene:
    return Scene((Object(shape, colour, size, motion),))


def pair(a: str, kind: str | None, b: str) -> Scene:
    """Two objects from English things, "small red circle: spins"; the first is `kind` the second."""
    objects = []
    for text in (a, b):
        words_, motion = text.split(": ")
        size, colour, shape = words_.split()
        objects.append(Object(shape, colour, size, motion))
    return Scene(tuple(objects), relation=Relation(kind, 0, 1) if kind else None)


HINDI = [
    (one("small", "red", "circle", "slides right"), "एक छोटा लाल वृत्त दाईं ओर खिसकता है।"),
    (one("small", "red", "ring", "slides right"), "एक छोटा लाल छल्ला दाईं ओर खिसकता है।"),
    (one("large", "blue", "square", "stays still"), "एक बड़ा नीला वर्ग स्थिर रहता है।"),
    (one("medium", "yellow", "moon", "slides left"), "एक मँझोला पीला चाँद बाईं ओर खिसकता है।"),
    (one("small", "green", "triangle", "slides up"), "एक छोटा हरा त्रिभुज ऊपर की ओर खिसकता है।"),
    (one("large", "cyan", "cross", "slides down"), "एक बड़ा फ़िरोज़ी क्रॉस नीचे की ओर खिसकता है।"),
    (one("small", "white", "moon", "slides up and right"), "एक छोटा सफ़ेद चाँद ऊपर और दाईं ओर खिसकता है।"),
    (one("large", "pink", "ring", "slides up and left"), "एक बड़ा गुलाबी छल्ला ऊपर और बाईं ओर खिसकता है।"),
    (one("medium", "orange", "moon", "slides down and right"), "एक मँझोला नारंगी चाँद नीचे और दाईं ओर खिसकता है।"),
    (one("medium", "orange", "ring", "slides down and left"), "एक मँझोला नारंगी छल्ला नीचे और बाईं ओर खिसकता है।"),
    (one("small", "yellow", "circle", "bounces"), "एक छोटा पीला वृत्त उछलता है।"),
    (one("medium", "green", "square", "orbits"), "एक मँझोला हरा वर्ग चक्कर लगाता है।"),
    (one("large", "red", "triangle", "spins"), "एक बड़ा लाल त्रिभुज अपनी धुरी पर घूमता है।"),
    (one("small", "orange", "moon", "grows"), "एक छोटा नारंगी चाँद बड़ा होता जाता है।"),
    (one("large", "pink", "cross", "shrinks"), "एक बड़ा गुलाबी क्रॉस सिकुड़ता जाता है।"),
    (one("small", "white", "square", WALL), "एक छोटा सफ़ेद वर्ग दीवार के पीछे से गुज़रता है।"),
    (
        pair("small red circle: slides up", None, "medium blue ring: shrinks"),
        "एक छोटा लाल वृत्त ऊपर की ओर खिसकता है और एक मँझोला नीला छल्ला सिकुड़ता जाता है।",
    ),
    (
        pair("small red circle: slides right", "in front of", "large blue square: stays still"),
        "एक छोटा लाल वृत्त दाईं ओर खिसकता है और एक बड़ा नीला वर्ग स्थिर रहता है।"
        " छोटा लाल वृत्त बड़े नीले वर्ग के आगे है।",
    ),
    (
        pair("small green ring: stays still", "left of", "medium yellow moon: spins"),
        "एक छोटा हरा छल्ला स्थिर रहता है और एक मँझोला पीला चाँद अपनी धुरी पर घूमता है।"
        " छोटा हरा छल्ला मँझोले पीले चाँद के बाईं ओर है।",
    ),
    (
        pair("medium pink cross: stays still", "above", "small blue ring: stays still"),
        "एक मँझोला गुलाबी क्रॉस स्थिर रहता है और एक छोटा नीला छल्ला स्थिर रहता है।"
        " मँझोला गुलाबी क्रॉस छोटे नीले छल्ले के ऊपर है।",
    ),
    (
        pair("small white ring: slides left", "bumps into", "small green square: slides left"),
        "एक छोटा सफ़ेद छल्ला बाईं ओर खिसकता है और एक छोटे हरे वर्ग से टकराता है, जो फिर बाईं ओर खिसकता है।",
    ),
    (
        pair("small red triangle: slides right", "bumps into", "small orange ring: slides right"),
        "एक छोटा लाल त्रिभुज दाईं ओर खिसकता है और एक छोटे नारंगी छल्ले से टकराता है, जो फिर दाईं ओर खिसकता है।",
    ),
    (
        Scene((RED, GREEN, BLUE)),
        "एक छोटा लाल वृत्त दाईं ओर खिसकता है, एक मँझोला हरा छल्ला चक्कर लगाता है और एक बड़ा नीला वर्ग स्थिर रहता है।",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("scene", "expected"), HINDI)
def test_hindi_sentences(scene, expected):
    assert hindi.hindi_caption(scene) == unicodedata.normalize("NFC", expected)


def test_hindi_examples_cover_the_world():
    said = [obj for scene, _ in HINDI for obj in scene.objects]
    for key, values in (("shape", SHAPES), ("colour", COLOURS), ("size", SIZES), ("motion", MOTIONS)):
        assert {getattr(obj, key) for obj in said} == set(values)


def test_hindi_counts():
    sentences = [hindi.hindi_count(Scene(tuple([RED, BLUE, GREEN][:n]))) for n in (1, 2, 3)]
    assert sentences == ["एक वस्तु है।", "दो वस्तुएँ हैं।", "तीन वस्तुएँ हैं।"]


def test_hindi_vocabulary_is_closed_and_canonical(scenes):
    text = " ".join(f"{hindi.hindi_caption(scene)} {hindi.hindi_count(scene)}" for scene in scenes)
    assert unicodedata.normalize("NFC", text) == text
    assert set(hindi.hindi_words(text)) <= set(hindi.HINDI_VOCABULARY)
    prompts = [hindi_prompts.typed(scene, Random(k)) for k, scene in enumerate(9 * scenes)]
    typed = " ".join(hindi.hindi_caption(*prompt) for prompt in prompts)
    # nobody sees a ring spin, so the one word that only it would need is not said
    said = {*hindi.hindi_words(text), *hindi.hindi_words(typed)}
    assert said <= set(hindi.HINDI_VOCABULARY) and set(hindi.HINDI_VOCABULARY) - said == {PAD, "घूमती"}
    digest = hashlib.sha256(" ".join(hindi.HINDI_VOCABULARY[:76]).encode()).hexdigest()
    assert digest == "91ba5ddfae6ca93802bb35958101cc26bccefd612bf211c2a49ed6761df94657", (
        "append Hindi words at the end, checkpoints hold one row per word"
    )


def test_hindi_tells_different_scenes_apart(scenes):
    by_english: dict[str, set[str]] = {}
    for scene in scenes:
        by_english.setdefault(short_caption(scene), set()).add(hindi.hindi_caption(scene))
    assert all(len(group) == 1 for group in by_english.values())
    assert len({next(iter(group)) for group in by_english.values()}) == len(by_english)
