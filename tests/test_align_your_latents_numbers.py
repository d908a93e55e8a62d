"""Chapter 10's sentences with numbers are held to the cards of its checkpoints, and to the recipe."""

import json
import re
from pathlib import Path

from soralab.blocks.convolution import ResBlock
from soralab.datasets.frames import FRAMES
from soralab.experiments import align_your_latents_joined as joined
from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.latent_diffusion import UNet
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
    assert recipe.COARSE == 3 / 5 and len(range(0, FRAMES, recipe.EVERY)) == 5 and recipe.TIMES[0] >= 0.5
    assert recipe.COARSE_BATCH == 28 and recipe.EVERY == 2
    assert "In the first three fifths of the steps they are twenty-eight films of every second frame" in said
    assert DECODER["steps"] == recipe.DECODER_TRAINING.steps and DECODER["metrics"]["jitter"] == recipe.JITTER
    assert joined.TUNING.steps == 300 and "a few minutes" in said
    assert set(METRICS["alpha"]) - {"step"} and all(abs(values[0] - 0.5) < 0.02
                                                    for name, values in METRICS["alpha"].items() if name != "step")
    assert "all begin at one half" in said
    assert [0, FRAMES // 2, FRAMES - 1] == [0, 4, 8] and "frames 0, 4 and 8 of one film after 10, 30 and 100" in said
    assert recipe.SIDE == 32 and "ours stay at 32 × 32" in said


def test_what_is_right_and_what_is_not():
    said, test, alone = prose(), METRICS["test"], METRICS["painter alone"]
    motions = {name: right / films for name, (right, films) in test["motions"].items()}
    assert 0.4 < test["motions"]["slides"][1] / test["films"] < 0.6 and "Slides are half of all films" in said
    assert round(10 * motions["slides"]) == 9 <= 10 * motions["stays still"] and "nine in ten of them are right" in said
    assert min(motions["slides"], motions["stays still"]) > 0.85 > max(
        share for name, share in motions.items() if name not in ("slides", "stays still")
    )
    assert motions["spins"] == motions["orbits"] == 0
    assert "What spins, or goes round a circle, is right in none of the test films" in said
    assert test["motions"]["passes behind a wall"] == [1, 11] and "what passes behind a wall in one of eleven" in said
    assert round(10 * alone["frames"]) == 9 and "of whose single frames nine in ten are right" in said
    assert abs(test["frames"] - alone["frames"]) <= 0.02
    assert "Single frames stay within two points of the painter's own" in said
    assert alone["all"] < 0.02 < test["all"]
    new = METRICS["held_out"]
    assert wilson(round(new["all"] * new["films"]), new["films"])[1] > test["all"]
    assert "Combinations that no training film had are filmed no worse than others" in said


def test_what_is_left_of_the_painter():
    ends = {name: values[-1] for name, values in METRICS["alpha"].items() if name != "step"}
    painter = UNet(recipe.PICTURES.unet)
    kinds = {name: isinstance(layer, ResBlock) for name, layer, *_ in painter.layers()}
    assert set(kinds) == set(ends)
    attention, convolution = ([ends[name] for name in ends if kinds[name] == kind] for kind in (False, True))
    new = [1 - sum(part) / len(part) for part in (attention, convolution)]
    assert new[0] < 0.2 and "In the end little is let in of what attention over time adds" in prose()
    assert 2 < new[1] / new[0] < 3 and "and two to three times as much of the convolutions'" in prose()
    assert all(kinds[name] != name.endswith("_1") for name in kinds)  # as the figure draws them


def test_how_alpha_goes_there():
    said, steps = prose(), METRICS["alpha"]["step"]
    lines = {name: values for name, values in METRICS["alpha"].items() if name != "step"}
    falling = [values for values in lines.values() if values[1] < values[0]]
    assert (len(falling), len(lines)) == (12, 15) and f"{min(map(min, falling)):.2f}" == "0.40"
    assert all(values[-1] > values[0] > values[1] == min(values) for values in falling)
    assert "Twelve of the fifteen lines fall first, to 0.40 at the lowest" in said
    coarse = int(recipe.COARSE * recipe.TRAINING.steps)
    k = next(k for k, step in enumerate(steps) if step > coarse)
    rises = {name: values[k] - values[k - 1] for name, values in lines.items()}
    jump = [name for name, rise in rises.items() if rise > 0.03]
    assert len(jump) == 2 and all(name.endswith("_1") and lines[name][k - 1] - lines[name][k - 2] < 0.005
                                  for name in jump)  # fmt: skip
    assert coarse == 1800 and "Two lines of attention jump at step 1,800" in said


def test_what_given_frames_bring():
    said, table = prose(), METRICS["prediction"]
    few, more = (round(table["films"] * table[key]["motion"]) for key in ("0", "2"))
    assert (few, more, table["films"]) == (21, 24, 30)
    assert "with nothing given 21 of 30 films move as they should, with two frames 24" in said
    assert wilson(few, 30)[1] > wilson(more, 30)[0] and "so few films show no difference" in said
    assert abs(table["2"]["psnr"] - table["repeated"]["psnr"]) < 0.5
    assert "hardly nearer to the true ones than a still picture would" in said
    louder = table["guidance"]["2"]
    assert round(louder["psnr"] - table["2"]["psnr"]) == 3 and "they are nearer by three decibels" in said
    assert louder["all"] <= table["2"]["all"] and "and no more often right" in said


def test_between_frames_the_mean_is_nearer():
    said, table = prose(), METRICS["between"]
    assert round(table["mean"]["psnr"] - table["filmed"]["psnr"]) == 7
    assert "The mean is nearer to the truth, by seven decibels" in said
    assert table["films"] == 30 and "no difference that thirty films could show" in said
    right = [wilson(round(30 * table[name]["all"]), 30) for name in ("filmed", "mean")]
    assert max(low for low, _ in right) < min(high for _, high in right)
    assert table["filmed"]["motion"] > 0.9 and "What was filmed goes the right way" in said


def test_what_the_decoder_mends():
    said, own = prose(), METRICS["flicker"]
    pictures, in_time = (DECODER["metrics"][name] for name in ("pictures", "in time"))
    assert in_time["flicker"] / pictures["flicker"] > 0.95 and "Where latents are true, there is little to mend" in said
    assert round(1 / (1 - in_time["jittered flicker"] / pictures["jittered flicker"])) == 6
    assert "a sixth of the flicker goes" in said
    assert round(100 * (1 - own["in time"] / own["pictures"])) == 3
    assert "Of the model's own flicker three parts in a hundred go" in said


def test_behind_another_painter():
    said, table = prose(), METRICS["colours"]
    assert table["joined"]["colour"] > 0.9 > 0.1 > table["before"]["colour"] and table["painter alone"]["all"] < 0.05
    assert round(10 * table["joined"]["all"]) == 4 and round(10 * METRICS["prediction"]["0"]["all"]) == 7
    assert table["films"] == METRICS["prediction"]["films"]  # of the same prompts
    assert "all is right in four films of ten" in said and "asked by its own names, have seven" in said


def test_digits_slide_behind_a_tuned_painter_and_behind_no_stranger():
    said, table = prose(), METRICS["mnist"]
    assert table["films"] == 40 and round(40 * table["joined"]["went"]) == 39
    assert "Of forty films of digits thirty-nine slide as they were asked to" in said
    assert table["painter alone"]["went"] < 0.1 and table["joined"]["read"] > 0.5 > 0.15 > table["chapter 06's"]["read"]
    assert table["chapter 06's"]["went"] < 0.1 and "nothing moves and nothing can be read" in said
    assert table["joined"]["read"] < table["painter alone"]["read"] and "Fewer are read than without them" in said
    assert joined.FAR == 2 and "by two pixels or more" in said
