"""One tile more for an average that is already divided."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(lse: Tensor, o: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Take a tile of keys into what is known of the keys before it: the new (lse, o).

    lse [queries]: log of the sum of exp(s) over the keys so far, -inf if there were none; o [queries, dim]: the
    average of their values weighted by the softmax, 0 if there were none. s [queries, keys]: the new tile's logits,
    -inf where a query may not attend; v [keys, dim]: its values.
    """
    raise NotImplementedError


def solution(lse: Tensor, o: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Take a tile of keys into what is known of the keys before it: the new (lse, o)."""
    new = torch.logaddexp(lse, s.logsumexp(-1))
    base = torch.where(new == -torch.inf, 0, new)  # a query that has seen nothing yet: -inf - -inf is no number
    return new, torch.exp(lse - base)[:, None] * o + torch.exp(s - base[:, None]) @ v


def cases() -> Iterator[Case]:
    def draw(queries: int, keys: int, dim: int, size: float = 1.0, dtype=torch.float32) -> list[Tensor]:
        shapes = (queries,), (queries, dim), (queries, keys), (keys, dim)
        lse, o, s, v = (torch.randn(shape, dtype=dtype) for shape in shapes)
        return [size * lse, o, size * s, v]

    lse, o, s, v = draw(1, 1, 1)
    yield Case((lse, o, s, v), "one query, one key")
    yield Case((torch.full((2,), -torch.inf), torch.zeros(2, 2), *draw(2, 3, 2)[2:]), "the first tile")
    for _ in range(3):
        queries, keys, dim = torch.randint(2, 7, (3,)).tolist()
        yield Case(tuple(draw(queries, keys, dim)), "a tile like the others")
    for note, by in (("the tile brings much larger logits", 9.0), ("the tile's logits are much smaller", -9.0),
                     ("the tile's logits are larger by 100", 100.0), ("the tile's logits are smaller by 100", -100.0)):
        lse, o, s, v = draw(3, 4, 2)
        yield Case((lse, o, s + by, v), note)
    yield Case(tuple(draw(4, 6, 3, 40.0)), "queries 40 times as large: exp of a logit of 100 is no float32")
    lse, o, s, v = draw(3, 2, 2)
    yield Case((lse - 200, o, s - 200, v), "all logits near -200: exp of each of them is 0 in float32")
    lse, o, s, v = draw(4, 3, 2)
    s[:2], s[2, 1:], lse[1], o[1] = -torch.inf, -torch.inf, -torch.inf, 0
    yield Case((lse, o, s, v), "the first query may attend nothing here, the second has seen nothing before either")
    lse, o, s, v = draw(2, 1, 2)
    yield Case((lse, o, s[:, :0], v[:0]), "an empty tile")
    yield Case(tuple(draw(3, 5, 2, 2.0, torch.float64)), "float64")


def no_maximum(lse, o, s, v):
    old, p = torch.exp(lse.float()), torch.exp(s.float())  # as in the float32 of the cases
    total = old + p.sum(-1)
    seen = torch.where(total == 0, 1, total)[:, None]
    return torch.log(total), (old[:, None] * o.float() + p @ v.float()) / seen


def nan_for_nothing(lse, o, s, v):
    new = torch.logaddexp(lse, s.logsumexp(-1))
    return new, torch.exp(lse - new)[:, None] * o + torch.exp(s - new[:, None]) @ v


def o_not_shrunk(lse, o, s, v):
    new = solution(lse, o, s, v)[0]
    return new, o + solution(lse, torch.zeros_like(o), s, v)[1]


def not_divided(lse, o, s, v):
    m = torch.maximum(lse, s.amax(-1)) if s.shape[-1] else lse
    m = torch.where(m == -torch.inf, 0, m)
    return solution(lse, o, s, v)[0], torch.exp(lse - m)[:, None] * o + torch.exp(s - m[:, None]) @ v


def two_halves(lse, o, s, v):
    return solution(lse, o, s, v)[0], (o + s.softmax(-1).nan_to_num() @ v) / 2


def the_tile_alone(lse, o, s, v):
    return solution(torch.full_like(lse, -torch.inf), torch.zeros_like(o), s, v)


def the_larger_alone(lse, o, s, v):
    return torch.maximum(lse, s.logsumexp(-1)), solution(lse, o, s, v)[1]


EXERCISE = Exercise(
    name="triton_attention.take_in",
    title="An average that is already divided",
    difficulty=2,
    minutes=15,
    statement="""
        The loop of `tiled` keeps three things a query, and its $\\tilde o$ is no average before the last division.
        There is another way: keep **two**, the average $o$ of the keys so far, already divided, and the logarithm of
        their sum, $L = m + \\log \\ell$. Both have a meaning at any time, so work can stop after any tile, and go on
        on another machine. Write the step of that loop. Large logits must not overflow, and a query that may attend
        nothing must not become NaN: it keeps $L = -\\infty$ and $o = 0$.
        """,
    hints=(
        "Old average, new tile: in the new average each has a share. The shares are sums of exponentials over their "
        "total; in logarithms, the total is the new L.",
        "With the new L, the old average has the share exp(L_old - L_new), and a new key the weight exp(s - L_new). "
        "torch.logaddexp and torch.logsumexp subtract a maximum themselves.",
        "new = logaddexp(lse, s.logsumexp(-1)), then exp(lse - new) * o + exp(s - new) @ v. Where new is -inf put 0 "
        "in its place before you subtract it.",
    ),
    compare="Compare: the course's own never writes down a maximum. Where is it?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,  # what a kernel does forwards; backwards is exercise 17.3
    mistakes={
        "no_maximum": Mistake(no_maximum, "right for small logits alone: you exponentiate them as they are. exp(100) "
                              "is more than float32 can hold, and exp(-200) is 0. Subtract first."),
        "nan_for_nothing": Mistake(nan_for_nothing, "right but for queries that have seen nothing: -inf - -inf is no "
                                   "number. Measure those from 0."),
        "o_not_shrunk": Mistake(o_not_shrunk, "the old average keeps its full weight. Its share of the new sum is "
                                "exp(L_old - L_new), and it shrinks with every tile."),
        "not_divided": Mistake(not_divided, "your o is the sum of exp(s - m) v of the other loop. Here it is an "
                               "average after every tile: measure from the new L, not from a maximum."),
        "two_halves": Mistake(two_halves, "you take the mean of two averages. A tile whose keys weigh more must count "
                              "more: each has its share of the exponentials' sum."),
        "the_tile_alone": Mistake(the_tile_alone, "you give the softmax of the new tile. What was known before it is "
                                  "lost."),
        "the_larger_alone": Mistake(the_larger_alone, "o is right, and L is the larger of two logarithms. The sums "
                                    "are added: L_new = log(exp(L_old) + the new sum), without overflow."),
    },
)  # fmt: skip
