"""The referee: right on true films of every kind, and not fooled by films that are wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from soralab import world
from soralab.experiments.referee import KINDS
from soralab.world import physics, referee
from soralab.world.fit import AREA, MOON_CENTROID
from soralab.world.render import render
from soralab.world.sampling import sample_scene
from soralab.world.scene import GRAVITY, RESTITUTION, SHAPES, WALL, Object, Scene

COUNT = 60  # films of a kind; `soralab evaluate referee` reads thousands


def true_films(level: str, count: int, frames: int = 9, seed: int = 77, height: int = 32, width: int = 32):
    return world.clips(seed, range(count), frames, height, width, level, "test")


def find(motion: str, level: str = "simple", start: int = 0, **wanted):
    """The first scene whose (first) object has this motion and these attributes."""
    for k in range(start, start + 5000):
        scene = sample_scene(11, k, level, "test")
        obj = scene.objects[0]
        if obj.motion == motion and all(getattr(obj, key) == value for key, value in wanted.items()):
            return scene
    raise LookupError(motion)


def film_of(scene, frames: int = 9) -> torch.Tensor:
    return world.to_film(render([scene], frames))[0]


def verdict(film, scene) -> dict:
    return referee.score(referee.read(film), scene)


@pytest.mark.parametrize("kind", KINDS)
def test_true_films_are_read_right(kind):
    level, frames, height, width = KINDS[kind]
    count = COUNT if height == 32 else COUNT // 3
    films, scenes = true_films(level, count, frames, height=height, width=width)
    marks = [verdict(film, scene) for film, scene in zip(films, scenes, strict=True)]
    for column in ("shape", "colour", "motion", "count"):
        wrong = [k for k, mark in enumerate(marks) if not mark[column]]
        assert len(wrong) <= max(1, count // 50), (column, wrong)


def test_a_soft_and_noisy_film_is_still_read():
    films, scenes = true_films("simple", 60)
    rng = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.avg_pool3d(films.transpose(1, 2), (1, 3, 3), 1, (0, 1, 1)).transpose(1, 2)
    rough = (0.7 * films + 0.3 * soft + 0.04 * torch.randn(films.shape, generator=rng)).clamp(-1, 1)
    right = [verdict(film, scene)["all"] for film, scene in zip(rough, scenes, strict=True)]
    assert sum(right) >= 54


# ------------------------------------------------------------------------------------------------------ wrong films


def swap_half(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat([a[: len(a) // 2], b[len(b) // 2 :]])


def other(scene, **changes):
    return replace(scene, objects=(replace(scene.objects[0], **changes), *scene.objects[1:]))


def test_another_scene_is_not_this_one():
    scene = find("slides right", shape="square", colour="red")
    for changes in ({"colour": "blue"}, {"shape": "triangle"}, {"shape": "ring"}):
        mark = verdict(film_of(other(scene, **changes)), scene)
        assert not mark["all"] and not mark[next(iter(changes))]


def test_a_colour_that_changes_on_the_way_is_refused():
    scene = find("slides left", shape="square")
    colour = "white" if scene.objects[0].colour != "white" else "red"
    changed = swap_half(film_of(scene), film_of(other(scene, colour=colour)))
    assert not verdict(changed, scene)["all"]


def test_a_shape_that_changes_on_the_way_is_refused():
    scene = find("stays still", size="large", shape="square")
    changed = swap_half(film_of(other(scene, shape="ring")), film_of(other(scene, shape="triangle")))
    assert not verdict(changed, scene)["all"]


def test_a_film_shown_backwards_or_shuffled_is_another_film():
    scene = find("slides down", shape="circle")
    film = film_of(scene)
    assert verdict(film, scene)["all"]
    assert not verdict(film.flip(0), scene)["motion"]
    shuffled = film[[4, 0, 7, 2, 8, 1, 5, 3, 6]]
    assert not verdict(shuffled, scene)["motion"] and referee.read(shuffled).objects[0].motion is None
    assert not verdict(film[:1].expand(9, -1, -1, -1), scene)["motion"]


@pytest.mark.parametrize("motion", ["orbits", "spins", "passes behind a wall"])
def test_what_turns_must_turn_the_right_way(motion):
    for start in (0, 400, 800):
        scene = find(motion, start=start)
        film, turn = film_of(scene), scene.objects[0].turn
        mark = verdict(film, scene)
        assert mark["motion"] and mark["turn"] and mark["all"]
        [opposite] = {"clockwise", "anticlockwise"} - {turn} if motion != WALL else {"left", "right"} - {turn}
        assert referee.read(film).objects[0].turn == turn
        wrong = other(scene, turn=opposite)
        mark = verdict(film, wrong)
        assert not mark["turn"] and not mark["motion"] and not mark["all"] and mark["shape"]


def test_a_thing_that_moves_behind_another_is_seen_to_move():
    """Its mask has a hole that another thing cuts, and yet it is not the hole of a thing that stays."""
    for direction, (dx, dy) in (("right", (1, 0)), ("left", (-1, 0)), ("down", (0, 1))):
        path = {"x": -dx * 0.14, "y": -dy * 0.14, "velocity": (0.28 * dx, 0.28 * dy)}
        back = Object("square", "red", "large", f"slides {direction}", "slow", **path)
        front = Object("circle", "white", "small", "stays still", x=0.0, y=0.0)
        scene = Scene((back, front))
        by_colour = {seen.colour: seen for seen in referee.read(film_of(scene)).objects}
        assert by_colour["red"].motion == f"slides {direction}" and by_colour["white"].motion == "stays still"
        stands = replace(scene, objects=(replace(back, motion="stays still", velocity=(0.0, 0.0)), front))
        assert {seen.motion for seen in referee.read(film_of(stands)).objects} == {"stays still"}


def test_a_thing_that_slides_behind_another_is_not_one_that_stands_there():
    """At first it is whole, then more and more of it is hidden: what is seen of it fits no thing that stays."""
    for direction, (dx, dy) in (("right", (1, 0)), ("left", (-1, 0)), ("up", (0, -1)), ("down", (0, 1))):
        for start, at in ((-0.28, 0.17), (-0.2, 0.0)):
            path = {"x": dx * start, "y": dy * start, "velocity": (0.45 * dx, 0.45 * dy)}
            back = Object("square", "red", "medium", f"slides {direction}", "fast", **path)
            front = Object("circle", "white", "small", "stays still", x=dx * at, y=dy * at)
            seen = {thing.colour: thing.motion for thing in referee.read(film_of(Scene((back, front)))).objects}
            assert seen == {"red": f"slides {direction}", "white": "stays still"}


@pytest.mark.parametrize("side, frames", [(32, 33), (64, 33)])
def test_a_moon_that_the_wall_cuts_in_two_is_one_moon(side, frames):
    """Half-way in, its horns stand apart: both are its own."""
    scenes = [find(WALL, start=start, shape="moon") for start in range(0, 1000, 140)]
    films = render(scenes, frames, side, side)
    assert all(verdict(world.to_film(film), scene)["all"] for film, scene in zip(films, scenes, strict=True))


@pytest.mark.parametrize("there", [4, 6])
def test_things_of_one_colour_are_all_counted(there):
    places = [(-0.3, -0.3), (0.3, -0.3), (-0.3, 0.3), (0.3, 0.3), (0.0, 0.0), (0.0, -0.35)][:there]
    things = tuple(Object("circle", "red", "small", "stays still", x=x, y=y) for x, y in places)
    report = referee.read(world.to_film(render([Scene(things, "black")], 9, 48, 48))[0])
    assert report.count == there
    asked = [{"shape": "circle", "colour": "red"}]
    assert not referee.score_caption(report, 3 * asked)["all"] and referee.score_caption(report, there * asked)["count"]


def test_an_empty_film_shows_nothing():
    scene = find("stays still")
    film = torch.full((9, 3, 32, 32), -0.87)
    report = referee.read(film)
    assert report.count == 0 and not verdict(film, scene)["all"]


def test_two_where_one_is_wanted_is_refused():
    scene = find("stays still", size="small")
    film = film_of(scene)
    twice = film.clone()
    obj = scene.objects[0]
    shift = 16 if obj.x < 0 else -16
    moved = torch.roll(film, shift, dims=-1)
    away = (moved - film[0, :, 0, 0][:, None, None]).abs().amax(1, keepdim=True) > 0.2
    twice = torch.where(away, moved, twice)
    assert not verdict(twice, scene)["count"]


def test_a_speck_of_dirt_is_not_a_thing():
    scene = find("slides right", size="large")
    film = film_of(scene)
    film[:, :, 1, 1] = film.new_tensor([0.9, 0.9, 0.9])
    assert verdict(film, scene)["count"]


def test_dirt_as_large_as_a_thing_is_a_thing():
    scene = find("slides right", size="small")
    obj = scene.objects[0]
    colour = "white" if obj.colour != "white" else "red"
    blot = Object("square", colour, "small", "stays still", x=0.36, y=0.36 if obj.y < 0 else -0.36)
    film = film_of(replace(scene, objects=(*scene.objects, blot)))
    assert referee.read(film).count == 2 and not verdict(film, scene)["count"]


def test_a_thing_that_flickers_is_one_thing_but_one_that_vanishes_has_no_motion():
    scene = find("slides up", size="medium")
    film = film_of(scene)
    empty = world.to_film(render([other(scene, x=9.0)], 9))[0]
    flickers, vanishes = film.clone(), film.clone()
    flickers[3], vanishes[4:] = empty[3], empty[4:]
    assert verdict(flickers, scene)["all"]
    assert not verdict(vanishes, scene)["motion"] and referee.read(vanishes).objects[0].motion is None


def test_the_shape_behind_another_thing_must_hold():
    scenes = (sample_scene(11, k) for k in range(500))
    scene = next(s for s in scenes if s.relation and s.relation.kind == "in front of")
    film = film_of(scene)
    assert verdict(film, scene)["all"]
    back = scene.objects[0]
    shape = "circle" if back.shape not in ("circle", "ring") else "cross"
    assert not verdict(swap_half(film, film_of(other(scene, shape=shape))), scene)["all"]


def test_captions_are_judged_by_what_they_say():
    scene = find("spins", shape="square")
    report = referee.read(film_of(scene))
    obj = scene.objects[0]
    said = {"shape": obj.shape, "colour": obj.colour, "size": None, "motion": None, "speed": None, "turn": None}
    assert referee.score_caption(report, [said])["all"]
    assert not referee.score_caption(report, [{**said, "shape": "moon"}])["all"]
    assert not referee.score_caption(report, [said, {**said, "colour": "white"}])["count"]


# ---------------------------------------------------------------------------------------------------------- physics


def test_gravity_and_the_bounce_are_measured():
    falls = [physics.gravity(film_of(find("bounces", start=200 * k), 16)) for k in range(6)]
    assert all(abs(fall.gravity / GRAVITY - 1) < 0.01 for fall in falls)
    assert all(abs(fall.restitution - RESTITUTION) < 0.01 for fall in falls)


def test_another_gravity_is_noticed():
    scene = find("bounces")
    slow = world.to_film(render([scene], 16, 32, 32, end=0.70))[0]  # half the gravity, in lengths of this clip
    assert abs(physics.gravity(slow).gravity / GRAVITY - 0.49) < 0.1


def test_permanence_behind_the_wall():
    scene = find("passes behind a wall", shape="square", colour="red")
    film = film_of(scene, 16)
    assert physics.permanence(film).kept
    vanished = film.clone()
    vanished[8:] = vanished[7]  # it went in and never came out
    assert not physics.permanence(vanished).kept
    recoloured = swap_half(film, film_of(other(scene, colour="cyan"), 16))
    assert not physics.permanence(recoloured).kept


def test_what_comes_out_late_or_as_another_shape_is_noticed():
    scene = find("passes behind a wall", shape="circle", size="small")
    film = film_of(scene, 40)
    on_time, late = film[::4], film[[0, 4, 8, 12, 16, 20, 20, 20, 24, 28]]  # a fifth of a clip late
    assert physics.permanence(on_time).kept
    assert physics.permanence(late).delay > 0.1 and not physics.permanence(late).kept
    early = film[[0, 4, 8, 12, 24, 28, 32, 36, 38, 39]]  # the same, too soon
    assert physics.permanence(early).delay < -0.1 and not physics.permanence(early).on_time
    changed = physics.permanence(swap_half(film, film_of(other(scene, shape="triangle"), 40))[::4])
    assert changed.came_out and changed.same_colour and not changed.same_shape and not changed.kept


def test_physics_has_no_answer_where_there_is_none():
    still = film_of(find("stays still"))
    assert physics.gravity(still) is None and math.isnan(physics.bounce(still)) and physics.permanence(still) is None


# ------------------------------------------------------------------------------------------------- what it relies on


def test_areas_and_the_moons_centroid_are_the_renderers():
    drawn = world.coverage(SHAPES, np.array([[[0.0, 0.0, 0.35, 0.0]]] * len(SHAPES)), 400, 400)[:, 0]
    for shape, cover in zip(SHAPES, drawn, strict=True):
        assert abs(cover.sum() / 400**2 / 0.35**2 - AREA[shape]) < 0.01, shape
    moon = drawn[SHAPES.index("moon")].sum(0)
    assert abs((moon * ((np.arange(400) + 0.5) / 400 - 0.5)).sum() / moon.sum() / 0.35 - MOON_CENTROID) < 0.01


def test_background_and_camera_are_read():
    for background, camera in (("black", "still"), ("striped", "pans left"), ("checkered", "pans right")):
        thing = Object("circle", "yellow", "small", "stays still")
        report = referee.read(film_of(Scene((thing,), background, camera, texture=0.3)))
        assert (report.background, report.camera) == (background, camera)
        assert report.objects[0].motion == "stays still"  # in the world, though not on the screen


@pytest.mark.parametrize(("film", "said"), [
    (torch.zeros(3, 32, 32), r"shape \[3, 32, 32\]; it takes \[time >= 4"), (torch.zeros(2, 3, 32, 32), "time >= 4"),
    (torch.full((8, 3, 32, 32), math.nan), "not finite"),
])  # fmt: skip
def test_films_that_cannot_be_read_say_why(film, said):
    with pytest.raises(ValueError, match=said):
        referee.read(film)
