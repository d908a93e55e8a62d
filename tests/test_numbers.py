"""The numbers that README.md shows are those of the committed cards."""

import json
import re
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from soralab.experiments.sora_scores import card_counts, card_motions, card_right, card_table, prompts
from soralab.figures import wilson
from soralab.files.checkpoints import CHECKPOINTS, read_card
from soralab.recipes.sora import LATE, RECIPES
from soralab.sora import Sora

ROOT = Path(__file__).resolve().parents[1]


def between(text: str, name: str) -> str:
    return re.search(rf"<!-- numbers: {name} -->(.*?)<!-- /numbers: {name} -->", text, re.S).group(1)


def test_readme_shows_the_cards_scores():
    shown = between((ROOT / "README.md").read_text(encoding="utf-8"), "sora")
    assert card_table() in shown and card_motions() in shown


def chapter_16() -> dict:
    return json.loads((ROOT / "notebooks" / "16_sora.ipynb").read_text(encoding="utf-8"))


def test_the_sentences_of_chapter_16_are_the_cards():
    """Numbers in its prose: a new training could make one of them untrue."""
    cells = chapter_16()["cells"]
    prose = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    card, pixels = read_card("sora"), read_card("sora_pixels")
    slides, of = pixels["metrics"]["test"]["motions"]["slides"]
    turning = [pixels["metrics"]["test"]["motions"][motion] for motion in ("spins", "orbits")]
    right, turn = map(sum, zip(*turning, strict=True))
    cross, held = card_right("sora", "test", "cross"), card_right("sora", "held_out", "cross")
    orbits = card_right("sora", "held_out", "cross", "orbits")
    steps = RECIPES["sora"].training.steps
    thousands = pixels["steps"] * pixels["batch"] // 1000
    assert orbits[0] == 0
    for said in (
        f"in {slides} of the {of} films that should slide, and in {right} of the {turn} that should turn",
        "{} of {} are right in the test set, {} of {} of the held-out ones, and of the {} held-out crosses".format(
            *cross, *held, orbits[1]),
        f"through {thousands},000 films, and ours in 260 through {card['steps'] * card['batch'] / 1e6:.2f} million",
        f"in the last {steps - round(LATE * steps):,} of the shipped model's {card['steps']:,} steps",
        f"6 M, {multiply_adds() / 1e9:.2f} billion a pass",
    ):
        assert said in prose, said


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
    motions, = shown("card_motions(")
    for name, label in (("sora", "latents"), ("sora_pixels", "pixels")):
        for split in ("test", "held_out"):
            for column, (right, films) in card_counts(name, split).items():
                low, high = wilson(right, films)
                assert f"{label} {column} {right / films:.1%}".replace("%", " %") in bars
                assert f"({100 * low:.1f}–{100 * high:.1f})" in bars
                assert re.search(rf"{name} +{split} .*?{column} +{right / films:.1%}", table)
    for split in ("test", "held_out"):
        assert f"{split}: {card_motions('sora', split)}" in motions


def test_readme_shows_the_first_test_films():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    alt, target = re.search(r"!\[(.*?)\]\((data/films\.png)\)", text).groups()
    assert all(said in alt for said in prompts("test", 8)[0])
    assert (ROOT / target).stat().st_size < 500_000


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
