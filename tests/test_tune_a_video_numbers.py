"""Chapter 15's sentences with numbers are held to data/experiments/tune_a_video.json, and to the recipe."""

import json
import math
from pathlib import Path
from statistics import mean

from soralab.experiments import tune_a_video as experiment
from soralab.experiments.tune_a_video import load_experiment
from soralab.figures.bands import load_band
from soralab.recipes import tune_a_video as recipe

ROOT = Path(__file__).resolve().parents[1]
FOUND = load_experiment()


def prose() -> str:
    cells = json.loads((ROOT / "notebooks" / "15_tune_a_video.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def together(arm: str) -> dict[str, int]:
    return FOUND["arms"][arm]["together"]


def test_the_measures_are_those_of_the_recipe():
    said = prose()
    assert FOUND["films"] == experiment.FILMS == 20 and "Twenty films" in said and "Forty edits" in said
    assert {together(arm)["edits"] for arm in FOUND["arms"]} == {2 * experiment.FILMS, 2 * experiment.FEWER}
    assert FOUND["tuning"] == recipe.STEPS == 100 and "A hundred steps" in said and "100 steps, 1e-3" in said
    assert recipe.TUNING.lr == 1e-3 and FOUND["walk"] == 25 and "25 steps; both in the table above" in said
    assert FOUND["guidance"] == 3 and "| 3 | chosen on other films |" in said
    assert recipe.shot(recipe.FILM).scene.objects[0].motion == "orbits"


def test_the_ends_of_the_table_are_what_the_page_says():
    """The true edit is the ceiling; the film itself has the motion and the place, and nothing that is new."""
    ceiling, floor = together("the true edit"), together("the film itself")
    assert floor["changed"] == floor["all"] == 0 and floor["motion"] >= 38
    assert all(ceiling[name] >= max(together(arm)[name] * ceiling["edits"] / together(arm)["edits"]
                                    for arm in experiment.ARMS) for name in ("both", "all"))  # fmt: skip


def test_pairs_are_those_of_the_table():
    for arm, (ours, theirs) in FOUND["pairs"].items():
        if together(arm)["edits"] == together("tuned")["edits"]:
            assert ours - theirs == together("tuned")["all"] - together(arm)["all"]


def test_the_way_back_is_as_the_page_reads_it():
    errors = {(row["walk"], row["guidance"]): [] for row in FOUND["way back"]}
    for row in FOUND["way back"]:
        errors[row["walk"], row["guidance"]].append(row["error"])
    errors = {key: mean(value) for key, value in errors.items()}
    assert 1.4 < errors[5, 1.0] / errors[10, 1.0] < 2.6 and "twice the steps, about half the error" in prose()
    assert all(errors[walk, 3.0] > errors[walk, 1.0] for walk in experiment.WALKS)


def test_what_is_walked_back_is_quieter_than_noise():
    assert max(FOUND["spread"]) < 1 and "it is quieter" in prose()


def test_the_loss_begins_where_the_page_says():
    held = load_band("tune_a_video").probes["held"]["mean"]  # logarithms
    assert 0.005 < math.exp(held[0]) < 0.03 and "below three hundredths" in prose() and held[-1] < held[0]
