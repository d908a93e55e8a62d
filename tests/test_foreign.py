"""What is no picture of this world is told, at 32 x 32 pixels, and hardly ever a true one: measured on both kinds."""

import math
import os
import random
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from soralab import world
from soralab.datasets import stills
from soralab.datasets.short_films import film_scene
from soralab.files.films import read_film, save_film
from soralab.files.upright import resized
from soralab.world.foreign import is_foreign, shares

REAL = Path(os.environ.get("SORALAB_DATA", "nowhere"))
BLACK, PAPER, SKY = (16, 16, 20), (255, 255, 255), (110, 160, 220)


def seen(path):
    """Up to four frames of a file, as `soralab ask` shows them."""
    film = read_film(path, height=32, width=32)
    return film[torch.arange(min(4, len(film))) * len(film) // min(4, len(film))]


def alarms(pictures):
    """How many of them are foreign, and of how many."""
    marks = [is_foreign(picture) for picture in pictures]
    return sum(marks), len(marks)


def stills_of(count, side=32, seed=40):
    """Pictures [3, side, side] of one or two things."""
    return stills.pictures([stills.sample(seed, k, "test", 1 + k % 2) for k in range(count)], side)


def image(picture):
    """A picture [3, height, width] in [-1, 1] as Pillow's."""
    return Image.fromarray(((picture.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8))


@pytest.mark.parametrize("level", ["simple", "full"])
@pytest.mark.parametrize("height, width", [(32, 32), (64, 64)])
def test_true_films_of_every_ground_camera_and_split_are_none(level, height, width):
    films = [world.clip(41, k, 4, height, width, level, world.SPLITS[k % 3])[0] for k in range(125)]
    shown = [torch.stack([resized(np.asarray(image(frame)), 32, 32) for frame in film]) for film in films]
    assert alarms(shown) == (0, 125)


def test_the_pictures_and_films_that_are_asked_about_are_none():
    films = [world.to_film(world.render([film_scene(42, k, "test")], 4, 32, 32))[0] for k in range(100)]
    assert alarms(films) == (0, 100)
    assert alarms(stills_of(300)[:, None]) == (0, 300)


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
def test_a_true_film_is_none_when_it_has_been_through_a_file(tmp_path, suffix):
    films = [world.clip(43, k, 4, level="full")[0] for k in range(25)]
    assert alarms(seen(save_film(tmp_path / f"a.{suffix}", film)) for film in films) == (0, 25)


@pytest.mark.parametrize("kind, options", [
    ("jpg", {"quality": 75}), ("jpg", {"quality": 40}), ("webp", {"quality": 80}), ("gif", {}),
])  # fmt: skip
def test_a_true_picture_is_none_when_it_was_scaled_and_packed(tmp_path, kind, options):
    rng, wrong = random.Random(44), 0
    for picture in stills_of(100, side=64):
        side = rng.randrange(60, 400)
        image(picture).resize((side, side), rng.choice([0, 1, 2, 3])).save(tmp_path / f"a.{kind}", **options)
        wrong += is_foreign(seen(tmp_path / f"a.{kind}"))
    assert wrong <= 1


@torch.no_grad()
def test_films_that_chapter_16_makes_are_none():
    from soralab.sora import Filmmaker

    prompts = ["a small red circle slides right", "a large white moon bounces", "a medium cyan cross spins clockwise",
               "a large pink square passes behind a wall"]  # fmt: skip
    films = Filmmaker.load().film(prompts, seed=3, steps=4)
    assert alarms(films[:, ::3].clamp(-1, 1)) == (0, 4)


# -------------------------------------------------------------------------------------------------------------- foreign


def painted(ground, colours, count=20):
    """Two things on a ground of this colour: pictures [1, 3, 32, 32]."""
    found = []
    for k in range(count):
        scene = stills.sample(45, k, "test", 2)
        picture = torch.tensor(ground, dtype=torch.float32)[:, None, None].expand(3, 32, 32)
        own = [world.PALETTE[o.colour] for o in scene.objects] if colours is None else colours
        for mask, colour in zip(world.truth([scene], 1, 32, 32)[0]["masks"][:, 0], own, strict=True):
            picture = picture + torch.tensor(mask) * (torch.tensor(colour)[:, None, None] - picture)
        found.append(picture[None] / 127.5 - 1)
    return found


def test_the_same_things_on_paper_or_in_the_sky_are_foreign():
    assert alarms(painted(BLACK, None)) == (0, 20)
    assert alarms(painted(PAPER, None)) == alarms(painted(SKY, None)) == (20, 20)
    assert alarms(painted(PAPER, [(0, 0, 0)] * 2)) == (20, 20)


def test_where_no_thing_has_a_colour_of_the_world_all_is_foreign():
    assert alarms(painted(BLACK, [(150, 150, 170), (130, 150, 130)])) == (20, 20)
    assert alarms(painted(BLACK, [(150, 150, 170), world.PALETTE["red"]])) == (0, 20)  # one that has is enough


def test_a_dark_ground_and_a_thing_are_not_enough():
    draw = torch.Generator().manual_seed(49)
    pictures = painted(BLACK, None)
    for picture in pictures:
        picture[..., 20:] = torch.rand(1, 3, 32, 12, generator=draw) * 2 - 1
    assert alarms(pictures) == (20, 20)


def smooth(generator, light=0.0, contrast=1.0):
    """A picture of soft spots."""
    spots = torch.randn(1, 3, 4, 4, generator=generator)
    wide = torch.nn.functional.interpolate(spots, size=(32, 32), mode="bicubic")
    return (contrast * wide + light).clamp(-1, 1)


def test_noise_gradients_clouds_and_what_is_empty_are_foreign():
    draw = torch.Generator().manual_seed(46)
    noise = [torch.rand(1, 3, 32, 32, generator=draw) * 2 - 1 for _ in range(20)]
    noise += [torch.rand(1, 1, 32, 32, generator=draw).expand(1, 3, 32, 32) * 2 - 1 for _ in range(20)]
    ends = torch.rand(20, 2, 3, 1, 1, generator=draw) * 2 - 1
    slope = torch.linspace(0, 1, 32).expand(32, 32)
    assert alarms(noise) == (40, 40)
    assert alarms((a + (b - a) * slope)[None] for a, b in ends) == (20, 20)
    assert alarms(smooth(draw) for _ in range(20)) == (20, 20)
    assert alarms(smooth(draw, -0.7, 0.2) for _ in range(20)) == (20, 20)
    assert alarms(torch.full((1, 3, 32, 32), light) for light in (-1, -0.87, -0.2, 0, 1)) == (5, 5)


def page(rng, paper, ink):
    """A page of text on a screen, [1, 3, 32, 32]."""
    shown = Image.new("RGB", (640, 480), paper)
    draw = ImageDraw.Draw(shown)
    for y in range(8, 470, 14):
        words = "".join(rng.choice("abcdefghij klmnop qrstu") for _ in range(rng.randrange(10, 90)))
        draw.text((rng.randrange(8, 80), y), words, fill=ink)
    return resized(np.asarray(shown), 32, 32)[None]


def test_a_page_on_a_screen_is_foreign_light_or_dark():
    rng = random.Random(47)
    assert alarms(page(rng, PAPER, (30, 30, 30)) for _ in range(10)) == (10, 10)
    assert alarms(page(rng, (30, 30, 30), (212, 212, 212)) for _ in range(10)) == (10, 10)


def test_a_photograph_a_logo_and_a_drawing_are_foreign():
    folder = Path(matplotlib.get_data_path()) / "sample_data"
    names = ("grace_hopper.jpg", "logo2.png", "Minduka_Present_Blue_Pack.png")
    assert alarms(seen(folder / name) for name in names) == (3, 3)


@pytest.mark.parametrize("data, pattern, missed", [
    ("flickr8k_mini", "*.jpg", 0.05), ("oxford_pets_mini", "*.jpg", 0.05), ("isbi2012", "*.png", 0.0),
    ("ucf101_mini", "*.avi", 0.0),
])  # fmt: skip
def test_real_photographs_and_films_are_foreign(data, pattern, missed):
    files = sorted((REAL / data).rglob(pattern))[:60]
    if not files:
        pytest.skip(f"{data} is not here: SORALAB_DATA names the folder of the real sets")
    wrong, of = alarms(map(seen, files))
    assert of - wrong <= math.floor(missed * of)


# ------------------------------------------------------------------------------------------------------------ its parts


def test_shares_count_pixels_and_take_the_ground_that_explains_most():
    picture = np.full((10, 10, 3), 104, np.uint8)
    picture[..., 2] = 108
    picture[:2] = world.PALETTE["red"]
    picture[8:] = 180, 180, 180  # nothing of the world's; the row beside the ground is no mixture of it and a thing
    assert shares(picture) == pytest.approx((0.8, 0.6, 0.2))
    stripes = np.full((8, 8, 3), 40)
    stripes[:, 4:] = 62, 62, 69  # halfway from the dark stripe to the light one
    assert shares(stripes) == pytest.approx((1, 1, 0))
    dots = np.full((8, 8, 3), BLACK) + 80 * (np.indices((8, 8)).sum(0) % 3 == 0)[..., None]  # a GIF's grey of 27 to 43
    assert shares(dots)[1] == 1
    assert shares(np.zeros((4, 4, 3))) == pytest.approx((1, 1, 0))  # pure black is the black ground


def test_one_frame_with_a_thing_is_enough_and_numpy_is_taken():
    film = world.clip(48, 3, 4, level="simple")[0].numpy()
    assert not is_foreign(film)
    assert not is_foreign(np.concatenate([np.full_like(film[:3], BLACK[0] / 127.5 - 1), film[:1]]))
    assert is_foreign(np.concatenate([-film, film[:1]]))  # four negatives and one that is right
