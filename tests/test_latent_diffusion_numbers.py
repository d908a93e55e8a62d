"""Chapter 06's sentences with numbers, in the notebook and in the leader's guide, are those of card and code."""

import inspect
import json
from pathlib import Path

import pytest
import torch

from soralab.datasets import stills
from soralab.diffusion import ScaledLinearBeta
from soralab.experiments.latent_diffusion_digits import MNIST_FIRST, MNIST_TRAINING, mnist_digits
from soralab.experiments.latent_diffusion_relation import LED_UNTIL, told
from soralab.experiments.latent_diffusion_scores import floor
from soralab.experiments.latent_diffusion_trade_off import CODES, TRADE_BATCH, TRADE_FIRST, TRADE_TRAINING
from soralab.figures import wilson
from soralab.files.checkpoints import read_card
from soralab.latent_diffusion import load_autoencoder
from soralab.recipes.latent_diffusion import PICTURES, SEED

ROOT = Path(__file__).resolve().parents[1]
BOOK = json.loads((ROOT / "notebooks" / "06_latent_diffusion.ipynb").read_text(encoding="utf-8"))
PROSE = "\n".join("".join(cell["source"]) for cell in BOOK["cells"] if cell["cell_type"] == "markdown")
GUIDE = (ROOT / "notebooks" / "sessions" / "06_latent_diffusion.md").read_text(encoding="utf-8")
METRICS = read_card("latent_diffusion")["metrics"]


def test_what_is_said_of_real_digits():
    read, count = METRICS["mnist"], inspect.signature(mnist_digits).parameters["count"].default
    assert count == 500 and "Five hundred of each were read" in PROSE
    assert f"{100 * read['copies']:.1f} % of the copies are right, and {100 * read['true']:.1f} % of the true" in PROSE
    without, led = (read[f"guidance {scale}"] for scale in (1, 3))
    assert f"it is {100 * without:.0f} % without guidance and {100 * led:.0f} % at a scale of 3" in PROSE
    assert wilson(round(count * without), count)[1] < wilson(round(count * led), count)[0]


def test_what_is_said_of_two_things():
    rows = {name: row for name, row in METRICS["scores"].items() if name.endswith("2")}
    assert all(row["binding"] == 0 for row in rows.values()) and 'binding" is 0' in PROSE
    assert all(0.17 < 1 - row["count"] < 0.24 for row in rows.values())  # "about a fifth"
    assert all(METRICS["scores"][f"{split}, 1"]["all"] > 0.95 for split in ("test", "held_out"))  # "nearly always"
    assert sum(index % 5 in (1, 3) for index in range(PICTURES)) == 12_000 and "only 12,000 of the pictures" in PROSE
    captions = {stills.caption(stills.sample(0, k, "test")) for k in range(4000)}
    assert f"only {len(captions)} captions of one thing" in PROSE
    met = {stills.caption(stills.mixed(SEED, k)) for k in range(PICTURES)}
    assert captions <= met and "training has met them all" in PROSE
    asked, _ = stills.prompts("test", 2, METRICS["scores"]["test, 2"]["pictures"])
    assert 0.55 < sum(text in met for text in asked) / len(asked) < 0.65 and "about six of ten" in PROSE


def test_what_is_said_of_the_trade_off():
    table = METRICS["trade-off"]
    assert f"of {TRADE_FIRST.steps} steps" in PROSE and f"{TRADE_TRAINING.steps:,} steps, and to keep them" in PROSE
    assert f"{TRADE_BATCH[1]} pictures at $f = 1$ and {TRADE_BATCH[8]} at $f = 8$" in PROSE
    assert f"the second row has {CODES} codes" in PROSE
    assert inspect.signature(floor).parameters["sets"].default == 6 and "six sets of other true pictures" in PROSE
    shares = [100 * table[f][key] for f in "48" for key in ("read_right", "copies")]
    assert "{:g} by {:g} and {:g} by {:g}".format(*shares) in PROSE
    assert abs(shares[0] / shares[1] - shares[2] / shares[3]) < 0.03  # "are alike"
    again = METRICS["trade-off again"]["4"]
    assert (f"copies {100 * again['copies']:g} %, painted {100 * again['read_right']:g} %, distance "
            f"{again['distance']:.2f}") in PROSE
    nearest = sorted(table, key=lambda f: table[f]["distance"])
    assert nearest[:2] == ["4", "8"] and "least at $f = 4$ and next at $f = 8$" in PROSE
    assert max(table[f]["read_right"] for f in "12") <= 0.005 and min(table[f]["copies"] for f in "12") == 1


def test_copies_of_a_draw_and_of_the_mean_are_as_near_as_is_said():
    first = load_autoencoder()
    shown = stills.pictures([stills.mixed(SEED, k, "test") for k in range(64)])
    with torch.no_grad():
        of_mean = first.decode(first.encode(shown))
        of_draw = first.decode(first.encode(shown, torch.Generator().manual_seed(0)))
    near = 10 * torch.log10(4 / (of_mean - of_draw).square().mean()).item()
    assert f"copies of a draw and of the mean are the same to {near:.0f} dB" in PROSE


def test_what_is_said_of_guidance():
    table = {float(scale): row for scale, row in METRICS["guidance"].items() if scale != "true"}
    true, one = METRICS["guidance"]["true"]["spread"], {scale: 100 * row["one"] for scale, row in table.items()}
    assert f"{one[1]:.0f} % becomes {one[2]:.0f} %, and more of it gives little more" in PROSE
    assert max(one.values()) - one[2] <= 1
    assert max(table, key=lambda scale: table[scale]["two"]) == 2
    assert f"no scale gets more than {100 * table[2]['two']:.0f} % right" in PROSE
    spreads = [table[scale]["spread"] for scale in sorted(table)]
    assert spreads == sorted(spreads, reverse=True)  # "falls all the way"
    assert all(0.003 < table[scale]["spread"] - true < 0.01 for scale in (2, 3)) and table[8]["spread"] < 0.9 * true
    assert "At 2 and 3 it is a little above that of true pictures" in PROSE
    assert (f"it falls from {table[1]['spread']} at scale 1 to {table[8]['spread']} at scale 8, and true pictures have "
            f"{true}") in GUIDE
    assert f"(of two things {100 * table[5]['two']:.0f} %)" in GUIDE


def test_what_is_said_of_steps():
    right, distance = ({name: {int(n): value[key] for n, value in row.items()}
                        for name, row in METRICS["samplers"].items()} for key in ("read_right", "distance"))
    assert min(right["ddim"][10], right["dpm_solver_pp"][10], right["heun"][19], right["ddpm"][20]) >= 0.95
    assert right["heun"][9] < 0.9 and right["ddpm"][10] < 0.8
    low, high = METRICS["floor"]["100"]
    ddpm = [value for n, value in distance["ddpm"].items() if n >= 10]
    rest = [value for name in ("ddim", "heun", "dpm_solver_pp") for n, value in distance[name].items() if n > 10]
    assert all(low < value < 1.1 * high for value in ddpm) and all(value > 1.2 * high for value in rest)
    assert 0.8 < sum(rest) / len(rest) - sum(ddpm) / len(ddpm) < 1.3  # "about one further"
    assert f"Heun's one call, at {distance['heun'][1]:.0f}, is above" in PROSE
    assert METRICS["floor"]["200"][1] < low  # two bands that must not be mixed


def test_what_is_said_of_where_two_things_stand():
    plain, halves = (METRICS["relation"][name] for name in ("from the prompt", "by halves"))
    assert (f"{plain['both']} of {plain['pictures']} pictures have both, {plain['axis']} of them the axis, "
            f"{plain['order']} the order") in PROSE
    assert all(abs(plain[key] / plain["both"] - 0.5) < 0.08 for key in ("axis", "order"))  # a coin, by two deviations
    assert (f"Of the card's {halves['pictures']} prompts the prompt alone gets {plain['all']} all right, halves get "
            f"{halves['all']}.") in PROSE
    assert 0.3 < 1 - plain["both"] / plain["pictures"] < 0.4 and "in a third of the pictures one thing is" in GUIDE
    shown, = (cell["outputs"] for cell in BOOK["cells"] if cell["cell_type"] == "code"
              and "300 others, on the card" in "".join(cell["source"]))
    assert told(plain) in "".join(text for output in shown for text in output["text"])


@pytest.mark.parametrize("task", ["inpainting", "super-resolution"])
def test_what_is_said_of_conditions(task):
    row = METRICS["concatenation"][task]
    assert row["made"] > row["given"] + 0.1 if task == "inpainting" else abs(row["made"] - row["given"]) < 0.03


def test_what_is_said_of_digits_and_of_levels():
    assert MNIST_FIRST.steps == MNIST_TRAINING.steps == 500 and "500 steps a stage" in PROSE
    ends = ScaledLinearBeta().alpha_bar
    assert f"ends at $\\bar\\alpha = {ends[1]:.4f}$" in PROSE and ends[0] == 1
    assert list(range(1, 1000, 20))[::-1][:2] == [981, 961]
    assert f"while $t \\geq {LED_UNTIL}$" in PROSE
    alpha = ScaledLinearBeta().alpha(torch.tensor(0.5)).item()
    assert 2.5 < (1 - alpha**2) ** 0.5 / alpha < 3 and "nearly three times as strong" in PROSE


def test_no_number_of_a_sentence_is_from_an_older_card():
    assert not [words for words in ("103 had them", "36 of 200", "of 115 pictures") if words in PROSE]
