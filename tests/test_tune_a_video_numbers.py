"""Chapter 15's sentences with numbers are held to data/experiments/tune_a_video.json, and to the recipe."""

import json
import math
from itertools import product
from pathlib import Path
from statistics import mean

import pytest
import torch

from soralab.experiments import tune_a_video as experiment
from soralab.experiments.tune_a_video import load_experiment
from soralab.experiments.tune_a_video_scores import by_chance
from soralab.figures.bands import load_band
from soralab.latent_diffusion import PROCESS
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
    assert recipe.TUNING.lr == 1e-3 and FOUND["walk"] == 25 and "25 steps to the time 0.4, under the" in said
    assert FOUND["guidance"] == 3 and "| 3 | with how far back, on ten other films, above |" in said
    assert FOUND["back"] == experiment.BACK == 0.4 and "Those above begin at the time 0.4" in said
    film = float(PROCESS.alpha(torch.tensor(0.4))) ** 2
    assert film == pytest.approx(0.25, abs=0.02) and "a quarter of the variance is still the film's" in said
    assert len(experiment.TRIED) == 10 and "Ten more films, apart from the forty edits" in said
    assert not set(experiment.TRIED) & {*range(experiment.FILMS), *experiment.SWEPT, recipe.FILM}
    assert recipe.shot(recipe.FILM).scene.objects[0].motion == "orbits"


def test_the_ends_of_the_table_are_what_the_page_says():
    """The true edit is the ceiling; the film itself has the motion and the place, and nothing that is new."""
    ceiling, floor = together("the true edit"), together("the film itself")
    assert floor["changed"] == floor["all"] == 0 and floor["motion"] >= 38
    assert all(ceiling[name] >= max(together(arm)[name] * ceiling["edits"] / together(arm)["edits"]
                                    for arm in experiment.ARMS) for name in ("both", "all"))  # fmt: skip


def test_the_lesson_of_the_arms_is_the_table_s():
    said, tuned = prose(), together("tuned")
    assert min(tuned["changed"], tuned["motion"]) >= 0.8 * tuned["edits"]
    both = {arm: together(arm)["both"] for arm in FOUND["arms"]}
    kinds = FOUND["arms"]["tuned"]
    for sentence in (
        f"{both['tuned']} have the new word and the old motion, and {both['all the way back']} when they begin at "
        f"noise alone; the paper's way has {both['all the way, without a prompt']}",
        f"where noise is added instead, {both['noise added']} have both",
        f"{both['not tuned']} without it, {both['frame by frame']} with every frame alone; all the way back it is "
        f"{both['all the way back']} with it and {both['all the way, not tuned']} without",
        f"All five at once are right in {tuned['all']}",
        f"{kinds['colour']['all']} of 20 new colours, {kinds['shape']['all']} of 20 new shapes",
        f"most often it is the place that is lost: {kinds['shape']['place']} of 20 keep it",
        f"({together('from fresh noise')['motion']} of 40 keep the motion from fresh noise)",
        f"{together('not tuned')['motion']} of 40 still keep it, against {tuned['motion']}",
        f"it lost: {both['noise added']} of 40 against {both['tuned']}",
    ):
        assert sentence in said, sentence
    shape = kinds["shape"]
    assert shape["place"] == min(shape[name] for name in ("changed", "motion", "place", "rest", "background"))
    decided = {arm: by_chance(*pair) < 0.05 for arm, pair in FOUND["pairs"].items()}
    assert decided["all the way back"] and decided["noise added"]
    assert not decided["not tuned"] and not decided["frame by frame"]


def test_the_guide_says_the_same():
    said = (ROOT / "notebooks" / "sessions" / "15_tune_a_video.md").read_text(encoding="utf-8")
    rows = {key: row["together"] for key, row in FOUND["settings"].items()}
    assert rows["0.4, 3"]["changed"] == 20 and rows["0.3, 3"]["changed"] == 17
    assert "new words come in 20 of 20 from 0.4 on, and in 17 from 0.3" in said
    ours, untuned = (together(arm)["both"] for arm in ("tuned", "not tuned"))
    assert f"untuned, {untuned} of 40 against {ours}" in said
    assert FOUND["steps of tuning"]["500"]["shape"]["edits"] == 2
    assert "At 500 steps one new shape of two no longer comes" in said


def test_what_the_settings_say():
    said, rows = prose(), {key: row["together"] for key, row in FOUND["settings"].items()}
    full, mild, short, ours = (rows[key] for key in ("1, 3", "1, 1.5", "0.3, 3", "0.4, 3"))
    assert full["changed"] == full["edits"] == 20 and "the new words always win" in said
    for sentence in (f"the motion is kept in {full['motion']} of 20", f"{short['changed']} of 20 show the new word",
                     f"half the guidance {mild['motion']} of 20 keep it, and {mild['changed']} change"):  # fmt: skip
        assert sentence in said, sentence
    assert ours["both"] == max(row["both"] for row in rows.values())


def test_what_longer_tuning_did():
    kinds = FOUND["steps of tuning"]
    assert kinds["500"]["shape"]["changed"] == kinds["100"]["shape"]["changed"] - 1
    assert kinds["500"]["colour"]["changed"] == kinds["100"]["colour"]["changed"] == 2
    whole = {steps: row["together"]["motion"] for steps, row in kinds.items()}
    assert whole["500"] == whole["100"] + 1
    assert "At 500 steps one new shape no longer comes, and one more motion is kept" in prose()


def test_pairs_are_those_of_the_table():
    for arm, (ours, theirs) in FOUND["pairs"].items():
        if together(arm)["edits"] == together("tuned")["edits"]:
            assert ours - theirs == together("tuned")["all"] - together(arm)["all"]


def test_the_way_back_is_as_the_page_reads_it():
    errors = {}
    for row in FOUND["way back"]:
        errors.setdefault((row["back"], row["guidance"], row["walk"]), []).append(row["error"])
    errors = {key: mean(value) for key, value in errors.items()}
    pairs = [(errors[back, 3.0, walk], errors[back, 1.0, walk]) for back in (1.0, 0.4) for walk in experiment.WALKS]
    assert all(guided > plain for guided, plain in pairs)
    assert "Guidance makes every way back worse" in prose()
    assert errors[1.0, 3.0, 5] > 1 and "a film that is further from itself than nothing" in prose()
    both = product(experiment.SCALES, experiment.WALKS)
    assert all(errors[0.4, scale, walk] < errors[1.0, scale, walk] for scale, walk in both)
    assert "the shorter way is the more exact one, in every column" in prose()


def test_what_is_walked_back_is_quieter_than_noise():
    assert max(FOUND["spread"]) < 1 and "it is quieter" in prose()


def test_the_loss_begins_where_the_page_says():
    held = load_band("tune_a_video").probes["held"]["mean"]  # logarithms
    assert 0.005 < math.exp(held[0]) < 0.03 and "below three hundredths" in prose() and held[-1] < held[0]
