"""Chapter 13's sentences with numbers are held to the card of its checkpoint, and to the recipe."""

import json
import math
from collections import Counter

import pytest
from prose import NOTEBOOKS, prose_of

from soralab.datasets import stills
from soralab.datasets.instructions import options, place, symbols
from soralab.datasets.short_films import film_scene
from soralab.experiments import llava_arms
from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.recipes import llava as recipe

CARD = read_card("llava")
METRICS = CARD["metrics"]
TEST, BLIND = METRICS["test"], METRICS["blind"]


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("13_llava")


def printed(cell: str) -> list[str]:
    """The lines that a cell of the page has printed."""
    cells = json.loads((NOTEBOOKS / "13_llava.ipynb").read_text(encoding="utf-8"))["cells"]
    (found,) = (each for each in cells if each["id"] == cell)
    return "".join("".join(output.get("text", "")) for output in found["outputs"]).splitlines()


def percent(count: dict) -> int:
    return round(100 * count["right"] / count["of"])


def alls(table: dict) -> dict[str, int]:
    """The share of each group, in percent."""
    return {group: percent(found["all"] if "all" in found else found) for group, found in table.items()}


def beyond(one: dict, other: dict) -> bool:
    """Whether the interval of one share lies above the other's."""
    return wilson(one["right"], one["of"])[0] > wilson(other["right"], other["of"])[1]


def points(one: dict, other: dict) -> int:
    """By how many points a share is above another."""
    return round(100 * one["right"] / one["of"] - 100 * other["right"] / other["of"])


def test_the_recipe_is_what_the_page_says(said):
    assert (CARD["pictures"], CARD["films"]) == (recipe.PICTURES, recipe.FILMS) == (16_000, 6000)
    assert "16,000 pictures and 6,000 films" in said
    assert recipe.SHORT_STEPS == 120 and "A hundred and twenty steps of 32 talks" in said
    assert (recipe.STAGE_1.steps, recipe.STAGE_2.steps) == (300, 8000) and "300 steps and 8,000 at 2e-3" in said
    assert recipe.STAGES["stage_2"][1].keywords == {"films": 2} and "every other batch of stage 2 is of films" in said
    assert len(recipe.TOKENS) == 113 and "a guess among all 113 ids" in said
    assert {name: stage["steps"] for name, stage in CARD["stages"].items()} == {
        "read": recipe.READING.steps, "stage_1": recipe.STAGE_1.steps, "stage_2": recipe.STAGE_2.steps}  # fmt: skip
    assert "for 2,000 steps on text of our world first, where every word is learnt" in said
    W = recipe.fresh().W
    assert sum(p.numel() for p in W.parameters()) == 33_920 and "Our $W$ has 34,000 numbers to learn" in said


def test_the_answers(said):
    shares, blind = alls(TEST), alls(BLIND)
    assert TEST["one thing"]["all"] == {"right": 2005, "of": 2005} and blind["one thing"] == 38
    assert "Of 2,005 questions about one thing none is answered wrong, where the blind one has 38 % right" in said
    assert [shares[group] for group in ("two things", "relations", "films")] == [96, 99, 85]
    films = 100 * TEST["films"]["all"]["right"] / TEST["films"]["all"]["of"]
    lacking = math.ceil(0.85 * TEST["films"]["all"]["of"]) - TEST["films"]["all"]["right"]  # to the 85 % asked for
    assert f"{films:.1f}" == "84.8" and lacking == 12 and "is **not met**, by 12 answers of 4,899" in said
    assert "About two things 96 % are right, about their relations 99, about films 84.8" in said
    assert "of pictures nearly always, of films in 85 of 100" in said
    lost = {group: points(TEST[group]["all"], count["all"]) for group, count in METRICS["held_out"].items()}
    assert [lost[group] for group in ("one thing", "two things", "relations", "description")] == [2, 2, 6, 17]
    assert "lose two points, relations six, and descriptions 17" in said
    two = {kind: percent(count) for group in ("two things", "relations") for kind, count in TEST[group].items()
           if kind != "all"}  # fmt: skip
    assert two.pop("place") == 70 and "It is *place*, where one of them is: 70 %" in said
    assert "Of one thing alone it is never wrong" in said
    assert two.pop("relation") == 98 and min(two.values()) >= 99
    assert '*Relation* ("left or right of") is 98, and all the rest 99 % or more' in said


def test_who_has_read_little_and_who_has_read_well(said):
    arms = llava_arms.ARMS
    little, well = METRICS["read"]["little read"], METRICS["read"]["well read"]
    assert recipe.READING.steps == 2000 and arms["little read"].little and not arms["well read"].little
    assert "One has read for 250 steps; the other is the shipped model's, after its 2,000" in said
    assert arms["little read"].steps == arms["well read"].steps == 700 and llava_arms.PICTURES == 5000
    assert "700 steps of all kinds of questions about the same 5,000 pictures" in said
    for kind in ("colour", "relation"):  # coins
        low, high = wilson(little["told"][kind]["right"], little["told"][kind]["of"])
        assert low < 0.5 < high
    assert "takes one of two colours as by a coin, and one of two sides" in said
    low, high = wilson(little["shown"]["relation"]["right"], little["shown"]["relation"]["of"])
    assert low < 0.5 < high and [percent(one["shown"]["relation"]) for one in (little, well)] == [55, 88]
    assert "*Relation* takes two places. It is a coin still for the one that has read little, 55 %" in said
    assert "the well-read one has 88" in said
    assert [percent(one["shown"]["colour"]) for one in (little, well)] == [86, 100] and "it is 86 against 100" in said
    assert min(percent(one["shown"][kind]) for one in (little, well) for kind in ("shape", "size")) >= 99
    assert all(beyond(well["shown"][kind], little["shown"][kind]) for kind in ("colour", "relation"))
    kinds = ("shape", "size", "colour", "place", "relation")
    assert [percent(well["told"][kind]) for kind in kinds] == [100, 100, 100, 82, 100]
    assert "no mistake in four kinds of five" in said
    assert [percent(little["told"][kind]) for kind in ("shape", "size")] == [56, 76]
    assert "had learnt neither well from text, 56 and 76 %" in said


def test_place_does_not_follow_the_reading(said):
    little, well = METRICS["read"]["little read"], METRICS["read"]["well read"]
    assert [percent(one["told"]["place"]) for one in (well, little)] == [82, 66]
    assert beyond(well["told"]["place"], little["told"]["place"])
    assert "the well-read one is ahead, 82 % against 66" in said
    assert [percent(one["shown"]["place"]) for one in (well, little)] == [56, 60]
    assert not beyond(little["shown"]["place"], well["shown"]["place"])
    assert "it is not: 56 against 60, within the intervals" in said
    counts = {kind: count for group in ("two things", "relations") for kind, count in TEST[group].items()}
    assert min(counts, key=lambda kind: percent(counts[kind])) == "place"
    assert "it is what the shipped model does worst in pictures" in said
    wrong = counts["place"]["of"] - counts["place"]["right"]
    (found,) = printed("whose-place")
    assert found.startswith(f"{wrong} of {counts['place']['of']} are wrong; 61 of these") and f"61 of {wrong}" in said


def test_the_same_question_forwards_and_backwards(said):
    right, same = printed("backwards")
    assert right.startswith("forwards and backwards right: 41 % [") and "In 41 % it is right both ways" in said
    assert same.startswith("twice the same answer: 21 % [") and "In 21 % it says the same twice" in said
    guide = (NOTEBOOKS / "sessions" / "13_llava.md").read_text(encoding="utf-8")
    assert "says the same twice in 21 % of the cases, and is right both ways in 41" in guide
    assert 0.48 < 1 - 41 / (100 - 21) < 0.52 and "half of those that do are wrong all the same" in said


def test_blind_and_zeroed(said):
    zeroed, blind = alls(METRICS["zeroed"]), alls(BLIND)
    apart = {group: abs(zeroed[group] - blind[group]) for group in blind}
    assert max(apart.values()) == 5 and "about five points apart at most" in said
    guide = (NOTEBOOKS / "sessions" / "13_llava.md").read_text(encoding="utf-8")
    one, two = ([table[group] for table in (blind, zeroed)] for group in ("one thing", "two things"))
    close = "the two lie close: {} and {} % about one thing, {} and {} about two"
    assert close.format(*one, *two) in guide
    assert f"Of two things the zeroed one has {zeroed['two things']} % and the blind one {blind['two things']}" in said
    assert f"in reasoning {zeroed['reasoning']} against {blind['reasoning']}" in said
    totals = []
    for groups in METRICS["blind steps"].values():
        totals.append(percent({key: sum(count[key] for count in groups.values()) for key in ("right", "of")}))
    assert totals == [28, 28] and "28 % after half of the steps and 28 after all" in said
    swapped = METRICS["swapped"]
    assert round(100 * swapped["both right"] / swapped["pairs"]) == 98 and swapped["blind"] == 0
    assert "In 98 % of the pairs both are right; who does not look has none" in said


def test_the_stages(said):
    first, blind = alls(METRICS["stage 1"]), alls(BLIND)
    one, other = METRICS["stage 1"]["one thing"], BLIND["one thing"]
    assert (first["one thing"], blind["one thing"], first["description"]) == (21, 38, 0)
    assert "Of one thing 21 % is right, less than the blind one's 38" in said and "of descriptions nothing" in said
    assert [percent(table["colour"]) for table in (one, other)] == [12, 15]
    assert "of colours 12 % (the blind one has 15)" in said
    without, after = METRICS["begun"]["without stage 1"], METRICS["begun"]["after stage 1"]
    apart = [(steps, group) for steps, groups in without.items() for group, count in groups.items()
             if beyond(after[steps][group], count) or beyond(count, after[steps][group])]  # fmt: skip
    assert apart == [("175", "one thing")] and "One difference is beyond the intervals" in said
    assert [percent(table["175"]["one thing"]) for table in (after, without)] == [90, 87]
    assert "90 % about one thing with stage 1, and 87 without" in said
    behind = [points(count, after["175"][group]) for group, count in without["175"].items() if group != "one thing"]
    assert (len(behind), min(behind), max(behind)) == (4, 1, 6)
    assert "stage 1 is behind at that time, by one to six points" in said
    assert "After all steps nothing is beyond the intervals" in said
    assert "in ours three points about one thing after half of the steps, and nothing after all" in said


def test_the_arms(said):
    grid, last, one = (METRICS["arms"][name] for name in ("penultimate layer", "last layer", "one vector"))
    lost = {group: points(grid[group], count) for group, count in one.items()}
    assert [lost[group] for group in ("reasoning", "relations", "description", "two things", "one thing")] == [
        43, 30, 25, 19, 3]  # fmt: skip
    assert "43 points in reasoning, 30 in relations, 25 in descriptions, 19 about two things" in said
    assert "and three about one" in said
    probe = METRICS["probe"]
    assert (round(100 * probe["one vector"]["place"]), round(100 * probe["penultimate layer"]["place"])) == (49, 98)
    assert "a probe reads 49 % from it, and 98 from the grid" in said
    assert points(last["one thing"], grid["one thing"]) == points(grid["two things"], last["two things"]) == 3
    apart = {group for group in grid if beyond(grid[group], last[group]) or beyond(last[group], grid[group])}
    assert apart == {"one thing", "two things"}
    assert "three points more about one thing and three fewer about two" in said
    assert {row[what] for row in probe.values() for what in ("shape", "colour")} == {1.0}


def test_films(said):
    films = {kind: percent(count) for kind, count in TEST["films"].items()}
    blind = {kind: percent(count) for kind, count in BLIND["films"].items()}
    assert films["all"] == 85 and "Films are the hardest: 84.8 % in all" in said
    assert [films[kind] for kind in ("background", "size", "how many", "shape", "colour")] == [100, 97, 92, 91, 89]
    assert "Background is right always, size 97 times in 100, how many 92, shape 91 and colour 89" in said
    assert [films[kind] for kind in ("motion", "first", "description")] == [73, 75, 59] and blind["motion"] == 18
    assert "*Motion* is 73 %, where the blind one has 18. *What moved first* is 75 %" in said
    low, high = wilson(TEST["films"]["first"]["right"], TEST["films"]["first"]["of"])
    assert low > 0.65 and "where a coin would have half" in said and "in 59 % of the cases" in said


def test_the_command_s_six_answers(said):
    told = symbols(film_scene(13, 3, "test"), "film")
    *_, first, last, film = printed("ask")[:6]
    assert dict(options(told, "first")) == {"What moves first?": first, "What moves last?": last}
    triangle, moon = film.removesuffix(" on a black background").split(" and then ")
    ways = "slides right", "slides down and left"
    assert triangle == f"a small blue triangle {ways[1]}" and moon == f"a small white moon {ways[0]}"
    assert told.caption.split(", and ")[0].endswith(f"triangle {ways[0]}") and f"moon {ways[1]} on" in told.caption
    assert "the two in their order and exchanges their ways" in said


def test_the_words_nearest_to_a_picture(said):
    words = [word for line in printed("nearest")[:4] for word in line.split()[::2]]
    told = symbols(stills.sample(13, 0, "test", 1))
    its = {*told.caption.split(), *place(*told.middle("green", 0)).split()} - {"a", "the", "in", "at", "on"}
    found = Counter(word for word in words if word in its)
    assert len(words) == 16 and found == {"green": 1, "black": 1, "middle": 1, "large": 2}
    assert 'but for "green", "black" and "middle" once and "large" twice' in said


def test_what_goes_wrong(said):
    wrong = [(question, truth, answer) for question, truth, answer in METRICS["examples"]]
    assert len(wrong) == 10 and "Eight of these ten are about where something is, or goes" in said
    asked = [question for question, *_ in wrong]
    other = {"What moves?", "Do the objects have the same size?"}
    assert len(other & set(asked)) == 2
