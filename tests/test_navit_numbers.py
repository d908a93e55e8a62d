"""Chapter 07's sentences with numbers are held to the card of its checkpoint, to its experiments and to the recipe."""

import json
import math
from inspect import signature
from pathlib import Path
from statistics import mean, stdev

import pytest

from soralab.datasets.native_sizes import HIGH, LOW, STEP, WIDEST, size
from soralab.experiments import navit_budget as budget
from soralab.experiments import navit_dropping as dropping
from soralab.experiments.navit_positions import ASKED, RATIO, chosen, the_middle
from soralab.files.checkpoints import read_card
from soralab.navit import pack
from soralab.recipes import navit as recipe

ROOT = Path(__file__).resolve().parents[1]
CARD = read_card("navit")
METRICS = CARD["metrics"]


def prose() -> str:
    cells = json.loads((ROOT / "notebooks" / "07_navit.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def points(share: float) -> str:
    """A share in per cent as the prose writes it: "92 %"."""
    return f"{100 * share:.0f} %"


def over_sizes(arm: str) -> list[float]:
    """Each run's mean over the resolutions."""
    return [mean(run["by side"].values()) for run in METRICS["equal budget"][arm]]


def apart(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of paired differences, in points; Student's t for three."""
    d = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
    return mean(d), 4.30 * stdev(d) / math.sqrt(3)


def test_the_recipe_is_what_the_page_says():
    said = prose()
    assert (LOW, HIGH, WIDEST) == (16, 48, 3) and "from 16 × 16 to 48 × 48" in said and "1 : 3 to 3 : 1" in said
    assert (recipe.ROWS, recipe.LENGTH) == (4, 512) and "four rows of 512 tokens" in said
    counts = [h * w // STEP**2 for h, w in (size(recipe.SEED, k) for k in range(2000))]
    rows = pack(counts, recipe.LENGTH)
    assert len(counts) / len(rows) * recipe.ROWS == pytest.approx(33, abs=0.6) and "about 33 pictures" in said
    guide = (ROOT / "notebooks" / "sessions" / "07_navit.md").read_text(encoding="utf-8")
    assert "about 33 pictures a step" in guide
    assert CARD["steps"] == recipe.TRAINING.steps == 4000 and "4,000 steps" in said
    assert CARD["steps"] == 5 * signature(recipe.short_run).parameters["steps"].default and "five times as long" in said
    assert budget.FURTHER.steps == 400 and "400 further steps" in said and len(budget.SEEDS) == 3
    vit = read_card("vit")
    begun = vit["steps"] * vit["batch"] * (vit["config"]["image"] // vit["config"]["patch"]) ** 2
    assert begun == 8 * budget.START.steps * recipe.ROWS * recipe.LENGTH and "eight times as many tokens" in said
    assert recipe.PICTURES == 60_000 and "an epoch of 60,000 pictures" in said and "thousands of full rows" in said
    assert recipe.PICTURES / len(counts) * len(rows) / 2 > 2000  # rows that first fit looks at, halfway through


def test_packing_is_worth_what_was_asked():
    """At equal useful tokens: the same pictures, the same network, a step of training."""
    speed = {way: row["pictures a second"] for way, row in METRICS["throughput"].items()}
    assert speed["packed"] >= 1.5 * speed["padded"]
    assert METRICS["throughput"]["packed"]["padding"] < 0.1 < METRICS["throughput"]["padded"]["padding"]
    assert speed["squares"] > speed["packed"]  # said on the page: dense attention of equal lengths is quick


def test_the_scores_are_as_the_page_reads_them():
    assert METRICS["test"]["what and where"] > 0.9 and METRICS["test"]["pictures"] == 2000
    by_shape = METRICS["by aspect"]
    assert by_shape["NaViT"]["to 3:1"]["right"] > 3 * by_shape["chapter 03's ViT"]["to 3:1"]["right"] * 0.9
    assert min(METRICS["by side"]["NaViT"].values()) > max(METRICS["by side"]["chapter 03's ViT"].values())


def test_the_claim_of_the_paper_at_an_equal_budget():
    said, table = prose(), METRICS["equal budget"]
    gain, half = apart(over_sizes("mixed sizes"), over_sizes("one size"))
    assert gain > half and f"bring {gain:.1f} points more" in said
    assert all(a > b for a, b in zip(over_sizes("mixed sizes"), over_sizes("one size"), strict=True))

    def at(arm, side):
        return [run["by side"][side] for run in table[arm]]

    small, home, large = (apart(at("mixed sizes", side), at("one size", side)) for side in ("16", "32", "48"))
    assert f"{small[0]:.1f} points at a resolution of 16, {large[0]:.1f} at 48" in said
    assert f"one size is ahead by {-home[0]:.1f} ± {home[1]:.1f} points" in said and -home[0] < home[1]


def test_what_is_said_of_squares():
    said, table = prose(), METRICS["equal budget"]

    def by_shape(arm, shape):
        return [run["by aspect"][shape]["right"] for run in table[arm]]

    shapes = ("up to 4:3", "to 3:1")
    square, long = (apart(by_shape("mixed sizes", shape), by_shape("squares", shape)) for shape in shapes)
    assert abs(square[0]) < square[1]
    assert f"nothing up to 4 : 3 and {long[0]:.0f} points between 2 : 1 and 3 : 1" in said
    ahead = {side: apart(*([run["by side"][side] for run in table[arm]] for arm in ("squares", "mixed sizes")))[0]
             for side in ("16", "24", "32", "40", "48")}  # fmt: skip
    assert [side for side, value in ahead.items() if value > 0] == ["16"]
    assert f"ahead at one place, at 16, by {ahead['16']:.1f} points" in said


def test_what_is_said_of_dropping():
    said, table, shipped = prose(), METRICS["dropped"], METRICS["dropping"]["right"]

    def after(name, rate):
        return [run[rate] for run in table[name]]

    won, _ = apart(after("half dropped", "0.5"), after("whole pictures", "0.5"))
    lost, half = apart(after("whole pictures", "0.0"), after("half dropped", "0.0"))
    speed = METRICS["dropping"]["pictures a second"]
    assert f"cost the shipped model {100 * (shipped['0.0'] - shipped['0.5']):.0f} points" in said
    assert f"win back {won:.1f} points" in said and f"cost {lost:.1f} on whole pictures" in said and lost > half
    assert f"is {speed['0.5'] / speed['0.0']:.1f} times as fast" in said


def experiment(name: str) -> dict[str, list[dict]]:
    """What data/experiments has of NAME: {arm: [each seed's numbers]}."""
    return json.loads((ROOT / "data" / "experiments" / f"{name}.json").read_text(encoding="utf-8"))["runs"]


def test_what_is_said_of_sizes_it_never_saw():
    said, runs = prose(), experiment("navit_positions")
    shares = {kind: {asked: [run[asked] for run in runs[kind]] for asked in runs[kind][0]} for kind in runs}
    absolute, fractional = ({asked: points(mean(each)) for asked, each in shares[kind].items()}
                            for kind in ("absolute", "fractional"))  # fmt: skip
    home, larger, longer, both = (apart(shares["fractional"][asked], shares["absolute"][asked])
                                  for asked in ("as in training", "larger", "longer", "larger and longer"))  # fmt: skip
    assert abs(home[0]) < home[1] and f"do not decide ({home[0]:.1f} ± {home[1]:.1f} points)" in said
    assert all(gain > half for gain, half in (larger, longer, both))
    assert f"to {absolute['larger']} of the larger pictures and {absolute['larger and longer']} of the larger" in said
    assert f"read {fractional['larger']} and {fractional['larger and longer']}" in said
    for asked in ("larger", "larger and longer"):
        assert mean(shares["absolute"][asked]) < the_middle(asked) + 0.01 and 'no more than "the middle"' in said
    tokens = ASKED["as in training"][0][1] * math.sqrt(RATIO) / STEP
    assert 9.5 < tokens < 10.5 and "up to ten patches a side" in said
    assert ASKED["larger"][0] == (40, 48) and "resolutions of 40 to 48" in said
    assert ASKED["longer"][1] == (2, 3) and "from 2 : 1" in said
    learned = [max(of) <= 10 * STEP for of in chosen(1000, "test", "longer")[1]]
    assert f"{points(mean(learned))} of the longer pictures need none of them" in said


def test_what_is_said_of_ways_of_dropping():
    said, runs = prose(), experiment("navit_dropping")

    def against(way, rate, other="constant"):
        return apart([run[rate] for run in runs[way]], [run[rate] for run in runs[other]])

    ahead, half = against("falling", "0.0")
    assert ahead > half and f"ahead of a constant one by {ahead:.1f} ± {half:.1f} points" in said
    ahead, half = against("falling", "0.0", "rising")
    assert ahead > half and f"and of a rising one by {ahead:.1f} ± {half:.1f}" in said
    for way, rate in (("Beta", "0.0"), ("by size", "0.0"), ("rising", "0.0"), ("falling", "0.5"), ("by size", "0.5")):
        gain, half = against(way, rate)
        assert abs(gain) < half, (way, rate)
    seen = {way: mean(run["pictures"] for run in runs[way]) for way in runs}
    most = seen.pop("by size")
    assert all(1.9 < seen[way] / seen["whole pictures"] < 2.1 for way in seen if way != "whole pictures")
    assert most > 1.2 * max(seen.values()) and "room for twice as many pictures" in said and "for more still" in said
    lost, half = against("whole pictures", "0.0", "falling")
    assert lost > half and f"still {lost:.1f} points behind no dropping" in said
    sizes = json.loads((ROOT / "data" / "experiments" / "navit_dropping.json").read_text(encoding="utf-8"))
    assert sizes["steps"] == 200 and "200 steps from the shipped model" in said and sizes["mean"] == 0.5
    assert (dropping.HIGH, dropping.LOW) == (0.8, 0.2) and "from 0.8 to 0.2, or back" in said
