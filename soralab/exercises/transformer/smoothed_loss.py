"""A little doubt."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def _stub(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """The mean loss of a word with label smoothing: log_p [b, m, V] is what the model says, target [b, m] the words.

    Places where the target is padding (0) do not count.
    """
    raise NotImplementedError


def _loss(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """The mean loss of a word with label smoothing: log_p [b, m, V] is what the model says, target [b, m] the words.

    Places where the target is padding (0) do not count.
    """
    right = log_p.gather(-1, target[..., None])[..., 0]
    loss = -(1 - epsilon) * right - epsilon * log_p.mean(-1)
    return loss[target != 0].mean()


def _cases() -> Iterator[Case | tuple]:
    def draw(b: int, m: int, vocabulary: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
        return (scale * torch.randn(b, m, vocabulary)).log_softmax(-1), torch.randint(1, vocabulary, (b, m))

    yield (*draw(1, 1, 3), 0.1)
    yield (*draw(2, 5, 7), 0.25)
    yield Case((*draw(2, 3, 6), 0.0), "nothing is smoothed")
    log_p, target = draw(3, 6, 11)
    target[0, 4:], target[2, 1:] = 0, 0
    yield Case((log_p, target, 0.1), "two sentences end early")
    log_p, target = draw(2, 4, 9)
    target[1] = 0
    yield Case((log_p, target, 0.3), "one sentence is all padding")
    yield Case((*draw(1, 8, 40, 60.0), 0.1), "a model that is very sure, often of the wrong word")


def _terms(log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return log_p.gather(-1, target[..., None])[..., 0], target != 0


def _others_only(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    right, words = _terms(log_p, target)
    share = epsilon / (log_p.shape[-1] - 1)
    return (-(1 - epsilon) * right - share * (log_p.sum(-1) - right))[words].mean()


def _not_divided(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    right, words = _terms(log_p, target)
    return (-(1 - epsilon) * right - epsilon * log_p.sum(-1))[words].mean()


def _without_the_right_one(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    right, words = _terms(log_p, target)
    return (-(1 - epsilon) * right - epsilon / log_p.shape[-1] * (log_p.sum(-1) - right))[words].mean()


def _with_padding(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    right, _ = _terms(log_p, target)
    return (-(1 - epsilon) * right - epsilon * log_p.mean(-1)).mean()


def _over_all_places(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    right, words = _terms(log_p, target)
    return ((-(1 - epsilon) * right - epsilon * log_p.mean(-1)) * words).mean()


def _summed(log_p: Tensor, target: Tensor, epsilon: float) -> Tensor:
    right, words = _terms(log_p, target)
    return (-(1 - epsilon) * right - epsilon * log_p.mean(-1))[words].sum()


EXERCISE = Exercise(
    name="transformer.smoothed_loss",
    title="A little doubt",
    difficulty=2,
    minutes=15,
    statement=r"""
        The loss of a place is $-\sum_k q(k) \log p(k)$, with the $q$ of the text above. For the paper's vocabulary and
        its batches of 25,000 words a table of all $q$ would be 3.7 GB. It is not needed: the sum falls into two terms.
        Return the mean over the words of the target; padding is no word.
        """,
    hints=(
        "Put q in: the sum over k has a part with [k = target] and a part with 1 / V. Which of log_p does each need?",
        "-(1 - ε) times the log probability of the right word, -ε times the mean of all log probabilities of the place."
        " Then take the places whose target is not 0, and their mean.",
        "right = log_p.gather(-1, target[..., None])[..., 0]; and at the end loss[target != 0].mean()",
    ),
    stub=_stub,
    solution=_loss,
    cases=_cases,
    mistakes={
        "not_smoothed": Mistake(lambda log_p, target, epsilon: _loss(log_p, target, 0.0),
                                "nothing is smoothed: it is the usual cross-entropy, whatever ε is."),
        "changed_roles": Mistake(lambda log_p, target, epsilon: _loss(log_p, target, 1 - epsilon),
                                 "ε and 1 − ε have changed roles: the right word gets the small share."),
        "no_minus": Mistake(lambda log_p, target, epsilon: -_loss(log_p, target, epsilon),
                            "the sign is wrong: log probabilities are negative, a loss is not."),
        "not_divided": Mistake(_not_divided, "every word gets all of ε, which they have to share: 1 / V is missing."),
        "without_the_right_one": Mistake(_without_the_right_one, "your q sums to less than 1: the uniform part covers "
                                         "the right word too."),
        "others_only": Mistake(_others_only, "you spread ε over the other words alone. The paper's own code does so "
                               "too; the formula of Szegedy et al., which it cites, spreads it over all."),
        "with_padding": Mistake(_with_padding, "padding counts as a word: the model is asked to say it."),
        "over_all_places": Mistake(_over_all_places, "padding has no loss, but you still divide by its places: batches "
                                   "with more padding get a smaller loss."),
        "sentence_by_sentence": Mistake(
            lambda log_p, target, epsilon: torch.stack([
                _loss(p[None], t[None], epsilon) for p, t in zip(log_p, target, strict=True) if t.any()]).mean(),
            "you take each sentence's mean, and the mean of these: words of short sentences count for more."),
        "summed": Mistake(_summed, "it is the sum over the words; asked for is their mean."),
    },
    compare="Compare how much memory yours takes: is there a tensor as large as log_p in it?",
)  # fmt: skip
