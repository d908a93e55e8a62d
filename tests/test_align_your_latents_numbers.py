"""Chapter 10's sentences with numbers are held to the cards of its checkpoints, and to the recipe."""

import json
import re
from pathlib import Path

from soralab.experiments import align_your_latents_joined as joined
from soralab.files.checkpoints import read_card
from soralab.recipes import align_your_latents as recipe

ROOT = Path(__file__).resolve().parents[1]
CARD, DECODER = read_card("align_your_latents"), read_card("temporal_decoder")
METRICS = CARD["metrics"]
NUMBERS = {"twelve": 12, "sixteen": 16, "twenty": 20, "twenty-four": 24, "thirty": 30, "thirty-six": 36}


def prose() -> str:
    cells = json.loads((ROOT / "notebooks" / "10_align_your_latents.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)  # without links


def test_the_recipe_is_what_the_page_says():
    said = prose()
    assert (recipe.SHORT_STEPS, recipe.SHORT_BATCH) == (100, 8) and "A hundred steps of eight films each" in said
    times = re.search(r"The same with (\S+) times the steps and twice the films in each", said)[1]
    assert NUMBERS[times] * recipe.SHORT_STEPS == recipe.TRAINING.steps == CARD["steps"]
    assert recipe.BATCH == 2 * recipe.SHORT_BATCH == CARD["batch"]
    assert DECODER["steps"] == recipe.DECODER_TRAINING.steps and DECODER["metrics"]["jitter"] == recipe.JITTER
    assert joined.TUNING.steps == 300 and "a few minutes" in said
    assert set(METRICS["alpha"]) - {"step"} and all(abs(values[0] - 0.5) < 0.02
                                                    for name, values in METRICS["alpha"].items() if name != "step")
    assert "all begin at one half" in said
