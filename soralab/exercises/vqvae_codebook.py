"""Chapter 05's exercises about what follows: a codebook that is a moving average, and the masks of a PixelCNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer
from soralab.exercises.vit_inside import numbers, same

# --------------------------------------------------------------------------------------------- a codebook of averages


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
    chosen = torch.zeros(len(count), len(z))
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


AVERAGES = Exercise(
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

# ------------------------------------------------------------------------------------------------- what a prior may see


def _mask_stub(size: int, first: bool) -> Tensor:
    """The mask of a convolution of size x size (odd) in a PixelCNN: bool [size, size], True where it may look.

    Codes are written row by row, each row from left to right. `first`: in the first layer, whose input are the codes
    themselves, it must not see its own place (mask A); in later layers it may (mask B).
    """
    raise NotImplementedError


def _mask(size: int, first: bool) -> Tensor:
    """The mask of a convolution of size x size in a PixelCNN: bool [size, size], True where it may look."""
    order = torch.arange(size * size).reshape(size, size)
    own = size * size // 2
    return order < own if first else order <= own


def _never_own(size: int, first: bool) -> Tensor:
    return _mask(size, True)


def _always_own(size: int, first: bool) -> Tensor:
    return _mask(size, False)


def _exchanged(size: int, first: bool) -> Tensor:
    return _mask(size, not first)


def _columns(size: int, first: bool) -> Tensor:
    return _mask(size, first).T


def _rectangle(size: int, first: bool) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[: size // 2 + 1, : size // 2 + 1] = True
    mask[size // 2, size // 2] = not first
    return mask


def _whole_row(size: int, first: bool) -> Tensor:
    mask = _mask(size, first)
    mask[size // 2, size // 2 + 1 :] = True
    return mask


def _upside_down(size: int, first: bool) -> Tensor:
    return _mask(size, first).flip(0, 1)


def _rows_above_only(size: int, first: bool) -> Tensor:
    mask = _mask(size, first)
    mask[size // 2, : size // 2] = False
    return mask


MASK_MISTAKES = (
    (_upside_down, "your mask looks at what comes after. torch's convolution does not turn its kernel round."),
    (_columns, "that is the order of columns. Codes are written row by row."),
    (_exchanged, "A and B are exchanged: it is the first layer that must not see its own place."),
    (_always_own, "in the first layer its own place is the code that is to be guessed: leave it out."),
    (_never_own, "in later layers its own place holds what came before, not the code itself: it may look there."),
    (_whole_row, "its own row is open to the right as well: these codes are not written yet."),
    (_rectangle, "above and to the right is written already: the rows above are open over their whole length."),
    (_rows_above_only, "its own row is open to the left: these codes are written."),
)  # fmt: skip


def _mask_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    cases = [(size, first) for size in (3, 5, 7) for first in (True, False)]
    got = {case: fn(*case) for case in cases}
    for (size, first), mask in got.items():
        case = f"size {size}, {'first' if first else 'later'} layer"
        yield isinstance(mask, Tensor), f"{case}: the result is no tensor."
        yield mask.shape == (size, size), f"{case}: the mask is {list(mask.shape)}; it takes [{size}, {size}]."
        yield mask.dtype == torch.bool, f"{case}: the mask is {mask.dtype}; it takes bool, True where it may look."
    right = all(torch.equal(mask, _mask(*case)) for case, mask in got.items())
    for mistake, says in MASK_MISTAKES:
        yield right or not all(torch.equal(mask, mistake(*case)) for case, mask in got.items()), says
    yield right, "a written place is missing, or another one is open. Number the places of a kernel as you read."


MASK = Exercise(
    name="vqvae.causal_mask",
    title="What a prior may see",
    difficulty=1,
    minutes=10,
    statement="""
        A prior writes a map code by code, and may look at what is written. In a convolution this is a mask on its
        kernel. The package needs none, since it shifts; but with your mask a cell below draws what a stack of masked
        layers sees, and what it never does.
        """,
    hints=(
        "Number the places of the kernel in reading order. Where is the place itself, and what comes before it?",
        "Strictly before in the first layer, up to and with itself in the later ones: one comparison.",
        "order = torch.arange(size * size).reshape(size, size); the middle is number size * size // 2.",
    ),
    stub=_mask_stub,
    solution=_mask,
    check=_mask_check,
    wrong={
        "upside_down": WrongAnswer(_upside_down, "what comes after"),
        "columns": WrongAnswer(_columns, "the order of columns"),
        "exchanged": WrongAnswer(_exchanged, "A and B are exchanged"),
        "always_own": WrongAnswer(_always_own, "the code that is to be guessed"),
        "never_own": WrongAnswer(_never_own, "in later layers"),
        "whole_row": WrongAnswer(_whole_row, "open to the right as well"),
        "rectangle": WrongAnswer(_rectangle, "over their whole length"),
        "rows_above_only": WrongAnswer(_rows_above_only, "open to the left"),
    },
)
