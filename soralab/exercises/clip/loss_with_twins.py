"""When two texts are right: the loss of a batch that holds twins."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    """The loss of n pairs, some texts of which say the same: I_e, T_e [n, embed] of length 1, the learned t; a scalar.

    same [n, n] is True where texts j and k say the same (so on the diagonal): then j is a right answer to picture k,
    and picture j one to text k. Of each question: minus the log of the share that all its right answers get together.
    The mean over the pictures' questions and the mean over the texts', averaged. Cosines are multiplied by exp(t).
    """
    raise NotImplementedError


def solution(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    """Figure 3's loss where equal texts count as right answers to each other's pictures; a scalar."""
    logits = I_e @ T_e.T * t.exp()
    right = logits.masked_fill(~same, -torch.inf)
    rows = logits.logsumexp(1) - right.logsumexp(1)
    columns = logits.logsumexp(0) - right.logsumexp(0)
    return (rows.mean() + columns.mean()) / 2


def _batch(n: int, embed: int, texts: int, factor: float, dtype=torch.float32, turn: float = 1.0) -> tuple:
    which = torch.randint(texts, (n,))
    centres = torch.randn(texts, embed, dtype=dtype)[which]  # who says the same need not use the same words
    T_e = F.normalize(centres + 0.4 * torch.randn(n, embed, dtype=dtype), dim=-1)
    I_e = F.normalize(turn * T_e + torch.randn(n, embed, dtype=dtype), dim=-1)
    return I_e, T_e, torch.tensor(factor, dtype=dtype).log(), which[:, None] == which[None]


def cases() -> Iterator[Case]:
    yield Case(_batch(1, 4, 1, 10.0), "one pair: nothing can be confused")
    yield Case(_batch(4, 6, 1, 14.3), "four texts that say the same: every answer is right")
    yield Case(_batch(6, 8, 1000, 14.3), "hardly a twin")
    for _ in range(3):
        n, embed = (int(torch.randint(6, 12, ())) for _ in range(2))
        yield Case(_batch(n, embed, n // 2, float(torch.rand(()) * 30 + 1)), "some twins")
    yield Case(_batch(9, 5, 4, 100.0, turn=-2.0), "exp(t) = 100, and every right answer far away")
    yield Case(_batch(8, 6, 4, 100.0, turn=-50.0), "exp(t) = 100, right answers opposite: shares of 0 in float32")
    yield Case(_batch(7, 6, 4, 5.0, torch.float64), "float64")


def twins_are_wrong(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    logits, pairs = I_e @ T_e.T * t.exp(), torch.arange(len(I_e))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _logs(I_e: Tensor, T_e: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    logits = I_e @ T_e.T * t.exp()
    return logits.log_softmax(1), logits.log_softmax(0)


def mean_of_logs(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    rows, columns = _logs(I_e, T_e, t)
    return -((rows * same).sum(1) / same.sum(1)).mean() / 2 - ((columns * same).sum(0) / same.sum(0)).mean() / 2


def twins_taken_out(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    others = same & ~torch.eye(len(same), dtype=torch.bool)
    logits = (I_e @ T_e.T * t.exp()).masked_fill(others, -torch.inf)
    pairs = torch.arange(len(I_e))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def pictures_ask_alone(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    logits = I_e @ T_e.T * t.exp()
    return (logits.logsumexp(1) - logits.masked_fill(~same, -torch.inf).logsumexp(1)).mean()


def t_is_the_factor(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    return solution(I_e, T_e, t.log(), same)


def zeros_are_no_wall(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    logits = I_e @ T_e.T * t.exp()
    right = logits * same
    return ((logits.logsumexp(1) - right.logsumexp(1)).mean() + (logits.logsumexp(0) - right.logsumexp(0)).mean()) / 2


def normalised_again(I_e: Tensor, T_e: Tensor, t: Tensor, same: Tensor) -> Tensor:
    return solution(F.normalize(I_e, dim=-1), F.normalize(T_e, dim=-1), t, same)


def check(fn) -> Iterator[tuple[bool, str]]:
    I_e, T_e, t, same = _batch(7, 5, 4, 8.0, torch.float64)
    for vectors in (I_e, T_e):
        vectors.requires_grad_()
        loss = fn(I_e, T_e, t, same)
        gradient = torch.autograd.grad(loss, vectors, allow_unused=True)[0] if loss.requires_grad else None
        along = 1.0 if gradient is None or not gradient.any() else (gradient * vectors).sum(1).abs().max()
        yield along > 1e-9, (
            "you bring I_e or T_e to length 1 again. They are of length 1: the loss stays what it is, but the part of "
            "a vector's gradient along the vector is lost."
        )


EXERCISE = Exercise(
    name="clip.loss_with_twins",
    title="When two texts are right",
    difficulty=2,
    minutes=15,
    statement="""
        Of 512 short texts more than a third mean the same as another, and the paper's loss counts that one as wrong. We
        mended that in the data. Mend it in the loss: every equal text is a right answer. What counts is then the share
        of the softmax that *all* right answers get together; how they divide it among themselves is nobody's concern.
        Mind the numbers: exp(t) may be 100, and in float32 a share of $e^{-150}$ is 0, whose log is no number.
        """,
    hints=(
        "Two questions again, rows and columns. Where did the single right answer enter the paper's loss, and what "
        "takes its place?",
        "The log of a sum of exponentials has a function of its own that never leaves the safe range: logsumexp. The "
        "log of the share is one logsumexp minus another.",
        "logits.logsumexp(1) - logits.masked_fill(~same, -torch.inf).logsumexp(1), its mean; the same over 0.",
    ),
    compare="Compare: with no twins in the batch, which well-known function is the difference of the two logsumexps?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={"normalised_again": WrongAnswer(normalised_again, "to length 1 again")},
    mistakes={
        "twins_are_wrong": Mistake(twins_are_wrong, "that is the paper's loss: the diagonal alone is right, and twins "
                                   "are pushed apart."),
        "mean_of_logs": Mistake(mean_of_logs, "you average the logs of the right answers. Then each of them must be "
                                "likely, and two twins cost at least ln 2 again. Add up their shares first."),
        "twins_taken_out": Mistake(twins_taken_out, "you take twins out of the softmax. They do no harm then, but they "
                                   "are no right answers either."),
        "pictures_ask_alone": Mistake(pictures_ask_alone, "only the pictures ask. The texts do too: the columns."),
        "t_is_the_factor": Mistake(t_is_the_factor, "you multiply by t. The factor is exp(t): t is its logarithm."),
        "zeros_are_no_wall": Mistake(zeros_are_no_wall, "you set wrong answers to 0 before the logsumexp. A logit of 0 "
                                     "still counts e^0 = 1; what must not count is at minus infinity."),
    },
)  # fmt: skip
