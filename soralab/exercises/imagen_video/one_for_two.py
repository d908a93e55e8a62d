"""What a student is to answer, so that one of its steps takes it as far as two of the teacher's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(teacher: Callable, z: Tensor, alpha: list[float], sigma: list[float]) -> Tensor:
    """The v [batch, ...] that a student is to predict at z, of z's shape.

    alpha, sigma: the shares of film and noise at three times, alpha[k]^2 + sigma[k]^2 = 1: where z is, after the first
    of the teacher's steps, and after the second; sigma falls, and may end at 0. teacher(z, k) gives its v at z and at
    time k, 0 or 1. Its steps are DDIM's: x_0 and eps from v, and on to alpha x_0 + sigma eps with the next shares. One
    such step of the student, with your v, from time 0 to time 2 at once, must arrive where two of the teacher's do.
    """
    raise NotImplementedError


def solution(teacher: Callable, z: Tensor, alpha: list[float], sigma: list[float]) -> Tensor:
    """The v [batch, ...] that a student is to predict at z, of z's shape."""
    there = z
    for k in range(2):
        v = teacher(there, k)
        x0, eps = alpha[k] * there - sigma[k] * v, sigma[k] * there + alpha[k] * v
        there = alpha[k + 1] * x0 + sigma[k + 1] * eps
    ratio = sigma[2] / sigma[0]
    x0 = (there - ratio * z) / (alpha[2] - ratio * alpha[0])
    return (alpha[0] * z - x0) / sigma[0]


def _teacher(dim: int) -> Callable:
    mix = torch.randn(2, dim, dim, dtype=torch.float64) / dim**0.5

    def teacher(z: Tensor, k: int) -> Tensor:
        """A network that is no straight line, so that two steps are not one."""
        return torch.tanh(z @ mix[k].to(z)) + 0.3 * z.square()

    return teacher


def _case(times: tuple[float, float, float], *shape: int, dtype=torch.float32) -> tuple:
    angles = [math.pi / 2 * time for time in times]
    sigma = [math.sin(angle) if time else 0.0 for time, angle in zip(times, angles, strict=True)]
    return _teacher(shape[-1]), torch.randn(*shape, dtype=dtype), [math.cos(angle) for angle in angles], sigma


def cases() -> Iterator[Case]:
    yield Case(_case((0.5, 0.25, 0.0), 1, 1), "the last step, to the film itself")
    yield Case(_case((0.75, 0.625, 0.5), 2, 3), "a step in the middle")
    yield Case(_case((1.0, 0.875, 0.75), 2, 4), "the first step, from noise alone")
    yield Case(_case((1.0, 0.5, 0.0), 3, 2, 2), "one step for all")
    yield Case(_case((0.9, 0.4, 0.3), 2, 2, 3), "steps that are not as long as each other")
    yield Case(_case((0.3, 0.2, 0.1), 2, 3, 2, 2, dtype=torch.float64), "float64")
    for _ in range(3):
        times = sorted(torch.rand(3).tolist(), reverse=True)
        yield Case(_case(tuple(0.1 + 0.8 * time for time in times), *torch.randint(1, 4, (3,)).tolist()))


def _walk(teacher, z, alpha, sigma):
    """What happens on the teacher's way: [(x_0, eps, z)] of its two steps."""
    there, steps = z, []
    for k in range(2):
        v = teacher(there, k)
        x0, eps = alpha[k] * there - sigma[k] * v, sigma[k] * there + alpha[k] * v
        there = alpha[k + 1] * x0 + sigma[k + 1] * eps
        steps.append((x0, eps, there))
    return steps


def _v(x0, z, alpha, sigma):
    return (alpha[0] * z - x0) / sigma[0]


def last_x0(teacher, z, alpha, sigma):
    return _v(_walk(teacher, z, alpha, sigma)[1][0], z, alpha, sigma)


def where_it_arrives(teacher, z, alpha, sigma):
    return _v(_walk(teacher, z, alpha, sigma)[1][2], z, alpha, sigma)


def first_answer(teacher, z, alpha, sigma):
    return teacher(z, 0)


def mean_of_both(teacher, z, alpha, sigma):
    first, second = (step[0] for step in _walk(teacher, z, alpha, sigma))
    return _v((first + second) / 2, z, alpha, sigma)


def second_answer(teacher, z, alpha, sigma):
    return teacher(_walk(teacher, z, alpha, sigma)[0][2], 1)


def mean_of_v(teacher, z, alpha, sigma):
    return (teacher(z, 0) + teacher(_walk(teacher, z, alpha, sigma)[0][2], 1)) / 2


def asked_twice_at_z(teacher, z, alpha, sigma):
    steps = [teacher(z, 0), teacher(z, 1)]
    there = z
    for k, v in enumerate(steps):
        x0, eps = alpha[k] * there - sigma[k] * v, sigma[k] * there + alpha[k] * v
        there = alpha[k + 1] * x0 + sigma[k + 1] * eps
    ratio = sigma[2] / sigma[0]
    return _v((there - ratio * z) / (alpha[2] - ratio * alpha[0]), z, alpha, sigma)


def asked_at_the_old_time(teacher, z, alpha, sigma):
    return solution(lambda x, k: teacher(x, 0), z, alpha, sigma)


def x0_for_v(teacher, z, alpha, sigma):
    return alpha[0] * z - sigma[0] * solution(teacher, z, alpha, sigma)


def noise_thrown_away(teacher, z, alpha, sigma):
    there = _walk(teacher, z, alpha, sigma)[1][2]
    return _v(there / max(alpha[2], 1e-6), z, alpha, sigma)


def sign_of_v(teacher, z, alpha, sigma):
    return -solution(teacher, z, alpha, sigma)


EXERCISE = Exercise(
    name="imagen_video.one_for_two",
    title="One step for two",
    difficulty=3,
    minutes=20,
    statement="""
        Progressive distillation (section 2.7) halves the steps of a sampler: a student learns to go in one step as far
        as its teacher goes in two. What must it answer for that? Not what the teacher says at either of its stops. The
        student's step is one straight pull towards an $x_0$ of its own, and that $x_0$ follows from where it has to
        arrive: two equations, of where it begins and of where it ends, in two unknowns.
        """,
    hints=(
        "Walk the teacher's two steps on paper. The student starts at the same z and ends at the same place, with one "
        "x_0 and one eps for the whole way.",
        "z = alpha_0 x + sigma_0 eps and there = alpha_2 x + sigma_2 eps. Eliminate eps: take sigma_2 / sigma_0 times "
        "the first from the second.",
        "x = (there - r z) / (alpha[2] - r alpha[0]) with r = sigma[2] / sigma[0]; and v from x and z: z is alpha x + "
        "sigma eps, v is alpha eps - sigma x, so sigma v = alpha z - x.",
    ),
    compare="Compare: at the last step sigma ends at 0. What is left of your formula there, and why is that right?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "last_x0": Mistake(last_x0, "your target is the teacher's x_0 at its second stop. Pulled there from z at once, "
                           "the student ends elsewhere: its x_0 follows from where it must arrive."),
        "where_it_arrives": Mistake(where_it_arrives, "you take the place where the teacher arrives for x_0. It still "
                                    "has noise in it, but at the last step: solve for x_0."),
        "first_answer": Mistake(first_answer, "your target is the teacher's first answer: one long step of the "
                                "teacher's, and nothing is learnt about the second."),
        "mean_of_both": Mistake(mean_of_both, "you take the mean of the teacher's two x_0. They do not count alike: "
                                "solve for the x_0 that leads to where the teacher arrives."),
        "second_answer": Mistake(second_answer, "you return the teacher's second v. It belongs to the teacher's second "
                                 "place and time, not to z."),
        "mean_of_v": Mistake(mean_of_v, "you take the mean of the teacher's two answers. They belong to two places and "
                             "two times: walk both steps, then solve."),
        "asked_twice_at_z": Mistake(asked_twice_at_z, "you ask the teacher both times at z. Its second step starts "
                                    "where its first one ended."),
        "asked_at_the_old_time": Mistake(asked_at_the_old_time, "the teacher's second step is asked at the first one's "
                                         "time: it is to be told k = 1 there."),
        "x0_for_v": Mistake(x0_for_v, "you return x_0, and it is right. Asked for is v, which the student predicts: "
                            "sigma v = alpha z - x_0."),
        "noise_thrown_away": Mistake(noise_thrown_away, "you divide where the teacher arrives by alpha, as if no noise "
                                     "were left there. Eliminate eps by z."),
        "sign_of_v": Mistake(sign_of_v, "the sign of v is turned round: v = alpha eps - sigma x_0."),
    },
)  # fmt: skip
