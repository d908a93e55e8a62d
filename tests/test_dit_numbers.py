"""Chapter 16's sentences on DiT's four ways of telling and on its sizes are held to the file of what was measured."""

import inspect
import json
import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from prose import NOTEBOOKS, prose_of

from soralab.dit import CONDITIONINGS
from soralab.experiments import dit as experiment
from soralab.recipes import dit as recipe
from soralab.recipes.dit import SIZES, STEPS
from soralab.training.probes import Probes

FOUND = experiment.load_experiment()


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("16_sora")


def last(rows, column="held"):
    return [row["marks"][-1][column] for row in rows]


def test_what_the_four_ways_show(said):
    ways = FOUND["conditioning"]
    assert tuple(ways) == CONDITIONINGS and all(len(rows) == len(experiment.SEEDS) == 3 for rows in ways.values())
    assert {row["steps"] for rows in ways.values() for row in rows} == {experiment.COMPARED_STEPS}
    assert f"learns for {experiment.COMPARED_STEPS:,} steps from three seeds" in said
    unseen = re.search(r"laptop=(\d+)", inspect.getsource(recipe.unseen))[1]
    assert f"squared error of the noise on {unseen} films that it never saw" in said
    means = {way: sum(last(rows)) / 3 for way, rows in ways.items()}
    assert sorted(means, key=means.get, reverse=True) == list(CONDITIONINGS)  # figure 3's order and figure 5's
    assert "the four means stand in the paper's order, and only the first place is sure" in said
    best, second, *rest = sorted(means, key=means.get)
    assert max(last(ways[best])) < min(value for way in (second, *rest) for value in last(ways[way]))
    assert f"adaLN-Zero is ahead by {100 * (1 - means[best] / means[second]):.0f} %, every seed" in said
    assert 1.01 < means[rest[-1]] / means[second] < 1.02 and "within 2 % of each other" in said
    order = sorted((min(last(ways[way])), max(last(ways[way]))) for way in (second, *rest))
    assert all(above[0] < below[1] for below, above in pairwise(order))  # "their seeds overlap"
    costs = {way: rows[0]["multiply-adds"] for way, rows in ways.items()}
    assert f"takes {100 * (costs['cross-attention'] / costs['adaLN-Zero'] - 1):.0f} % more multiply-adds" in said
    assert f"takes {100 * (costs['adaLN-Zero'] / costs['adaLN'] - 1):.1f} % more multiply-adds than adaLN" in said
    weights = {way: rows[0]["parameters"] for way, rows in ways.items()}
    assert 1.09 < weights["adaLN-Zero"] / weights["adaLN"] < 1.12 and "a tenth more weights" in said


def test_what_the_four_ways_pairing_shows(said):
    heard = {way: last(rows, "pairing") for way, rows in FOUND["conditioning"].items()}
    assert inspect.signature(Probes).parameters["groups"].default == 16 and "between sixteen groups of films" in said
    assert all(min(values) > 0 for values in heard.values())
    assert min(heard["adaLN"]) > max(value for way, values in heard.items() if way != "adaLN" for value in values)
    assert "above 0 for all four, and highest for adaLN" in said
    assert sum(heard["adaLN-Zero"]) <= min(map(sum, heard.values()))  # "that it listens better"


def test_what_is_said_of_how_the_four_ways_differ():
    """Three things tell adaLN-Zero from adaLN: gates, six vectors that start at zero, and weights."""
    models = {way: recipe.DiT(recipe.Run.of(experiment.COMPARED, 2, 1, conditioning=way).config)
              for way in ("adaLN", "adaLN-Zero")}  # fmt: skip
    modulation = {way: model.blocks[0].modulation for way, model in models.items()}
    vectors, gates = modulation["adaLN"]  # shifts and scales, and gates that stand open
    assert vectors.weight.std() > 0.01 and not list(gates.parameters())
    assert not modulation["adaLN-Zero"].weight.any()
    assert len(modulation["adaLN-Zero"].weight) * 4 == len(vectors.weight) * 6


def test_sizes_were_trained_as_the_recipe_has_them(said):
    assert {size: row["steps"] for size, row in FOUND["sizes"].items()} == STEPS and list(FOUND["sizes"]) == list(SIZES)
    for size, row in FOUND["sizes"].items():
        losses = [mark["held"] for mark in row["marks"]]
        assert losses == sorted(losses, reverse=True)  # more steps, less loss
        assert [mark["step"] for mark in row["marks"]] == [share * STEPS[size] for share in recipe.MARKS]
    assert len(recipe.MARKS) == 6 and recipe.MARKS[0] == 1 / 32 and recipe.MARKS[-1] == 1
    assert "measured six times, from 1/32 of its steps to the end" in said
    costs = [row["multiply-adds"] for row in FOUND["sizes"].values()]
    assert all(2.5 < b / a < 3.2 for a, b in pairwise(costs)) and "a pass of each about three times as costly" in said
    warm = {size: sum(mark["step"] <= recipe.TRAINING.warmup for mark in row["marks"])
            for size, row in FOUND["sizes"].items()}  # fmt: skip
    assert warm == {"2 x 64": 0, "3 x 96": 0, "5 x 128": 1, "6 x 192": 2} and recipe.TRAINING.warmup == 100
    assert "The first 100 steps are a warm-up. Three marks lie in it" in said
    assert "the first of 5 × 128 and the first two of 6 × 192" in said
    first = FOUND["sizes"]["6 x 192"]["marks"][0]["held"]
    top = re.search(r"ylim=\(0\.05, ([\d.]+)\)", source_of("dit-sizes"))[1]
    above = [mark for row in FOUND["sizes"].values() for mark in row["marks"] if mark["held"] > float(top)]
    assert f"The very first of 6 × 192, at {first:.2f}, is above the picture" in said
    assert [mark["held"] for mark in above] == [first]


def source_of(start: str) -> str:
    cells = json.loads((NOTEBOOKS / "16_sora.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["id"] == start))


def test_what_the_sizes_show_for_equal_steps(said):
    """At every step at which two sizes were measured the larger one is ahead; of 2 x 64 one looks between marks."""
    held = {size: {mark["step"]: mark["held"] for mark in row["marks"]} for size, row in FOUND["sizes"].items()}
    common = 0
    for small, large in combinations(held.values(), 2):
        for step in small.keys() & large.keys():
            common += 1
            assert large[step] < small[step]
    assert common == 14
    smallest, *others = held.values()
    for other in others:
        for step, loss in smallest.items():
            if min(other) <= step <= max(other):
                assert np.interp(np.log(step), np.log(list(other)), list(other.values())) < loss
    assert "after 1,024 of them 3 × 96 is at {:.3f}, 5 × 128 at {:.3f} and 6 × 192 at {:.3f}.".format(*(
        row[1024] for row in others)) in said
    assert f"2 × 64 is still at {smallest[1536]:.3f} after 1,536" in said and smallest[1536] > max(
        row[1024] for row in others)


def test_what_the_sizes_show_for_equal_operations(said):
    marks = {size: [(mark["flops"], mark["held"]) for mark in row["marks"]] for size, row in FOUND["sizes"].items()}
    for small, large in combinations(marks.values(), 2):
        for flops, loss in large:
            if flops <= small[-1][0]:  # both lines stand above it
                assert np.interp(np.log(flops), *zip(*((np.log(f), held) for f, held in small), strict=True)) < loss
    assert "wherever two lines stand above the same operations, the smaller model is ahead" in said
    first, *_, before, last = marks.values()
    assert f"6 × 192 comes down to {last[-1][1]:.3f}" in said and first[-1][1] == pytest.approx(last[-1][1], abs=5e-4)
    assert 0.22 < first[-1][0] / last[-1][0] < 0.28 and "with about a quarter of its operations" in said
    end = max(min(small[-1][0], large[-1][0]) for small, large in combinations(marks.values(), 2))
    assert end == before[-1][0] and round(end / 1e12) == 35
    assert "up to about 3.5 · 10¹³ operations, where 5 × 128 ends and the last two lines cease to overlap" in said
    small, *_, large = FOUND["sizes"].values()
    times = large["multiply-adds"] / small["multiply-adds"]
    assert f"A step of 6 × 192 costs {times:.0f} times one of 2 × 64" in said
    steps = STEPS["2 x 64"]
    assert f"operations of the latter's {steps:,} steps it takes about {round(steps / times, -1):.0f}." in said
