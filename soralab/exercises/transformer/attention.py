"""Only those who may be asked."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def _stub(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Eq. (1) for queries q [..., m, d] over the keys k [..., n, d] that each may attend to: [..., m, d_v].

    v [..., n, d_v]; mask broadcastable to [..., m, n], True = may attend. A query that may attend to none gets zeros.
    """
    raise NotImplementedError


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Eq. (1) over the keys that each query may attend to: [..., m, d_v]."""
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    lowest = torch.finfo(logits.dtype).min  # not -inf: a row of nothing else has no softmax
    weights = logits.masked_fill(~mask, lowest).softmax(-1)
    return weights.masked_fill(~mask, 0.0) @ v


def _cases() -> Iterator[Case | tuple]:
    def draw(lead: tuple[int, ...], m: int, n: int, d: int, d_v: int, mask: Tensor) -> tuple:
        return (torch.randn(*lead, m, d), torch.randn(*lead, n, d), torch.randn(*lead, n, d_v), mask)

    yield draw((), 2, 3, 4, 2, torch.tensor([[True, False, True], [False, True, True]]))
    yield draw((2, 3), 4, 4, 8, 5, torch.ones(4, 4, dtype=torch.bool).tril())
    yield Case(draw((2, 1), 3, 5, 6, 6, torch.rand(2, 1, 1, 5) < 0.6), "one mask for all queries, as for padding")
    yield Case(draw((), 1, 1, 3, 2, torch.ones(1, 1, dtype=torch.bool)), "one key")
    m, n, d = torch.randint(2, 9, (3,)).tolist()
    yield draw((3,), m, n, d, 4, torch.rand(3, m, n) < 0.7)
    yield Case(draw((), 4, 6, 5, 3, torch.ones(1, dtype=torch.bool)), "one mask for all: nobody is left out")
    nobody = torch.rand(5, 7) < 0.5
    nobody[[1, 4]] = False
    yield Case(draw((2,), 5, 7, 4, 3, nobody), "two queries that may ask nobody")
    open_to_few = torch.rand(6, 9) < 0.4
    open_to_few[:, 2] = True
    for size, keys, what in (
        (48.0 * torch.arange(6) - 120, torch.ones(9, 6), "logits from -120 to 120, in float32"),
        (120 * torch.ones(6), ~open_to_few.T, "logits of 120 where no key may be asked, in float32"),
    ):  # open ones stay close together: the gradients through a softmax that is all but one-hot are rounding errors
        q, k, v, mask = draw((), 6, 9, 16, 4, open_to_few)
        q, k = torch.cat([q, math.sqrt(22) * size.diag()], -1), torch.cat([k, keys], -1)
        yield Case((q, k, v, mask), what)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


def _weighted(weights: Tensor, mask: Tensor, v: Tensor) -> Tensor:
    return weights.masked_fill(~mask, 0.0) @ v


def _without_scale(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _attention(q * math.sqrt(q.shape[-1]), k, v, mask)


def _scaled_by_d(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _attention(q / math.sqrt(q.shape[-1]), k, v, mask)


def _zero_logits(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _logits(q, k).masked_fill(~mask, 0.0).softmax(-1) @ v


def _minus_infinity(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _logits(q, k).masked_fill(~mask, -math.inf).softmax(-1) @ v


def _everybody_for_nobody(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _logits(q, k).masked_fill(~mask, -1e9).softmax(-1) @ v


def _over_queries(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _weighted(_logits(q, k).masked_fill(~mask, -1e9).softmax(-2), mask, v)


def _masked_late(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _weighted(_logits(q, k).float().softmax(-1).to(v.dtype), mask, v)  # in float32, as the reader's is


def _shares(exponentials: Tensor, v: Tensor) -> Tensor:
    total = exponentials.sum(-1, keepdim=True)
    return (exponentials / torch.where(total == 0, 1.0, total)).to(v.dtype) @ v


def _naive(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _shares(_logits(q, k).float().exp().masked_fill(~mask, 0.0), v)


def _minus_100(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _weighted(_logits(q, k).masked_fill(~mask, -100.0).softmax(-1), mask, v)


def _naive_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _shares(_logits(q, k).float().exp() * mask, v)  # infinity times 0


def _shared_again(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _shares(_logits(q, k).float().softmax(-1) * mask, v)


_TOO_LARGE = ("right as long as the logits are small: e¹⁰⁰ is more than float32 can hold. Subtract each row's largest "
              "logit first, which changes no weight; torch's softmax does.")

EXERCISE = Exercise(
    name="transformer.attention",
    title="Only those who may be asked",
    difficulty=2,
    minutes=15,
    statement=r"""
        Eq. (1) with a mask, for all heads at once. A key that may not be asked gets the weight 0, and the weights of
        the others sum to 1. Two rows are harder than they look. One may attend to *nobody*: it is to return zeros. And
        one has logits in the hundreds: $e^{100}$ is more than float32 can hold. `F.scaled_dot_product_attention` is
        not needed; the next cell lets the translator think with your function.
        """,
    hints=(
        "A weight of 0 is a logit of -∞. What is the softmax of a row in which every logit is -∞?",
        "Put the lowest finite number in place of what is masked, let torch's softmax subtract each row's largest "
        "logit, and set the masked weights to 0 once more afterwards.",
        "logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(~mask, 0.0) @ v",
    ),
    stub=_stub,
    solution=_attention,
    cases=_cases,
    mistakes={
        "unmasked": Mistake(lambda q, k, v, mask: _logits(q, k).softmax(-1) @ v,
                            "the mask changes nothing: every query attends to every key."),
        "inverted": Mistake(lambda q, k, v, mask: _attention(q, k, v, ~mask),
                            "the mask is read the wrong way round: True means may attend."),
        "masked_late": Mistake(_masked_late,
                               "you mask after the softmax only: the weights that are left no longer sum to 1, since "
                               "the keys that may not be asked have taken their share."),
        "zero_logits": Mistake(_zero_logits, "a logit of 0 is not a weight of 0: e⁰ is 1, so what is masked is still "
                               "asked. Before the softmax, 'never' is -∞."),
        "minus_infinity": Mistake(_minus_infinity, "right, but for queries that may attend to nobody: the softmax of "
                                  "a row of -∞ is 0/0. They are to get zeros."),
        "everybody_for_nobody": Mistake(_everybody_for_nobody, "right, but for queries that may attend to nobody: all "
                                        "their logits are the same very low number, so they attend to all keys alike. "
                                        "They are to get zeros."),
        "without_scale": Mistake(_without_scale, "the logits are not divided by √d."),
        "scaled_by_d": Mistake(_scaled_by_d, "the logits are divided by d; Eq. (1) divides by √d."),
        "over_queries": Mistake(_over_queries, "your softmax runs over the queries, and it should run over the keys: "
                                "each *row* of weights sums to 1."),
        "naive": Mistake(_naive, _TOO_LARGE),
        "naive_product": Mistake(_naive_product, _TOO_LARGE),
        "minus_100": Mistake(_minus_100, "the number that you put in place of -∞ is not low enough: a logit may be "
                             "lower, and then what is masked takes all."),
        "shared_again": Mistake(_shared_again, "you mask after the softmax, and share out again what is left: right "
                                "until a masked key's logit is so far above the others that nothing is left of them in "
                                "float32."),
    },
    compare="Compare where your mask comes in: before the softmax, after it, or both?",
)  # fmt: skip
