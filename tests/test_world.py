"""The world: the same bytes for ever, nothing invisible, nothing outside the frame, truth that agrees with pixels."""

import hashlib
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from soralab import world
from soralab.world.render import BACKDROPS, PALETTE, WALL_COLOUR, render, screen_path, truth
from soralab.world.sampling import sample_scene
from soralab.world.scene import (
    CLOCK,
    GRAVITY,
    INVISIBLE,
    RESTITUTION,
    WALL,
    Object,
    Scene,
    bounce_height,
    held_out,
)  # fmt: skip

SCENES = {
    (level, split): [sample_scene(5, k, level, split) for k in range(400)]
    for level, split in itertools.product(world.LEVELS, world.SPLITS)
}
EVERY = [scene for scenes in SCENES.values() for scene in scenes]


def digest(films: np.ndarray) -> str:
    return hashlib.sha256(films.tobytes()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------ determinism


def test_a_clip_is_the_same_in_any_batch_and_order():
    scenes = [sample_scene(0, k) for k in range(40)]
    together = render(scenes, 8, 32, 32)
    for k in (0, 7, 39):
        assert (render([sample_scene(0, k)], 8, 32, 32)[0] == together[k]).all()
    assert (render(scenes[::-1], 8, 32, 32)[::-1] == together).all()


def test_a_clip_is_the_same_in_another_process():
    code = (
        "import hashlib; from soralab.world.render import render; from soralab.world import sample_scene;"
        "print(hashlib.sha256(render([sample_scene(3, k) for k in range(20)]).tobytes()).hexdigest()[:16])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert answer.stdout.strip() == digest(render([sample_scene(3, k) for k in range(20)]))


def test_scenes_never_change():
    """Checkpoints and cards were made from these films: a change here is a change of the data set."""
    scenes = (sample_scene(0, k, level) for level in world.LEVELS for k in range(50))
    words = [[(o.shape, o.colour, o.size, o.motion, o.speed, o.turn) for o in scene.objects] for scene in scenes]
    described = "\n".join(map(repr, words))
    assert hashlib.sha256(described.encode()).hexdigest()[:16] == PINNED


PINNED = "9e7fafc9e78c9099"


@pytest.mark.parametrize("level", world.LEVELS)
def test_pixels_never_change(level):
    """IEEE arithmetic alone makes them, so they are the same on every machine."""
    assert digest(render([sample_scene(0, k, level) for k in range(30)])) == PIXELS[level]


PIXELS = {"simple": "164c49d2a408ff12", "full": "dc01b9af2ff73f2a"}


def test_seed_index_split_and_level_all_matter():
    base = sample_scene(0, 0)
    others = [sample_scene(1, 0), sample_scene(0, 1), sample_scene(0, 0, split="test"), sample_scene(0, 0, "simple")]
    assert all(other != base for other in others)


@pytest.mark.parametrize(("frames", "height", "width"), [(16, 64, 96), (9, 96, 64), (1, 32, 32), (8, 24, 72)])
def test_native_sizes(frames, height, width):
    films, scenes = world.clips(2, range(12), frames, height, width)
    assert films.shape == (12, frames, 3, height, width)
    assert -1 <= films.min() and films.max() <= 1
    for scene in scenes:
        assert scene.aspect == width / height
        assert inside(scene)


def test_every_second_frame_of_a_longer_clip_is_the_shorter_clip():
    scenes = SCENES["full", "train"][:60]
    assert (render(scenes, 16, 32, 32)[:, ::2] == render(scenes, 8, 32, 32)).all()


def test_what_happens_next_continues_the_clip():
    scene = Scene((Object("circle", "red", "small", "slides right", "slow", x=-0.3, velocity=(0.28, 0.0)),))
    later = render([scene], 8, 32, 32, start=1.0, end=2.0)[0]
    path = screen_path(scene, 0, [0.0, 1.0])
    shift = round((path[1][0] - path[0][0]) * 32)
    now = render([scene], 8, 32, 32)[0]
    assert abs(now[0].astype(int)[:, :, : 32 - shift] - later[0].astype(int)[:, :, shift:]).mean() < 2


# ------------------------------------------------------------------------------------------------- what can be seen


def inside(scene) -> bool:
    half_x, half_y = scene.half
    for k, obj in enumerate(scene.objects):
        for x, y, radius, _ in screen_path(scene, k, CLOCK):
            reach = radius * obj.reach - 0.02
            if abs(x) + reach > half_x or abs(y) + reach > half_y:
                return False
    return True


def test_everything_stays_inside_the_frame():
    assert all(inside(scene) for scene in EVERY)
    out = Scene((Object("circle", "red", "small", "slides right", "slow", x=0.3, velocity=(0.28, 0.0)),))
    assert not inside(out)  # the check itself can fail


def test_nothing_invisible_is_generated():
    for scene in EVERY:
        for obj in scene.objects:
            assert (obj.shape, obj.motion) not in INVISIBLE
            if obj.motion.startswith("slides"):
                (x0, y0, *_), (x1, y1, *_) = obj.pose(0.0), obj.pose(7 / 8)
                assert 32 * max(abs(x1 - x0), abs(y1 - y0)) > 4  # pixels, over eight frames
        if scene.camera != "still":
            assert scene.background in ("striped", "checkered")


def test_only_what_moves_along_has_a_velocity():
    for obj in (obj for scene in EVERY for obj in scene.objects):
        assert (obj.velocity != (0.0, 0.0)) == (obj.motion.startswith("slides") or obj.motion == WALL)
        assert (obj.phase != 0) == (obj.motion in ("orbits", "spins")) and (obj.orbit > 0) == (obj.motion == "orbits")


def test_objects_of_a_scene_have_different_colours():
    assert all(len({o.colour for o in s.objects}) == len(s.objects) for s in EVERY)


def test_objects_overlap_only_where_the_scene_says_so():
    for scene in SCENES["full", "train"][:200]:
        masks = truth([scene], 8, 64, 64)[0]["masks"]
        poses = np.array([screen_path(scene, k, [j / 8 for j in range(8)]) for k in range(len(scene.objects))])
        whole = world.coverage([o.shape for o in scene.objects], poses, 64, 64)
        hidden = (whole - masks).sum(axis=(2, 3)).max()
        if scene.relation and scene.relation.kind == "in front of":
            assert hidden > 20
        elif scene.relation and scene.relation.kind == "bumps into":
            assert hidden < 4  # they touch, so the anti-aliased edges share pixels
        elif not scene.wall:
            assert hidden < 1


def test_the_wall_hides_what_passes_behind_it():
    scenes = [s for s in SCENES["simple", "train"] if s.wall]
    assert len(scenes) > 10
    for scene, facts in zip(scenes, truth(scenes, 16, 64, 64), strict=True):
        area = facts["masks"][0].sum(axis=(1, 2))
        assert area[0] > 0.7 * area.max() and area[6:11].min() < 0.05 * area.max(), scene


def test_every_word_of_the_world_is_used():
    objects = [o for s in SCENES["full", "train"] + SCENES["simple", "train"] for o in s.objects]
    assert {o.shape for o in objects} == set(world.SHAPES)
    assert {o.colour for o in objects} == set(world.COLOURS)
    assert {o.size for o in objects} == set(world.SIZES)
    assert {o.motion for o in objects} == set(world.MOTIONS)
    full = SCENES["full", "train"]
    assert {s.background for s in full} == set(world.BACKGROUNDS)
    assert {s.camera for s in full} == set(world.CAMERAS)
    assert {s.relation.kind for s in full if s.relation} == set(world.RELATIONS)
    assert {len(s.objects) for s in full} == {1, 2, 3}


# ------------------------------------------------------------------------------------------------------------ splits


def test_training_never_sees_a_held_out_combination():
    for (_, split), scenes in SCENES.items():
        for scene in scenes:
            found = [held_out(o.shape, o.colour, o.motion) for o in scene.objects]
            assert any(found) == (split == "held_out")


def test_every_shape_gives_up_one_colour_and_one_motion():
    pairs = [(s, c) for s in world.SHAPES for c in world.COLOURS if held_out(s, colour=c)]
    assert len(pairs) == len(world.SHAPES) == len({s for s, _ in pairs}) == len({c for _, c in pairs})
    pairs = [(s, m) for s in world.SHAPES for m in world.MOTIONS if held_out(s, motion=m)]
    assert len(pairs) == len(world.SHAPES) == len({s for s, _ in pairs})


# ------------------------------------------------------------------------------------------------------------- truth


def test_the_film_can_be_painted_again_from_the_truth():
    scenes = [s for s in SCENES["full", "train"] if s.background in ("black", "grey") and s.camera == "still"][:40]
    for scene, film, facts in zip(scenes, render(scenes, 8, 32, 32), truth(scenes, 8, 32, 32), strict=True):
        back = np.array(BACKDROPS[scene.background][0], np.float32)[:, None, None]
        painted = np.zeros((8, 3, 32, 32), np.float32)
        left = np.ones((8, 1, 32, 32), np.float32)
        for obj, mask in zip(scene.objects, facts["masks"], strict=True):
            painted += mask[:, None] * np.array(PALETTE[obj.colour], np.float32)[:, None, None]
            left -= mask[:, None]
        if facts["wall"] is not None:
            painted += facts["wall"] * np.array(WALL_COLOUR, np.float32)[:, None, None]
            left -= facts["wall"]
        assert np.abs(painted + left * back - film).max() < 1.0  # rounding to whole grey levels


def test_boxes_and_trajectories_agree_with_the_masks():
    scenes = [s for s in SCENES["simple", "train"] if not s.wall][:60]
    for scene, facts in zip(scenes, truth(scenes, 8, 64, 64), strict=True):
        left, top, right, bottom = facts["boxes"][0].T
        mask = facts["masks"][0]
        grid = np.arange(64) + 0.5
        centre_x = (mask.sum(1) * grid).sum(1) / mask.sum((1, 2))
        assert (left <= centre_x).all() and (centre_x <= right).all()
        if scene.objects[0].shape in ("circle", "square", "cross", "ring"):  # whose centre of mass is the centre
            assert np.abs(centre_x - facts["trajectory"][0, :, 0]).max() < 0.3
        assert ((bottom - top) <= 2.6 * facts["radius"][0] + 2).all()


def test_bounces_obey_gravity_and_restitution():
    drop, step = 0.5, 1e-3
    times = np.arange(0, 1, step)
    height = np.array([bounce_height(u, drop) for u in times])
    speed = np.diff(height) / step
    flight = height[1:-1] > 0.02
    accelerations = (np.diff(speed) / step)[flight]
    assert np.abs(np.median(accelerations) + GRAVITY) < 0.01 * GRAVITY
    first = int(np.argmin(height[: len(times) // 2]))
    assert abs(-speed[first + 3] / speed[first - 4] - RESTITUTION) < 0.03
    assert height.min() >= 0 and abs(height[0] - drop) < 1e-9


@pytest.mark.parametrize("drop", [0.41, 0.5, 0.58])
def test_every_bounce_loses_the_same_share(drop):
    """Each flight is as high as the square of the restitution times the one before it, to the fourth bounce."""
    times = np.arange(0, 4, 1e-4)
    height = np.array([bounce_height(u, drop) for u in times])
    floors = np.flatnonzero((height[1:-1] <= height[:-2]) & (height[1:-1] < height[2:])) + 1
    peaks = [height[a:b].max() for a, b in itertools.pairwise(floors[:5])]
    assert np.allclose(peaks, [drop * RESTITUTION ** (2 * k) for k in (1, 2, 3, 4)], atol=1e-4)
    landings = math.sqrt(2 * drop / GRAVITY) * (1 + 2 * np.cumsum([0, *RESTITUTION ** np.arange(1, 4)]))
    assert np.allclose(times[floors[:4]], landings, atol=3e-4)
    assert bounce_height(60.0, drop) < 1e-3  # in the end it lies


def test_gravity_and_the_camera_are_given_in_pixels_and_frames():
    for frames, height, width in ((16, 64, 64), (40, 32, 48)):
        thing = Object("circle", "red", "small", "bounces", x=0.0, y=-0.2, floor=0.35)
        [facts] = truth([Scene((thing,), "striped", "pans right", aspect=width / height)], frames, height, width)
        y = facts["trajectory"][0, :, 1].astype(float)
        falling = int(frames * math.sqrt(2 * 0.55 / GRAVITY))
        assert np.allclose(np.diff(y[: falling + 1], 2), facts["gravity"], rtol=1e-2)
        assert np.allclose(np.diff(facts["camera"]), 0.375 * min(height, width) / frames, atol=1e-4)
        assert np.allclose(np.diff(facts["trajectory"][0, :, 0]), -np.diff(facts["camera"]), atol=1e-4)
        assert facts["restitution"] == RESTITUTION


def test_boxes_are_exact_to_the_pixel():
    """A box holds every pixel that is more than half covered, and each of its four sides touches one."""
    for facts in truth(SCENES["full", "train"][:80], 8, 48, 64):
        for masks, boxes in zip(facts["masks"], facts["boxes"], strict=True):
            for mask, box in zip(masks, boxes, strict=True):
                full = mask > 0.5
                if not full.any():
                    assert np.isnan(box).all()
                    continue
                left, top, right, bottom = (int(side) for side in box)
                inside = full[top:bottom, left:right]
                assert inside.sum() == full.sum()
                assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_a_bump_hands_the_motion_on():
    """The first thing comes, touches at half time and stays; the second stood and goes on with the same velocity."""
    bumps = [s for s in (sample_scene(7, k) for k in range(1500)) if s.relation and s.relation.kind == "bumps into"]
    assert len(bumps) > 30
    for scene in bumps:
        a, b = (scene.objects[k] for k in (scene.relation.a, scene.relation.b))
        assert a.motion == b.motion and a.velocity == b.velocity and a.velocity[0] != 0 == a.velocity[1]
        way = {"slides right": 1, "slides left": -1}[a.motion]
        before, half, after = (np.array([thing.pose(u)[:2] for thing in (a, b)]) for u in (0.2, 0.5, 0.9))
        (a0, b0), (a1, b1), (a2, b2) = (poses[:, 0] * way for poses in (before, half, after))
        assert a0 < a1 - 0.05 and a1 == pytest.approx(a2) and b0 == pytest.approx(b1) and b1 < b2 - 0.05
        reach = [thing.radius * (1.0 if thing.shape == "triangle" else thing.reach) for thing in (a, b)]
        assert b1 - a1 == pytest.approx(sum(reach), abs=1e-6)
        assert a.y == b.y and a2 == pytest.approx(a.pose(5.0)[0] * way)


# ----------------------------------------------------------------------------------------------------------- colours

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb, vision: str) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour 0..255 as somebody with this vision sees it."""
    c = np.array(rgb) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(a: np.ndarray, b: np.ndarray) -> float:
    """The difference that the eye sees between two Lab colours (Sharma, Wu and Dalal 2005)."""
    mean_chroma = (np.hypot(*a[1:]) + np.hypot(*b[1:])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7))
    (l1, c1, h1), (l2, c2, h2) = (
        (x[0], np.hypot(stretch * x[1], x[2]), np.degrees(np.arctan2(x[2], stretch * x[1])) % 360) for x in (a, b)
    )
    turn = (h2 - h1 + 180) % 360 - 180
    light, chroma, hue = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    waves = ((-0.17, 1, 30), (0.24, 2, 0), (0.32, 3, -6), (-0.20, 4, 63))
    t = 1 + sum(k * np.cos(np.radians(n * hue - shift)) for k, n, shift in waves)
    s_light = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    blue = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    rotate = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(blue))
    x, y, z = (l2 - l1) / s_light, (c2 - c1) / (1 + 0.045 * chroma), d_hue / (1 + 0.015 * chroma * t)
    return float(np.sqrt(x * x + y * y + z * z + rotate * y * z))


def test_ciede2000_agrees_with_its_authors():
    """Pairs 1, 7 and 25 of their table."""
    table = [((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425), ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
             ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644)]  # fmt: skip
    for a, b, wanted in table:
        assert abs(ciede2000(np.array(a), np.array(b)) - wanted) < 1e-4


@pytest.mark.parametrize("vision", VISION)
def test_colour_blind_readers_can_tell_the_colours_apart(vision):
    everything = {**PALETTE, "wall": WALL_COLOUR, "black": BACKDROPS["black"][0], "grey": BACKDROPS["grey"][0],
                  "dark stripe": BACKDROPS["striped"][0], "light stripe": BACKDROPS["striped"][1]}  # fmt: skip
    for a, b in itertools.combinations(everything, 2):
        if "stripe" in a or (a in ("black", "grey") and "stripe" in b) or (a == "black" and b == "grey"):
            continue  # backgrounds among themselves are told apart by their pattern
        distance = ciede2000(lab(everything[a], vision), lab(everything[b], vision))
        assert distance > 10, (a, b, round(distance, 1))


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(("arguments", "named"), [
    ({"level": "big"}, "level is 'big'"), ({"split": "dev"}, "split is 'dev'"), ({"aspect": 9.0}, "aspect is 9"),
])  # fmt: skip
def test_sampling_names_what_is_wrong(arguments, named):
    with pytest.raises(ValueError, match=named):
        sample_scene(0, 0, **arguments)


def test_rendering_names_what_is_wrong():
    with pytest.raises(ValueError, match="size is 0x32x32"):
        render([sample_scene(0, 0)], 0, 32, 32)


def test_the_wall_stands_alone():
    assert all(len(s.objects) == 1 for s in EVERY if any(o.motion == WALL for o in s.objects))
