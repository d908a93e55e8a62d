"""Chapter 14's sentences with numbers are held to the cards of its checkpoints, and to the recipe."""

import pytest
from prose import prose_of

from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.recipes import make_a_video as recipe

CARD, SPACE = read_card("make_a_video"), read_card("make_a_video_space")
METRICS = CARD["metrics"]


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("14_make_a_video")


def test_the_recipe_is_what_the_page_says(said):
    assert round(CARD["picture_seconds"] / 60) == 11 and "(Eleven minutes; this page leaves it out.)" in said
    windows = recipe.SHORT_BATCH * recipe.FRAMES // recipe.WINDOW
    assert (recipe.SHORT_STEPS, windows, recipe.WINDOW) == (80, 12, 3)
    assert "a short run of 80 steps, of twelve windows of three frames each" in said
    assert CARD["steps"] == recipe.TRAINING.steps and recipe.FINE == 36
    assert round(CARD["steps"] / recipe.SHORT_STEPS, -1) == 30 and "80 steps are a thirtieth of the lesson" in said
    rates = {recipe.FINE // stride for stride in recipe.STRIDES[recipe.FRAMES]}
    assert (min(rates), max(rates)) == (9, 36) and "nine, of 9 to 36 frames a clip" in said
    slow = {recipe.FINE // stride for stride in recipe.STRIDES[recipe.WINDOW]}
    assert (min(slow), max(slow)) == (2, 9) and "at first three, of 2 to 9" in said


def test_frames_from_words(said):
    row = METRICS["frames"]
    percent = {key: round(100 * row[key]) for key in ("words", "painter", "true look")}
    assert percent == {"words": 81, "painter": 90, "true look": 84}
    assert "From words 81 % of the frames are right" in said
    assert "the painter, who reads the words themselves, has 90 %" in said
    assert 0.08 < row["painter"] - row["words"] < 0.09 and "almost nine" in said
    sight = row["in sight"]
    assert row["pictures"] - sight["pictures"] == 7 and "Seven of the prompts pass behind a wall" in said
    for key in ("words", "true look"):
        hidden = row[key] * row["pictures"] - sight[key] * sight["pictures"]
        assert hidden / 7 < 0.06 and "of their frames the decoder gets nearly none" in said
    alone = {key: round(100 * sight[key]) for key in percent}
    assert alone == {"words": 87, "painter": 92, "true look": 91}
    assert "it gets 87 % from words and 91 % from a true look; the painter has 92" in said
    assert round(100 * (sight["true look"] - sight["words"])) == 4 and "the prior costs about four points" in said
    assert round(100 * (sight["painter"] - sight["true look"])) == 2 and "the decoder about two" in said
    ends = [wilson(round(sight[key] * sight["pictures"]), sight["pictures"]) for key in percent]
    assert max(low for low, _ in ends) < min(high for _, high in ends) and "intervals of all three overlap" in said
    assert row["no prior"] < 0.5 and "Without the prior fewer than half are right" in said
    films = METRICS["words"]
    assert round(films["motion"] * films["films"]) == 3 and films["films"] == 30
    assert "Three motions of thirty are right, by luck" in said


def test_going_on(said):
    one, two, three, repeated = (METRICS["goes on"][key] for key in ("1", "2", "3", "repeated"))
    assert round(one["motion"] * one["films"]) == 1 and one["films"] == 30 and "in one film of thirty" in said
    assert two["motion"] == 0.7 and "after two in seven of ten" in said
    assert three["motion"] == 0.75 < 0.85 and "after three in three of four" in said
    assert three["motions"]["slides"] == [55, 57] and "it is right in 55 films of 57" in said
    assert 0.9 < three["way"] < 1.1 and "What slides goes on as far as it should" in said
    for motion in ("bounces", "orbits", "spins"):
        right, films = three["motions"][motion]
        assert right / films < 0.2
    rights, films = map(sum, zip(*(three["motions"][key] for key in ("bounces", "orbits", "spins")), strict=True))
    assert (rights, films) == (4, 26) and "Bounces, orbits and spins mostly fail, with 4 right of 26" in said
    assert round(100 * three["shape"]) == 58 and round(100 * repeated["shape"]) == 98
    assert "of 58 % of the films, where a repeated frame keeps it in 98 %" in said
    low, high = wilson(round(two["motion"] * two["films"]), two["films"])
    assert low < three["motion"] < high and "thirty films do not tell" in said


def test_the_rate(said):
    rows = {row["asked"]: row for row in METRICS["rate"]}
    assert 3 < rows[9]["filmed"] / rows[36]["filmed"] < 4 and "more than three times as far" in said
    slower = [1 - row["filmed"] / row["true"] for row in rows.values()]
    assert (round(100 * min(slower)), round(100 * max(slower))) == (35, 53) and "by 35 to 53 %" in said


def test_between_and_longer(said):
    between, longer = METRICS["between"], METRICS["longer"]
    assert 3.5 < between["filmed"]["psnr"] - between["mean"]["psnr"] < 4 and "by nearly four decibels" in said
    assert {key: between["filmed"][key] for key in ("motion", "all")} == {
        key: between["mean"][key] for key in ("motion", "all")
    }
    assert "The referee sees no difference" in said
    assert longer["filmed"]["motion"] == 0.8 and "the motion is right in four of five" in said
    assert 0.95 < longer["filmed"]["way"] < 1.05 and "things keep their speed" in said
    shares = [longer[key]["all"] for key in ("filmed", "repeated")]
    assert [round(100 * share) for share in shares] == [63, 47] and longer["films"] == 30
    assert "All is right in 63 % against 47 %, of thirty films" in said
    assert longer["repeated"]["motion"] == pytest.approx(0.467, abs=0.001) and "the repeated frame's 47 %" in said
    (low, _), (_, high) = (wilson(round(share * 30), 30) for share in shares)
    assert low < high and "their intervals overlap" in said


def test_flicker(said):
    rows = SPACE["metrics"]
    found = [round(rows[key]["flicker"], 2) for key in ("one noise", "one a frame", "bilinear")]
    assert found == [1.35, 3.26, 4.13] and "flicker by 1.35 grey levels of 255 with one noise" in said
    assert "with a noise for each frame by 3.26. Bilinear enlarging has 4.13" in said
    cost = rows["one a frame"]["psnr"] - rows["one noise"]["psnr"]
    assert f"One noise costs {cost:.2f} dB" in said and rows["films"] == 15 and "of fifteen films" in said
