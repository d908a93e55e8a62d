"""Chapter 09's sentences with numbers are held to its recipe."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from soralab.experiments import imagen_video as experiment
from soralab.experiments import imagen_video_ablations as ablations
from soralab.figures.curves import wilson
from soralab.files.checkpoints import read_card
from soralab.imagen_video import PAPER
from soralab.recipes import imagen_video as recipe
from soralab.world.language import VOCABULARY

ROOT = Path(__file__).resolve().parents[1]
METRICS = read_card("imagen_student")["metrics"]


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
    films = recipe.SHORT_BATCH * recipe.COARSE_BATCH // recipe.BATCH
    assert recipe.COARSE == 0.5 and f"of {films} films each only the first, the middle and the last frame" in said
    assert recipe.SHORT_STEPS == 300 and "Three hundred steps" in said
    band = json.loads((ROOT / "data" / "bands" / "imagen_video.json").read_text(encoding="utf-8"))
    assert math.exp(band["mean"][0]) == pytest.approx(0.4, abs=0.05) and "starts near 0.4" in said
    assert recipe.WINDOW == 5 and "trained on windows of five frames, used on nine" in said
    assert experiment.STEPS[0] == 32 and recipe.HALVINGS[-1] == 4 and "base's 32 guided steps" in said
    assert recipe.GUIDANCE == 2 and "of the base, four steps, scale 2" in said
    assert ablations.TWIN.steps == 300 and "trained for 300 steps more" in said
    assert (ablations.SHORT.steps, len(ablations.SEEDS)) == (150, 2) and "after 150 steps with pictures" in said
    assert len(VOCABULARY) // 10 * 10 == 120 and "our language is 120 words" in said


@pytest.mark.parametrize("name", recipe.CONFIGS)
def test_what_is_shipped_is_of_the_recipe_s_sizes(name):
    """And the last stage alone gives the film."""
    shipped = read_card(name)
    assert shipped["config"] == json.loads(json.dumps(asdict(recipe.CONFIGS[name])))
    assert shipped["config"]["clean"] == (name == recipe.SPACE) and shipped["steps"] == recipe.TRAININGS[name].steps


def test_the_paper_is_what_the_page_says():
    said = prose()
    (first, width, height, _), *_, (last, wide, high, _) = (sizes for sizes, _ in PAPER)
    assert f"{first} × {height} × {width} to {last} × {high} × {wide}" in said
    assert len(PAPER) == 7 and sum(weights for _, weights in PAPER) == pytest.approx(11.6e9, rel=0.005)
    assert "seven, 11.6 billion weights" in said
    assert 3 * last * wide * high == pytest.approx(380e6, rel=0.01) and "380 million numbers" in said
    assert sum(a[0] != b[0] for (a, _), (b, _) in zip(PAPER, PAPER[1:], strict=False)) == 3 and "three for time" in said


def test_the_sum_by_hand():
    said, (alpha, sigma) = prose(), (math.cos(math.pi / 3), math.sin(math.pi / 3))  # t = 2/3
    z, v, x = alpha, -sigma, alpha * alpha + sigma  # of a pixel of 1 without noise; of an answer of -1
    assert (round(alpha, 9), round(z, 9)) == (0.5, 0.5) and sigma == pytest.approx(3**0.5 / 2) and "$z = 1/2$" in said
    assert f"\\approx {v:.2f}$" in said and f"\\approx {x:.2f}$, so $q \\approx {x:.2f}$" in said


def test_the_guide_says_the_same_sizes():
    said = prose("notebooks/sessions/09_imagen_video.md")
    assert "five frames of 8 × 8 pixels" in said and "5 x 8 x 8" in said and "9 x 32 x 32" in said
    calls, steps = 2 * experiment.STEPS[0], recipe.HALVINGS[-1]
    assert (calls, steps) == (64, 4) and "sixty-four calls of a network become four" in said
    row = re.search(r"low +((?:\d +)+\d)", said).group(1).split()
    assert row == ["1", "1", "2", "2", "3", "3", "4", "4", "5"]


def per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def test_what_each_stage_loses():
    said, teacher, true = prose(), METRICS["pair"]["teacher"], METRICS["true"]
    base, time, space = (f"{100 * teacher[stage]['motion']:.1f}" for stage in ("base", "time", "space"))
    small, nine, whole = (true[size]["motion"] for size in ("5x8x8", "9x8x8", "9x32x32"))
    assert f"Of true films {per_cent(small)} can be read at the base's size, {per_cent(nine)} with nine" in said
    assert whole == 1 and "all at 32 × 32" in said and f"Of made ones it is {base}, {time} and {space} %" in said
    assert (METRICS["few"], METRICS["films"]) == (60, 200) and "of sixty films, the others of two hundred" in said
    assert f"is right in {100 * teacher['space']['shape']:.1f} % of its films" in said
    assert teacher["base"]["shape"] == true["5x8x8"]["shape"] == 0


def test_the_exposure_gap():
    said, table = prose(), METRICS["exposure"]
    true, made = table["0.1"]["true"], table["0.1"]["made"]
    assert f"makes {per_cent(true['all'])} right in everything; given made ones, {per_cent(made['all'])}" in said
    assert f"from {per_cent(true['shape'])} to {per_cent(made['shape'])}, and no stage before" in said
    none, most = table["0"], table["0.45"]
    assert "from level 0 to 0.45 what is right in everything falls from " in said
    for kind, ending in (("made", " of the made films"), ("true", " of the true ones")):
        assert f"from {per_cent(none[kind]['all'])} to {per_cent(most[kind]['all'])}{ending}" in said
    assert [min(row[kind]["all"] for row in table.values()) for kind in ("made", "true")] == [
        most[kind]["all"] for kind in ("made", "true")]  # fmt: skip
    for kind in ("made", "true"):
        (low, high), (least, top) = (wilson(round(METRICS["few"] * row[kind]["all"]), METRICS["few"])
                                     for row in (none, table["0.1"]))  # fmt: skip
        assert max(low, least) < min(high, top) and "Below 0.1 sixty films cannot tell" in said


def test_words_and_steps_of_the_last_stage():
    said, words, steps = prose(), METRICS["words"], METRICS["space steps"]
    told, none, another = (per_cent(words[kind]["all"]) for kind in ("prompt", "none", "another"))
    assert f"with the prompt {told} are right, without it {none}, with another's {another}" in said
    assert words["none"]["colour"] == 1 and f"and in {per_cent(words['another']['colour'])} with another's" in said
    one, four, sixteen = (per_cent(steps[count]["all"]) for count in ("1", "4", "16"))
    assert f"one step makes {one} right, four {four}, sixteen {sixteen}" in said


def test_scales_of_guidance():
    said, table = prose(), METRICS["guidance"]
    one, two, eight, turns = (table[name] for name in ("1", "2", "8", "by turns"))
    assert (f"{per_cent(one['motion'])} are right without it, at scale 1, and {per_cent(two['motion'])} at scale "
            f"2. At 8 there are {per_cent(eight['motion'])}, and in {per_cent(1 - eight['count'])} the referee") in said
    assert f"it is {per_cent(turns['motion'])}, and {per_cent(turns['count'])} are one thing" in said
    assert f"without any threshold {per_cent(table['no threshold']['far'])} of the values leave the range" in said
    close = [table[name]["motion"] for name in ("8", "clipped", "no threshold")]
    assert max(close) - min(close) < 0.17 and min(close) == close[0] and "stands last of the three ways" in said


def test_noise_in_training():
    said, twins, films = prose(), METRICS["twins"], METRICS["few"]
    noise, none = twins["noise"]["0.1"], twins["no noise"]["0"]
    assert f"equal, {per_cent(noise['true']['all'])} and {per_cent(none['true']['all'])} right" in said
    with_noise, without = (round(films * one["made"]["all"]) for one in (noise, none))
    assert f"with noise has {with_noise} of {films} right, the other {without}." in said and with_noise > without


def test_what_the_student_saves_and_loses():
    said, table, cost = prose(), METRICS["distilled"], METRICS["seconds"]
    assert abs(table["teacher"]["4"]["all"] - table["teacher"]["32"]["all"]) < 0.02
    rows = [row["all"] for kind in table.values() for row in kind.values()]
    assert max(rows) - min(rows) < 0.08 and "by more than sixty films can tell" in said
    teacher, student = (METRICS["pair"][who]["space"] for who in ("teacher", "student"))
    assert f"right in {100 * student['all']:.1f} %, the teacher's in {100 * teacher['all']:.1f}: " in said
    assert f"{100 * (teacher['all'] - student['all']):.1f} points" in said and METRICS["films"] == 200
    assert f"its motions in {100 * student['motion']:.1f} for {100 * teacher['motion']:.1f}." in said
    after = cost["time"] + cost["space"]
    assert f"the student is {cost['base'] / cost['student']:.0f} times as quick" in said
    assert f"a whole film {(cost['base'] + after) / (cost['student'] + after):.1f} times" in said


def test_pictures_beside_films():
    said, both, films = prose(), METRICS["joint"]["with pictures"], METRICS["joint"]["films alone"]
    assert max(both["films"]) < min(films["films"]) and max(both["pictures"]) < min(films["pictures"])
    with_them, without = (sum(row["films"]) / len(row["films"]) for row in (both, films))
    assert f"on films too: {with_them:.3f} against {without:.3f}, the means of two seeds" in said
    assert max(max(row["films"]) - min(row["films"]) for row in (both, films)) < 0.003
