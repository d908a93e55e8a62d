"""A codebook without a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _averages_stub(
    count: Tensor, total: Tensor, z: Tensor, indices: Tensor, gamma: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of appendix A.1: (count, total, codebook) after a batch.

    count [K] is N, total [K, D] is m; z [n, D] are the batch's vectors, indices [n] the codes that they chose. The
    codebook [K, D] is m / N, with N smoothed as Laplace does: epsilon more for every code, and the sum as it was.
    """
    raise NotImplementedError


def _averages(
    count: Tensor, total: Tensor, z: Tensor, indices: Tensor, gamma: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of appendix A.1: (count, total, codebook) after a batch."""
    chosen = z.new_zeros(len(count), len(z))
    chosen[indices, torch.arange(len(z))] = 1
    count = gamma * count + (1 - gamma) * chosen.sum(1)
    total = gamma * total + (1 - gamma) * chosen @ z
    n = count.sum()
    smooth = (count + epsilon) / (n + len(count) * epsilon) * n
    return count, total, total / smooth[:, None]


def _averages_with(kept=lambda g: g, new=lambda g: 1 - g, added=lambda total, n: total, divide=None) -> Callable:
    def wrong(count, total, z, indices, gamma, epsilon):
        chosen = torch.nn.functional.one_hot(indices, len(count)).to(z).T
        share = chosen.sum(1)
        count = kept(gamma) * count + new(gamma) * share
        total = kept(gamma) * total + new(gamma) * added(chosen @ z, share[:, None])
        n = count.sum()
        by = divide(count, epsilon) if divide else (count + epsilon) / (n + len(count) * epsilon) * n
        return count, total, total / by[:, None]

    return wrong


_unsmoothed = _averages_with(divide=lambda count, epsilon: count)


_sum_not_kept = _averages_with(divide=lambda count, epsilon: count + epsilon)


_shares = _averages_with(divide=lambda count, eps: (count + eps) / (count.sum() + len(count) * eps))


_gamma_exchanged = _averages_with(kept=lambda g: 1 - g, new=lambda g: g)


_nothing_forgotten = _averages_with(kept=lambda g: 1.0, new=lambda g: 1.0)


_means = _averages_with(added=lambda total, n: total / n.clamp(min=1))


def _old_count(count, total, z, indices, gamma, epsilon):
    right = _averages(count, total, z, indices, gamma, epsilon)
    smooth = (count + epsilon) / (count.sum() + len(count) * epsilon) * count.sum()
    return right[0], right[1], right[1] / smooth[:, None]


AVERAGES_MISTAKES = (
    (_gamma_exchanged, "gamma is exchanged: it is the share of the old average that is kept, so 0.99 moves slowly."),
    (_nothing_forgotten, "nothing is forgotten: that is a running sum. gamma weighs the old, 1 - gamma the new."),
    (_means, "you add the mean of a code's vectors to m. It takes their sum; the division by N comes at the end."),
    (_old_count, "m is new and N is old: divide by the count after this batch."),
    (_unsmoothed, "N is not smoothed. A code that was not used for long has N near 0, and m / N is noise or worse."),
    (_sum_not_kept, "epsilon is added and the sum has grown: scale N back by n / (n + K epsilon)."),
    (_shares, "you divide by shares that sum to 1. Multiply by n = sum of N: the smoothed counts sum to what N did."),
)  # fmt: skip


def _averages_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for codes, dim, n, gamma, epsilon in ((4, 3, 12, 0.9, 0.5), (6, 2, 5, 0.99, 1e-2), (3, 3, 9, 0.5, 0.1)):
        count, total = numbers(codes, seed=1).abs() + 0.1, numbers(codes, dim, seed=2)
        z, indices = numbers(n, dim, seed=3), torch.arange(n) ** 2 % codes  # some codes more often, some never
        got = fn(count, total, z, indices, gamma, epsilon)
        want = _averages(count, total, z, indices, gamma, epsilon)
        case = f"{codes} codes, gamma {gamma}, epsilon {epsilon}"
        three = isinstance(got, tuple | list) and len(got) == 3
        yield three, f"{case}: hand back three things: count, total, codebook."
        right = all(same(a, b) for a, b in zip(got, want, strict=True))
        for mistake, says in AVERAGES_MISTAKES:
            other = mistake(count, total, z, indices, gamma, epsilon)
            yield right or not all(same(a, b) for a, b in zip(got, other, strict=True)), f"{case}: {says}"
        for name, a, b in zip(("count", "total", "codebook"), got, want, strict=True):
            yield same(a, b), f"{case}: {name} differs. Take one code that was chosen twice, and one never."


EXERCISE = Exercise(
    name="vqvae.move_codebook",
    title="A codebook without a gradient",
    difficulty=2,
    minutes=15,
    statement="""
        Appendix A.1: the middle term of Eq. (3) is smallest where each code is the mean of the vectors that chose it.
        So one may as well put it there. A batch is only a sample, so the mean is a moving one: of how many chose the
        code, and of their sum.
        """,
    hints=(
        "First the batch alone: how many chose code i, and what is their sum? A table of zeros and ones [K, n] gives "
        "both.",
        "N and m are averages of one kind: gamma times the old, 1 - gamma times the batch's. Then smooth N, divide.",
        "smooth = (count + epsilon) / (n + K * epsilon) * n with n = count.sum(); the sums of a batch are chosen @ z.",
    ),
    stub=_averages_stub,
    solution=_averages,
    check=_averages_check,
    wrong={
        "gamma_exchanged": WrongAnswer(_gamma_exchanged, "gamma is exchanged"),
        "nothing_forgotten": WrongAnswer(_nothing_forgotten, "nothing is forgotten"),
        "means_added": WrongAnswer(_means, "It takes their sum"),
        "old_count": WrongAnswer(_old_count, "N is old"),
        "unsmoothed": WrongAnswer(_unsmoothed, "N is not smoothed"),
        "sum_grows": WrongAnswer(_sum_not_kept, "the sum has grown"),
        "shares": WrongAnswer(_shares, "shares that sum to 1"),
    },
)
