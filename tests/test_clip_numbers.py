"""Chapter 04's sentences with numbers are held to what the trainings and the measurements are set to."""

import inspect
import json
import math
import re
from pathlib import Path
from random import Random

from soralab.datasets import still_captions
from soralab.exercises import exercise
from soralab.experiments import clip_binding, clip_classifiers, clip_scores, clip_trainings
from soralab.files.checkpoints import read_card
from soralab.recipes import clip as recipe

ROOT = Path(__file__).resolve().parents[1]
CARD = read_card("clip")
BESIDE = [part for line in still_captions.TEMPLATES for part in line.split("{}") if part]  # a template's own words


def prose() -> str:
    cells = json.loads((ROOT / "notebooks" / "04_clip.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def default(function, argument: str):
    return inspect.signature(function).parameters[argument].default


def test_what_is_said_of_the_trainings_is_what_they_do():
    said = prose()
    assert default(recipe.short_run, "steps") == 150 and f"steps of {recipe.BATCH // 2} pairs" in said
    assert f"which of {recipe.PROBED} unseen texts" in said
    assert f"| batch | 32,768 | {CARD['batch']} |" in said and f"| {CARD['scenes']:,} frames, two grammars" in said
    passes = round(CARD["steps"] * CARD["batch"] / CARD["scenes"])
    assert passes == 8 and "about eight epochs" in said
    assert f"the same with decay {recipe.TRAINING.weight_decay}" in said
    supervised = clip_classifiers.SUPERVISED.steps
    assert f"{clip_classifiers.TRAIN_THINGS:,} frames of one thing on **black**, {supervised:,} steps of 128" in said
    assert CARD["steps"] == 2 * supervised and f"CLIP had {CARD['scenes']:,} frames on three backgrounds" in said
    assert len(still_captions.SEEN) == 3
    steps, scenes = clip_trainings.SHORT.steps, default(clip_trainings.short_runs, "scenes")
    assert f"what {steps} steps make of it" in said and f"our {scenes:,} frames, each shown twice" in said
    assert steps * 64 == 2 * scenes
    assert f"the shipped model {clip_binding.LONGER.steps} more steps" in said and len(clip_binding.SEEDS) == 3


def test_what_is_said_of_the_measures():
    said = prose()
    assert f"of {clip_scores.POOL} descriptive texts" in said and f"would have {1 / clip_scores.POOL:.1%}" == (
        "would have 0.4%") and "would have 0.4 %" in said
    assert f"{still_captions.CLASSES} classes, six shapes in eight colours" in said and still_captions.CLASSES == 6 * 8
    first, last = CARD["metrics"]["scale"][0][1], CARD["metrics"]["scale"][-1][1]
    assert first < last < 100  # "rises as the towers become surer", and never reaches the bound


def test_what_is_said_of_twins():
    """Of 512 short texts with dice of their own, the templates' too, about one in eight has a twin; of their meanings,
    more than a third."""
    library = [still_captions.sample(4, index) for index in range(1536)]
    found = [still_captions.short(scene, Random(index)) for index, scene in enumerate(library)]
    assert 0.11 < still_captions.share_of_twins(found, 512) < 0.14 and "about one in eight of 512 has a twin" in prose()
    bare = [re.sub("|".join(map(re.escape, BESIDE)), "", text) for text in found]
    assert 1 / 3 < still_captions.share_of_twins(bare, 512) < 0.45
    statement = " ".join(exercise("clip.loss_with_twins").statement.split())
    assert "Of 512 short texts more than a third mean the same as another" in statement


def test_what_is_worked_out_by_hand():
    said = prose()
    assert f"would get a share of about {math.e / (math.e + 255):.0%}".replace("%", " %") in said
    share = math.e / (math.e + 63)
    assert rf"e/(e + 63) \approx {share:.3f}$, a loss of {-math.log(share):.2f}" in said
    assert rf"\ln 64 \approx {math.log(64):.2f}" in said and rf"\approx {math.log(32_768):.1f}$" in said
    assert f"a factor of {1 / 0.07:.1f}" in said


def test_every_template_lies_inside_the_intervals_of_the_others():
    """As the committed picture of the prompts has it: no gain, the bare name's included."""
    cells = json.loads((ROOT / "notebooks" / "04_clip.ipynb").read_text(encoding="utf-8"))["cells"]
    cell, = (cell for cell in cells if 'title="Right among 48 classes"' in "".join(cell["source"]))
    bars = re.findall(r"([\d.]+) % \(([\d.]+)–([\d.]+)\)", "".join(cell["outputs"][0]["data"]["text/plain"]))
    shares, lows, highs = ([float(bar[k]) for bar in bars] for k in range(3))
    assert len(bars) == 2 + len(still_captions.TEMPLATES)
    assert max(lows) <= min(shares) and max(shares) <= min(highs)


def test_what_is_said_of_photographs():
    found = CARD["metrics"]["flickr8k"]
    hits = [round(found["pool"] * found["new"][way]) for way in ("text of picture", "picture of text")]
    assert (found["pool"], hits) == (60, [3, 2])
    assert "Of the 60 new photographs three find their text and two are found by it, where luck would" in prose()


def cell_of(start: str) -> tuple[str, str]:
    """A code cell of the page: its source and what it printed."""
    cells = json.loads((ROOT / "notebooks" / "04_clip.ipynb").read_text(encoding="utf-8"))["cells"]
    cell, = (cell for cell in cells if cell["id"].startswith(start))
    return "".join(cell["source"]), "".join(part for output in cell["outputs"] for part in output.get("text", ()))


def test_what_the_model_had_before_any_text_was_exchanged():
    own, after = (CARD["metrics"]["binding"]["colours"], CARD["metrics"]["exchanged texts"]["with exchanged texts"])
    assert default(clip_scores.binding, "count") == default(clip_binding.exchanged, "count") == 500
    assert f"the model had {own:.1%} of the same five hundred".replace("%", " %") in prose()
    assert sum(share < own for share in after["colours"]) == 1 and "One seed of three ends below that" in prose()
    assert f"the shipped model      colours {own:.1%}\n" in cell_of("d13771d4")[1]


def test_what_is_left_of_the_loss_without_twins():
    wrong, right = (float(loss) for loss in re.findall(r"loss ([\d.]+)", cell_of("0fdc2a01")[1]))
    assert f"Half of it: {right:.2f} of {wrong:.2f} are left" in prose() and 0.45 < right / wrong < 0.55


def test_what_is_said_of_three_ways_to_say_a_class():
    source, printed = cell_of("7502c381")
    ways = re.findall(r'"([^"]*)"', source.splitlines()[0])
    new = [way for way in ways if way not in still_captions.TEMPLATES]
    assert len(ways) == 3 and len(new) == 2 and "Two of these three were in no text of training" in prose()
    assert "a nice {}".format("a red circle") in prose() and "a nice {}" in new
    cells = json.loads((ROOT / "notebooks" / "04_clip.ipynb").read_text(encoding="utf-8"))["cells"]
    cell, = (cell for cell in cells if 'title="Right among 48 classes"' in "".join(cell["source"]))
    page, = re.findall(r"all templates averaged ([\d.]+) %", "".join(cell["outputs"][0]["data"]["text/plain"]))
    own, = re.findall(r"your ensemble: ([\d.]+)% of 1,000", printed)
    assert f"The page's templates reach {page} % of the same frames" in prose() and float(own) < float(page)
