"""Short is not better."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import is_tensor, same
from soralab.workbook.task import Exercise, WrongAnswer


def _score_stub(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    """The scores [n] by which a beam search ranks translations of log probability log_p [n] and length [n] words."""
    raise NotImplementedError


def _score(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    """The scores [n] by which a beam search ranks translations of log probability log_p [n] and length [n] words."""
    return log_p / ((5 + length) / 6) ** alpha


def _score_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    log_p, length = torch.tensor([-2.0, -2.6, -9.0]), torch.tensor([1, 7, 13])
    for alpha in (0.6, 1.0, 0.0):
        case = f"alpha {alpha:g}"
        got, right = fn(log_p, length, alpha), _score(log_p, length, alpha)
        yield from is_tensor(got, (3,), case)
        for wrong, message in (
            (_unpenalised, "the length plays no part. Each word more makes a sentence less likely, so the search would "
             "stop as soon as it can."),
            (_by_length, "that is the mean per word, whatever alpha is. The paper's penalty is gentler: its power "
             "alpha is 0.6, and five words are added to every length."),
            (_by_power, "length^alpha without the 5 and the 6: with alpha = 0.6, two words are 1.5 times one, and not "
             "1.1 times. The constants make it flat at the short end."),
            (_power_of_a_part, "only 5 + length is raised to alpha, and 6 stays as it is: a length of 1 should be left "
             "alone, whatever alpha is."),
            (_multiplied_score, "you multiply. Log probabilities are negative, so this punishes long sentences twice."),
            (_subtracted, "you subtract the penalty; log P is divided by it."),
        ):  # fmt: skip
            made = wrong(log_p, length, alpha)
            yield same(got, right) or not same(got, made), f"{case}: {message}"
        yield same(got, right), f"{case}: the scores are {got.tolist()}, they should be {right.tolist()}."


def _unpenalised(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    return log_p.clone()


def _by_length(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    return log_p / length


def _by_power(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    return log_p / length**alpha


def _power_of_a_part(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    return log_p / ((5 + length) ** alpha / 6)


def _multiplied_score(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    return log_p * ((5 + length) / 6) ** alpha


def _subtracted(log_p: Tensor, length: Tensor, alpha: float) -> Tensor:
    return log_p - ((5 + length) / 6) ** alpha


EXERCISE = Exercise(
    name="transformer.length_penalty",
    title="Short is not better",
    difficulty=1,
    minutes=10,
    statement=r"""
        A beam search compares sentences of different length, and each further word makes a sentence less likely. The
        paper (section 6.1) therefore ranks them with a length penalty, $\alpha = 0.6$, that it takes from Wu et al.
        2016 (1609.08144, Eq. 14):

        $$s(Y) = \frac{\log P(Y \mid X)}{lp(Y)}, \qquad lp(Y) = \frac{(5 + |Y|)^\alpha}{(5 + 1)^\alpha}.$$
        """,
    hints=(
        "What should happen to a sentence of one word, and what to all of them at alpha = 0?",
        "The denominator is ((5 + length) / 6) to the power alpha, both parts of the fraction.",
        "log_p / ((5 + length) / 6) ** alpha",
    ),
    stub=_score_stub,
    solution=_score,
    check=_score_check,
    wrong={
        "unpenalised": WrongAnswer(_unpenalised, "the length plays no part"),
        "by_length": WrongAnswer(_by_length, "the mean per word"),
        "by_power": WrongAnswer(_by_power, "without the 5 and the 6"),
        "power_of_a_part": WrongAnswer(_power_of_a_part, "only 5 + length is raised"),
        "multiplied": WrongAnswer(_multiplied_score, "you multiply"),
        "subtracted": WrongAnswer(_subtracted, "you subtract"),
    },
)
