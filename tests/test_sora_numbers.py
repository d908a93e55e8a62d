"""Chapter 16's sentences on its exercises' films are held to the pictures and the words that the page has of them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from prose import NOTEBOOKS, prose_of

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
