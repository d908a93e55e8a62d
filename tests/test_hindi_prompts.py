"""Prompts as people type them, in Hindi and English, and whether a translation says what was typed."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from soralab.world.hindi import HINDI_VOCABULARY, RINGS, Manner, hindi_caption
from soralab.world.hindi_meaning import MEANINGS, SILENT, check_translation
from soralab.world.hindi_prompts import FORMS, bare_relation, noun_phrases, pair, typed, without
from soralab.world.hindi_reader import read_hindi
from soralab.world.language import words
from soralab.world.prompts import read_prompt
from soralab.world.reader import is_caption, read_caption
from soralab.world.sampling import sample_scene
from soralab.world.scene import MOTIONS, WALL, Object, Relation, Scene

RING = Object("ring", "orange", "small", "grows")
SQUARE = Object("square", "blue", "large", "stays still")
BESIDE = Scene((RING, SQUARE), relation=Relation("left of", 0, 1))
BUMP = Scene(
    (Object("cross", "red", "small", "slides left"), Object("ring", "white", "medium", "slides left")),
    relation=Relation("bumps into", 0, 1),
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(103, k) for k in range(400)]


def ring(motion: str, size: str = "", colour: str = "") -> Scene:
    return Scene((Object("ring", colour, size, motion),))


# --------------------------------------------------------------------------------------- what is said, and in what way


@pytest.mark.parametrize("scene, manner, hindi, english", [
    (Scene((RING,)), Manner(), "एक छोटा नारंगी छल्ला बड़ा होता जाता है।", "a small orange ring grows"),
    (without(Scene((RING,)), "size"), Manner(), "एक नारंगी छल्ला बड़ा होता जाता है।", "an orange ring grows"),
    (without(Scene((RING,)), "colour"), Manner(), "एक छोटा छल्ला बड़ा होता जाता है।", "a small ring grows"),
    (without(Scene((RING,)), "size", "colour"), Manner(), "एक छल्ला बड़ा होता जाता है।", "a ring grows"),
    (Scene((RING,)), Manner("अंगूठी"), "एक छोटी नारंगी अंगूठी बड़ी होती जाती है।", "a small orange ring grows"),
    (Scene((RING,)), Manner("वलय", progressive=True), "एक छोटा नारंगी वलय बड़ा होता जा रहा है।",
     "a small orange ring grows"),
    (Scene((RING,)), Manner("अंगूठी", progressive=True, terse=True, article=False),
     "छोटी नारंगी अंगूठी बड़ी हो रही है।", "a small orange ring grows"),
    (Scene((SQUARE,)), Manner(colour_first=True), "एक नीला बड़ा वर्ग स्थिर रहता है।", "a large blue square stays still"),
    (Scene((SQUARE,)), Manner(progressive=True), "एक बड़ा नीला वर्ग स्थिर है।", "a large blue square stays still"),
    (noun_phrases(Scene((SQUARE,))), Manner(article=False), "बड़ा नीला वर्ग।", "a large blue square"),
    (noun_phrases(BESIDE), Manner(), "एक छोटा नारंगी छल्ला और एक बड़ा नीला वर्ग।",
     "a small orange ring, and a large blue square"),
    (BESIDE, Manner("अंगूठी", article=False), "छोटी नारंगी अंगूठी बड़ी होती जाती है और बड़ा नीला वर्ग स्थिर रहता है।"
     " छोटी नारंगी अंगूठी बड़े नीले वर्ग के बाईं ओर है।",
     "a small orange ring that grows is left of a large blue square that stays still"),
    (bare_relation(BESIDE), Manner(), "एक छोटा नारंगी छल्ला एक बड़े नीले वर्ग के बाईं ओर है।",
     "a small orange ring is left of a large blue square"),
    (bare_relation(BESIDE), Manner("अंगूठी", article=False, place_first=True), "बड़े नीले वर्ग के बाईं ओर छोटी नारंगी अंगूठी है।",
     "a small orange ring is left of a large blue square"),
    (bare_relation(BUMP), Manner("वलय"), "एक छोटा लाल क्रॉस एक मँझोले सफ़ेद वलय से टकराता है।",
     "a small red cross bumps into a medium white ring"),
    (bare_relation(BUMP), Manner(progressive=True, place_first=True), "एक छोटा लाल क्रॉस एक मँझोले सफ़ेद छल्ले से टकरा रहा है।",
     "a small red cross bumps into a medium white ring"),
    (BUMP, Manner("अंगूठी", progressive=True), "एक छोटा लाल क्रॉस बाईं ओर खिसक रहा है और एक मँझोली सफ़ेद अंगूठी से टकरा रहा है,"
     " जो फिर बाईं ओर खिसक रही है।",
     "a small red cross slides left and bumps into a medium white ring that then slides left"),
])  # fmt: skip
def test_a_pair_says_the_same_in_both_languages(scene, manner, hindi, english):
    assert pair(scene, manner) == (hindi, english)


@pytest.mark.parametrize("motion, progressive, terse", [
    ("slides right", "दाईं ओर खिसक रही है", "दाईं ओर खिसकती है"),
    ("slides up", "ऊपर की ओर खिसक रही है", "ऊपर खिसकती है"),
    ("slides down", "नीचे की ओर खिसक रही है", "नीचे खिसकती है"),
    ("slides up and right", "ऊपर और दाईं ओर खिसक रही है", "ऊपर दाईं ओर खिसकती है"),
    ("slides up and left", "ऊपर और बाईं ओर खिसक रही है", "ऊपर बाईं ओर खिसकती है"),
    ("slides down and right", "नीचे और दाईं ओर खिसक रही है", "नीचे दाईं ओर खिसकती है"),
    ("slides down and left", "नीचे और बाईं ओर खिसक रही है", "नीचे बाईं ओर खिसकती है"),
    ("bounces", "उछल रही है", "उछलती है"),
    ("orbits", "चक्कर लगा रही है", "चक्कर लगाती है"),
    ("spins", "अपनी धुरी पर घूम रही है", "घूमती है"),
    ("grows", "बड़ी होती जा रही है", "बड़ी होती है"),
    ("shrinks", "सिकुड़ती जा रही है", "सिकुड़ती है"),
    ("stays still", "स्थिर है", "स्थिर है"),
    (WALL, "दीवार के पीछे से गुज़र रही है", "दीवार के पीछे से गुज़रती है"),
])  # fmt: skip
def test_every_motion_in_the_progressive_and_tersely(motion, progressive, terse):
    scene = ring(motion)
    assert hindi_caption(scene, Manner("अंगूठी", progressive=True)) == f"एक अंगूठी {progressive}।"
    assert hindi_caption(scene, Manner("अंगूठी", terse=True)) == f"एक अंगूठी {terse}।"
    masculine = progressive.replace("रही", "रहा").replace("बड़ी", "बड़ा").replace("ती ", "ता ")
    assert hindi_caption(scene, Manner(progressive=True)) == f"एक छल्ला {masculine}।"


def test_every_motion_is_worded_apart():
    """Another motion may not be told in the same words, whatever the manner."""
    manners = [Manner(progressive=p, terse=t) for p in (False, True) for t in (False, True)]
    told = Counter(text for motion in MOTIONS for text in {hindi_caption(ring(motion), manner) for manner in manners})
    assert max(told.values()) == 1


def test_a_relation_without_anything_else_is_of_the_two_alone():
    third = Object("moon", "white", "large", "spins")
    scene = Scene((third, RING, SQUARE), relation=Relation("above", 2, 1))
    assert pair(bare_relation(scene))[1] == "a large blue square is above a small orange ring"
    assert bare_relation(Scene((RING,))) is None
    assert noun_phrases(scene).relation is None and len(noun_phrases(scene).objects) == 3


# ---------------------------------------------------------------------------------------------------- what is drawn


def test_every_way_of_wording_is_drawn_about_as_often_as_it_should_be(scenes):
    """Of 4,000 prompts; five deviations of a coin thrown so often are four points."""
    drawn = [typed(scene, Random(f"{k}/{n}")) for n in range(10) for k, scene in enumerate(scenes)]
    other = [manner for _, manner in drawn if manner != Manner()]
    assert len(other) / len(drawn) == pytest.approx(0.5, abs=0.04)
    for choice in ("article", "progressive", "terse", "colour_first", "place_first"):
        assert sum(getattr(manner, choice) for manner in other) / len(other) == pytest.approx(0.5, abs=0.06)
    for name in RINGS:
        assert sum(manner.ring == name for manner in other) / len(other) == pytest.approx(1 / 3, abs=0.06)

    def share(test):
        return sum(all(test(obj) for obj in scene.objects) for scene, _ in drawn) / len(drawn)

    assert share(lambda obj: obj.size and obj.colour) == pytest.approx(0.35 + 0.25 * 0.18, abs=0.04)
    assert share(lambda obj: not obj.size and not obj.colour) == pytest.approx(0.15 + 0.25 * 0.12, abs=0.04)
    assert share(lambda obj: obj.size and not obj.colour) == pytest.approx(0.10 + 0.25 * 0.12, abs=0.04)
    assert share(lambda obj: obj.colour and not obj.size) == pytest.approx(0.15 + 0.25 * 0.12, abs=0.04)
    phrases = sum(not scene.objects[0].motion and not scene.relation for scene, _ in drawn) / len(drawn)
    assert phrases == pytest.approx(0.12, abs=0.03)
    related = [scene for n in range(10) for k, scene in enumerate(scenes) if scene.relation]
    bare = sum(bool(scene.relation) and not scene.objects[0].motion for scene, _ in drawn)
    assert bare / len(related) == pytest.approx(0.33, abs=0.08)


@pytest.mark.parametrize("form, is_so", [
    ("caption", lambda scene, manner:
     manner == Manner() and all(o.size and o.colour and o.motion for o in scene.objects)),
    ("no size", lambda scene, manner: all(not o.size and o.colour and o.motion for o in scene.objects)),
    ("no colour", lambda scene, manner: all(o.size and not o.colour and o.motion for o in scene.objects)),
    ("bare", lambda scene, manner: all(not o.size and not o.colour and o.motion for o in scene.objects)),
    ("noun phrase", lambda scene, manner: not any(o.motion for o in scene.objects) and scene.relation is None),
    ("progressive", lambda scene, manner: manner.progressive and all(o.motion for o in scene.objects)),
    ("relation", lambda scene, manner: scene.relation and not any(o.motion for o in scene.objects)),
    ("short diagonal", lambda scene, manner: manner.terse and any(" and " in o.motion for o in scene.objects)),
    ("other ring", lambda scene, manner: manner.ring != "छल्ला" and "ring" in [o.shape for o in scene.objects]),
    ("typed", lambda scene, manner: True),
])  # fmt: skip
def test_each_form_is_what_it_is_called(scenes, form, is_so):
    prompts = [FORMS[form](scene, Random(k)) for k, scene in enumerate(scenes)]
    found = [prompt for prompt in prompts if prompt]
    assert len(found) > 60 and all(is_so(*prompt) for prompt in found)
    if form not in ("caption", "no size", "no colour", "bare"):
        assert len({(prompt[1], *((bool(o.size), bool(o.colour)) for o in prompt[0].objects)) for prompt in found}) > 20


def test_one_hindi_sentence_has_one_english_one(scenes):
    """Otherwise "word for word" would have no meaning."""
    english: dict[tuple, str] = {}
    for k, scene in enumerate(5 * scenes):
        for form in FORMS.values():
            if prompt := form(scene, Random(k)):
                hindi, told = pair(*prompt)
                assert english.setdefault(tuple(read_hindi(hindi)), told) == told
    assert len(english) > 4000


# ------------------------------------------------------------------------------------ does a translation say the same?


def test_a_right_translation_is_never_refused(scenes):
    for k, scene in enumerate(scenes):
        for form in FORMS.values():
            if prompt := form(scene, Random(k)):
                check_translation(*pair(*prompt))


WORLDS = "एक लाल वृत्त दाईं ओर खिसकता है"


@pytest.mark.parametrize("hindi, english, named", [
    ("एक वृत्त उछलता है", "a large circle bounces", "'वृत्त'"),  # invented
    ("एक वृत्त उछलता है", "a up", "'वृत्त', 'उछलता'"),
    ("लाल वृत्त", "a red circle" + " bounces" * 20, "'लाल वृत्त'"),  # runs on
    ("एक वृत्त उछलता है", "a circle bounces bounces", "'एक वृत्त उछलता है'"),
    ("एक वृत्त उछलता है", "a circle bounces, and a circle bounces", "'एक वृत्त उछलता है'"),
    ("एक लाल वृत्त एक नीले वर्ग के पीछे है", "a red circle passes behind a wall", "'नीले', 'वर्ग'"),
    ("एक लाल वृत्त एक नीले वर्ग के पीछे है", "a red circle is above a blue square", "'पीछे'"),
    ("लाल वृत्त और नीला वर्ग", "a blue circle, and a red square", "'लाल', 'वृत्त', 'नीला', 'वर्ग'"),
    ("लाल वृत्त नीले वर्ग के ऊपर है", "a red circle is left of a blue square", "'ऊपर'"),
    ("दो वृत्त उछलते", "a circle bounces", None),
    ("दो वृत्त", "a circle", "'दो'"),
    ("एक बड़ा वृत्त", "a circle grows", "'बड़ा'"),
    ("एक वृत्त बड़ा होता जाता है", "a large circle grows", "'वृत्त'"),
    ("एक वृत्त बड़ा होता जाता है", "a large circle", "'होता'"),
    ("एक वृत्त छोटा हो रहा है", "a circle grows", "'छोटा'"),  # "becomes small" is not in the world; बड़ा हो रहा है is
    ("एक लाल वृत्त और एक लाल वृत्त", "a red circle", "'वृत्त'"),  # of two alike one is lost
    ("एक लाल वृत्त, एक नीला वर्ग और एक लाल वृत्त", "a red circle, and a blue square", "'वृत्त'"),
    ("एक लाल वृत्त नीचे खिसकता है और एक नीला वर्ग नीचे खिसकता है", "a red circle, and a blue square slides down", "'खिसकता'"),
    (WORLDS, "a red circle slides left", "'दाईं'"),
    (WORLDS, "a red circle slides right and left", f"'{WORLDS}'"),
    (WORLDS, "", "'लाल', 'वृत्त', 'दाईं', 'खिसकता'"),
])  # fmt: skip
def test_a_wrong_translation_is_refused_with_the_words_that_were_lost(hindi, english, named):
    with pytest.raises(ValueError) as error:
        check_translation(hindi, english)
    assert "\n" not in str(error.value)
    if named is None:
        assert "unknown Hindi word" in str(error.value)
    else:
        assert f"Hindi that was not understood: {named}; it was translated as '" in str(error.value)


def test_a_translation_of_another_scene_is_refused(scenes):
    """Of every two scenes whose English has other words; only who does what may escape the dictionary."""
    told = [pair(*typed(scene, Random(k))) for k, scene in enumerate(scenes)]
    checked = 0
    for (hindi, mine), (_, other) in zip(told, told[1:], strict=False):
        if Counter(words(mine)) != Counter(words(other)):
            checked += 1
            with pytest.raises(ValueError, match="not understood"):
                check_translation(hindi, other)
    assert checked > 380


def test_a_long_translation_is_shown_in_part():
    with pytest.raises(ValueError) as error:
        check_translation("लाल वृत्त", "a red circle" + " bounces" * 20)
    assert "bounces bou..." in str(error.value) and len(str(error.value)) < 250


def test_every_word_either_means_something_or_is_silent():
    for word in HINDI_VOCABULARY[1:]:
        assert (word in MEANINGS) != (word in SILENT), word
    assert set(MEANINGS) | SILENT == set(HINDI_VOCABULARY[1:])


# ------------------------------------------------------------------------------------------------ what a caption is


@pytest.mark.parametrize("text, so", [
    ("a small red circle slides right", True),
    ("an orange ring", True),
    ("a orange ring", False),
    ("a circle", True),
    ("circle", False),
    ("red circle bounces", False),
    ("a red circle bounces and spins", False),
    ("a red circle, and a blue square", True),
    ("a red circle and a blue square", True),  # a caption means the same without its commas
    ("a red circle a blue square", False),
    ("a red circle is above a blue square", True),
    ("a red circle above a blue square", False),
    ("a red circle that spins is above a blue square", False),
    ("a red circle that spins is above a blue square that spins", True),
    ("a red circle bumps into a blue square", True),
    ("red", False),
    ("a red bounces", False),
    ("", False),
])  # fmt: skip
def test_what_is_a_caption(text, so):
    assert is_caption(text) is so


def test_all_captions_are_captions_and_none_is_with_a_word_more_or_less(scenes):
    for k, scene in enumerate(scenes[:150]):
        _, english = pair(*typed(scene, Random(k)))
        said = words(english)
        assert is_caption(english) and len(read_caption(english)) <= 3
        place = Random(k).randrange(len(said))
        assert not is_caption(" ".join([*said[:place], said[place], *said[place:]]))
        if said[place] not in ("small", "medium", "large"):  # a prompt may leave that out
            shorter = " ".join([*said[:place], *said[place + 1 :]])
            again = read_caption(shorter)
            assert not is_caption(shorter) or again != read_caption(english), (english, shorter)


def test_whatever_is_translated_is_a_prompt_that_is_read_whole(scenes):
    """`soralab film` takes the English as it is, in every form that training knows."""
    for k, scene in enumerate(scenes[:200]):
        for form in FORMS.values():
            if prompt := form(scene, Random(k)):
                english = pair(*prompt)[1]
                assert words(read_prompt(english).text) == words(english)
