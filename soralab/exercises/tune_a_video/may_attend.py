"""Sparse-causal attention as one mask over all the tokens of a film."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(frames: int, places: int) -> Tensor:
    """Which token may attend to which, [frames * places, frames * places] of bool, True = may attend.

    The tokens of a film lie in one row, frame after frame, `places` of each frame. Row q is a query, column k a key.
    """
    raise NotImplementedError


def solution(frames: int, places: int) -> Tensor:
    """Which token may attend to which, [frames * places, frames * places] of bool, True = may attend."""
    frame = torch.arange(frames).repeat_interleave(places)
    asks, asked = frame[:, None], frame[None, :]
    return (asked == 0) | (asked == asks - 1)


def cases() -> Iterator[Case]:
    yield Case((3, 1), "one place a frame")
    yield Case((4, 2))
    yield Case((1, 3), "a single frame")
    yield Case((2, 2), "two frames: the first one is also the one before")
    yield Case((5, 1), "one place a frame")
    yield Case((1, 1), "one token")
    for _ in range(4):
        yield Case((int(torch.randint(3, 8, ())), int(torch.randint(2, 6, ()))))


def _pairs(frames: int, places: int) -> tuple[Tensor, Tensor]:
    frame = torch.arange(frames).repeat_interleave(places)
    return frame[:, None], frame[None, :]


def itself_too(frames, places):
    asks, asked = _pairs(frames, places)
    return (asked == 0) | (asked == asks - 1) | (asked == asks)


def itself_for_before(frames, places):
    asks, asked = _pairs(frames, places)
    return (asked == 0) | (asked == asks)


def all_before(frames, places):
    asks, asked = _pairs(frames, places)
    return (asked < asks) | ((asked == 0) & (asks == 0))


def causal(frames, places):
    asks, asked = _pairs(frames, places)
    return asked <= asks


def causal_in_tokens(frames, places):
    return torch.ones(frames * places, frames * places, dtype=torch.bool).tril()


def only_before(frames, places):
    asks, asked = _pairs(frames, places)
    return (asked == asks - 1) | ((asked == 0) & (asks == 0))


def the_first_sees_nobody(frames, places):
    asks, asked = _pairs(frames, places)
    return ((asked == 0) & (asks > 0)) | (asked == asks - 1)


def wraps_round(frames, places):
    asks, asked = _pairs(frames, places)
    return (asked == 0) | (asked == (asks - 1) % frames)


def turned_over(frames, places):
    return solution(frames, places).T


def hidden_for_seen(frames, places):
    return ~solution(frames, places)


def tokens_for_frames(frames, places):
    token = torch.arange(frames * places)
    return (token[None, :] == 0) | (token[None, :] == token[:, None] - 1)


def place_after_place(frames, places):
    frame = torch.arange(frames).repeat(places)
    return (frame[None, :] == 0) | (frame[None, :] == frame[:, None] - 1)


EXERCISE = Exercise(
    name="tune_a_video.may_attend",
    title="Who sees whom",
    difficulty=1,
    minutes=10,
    statement="""
        The package gathers the keys of frame 1 and of frame i - 1 and lays them side by side. The same attention is one
        mask over all tokens of the film. Write that mask. It is the quickest way to see what sparse-causal attention
        leaves out, and it is where most people slip: read the formula once more, and ask of each frame whether it
        meets *itself*.
        """,
    hints=(
        "Which frame is each token of? The rest is a question to two frames: may this one see that one?",
        "K = [z_1, z_(i-1)]. Frame 1 has none before it, and meets itself there. No other frame does.",
        "frame = torch.arange(frames).repeat_interleave(places); compare frame[None, :] with 0, and with "
        "frame[:, None] - 1.",
    ),
    compare="Compare: how many columns are True in the row of a token, however long the film?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "itself_too": Mistake(itself_too, "every frame meets itself as well. In the formula K holds the first frame "
                              "and the one before, and not frame i: only its queries are its own."),
        "itself_for_before": Mistake(itself_for_before, "each frame meets the first one and itself. The second half of "
                                     "K is the frame before."),
        "all_before": Mistake(all_before, "each frame meets all frames before it. Sparse means: the first, and the one "
                              "before. What is between is left out."),
        "causal": Mistake(causal, "that is causal attention over frames: each meets all up to itself. Here it meets "
                          "the first and the one before."),
        "causal_in_tokens": Mistake(causal_in_tokens, "that is a language model's mask, token by token. A film is "
                                    "causal in its frames: within one, all places are alike."),
        "only_before": Mistake(only_before, "each frame meets the one before alone. Without the first frame a thing "
                               "drifts: that one is in every frame's keys."),
        "the_first_sees_nobody": Mistake(the_first_sees_nobody, "the first frame sees nobody, and a softmax over "
                                         "nothing is NaN. There is none before it, so it meets itself."),
        "wraps_round": Mistake(wraps_round, "your first frame meets the last one: in Python -1 is the end. There is "
                               "none before the first, so it meets itself."),
        "turned_over": Mistake(turned_over, "rows and columns are exchanged: row q is who asks. Yours lets the first "
                               "frame look ahead."),
        "hidden_for_seen": Mistake(hidden_for_seen, "True and False are exchanged. In this course True means: may "
                                   "attend."),
        "tokens_for_frames": Mistake(tokens_for_frames, "you count tokens. The first frame is its first `places` "
                                     "tokens, and so is the one before."),
        "place_after_place": Mistake(place_after_place, "your tokens lie place after place. Here all places of the "
                                     "first frame come first, then those of the second."),
    },
)  # fmt: skip
