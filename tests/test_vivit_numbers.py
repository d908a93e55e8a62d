"""Chapter 08's sentences with numbers are held to the card of its checkpoint, and to the recipe."""

import ast
import json
import re

import numpy as np
import pytest
from prose import NOTEBOOKS, prose_of

from soralab.datasets import order
from soralab.exercises import exercise
from soralab.experiments import vivit as experiment
from soralab.figures import verdict
from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.recipes import vivit as recipe
from soralab.vivit import ViViTConfig, cost

CARD = read_card("vivit")
METRICS = CARD["metrics"]
MODELS, SINGLE, FILMS = METRICS["models"], METRICS["single frames"], METRICS["films"]
ALIKE = "model 2, nearly alike"


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("08_vivit")


def percent(share: float) -> int:
    return round(100 * share)


def of_kind(row: dict, kind: str) -> float:
    """The share of films of these pairs that are told from their reverse."""
    rights, films = zip(*(of for pair, of in row["test"]["by pair"].items() if pair.startswith(kind)), strict=True)
    return sum(rights) / sum(films)


def test_the_recipe_is_what_the_page_says(said):
    steps = recipe.short_run.__defaults__[0]
    assert f"There are {steps} steps of {recipe.BATCH} films each" in said
    assert order.CLASSES == 14 and "Each of 14 classes" in said
    assert CARD["best"] == min((name for name in MODELS), key=CARD["held_loss"].get)


def test_a_run_that_learns_nothing_is_seen_when_the_page_says(said):
    """Its loss stays at ln 14."""
    def judged(last):
        steps = np.arange(2, last + 1, 2)
        return str(verdict({"step": steps, "loss": np.full(len(steps), np.log(order.CLASSES))}, "vivit"))

    assert "until step 250 a loss alone does not tell a run that learns nothing from a right one" in said
    assert "right so far" in judged(250) and "wrong" in judged(260)


def test_the_paper_s_table_2(said):
    """As the page's cell has it, and what the exercise's figure shows beside it."""
    cells = json.loads((NOTEBOOKS / "08_vivit.ipynb").read_text(encoding="utf-8"))["cells"]
    (source,) = (text for cell in cells if "PAPER = {" in (text := "".join(cell["source"])))
    paper = ast.literal_eval(re.search(r"PAPER = (\{[^}]+\})", source)[1])
    (kinetics, kitchens, _), (alone, too, _) = paper[2], paper["averaged"]
    assert (kinetics, round(kinetics - alone)) == (78.8, 3) and "loses three points of 78.8 on Kinetics" in said
    assert (kitchens, round(kitchens - too)) == (43.7, 5) and "five of 43.7 (table 2)" in said
    assert [max(paper, key=lambda kind: paper[kind][data]) for data in (0, 1)] == [1, 2]
    assert "model 1 leads on Kinetics and model 2 on Epic Kitchens" in said
    macs = exercise("vivit.multiply_adds").solution
    one, three = ([macs(kind, frames // 2, 196, 768, 12, 4) for frames in (4, 8, 16, 32)] for kind in (1, 3))
    assert [a < b for a, b in zip(one, three, strict=True)] == [True, True, True, False]


def test_the_sizes(said):
    """Table 2's parameters in millions, and the orders of ours; what a class token has in them."""
    told, ours = (88.9, 115.1, 117.3, 88.9, 86.7), ({"model": 1}, {"model": 2}, {"model": 3}, {"model": 4},
                                                    {"model": 2, "temporal_depth": 0})  # fmt: skip
    large, small = ([cost(make(**sizes)) for sizes in ours] for make in (ViViTConfig.b16x2, ViViTConfig))
    assert all(abs(weights / 1e6 - million) < 0.1 for (weights, _), million in zip(large, told, strict=True))
    assert "table 2's to a tenth of a million: 88.9, 115.1, 117.3, 88.9 and 86.7." in said
    assert sorted(range(5), key=lambda k: small[k][1]) == sorted(range(5), key=lambda k: large[k][1])
    assert "By multiply-adds our small ones stand in the same order" in said
    assert max(range(5), key=lambda k: small[k][0]) == 1 and max(range(5), key=lambda k: large[k][0]) == 2
    assert "by parameters our model 2 is the largest, with two temporal layers beside four" in said
    assert "with them 88.954 million, without 88.952" in said
    assert [f"{large[k][0] / 1e6:.3f}" for k in (0, 3)] == ["88.954", "88.952"]


def test_four_models_and_two_bags(said):
    classes = [row["test"]["class"] for row in MODELS.values()]
    held = [row["held_out"]["class"] for row in MODELS.values()]
    assert (percent(min(classes)), max(classes)) == (98, 0.998) and "98 to 99.8 % of the classes" in said
    assert (percent(min(held)), percent(max(held))) == (95, 99) and "95 to 99 % on held-out films" in said
    bag = METRICS["bag of pairs"]
    assert percent(bag["test"]["class"]) == 99 and "the bag of pairs, with 99 %" in said
    assert [percent(row["held_out"]["class"]) for row in (bag, MODELS["model 2"])] == [99, 95]
    assert "ahead of model 2, with 99 % against 95" in said
    assert percent(METRICS["bag"]["test"]["pair"]) == 27 and percent(1 / len(order.PAIRS)) == 14
    assert "It has the pair in 27 %, where a guess among seven has 14" in said
    assert max(row["test"]["direction"] for row in MODELS.values()) >= 0.97
    right = round(METRICS["bag"]["test"]["direction"] * FILMS)
    low, high = wilson(right, FILMS)
    assert low < 0.5 < high and abs(right / FILMS - 0.5) < 0.03 and METRICS["bag"]["test"]["both ways"] == 0
    assert "The bag of frames has the direction at a coin, as it must" in said


def test_what_they_read(said):
    rows = METRICS["order of time"].values()
    assert max(row["moments turned"] for row in rows) < 0.01 and "fewer than one answer in a hundred turns" in said
    shuffled = [percent(row["shuffled"]) for row in rows]
    tubelets = [percent(row["tubelets turned"]) for row in rows]
    assert (min(shuffled), max(shuffled)) == (96, 99) and "96 to 99 % of the classes are still right" in said
    assert (min(tubelets), max(tubelets)) == (96, 99) and "96 to 99 % of the answers turn round" in said


def test_single_frames(said):
    four = {name: row for name, row in SINGLE.items() if name != ALIKE}
    assert min(row["test"]["direction"] for row in four.values()) >= 0.98
    assert "each tells at least 98 % of the films from their reverse" in said
    classes = {name: percent(row["test"]["class"]) for name, row in four.items()}
    assert classes == {"model 1": 88, "model 2": 98, "model 3": 98, "model 4": 78}
    assert "Models 3 and 2 have 98 % of the classes right, model 1 has 88, model 4 has 78" in said
    shares = sorted(row["test"]["class"] for row in four.values())
    (_, four_high), (one_low, one_high), (two_low, _) = (wilson(round(s * FILMS), FILMS) for s in shares[:3])
    assert four_high < one_low and one_high < two_low and "far wider than the intervals" in said
    losses = {step: loss for step, loss, _ in four["model 4"]["learnt"]}
    end = max(losses)
    assert (round(losses[0.8 * end], 2), round(losses[end], 2)) == (0.74, 0.52)
    assert "in the last fifth of its steps model 4's loss still fell from 0.74 to 0.52" in said
    assert experiment.APART == 0.3 and "(deviation 0.3)" in said
    assert percent(SINGLE[ALIKE]["test"]["class"]) == 67 and "67 % in place of 98" in said
    assert percent(SINGLE["model 2"]["macs"] / 1e8) == 61 and "by multiply-adds, 61 million a film" in said


def test_which_motions_have_a_direction(said):
    rows = [*MODELS.values(), *(SINGLE[f"model {k}"] for k in (1, 2, 3, 4))]
    assert min(of_kind(row, kind) for row in rows for kind in ("slides", "passes", "bounces")) > 0.97
    assert "Slides, walls and bounces are told by everybody" in said
    grows = {name: of_kind(row, "grows") for name, row in MODELS.items()}
    alone = {name: of_kind(row, "grows") for name, row in SINGLE.items() if name != ALIKE}
    assert min(grows, key=grows.get) == min(alone, key=alone.get) == "model 2"
    assert (percent(grows["model 2"]), percent(alone["model 2"])) == (89, 88)
    assert "with tubelets (89 %) as with single frames (88 %)" in said
    least = min(share for name, share in alone.items() if name != "model 2")
    assert f"on single frames the other three tell {least:.1%} or more".replace("%", " %") in said
    assert percent(of_kind(METRICS["bag of pairs"], "grows")) == 97 and "which tells 97 %" in said


def test_where_tubelets_start(said):
    starts = METRICS["starts"]
    four = [MODELS["model 4"], *(starts[name] for name in ("central frame", "inflated", "tubelets drawn anew"))]
    shares = sorted(row["test"]["class"] for row in four)
    assert (shares[0], shares[-1]) == (0.98, 0.991) and "between 98.0 and 99.1 % of the classes" in said
    assert max(starts[name]["test"]["class"] for name in ("central frame", "inflated")) < shares[2]
    (low, high), (least, _) = (wilson(round(share * FILMS), FILMS) for share in (shares[0], shares[-1]))
    assert least < high and "the intervals of all four touch" in said
    two = wilson(round(starts["central frame in Model 2"]["test"]["class"] * FILMS), FILMS)
    assert two[0] < MODELS["model 2"]["test"]["class"] < two[1] and "changes as little in the end" in said
    after = {kind: percent(row["learnt"][len(row["learnt"]) // 4][2])
             for kind, row in {**starts, **MODELS}.items()}
    assert [after[kind] for kind in ("central frame in Model 2", "model 2", "central frame", "model 4")] == [
        68, 83, 19, 29]
    assert "68 % of the films were right against 83 from nothing, and for model 4 19 against 29" in said
    frames = [percent(starts[name]["test"]["class"]) for name in ("uniform frames", "uniform frames from nothing")]
    assert frames == [34, 43] and "34 % of the classes after these steps, and from nothing 43" in said
    assert "model 4 has 98.0 to 99.1 % from four starts" in said and "model 4 has 78 and 34" in said


def test_what_turns(said):
    turns = METRICS["turns"]
    assert turns["test"]["pair"] > 0.99 and "An orbit is told from a spin in nearly every film" in said
    low, high = wilson(round(turns["test"]["direction"] * FILMS), FILMS)
    assert low < 0.5 < high and "which way it turns is told by a coin" in said
    assert f"The loss ends at {turns['learnt'][-1][1]:.2f}" in said


def test_reader_and_referee(said):
    sora = METRICS["sora"]
    assert sora["prompts"] == 100 and sora["true"]["both"] == 100
    assert sora["made"] == {"both": 95, "reader alone": 0, "referee alone": 5, "neither, the same": 0,
                            "neither, apart": 0}  # fmt: skip
    differ = sora["differ"]
    assert len(differ) == 5 and all(row["referee"] == row["asked"] for row in differ) and "There are five" in said
    slides = [row for row in differ if row["reader"] == "slides right"]
    assert len(slides) == 3 and all(row["asked"] == "shrinks" for row in slides)
    assert 'Three of the reader\'s five answers are "slides right" about something that shrinks' in said
    assert sum("moon" in row["text"] for row in slides) == 2 and "Look at the two moons" in said
    assert 0.94 < min(row["sure"] for row in differ) < 0.95 and "never less than 94 % sure" in said
    assert "agrees with 95 of the referee's hundred answers" in said
    assert "it never finds the motion where the referee does not" in said
