"""A codebook without a gradient: appendix A.1's moving averages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(
    count: Tensor, total: Tensor, z: Tensor, indices: Tensor, gamma: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of appendix A.1: (count, total, codebook) after a batch.

    count [K] is N, total [K, D] is m; z [n, D] are the batch's vectors, indices [n] the codes that they chose. The
    codebook [K, D] is m / N, with N smoothed as Laplace does: epsilon more for every code, and the sum as it was.
    """
    raise NotImplementedError


def solution(
    count: Tensor, total: Tensor, z: Tensor, indices: Tensor, gamma: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of appendix A.1: (count, total, codebook) after a batch."""
    chosen = (indices == torch.arange(len(count))[:, None]).to(z.dtype)  # [K, n]: who chose whom
    count = gamma * count + (1 - gamma) * chosen.sum(1)
    total = gamma * total + (1 - gamma) * chosen @ z
    n = count.sum()
    smooth = (count + epsilon) / (n + len(count) * epsilon) * n
    return count, total, total / smooth[:, None]


def _call(codes: int, dim: int, n: int, gamma: float, epsilon: float, chosen: int | None = None, **kind) -> tuple:
    count, total = 0.1 + 3 * torch.rand(codes, **kind), torch.randn(codes, dim, **kind)
    return count, total, torch.randn(n, dim, **kind), torch.randint(chosen or codes, (n,)), gamma, epsilon


def cases() -> Iterator[Case]:
    yield Case(_call(2, 1, 1, 0.5, 0.25), "one vector")
    yield Case(_call(1, 2, 4, 0.9, 0.1), "one code")
    yield Case(_call(4, 2, 8, 0.75, 0.5, chosen=1), "all chose the same code")
    count, *rest = _call(4, 2, 6, 0.9, 0.01, chosen=2)
    yield Case((count * torch.tensor([1.0, 1.0, 0.0, 0.0]), *rest), "two codes with N = 0, which nobody chooses")
    yield Case(_call(3, 3, 0, 0.9, 0.1), "an empty batch")
    for _ in range(4):
        codes, dim, n = (int(torch.randint(2, high, ())) for high in (9, 7, 30))
        gamma, epsilon = 0.3 + 0.69 * torch.rand(()).item(), 0.01 + torch.rand(()).item()
        yield Case(_call(codes, dim, n, gamma, epsilon), "some codes chosen several times")
    yield Case(_call(5, 4, 12, 0.99, 1e-2, dtype=torch.float64), "float64")


def _with(kept=lambda g: g, new=lambda g: 1 - g, added=lambda total, n: total, divide=None) -> Callable:
    def wrong(count, total, z, indices, gamma, epsilon):
        chosen = torch.nn.functional.one_hot(indices, len(count)).to(z).T
        share = chosen.sum(1)
        count = kept(gamma) * count + new(gamma) * share
        total = kept(gamma) * total + new(gamma) * added(chosen @ z, share[:, None])
        n = count.sum()
        by = divide(count, epsilon) if divide else (count + epsilon) / (n + len(count) * epsilon) * n
        return count, total, total / by[:, None]

    return wrong


unsmoothed = _with(divide=lambda count, epsilon: count)
clamped = _with(divide=lambda count, epsilon: count.clamp(min=epsilon))
sum_not_kept = _with(divide=lambda count, epsilon: count + epsilon)
shares = _with(divide=lambda count, eps: (count + eps) / (count.sum() + len(count) * eps))
gamma_exchanged = _with(kept=lambda g: 1 - g, new=lambda g: g)
nothing_forgotten = _with(kept=lambda g: 1.0, new=lambda g: 1.0)
new_at_full_weight = _with(new=lambda g: 1.0)
means = _with(added=lambda total, n: total / n.clamp(min=1))


def old_count(count, total, z, indices, gamma, epsilon):
    right = solution(count, total, z, indices, gamma, epsilon)
    smooth = (count + epsilon) / (count.sum() + len(count) * epsilon) * count.sum()
    return right[0], right[1], right[1] / smooth[:, None]


def smoothed_for_good(count, total, z, indices, gamma, epsilon):
    count, total, codebook = solution(count, total, z, indices, gamma, epsilon)
    n = count.sum()
    return (count + epsilon) / (n + len(count) * epsilon) * n, total, codebook


EXERCISE = Exercise(
    name="vqvae.move_codebook",
    title="A codebook without a gradient",
    difficulty=2,
    minutes=15,
    statement="""
        Appendix A.1 in code. A batch is only a sample, so both the counts $N$ and the sums $m$ are moving averages, and
        $N$ is smoothed before the division, so that a code which nobody chooses does not fly away. What you hand back
        as the count is the average itself: it goes in again with the next batch, and smoothing is for the division
        alone.
        """,
    hints=(
        "First the batch alone: how many chose code i, and what is their sum? A table of zeros and ones [K, n] gives "
        "both.",
        "N and m are averages of one kind: gamma times the old, 1 - gamma times the batch's. Then smooth N, divide.",
        "smooth = (count + epsilon) / (n + K * epsilon) * n with n = count.sum(); the sums of a batch are chosen @ z.",
    ),
    compare="Compare: is there a loop over the codes in yours? A table of zeros and ones and a product do it at once.",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "gamma_exchanged": Mistake(gamma_exchanged, "gamma is exchanged: it is the share of the old average that is "
                                   "kept, so that 0.99 moves slowly."),
        "nothing_forgotten": Mistake(nothing_forgotten, "nothing is forgotten: that is a running sum. gamma weighs the "
                                     "old, 1 - gamma the new."),
        "new_at_full_weight": Mistake(new_at_full_weight, "the batch is added at full weight. In a moving average it "
                                      "weighs 1 - gamma."),
        "means_added": Mistake(means, "you add the mean of a code's vectors to m. m takes their sum; the division by N "
                               "comes at the end."),
        "old_count": Mistake(old_count, "m is new and N is old: divide by the count after this batch."),
        "unsmoothed": Mistake(unsmoothed, "N is not smoothed. A code that was not used for long has N near 0, and "
                              "m / N is noise or worse."),
        "clamped": Mistake(clamped, "you keep N above epsilon. Laplace adds epsilon to every N, and scales the sum "
                           "back."),
        "sum_grows": Mistake(sum_not_kept, "epsilon is added and the sum has grown: scale N back by "
                             "n / (n + K epsilon)."),
        "shares": Mistake(shares, "you divide by shares that sum to 1. Multiply by n, the sum of N: the smoothed "
                          "counts sum to what N did."),
        "smoothed_for_good": Mistake(smoothed_for_good, "the codebook is right, but the count that you hand back is "
                                     "the smoothed one. It goes into the next step: smooth for the division alone."),
    },
)  # fmt: skip
