"""Chapter 07's pictures: which sizes they have, and that they are drawn at them."""

import math
import statistics

import pytest
import torch

from soralab import world
from soralab.datasets.native_sizes import HIGH, LOW, SHORTEST, STEP, WIDEST, drawn, pictures, size
from soralab.datasets.what_and_where import CELLS, frames, label, sample
from soralab.navit import pack
from soralab.recipes.navit import LENGTH


def test_sizes_are_multiples_of_the_patch_with_every_aspect_ratio():
    sizes = [size(7, k) for k in range(2000)]
    assert all(h % STEP == w % STEP == 0 and max(h, w) <= WIDEST * min(h, w) for h, w in sizes)
    assert min(map(min, sizes)) == SHORTEST
    sides = [math.sqrt(h * w) for h, w in sizes]
    assert LOW - STEP < min(sides) < LOW + STEP and HIGH - 2 * STEP < max(sides) < HIGH + STEP
    assert statistics.mean(sides) == pytest.approx(29.9, abs=1)  # N(-0.5, 1) on [-1, 1] has mean -0.14
    stretch = [math.log(h / w) for h, w in sizes]
    assert abs(statistics.mean(stretch)) < 0.06
    assert statistics.stdev(stretch) == pytest.approx(2 * math.log(3) / 12**0.5, abs=0.04)  # even on [-ln 3, ln 3]
    assert sizes[:5] == [size(7, k) for k in range(5)] != [size(8, k) for k in range(5)]
    assert [size(7, k, "test") for k in range(5)] != sizes[:5]


def test_a_fixed_resolution_keeps_the_aspect_ratios():
    sizes = [size(7, k, low=32, high=32) for k in range(300)]
    assert all(abs(math.sqrt(h * w) - 32) < 4 for h, w in sizes) and len({h / w for h, w in sizes}) > 8


def test_pictures_are_drawn_at_their_size():
    """Not resized: the same bytes as the renderer's own, each in its place although they are drawn by sizes."""
    shown, labels = pictures(7, range(40, 80))
    for k, (picture, number) in enumerate(zip(shown, labels.tolist(), strict=True)):
        h, w = size(7, 40 + k)
        scene = sample(7, 40 + k, aspect=w / h)
        assert picture.shape == (3, h, w) and picture.dtype == torch.uint8
        assert picture.numpy().tobytes() == world.render([scene], 1, h, w)[0, 0].tobytes()
        x, y = world.truth([scene], 1, h, w)[0]["trajectory"][0][0]
        assert number % CELLS**2 == CELLS * int(CELLS * y / h) + int(CELLS * x / w)  # a ninth of its own frame
        assert label(scene) == number


def test_squares_are_chapter_03_s_frames():
    shown, labels = drawn(3, range(5), [(32, 32)] * 5)
    frames_, classes = frames(3, range(5))
    assert torch.equal(torch.stack(shown), frames_) and torch.equal(labels, classes)


def test_held_out_colours_stay_held_out_at_every_aspect_ratio():
    for split in world.SPLITS:
        things = [sample(7, k, split, aspect).objects[0] for k in range(20) for aspect in (1 / 3, 1.5, 3)]
        assert {world.held_out(thing.shape, thing.colour) for thing in things} == {split == "held_out"}


def test_the_course_s_mix_packs_with_under_two_per_cent_of_padding():
    """The paper's bound (A.3), by the choice of the row's length; at a quarter of it the same mix wastes more."""
    counts = [h * w // STEP**2 for h, w in (size(7, k) for k in range(2000))]

    def padding(length):
        return 1 - sum(counts) / (length * len(pack(counts, length)))

    assert padding(LENGTH) < 0.02 < padding(LENGTH // 2) < padding(160)
