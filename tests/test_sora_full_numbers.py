"""Chapter 16's sentences on packing, framing and bent paths are held to the files of what was measured."""

from statistics import median

import pytest
import torch
from prose import NOTEBOOKS, prose_of

from soralab.experiments import sora_framing, sora_full, sora_full_compute, sora_full_speed, sora_physics
from soralab.figures.curves import wilson
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


def test_what_latents_and_pixels_are_better_at(said):
    ours, theirs = (read_card(name)["metrics"] for name in ("sora", "sora_pixels"))
    for what in ("colour", "motion"):
        assert ours["held_out"][what] >= ours["test"][what], what
    shapes = [100 * row["shape"] for row in (ours["held_out"], ours["test"], theirs["held_out"])]
    assert "in {:.0f} % of the films, for {:.0f}.".format(*shapes) in said
    assert f"more often than ours ({shapes[2]:.1f} for {shapes[0]:.1f} %)" in said
    for split in ("test", "held_out"):
        right, films = theirs[split]["motions"]["bounces"]
        assert right == films > 20 and "all its films of things that bounce are right" in said
    found = sora_physics.load_experiment()
    soon = [sum(sora_physics.early(found[kind]["sora"])) for kind in (sora_physics.SEEN, sora_physics.NEW)]
    assert "That happens in {} of 200 films of other shapes, and in {} of 200 of squares".format(*soon) in said
    assert soon[1] > 2 * soon[0] and "squares fall, and twice as often too soon" in said


def test_one_step_ends_between_the_films(said):
    films = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    for noise in (-2.0, 0.3, 1.5):
        z = torch.tensor([noise], dtype=torch.float64)
        assert abs(noise - float(marginal_velocity(z, 1.0, films)[0])) < 1e-12
    assert "It ends at 0, halfway between the films" in said and "So it does from any noise" in said


def test_what_the_whole_model_has_learnt_so_far(said):
    """Of the last stage, in this order: the background, the colours, the motion, the shapes."""
    rows, films = sora_full_compute.load_experiment()
    first, *_, before, last = rows
    begun = read_card(BEGUN / "sora_full")
    assert set(films) == set(rows) and int(last) == begun["steps"] and (rows[before]["rate"], begun["rate"]) == (1, 0)
    stages = [f"{int(steps):,}" for steps in (first, before, last)]
    assert "After {} steps the ring has two holes, after {} it opens and closes, after {} it is a ring".format(
        *stages) in said
    assert f"Up to step {stages[1]}" in said and f"Over the last {int(last) - int(before):,}" in said
    assert f"The recipe plans {TRAINING.steps:,} steps" in said and int(last) < TRAINING.steps / 2
    right, was = rows[last]["simple"]["all"], rows[before]["simple"]["all"]
    assert f"everything is right in {right[0]} of {right[1]} films of one thing, where it was {was[0]}" in said
    two = {what: right / of for what, (right, of) in rows[last]["full, two things"].items()}
    right, of = rows[last]["full, two things"]["background"]
    assert f"the background is right in {right} of the {of} films of two things" in said
    for order in (two, {"background": 1.0} | {k: r / of for k, (r, of) in rows[last]["simple"].items()}):
        assert order["background"] >= order["colour"] > order["motion"] > order["shape"]


@pytest.fixture(scope="module")
def found() -> dict:
    return read_card(BEGUN / "sora_full")["metrics"]


def of(found, title, what="all") -> str:
    return f"{100 * found[title][what][0] / found[title][what][1]:.0f}"


def test_what_the_whole_model_s_scores_say(said, found):
    assert {films for row in found.values() for _, films in row.values()} >= {200, 50}
    simple, held_out = of(found, "simple"), of(found, "simple, held out")
    assert f"Of one simple thing {simple} % are right, and of combinations that training never had {held_out}" in said
    assert of(found, "simple", "colour") == "100" and 49 <= int(of(found, "simple", "shape")) <= 51
    assert f"the motion in {of(found, 'simple', 'motion')} %, the shape in half" in said
    two, three = (of(found, f"full, {many} things") for many in ("two", "three"))
    assert f"Two things come out in {two} %, three in {three}" in said
    assert min(int(of(found, title, "background")) for title in found if "background" in found[title]) >= 98
    true = [int(of(found, title)) for title in found if title.startswith(sora_full.TRUE)]
    assert min(true) >= 96 and "so the faults are the model's" in said
    for sentence in (
        "{} % with 17 frames, {} and {} with 5 and 13".format(*(of(found, title) for title in (
            "17 frames", "5 frames, never seen", "13 frames, never seen"))),
        "{} % at 48 × 64, {} and {} at two sizes".format(*(of(found, title) for title in (
            "48 x 64", "portrait 64 x 48, never seen", "48 x 48, never seen"))),
        "Eight steps of the sampler do as well as twenty ({} %), four do not ({})".format(*(
            of(found, f"simple, in {steps} steps") for steps in (8, 4))),
    ):
        assert sentence in said, sentence
    low = wilson(*found["simple"]["all"])[0]
    for title in ("17 frames", "5 frames, never seen", "13 frames, never seen", "simple, in 8 steps"):
        assert wilson(*found[title]["all"])[1] > low, title  # no less, as far as these films tell
    for title in ("48 x 64", "simple, in 4 steps"):
        assert wilson(*found[title]["all"])[1] < found["simple"]["all"][0] / found["simple"]["all"][1], title


def test_what_the_whole_model_s_abilities_say(said, found):
    for sentence in (
        "the same to the end in {} % of fifty; where its beginning is filmed, in {}, and from one picture in {}".format(
            *(of(found, title, "identity") for title in ("extended", "extended backwards", "brought to life"))),
        f"Of loops it is {of(found, 'looped', 'identity')} %",
        "The seam is smooth in {} % forwards and in {} % backwards".format(*(
            of(found, title, "seam") for title in ("extended", "extended backwards"))),
        "From noise at $t = 0.8$ it is kept in {} %, by inversion".format(of(found, "edited by noise, 0.8", "shape")),
        " in {}: inversion walks back".format(of(found, "edited by inversion, 0.8", "shape")),
    ):
        assert sentence in said, sentence
    both = sorted(int(of(found, title, "both")) for title in found if title.startswith("edited"))
    assert len(both) == 6 and f"are both there in {both[0]} to {both[-1]} %, and the course asks for 85" in said
    assert both[0] >= 85
