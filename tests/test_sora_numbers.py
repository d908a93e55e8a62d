"""Chapter 16's sentences on its exercises' films are held to the pictures and the words that the page has of them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from prose import NOTEBOOKS, prose_of

from benchmarks import time_to_quality
from soralab.figures.curves import wilson
from soralab.recipes.sora import BATCH, TRAINING

CELLS = {cell["id"]: cell for cell in json.loads(
    (NOTEBOOKS / "16_sora.ipynb").read_text(encoding="utf-8"))["cells"]}  # fmt: skip


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("16_sora")


def runs(those: np.ndarray, least: int) -> list[slice]:
    """Where at least `least` in a row are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], those.astype(int), [0]])))
    return [slice(a, b) for a, b in edges.reshape(-1, 2) if b - a >= least]


def strips(cell: str) -> list[list[np.ndarray]]:
    """The films of a cell's picture, frame by frame: on a light page every frame has a dark background."""
    html = "".join(CELLS[cell]["outputs"][0]["data"]["text/html"])
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)', html)[1]))).convert("L")
    grey = np.asarray(picture).astype(float)
    rows = runs((grey < 130).mean(1) > 0.4, 40)
    return [[grey[row, column] for column in runs((grey[row] < 130).mean(0) > 0.4, 40)] for row in rows]


def test_in_three_of_the_four_films_the_ring_jumps(said):
    films = strips("put_back-films")
    assert len(films) == 4 and {len(film) for film in films} == {9}
    ways = []
    for film in films:
        places = np.array([np.argwhere(frame > 160).mean(0) for frame in film])
        first, *others = np.linalg.norm(np.diff(places, axis=0), axis=1)
        ways.append(first / np.median(others))
        assert max(others) < 2 * np.median(others)
    yours, clean = ways[:2], ways[2:]
    assert min(*yours, clean[1]) > 3 and clean[0] < 1.5
    assert "In three of the four films the ring then jumps. The one where it does not has the clean latent" in said


def test_your_solver_s_films_are_the_package_s(said):
    printed = "".join(CELLS["solver_step-films"]["outputs"][0]["text"])
    right = {name: int(count) for name, count in re.findall(r"^(\w+) +5 steps: .* in (\d+) of 12$", printed, re.M)}
    assert "yours and the package's are the same films: True" in printed
    assert "atol=1e-3" in "".join(CELLS["solver_step-films"]["source"]) and "the same films, to a thousandth" in said
    assert right["yours"] == right["dpm_solver_pp"] and abs(right["euler"] - right["yours"]) <= 1


def test_the_race_with_a_u_net_in_pixels(said):
    """data/benchmarks/time_to_quality.json is what `python -m benchmarks time_to_quality --json` writes."""
    found = json.loads((NOTEBOOKS.parent / "data" / "benchmarks" / "time_to_quality.json").read_text(encoding="utf-8"))
    ours, theirs = found["sides"].values()
    early, near, last = (next(row for row in ours["scores"] if row["minutes"] > least)
                         for least in (60, theirs["scores"][-1]["minutes"], ours["minutes"] - 1))  # fmt: skip
    unet = theirs["scores"][-1]
    for at, row in ((60, early), (90, near), (143, last)):
        assert abs(row["minutes"] - at) < 2
        (beside,) = [of for of in theirs["scores"] if abs(of["minutes"] - at) < 2] or [None]
        cell = f"none of {beside['films']}" if beside else ""
        assert f"| {at} | {100 * row['right']:.0f} of 100 | {cell} |".replace("  ", " ") in said
    for sentence in (
        f"In 90 minutes the U-Net has seen {unet['step'] * time_to_quality.BATCH:,} films, and ours "
        f"{near['step'] * BATCH:,}. That is {unet['step']} of the U-Net's {theirs['steps']:,} steps",
        f"none of ten leaves room for {100 * wilson(0, 10)[1]:.0f} in a hundred",
    ):
        assert sentence in said, sentence
    assert {row["films"] for row in ours["scores"]} == {100} and (unet["right"], unet["films"]) == (0, 10)
    assert last["step"] == ours["steps"] == TRAINING.steps / 2 and last["right"] >= found["goal"]
    assert abs(ours["weights"] / theirs["weights"] - 1) < 0.01 and near["minutes"] < unet["minutes"] + 2
