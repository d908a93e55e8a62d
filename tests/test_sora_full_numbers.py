"""Chapter 16's sentences on packing, framing and bent paths are held to the files of what was measured."""

import json
import re
from itertools import pairwise
from statistics import median

import pytest
import torch
from prose import NOTEBOOKS, prose_of

from soralab.datasets import order
from soralab.experiments import (
    sora_framing,
    sora_full,
    sora_full_compute,
    sora_full_readers,
    sora_full_sizes,
    sora_full_speed,
    sora_physics,
)
from soralab.figures.curves import wilson
from soralab.figures.paths import marginal_velocity
from soralab.files.checkpoints import BEGUN, read_card
from soralab.recipes.sora_full import KINDS, LATE, TRAINING
from soralab.sora_full import FRESH, SHIFT
from soralab.world.scene import RADIUS, SHAPES, SIZES, WALL

NUMBERS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
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
    assert "That happens in {} of 200 films of other shapes, and in {} of 200 of squares.".format(*soon) in said


def test_one_step_ends_between_the_films(said):
    films = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    for noise in (-2.0, 0.3, 1.5):
        z = torch.tensor([noise], dtype=torch.float64)
        assert abs(noise - float(marginal_velocity(z, 1.0, films)[0])) < 1e-12
    assert "It ends at 0, halfway between the films" in said and "So it does from any noise" in said


def test_what_the_whole_model_has_learnt_so_far(said):
    """Of the last stage, in this order: the background, the colours, the motion, the shapes."""
    rows, films = sora_full_compute.load_experiment()
    (first, *_), ends = rows, [steps for steps, row in rows.items() if row.get("rate") == 0]
    begun = read_card(BEGUN / "sora_full")
    assert set(films) == set(rows) and int(ends[-1]) == begun["steps"] and begun["rate"] == 0 and len(ends) == 4
    assert "four times so far" in said
    assert f"The recipe plans {TRAINING.steps:,} steps; the next training goes on from {begun['steps']:,}," in said
    assert all(f"after {int(steps):,}" in said.lower() for steps in (first, "7619", ends[-1]))

    assert int(ends[2]) == LATE and f"from step {LATE:,} on from more of those of 48 × 64" in said
    assert f"with shift 2 for {int(ends[1]):,} steps and {SHIFT:g} from there on" in said
    assert f"(shift {SHIFT:g}, before it 2)" in said

    def right(steps, kind="simple", what="everything"):
        count, of = rows[steps][kind][what]
        assert of == 100
        return count

    sentences = (
        "{}, {}, {} and {} are right of one thing, and {}, {}, {} and {} of two".format(*(
            right(steps, kind) for kind in ("simple", "full, two things") for steps in ends)),
        f"In the {int(ends[0]) - 7619:,} steps in which it first fell, films of one thing went from {right('7619')} to "
        f"{right(ends[0])}. At the full rate they came to {right('15227')} at step 15,227",
        "of the shapes {}, {} and {} are right with one thing at the ends of the last three, and {}, {} and {} with "
        "two".format(*(right(steps, kind, "shape") for kind in ("simple", "full, two things") for steps in ends[1:])),
        "already after 1,500 steps the background is right in {} of the 100 films of two things, and the colour in {}."
        .format(*(right(first, "full, two things", what) for what in ("background", "colour"))),
    )
    for sentence in sentences:
        assert sentence in said, sentence
    assert abs(int(ends[0]) - 7619 - 0.3 * (int(ends[0]) - 2243)) < 1 and "first stretch began at step 2,243" in said
    for kind in ("simple", "full, two things"):  # the intervals of neighbours overlap
        for what in ("shape", "everything"):
            for a, b in pairwise(ends):
                assert wilson(right(a, kind, what), 100)[1] > wilson(right(b, kind, what), 100)[0]
                assert wilson(right(b, kind, what), 100)[1] > wilson(right(a, kind, what), 100)[0]
    two = {what: count / of for what, (count, of) in rows[ends[-1]]["full, two things"].items()}
    one = {"background": 1.0} | {what: count / of for what, (count, of) in rows[ends[-1]]["simple"].items()}
    for parts in (two, one):
        assert parts["background"] >= parts["colour"] >= parts["size"] > parts["motion"] > parts["shape"]


@pytest.fixture(scope="module")
def found() -> dict:
    return read_card(BEGUN / "sora_full")["metrics"]


def of(found, title, what="everything") -> str:
    return f"{100 * found[title][what][0] / found[title][what][1]:.0f}"


def test_what_the_whole_model_s_scores_say(said, found):
    assert {films for row in found.values() for _, films in row.values()} >= {200, 50}
    true = [int(of(found, title)) for title in found if title.startswith(sora_full.TRUE)]
    assert min(true) >= 96
    related, rows = "full, two things related", sora_full_compute.load_experiment()[0]
    ends = list(rows)[-1]
    assert rows[ends]["simple"]["everything"][1] == 100
    for sentence in (
        f"Of one simple thing everything is right in {of(found, 'simple')} %, and of combinations that training never "
        f"had in {of(found, 'simple, held out')}",
        f"the motion in {of(found, 'simple', 'motion')} %, the shape in {of(found, 'simple', 'shape')}",
        "In the small model's table *all* is {:.1f} and {:.1f} %; here it is {} and {}.".format(*(
            100 * read_card("sora")["metrics"][split]["all"] for split in ("test", "held_out")), *(
            of(found, kind, "all") for kind in ("simple", "simple, held out"))),
        f"Of films with 17 frames {of(found, '17 frames')} % are right, and of those with 13, which training never had "
        f"as films of their own, {of(found, '13 frames, never seen')}: no loss that fifty films could show",
        "With five, which it had only as parts of strings, {} % are: the motion is right in {}, the shape in {}."
        .format(*(of(found, "5 frames, never seen", what) for what in ("everything", "motion", "shape"))),
        f"it is the shape that fails, right in {of(found, '48 x 64', 'shape')}",
        "which it never saw, the shape is right in {} and {} %".format(*(
            of(found, title, "shape") for title in ("portrait 64 x 48, never seen", "48 x 48, never seen"))),
        f"Of one thing in the full world {of(found, 'full, one thing')} % are right",
        "it is right in {} of {}, and where it is not".format(*found["full, one thing"]["background"]),
        f"Two things come out in {of(found, 'full, two things')} %, three in {of(found, 'full, three things')}",
        f"If the two are related, {of(found, related)} % are right, and the relation itself is there in "
        f"{of(found, related, 'relation')} %",
        f"A frame of 48 × 64, which training had, costs more: {of(found, '48 x 64')} % are right",
        "things have the wrong size in {} and {} of fifty".format(*(of - right for right, of in (
            found[title]["size"] for title in ("portrait 64 x 48, never seen", "48 x 48, never seen")))),
        f"Without it (DPM-Solver++, as many steps) {of(found, sora_full.PLAIN)} % are right",
        f"Eight steps with fresh noise make {of(found, 'simple, in 8 steps')} % right; that these are fewer may be "
        "chance",
        f"shown by the first decoder, {of(found, sora_full.FIRST)} % are right with fresh noise",
        f"and without it {rows[ends]['simple']['everything'][0]} of the first hundred",
        f"In fewer than {['eight'][FRESH - 8]} the model films without it: four make {of(found, 'simple, in 4 steps')}",
    ):
        assert sentence in said, sentence
    assert "at 64 × 48 and 48 × 48, which it never saw, things have the wrong size in {} and {} of fifty".format(*(
        of - right for right, of in (found[title]["size"] for title in (
            "portrait 64 x 48, never seen", "48 x 48, never seen")))) in GUIDE
    assert "films 13 frames as well as 9" in GUIDE
    cards = [read_card(name) for name in ("sora", BEGUN / "sora_full")]
    seen = [card["steps"] * card["batch"] / 1e6 for card in cards]
    for sentence in ("saw {:.2f} million films of one size", "this one {1:.2f} million of eleven kinds"):
        assert sentence.format(*seen) in said
    for kind in ("full, two things", "full, three things"):
        assert found[kind]["background"] == [200, 200] and "which it never does with two or three" in said
    eight, twenty = (found[title]["everything"] for title in ("simple, in 8 steps", "simple"))
    assert eight[0] < twenty[0] and wilson(*eight)[1] > wilson(*twenty)[0]
    assert len(KINDS) == 11
    right, films = found["simple"]["everything"]
    low = wilson(right, films)[0]
    for title in ("17 frames", "13 frames, never seen"):
        assert wilson(*found[title]["everything"])[1] > low, title  # no less, as far as these films tell
    short = found["5 frames, never seen"]
    assert wilson(*short["everything"])[0] < right / films and short["shape"] > short["motion"]
    for title in ("48 x 64", "simple, in 4 steps", "5 frames, never seen", sora_full.FIRST, sora_full.PLAIN):
        assert wilson(*found[title]["everything"])[1] < right / films, title
    assert of(found, "simple", "colour") == "100" and "The colour is right in all of the first" in said


def test_which_chapters_have_no_part_in_the_whole_model(said):
    """Read off the table that is made of the imports."""
    page = json.loads((NOTEBOOKS / "16_sora.ipynb").read_text(encoding="utf-8"))
    (plan,) = (cell for cell in page["cells"] if cell["id"] == "whole-parts-plan")
    told = "".join(plan["outputs"][0]["data"]["text/plain"])
    (absent,) = {f"{k:02d}" for k in range(1, 18)} - set(re.findall(r"chapter (\d\d)", told))
    assert f"Chapter {absent} has no part in it" in said


def test_what_other_readers_say_of_the_whole_models_films(said, found):
    second = sora_full_readers.load_experiment()
    many, (true, made) = second["films"], second["tables"].values()
    reader, referee = ({what: row["both"] + row[who] for what, row in made.items()} for who in ("reader", "referee"))
    asked, refused = sum(made["motion"].values()), many - referee["shape"]
    true_differ, made_differ = second["differ"].values()
    apart = {what: len(rows) for what, rows in made_differ.items()}
    both = {what: row["both"] + row["reader"] for what, row in true.items()}
    missed = [row["text"] for row in made_differ["shape"] if row["reader"] not in row["text"].split()]
    walls = [text for text in missed if text.endswith(WALL)]
    for sentence in (
        f"the {many} simple films of the table above",
        f"the ways of {many - asked} films are none of the reader's",
        f"of which the referee found it in {of(found, 'simple', 'shape')} %",
        f"differ about the size in {apart['size']} of {sum(made['size'].values())}, about the motion in "
        f"{apart['motion']} of {asked} (the reader finds it in {reader['motion']}, the referee in "
        f"{referee['motion']}), and about the shape in {apart['shape']} of {many}",
        f"The assistant finds it in {reader['shape']} of {many}, nearly as often as in true films; the referee in "
        f"{referee['shape']}",
        f"of the {refused} films whose shape the referee refuses, the assistant knows {made['shape']['reader']} "
        f"for what they were to be; who guesses would know {refused / len(SHAPES):.0f}",
        f"in {many - reader['shape']} films of {many} it names another",
        f"In {NUMBERS[len(missed)]} of these the referee finds the shape; all {NUMBERS[len(walls)]} have a wall",
        f"in {reader['all']} of the {many} films, in true films in {both['all']}; the referee in {referee['all']}.",
        f"but for {NUMBERS[sum(map(len, true_differ.values()))]} answers of the assistant's about things that pass",
    ):
        assert sentence in said, sentence
    assert len(missed) == len(walls) and both["shape"] - reader["shape"] < 5 and made["colour"]["both"] == many
    assert all(row["text"].endswith(WALL) for rows in true_differ.values() for row in rows)
    assert not true_differ["motion"] and not true_differ["colour"]
    assert len(order.NAMES) == 14 and "one of its fourteen ways" in said
    assert len(SHAPES) == 6 and "has six words for shapes" in said


def test_what_large_frames_cost(said):
    found = sora_full_sizes.load_experiment()
    usual, wide, *unseen = found.values()
    before = sora_full_sizes.load_experiment(sora_full_sizes.BEFORE)

    def right(rows) -> int:
        return sum(row["shape"] for row in rows.values())

    assert [kind.split(",")[0] for kind in found][1:] == ["48 x 64", "48 x 48", "portrait 64 x 48"]
    there = [kind for kind in KINDS if kind.frames > 1 and (kind.height, kind.width) == (48, 64)]
    (still,) = (kind for kind in KINDS if kind.frames == 1 and (kind.height, kind.width) == (48, 64))
    large, small, medium, usual_large = (round(2 * RADIUS[size] * side) for size, side in (
        ("large", 48), ("small", 48), ("medium", 32), ("large", 32)))
    shapes = {size: f"{100 * wide[size]['shape'] / wide[size]['films']:.0f}" for size in SIZES}
    for sentence in (
        f"a large thing is {usual_large} pixels wide where the short side has 32, and {large} where it has 48",
        f"a small one is {small} pixels wide there, between a medium ({medium}) and a large one ({usual_large}) at 32",
        f"its shape is right in {shapes['small']} %. (That large ones do worse, with {shapes['large']}, may be chance",
        "To step {:,} it learnt from {:.0f} films and {:.0f} pictures of this size in a hundred, since then from "
        "{:.0f} and {:.0f}.".format(LATE, *(100 * number for part in ("share", "late") for number in (
            sum(getattr(kind, part) for kind in there), getattr(still, part)))),
        "Of these 200 films the shape was right in {} before, and is in {} now; of those of 32 × 32 in {}, and in {} "
        "now".format(*(right(of[kind]) for kind in ("48 x 64", "simple") for of in (before, found))),
        "what is to be medium as small, in {} of {} and {} of {}".format(*(
            number for row in (of["medium"] for of in unseen) for number in (row["read"]["small"], row["films"]))),
    ):
        assert sentence in said, sentence
    interval = wilson(wide["small"]["shape"], wide["small"]["films"])
    assert interval[0] < wilson(wide["large"]["shape"], wide["large"]["films"])[1]
    assert interval[1] < min(usual[size]["shape"] / usual[size]["films"] for size in SIZES)
    assert {sum(row["films"] for row in of[kind].values()) for of in (before, found) for kind in found} == {200}
    gained = wilson(right(before["48 x 64"]), 200)[1] < wilson(right(found["48 x 64"]), 200)[0]
    assert gained and wilson(right(before["simple"]), 200)[1] > right(found["simple"]) / 200
    for row in unseen:
        for asked, seen in (("large", "medium"), ("medium", "small")):
            assert row[asked]["read"][seen] > 0.9 * row[asked]["films"]
        assert all(row[size]["shape"] > 0.6 * row[size]["films"] for size in SIZES)
    assert all(row[size]["read"][size] > 0.9 * row[size]["films"] for row in (usual, wide) for size in SIZES)


def test_what_the_whole_model_s_abilities_say(said, found):
    for sentence in (
        "the same to the end in {} % of fifty; where its beginning is filmed, in {}, and from one picture in {}."
        .format(*(of(found, title, "identity") for title in ("extended", "extended backwards", "brought to life"))),
        f"From words alone the shape is right in {of(found, 'simple', 'shape')}.",
        f"Of loops it is {of(found, 'looped', 'identity')} %",
        "With fifty films {} means {:.0f} to {:.0f}, and {} means {:.0f} to {:.0f}".format(*(
            number for title in ("extended", "looped") for number in (
                of(found, title, "identity"), *(100 * end for end in wilson(*found[title]["identity"]))))),
        "The seam is smooth in {} % forwards and in {} % backwards".format(*(
            of(found, title, "seam") for title in ("extended", "extended backwards"))),
        "in {}, {} and {} % against {}, {} and {} by noise, which may be chance".format(*(
            of(found, f"edited by {way}, {strength}", "shape")
            for way in ("inversion", "noise") for strength in sora_full.STRENGTHS)),
        "both seams are in {} % of what is joined, and in {} of loops".format(
            *(of(found, title, "seam") for title in ("joined", "looped"))),
        f"Between two ends of one film it is {of(found, 'joined', 'identity')}.",
        "of fifty pictures that it brings to life, the seam is smooth in {} %".format(
            of(found, "brought to life", "seam")),
    ):
        assert sentence in said, sentence
    assert said.count("of fifty pictures that it brings to life") == 1
    both = sorted(int(of(found, title, "both")) for title in found if title.startswith("edited"))
    assert len(both) == 6 and f"they are there in {both[0]} to {both[-1]} %. All six are above the 85" in said
    lows = [wilson(*found[title]["both"])[0] for title in found if title.startswith("edited")]
    assert both[0] > 85 and max(lows) < 0.85 and "but fifty films leave room for less" in said
    shapes = [[found[f"edited by {way}, {strength}"]["shape"] for strength in sora_full.STRENGTHS]
              for way in ("noise", "inversion")]  # fmt: skip
    assert all(wilson(*row[-1])[0] < row[0][0] / row[0][1] < wilson(*row[-1])[1] for row in shapes)
    assert all(b[0] > a[0] for a, b in zip(*shapes, strict=True))
    assert max(sum(getattr(kind, part) for kind in KINDS if len(kind.clips) == 3) for part in ("share", "late")) <= 0.05
    assert "both are strings of three clips, of which training has few" in said
    assert wilson(*found["joined"]["identity"])[0] > wilson(*found["looped"]["identity"])[1]
