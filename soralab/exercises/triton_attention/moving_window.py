"""A kernel in Triton: every query has a window of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from soralab.kernels import interpreter
from soralab.workbook.task import Case, Exercise, Mistake, NotHere

if TYPE_CHECKING:  # the notebook's cell imports it; `run` does it here, so that this file can be read without Triton
    from soralab.kernels.interpreter import tl


def stub(q_in, k_in, v_in, out, scale, tokens, window, D: tl.constexpr, BLOCK: tl.constexpr):
    """One program, for the queries from BLOCK * tl.program_id(0) on: a tile of BLOCK of them, fewer at the end.

    q_in, k_in, v_in, out: pointers to [tokens, D], row after row; window >= 1: query i may attend the keys j with
    i - window < j <= i. Write each query's softmax(scale q k^T) v to its row of out. Do not decorate the kernel: the
    check runs it as `@triton.jit` would.
    """
    raise NotImplementedError


def solution(q_in, k_in, v_in, out, scale, tokens, window, D: tl.constexpr, BLOCK: tl.constexpr):
    """One program, for the queries from BLOCK * tl.program_id(0) on."""
    first = tl.program_id(0) * BLOCK
    i, d = first + tl.arange(0, BLOCK), tl.arange(0, D)
    q = tl.load(q_in + i[:, None] * D + d[None, :], mask=i[:, None] < tokens, other=0.0)
    m = tl.full([BLOCK], float("-inf"), tl.float32)
    ell, o = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK, D], tl.float32)
    begin = tl.maximum(first - window + 1, 0) // BLOCK * BLOCK
    for start in range(begin, first + BLOCK, BLOCK):
        j = start + tl.arange(0, BLOCK)
        k = tl.load(k_in + j[:, None] * D + d[None, :], mask=j[:, None] < tokens, other=0.0)
        v = tl.load(v_in + j[:, None] * D + d[None, :], mask=j[:, None] < tokens, other=0.0)
        s = scale * tl.dot(q, tl.trans(k), input_precision="ieee")
        s = tl.where((j[None, :] <= i[:, None]) & (j[None, :] > i[:, None] - window), s, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        base = tl.where(m_new == float("-inf"), 0.0, m_new)
        shrink, p = tl.exp(m - base), tl.exp(s - base[:, None])
        ell = shrink * ell + tl.sum(p, 1)
        o = shrink[:, None] * o + tl.dot(p, v, input_precision="ieee")
        m = m_new
    tl.store(out + i[:, None] * D + d[None, :], o / ell[:, None], mask=i[:, None] < tokens)


def run(kernel: Callable, q: Tensor, k: Tensor, v: Tensor, window: int, block: int) -> Tensor:
    """What the programs write, [tokens + block, dim]. The rows behind the last token are another's; they begin as NaN.

    Each program runs alone, with keys and values that are NaN but for the tiles that some of its queries may attend.
    The rows around q, k and v are NaN too. Raises ValueError for a program that writes into the rows of another.
    """
    global tl
    try:
        tl = interpreter.language()
    except ValueError as error:
        raise NotHere(f"this exercise runs in Triton's interpreter. {error}") from None
    (tokens, dim), nan = q.shape, torch.nan
    written = torch.full((tokens + block, dim), nan, dtype=q.dtype)
    places = torch.arange(tokens)
    for number, first in enumerate(range(0, tokens, block)):
        far = (places <= first - window - block + 1) | (places >= first + 2 * block - 1)
        mine = [torch.nn.functional.pad(x, (0, 0, block, block), value=nan) for x in (q, k, v)]
        for x in mine[1:]:
            x[block:-block][far] = nan
        out = torch.full_like(mine[0], nan)
        given = (*(x[block:] for x in (*mine, out)), dim**-0.5, tokens, window)
        interpreter.start(kernel, -(-tokens // block), given, only=number, D=dim, BLOCK=block)
        written[first : first + block] = out[block + first :][:block]
        if not (out[: block + first].isnan().all() and out[2 * block + first :].isnan().all()):
            raise ValueError(f"program {number} writes into rows of out that are another program's")
    return written


def cases() -> Iterator[Case]:
    def draw(tokens: int, dim: int = 16) -> list[Tensor]:
        return list(torch.randn(3, tokens, dim))

    yield Case((*draw(1), 1, 16), "one token")
    yield Case((*draw(3), 8, 16), "less than a tile, and a window larger than all")
    yield Case((*draw(33), 1, 16), "a window of one: each token sees itself")
    yield Case((*draw(33), 18, 16), "a window of a tile and two: the last program visits three tiles")
    yield Case((*draw(32, 32), 5, 16), "whole tiles: in the first one that it visits, a query may see nothing yet")
    for note, by in (("logits around 200: exp of one alone is no float32", 28),
                     ("logits around -200: exp of each is 0 in float32", -28)):
        q, k, v = draw(16)
        q[:, 0], k[:, 0] = q[:, 0] + 28, k[:, 0] + by
        yield Case((q, k, v, 9, 16), note)
    tokens, window = (int(torch.randint(2, 40, ())) for _ in range(2))
    yield Case((*draw(tokens), window, 32), "tiles of 32")


def slipped(slip: str) -> Callable:
    """A kernel in which one line is another."""

    def kernel(q_in, k_in, v_in, out, scale, tokens, window, D, BLOCK):
        first = tl.program_id(0) * BLOCK
        i, d = first + tl.arange(0, BLOCK), tl.arange(0, D)
        q = tl.load(q_in + i[:, None] * D + d[None, :], mask=i[:, None] < tokens, other=0.0)
        m = tl.full([BLOCK], float("-inf"), tl.float32)
        ell, o = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK, D], tl.float32)
        begin = tl.maximum(first - window + 1, 0) // BLOCK * BLOCK
        begin = first if slip == "own tile" else 0 if slip in ("from 0", "all tiles") else begin
        end = tokens if slip in ("to the end", "all tiles") else first + BLOCK
        for start in range(begin, end, BLOCK):
            j = start + tl.arange(0, BLOCK)
            k = tl.load(k_in + j[:, None] * D + d[None, :], mask=j[:, None] < tokens, other=0.0)
            v = tl.load(v_in + j[:, None] * D + d[None, :], mask=j[:, None] < tokens, other=0.0)
            s = scale * tl.dot(q, tl.trans(k), input_precision="ieee")
            past = j[None, :] < tokens if slip == "future" else j[None, :] <= i[:, None]
            s = tl.where(past & (j[None, :] > i[:, None] - window - (slip == "one more")), s, float("-inf"))
            m_new = tl.maximum(m, tl.max(s, 1))
            base = m_new if slip == "nan" else tl.where(m_new == float("-inf"), 0.0, m_new)
            if slip == "no maximum":
                m, base, s = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), s.to(tl.float32)
            shrink, p = tl.exp(m - base), tl.exp(s - base[:, None])
            ell = shrink * ell + tl.sum(p, 1)
            o = (o if slip == "o" else shrink[:, None] * o) + tl.dot(p.to(v.dtype), v, input_precision="ieee")
            m = m_new
        end = tokens + BLOCK if slip == "store" else tokens
        tl.store(out + i[:, None] * D + d[None, :], o / ell[:, None], mask=i[:, None] < end)

    return kernel


EXERCISE = Exercise(
    name="triton_attention.moving_window",
    title="A kernel of your own: every query has its own window",
    difficulty=3,
    minutes=30,
    statement="""
        Now in Triton. Begin with `by_hand` and give each query a window: it may attend itself and the `window - 1`
        tokens before it. Visit only tiles that hold a key which some query of the program may attend; the check fills
        all others with NaN, and a weight of 0 times NaN is NaN. There is a second trap. In the first tile that a
        program visits, some of its queries may attend nothing yet.
        """,
    hints=(
        "Which is the first key that the program's first query may attend, and which the last of its last one? The "
        "loop runs over the tiles between them.",
        "begin = max(0, first - window + 1), rounded down to a tile; end = first + BLOCK. In the loop tl.where puts "
        "-inf where the key is not in the query's window.",
        "A query that has seen nothing has m = -inf, and -inf - -inf is NaN: base = tl.where(m_new == float('-inf'), "
        "0.0, m_new), and both exponentials subtract base.",
    ),
    compare="Compare: how often does your loop run for a window of 1, and how often for one of BLOCK + 1?",
    stub=stub,
    solution=solution,
    call=run,
    cases=cases,
    gradients=False,
    mistakes={
        "nan": Mistake(slipped("nan"), "right but for queries that have seen nothing in their program's first tile: "
                       "-inf - -inf is no number. Measure those from 0."),
        "all tiles": Mistake(slipped("all tiles"), "your loop visits all tiles, as `by_hand` does, and hides most of "
                             "them. Those from the first query's window to the program's own tile are enough, and the "
                             "others may hold NaN."),
        "from 0": Mistake(slipped("from 0"), "your loop begins too early. Tiles that end before the first query's "
                          "window are not to be visited."),
        "to the end": Mistake(slipped("to the end"), "your loop goes on behind the program's own tile. No query of "
                              "it sees beyond first + BLOCK - 1."),
        "own tile": Mistake(slipped("own tile"), "the program's own tile alone counts. A window reaches back: the loop "
                            "begins in the tiles before it, and what they gave is kept (m too is carried on)."),
        "future": Mistake(slipped("future"), "in its own tile a query sees the tokens after it. The window ends at the "
                          "query itself: j <= i."),
        "one more": Mistake(slipped("one more"), "your windows hold one token more: i - window < j, and the query "
                            "itself is one of the window's tokens."),
        "no maximum": Mistake(slipped("no maximum"), "right for small logits alone: no maximum is subtracted, and "
                              "exp(100) is more than float32 can hold."),
        "o": Mistake(slipped("o"), "o is not multiplied by exp(m_old - m_new) when a tile brings a larger logit."),
        "store": Mistake(slipped("store"), "you write behind the last token, where another tensor may lie: tl.store "
                         "takes a mask as tl.load does."),
    },
)  # fmt: skip
