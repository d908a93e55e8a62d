"""One step of the sampler that the course's films are made with."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(x: Tensor, x0: Tensor, t: float, s: float, x0_past: Tensor | None, t_past: float | None) -> Tensor:
    """One step of DPM-Solver++ on the straight line, from x at time t to time s < t: x_s, of x's shape.

    x0 is the network's best guess of the film, seen from x at t; x0_past was its guess one step earlier, at
    t_past > t. At the first step there is none: both are None.
    """
    raise NotImplementedError


def solution(x: Tensor, x0: Tensor, t: float, s: float, x0_past: Tensor | None, t_past: float | None) -> Tensor:
    """One step of DPM-Solver++ on the straight line, from x at time t to time s < t: x_s, of x's shape."""

    def level(time: float) -> float:
        return math.log((1 - time) / time)

    goal = x0
    if x0_past is not None and s > 0 and t_past < 1:
        ratio = (level(s) - level(t)) / (level(t) - level(t_past))
        goal = x0 + ratio / 2 * (x0 - x0_past)
    return s / t * x + (1 - s / t) * goal


def cases() -> Iterator[Case]:
    def three(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
        return torch.randn(*shape), torch.randn(*shape), torch.randn(*shape)

    x, x0, past = three(1, 1)
    yield Case((x, x0, 1.0, 0.9, None, None), "the first step, from pure noise")
    yield Case((x, x0, 0.9, 0.8, past, 1.0), "the second step: at t = 1 log((1 - t) / t) is minus infinity")
    yield Case((x, x0, 0.1, 0.0, past, 0.3), "the last step, to s = 0")
    yield Case((x, x0, 1.0, 0.0, None, None), "one step for all")
    for _ in range(4):
        s, t, t_past = sorted((0.05 + 0.9 * torch.rand(3)).tolist())
        x, x0, past = three(2, 3, 2)
        yield Case((x, x0, t, s, past, t_past), "steps of different length")
    x, x0, past = (value.double() for value in three(2, 2, 1, 2))
    yield Case((x, x0, 0.6, 0.5, past, 0.75), "float64")


def only_the_goal(x, x0, t, s, x0_past, t_past):
    return x0


def first_order(x, x0, t, s, x0_past, t_past):
    return solution(x, x0, t, s, None, None)


def in_plain_time(x, x0, t, s, x0_past, t_past):
    if x0_past is None or s == 0 or t_past == 1:
        return first_order(x, x0, t, s, None, None)
    return first_order(x, x0 + (t - s) / (t_past - t) / 2 * (x0 - x0_past), t, s, None, None)


def in_plain_time_to_the_end(x, x0, t, s, x0_past, t_past):
    moved = 0 if x0_past is None else (t - s) / (t_past - t) / 2 * (x0 - x0_past)
    return first_order(x, x0 + moved, t, s, None, None)


def averaged(x, x0, t, s, x0_past, t_past):
    if x0_past is None or s == 0 or t_past == 1:
        return first_order(x, x0, t, s, None, None)
    return first_order(x, (x0 + x0_past) / 2, t, s, None, None)


def upside_down(x, x0, t, s, x0_past, t_past):
    if x0_past is None or s == 0 or t_past == 1:
        return first_order(x, x0, t, s, None, None)
    h, h_past = (math.log((1 - b) * a / (b * (1 - a))) for a, b in ((t, s), (t_past, t)))
    return first_order(x, x0 + h_past / h / 2 * (x0 - x0_past), t, s, None, None)


def all_steps_alike(x, x0, t, s, x0_past, t_past):
    if x0_past is None or s == 0 or t_past == 1:
        return first_order(x, x0, t, s, None, None)
    return first_order(x, 1.5 * x0 - 0.5 * x0_past, t, s, None, None)


def from_the_past(x, x0, t, s, x0_past, t_past):
    step = solution(x, x0, t, s, x0_past, t_past)
    ahead = x0_past is not None and s > 0 and t_past < 1
    return step + (1 - s / t) * (x0_past - x0) if ahead else step


def backwards(x, x0, t, s, x0_past, t_past):
    return 2 * first_order(x, x0, t, s, None, None) - solution(x, x0, t, s, x0_past, t_past)


def the_whole_difference(x, x0, t, s, x0_past, t_past):
    if x0_past is None or s == 0 or t_past == 1:
        return first_order(x, x0, t, s, None, None)
    return 2 * solution(x, x0, t, s, x0_past, t_past) - first_order(x, x0, t, s, None, None)


def the_noise_forgotten(x, x0, t, s, x0_past, t_past):
    step = solution(x, x0, t, s, x0_past, t_past)
    return step - s / t * (x - (1 - t) * x0)


EXERCISE = Exercise(
    name="sora.solver_step",
    title="The sampler's second look back",
    difficulty=3,
    minutes=20,
    statement="""
        The films of this chapter are not made by Euler's method, but by **DPM-Solver++**
        ([2211.01095](https://arxiv.org/abs/2211.01095), algorithm 2). Euler believes the network's best guess $x_0$ of
        the film for a whole step: it keeps the share $s/t$ of $x_t$, and the rest becomes film,

        $$x_s = \\frac{s}{t}\\,x_t + \\Big(1 - \\frac{s}{t}\\Big)\\,x_0 .$$

        But that guess moves as the noise falls. So look where it was one step ago, and put in place of $x_0$ the value
        it will have **half a step from now** if it goes on moving as it did. The guess moves more evenly in *film
        against noise*, $\\lambda = \\log\\big((1 - t)/t\\big)$, than in $t$: measure both steps in that. ($\\lambda$
        grows as the noise falls.) Where it is infinite (a step to $s = 0$, a past at $t = 1$) nothing can be
        extrapolated: take $x_0$ as it is.
        """,
    hints=(
        "With level(t) = log((1 - t) / t), two points of a straight line are known: x0 at level(t), x0_past at "
        "level(t_past). Where is the line half-way between level(t) and level(s)?",
        "With h = level(s) - level(t) and h_past = level(t) - level(t_past): go on from x0 by h / 2 times the slope "
        "(x0 - x0_past) / h_past.",
        "goal = x0 + h / (2 h_past) (x0 - x0_past), unless x0_past is None, s == 0 or t_past == 1; then the formula "
        "with goal in the place of x0.",
    ),
    compare="Compare: `dpm_solver_pp` in soralab/diffusion/samplers.py does the same for every noise process.",
    stub=stub,
    gradients=False,  # it films; nothing is trained through it
    solution=solution,
    cases=cases,
    mistakes={
        "only_the_goal": Mistake(only_the_goal, "you jump to the guess. It is the end of the way: at time s some "
                                 "of the noise is still there."),
        "first_order": Mistake(first_order, "you never look back: that is Euler's method. x0_past says where the guess "
                               "was one step ago."),
        "in_plain_time": Mistake(in_plain_time, "you measure the steps in t. Near the end t hardly changes while "
                                 "log((1 - t) / t) changes a lot: measure both in that."),
        "in_plain_time_to_the_end": Mistake(in_plain_time_to_the_end, "you measure the steps in t, where nothing is "
                                            "infinite, so that you never meet the two exceptions either. Measure both "
                                            "in log((1 - t) / t)."),
        "averaged": Mistake(averaged, "you take the mean of the two guesses, and so the value half a step *ago*. The "
                            "step lies ahead: extrapolate."),
        "upside_down": Mistake(upside_down, "your ratio of the steps is upside down: the longer the step ahead, the "
                               "further the guess will have moved."),
        "all_steps_alike": Mistake(all_steps_alike, "you take both steps for equally long. In log((1 - t) / t) they "
                                   "are not: half a step ahead is h / (2 h_past) of the last one."),
        "from_the_past": Mistake(from_the_past, "you go on from x0_past. The line is to go on from x0, the later of "
                                 "the two guesses."),
        "backwards": Mistake(backwards, "you move the guess back to where it came from: a sign. It goes on from "
                             "x0_past through x0, so the difference is x0 - x0_past and both steps have one sign."),
        "the_whole_difference": Mistake(the_whole_difference, "you extrapolate to the end of the step. One value "
                                         "stands for the whole step, so take that of its middle: half as far."),
        "the_noise_forgotten": Mistake(the_noise_forgotten, "you keep the film's part of the formula and drop the "
                                       "noise that x still holds: x_s has the share s / t of it."),
    },
)  # fmt: skip
