"""Attention over time: each place asks itself at all other times."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.blocks.attention import attention
from soralab.workbook.task import Case, Exercise, Mistake


def stub(q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
    """Attention over time, with one head: a token meets those of its own place in all frames of its film.

    q, k, v [films * frames, places, dim]: films lie one after another, each frame after frame. Returns the same shape.
    The logits are divided by sqrt(dim). `attention(q, k, v)` of soralab.blocks.attention takes [batch, heads, n, dim].
    """
    raise NotImplementedError


def solution(q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
    """Attention over time, with one head: a token meets those of its own place in all frames of its film."""
    q, k, v = (rearrange(x, "(film t) place c -> film place t c", t=frames) for x in (q, k, v))
    return rearrange(attention(q, k, v), "film place t c -> (film t) place c")


def _case(films: int, frames: int, places: int, dim: int, far: float = 0.0, dtype=torch.float32) -> tuple:
    q, k, v = (torch.randn(films * frames, places, dim, dtype=dtype) for _ in range(3))
    if far:  # logits that are all large, and differ as others do: so that gradients are more than rounding
        q[..., 0], k[..., 0] = far, far
    return q, k, v, frames


def cases() -> Iterator[Case]:
    yield Case(_case(1, 3, 2, 4), "one film")
    yield Case(_case(2, 3, 2, 4), "two films")
    yield Case(_case(1, 2, 1, 3), "one place")
    yield Case(_case(1, 1, 3, 3), "a single frame")
    yield Case(_case(2, 3, 3, 4), "as many places as frames")
    yield Case(_case(3, 2, 4, 5, far=25.0), "large logits")
    yield Case(_case(2, 4, 3, 6, dtype=torch.float64), "float64")
    for _ in range(3):
        films, frames, places = (int(torch.randint(2, 6, ())) for _ in range(3))
        yield Case(_case(films, frames, places, int(torch.randint(3, 9, ()))))


def among_places(q, k, v, frames):
    return attention(q[:, None], k[:, None], v[:, None])[:, 0]


def films_meet(q, k, v, frames):
    return solution(q, k, v, len(q))


def viewed(q, k, v, frames):
    films, places, dim = len(q) // frames, q.shape[1], q.shape[2]
    q, k, v = (x.reshape(films, places, frames, dim) for x in (q, k, v))
    return attention(q, k, v).reshape(films * frames, places, dim)


def frames_first(q, k, v, frames):
    q, k, v = (rearrange(x, "(t film) place c -> film place t c", t=frames) for x in (q, k, v))
    return rearrange(attention(q, k, v), "film place t c -> (t film) place c")


def all_tokens(q, k, v, frames):
    q, k, v = (rearrange(x, "(film t) place c -> film 1 (t place) c", t=frames) for x in (q, k, v))
    return rearrange(attention(q, k, v), "film 1 (t place) c -> (film t) place c", t=frames)


def not_brought_back(q, k, v, frames):
    q, k, v = (rearrange(x, "(film t) place c -> film place t c", t=frames) for x in (q, k, v))
    out = attention(q, k, v)
    return out.reshape(-1, q.shape[1], q.shape[3])


def causal(q, k, v, frames):
    q, k, v = (rearrange(x, "(film t) place c -> film place t c", t=frames) for x in (q, k, v))
    mask = torch.ones(frames, frames, dtype=torch.bool).tril()
    return rearrange(attention(q, k, v, mask), "film place t c -> (film t) place c")


def sparse(q, k, v, frames):
    q, k, v = (rearrange(x, "(film t) place c -> film place t c", t=frames) for x in (q, k, v))
    asks, asked = torch.arange(frames)[:, None], torch.arange(frames)[None]
    mask = (asked == 0) | (asked == asks - 1)
    return rearrange(attention(q, k, v, mask), "film place t c -> (film t) place c")


def itself_left_out(q, k, v, frames):
    q, k, v = (rearrange(x, "(film t) place c -> film place t c", t=frames) for x in (q, k, v))
    others = ~torch.eye(frames, dtype=torch.bool) if frames > 1 else None
    return rearrange(attention(q, k, v, others), "film place t c -> (film t) place c")


def over_queries(q, k, v, frames):
    q, k, v = (rearrange(x, "(film t) place c -> film place t c", t=frames) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-2)
    return rearrange(weights @ v, "film place t c -> (film t) place c")


def unscaled(q, k, v, frames):
    return solution(q * q.shape[-1] ** 0.5, k, v, frames)


EXERCISE = Exercise(
    name="tune_a_video.along_time",
    title="Each place at all times",
    difficulty=2,
    minutes=15,
    statement="""
        Frames lie in the batch, so the painter's layers never notice that it is a film. The attention over time is the
        layer that does: for a while it lays *places* in the batch, and time where tokens lie. Both orders have the
        same number of numbers, so a wrong one gives the right shape.
        """,
    hints=(
        "For one token: which tokens may it meet? How many are they?",
        "Split the first axis into films and frames, bring frames next to the channels, attend, and go the same way "
        "back.",
        'rearrange(x, "(film t) place c -> film place t c", t=frames), attention, and the arrow turned round.',
    ),
    compare="Compare: what does x.reshape(films, places, frames, dim) hold where yours has a place's times?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "among_places": Mistake(among_places, "a token meets the places of its own frame and never sees another frame. "
                                "It should meet its own place in all frames."),
        "films_meet": Mistake(films_meet, "the films of a batch meet each other. A token meets the frames of its own "
                              "film."),
        "viewed": Mistake(viewed, "you reshape without exchanging axes. The shape is right, and what lies beside each "
                          "other are places of a frame, not times of a place."),
        "frames_first": Mistake(frames_first, "you split the first axis as if film after film came within each frame. "
                                "Here each film comes whole, frame after frame."),
        "all_tokens": Mistake(all_tokens, "a token meets all places of all frames. Over time means: its own place."),
        "not_brought_back": Mistake(not_brought_back, "the attention is right, and its result comes back in the "
                                    "order of places. Exchange the axes again before you fold them."),
        "causal": Mistake(causal, "a token meets its place in earlier frames only. The attention over time has no "
                          "mask; it is the one among places that is causal."),
        "sparse": Mistake(sparse, "over time you let a place meet the first frame and the one before. That is the "
                          "attention among places; over time it meets all frames, its own too."),
        "itself_left_out": Mistake(itself_left_out, "over time you leave a token's own frame out. That is so in the "
                                   "attention among places; over time a token meets itself as well."),
        "over_queries": Mistake(over_queries, "the softmax runs over the queries. What a token takes from the others "
                                "should add up to 1."),
        "unscaled": Mistake(unscaled, "the logits are not divided by sqrt(dim)."),
    },
)  # fmt: skip
