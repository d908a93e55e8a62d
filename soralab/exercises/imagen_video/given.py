"""What a stage that adds frames is given: the smaller film in time with its size, and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(low: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """low [batch, n, c, height, width] as a film of eps's frames, with noise: of eps's shape.

    The n frames of low lie evenly over eps's frames [batch, frames, c, height, width], frames n or more: the first at
    its first, the last at its last. Frame k shows the latest frame of low that there was by then (not one that comes
    later). Then noise, of which each film has a level of its own, level [batch] from 0 to 1: alpha times the film and
    sigma times eps, with alpha = cos(pi / 2 level) and sigma = sin(pi / 2 level).
    """
    raise NotImplementedError


def solution(low: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """low [batch, n, c, height, width] as a film of eps's frames, with noise: of eps's shape."""
    n, frames = low.shape[1], eps.shape[1]
    held = low[:, [k * (n - 1) // max(frames - 1, 1) for k in range(frames)]]
    angle = (math.pi / 2 * level)[:, None, None, None, None]
    return angle.cos() * held + angle.sin() * eps


def _case(batch: int, n: int, frames: int, level: list[float] | None = None, dtype=torch.float32) -> tuple:
    c, height, width = torch.randint(1, 4, (3,)).tolist()
    low, eps = (torch.randn(batch, time, c, height, width, dtype=dtype) for time in (n, frames))
    levels = torch.rand(batch, dtype=dtype) if level is None else torch.tensor(level, dtype=dtype)
    return low, eps, levels


def cases() -> Iterator[Case]:
    yield Case(_case(1, 2, 3, [0.0]), "no noise: the frames alone")
    yield Case(_case(1, 3, 5, [0.0]), "no noise, 3 frames to 5")
    yield Case(_case(2, 5, 9, [0.0, 0.0]), "no noise, 5 frames to 9")
    yield Case(_case(1, 3, 15, [0.0]), "no noise, 3 frames to 15")
    yield Case(_case(1, 5, 5, [0.5]), "as many frames as there were")
    yield Case(_case(1, 1, 4), "one frame, held")
    yield Case(_case(1, 1, 1), "a picture")
    yield Case(_case(1, 4, 9), "frames that do not divide evenly")
    yield Case(_case(3, 5, 9, [0.1, 0.5, 0.9]), "each film its own level")
    yield Case(_case(2, 3, 5, [0.0, 1.0]), "one without noise, one that is nothing else")
    yield Case(_case(2, 3, 7, dtype=torch.float64), "float64")


def _walk(low, eps, level, held=None, shares=None):
    n, frames = low.shape[1], eps.shape[1]
    film = held(low, n, frames) if held else low[:, [k * (n - 1) // max(frames - 1, 1) for k in range(frames)]]
    angle = (math.pi / 2 * level)[:, None, None, None, None]
    alpha, sigma = shares(level[:, None, None, None, None]) if shares else (angle.cos(), angle.sin())
    return alpha * film + sigma * eps


def _index(which) -> object:
    return lambda low, n, frames: low[:, [min(max(which(k, n, frames), 0), n - 1) for k in range(frames)]]


def the_nearest(low, eps, level):
    return _walk(low, eps, level, _index(lambda k, n, t: math.floor(k * (n - 1) / max(t - 1, 1) + 0.5)))


def the_nearest_even(low, eps, level):
    return _walk(low, eps, level, _index(lambda k, n, t: round(k * (n - 1) / max(t - 1, 1))))


def the_next(low, eps, level):
    return _walk(low, eps, level, _index(lambda k, n, t: math.ceil(k * (n - 1) / max(t - 1, 1))))


def blocks(low, eps, level):
    return _walk(low, eps, level, _index(lambda k, n, t: k * n // t))


def blocks_cut_off(low, eps, level):
    return _walk(low, eps, level, _index(lambda k, n, t: k // -(-t // n)))


def level_as_angle(low, eps, level):
    return _walk(low, eps, level, shares=lambda s: (s.cos(), s.sin()))


def between(low, eps, level):
    def mixed(low, n, t):
        place = torch.tensor([k * (n - 1) / max(t - 1, 1) for k in range(t)]).to(low)
        first = place.floor().long().clamp(max=n - 1)
        share = (place - first)[:, None, None, None]
        return (1 - share) * low[:, first] + share * low[:, (first + 1).clamp(max=n - 1)]

    return _walk(low, eps, level, mixed)


def in_a_row(low, eps, level):
    return _walk(low, eps, level, _index(lambda k, n, t: k % n))


def noise_on_top(low, eps, level):
    return _walk(low, eps, level, shares=lambda s: (torch.ones_like(s), (math.pi / 2 * s).sin()))


def level_as_sigma(low, eps, level):
    return _walk(low, eps, level, shares=lambda s: ((1 - s**2).clamp(min=0).sqrt(), s))


def a_straight_line(low, eps, level):
    return _walk(low, eps, level, shares=lambda s: (1 - s, s))


def one_level_for_all(low, eps, level):
    return _walk(low, eps, level[:1].expand_as(level))


def noise_held_too(low, eps, level):
    n, frames = low.shape[1], eps.shape[1]
    return _walk(low, eps[:, [frames * (k * (n - 1) // max(frames - 1, 1)) // max(n, 1) for k in range(frames)]], level)


def shares_exchanged(low, eps, level):
    return _walk(low, eps, level, shares=lambda s: ((math.pi / 2 * s).sin(), (math.pi / 2 * s).cos()))


EXERCISE = Exercise(
    name="imagen_video.given",
    title="What a stage is given",
    difficulty=1,
    minutes=10,
    statement="""
        A stage that adds frames sees the film of the stage before it, frame for frame beside its own: frames are
        repeated until there are enough (section 2.3). Which one stands where is a matter of fence posts, and a frame
        from the future would tell a thing that moves where it will be. Then comes noise, in training of a level drawn
        for each film, in sampling of one that is chosen (section 2.5). Every frame has noise of its own, also those
        that show the same.
        """,
    hints=(
        "Five frames for nine moments: which moments do the five have themselves? And which frame is the latest at an "
        "odd one?",
        "Frame k stands at k (n - 1) / (frames - 1) of low's frames, rounded down; take care of one frame. The level "
        "wants four axes more.",
        "held = low[:, [k * (n - 1) // max(frames - 1, 1) for k in range(frames)]]; then cos(pi / 2 level) of it and "
        "sin(pi / 2 level) of eps.",
    ),
    compare="Compare: what does the stage learn from level 1, where nothing of the smaller film is left?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "the_nearest": Mistake(the_nearest, "you take the nearest frame, which may be one that is still to come. Round "
                               "down: the latest that there was."),
        "the_nearest_even": Mistake(the_nearest_even, "you round to the nearest frame, which may be one that is still "
                                    "to come. Round down: the latest that there was."),
        "the_next": Mistake(the_next, "you round up: between two frames you show the one that is still to come."),
        "blocks": Mistake(blocks, "you repeat each frame as often as the others (k n // frames). Then the last frame "
                          "of low comes too early: n frames have n - 1 gaps between them."),
        "blocks_cut_off": Mistake(blocks_cut_off, "you repeat each frame equally often and cut off what is too much, "
                                  "often the last frame of low itself. It belongs at the very end."),
        "level_as_angle": Mistake(level_as_angle, "you take the level for an angle and forget pi / 2: level 1 is noise "
                                  "alone, and yours still shows the film."),
        "between": Mistake(between, "you mix neighbours. A thing that moves would be seen twice, and half of it from "
                           "the future: repeat the latest frame."),
        "in_a_row": Mistake(in_a_row, "you play low again and again from its start: it is to be slowed down, not "
                            "repeated as a whole."),
        "noise_on_top": Mistake(noise_on_top, "you leave the film as loud as it was and add noise. Both have a share: "
                                "alpha^2 + sigma^2 = 1, as in the diffusion itself."),
        "level_as_sigma": Mistake(level_as_sigma, "you take the level for sigma. It is a time of the process, and "
                                  "sigma is sin(pi / 2 level)."),
        "a_straight_line": Mistake(a_straight_line, "your shares are 1 - level and level. That is another process; "
                                   "here they are cosine and sine."),
        "one_level_for_all": Mistake(one_level_for_all, "all films get the first one's level. Each has its own, so "
                                     "that a batch teaches many."),
        "noise_held_too": Mistake(noise_held_too, "you repeat the noise with the frames. Frames that show the same "
                                  "have other noise each: eps is as long as the film that you return."),
        "shares_exchanged": Mistake(shares_exchanged, "the shares are exchanged: level 0 is the film without noise."),
    },
)  # fmt: skip
