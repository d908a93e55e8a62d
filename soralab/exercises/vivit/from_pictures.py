"""A reader of films that starts as a reader of pictures."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(embed: Tensor, positions: Tensor, t: int, n_t: int) -> tuple[Tensor, Tensor]:
    """A film reader's embedding [dim, t * values] and positions [1 + n_t * N, dim], from a picture reader's.

    embed [dim, values]: E_image, which makes a patch of so many values a token. A tubelet's values are those of its t
    frames, one frame after the other, each in the patch's order. The new E reads the frame number floor(t / 2) of each
    tubelet, counted from 0, as E_image would, and no other (Eq. 9).
    positions [1 + N, dim]: the class token's, then those of the N patches. A film has one class token, and n_t * N
    tubelets over time, then places; at the start a tubelet's position says where it is and not when.
    """
    raise NotImplementedError


def solution(embed: Tensor, positions: Tensor, t: int, n_t: int) -> tuple[Tensor, Tensor]:
    """A film reader's embedding [dim, t * values] and positions [1 + n_t * N, dim], from a picture reader's."""
    frames = [torch.zeros_like(embed)] * t
    frames[t // 2] = embed
    return torch.cat(frames, dim=1), torch.cat([positions[:1], positions[1:].repeat(n_t, 1)])


def _case(dim: int, values: int, places: int, t: int, n_t: int, dtype=torch.float32) -> tuple:
    return torch.randn(dim, values, dtype=dtype), torch.randn(1 + places, dim, dtype=dtype), t, n_t


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 1, 1, 1), "a film of one frame: the picture reader")
    yield Case(_case(2, 2, 2, 2, 1), "one tubelet deep, of two frames")
    yield Case(_case(2, 3, 2, 1, 2), "tubelets of one frame")
    yield Case(_case(2, 3, 3, 3, 2), "three frames: a true middle")
    yield Case(_case(3, 4, 4, 4, 4), "four frames, four of them, four places")
    yield Case(_case(4, 12, 4, 2, 3), "patches of 2 x 2 in colour")
    yield Case(_case(3, 5, 2, 5, 3, torch.float64), "float64")
    for _ in range(4):
        yield Case(_case(*torch.randint(2, 6, (5,)).tolist()))


def _film(embed: Tensor, t: int, place: int) -> Tensor:
    return torch.cat([embed if k == place else torch.zeros_like(embed) for k in range(t)], dim=1)


def before_the_middle(embed, positions, t, n_t):
    return _film(embed, t, (t - 1) // 2), solution(embed, positions, t, n_t)[1]


def in_the_first(embed, positions, t, n_t):
    return _film(embed, t, 0), solution(embed, positions, t, n_t)[1]


def in_the_last(embed, positions, t, n_t):
    return _film(embed, t, t - 1), solution(embed, positions, t, n_t)[1]


def averaged(embed, positions, t, n_t):
    return embed.repeat(1, t) / t, solution(embed, positions, t, n_t)[1]


def everywhere(embed, positions, t, n_t):
    return embed.repeat(1, t), solution(embed, positions, t, n_t)[1]


def frames_interleaved(embed, positions, t, n_t):
    slots = torch.stack([embed if k == t // 2 else torch.zeros_like(embed) for k in range(t)], dim=-1)
    return slots.flatten(1), solution(embed, positions, t, n_t)[1]


def _places(make):
    return lambda embed, positions, t, n_t: (solution(embed, positions, t, n_t)[0], make(positions, t, n_t))


EXERCISE = Exercise(
    name="vivit.from_pictures",
    title="A film reader from a picture reader",
    difficulty=2,
    minutes=15,
    statement="""
        Films with labels are few, pictures are many. So a ViViT begins as a ViT that has read pictures: its blocks are
        taken over as they are, but two things do not fit (section 3.4). $E$ now has a tubelet's values to read, $t$
        times as many as a patch has; and there are $n_t$ times as many places. Make both, so that the film reader's
        first tokens are the picture reader's own, of one frame in each tubelet.
        """,
    hints=(
        "Two films that differ in all frames but number floor(t/2) of each tubelet: which tokens may differ at the "
        "start? And two tubelets at one place, in a film in which nothing moves?",
        "E: t blocks side by side, all zero but one. Positions: the whole list of places over again, n_t times, behind "
        "one class token. Is that what `repeat` does, or what `repeat_interleave` does?",
        "torch.cat along axis 1 of zeros and, at number t // 2, embed; torch.cat of the first row and of the other "
        "rows .repeat(n_t, 1).",
    ),
    compare="Compare: at its start this reader cannot tell a film from its reverse, if each tubelet has a true middle "
            "(t odd): why? What is the first thing that training must change?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "before_the_middle": Mistake(before_the_middle, "your frame is the one before the middle where t is even: "
                                     "floor(t / 2), counted from 0, is frame 1 of two and frame 2 of four."),
        "in_the_first": Mistake(in_the_first, "you read the first frame of each tubelet. Eq. (9) reads frame "
                                "floor(t / 2), counted from 0."),
        "in_the_last": Mistake(in_the_last, "you read the last frame of each tubelet. That is right for two frames "
                               "alone; it is number floor(t / 2)."),
        "averaged": Mistake(averaged, "you read every frame, each with 1 / t of E (Eq. 8, filter inflation). What "
                            "moves comes out as a smear, which the picture reader has never met; asked is Eq. (9), "
                            "which reads one frame sharply."),
        "everywhere": Mistake(everywhere, "you read every frame with the whole of E, so that a film in which nothing "
                              "moves gives t times as much. Asked is one frame (Eq. 9)."),
        "frames_interleaved": Mistake(frames_interleaved, "your E takes each value of all frames before the next "
                                      "value. In a tubelet's values the frames follow one another, each whole."),
        "each_place_in_a_row": Mistake(_places(lambda p, t, n_t: torch.cat([p[:1], p[1:].repeat_interleave(n_t, 0)])),
                                       "each place's position stands n_t times in a row (repeat_interleave). Tokens "
                                       "run over time first: all places of the first frame, then all of the next."),
        "class_tokens_position_too": Mistake(_places(lambda p, t, n_t: p.repeat(n_t, 1)), "the class token's position "
                                             "is repeated with the others. A film has one class token: one row, in "
                                             "front."),
        "class_token_forgotten": Mistake(_places(lambda p, t, n_t: p[1:].repeat(n_t, 1)), "the class token's position "
                                         "is missing: it is the first row, once."),
        "class_token_last": Mistake(_places(lambda p, t, n_t: torch.cat([p[1:].repeat(n_t, 1), p[:1]])), "the class "
                                    "token's position is the last row; it is the first."),
        "as_often_as_frames": Mistake(_places(lambda p, t, n_t: torch.cat([p[:1], p[1:].repeat(t * n_t, 1)])), "you "
                                      "repeat positions for every frame. A token is a tubelet of t frames: there are "
                                      "n_t of them over time."),
        "t_for_n_t": Mistake(_places(lambda p, t, n_t: torch.cat([p[:1], p[1:].repeat(t, 1)])), "you repeat positions "
                             "t times. t is how many frames a tubelet has; n_t is how many tubelets the film has "
                             "over time."),
        "later_ones_zero": Mistake(_places(lambda p, t, n_t: torch.cat([p, 0 * p[1:].repeat(n_t - 1, 1)])), "only the "
                                   "first tubelets over time have positions, the later ones zeros: they would not know "
                                   "where they are."),
        "shared_out": Mistake(_places(lambda p, t, n_t: torch.cat([p[:1], p[1:].repeat(n_t, 1) / n_t])), "you share "
                              "each position out over time. Every tubelet has the whole of its place's, as the "
                              "picture reader had."),
    },
)  # fmt: skip
