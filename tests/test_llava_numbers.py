"""Chapter 13's sentences with numbers are held to the card of its checkpoint, and to the recipe."""

import pytest
from prose import prose_of

from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.recipes import llava as recipe

CARD = read_card("llava")
METRICS = CARD["metrics"]
TEST, BLIND = METRICS["test"], METRICS["blind"]


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("13_llava")


def percent(count: dict) -> int:
    return round(100 * count["right"] / count["of"])


def alls(table: dict) -> dict[str, int]:
    """The share of each group, in percent."""
    return {group: percent(found["all"] if "all" in found else found) for group, found in table.items()}


def test_the_recipe_is_what_the_page_says(said):
    assert (CARD["pictures"], CARD["films"]) == (recipe.PICTURES, recipe.FILMS) == (16_000, 6000)
    assert "16,000 pictures and 6,000 films" in said
    assert recipe.SHORT_STEPS == 120 and "A hundred and twenty steps of 32 talks" in said
    assert (recipe.STAGE_1.steps, recipe.STAGE_2.steps) == (300, 2400) and "300 steps and 2,400 at 2e-3" in said
    assert len(recipe.TOKENS) == 113 and "a guess among all 113 ids" in said
    assert CARD["stages"]["stage_2"]["steps"] == recipe.STAGE_2.steps


def test_the_answers(said):
    shares, blind = alls(TEST), alls(BLIND)
    assert (shares["one thing"], blind["one thing"]) == (98, 39)
    assert "Of questions about one thing 98 % are right, where the blind one has 39" in said
    assert [shares[group] for group in ("two things", "relations", "films")] == [83, 74, 76]
    assert "About two things it is 83 %, about their relations 74, about films 76" in said and "**not met**" in said
    held = alls(METRICS["held_out"])
    lost = {group: round(100 * TEST[group]["all"]["right"] / TEST[group]["all"]["of"]
                         - 100 * count["all"]["right"] / count["all"]["of"])
            for group, count in METRICS["held_out"].items()}  # fmt: skip
    assert (lost["one thing"], lost["two things"]) == (2, 4) and held["one thing"] < shares["one thing"]
    assert (lost["relations"], lost["description"]) == (8, 25)
    assert "lose two to four points, relations eight, and descriptions 25" in said
    assert TEST["two things"]["shape"]["right"] == TEST["two things"]["shape"]["of"]
    assert percent(TEST["two things"]["colour"]) == 46 and "of two things it is 46 %" in said
    right, of = TEST["relations"]["relation"]["right"], TEST["relations"]["relation"]["of"]
    assert abs(right / of - 0.5) < 2 * (0.25 / of) ** 0.5 and "is a coin outright" in said
    assert percent(TEST["relations"]["beside"]) == 100 and "is always right, for with two things" in said
    assert shares["description"] == 98 and "half of them of two things, are right in 98 %" in said


def test_blind_and_zeroed(said):
    zeroed, blind = alls(METRICS["zeroed"]), alls(BLIND)
    apart = {group: abs(zeroed[group] - blind[group]) for group in blind}
    assert (zeroed.pop("reasoning"), blind.pop("reasoning"), apart.pop("reasoning")) == (1, 8, 7)
    assert "1 % against 8" in said and max(apart.values()) <= 3 and "The two lie close together here" in said
    totals = []
    for groups in METRICS["blind steps"].values():
        totals.append(percent({key: sum(count[key] for count in groups.values()) for key in ("right", "of")}))
    assert totals == [28, 28] and "28 % after half of the steps and 28 after all" in said
    swapped = METRICS["swapped"]
    assert round(100 * swapped["both right"] / swapped["pairs"]) == 34 and swapped["blind"] == 0
    assert "In 34 % of the pairs both are right; who does not look has none" in said


def test_the_stages(said):
    first, blind = alls(METRICS["stage 1"]), alls(BLIND)
    one, other = METRICS["stage 1"]["one thing"], BLIND["one thing"]
    assert [percent(table[kind]) for kind in ("shape", "colour") for table in (one, other)] == [75, 19, 60, 13]
    assert "the shape in 75 % (the blind one has 19) and the colour in 60 % (13)" in said
    assert all(percent(one[kind]) < percent(other[kind]) for kind in ("count", "background"))
    assert (first["one thing"], blind["one thing"], first["two things"], blind["two things"]) == (44, 39, 27, 36)
    assert "all in all it has 44 % against 39, and of two things 27 against 36" in said
    without, after = METRICS["begun"]["without stage 1"], METRICS["begun"]["after stage 1"]
    assert [percent(table[steps]["description"]) for steps in ("175", "350") for table in (after, without)] == [
        82, 73, 91, 88]
    assert "descriptions are right in 82 % with stage 1, and in 73 without" in said and "it is 91 against 88" in said
    apart = [(steps, group) for steps, groups in without.items() for group, count in groups.items()
             if wilson(count["right"], count["of"])[1] < wilson(after[steps][group]["right"], count["of"])[0]]
    assert apart == [("175", "description")] and "One difference is beyond the intervals" in said
    gains = {(steps, group): 100 * (after[steps][group]["right"] - count["right"]) / count["of"]
             for steps, groups in without.items() for group, count in groups.items() if group != "description"}
    assert round(max(gains.values())) == 4 and "the questions gain four points at most at either time" in said
    assert "in ours descriptions gain nine points after half of the steps" in said


def test_the_arms(said):
    grid, last, one = (METRICS["arms"][name] for name in ("penultimate layer", "last layer", "one vector"))
    lost = {group: round(100 * (grid[group]["right"] - count["right"]) / count["of"]) for group, count in one.items()}
    assert [lost[group] for group in ("reasoning", "description", "relations")] == [45, 34, 13]
    assert "45 points in reasoning, 34 in descriptions, 13 in relations, and three to four elsewhere" in said
    assert (lost["two things"], lost["one thing"]) == (3, 4)
    probe = METRICS["probe"]
    assert (round(100 * probe["one vector"]["place"]), round(100 * probe["penultimate layer"]["place"])) == (49, 98)
    assert "a probe reads 49 % from it, and 98 from the grid" in said
    assert (percent(last["description"]), percent(grid["description"])) == (74, 88)
    assert "but for descriptions (74 against 88)" in said
    others = [abs(percent(last[group]) - percent(grid[group])) for group in grid if group != "description"]
    assert max(others) <= 2 and "is as good as the one before it" in said
    assert {row[what] for row in probe.values() for what in ("shape", "colour")} == {1.0}


def test_films(said):
    films = {kind: percent(count) for kind, count in TEST["films"].items()}
    blind = {kind: percent(count) for kind, count in BLIND["films"].items()}
    assert films["all"] == 76 and "76 % in all" in said
    assert [films[kind] for kind in ("background", "shape", "how many")] == [100, 93, 91]
    assert "background always, shape 93, how many 91" in said
    assert [films[kind] for kind in ("motion", "first", "description")] == [58, 54, 39] and blind["motion"] == 7
    assert "*Motion* is 58 %, where the blind one has 7. *What moved first* is 54 %" in said
    low, high = wilson(TEST["films"]["first"]["right"], TEST["films"]["first"]["of"])
    assert low < 0.5 < high and "of two things that is a coin" in said and "in 39 % of the cases" in said
