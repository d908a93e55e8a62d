"""A little doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import is_tensor, same
from soralab.workbook.task import Exercise, WrongAnswer


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


EXERCISE = Exercise(
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
