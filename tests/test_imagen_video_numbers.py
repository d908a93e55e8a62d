"""Chapter 09's sentences with numbers are held to its recipe."""

import json
import re
from pathlib import Path

import pytest

from soralab.experiments import imagen_video as experiment
from soralab.experiments import imagen_video_ablations as ablations
from soralab.imagen_video import PAPER
from soralab.recipes import imagen_video as recipe
from soralab.world.language import VOCABULARY

ROOT = Path(__file__).resolve().parents[1]


def prose(path="notebooks/09_imagen_video.ipynb") -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)  # without links


def test_the_recipe_is_what_the_page_says():
    said = prose()
    few = len(range(0, recipe.FRAMES, recipe.EVERY))
    assert (few, recipe.LOW, recipe.FRAMES, recipe.SIDE) == (5, 8, 9, 32) and "5 × 8 × 8 to 9 × 32 × 32" in said
    assert recipe.FOLDS[recipe.BASE] == 2 and "a square of 2 × 2 of them" in said
    places = {(recipe.LOW // 2) ** 2, (recipe.SIDE // recipe.FOLDS[recipe.SPACE]) ** 2}
    assert places == {16, 64} and "sixteen or sixty-four places a frame" in said
    assert recipe.SHORT_BATCH == 16 and "Beside sixteen films each step has sixteen single pictures" in said
    assert recipe.WINDOW == 5 and "trained on windows of five frames, used on nine" in said
    assert experiment.STEPS[0] == 32 and recipe.HALVINGS[-1] == 4 and "base's 32 guided steps" in said
    assert recipe.GUIDANCE == 2 and "of the base, four steps, scale 2" in said
    assert ablations.TWIN.steps == 300 and "trained for 300 steps more" in said
    assert (ablations.SHORT.steps, len(ablations.SEEDS)) == (150, 2) and "after 150 steps with pictures" in said
    assert len(VOCABULARY) // 10 * 10 == 120 and "our language is 120 words" in said


def test_the_paper_is_what_the_page_says():
    said = prose()
    (first, width, height, _), *_, (last, wide, high, _) = (sizes for sizes, _ in PAPER)
    assert f"{first} × {height} × {width} to {last} × {high} × {wide}" in said
    assert len(PAPER) == 7 and sum(weights for _, weights in PAPER) == pytest.approx(11.6e9, rel=0.005)
    assert "seven, 11.6 billion weights" in said
    assert 3 * last * wide * high == pytest.approx(350e6, rel=0.1) and "350 million numbers" in said
    assert sum(a[0] != b[0] for (a, _), (b, _) in zip(PAPER, PAPER[1:], strict=False)) == 3 and "three for time" in said


def test_the_guide_says_the_same_sizes():
    said = prose("notebooks/sessions/09_imagen_video.md")
    assert "five frames of 8 × 8 pixels" in said and "5 x 8 x 8" in said and "9 x 32 x 32" in said
    calls, steps = 2 * experiment.STEPS[0], recipe.HALVINGS[-1]
    assert (calls, steps) == (64, 4) and "sixty-four calls of a network become four" in said
    row = re.search(r"low +((?:\d +)+\d)", said).group(1).split()
    assert row == ["1", "1", "2", "2", "3", "3", "4", "4", "5"]
