"""Chapter 02's translator: the sentence pairs, typed Hindi, batches, and the shipped checkpoint."""

import itertools
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from statistics import mean

import pytest
import torch

from soralab import figures, world
from soralab.experiments import transformer as experiments
from soralab.experiments import transformer_multi30k
from soralab.files.checkpoints import CheckpointError, read_card, save_checkpoint
from soralab.recipes import transformer as recipe
from soralab.transformer import END, PAD, START, Transformer, TransformerConfig, Translator, translate
from soralab.world.hindi import HINDI_VOCABULARY
from soralab.world.hindi_meaning import MEANINGS
from soralab.world.hindi_prompts import FORMS, pair, typed
from soralab.world.hindi_reader import is_hindi, read_hindi
from soralab.world.language import PROMPT_WORDS, encode, words

ROOT = Path(__file__).resolve().parents[1]
GUIDE = "notebooks/sessions/02_transformer.md"


@pytest.fixture(scope="module")
def pairs():
    return recipe.draw_pairs(7, 300)


# ------------------------------------------------------------------------------------------------------ the pairs


def test_the_pairs_are_the_same_in_every_process_and_not_the_tests():
    again = recipe.draw_pairs(7, 20)
    assert again == recipe.draw_pairs(7, 30)[:20] and again != recipe.draw_pairs(8, 20)


@pytest.mark.parametrize("kind", experiments.KINDS)
def test_a_kinds_sentences_are_many_and_new(kind, pairs):
    """They are of a kind, as many as asked for, and of scenes of another seed and split than training's."""
    told = experiments.kind_pairs(kind, 300)
    assert len(told) == 300 and told[:40] == experiments.kind_pairs(kind, 40)
    assert told[:9] != experiments.kind_pairs(kind, 9, seed=recipe.TEST_SEED + 1)
    assert len(set(told)) > 150
    level, split, form = experiments.KINDS[kind]
    first = next(filter(None, (
        FORMS[form](world.sample_scene(recipe.TEST_SEED, k, level, split), Random(f"{recipe.TEST_SEED}/{kind}/{k}"))
        for k in range(99)
    )))  # fmt: skip
    assert told[0] == pair(*first)


def test_training_never_sees_a_held_out_combination(pairs):
    for index in range(0, 300, 7):
        scene = world.sample_scene(recipe.TEST_SEED, index, "full", "held_out")
        assert scene.held_out
    things = {tuple(english.split()[2:4]) for _, english in pairs}
    assert not things & {(colour, shape) for shape, colour in world.HELD_OUT_COLOURS.items()}


def test_ids_are_words_and_english_ends(pairs):
    for (hindi, english), (source, target) in zip(pairs, recipe.to_ids(pairs), strict=True):
        assert [recipe.TOKENS_OF_WORLD[id] for id in source] == read_hindi(hindi)
        assert [recipe.TOKENS_OF_WORLD[id] for id in target[:-1]] == words(english)
        assert target[-1] == END and not {PAD, START} & {*source, *target}
    assert len(set(recipe.TOKENS_OF_WORLD)) == len(recipe.TOKENS_OF_WORLD)


# ---------------------------------------------------------------------------------------------------- the batches


def test_an_epoch_holds_every_pair_once_in_batches_of_one_length(pairs):
    ids = recipe.to_ids(pairs)
    batches = recipe.Batches(ids, tokens=600)
    seen, padding, places = [], 0, 0
    for step in range(len(batches)):
        batch = batches(step)
        assert batch["source"].numel() + batch["target"].numel() <= 600
        padding += int(sum((side == PAD).sum() for side in batch.values()))
        places += sum(side.numel() for side in batch.values())
        for source, target in zip(batch["source"].tolist(), batch["target"].tolist(), strict=True):
            seen.append(([i for i in source if i], [i for i in target if i]))
    assert sorted(seen) == sorted((list(s), list(t)) for s, t in ids)
    assert padding < 0.15 * places
    first = batches(0)["target"]
    assert torch.equal(batches(0)["target"], first)  # a step's batch is a function of the step
    later = batches(len(batches))["target"]
    assert later.shape != first.shape or not torch.equal(later, first)
    assert torch.equal(batches(0)["target"], first)  # also after another epoch


def test_the_decoder_reads_the_word_before_and_never_the_word_itself():
    """The loss of the last word must not change when it is another word, but for that word's own term."""
    config = TransformerConfig(20, N=1, d_model=8, d_ff=8, h=2, d_k=4, d_v=4, P_drop=0.0)
    torch.manual_seed(0)
    model, seen = Transformer(config), []
    model.register_forward_hook(lambda module, args, out: seen.append(args[1]))
    target = torch.tensor([[5, 6, END], [7, END, PAD]])
    recipe.loss(model, {"source": torch.full((2, 2), 9), "target": target})
    assert seen[0].tolist() == [[START, 5, 6], [START, 7, END]]


def test_the_last_checkpoints_are_kept(tmp_path, pairs):
    """Every logged one of the last 250 steps; the newest is what the model holds."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(len(recipe.TOKENS_OF_WORLD), N=1, d_model=8, d_ff=8, h=2, d_k=4, d_v=4))
    config = replace(recipe.TRAINING, steps=6, log_every=2)
    result, states = recipe.train_and_keep(model, recipe.Batches(recipe.to_ids(pairs[:50]), 300), config, tmp_path)
    assert result.steps == 6 and len(states) == 3
    for name, value in model.state_dict().items():
        torch.testing.assert_close(states[-1][name], value)
    assert not torch.equal(states[0]["embedding.weight"], states[1]["embedding.weight"])


def test_what_is_trained_is_the_mean_of_the_kept_checkpoints(tmp_path, monkeypatch):
    """By the recipe itself, of a few steps, in a profile for tests."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(recipe, "RUNS", tmp_path)
    monkeypatch.setattr(recipe, "TRAINING", replace(recipe.TRAINING, log_every=1, save_every=4))
    trained = recipe.train("small", steps=4)
    states = recipe.kept(tmp_path / "small", 4)
    assert trained.card["steps"] == 4 and trained.card["checkpoints_averaged"] == len(states) == 4
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in states]).mean(0))
    assert recipe.train("short").card["steps"] == 2  # the profile's


def test_only_the_last_checkpoints_count(tmp_path):
    """KEPT of them, EVERY steps apart: of 600 steps those after 350."""
    for step in (100, 350, 351, 400, 600, 650):
        save_checkpoint(tmp_path / "kept" / f"{step:07d}", {"x": torch.tensor([float(step)])}, {"step": step})
    assert [state["x"].item() for state in recipe.kept(tmp_path, 600)] == [351, 400, 600]
    for step in (380, 390, 500, 550):  # an earlier, shorter training left more than it would itself
        save_checkpoint(tmp_path / "kept" / f"{step:07d}", {"x": torch.tensor([float(step)])}, {"step": step})
    assert [state["x"].item() for state in recipe.kept(tmp_path, 600)] == [390, 400, 500, 550, 600]
    assert recipe.kept(tmp_path, 100)[-1]["x"] == 100 and not recipe.kept(tmp_path / "nothing", 600)


def test_three_in_four_scenes_are_of_the_full_world(monkeypatch):
    drawn, draw = [], world.sample_scene

    def counted(seed, k, level):
        drawn.append((seed, level))
        return draw(seed, k, level)

    monkeypatch.setattr(world, "sample_scene", counted)
    recipe.draw_pairs(5, 800)
    assert {seed for seed, _ in drawn} == {5} and {level for _, level in drawn} == {"full", "simple"}
    assert sum(level == "full" for _, level in drawn) / 800 == pytest.approx(0.75, abs=0.06)  # four deviations


def test_bleu_is_100_for_the_right_sentences_alone():
    pytest.importorskip("sacrebleu")
    right = ["Two young men are outside near many bushes.", "A dog runs over the green grass."]
    assert transformer_multi30k.bleu(right, right) == pytest.approx(100)
    assert 5 < transformer_multi30k.bleu(["Two young men are in the bushes.", "A dog runs over the grass."], right) < 90


# ------------------------------------------------------------------------------------------------------ typed Hindi


@pytest.mark.parametrize("typed, read", [
    ("एक लाल वृत्त दाईं ओर खिसकता है", "एक लाल वृत्त दाईं ओर खिसकता है"),
    ("  एक लाल वृत्त, उछलता है।। ", "एक लाल वृत्त उछलता है"),
    ("एक सफेद चांद गुजरता है!", "एक सफ़ेद चाँद गुज़रता है"),
    ("एक मंझोला फिरोजी वर्ग", "एक मँझोला फ़िरोज़ी वर्ग"),
    ("एक ब\u095cा वर्ग", "एक बड़ा वर्ग"),  # one letter for what NFC writes as two
    ("एक\u200b छोटा वर्\u200cग", "एक छोटा वर्ग"),
    ("त्रिकोण बायीं तरफ खिसकता है", "त्रिभुज बाईं ओर खिसकता है"),
    ("मंझली अंगूठी, मँझला क्रास, मँझले चंद्रमा के आगे", "मँझोली अंगूठी मँझोला क्रॉस मँझोले चाँद के आगे"),
    ("एक वलय दायीं तरफ़", "एक वलय दाईं ओर"),
])
def test_hindi_is_read_as_it_is_typed(typed, read):
    assert read_hindi(typed) == read.split()


@pytest.mark.parametrize("text, message", [
    ("", "the Hindi text is empty; try"),
    ("।", "the Hindi text is empty; try"),
    ("एक हाथी", "unknown Hindi word in the prompt: 'हाथी'"),
    ("एक लाल वृत उछलता है", r"unknown Hindi word in the prompt: 'वृत' \(nearest: .*वृत्त"),
    ("एक red वृत उछलता है", r"unknown Hindi words in the prompt: 'red', 'वृत' \(nearest: .*वृत्त"),
    ("एक चौकोर सरकता है", r"'चौकोर' \(nearest: वर्ग\), 'सरकता' \(nearest: खिसकता\)$"),
    ("रिंग", r"'रिंग' \(nearest: छल्ला\)$"),
    ("एक " * 49, "the Hindi text has 49 words; it takes at most 48"),
])
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_hindi(text)
    assert "\n" not in str(error.value)


def test_no_two_words_are_typed_alike_and_all_are_read():
    for word in HINDI_VOCABULARY[1:]:
        assert read_hindi(word) == [word]


@pytest.mark.parametrize("text, hindi", [("a red circle", False), ("एक", True), ("a लाल circle", True), ("été", False),
                                         ("\u0900", True), ("\u097f", True), ("\u08ff", False), ("\u0980", False)])
def test_hindi_is_told_by_its_letters(text, hindi):
    assert is_hindi(text) is hindi


# --------------------------------------------------------------------------------------------------- the checkpoint


def test_a_checkpoint_translates_by_its_own_words(tmp_path):
    """Word ids come from the card, so a vocabulary that has grown since does no harm."""
    torch.manual_seed(0)
    tokens = ("<pad>", "<start>", "<end>", "वृत्त", "एक", "circle", "a")
    model = Transformer(TransformerConfig(len(tokens), N=1, d_model=8, d_ff=8, h=2, d_k=4, d_v=4)).eval()
    save_checkpoint(tmp_path / "small", model.state_dict(), {"config": asdict(model.config), "tokens": tokens})
    translator = Translator.load(tmp_path / "small")
    assert translator.source(["वृत्त", "एक वृत्त"]).tolist() == [[3, PAD], [4, 3]]
    for text in translator(["एक वृत्त", "वृत्त"]):
        assert set(text.split()) <= set(tokens)
    with pytest.raises(ValueError, match="texts has the word 'छल्ला', which this translator has not learnt"):
        translator(["एक वृत्त", "एक छल्ला"])
    save_checkpoint(tmp_path / "other", model.state_dict(), {"config": {"dim": 8}})
    with pytest.raises(CheckpointError, match="other holds no translator: name another"):
        Translator.load(tmp_path / "other")


@pytest.fixture(scope="module")
def shipped():
    return Translator.load()


@pytest.mark.parametrize("said, english", [
    ("एक लाल वृत्त दाईं ओर खिसकता है", "a red circle slides right"),
    ("लाल वृत्त", "a red circle"),
    ("वृत्त", "a circle"),
    ("एक छोटा नीला छल्ला", "a small blue ring"),
    ("एक वृत्त उछलता है", "a circle bounces"),
    ("एक अंगूठी ऊपर बाईं ओर खिसक रही है", "a ring slides up and left"),
    ("एक वलय सिकुड़ रहा है।", "a ring shrinks"),
    ("बड़ा पीला चाँद नीचे खिसक रहा है", "a large yellow moon slides down"),
    ("लाल वृत्त नीले वर्ग के ऊपर है", "a red circle is above a blue square"),
    ("एक नीले वर्ग के बायीं तरफ एक लाल वृत्त है", "a red circle is left of a blue square"),
    ("एक हरा वर्ग एक सफेद छल्ले से टकराता है", "a green square bumps into a white ring"),
])  # fmt: skip
def test_what_people_type(said, english):
    assert translate([said]) == [english]


@pytest.mark.parametrize("said, named", [
    ("एक लाल वृत्त एक नीले वर्ग के पीछे है", "'"),  # the world has no "behind" between two things
    ("दो वृत्त", "'दो'"),
    ("लाल लाल लाल", "'लाल"),
])  # fmt: skip
def test_what_the_world_cannot_say_is_refused(said, named):
    with pytest.raises(ValueError, match=f"^Hindi that was not understood: {named}") as error:
        translate([said])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("texts", [[], "एक लाल वृत्त"])
def test_no_list_of_texts_is_refused(texts):
    with pytest.raises(ValueError, match="texts is .*; it takes a list of one text or more"):
        Translator(None, recipe.TOKENS_OF_WORLD)(texts)


def test_one_wrong_translation_among_right_ones_is_refused():
    assert len(translate(["लाल वृत्त", "एक वर्ग उछलता है"])) == 2
    with pytest.raises(ValueError, match="'दो'"):
        translate(["लाल वृत्त", "दो वृत्त", "एक वर्ग उछलता है"])


@pytest.mark.parametrize("kind", experiments.KINDS)
def test_sentences_never_seen_are_translated_word_for_word(shipped, kind):
    """97 % were asked for; of 60 sentences the bound leaves room for chance."""
    assert experiments.exact_match(shipped, kind, 60) >= 0.95


def test_the_card_holds_every_kind_at_97_percent_or_more():
    metrics = read_card("transformer")["metrics"]
    assert metrics["sentences"] >= 300 and set(experiments.KINDS) <= set(metrics)
    assert all(metrics[kind] >= 0.97 for kind in experiments.KINDS)


def test_every_translation_is_a_prompt_that_can_be_filmed(shipped):
    scenes = [world.sample_scene(9, k, "full", "test") for k in range(20)]
    for text in shipped([pair(*typed(scene, Random(k)))[0] for k, scene in enumerate(scenes)]):
        assert any(encode(text, known=PROMPT_WORDS))  # it refuses a word that prompts do not have


def test_perplexity_is_that_of_the_words(shipped):
    """Of an untrained model about the vocabulary's size, of the shipped one close to 1."""
    torch.manual_seed(0)
    fresh = Transformer(shipped.model.config).eval()
    assert 50 < experiments.perplexity(fresh, 20) < 50 * len(shipped.tokens)
    assert 1 < experiments.perplexity(shipped.model, 20) < 1.3
    assert math.isfinite(experiments.perplexity(fresh, 3))


# ------------------------------------------------------------------------------------------- what a head looks at


def test_a_map_is_of_the_word_that_is_about_to_be_said(shipped):
    """Row j is the attention of the step that has read START and the first j words: no other word matters to it."""
    hindi, english = "एक लाल वृत्त दाईं ओर खिसकता है", "a red circle slides right".split()
    maps = experiments.maps_of(shipped, hindi, english)
    assert maps.shape == (3, 4, 5, 7)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 4, 5))
    for j in range(5):
        torch.testing.assert_close(experiments.maps_of(shipped, hindi, [*english[:j], "moon"])[:, :, j], maps[:, :, j])
    assert (experiments.maps_of(shipped, hindi, ["the", *english[1:]])[:, :, 1] - maps[:, :, 1]).abs().max() > 1e-3


def test_heads_are_asked_for_the_colour_that_is_to_be_said(shipped, monkeypatch):
    """Shown a head that always looks there, and heads that look at another place."""
    asked = []

    def staged(translator, hindi, english):
        source, maps = read_hindi(hindi), torch.zeros(1, 3, len(english), len(read_hindi(hindi)))
        for row, word in enumerate(english):
            named = [k for k, hindi_word in enumerate(source) if MEANINGS.get(hindi_word) == (word,)]
            maps[0, 0, row, named[-1] if named else 0] = 1  # any of the places that name it
            maps[0, 1, row, -1] = 1
            maps[0, 2, row, [k for k, w in enumerate(source) if MEANINGS.get(w, ("",))[0] in world.SHAPES][0]] = 1
        asked.append((source, english))
        return maps

    monkeypatch.setattr(experiments, "maps_of", staged)
    shares, chance = experiments.looks_at_colours(shipped, 30)
    assert shares.tolist() == [[1.0, 0.0, 0.0]] and len(asked) == 30
    counted = []
    for source, english in asked:
        named = [MEANINGS.get(word, ("",))[0] for word in source]
        for colour in (word for word in world.COLOURS if english.count(word) == 1):
            counted.append(named.count(colour) / len(source))
    assert chance == pytest.approx(sum(counted) / len(counted))


def test_the_place_of_a_word_knows_more_than_the_word(shipped):
    """Before the encoder all sentences have the same vector there, so half is right; in it the side becomes known."""
    shares = experiments.direction_shares(shipped, 40)
    assert len(shares) == 4 and shares[0] == 0.5 and shares[1] >= 0.95 and shares[-1] >= 0.7


def test_the_map_of_chapter_02_surprises_where_it_says_so(shipped):
    """"right" looks at the word for "towards", in the head that looks best at colours."""
    shares, _ = experiments.looks_at_colours(shipped, 40)
    assert (shares[-1] == 1).sum() == (shares == 1).sum() == 3  # "three heads of the last layer never miss"
    layer, head = divmod(int(shares.argmax()), shares.shape[1])
    scenes = (world.sample_scene(12, k, "full", "test") for k in itertools.count())
    scene = next(s for s in scenes if s.relation and s.relation.kind == "in front of" and len(s.objects) == 2)
    hindi, english = pair(scene)
    peaks = experiments.maps_of(shipped, hindi, words(english))[layer, head].argmax(-1).tolist()
    assert read_hindi(hindi)[peaks[words(english).index("right")]] == "ओर"


# ------------------------------------------------------------------------------------------------- the chapter's prose


def prose(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".ipynb"):
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def test_the_sentences_of_chapter_02_are_the_recipes_and_the_cards():
    """Numbers in its prose: a new training, or other words, could make one of them untrue."""
    card, chapter, guide = read_card("transformer"), prose("notebooks/02_transformer.ipynb"), prose(GUIDE)
    metrics = card["metrics"]
    assert metrics["test"] == metrics["held_out"] == metrics["simple"] == 1  # "captions are at the ceiling"
    assert all(metrics["last checkpoint"][kind] >= metrics[kind] - 0.01 for kind in metrics["last checkpoint"])
    assert card["pairs"] == recipe.PAIRS and card["steps"] == recipe.TRAINING.steps
    assert card["checkpoints_averaged"] == recipe.KEPT and card["tokens"] == list(recipe.TOKENS_OF_WORLD)
    assert card["config"] == asdict(TransformerConfig.small(len(recipe.TOKENS_OF_WORLD)))
    assert card["hardware"]["threads"] == 1
    assert any("yellow triangle" in english for _, english in experiments.kind_pairs("held_out", metrics["sentences"]))
    assert round(experiments.load_experiment("multi30k")["seconds"] / 900) == 1  # "about a quarter of an hour"
    size = f"{len(recipe.TOKENS_OF_WORLD)}]"
    for text, said in (
        (chapter, f"{card['pairs']:,} pairs, {card['seconds'] / 60:.0f} minutes on one core"),
        (chapter, f"smoothing by 0.1 asks for about {1 / (0.9 + 0.1 / len(recipe.TOKENS_OF_WORLD)):.2f}"),
        (chapter, f"the last {recipe.KEPT}, {recipe.EVERY} steps apart"),
        (chapter, f"{recipe.TOKENS:,} together"),
        (chapter, f"a smaller model does so in {recipe.SHORT_STEPS} steps"),
        (chapter, "with keys of {2}, {1} and {0} numbers, three seeds each".format(*experiments.KEY_SIZES)),
        (chapter, f"every one of {round(metrics['sentences'] * metrics['held_out'])} held-out captions"),
        (guide, f"one matrix, {size[:-1]} x 128"),
        (guide, f"logits [6 x {size}"),
        (guide, f"{card['parameters'] / 1e6:.1f} million weights"),
    ):
        assert said in text, said


def test_the_bars_of_chapter_02_are_the_cards():
    """Also where nbval compares nothing: a falsified output is found."""
    text = (ROOT / "notebooks" / "02_transformer.ipynb").read_text(encoding="utf-8")
    shown, = (out["data"]["text/plain"] for cell in json.loads(text)["cells"] for out in cell.get("outputs", ())
              if "bars_with_intervals" in "".join(cell["source"]))
    metrics, n = read_card("transformer")["metrics"], read_card("transformer")["metrics"]["sentences"]
    told = re.findall(r"([a-z_ ]+?) (\d+\.\d) % \((\d+\.\d)–(\d+\.\d)\)", "".join(shown).partition(": ")[2])
    assert [kind.strip() for kind, *_ in told] == list(experiments.KINDS)
    for kind, share, low, high in told:
        right = round(metrics[kind.strip()] * n)
        want = (right / n, *figures.wilson(right, n))
        assert [share, low, high] == [f"{100 * value:.1f}" for value in want], kind


def test_a_short_runs_sentences_stand_beside_the_truth_in_the_same_words():
    """The model writes no comma, so one in the truth would look like a mistake of its own."""
    log, _ = recipe.short_run(0, steps=2)
    truth, = log["samples"]["truth"]
    assert truth.count(" ") > 9 and set(truth.split()) <= set(recipe.TOKENS_OF_WORLD)


def test_one_prompt_in_six_is_the_scenes_whole_caption(pairs):
    levels = ("full" if Random(f"7/{k}").random() < 0.75 else "simple" for k in range(len(pairs)))
    captions = (pair(world.sample_scene(7, k, level)) for k, level in enumerate(levels))
    whole = sum(told == caption for told, caption in zip(pairs, captions, strict=True))
    assert whole / len(pairs) == pytest.approx(1 / 6, abs=0.05)
    assert "One prompt in six is the scene's whole caption" in prose("notebooks/02_transformer.ipynb")


def test_what_chapter_02_says_of_small_keys_is_what_was_found():
    """Keys of one number are worse in every run than others; 4 are worse than 16 on average, and the seeds overlap."""
    rows = experiments.load_experiment("key_size")
    exact = {size: [row["exact"] for row in rows if row["d_k"] == size] for size in experiments.KEY_SIZES}
    assert [len(found) for found in exact.values()] == [3, 3, 3]
    assert max(exact[1]) < min(exact[4] + exact[16])
    assert mean(exact[4]) < mean(exact[16]) and max(exact[4]) > min(exact[16])
