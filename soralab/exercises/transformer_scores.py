"""Two of chapter 02's exercises, those about scores: label smoothing and the length penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer


def is_tensor(got, shape: tuple[int, ...], case: str) -> Iterator[tuple[bool, str]]:
    """Probes for the kind and the shape of a result."""
    yield isinstance(got, Tensor), f"{case}: the result is no tensor."
    yield tuple(got.shape) == shape, f"{case}: the result is {list(got.shape)}, it should be {list(shape)}."


def same(got: Tensor, right: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    return got.shape == right.shape and bool((got.double() - right.double()).abs().max() < 1e-4)


# ---------------------------------------------------------------------------------------------------- label smoothing


def _smoothed_stub(target: Tensor, vocabulary: int, epsilon: float) -> Tensor:
    """q [n, vocabulary], what the model is to say for the words target [n]."""
    raise NotImplementedError


def _smoothed(target: Tensor, vocabulary: int, epsilon: float) -> Tensor:
    """q [n, vocabulary], what the model is to say for the words target [n]."""
    one_hot = torch.nn.functional.one_hot(target, vocabulary).float()
    return (1 - epsilon) * one_hot + epsilon / vocabulary


def _others_only(target: Tensor, vocabulary: int, epsilon: float) -> Tensor:
    one_hot = torch.nn.functional.one_hot(target, vocabulary).float()
    return (1 - epsilon) * one_hot + epsilon / (vocabulary - 1) * (1 - one_hot)


def _too_little(target: Tensor, vocabulary: int, epsilon: float) -> Tensor:
    one_hot = torch.nn.functional.one_hot(target, vocabulary).float()
    return (1 - epsilon) * one_hot + epsilon / vocabulary * (1 - one_hot)


def _not_divided(target: Tensor, vocabulary: int, epsilon: float) -> Tensor:
    return (1 - epsilon) * torch.nn.functional.one_hot(target, vocabulary).float() + epsilon


def _changed_roles(target: Tensor, vocabulary: int, epsilon: float) -> Tensor:
    return _smoothed(target, vocabulary, 1 - epsilon)


def _smoothed_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for ids, vocabulary, epsilon in (([2, 0, 4], 5, 0.1), ([7, 7], 8, 0.4), ([1], 3, 0.0)):
        target = torch.tensor(ids)
        case = f"target {ids}, vocabulary {vocabulary}, epsilon {epsilon:g}"
        got, right = fn(target, vocabulary, epsilon), _smoothed(target, vocabulary, epsilon)
        yield from is_tensor(got, tuple(right.shape), case)
        given = (target, vocabulary, epsilon)
        sums = got.double().sum(-1)
        yield (
            same(got, right) or not same(got, _smoothed(target, vocabulary, 0.0)),
            f"{case}: nothing is smoothed: all probability is on the right word, and only an infinite logit says that.",
        )
        yield (
            same(got, right) or not same(got, _changed_roles(*given)),
            f"{case}: epsilon and 1 - epsilon have changed roles: the right word gets the small share.",
        )
        yield (
            same(got, right) or not same(got, _not_divided(*given)),
            f"{case}: rows sum to {sums[0]:.2f}: every word gets all of epsilon, which they have to share.",
        )
        yield (
            bool((sums - 1).abs().max() < 1e-3),
            f"{case}: rows sum to {sums[0]:.3f}, and a distribution sums to 1. The uniform part covers the right word "
            "too: its share is missing.",
        )
        yield (
            same(got, right) or not same(got, _others_only(*given)),
            f"{case}: you spread epsilon over the other words alone. The paper's own code does so too; Szegedy's "
            "formula, which it cites, mixes with the uniform distribution over all of them.",
        )
        yield same(got, right), f"{case}: the first row is {got[0].tolist()}, it should be {right[0].tolist()}."


SMOOTHING = Exercise(
    name="transformer.label_smoothing",
    title="A little doubt",
    difficulty=2,
    minutes=15,
    statement=r"""
        Label smoothing (section 5.4, after Szegedy et al. 2015) tells the model a distribution, not a word: the right
        one with probability $1 - \epsilon$, and with probability $\epsilon$ one drawn from all $V$ words alike:

        $$q(k) = (1 - \epsilon)\,[k = \text{target}] + \epsilon / V.$$
        """,
    hints=(
        "What must each row sum to? And what does the right word get, all in all?",
        "Two distributions are mixed: one that is 1 at the right word, and one that is 1 / V everywhere.",
        "(1 - epsilon) * torch.nn.functional.one_hot(target, vocabulary) + epsilon / vocabulary",
    ),
    stub=_smoothed_stub,
    solution=_smoothed,
    check=_smoothed_check,
    wrong={
        "not_smoothed": WrongAnswer(lambda target, vocabulary, epsilon: _smoothed(target, vocabulary, 0.0),
                                    "nothing is smoothed"),
        "others_only": WrongAnswer(_others_only, "over the other words alone"),
        "too_little": WrongAnswer(_too_little, "its share is missing"),
        "not_divided": WrongAnswer(_not_divided, "which they have to share"),
        "changed_roles": WrongAnswer(_changed_roles, "have changed roles"),
    },
)  # fmt: skip

# ------------------------------------------------------------------------------------------------- the length penalty


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


PENALTY = Exercise(
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
