"""Factorised dot-product attention: heads of two kinds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.blocks.attention import attention
from soralab.training.data import model_flops
from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(q: Tensor, k: Tensor, v: Tensor, n_t: int) -> Tensor:
    """Attention of which one half of the heads looks over space, the other over time: [batch, heads, n_t * n_s, d].

    q, k, v of that shape; the number of heads is even, tokens run over time, then places. In the first half of the
    heads a token attends to the n_s tokens of its own time, in the second half to the n_t tokens of its own place.
    Logits are divided by sqrt(d). No more products than that takes: no table of n_t n_s x n_t n_s.
    `attention(q, k, v)` of soralab.blocks takes [..., queries, d] and [..., keys, d], with any axes in front.
    """
    raise NotImplementedError


def solution(q: Tensor, k: Tensor, v: Tensor, n_t: int) -> Tensor:
    """Attention of which one half of the heads looks over space, the other over time: [batch, heads, n_t * n_s, d]."""
    halves = [rearrange(x, "b (two h) (t s) d -> two b h t s d", two=2, t=n_t) for x in (q, k, v)]
    over_space = attention(*(x[0] for x in halves))
    over_time = attention(*(x[1].transpose(2, 3) for x in halves)).transpose(2, 3)
    return torch.cat([over_space, over_time], dim=1).flatten(2, 3)


def _case(batch: int, half: int, n_t: int, n_s: int, d: int, loud: float = 1.0, dtype=torch.float32) -> tuple:
    q, k, v = (torch.randn(batch, 2 * half, n_t * n_s, d, dtype=dtype) for _ in range(3))
    return q * loud, k, v, n_t


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 1, 1, 1), "one token")
    yield Case(_case(1, 1, 2, 3, 2), "two heads")
    yield Case(_case(1, 1, 1, 4, 3), "a film of one frame")
    yield Case(_case(1, 1, 4, 1, 3), "a film of one place")
    yield Case(_case(1, 2, 3, 3, 4), "four heads, as many frames as places")
    yield Case(_case(2, 3, 2, 4, 4), "two films, six heads")
    yield Case(_case(2, 2, 4, 6, 8, loud=10.0), "large logits")
    yield Case(_case(1, 2, 3, 4, 5, dtype=torch.float64), "float64")
    for _ in range(4):
        yield Case(_case(*torch.randint(1, 6, (5,)).tolist()))


def check(fn) -> Iterator[tuple[bool, str]]:
    sizes = _case(1, 1, 8, 16, 4)
    mine, needed = model_flops(fn, *sizes), model_flops(solution, *sizes)
    yield mine <= 1.5 * needed, (
        f"it is right, and does too much: at 8 x 16 tokens {mine / needed:.1f} times the products of the course's. A "
        "mask hides what was computed all the same. Fold space or time away from the tokens' axis, so that each head "
        "multiplies only what it looks at."
    )


def _both(q, k, v, n_t, first=None, second=None):
    """Heads of two kinds, cut into halves, with another kind of either."""
    one, two = zip(*(x.chunk(2, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([(first or _over_space)(*one, n_t), (second or _over_time)(*two, n_t)], dim=1)


def _over_space(q, k, v, n_t):
    return attention(*(x.unflatten(2, (n_t, -1)) for x in (q, k, v))).flatten(2, 3)


def _over_time(q, k, v, n_t):
    y = attention(*(x.unflatten(2, (n_t, -1)).transpose(2, 3) for x in (q, k, v)))
    return y.transpose(2, 3).flatten(2, 3)


def _same(n_t: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Which two tokens are of one time, and which of one place: two masks [tokens, tokens]."""
    n_s = tokens // n_t
    time, place = torch.arange(tokens) // n_s, torch.arange(tokens) % n_s
    return time[:, None] == time, place[:, None] == place


def by_a_mask(q, k, v, n_t):
    time, place = _same(n_t, q.shape[2])
    half = q.shape[1] // 2
    return attention(q, k, v, torch.stack([time] * half + [place] * half))


def halves_exchanged(q, k, v, n_t):
    return _both(q, k, v, n_t, _over_time, _over_space)


def every_second_head(q, k, v, n_t):
    y = _both(*(torch.cat([x[:, ::2], x[:, 1::2]], 1) for x in (q, k, v)), n_t)
    return torch.stack(y.chunk(2, dim=1), dim=2).flatten(1, 2)


def all_over_space(q, k, v, n_t):
    return _over_space(q, k, v, n_t)


def all_over_time(q, k, v, n_t):
    return _over_time(q, k, v, n_t)


def joint(q, k, v, n_t):
    return attention(q, k, v)


def a_cross(q, k, v, n_t):
    time, place = _same(n_t, q.shape[2])
    return attention(q, k, v, time | place)


def both_in_every_head(q, k, v, n_t):
    return (_over_space(q, k, v, n_t) + _over_time(q, k, v, n_t)) / 2


def one_after_the_other(q, k, v, n_t):
    return _over_time(q, k, _over_space(q, k, v, n_t), n_t)


def halves_of_each_head(q, k, v, n_t):
    one, two = zip(*(x.chunk(2, dim=-1) for x in (q, k, v)), strict=True)
    return torch.cat([_over_space(*one, n_t), _over_time(*two, n_t)], dim=-1)


def places_first(q, k, v, n_t):
    return _both(q, k, v, q.shape[2] // n_t, _over_time, _over_space)


def sizes_exchanged(q, k, v, n_t):
    return _both(q, k, v, q.shape[2] // n_t)


def first_half_twice(q, k, v, n_t):
    one = [x.chunk(2, dim=1)[0] for x in (q, k, v)]
    return torch.cat([_over_space(*one, n_t), _over_time(*one, n_t)], dim=1)


def joined_in_reverse(q, k, v, n_t):
    return _both(q, k, v, n_t).roll(q.shape[1] // 2, 1)


def not_folded_back(q, k, v, n_t):
    def second(q, k, v, n_t):
        return attention(*(x.unflatten(2, (n_t, -1)).transpose(2, 3) for x in (q, k, v))).flatten(2, 3)

    return _both(q, k, v, n_t, second=second)


def folded_without_transpose(q, k, v, n_t):
    def second(q, k, v, n_t):
        return attention(*(x.unflatten(2, (-1, n_t)) for x in (q, k, v))).flatten(2, 3)

    return _both(q, k, v, n_t, second=second)


def along_the_tokens(q, k, v, n_t):
    one, two = zip(*(x.chunk(2, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([_over_space(*one, n_t), _over_time(*two, n_t)], dim=2)


def not_divided(q, k, v, n_t):
    return solution(q * q.shape[-1] ** 0.5, k, v, n_t)


def divided_twice(q, k, v, n_t):
    return solution(q * q.shape[-1] ** -0.5, k, v, n_t)


EXERCISE = Exercise(
    name="vivit.half_and_half",
    title="Heads of two kinds",
    difficulty=3,
    minutes=20,
    statement="""
        Model 4 has model 1's weights, all of them, and another attention: one half of the heads looks over space, the
        other over time (section 3.3.4). The page did it with masks, which hide what was computed. Do it so that
        nothing is computed that is not needed. (An axis that is folded away to the front is a batch: attention goes
        on along the last two.)
        """,
    hints=(
        "Which axis must attention run along in the first half of the heads, and which in the second? What becomes of "
        "the other one?",
        "[b, heads, t s, d] to [2, b, heads / 2, t, s, d]. Over space it is ready as it lies; over time t and s change "
        "places before attention, and again after it.",
        "attention of the first halves; attention of the second halves after transpose(2, 3), and transpose(2, 3) of "
        "that; torch.cat along the heads, flatten(2, 3).",
    ),
    compare="Compare: at 16 x 196 tokens, how many times fewer keys does a head of yours ask, over space and over "
            "time? Which half is so cheap that one could give it more heads?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={"by_a_mask": WrongAnswer(by_a_mask, "A mask hides what was computed all the same")},
    mistakes={
        "halves_exchanged": Mistake(halves_exchanged, "your first half of the heads looks over time, the second over "
                                    "space: the other way round."),
        "every_second_head": Mistake(every_second_head, "you give space and time to heads by turns. The first half of "
                                     "them looks over space, the second over time; published weights would land in "
                                     "the wrong ones."),
        "all_over_space": Mistake(all_over_space, "all your heads look over space: no frame sees another."),
        "all_over_time": Mistake(all_over_time, "all your heads look over time: no place sees another."),
        "joint": Mistake(joint, "every token sees all tokens of the film: that is model 1."),
        "a_cross": Mistake(a_cross, "every head sees its own time and its own place in one softmax, a cross. Here a "
                           "head does one of the two, so that neither has to compete with the other."),
        "both_in_every_head": Mistake(both_in_every_head, "every head does both, and you take the mean. One half of "
                                      "the heads does the one, the other half the other; they meet in W_O."),
        "one_after_the_other": Mistake(one_after_the_other, "you look over space, then over time at what came of it: "
                                       "that is model 3's order. Here the two happen side by side, in different "
                                       "heads."),
        "halves_of_each_head": Mistake(halves_of_each_head, "you cut each head's d numbers in two. The heads "
                                       "themselves are divided: axis 1, not the last one."),
        "places_first": Mistake(places_first, "you read the tokens as places first, then times: (s t). They run over "
                                "time, then places: (t s)."),
        "sizes_exchanged": Mistake(sizes_exchanged, "you fold with n_t for n_s: your times have n_t places. There are "
                                   "n_t times, of n_s places each."),
        "first_half_twice": Mistake(first_half_twice, "both kinds are done with the first half of the heads. The "
                                    "second half has queries, keys and values of its own."),
        "joined_in_reverse": Mistake(joined_in_reverse, "what the second half of the heads found comes first in your "
                                     "answer. Each head's answer stays at its head's place."),
        "not_folded_back": Mistake(not_folded_back, "over space it is right; what comes of the heads over time lies "
                                   "place by place: bring time back in front of the places before you flatten."),
        "folded_without_transpose": Mistake(folded_without_transpose, "your heads over time meet n_t tokens that stand "
                                            "side by side, of one frame mostly. The same place comes again n_s tokens "
                                            "later: unflatten to (t, s), then exchange the two axes."),
        "along_the_tokens": Mistake(along_the_tokens, "you join the two halves along the tokens; they are joined along "
                                    "the heads."),
        "not_divided": Mistake(not_divided, "the logits are not divided by sqrt(d)."),
        "divided_twice": Mistake(divided_twice, "the logits are divided by sqrt(d) twice: `attention` does it "
                                 "already."),
    },
)  # fmt: skip
