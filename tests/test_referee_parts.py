"""The referee's parts, each alone: the laws of motion, what is a wall and what is dirt, the fit, what a report says."""

from dataclasses import replace

import numpy as np
import pytest

from soralab import world
from soralab.world import referee
from soralab.world.fit import distances
from soralab.world.motion import explain
from soralab.world.physics import _delay
from soralab.world.render import render
from soralab.world.scene import DIRECTIONS, GRAVITY, SHAPES, SIZES, SPEEDS, Object, Scene, bounce_height
from soralab.world.sight import _find_wall, _follow, _slices_by_frame, to_pixels

TIMES = np.arange(9) / 9
CONSTANT = np.full(9, 0.17)


def told(path, radius=CONSTANT, spin=0.0, wobble=0.0, touched=False):
    found = explain(np.asarray(path, float), radius, TIMES, spin, wobble, touched)
    return found.motion, found.speed, found.turn


def line(x: float, y: float, times=TIMES) -> np.ndarray:
    return np.stack([x * times, y * times], 1)


# ---------------------------------------------------------------------------------------------- laws of motion


def test_slides_are_told_by_direction_and_speed():
    for name, (x, y) in DIRECTIONS.items():
        for speed, rate in (("slow", 0.28), ("fast", 0.45)):
            assert told(rate * line(x, y)) == (f"slides {name}", speed, "")
    assert told(line(0.13, 0))[0] == "stays still" and told(line(0.17, 0))[0] == "slides right"
    assert told(line(0.4, 0.17))[0] is None  # between two directions


def test_only_a_thing_that_was_touched_may_stop_or_start_half_way():
    for clock in (np.minimum(TIMES, 0.5), np.maximum(TIMES, 0.5)):
        path = line(0.9, 0, clock)
        assert told(path, touched=True)[0] == "slides right" and told(path)[0] is None


def test_orbits_are_told_by_speed_and_turn():
    for sign, turn in ((1, "clockwise"), (-1, "anticlockwise")):
        for speed, turns in (("slow", 0.75), ("fast", 1.25)):
            angle = 0.4 + sign * 2 * np.pi * turns * TIMES
            circle = np.stack([np.cos(angle), np.sin(angle)], 1)
            assert told(0.2 * circle) == ("orbits", speed, turn)
            assert told(0.45 * circle)[0] is None and told(0.2 * circle * [1, 0.3])[0] is None
            assert told(0.07 * circle)[0] != "orbits"


def test_a_bounce_is_the_worlds_own():
    def fall(drop, stretch=1.0, drift=0.0):
        return np.stack([drift * TIMES, [-bounce_height(u * stretch, drop) for u in TIMES]], 1)

    assert all(told(fall(drop))[0] == "bounces" for drop in (0.4, 0.5, 0.6))
    assert told(fall(0.5, stretch=0.7))[0] is None and told(fall(0.5, drift=0.4))[0] is None
    assert told(-fall(0.5))[0] is None  # upwards
    assert GRAVITY == 8.0


def test_what_stands_may_grow_shrink_or_spin():
    still = line(0, 0)
    for sign, motion in ((1, "grows"), (-1, "shrinks")):
        for speed, swell in (("slow", 0.5), ("fast", 0.9)):
            assert told(still, 0.17 * (1 + sign * swell * (TIMES - 0.5))) == (motion, speed, "")
    assert told(still, 0.17 * (1 + 0.2 * (TIMES - 0.5)))[0] == "stays still"
    for sign, turn in ((1, "clockwise"), (-1, "anticlockwise")):
        for speed, degrees in (("slow", 120), ("fast", 270)):
            assert told(still, spin=sign * np.radians(degrees)) == ("spins", speed, turn)
    assert told(still, wobble=0.07)[0] == "stays still" and told(still, wobble=0.09)[0] is None


def test_a_thing_that_pulses_or_swells_on_its_way_follows_no_law():
    pulse = 0.17 * (1 + 0.3 * (-1.0) ** np.arange(9))
    faint = 0.17 * (1 + 0.1 * (-1.0) ** np.arange(9))
    for path in (line(0, 0), line(0.4, 0)):
        assert told(path, pulse)[0] is None and told(path, faint)[0] is not None
    assert told(line(0.4, 0), 0.17 * (1 + 0.5 * (TIMES - 0.5)))[0] is None
    assert told(line(0.4, 0), 0.17 * (1 + 0.3 * (TIMES - 0.5)))[0] == "slides right"


def test_two_places_are_no_path():
    assert explain(line(0.4, 0)[:2], CONSTANT[:2], TIMES[:2], 0.0, 0.0, False).motion is None


# ------------------------------------------------------------------------------------------------ what is seen


def film_of(scene: Scene, frames: int = 9):
    return world.to_film(render([scene], frames))[0]


def test_the_largest_thing_is_named_first():
    small = Object("circle", "red", "small", "stays still", x=-0.3)
    large = Object("square", "blue", "large", "stays still", x=0.2)
    for objects in ((small, large), (large, small)):
        report = referee.read(film_of(Scene(objects)))
        assert [seen.colour for seen in report.objects] == ["blue", "red"] and report.count == 2
        assert report.objects[0].area == pytest.approx(3.0976 * 0.22**2, rel=0.02)
        assert [seen.size for seen in report.objects] == ["large", "small"]


def test_a_score_says_whether_background_camera_size_and_speed_are_right():
    thing = Object("circle", "red", "medium", "slides right", "slow", x=-0.1, velocity=(0.28, 0.0))
    scene = Scene((thing,), "striped", "pans right")
    report = referee.read(film_of(scene))
    assert all(referee.score(report, scene).values())
    for key, value in (("background", "checkered"), ("camera", "pans left")):
        mark = referee.score(report, replace(scene, **{key: value}))
        assert not mark[key] and mark["all"]  # "all" is of the things
    for key, values in (("size", SIZES), ("speed", SPEEDS)):
        for value in values:
            mark = referee.score(report, replace(scene, objects=(replace(thing, **{key: value}),)))
            assert mark[key] is (value == getattr(thing, key)) and mark["all"]


def test_four_frames_are_enough_and_sixteen_pixels():
    thing = Object("square", "white", "large", "stays still")
    assert referee.read(world.to_film(render([Scene((thing,))], 4, 16, 16))[0]).objects[0].colour == "white"
    for size in ((3, 3, 16, 16), (4, 3, 15, 16), (4, 3, 16, 15), (4, 1, 16, 16)):
        with pytest.raises(ValueError, match="it takes"):
            referee.read(np.zeros(size, np.float32))
    large = to_pixels(np.zeros((4, 3, 70, 130), np.float32))
    assert large.shape == (4, 35, 65, 3) and np.allclose(large, 127.5)


def test_a_wall_is_a_broad_run_of_columns_in_most_frames():
    scene = Scene((Object("circle", "white", "small", "passes behind a wall", turn="right", x=-0.375,
                          velocity=(0.75, 0.0)),))  # fmt: skip
    pixels = to_pixels(film_of(scene))
    edges = _find_wall(pixels)
    assert edges.shape == (9, 2) and np.abs(edges - (16 + 32 * np.array(scene.wall))).max() <= 1
    without = np.full_like(pixels, 16.0)
    for bare, found in ((2, True), (3, False)):
        some = pixels.copy()
        some[:bare] = without[:bare]
        assert (_find_wall(some) is not None) is found
    narrow = without.copy()
    narrow[:, :, 10:14] = (112, 58, 44)
    assert _find_wall(narrow) is None
    labels = np.zeros((2, 12), int)
    labels[0, 1:3], labels[0, 5:10], labels[1, 7:9], labels[1, 0:1] = 1, 2, 3, 4
    assert [run for (run,) in _slices_by_frame(labels, 4, 2)] == [slice(5, 10), slice(7, 9)]


def test_dirt_in_one_frame_is_left_out_of_the_mask():
    mask = np.zeros((9, 32, 32), np.float32)
    mask[:, 10:18, 10:18] = 1
    [whole] = _follow(mask, None)
    assert (whole == mask).all()
    spotted = mask.copy()
    spotted[4, 28, 28] = 1
    spotted[5, 2:4, 2] = 1
    [clean] = _follow(spotted, None)
    assert (clean == mask).all()
    two = mask.copy()
    two[:, 22:28, 22:28] = 1
    assert len(_follow(two, None)) == 2
    assert _follow(np.zeros_like(mask), None) == []


# ------------------------------------------------------------------------------------------------------ the fit


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fit_finds_its_way_from_a_pixel_off(shape):
    rng = np.random.default_rng(SHAPES.index(shape))
    poses = np.stack([rng.uniform(-0.1, 0.1, 12), rng.uniform(-0.1, 0.1, 12), rng.uniform(0.15, 0.24, 12),
                      np.zeros(12)], 1)  # fmt: skip
    pieces, seen = world.coverage([shape], poses[None], 32, 32)[0], np.ones((12, 32, 32), bool)
    start = poses + np.array([0.7, -0.7, 0.5, 0]) / 32 * rng.choice((-1, 1), (12, 4))
    apart, _, radius = distances(pieces, seen, shape, start[None])
    assert apart.max() < 0.05 and np.abs(radius / 32 - poses[:, 2]).max() < 0.005


# ---------------------------------------------------------------------------------------------------- the delay


def test_a_delay_needs_both_sides_and_four_frames():
    thing = Object("circle", "red", "small", "passes behind a wall", turn="right", x=-0.375, velocity=(0.75, 0.0))
    report = referee.read(film_of(Scene((thing,)), 16))
    [seen] = report.objects
    at = seen.trajectory[:, 0]
    before = np.flatnonzero(at < -0.05)
    assert abs(_delay(report, at, before, seen, 0.0)) < 0.02
    assert np.isnan(_delay(report, at, before, replace(seen, trajectory=np.full((16, 2), np.nan)), 0.0))
    few = seen.trajectory.copy()
    few[:-1] = np.nan
    assert np.isnan(_delay(report, at, before[:2], replace(seen, trajectory=few), 0.0))
    assert abs(_delay(report, at, before[:3], replace(seen, trajectory=few), 0.0)) < 0.05
