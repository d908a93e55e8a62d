"""Chapter 16's sentences on DiT's four ways of telling and on its sizes are held to the file of what was measured."""

from itertools import pairwise

import numpy as np
import pytest
from prose import prose_of

from soralab.dit import CONDITIONINGS
from soralab.experiments import dit as experiment
from soralab.recipes.dit import SIZES, STEPS

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
    means = {way: sum(last(rows)) / 3 for way, rows in ways.items()}
    best, second, *rest = sorted(means, key=means.get)
    assert (best, second) == ("adaLN-Zero", "adaLN") and max(means, key=means.get) == "in-context"
    assert max(last(ways[best])) < min(value for way in (second, *rest) for value in last(ways[way]))
    assert f"adaLN-Zero is ahead by {100 * (1 - means[best] / means[second]):.0f} %, every seed" in said
    assert 1.01 < means[rest[-1]] / means[second] < 1.02 and "within 2 % of each other" in said
    order = sorted((min(last(ways[way])), max(last(ways[way]))) for way in (second, *rest))
    assert all(above[0] < below[1] for below, above in pairwise(order))  # "their seeds overlap"
    costs = {way: rows[0]["multiply-adds"] for way, rows in ways.items()}
    assert f"takes {100 * (costs['cross-attention'] / costs['adaLN-Zero'] - 1):.0f} % more multiply-adds" in said
    assert costs["adaLN-Zero"] / costs["adaLN"] < 1.01 and "no more multiply-adds than adaLN" in said
    weights = {way: rows[0]["parameters"] for way, rows in ways.items()}
    assert 1.09 < weights["adaLN-Zero"] / weights["adaLN"] < 1.12 and "a tenth more weights" in said
    assert max(value for rows in ways.values() for value in last(rows, "pairing")) < 2.5 and "It is small" in said


def test_sizes_were_trained_as_the_recipe_has_them():
    assert {size: row["steps"] for size, row in FOUND["sizes"].items()} == STEPS and list(FOUND["sizes"]) == list(SIZES)
    for row in FOUND["sizes"].values():
        losses = [mark["held"] for mark in row["marks"]]
        assert losses == sorted(losses, reverse=True)  # more computing, less loss


def test_what_the_sizes_show(said):
    marks = {size: [(mark["flops"], mark["held"]) for mark in row["marks"]] for size, row in FOUND["sizes"].items()}
    for small, large in pairwise(marks.values()):
        for flops, loss in large:
            if flops <= small[-1][0]:  # both lines stand above it
                assert np.interp(np.log(flops), *zip(*((np.log(f), held) for f, held in small), strict=True)) < loss
    assert "wherever two lines stand above the same operations, the smaller model is ahead" in said
    first, *_, last = marks.values()
    assert f"6 × 192 comes down to {last[-1][1]:.3f}" in said and first[-1][1] == pytest.approx(last[-1][1], abs=5e-4)
    assert 0.22 < first[-1][0] / last[-1][0] < 0.28 and "with about a quarter of its operations" in said
    steps = list(STEPS.values())
    assert f"{min(steps):,} against {max(steps):,} at the ends" in said
    costs = [row["multiply-adds"] for row in FOUND["sizes"].values()]
    assert all(2.5 < b / a < 3.2 for a, b in pairwise(costs)) and "each with about three times the operations" in said
