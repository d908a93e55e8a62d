"""A schedule that ends in noise alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(alpha_bar: Tensor) -> Tensor:
    """alpha_bar [steps] of a schedule, bent so that its last entry is 0 and its first stays: [steps].

    alpha_bar falls from nearly 1 to a little above 0; x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps.
    """
    raise NotImplementedError


def solution(alpha_bar: Tensor) -> Tensor:
    """alpha_bar [steps] of a schedule, bent so that its last entry is 0 and its first stays: [steps]."""
    share = alpha_bar.sqrt()
    return ((share - share[-1]) * share[0] / (share[0] - share[-1])).square()


def cases() -> Iterator[Case]:
    yield Case((torch.tensor([0.9, 0.1]),), "two steps")
    yield Case(((1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0),), "the paper's thousand steps")
    yield Case(((1 - torch.linspace(0.01, 0.4, 9)).cumprod(0),), "nine steps")
    for _ in range(4):
        steps = int(torch.randint(3, 30, ()))
        yield Case(((0.995 - 0.3 * torch.rand(steps)).cumprod(0),), "steps of any size")
    yield Case((torch.tensor([1.0, 0.5, 0.2]),), "it begins at 1")
    yield Case((torch.tensor([0.9, 0.4, 0.0]),), "it ends at 0 already: nothing is to be done")
    yield Case(((0.9 - 0.2 * torch.rand(12, dtype=torch.float64)).cumprod(0),), "float64")


def cut_off(alpha_bar: Tensor) -> Tensor:
    return torch.cat([alpha_bar[:-1], 0 * alpha_bar[-1:]])


def shifted_alone(alpha_bar: Tensor) -> Tensor:
    return (alpha_bar.sqrt() - alpha_bar[-1].sqrt()).square()


def on_the_squares(alpha_bar: Tensor) -> Tensor:
    return (alpha_bar - alpha_bar[-1]) * alpha_bar[0] / (alpha_bar[0] - alpha_bar[-1])


def from_1(alpha_bar: Tensor) -> Tensor:
    share = alpha_bar.sqrt()
    return ((share - share[-1]) / (share[0] - share[-1])).square()


def not_squared(alpha_bar: Tensor) -> Tensor:
    return solution(alpha_bar).sqrt()


def by_1_minus_the_last(alpha_bar: Tensor) -> Tensor:
    share = alpha_bar.sqrt()
    return ((share - share[-1]) / (1 - share[-1])).square()


EXERCISE = Exercise(
    name="walt.no_film_left",
    title="No film left",
    difficulty=2,
    minutes=15,
    statement="""
        DDPM's schedule ends at $\\bar\\alpha_T = 0.00004$, so the film still has a share of $\\sqrt{\\bar\\alpha_T} =
        0.0064$ at the last step. That is little, but its mean brightness is there to be read, while sampling begins
        from noise without any. So the schedule is bent ([2305.08891](https://arxiv.org/abs/2305.08891), section 3.1):
        take the film's **share** $\\sqrt{\\bar\\alpha_t}$, shift it so that the last is 0, stretch it so that the first
        is what it was, and give back $\\bar\\alpha$.
        """,
    hints=(
        "Which quantity is shifted and stretched: alpha_bar, or the factor that stands before x_0?",
        "With a = sqrt(alpha_bar): a - a[-1] ends at 0 and begins at a[0] - a[-1]. By what must it be multiplied to "
        "begin at a[0]?",
        "((a - a[-1]) * a[0] / (a[0] - a[-1])) ** 2",
    ),
    compare="Compare: `LinearBeta(zero_terminal_snr=True)` in soralab/diffusion/process.py. With it the network cannot "
            "predict the noise, for at the last step eps is x_t itself and says nothing of the film; hence v.",
    stub=stub,
    gradients=False,
    solution=solution,
    cases=cases,
    tolerance=1e-5,
    mistakes={
        "cut_off": Mistake(cut_off, "you set the last entry to 0 and leave the rest. The last step then is a jump; the "
                           "whole schedule is to be bent."),
        "shifted_alone": Mistake(shifted_alone, "you shift the shares and do not stretch them: the first step has less "
                                 "film than before."),
        "on_the_squares": Mistake(on_the_squares, "you shift and stretch alpha_bar. What is linear is the share of the "
                                  "film, its root: take the root first, and square at the end."),
        "from_1": Mistake(from_1, "your schedule begins at 1. Its first entry is to stay what it was: stretch to "
                          "a[0], not to 1."),
        "not_squared": Mistake(not_squared, "that is the share sqrt(alpha_bar). Asked is alpha_bar: square it."),
        "by_1_minus_the_last": Mistake(by_1_minus_the_last, "you stretch as if the first share were 1. It is a[0], and "
                                       "is to stay that."),
    },
)  # fmt: skip
