"""Chapters 07, 12, 13 and 15 on real pictures and films: what they are asked, by whom, and how it is judged. On small
sets made here, and on parts of the real ones where SORALAB_DATA has them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
import torch
from prose import prose_of
from test_device import here_and_there
from test_real import SETS, here, pets, told_by_five  # noqa: F401

from soralab import world
from soralab.datasets import flickr, photo_talk, ucf101
from soralab.datasets import pets as photographs
from soralab.datasets.by_kind import captioned
from soralab.datasets.instructions import Turn
from soralab.datasets.photo_words import agreed, claims, judged, pieces_of, plain, plainly
from soralab.experiments import real as switch
from soralab.experiments import real_captions, real_navit, real_talk, real_tune
from soralab.experiments.tune_a_video import load_experiment
from soralab.figures import wilson
from soralab.files.checkpoints import read_card
from soralab.latent_diffusion import Painter
from soralab.llava import ASSISTANT, HUMAN, IMAGE, STOP, LLaVA, LLaVAConfig, is_answer
from soralab.navit import NaViT
from soralab.recaptioning import Captioner, CaptionerConfig, caption_loss
from soralab.recipes.tune_a_video import PAINTER, Shot, tuned
from soralab.training import loop
from soralab.transformer import END, PAD

DATA = os.environ.get("SORALAB_DATA")


def real(available) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA and available()), reason="SORALAB_DATA names no folder with this set")


# ------------------------------------------------------------------------------------------------- chapter 07, the pets


def test_a_split_is_its_list_and_what_is_broken_is_named(here, monkeypatch):  # noqa: F811
    pets(here, monkeypatch)
    assert photographs.breeds("test").tolist() == [0, 36, 0, 36, 0, 36]  # and not the one that is not there
    assert photographs.sizes(split="test") == [(60, 30), (30, 60)] * 3 and len(photographs.sizes(split="train")) == 9
    assert len(photographs.sizes()) == 15 and photographs.breeds("train", 2).tolist() == [0, 36]
    assert [p.shape for p in photographs.load([(8, 4), (4, 8)], "test")] == [(3, 8, 4), (3, 4, 8)]
    with pytest.raises(ValueError, match="split is 'val'; it takes one of train, test"):
        photographs.breeds("val")
    with pytest.raises(ValueError, match="count is 7; it takes 1 to 6"):
        photographs.breeds("test", 7)
    listed = here / "data" / "oxford_pets" / "oxford-iiit-pet" / "annotations" / "test.txt"
    for line in ("test_1", "test_1 38 1 1", "test_1 0 1 1", "../images/test_1 1 1 1", "test_1 one"):
        listed.write_text(line)
        with pytest.raises(ValueError, match=r"test.txt: got '.*', takes NAME, and a breed from 1 to 37"):
            photographs.breeds("test")
    listed.unlink()
    with pytest.raises(FileNotFoundError, match="there is no .*test.txt: `soralab data get oxford_pets` fetches it"):
        photographs.breeds("test")


def test_the_two_arms_differ_in_proportions_alone(here, monkeypatch):  # noqa: F811
    pets(here, monkeypatch)
    (own, breeds), (square, same) = (real_navit.views("train", own, None, 4) for own in (True, False))
    assert torch.equal(breeds, same) and len(own) == len(breeds) == 36 and breeds[9:18].equal(breeds[:9])
    assert all(picture.dtype == torch.uint8 and len(picture) == 3 for picture in own + square)
    for breed, ours, theirs in zip(breeds.tolist(), own, square, strict=True):
        (height, width), side = ours.shape[1:], theirs.shape[1]
        assert theirs.shape[2] == side and 28 <= side <= 96 and side % 4 == height % 4 == width % 4 == 0
        assert (width > height) == (breed == 36)
        assert max(height, width) / min(height, width) == pytest.approx(2, rel=0.2)
        assert (height * width) ** 0.5 == pytest.approx(side, abs=4)  # the same resolution
    assert len({p.shape for p in own[::9]}) > 1  # one photograph at several resolutions


def test_who_sees_proportions_alone_tells_tall_from_wide_in_one_arm_alone(here, monkeypatch):  # noqa: F811
    pets(here, monkeypatch)

    class Oracle(NaViT):
        def forward(self, patches, ids, places, sizes):
            wide = sizes[:, 1] > sizes[:, 0]
            return torch.nn.functional.one_hot(36 * wide.long(), 37).float()

    monkeypatch.setattr(real_navit, "fit", lambda build, *_: (Oracle(build().config), None))
    table = real_navit.breeds(here / "runs", 1)
    assert table["its own proportions"]["right"] == 1 and table["squeezed to a square"]["right"] == 0.5
    assert table["the commonest breed"] == {"right": 0.5, "pictures": 6}


# --------------------------------------------------------------------------------------- what people's sentences say


def test_what_a_text_claims_and_what_people_agree_on():
    assert plain("Two dogs , in the SNOW (2) !") == "two dogs in the snow 2"
    people = ["a black dog runs in the snow", "the dog is black", "a dog runs on ice"]
    assert claims(people[0]) == {"black", "dog", "runs", "snow"} and agreed(people) == {"black", "dog", "runs"}
    assert agreed(["a dog", "a cat"]) == set() and agreed(["dog dog", "cat"]) == set()  # one voice twice is one voice
    found = judged(["a black cat runs"], [people])
    assert found == {"precision": round(2 / 3, 4), "recall": round(2 / 3, 4), "words": 4.0}
    assert judged([" ".join(people)], [people]) == {"precision": 1, "recall": 1, "words": 16.0}
    assert judged([""], [people]) == {"precision": 0, "recall": 0, "words": 0}
    half = judged(["snow ice", ""], [people, ["red"] * 5])  # counts are added, and not shares
    assert half["precision"] == 1 and half["recall"] == 0


# ------------------------------------------------------------------------------------------ chapter 13, the teacher


def colour(*lines):
    return {(turn.question, turn.answer) for turn in photo_talk.colours(lines)}


def count(*lines):
    return {(turn.question, turn.answer) for turn in photo_talk.counts(lines)}


def test_a_colour_is_asked_where_two_say_it_and_nobody_another():
    assert colour("a red ball", "the red ball and a dog") == {("what colour is the ball", "red")}
    assert colour("a red ball", "a ball") == colour("a red ball", "a blue ball", "a red ball") == set()
    assert colour("a black and white dog", "a white dog", "a white dog") == set()  # which has two
    assert colour("two black dogs", "two black dogs") == set()  # not one thing
    assert colour("a man in a red shirt", "a red shirt", "a pink hat") == {("what colour is the shirt", "red")}


def test_a_number_is_asked_where_two_say_it_and_nobody_another():
    assert count("two dogs run", "two brown dogs", "dogs") == set()  # one does not say how many
    assert count("two dogs run", "two brown dogs") == {("how many dogs are there", "two")}
    assert count("a dog", "the dog runs") == {("how many dogs are there", "one")}
    assert count("a dog", "a dog and another dog") == count("a dog", "two dogs") == count("a dog") == set()
    assert count("dogs run", "some dogs") == count("a dog meets another", "a dog meets another") == set()
    assert count("three young men", "three men") == {("how many men are there", "three")}
    assert count("a red ball", "a red ball") == set()  # things nobody counts


def test_no_is_what_another_picture_shows_and_a_coin_says_which():
    mine = ["a dog runs", "the dog on grass", "grass"]
    other = ["a boy swims", "a boy and a dog", "swims in water by a dog"]
    turns = [photo_talk.yes_no(mine, other, Random(k)) for k in range(400)]
    asked = {(turn.question, turn.answer) for turn in turns}
    assert asked == {("is there a dog", "yes"), ("is there grass", "yes"), ("is there a boy", "no"),
                     ("is anybody swimming", "no")}  # fmt: skip
    assert 160 < sum(turn.answer == "yes" for turn in turns) < 240
    assert photo_talk.yes_no(["so"], ["so"], Random(0)) is None
    several = [turn for k in range(50) for turn in photo_talk.conversation(mine, other, Random(k))]
    assert {turn.kind for turn in several} == {"yes/no", "count"} <= {*photo_talk.KINDS}
    long = photo_talk.description(["a dog", "a dog on the grass"], Random(0))
    brief = {photo_talk.description(["a dog", "a dog on the grass"], Random(k), True).answer for k in range(20)}
    assert long.answer == "a dog on the grass" and brief == {"a dog", "a dog on the grass"} and long.question.islower()


def test_answers_are_counted_by_kind_beside_the_commonest():
    turns = [Turn("yes/no", "is there a dog", "yes"), Turn("yes/no", "is there a boy", "no"),
             Turn("count", "how many dogs are there", "two")]  # fmt: skip
    assert real_talk.counted(["yes", "yes", "two"], turns) == {"yes/no": 0.5, "count": 1, "questions": 3}
    known = [Turn("yes/no", "", "no"), Turn("yes/no", "", "no"), Turn("yes/no", "", "yes"), Turn("count", "", "one")]
    assert real_talk.commonest(known, turns) == ["no", "no", "one"]


def test_sentences_stand_for_the_photograph_in_the_reading(here, monkeypatch):  # noqa: F811
    told_by_five(here, monkeypatch)
    pictures, lines = captioned("flickr8k", "train", 36)
    lines = plainly(lines)
    pieces = pieces_of(lines, ["is there a dog", "yes"], real_talk.FIRST)
    tower = Captioner(CaptionerConfig()).tower
    model = LLaVA(LLaVAConfig.small(real_talk.FIRST + len(pieces.pieces), N=1))
    helper = real_talk.Speller(model, tower, (), -2, pieces)
    assert helper.text(helper.ids("Is there a DOG ?")) == "is there a dog"
    known = real_talk.shown(helper, pictures, lines)
    assert known.Z.shape == (20, 1, 16, 264) and len(known.talk) == len(known.brief) == 20
    read = real_talk.Sentences({"picture": known}, batch=20, films=0)(0)
    assert set(read) == {"ids"} and not (read["ids"] == IMAGE).any()
    story = helper.text(read["ids"][0].tolist())
    assert "red dog" in story or "two boys" in story
    seen = real_talk.Talks({"picture": known}, batch=20, films=0)(0)
    assert ((seen["ids"] == IMAGE).sum(1) == 1).all() and seen["Z"].shape == known.Z.shape
    for ids in (*read["ids"], *seen["ids"]):
        assert ids[0] == HUMAN and (ids == ASSISTANT).sum() * 2 == (ids == STOP).sum()
    answers = {helper.text([id for id, counts in zip(ids.tolist(), is_answer(ids[None])[0], strict=True) if counts])
               for ids in seen["ids"]}  # fmt: skip
    assert any("yes" in text for text in answers)
    rows = real_talk.world_pictures(read_card("llava")["metrics"])
    assert rows["sees"]["yes/no"] > rows["sees zeros"]["yes/no"] and set(rows["sees"]) >= set(photo_talk.KINDS)


# --------------------------------------------------------------------------------------------- chapter 12, captioners


def test_a_captioner_reads_and_writes_pieces(here, monkeypatch):  # noqa: F811
    told_by_five(here, monkeypatch)
    pictures, lines = captioned("flickr8k", "train", 36)
    lines = plainly(lines)
    pieces = pieces_of(lines)
    batch = real_captions.Sentences(pictures, lines, pieces, 8, read=lambda texts: torch.tensor([*map(len, texts)]))(3)
    said = [pieces.decode(ids.tolist()) for ids in batch["target"]]
    assert batch["film"].shape == (8, 1, 3, 32, 32) and batch["ids"].tolist() == [len(text) for text in said]
    assert {*said} <= {text for several in lines for text in several} and (batch["target"] == END).sum() == 8
    several = ["a dog runs", "a dog", "a dog runs on grass"]
    assert real_captions.VOICES["short"](several) == ["a dog"]
    assert real_captions.VOICES["descriptive"](several) == ["a dog runs on grass"]
    torch.manual_seed(0)
    model = Captioner(CaptionerConfig(vocabulary=len(pieces))).eval()
    found = real_captions.log_p(model, batch["film"], batch["target"], chunk=3)
    count = (batch["target"] != PAD).sum()
    torch.testing.assert_close(-found.sum() / count, caption_loss(model, batch["film"], batch["target"]).detach())
    monkeypatch.setattr(real_captions, "Recaptioner", lambda _, tokens: lambda shown: [
        " ".join(tokens[id] for id in pieces.encode(text)) for text in ("two boys swim", "")])  # fmt: skip
    assert real_captions.written(model, batch["film"], pieces) == ["two boys swim", ""]


# ------------------------------------------------------------------------------------------------ chapter 15, films


def test_redder_is_by_how_much():
    film = torch.zeros(9, 3, 4, 4)
    assert real_tune.redness(film) == real_tune.redness(film + 0.7) == 0
    film[:, 0] = 0.5
    assert real_tune.redness(film) == pytest.approx(0.5)
    film[:, 1] = film[:, 2] = -0.5
    assert real_tune.redness(film) == pytest.approx(1.0)


def test_the_worlds_way_back_is_the_tables_mean():
    ways = load_experiment()["way back"]
    each = [way["error"] for way in ways if (way["back"], way["walk"], way["guidance"]) == (1.0, 25, 1.0)]
    row = real_tune.world_films(load_experiment())["tuned"]
    assert row["to noise and back"] == pytest.approx(sum(each) / len(each)) and row["films"] == len(each) == 2


def test_tuning_learns_a_films_noise_and_no_other(here):  # noqa: F811
    """In few steps; and what is judged is fixed, so that both are judged alike."""
    painter = Painter.load(PAINTER)
    film = world.clips(15, range(1), 9)[0][0]
    plainly_, known = (tuned(painter, Shot(None, film, real_tune.PROMPT), steps) for steps in (0, 15))
    before = real_tune.noise_error(plainly_)
    assert before == real_tune.noise_error(plainly_) and real_tune.noise_error(known) < before


@pytest.mark.parametrize("name", ["navit", "recaptioning", "llava", "tune_a_video"])
def test_a_chapter_on_a_set_is_the_same_on_the_card(here, monkeypatch, name):  # noqa: F811
    # Where the processor multiplies bfloat16 fast, it rounds products and the device that plays a card does not.
    monkeypatch.setattr(loop, "autocast_dtype", lambda precision, device: None)
    chosen, folders = SETS[name](here, monkeypatch), iter((here / "cpu", here / "card"))
    rows, others = here_and_there(lambda: switch.CHAPTERS[name].run(chosen, next(folders), 2))
    assert rows.keys() == others.keys()
    for row, there in others.items():
        assert there == pytest.approx(rows[row], rel=1e-2, abs=1e-3)


# ---------------------------------------------------------------------------------------------- the real ones, if here


@real(photographs.available)
def test_the_real_pets(tmp_path):
    train, test = photographs.breeds("train"), photographs.breeds("test")
    assert len(train) >= 48 and len(test) >= 48 and {*test.tolist()} <= {*train.tolist()} <= {*range(37)}
    assert len(photographs.sizes(split="train")) == len(train)
    table = real_navit.breeds(tmp_path, 1)
    assert [*table][1:] == [*real_navit.ARMS] and all(0 <= row["right"] <= 1 for row in table.values())


@real(flickr.available)
def test_what_five_people_say_of_real_photographs(tmp_path):
    """A stranger's sentence about the photograph is more like four others' than a sentence about another one."""
    lines = plainly(flickr.load("test", 8)[1])
    own = judged([several[0] for several in lines], [several[1:] for several in lines])
    other = judged([several[0] for several in lines[1:] + lines[:1]], [several[1:] for several in lines])
    assert own["precision"] > 4 * other["precision"] and own["recall"] > 4 * other["recall"]
    turns = [turn for about in real_talk.asked(lines, 0) for turn in about]
    yes = [turn.answer == "yes" for turn in turns if turn.kind == "yes/no"]
    assert len(turns) > len(lines) and 0.4 < sum(yes) / len(yes) < 0.65
    assert {turn.kind for turn in turns} == {*photo_talk.KINDS}
    assert {turn.answer for turn in turns} <= {"yes", "no", "one", *photo_talk.NUMBERS, *photo_talk.COLOURS}
    table = real_captions.captions("flickr8k", tmp_path / "12", 1)
    assert table["people"]["precision"] > 4 * table["people"]["elsewhere"] and len(table) == 5
    rows = real_talk.talks("flickr8k", tmp_path / "13", 1)
    assert rows["the commonest answer"]["yes/no"] > 0.3 and len(rows) == 4


@real(ucf101.available)
def test_a_real_film_is_tuned_on(tmp_path):
    table = real_tune.tuned_on_films("ucf101", tmp_path, 12)
    assert 10 < table["the first stage's copy"]["psnr"] < 30  # it has never copied but shapes
    assert table["tuned"]["noise"] < table["not tuned"]["noise"] < 1


# ------------------------------------------------------------------------------------------- what the pages say of it


def found(name: str) -> dict:
    chosen = switch.SHIPPED[name][0]
    return json.loads((switch.EXPERIMENTS / f"{name}_on_{chosen}.json").read_text(encoding="utf-8"))


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def test_chapter_07s_page():
    said, rows = prose_of("07_navit"), found("navit")["rows"]
    own, square = (rows[arm] for arm in real_navit.ARMS)
    assert f"After {found('navit')['steps']} steps {percent(own['right'])} of the breeds" in said
    assert f"and {percent(square['right'])} in squares" in said and own["pictures"] == square["pictures"] == 48
    assert f"the same breed {percent(rows['the commonest breed']['right'])} would be" in said
    assert round(48 * own["right"]) - round(48 * square["right"]) == 2 and "two photographs of 48" in said


def test_chapter_15s_page():
    said, rows = prose_of("15_tune_a_video"), found("tune_a_video")["rows"]
    before, after = rows["not tuned"], rows["tuned"]
    world_ = real_tune.world_films(load_experiment())["tuned"]["part of the way"]
    assert f"from {before['noise']:.2f} down to {after['noise']:.2f}" in said and after["films"] == 2
    assert f"{found('tune_a_video')['steps']} steps brought" in said
    assert (f"{percent(after['part of the way'])} from itself, with the untuned painter "
            f"{percent(before['part of the way'])}, and {percent(world_)} on films of our world") in said  # fmt: skip
    copies = rows["the first stage's copy"]
    assert f"copies these films at {copies['psnr']:.1f} dB" in said
    assert min(before["redder"], after["redder"]) > 0.1 and "did so before the tuning" in said


def test_chapter_12s_page():
    said, rows = prose_of("12_recaptioning"), found("recaptioning")["rows"]
    people, short, full = (rows[voice] for voice in ("people", "short", "descriptive"))
    assert f"and {found('recaptioning')['steps']} steps of the base" in said
    for who, row in {"the short captioner": short, "the descriptive one": full, "a fifth person": people}.items():
        shares = " | ".join(percent(row[column]) for column in ("precision", "elsewhere", "recall"))
        assert f"| {who} | {row['words']:.1f} | {shares} |" in said
    assert {row["pictures"] for row in rows.values()} == {60} and "60 new photographs" in said
    assert full["recall"] > 2 * short["recall"] and "Longer is fuller" in said
    assert all(abs(row["precision"] - row["elsewhere"]) < 0.01 for row in (short, full))
    assert "the captions fit the next photograph as well as their own, and the person's do not" in said


def test_chapter_13s_page():
    said, rows = prose_of("13_llava"), found("llava")["rows"]
    steps = found("llava")["steps"]
    assert f"400 photographs and {steps} steps, {percent(rows['sees']['yes/no'])} of the yes/no" in said
    assert f"Shown zeros it had {percent(rows['sees zeros']['yes/no'])}, and by always saying the same" in said
    assert f"the same {percent(rows['the commonest answer']['yes/no'])} would be" in said
    assert f"that it learnt from it had {percent(rows['sees what it learnt from']['yes/no'])}" in said
    assert rows["sees what it learnt from"]["yes/no"] > 0.75 and "much about its own photographs by heart" in said
    assert wilson(round(rows["sees"]["yes/no"] * 104), 104)[0] < rows["the commonest answer"]["yes/no"]
    assert "hardly sees new ones" in said
    asked = dict.fromkeys(("sees", "sees zeros", "the commonest answer"), 104) | {"sees what it learnt from": 101}
    for row, questions in asked.items():
        right = rows[row]["yes/no"] * questions
        assert abs(right - round(right)) < 0.01  # so many questions, or twice as many, were asked
        low, high = wilson(round(right), questions)
        assert (high - low) / 2 < 0.11 and ((high - low) / 2 > 0.09 or row == "sees what it learnt from")
    assert "about a hundred questions each time, so ten points either way" in said


def test_what_the_data_card_says_of_four_chapters():
    text = " ".join((Path(__file__).resolve().parents[1] / "data" / "README.md").read_text(encoding="utf-8").split())
    steps = [found(name)["steps"] for name in ("navit", "recaptioning", "llava", "tune_a_video")]
    assert "{} steps of `navit`, {} of `recaptioning`, {} of `llava` and {} of `tune_a_video`".format(*steps) in text
    rows = found("llava")["rows"]
    assert abs(rows["sees"]["yes/no"] - rows["the commonest answer"]["yes/no"]) < 0.1  # of about a hundred questions
    assert rows["sees what it learnt from"]["yes/no"] - rows["sees"]["yes/no"] > 0.15
    assert "has learnt much about those by heart and hardly sees new ones" in text
