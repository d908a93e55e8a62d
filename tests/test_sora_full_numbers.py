"""Chapter 16's sentences on packing, framing and bent paths are held to the files of what was measured."""

from statistics import median

import pytest
import torch
from prose import NOTEBOOKS, prose_of

from soralab.experiments import sora_framing, sora_full_compute, sora_full_speed
from soralab.figures.paths import marginal_velocity
from soralab.files.checkpoints import BEGUN, read_card
from soralab.recipes.sora_full import TRAINING

GUIDE = (NOTEBOOKS / "sessions" / "16_sora.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def said() -> str:
    return prose_of("16_sora")


def test_what_packing_saves(said):
    measured = sora_full_speed.load_experiment()
    used = {round(100 * found["tokens"] / found["padded to"]) for found in measured.values()}
    padded, bucketed = ([f"{median(sora_full_speed.ratios(measured[kind], way)):.2f}"
                         for kind in ("bfloat16", "float32")] for way in ("padded", "bucketed"))  # fmt: skip
    assert "filled up, 73 % of a batch would be padding" in GUIDE
    assert used == {27} and "73 % is padding" in said and "27 % of them are used" in said
    assert all(float(share) <= 0.67 for share in padded)  # what the course asks of itself
    assert "{} in bfloat16, in which the recipe trains, and {} in float32".format(*padded) in said
    assert "by size the ratios are {} and {}".format(*bucketed) in said


def test_what_a_square_cuts_off(said):
    found = sora_framing.load_experiment()
    share = {what: {size: round(100 * cut / there) for size, (cut, there) in sizes.items()}
             for what, sizes in sora_framing.cut_off(found).items()}  # fmt: skip
    squares, native = share["square crops"], share["native sizes"]
    assert f"in {squares['32x32']} % at its own size, and in {squares['32x48']} and {squares['48x32']} %" in said
    assert f"The network of native sizes cuts off {native['32x48']} and {native['48x32']} % at its sizes" in said
    assert f"which it never saw, it cuts off {native['32x32']} %" in said
    for sentence in (
        f"network of squares cuts off {squares['32x32']} %, where it has more room {squares['32x48']} and "
        f"{squares['48x32']}",
        f"from whole pictures {native['32x48']} and {native['48x32']}",
    ):
        assert sentence in GUIDE, sentence
    assert all(share in range(30, 37) for share in squares.values()) and "cuts off one thing in three" in GUIDE
    true = share["true pictures"]
    assert f"more than the {true['32x48']} and {true['48x32']} % of true pictures" in said
    cut, there = map(sum, zip(*(count for size, count in sora_framing.cut_off(found)["true pictures"].items()
                                if "square" in size), strict=True))  # fmt: skip
    assert round(10 * cut / there) == 3 and "three in ten show a thing cut off" in said
    means = [sum(row[size] for size in ("32x48", "48x32")) / 2 for row in (native, squares)]
    assert means[0] < 0.4 * means[1] and "but a third of the other's" in said
    for what in sora_framing.KINDS:  # two trainings that agree
        for size in found[what][0]:
            cut = [seed[size]["cut off"] / (seed[size]["cut off"] + seed[size]["whole"]) for seed in found[what]]
            assert len(cut) == 2 and max(cut) - min(cut) < 0.08
    assert "two trainings of each, and they agree" in said
    right = max(sum(seed[size]["right"] for seed in seeds) / sum(sum(seed[size][key] for key in (
        "whole", "cut off", "not there")) for seed in seeds)
        for what, seeds in found.items() if what != "true pictures" for size in seeds[0])  # fmt: skip
    assert right < 0.03 and "shape and size too, it hardly ever is" in said
    seen = [row for what in sora_framing.KINDS for seed in found[what] for row in seed.values()]
    assert max(row["not there"] / sum(row[key] for key in ("whole", "cut off", "not there")) for row in seen) < 0.03
    assert "of the right colour is nearly always there" in said


def test_one_step_ends_between_the_films(said):
    films = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    for noise in (-2.0, 0.3, 1.5):
        z = torch.tensor([noise], dtype=torch.float64)
        assert abs(noise - float(marginal_velocity(z, 1.0, films)[0])) < 1e-12
    assert "It ends at 0, halfway between the films" in said and "So it does from any noise" in said


def test_what_the_whole_model_has_learnt_so_far(said):
    """Of the last stage, in this order: the background, the colours, the motion, the shapes."""
    rows, films = sora_full_compute.load_experiment()
    last, begun = list(rows)[-1], read_card(BEGUN / "sora_full")
    assert set(films) == set(rows) and last == str(begun["steps"])
    assert f"After {int(last):,} of its {TRAINING.steps:,} steps" in said
    two = {what: right / of for what, (right, of) in rows[last]["full, two things"].items()}
    right, of = rows[last]["full, two things"]["background"]
    assert f"the background is right in {right} of the {of} films of two things" in said
    for order in (two, {"background": 1.0} | {k: r / of for k, (r, of) in rows[last]["simple"].items()}):
        assert order["background"] >= order["colour"] > order["motion"] > order["shape"]
