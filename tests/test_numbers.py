"""The numbers that README.md shows are those of the committed cards."""

import json
import math
import re
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from soralab.experiments.sora_scores import card_counts, card_motions, card_right, card_table, prompts
from soralab.figures import wilson
from soralab.files.checkpoints import CHECKPOINTS, read_card
from soralab.recipes.sora import FILMS, HARD, LATE, LEVEL, RECIPES, hard, prompt, used
from soralab.sora import Sora
from soralab.world.language import descriptive_caption
from soralab.world.render import PALETTE
from soralab.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

ROOT = Path(__file__).resolve().parents[1]


def between(text: str, name: str) -> str:
    return re.search(rf"<!-- numbers: {name} -->(.*?)<!-- /numbers: {name} -->", text, re.S).group(1)


def test_readme_shows_the_cards_scores():
    shown = between((ROOT / "README.md").read_text(encoding="utf-8"), "sora")
    assert card_table() in shown and card_motions() in shown


def notebook(name: str) -> dict:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def chapter_16() -> dict:
    return notebook("16_sora")


def prose_of(name: str) -> str:
    cells = notebook(name)["cells"]
    return "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])


def prose_16() -> str:
    return prose_of("16_sora")


def test_the_sentences_of_chapter_16_are_the_cards():
    """Numbers in its prose: a new training could make one of them untrue."""
    prose = prose_16()
    card, pixels = read_card("sora"), read_card("sora_pixels")
    slides, of = pixels["metrics"]["test"]["motions"]["slides"]
    turning = [pixels["metrics"]["test"]["motions"][motion] for motion in ("spins", "orbits")]
    right, turn = map(sum, zip(*turning, strict=True))
    cross, held = card_right("sora", "test", "cross"), card_right("sora", "held_out", "cross")
    orbits = card_right("sora", "held_out", "cross", "orbits")
    squares, crosses = (map(sum, zip(*(card_right("sora", split, shape, "spins") for split in ("test", "held_out")),
                                     strict=True)) for shape in ("square", "cross"))
    first, second = (len(set(prompts(split, 400)[0])) for split in ("test", "held_out"))
    steps = RECIPES["sora"].training.steps
    thousands = pixels["steps"] * pixels["batch"] // 1000
    assert orbits[0] == 0 and round(card["seconds"] / 900) == 4 * 4 + 3
    assert {round(10 * pixels["metrics"][split]["shape"]) for split in ("test", "held_out")} == {9}
    for said in (
        "four and three quarter hours on one core",
        "and the shape in nine films of ten",
        f"The first are {first} different sentences, and",
        f"The second are {second}, and",
        f"and {read_card('sora_autoencoder')['seconds'] / 60:.0f} more for the autoencoder",
        "{} of the card's {} squares that spin are right, and {} of its {} crosses".format(*squares, *crosses),
        f"in {slides} of the {of} films that should slide, and in {right} of the {turn} that should spin or orbit",
        "{} of {} are right in the test set, {} of {} of the held-out ones, and of the {} held-out crosses".format(
            *cross, *held, orbits[1]),
        f"in its {pixels['seconds'] / 60:.0f} minutes it got through {thousands},000 films, and ours in "
        f"{card['seconds'] / 60:.0f} through {card['steps'] * card['batch'] / 1e6:.2f} million",
        f"a gap of time: {pixels['seconds'] / 60:.0f} minutes against {card['seconds'] / 60:.0f}, and",
        f"in the last {steps - round(LATE * steps):,} of the shipped model's {card['steps']:,} steps",
        f"6 M, {multiply_adds() / 1e9:.2f} billion a pass",
    ):
        assert said in prose, said


def test_the_sizes_that_chapters_00_and_16_speak_of_are_the_models():
    config, pixels = (RECIPES[name].config for name in ("sora", "sora_pixels"))
    values = [c.channels * math.prod(c.patch) for c in (pixels, config)]
    film, latents = (math.prod(c.size) * c.channels for c in (pixels, config))
    for said in (
        f"A film is {tokens('sora_pixels')} tokens of {values[0]} numbers there, and {tokens('sora')} tokens of "
        f"{values[1]} here",
        f"its patch has {values[0]} numbers and the transformer is {pixels.dim} wide",
        f"30 dB is a root mean square error of {10 ** (2 - 30 / 20):.0f} % of the range",
        f"37 dB of {10 ** (2 - 37 / 20):.1f} %",
    ):
        assert said in prose_16(), said
    size = math.prod(pixels.size)
    for said in (
        f"The film above has {film:,} numbers and the model works on {latents:,}",
        f"that would be {size:,} tokens and {size**2 / 1e6:.0f} million comparisons",
        f"With {tokens('sora')} tokens it is {tokens('sora') ** 2:,}",
    ):
        assert said in prose_of("00_road_to_sora"), said
    assert 0.9 <= 1 - latents / film < 0.91 and "Ninety per cent are gone" in prose_of("00_road_to_sora")
    assert (len(SHAPES), len(COLOURS), len(MOTIONS), len(BACKGROUNDS)) == (6, 8, 15, 4)
    assert "six shapes in eight colours that move in fifteen ways, over four backgrounds" in prose_of("00_road_to_sora")
    x = torch.linspace(-10, 10, 10_001, dtype=torch.float64)
    assert (F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max() < 0.001  # "the two differ by less than 0.001"


def test_the_refused_films_that_chapter_00_explains_are_the_cards():
    """Its fold tells what is wrong with each of four films; a new training would refuse others."""
    wrong = read_card("sora")["metrics"]["test"]["wrong"][:4]
    refused = [prompts("test", wrong[-1] + 1)[0][k] for k in wrong]
    assert refused == ["a large green square spins", "a small yellow ring bounces", "a small pink cross bounces",
                       "a medium white ring orbits"]
    assert "It can name no shape in the first three, and no motion in the fourth." in prose_of("00_road_to_sora")


def test_what_chapter_16_says_of_its_training_is_its_recipe():
    prose, shares = prose_16(), [len(list(used(range(k, k + 4800)))) / 4800 for k in (0, 100_000, 250_000)]
    assert abs(sum(shares) / 3 * FILMS - 70_000) < 2500
    assert f"about 70,000 films drawn by code: of {FILMS:,} all that orbit or spin" in prose
    assert abs(20 * len(list(hard(range(FILMS, FILMS + FILMS // 10)))) - 20_000) < 2500
    assert "half of these squares, a quarter triangles, a quarter crosses" in prose and "20,000 harder ones" in prose
    assert HARD == {"square": 1, "triangle": 2, "cross": 2}
    assert "one prompt in ten is left out (at the end one in twenty)" in prose
    assert "three times in ten at length" in prose
    scene, rng = prompts("test", 1)[1][0], Random(0)
    said = [prompt(scene, rng) for _ in range(4000)]
    assert abs(said.count("") / 4000 - 0.1) < 0.02
    assert abs(said.count(descriptive_caption(scene)) / 4000 - 0.3) < 0.03


def test_what_chapter_16_reads_from_its_outputs_is_there():
    """Sentences about outputs that nbval does not compare, since they take too long or hang on the machine."""
    prose = prose_16()
    bars, = shown("counted = by_profile")
    right = {int(s): float(share) for s, share in re.findall(r"s = (\d) ([\d.]+) %", bars)}
    assert right[1] < 50 < min(right[2], right[3]) and right[8] < 25 and set(right) == {1, 2, 3, 8}
    assert "fewer than half are right. At 2 or 3 most are" in prose and "At 8 it breaks" in prose
    errors, = shown('print("       best    ours")')
    best, ours = map(float, re.search(r"t = 0.6 +([\d.]+) +([\d.]+)", errors).groups())
    assert 25 < ours / best < 37 and "some thirty times that of one who knows" in prose
    sizes, = shown("(9, 64, 64)")
    assert re.findall(r"right (\d) of 3", sizes) == ["3", "0", "0", "0"]
    assert "None that was not trained comes out right" in prose


def test_the_guide_to_chapter_16_says_what_the_cards_say():
    guide = (ROOT / "notebooks" / "sessions" / "16_sora.md").read_text(encoding="utf-8")
    card = read_card("sora_autoencoder")
    spins = card["metrics"]["spins"]
    right, films = map(sum, zip(*spins.values(), strict=True))
    assert films >= 400 and spins["square"][0] == spins["square"][1]
    for said in (
        f"Of its copies of {films} true films that spin, {right} are right in everything: all {spins['square'][0]} "
        f"squares, {spins['cross'][0]} of {spins['cross'][1]} crosses",
        f"The autoencoder's own {card['seconds'] / 60:.0f} minutes",
        f"There are {tokens('sora_pixels')} against {tokens('sora')}",
        f"one pass: {multiply_adds() / 1e9:.2f} billion multiply-adds",
    ):
        assert said in guide, said


def tokens(name: str) -> int:
    """How many patches a film of a model has."""
    config = RECIPES[name].config
    return math.prod(side // patch for side, patch in zip(config.size, config.patch, strict=True))


def multiply_adds() -> float:
    """Of one pass of chapter 16's transformer over a film, with a prompt of eight words."""
    with torch.device("meta"):
        model, z, t, ids = (Sora(RECIPES["sora"].config), torch.empty(1, 5, 8, 8, 8), torch.empty(1),
                            torch.empty(1, 8, dtype=torch.long))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(z, t, ids)
    return counter.get_total_flops() / 2


def shown(text: str) -> list[str]:
    """What chapter 16's outputs hold of a text: the outputs of the cells whose code has it, as one text each."""
    return [json.dumps(cell["outputs"], ensure_ascii=False) for cell in chapter_16()["cells"]
            if cell["cell_type"] == "code" and text in "".join(cell["source"])]


def test_the_numbers_that_chapter_16_reads_from_a_card_are_the_cards():
    """Also where nbval compares nothing: a falsified output is found."""
    bars, = shown("card_counts(")
    table, = shown('row = read_card(name)')
    motions, = shown("card_right(")
    for name, label in (("sora", "latents"), ("sora_pixels", "pixels")):
        for split, which in (("test", ""), ("held_out", ", held out")):
            for column, (right, films) in card_counts(name, split).items():
                low, high = wilson(right, films)
                said = f"{label}{which} {column} {100 * right / films:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
                assert (said in bars) == (column in ("motion", "shape", "all"))
                assert re.search(rf"{name} +{split} .*?{column} +{right / films:.1%}", table)
    for split in ("test", "held_out"):
        for motion, (right, films) in read_card("sora")["metrics"][split]["motions"].items():
            assert re.search(rf"{motion} +{right} of +{films}\b", motions), (split, motion)


def test_readme_shows_the_first_test_films():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    alt, target = re.search(r"!\[(.*?)\]\((data/films\.png)\)", text).groups()
    assert all(said in alt for said in prompts("test", 8)[0])
    assert (ROOT / target).stat().st_size < 500_000


def test_readme_leads_to_the_same_films_as_still_frames():
    """One strip a prompt, in their order: in its row the picture has the colour that the prompt names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    target, = re.findall(r"\[frame by frame\]\((data/films_frames\.png)\)", text)
    with Image.open(ROOT / target) as still, Image.open(ROOT / "data" / "films.png") as playing:
        assert getattr(still, "n_frames", 1) == 1 and playing.n_frames >= 9
        pixels = np.asarray(still.convert("RGB")).astype(float)
    rows = np.array_split(pixels[20:], 8)
    for text, row in zip(prompts("test", 8)[0], rows, strict=True):
        colour = next(name for name in PALETTE if name in text.split())
        near = np.abs(row - np.array(PALETTE[colour])).max(-1) < 40
        assert near.sum() > 100, text


def test_cards_say_how_they_were_made():
    cards = sorted(CHECKPOINTS.glob("*.json"))
    assert len(cards) >= 3
    for path in cards:
        card = read_card(path.stem)
        missing = {"config", "data_seed", "steps", "seconds", "hardware", "metrics", "sha256", "command"} - card.keys()
        assert not missing, (path.name, missing)
        assert card["command"] == f"soralab train {path.stem}"


def test_the_shipped_models_are_their_recipes():
    for name, chosen in RECIPES.items():
        card = read_card(name)
        assert (card["kind"], card["shift"], card["autoencoder"]) == (chosen.kind, chosen.shift, chosen.autoencoder)
        assert card["level"] == LEVEL


GOALS = {"test": 0.97, "held_out": 0.95}  # of everything right, for the next model


def test_the_shipped_film_model_is_as_good_as_the_course_needs_it():
    """By the card; `soralab evaluate sora` measures it again. The goals are not reached yet, and README says so."""
    test, held_out = (read_card("sora")["metrics"][split] for split in GOALS)
    assert test["films"] == held_out["films"] == 400
    for column, least in {"colour": 0.99, "motion": 0.97, "shape": 0.93, "all": 0.90}.items():
        assert test[column] >= least, column
    assert held_out["all"] >= 0.828  # the lower end of the interval of 346 in 400
    if test["all"] < GOALS["test"] or held_out["all"] < GOALS["held_out"]:
        said = between((ROOT / "README.md").read_text(encoding="utf-8"), "sora")
        assert "The next model shall reach {:.0f} and {:.0f}.".format(*(100 * goal for goal in GOALS.values())) in said
        fell = [100 * (old - now["all"]) for old, now in ((0.9725, test), (0.96, held_out))]
        assert "strictness took {:.1f} and {:.1f} points".format(*fell) in said


def test_checkpoints_stay_small():
    assert sum(path.stat().st_size for path in CHECKPOINTS.iterdir()) < 60e6
