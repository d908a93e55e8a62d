"""Which beginnings to keep."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake

Kept = tuple[Tensor, Tensor, Tensor]


def _stub(log_p: Tensor, after: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `beam` likeliest beginnings that are one word longer: (row, word, log_p), [beam] each, the likeliest first.

    log_p [n]: of the beginnings so far; after [n, V]: of each word after each of them. row: which beginning goes on.
    """
    raise NotImplementedError


def _beam_step(log_p: Tensor, after: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `beam` likeliest beginnings that are one word longer: (row, word, log_p), the likeliest first."""
    total = log_p[:, None] + after
    best, place = total.flatten().topk(beam)
    return place // after.shape[1], place % after.shape[1], best


def _cases() -> Iterator[Case | tuple]:
    def draw(n: int, vocabulary: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
        return -spread * torch.rand(n), (2 * torch.randn(n, vocabulary)).log_softmax(-1)

    yield (*draw(2, 3), 2)
    yield (*draw(4, 9), 4)
    n, vocabulary, beam = torch.randint(2, 8, (3,)).tolist()
    yield (*draw(n, vocabulary), min(beam, n * vocabulary))
    yield (*draw(7, 30), 5)
    yield Case((*draw(3, 5), 7), "more are kept than a beginning has words")
    yield Case((*draw(5, 6), 1), "a beam of one")
    log_p, after = draw(3, 8)
    log_p[1:] = -math.inf
    yield Case((log_p, after, 3), "at first all beginnings are the same: only one of them counts")
    yield Case((*draw(4, 7, 30.0), 4), "one beginning is far ahead of the others")
    log_p, after = draw(2, 12)
    after[:, :2] = -math.inf
    yield Case((log_p, after, 6), "two words that may not be written")
    log_p, after = draw(3, 6)
    yield Case((log_p - 200, after, 4), "long beginnings, whose probabilities are less than float32 can hold")


def _of_each(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    """The best word of each beginning, and of these the best."""
    best, word = (log_p[:, None] + after).max(-1)
    best, row = best.topk(min(beam, len(best)))
    return row, word[row], best


def _last_word_alone(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    row, word, _ = _beam_step(torch.zeros_like(log_p), after, beam)
    return row, word, log_p[row] + after[row, word]


def _multiplied(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    return _beam_step(torch.zeros_like(log_p), log_p[:, None] * after, beam)


def _probabilities(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    table = log_p.float().exp()[:, None] * after.float().exp()  # in float32, as the reader's are
    row, word, best = _beam_step(torch.zeros_like(log_p.float()), table, beam)
    return row, word, best.log()


def _divided_by_rows(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    best, place = (log_p[:, None] + after).flatten().topk(beam)
    return place // len(log_p), place % len(log_p), best


def _swapped(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    row, word, best = _beam_step(log_p, after, beam)
    return word, row, best


def _likeliest_last(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    return tuple(part.flip(0) for part in _beam_step(log_p, after, beam))


def _last_log_p(log_p: Tensor, after: Tensor, beam: int) -> Kept:
    row, word, _ = _beam_step(log_p, after, beam)
    return row, word, after[row, word]


EXERCISE = Exercise(
    name="transformer.beam_step",
    title="Which beginnings to keep",
    difficulty=3,
    minutes=20,
    statement="""
        The heart of a beam search. `n` beginnings of a translation are alive, and each may go on with any of `V` words:
        `n V` candidates. Keep the `beam` likeliest of them all. A beginning may go on in several ways, or not at all.
        """,
    hints=(
        "What is the log probability of a beginning and one more word? It is a sum. Which shapes have to be added?",
        "Add log_p as a column to after, lay the table out as one row, and take its `beam` largest. Then find out in "
        "which row and which column of the table each of them stood.",
        "best, place = (log_p[:, None] + after).flatten().topk(beam); the row is place // V",
    ),
    stub=_stub,
    solution=_beam_step,
    cases=_cases,
    mistakes={
        "of_each": Mistake(_of_each, "you take the best word of each beginning. All candidates compete with each "
                           "other: a good beginning may go on in several ways, a bad one in none."),
        "last_word_alone": Mistake(_last_word_alone, "you choose by the last word alone, and forget how likely its "
                                   "beginning was."),
        "multiplied": Mistake(_multiplied, "the logs are multiplied. Probabilities are; their logs are added."),
        "probabilities": Mistake(_probabilities, "right for short beginnings. The probability of a long one is less "
                                 "than float32 can hold: stay with the logs, and add them."),
        "divided_by_rows": Mistake(_divided_by_rows, "you divide by the number of beginnings. A row of the table has "
                                   "V candidates: row = place // V, word = place % V."),
        "swapped": Mistake(_swapped, "row and word have changed places: which beginning goes on comes first."),
        "likeliest_last": Mistake(_likeliest_last, "the likeliest is to come first; yours is the last."),
        "last_log_p": Mistake(_last_log_p, "you return the log probability of the last word. It is that of the whole "
                              "beginning which the next step has to start from."),
    },
    gradients=False,  # nobody trains through a search
    compare="Compare what happens at the first step, where all beginnings are the same one.",
)  # fmt: skip
