"""A sampler whose network is shown what it believed before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(network: Callable, x: Tensor, alpha: list[float], sigma: list[float]) -> Tensor:
    """From noise x [batch, ...] to x_0 by DDIM's steps, the network being shown its own last opinion: x's shape.

    alpha, sigma [steps + 1]: the shares of film and noise at each time, from noise (alpha 0) to film (sigma 0).
    network(x_t, k, previous) predicts v = alpha eps - sigma x_0 at time number k; previous [batch, ...] is the x_0 that
    it believed in at time k - 1, zeros at the first.
    """
    raise NotImplementedError


def solution(network: Callable, x: Tensor, alpha: list[float], sigma: list[float]) -> Tensor:
    """From noise x [batch, ...] to x_0 by DDIM's steps, the network being shown its own last opinion: x's shape."""
    previous = torch.zeros_like(x)
    for k in range(len(alpha) - 1):
        v = network(x, k, previous)
        previous, eps = alpha[k] * x - sigma[k] * v, sigma[k] * x + alpha[k] * v
        x = alpha[k + 1] * previous + sigma[k + 1] * eps
    return x


def _network(values: int) -> Callable:
    here, before = torch.randn(2, values, values, dtype=torch.float64) / values**0.5

    def network(x: Tensor, k: int, previous: Tensor) -> Tensor:
        """A fixed network, which listens to all that it is given."""
        return torch.tanh(x @ here.to(x) + previous @ before.to(x) + 0.3 * k)

    return network


def _times(steps: int) -> tuple[list[float], list[float]]:
    angle = torch.linspace(torch.pi / 2, 0, steps + 1, dtype=torch.float64)
    alpha, sigma = angle.cos().tolist(), angle.sin().tolist()
    alpha[0], sigma[-1] = 0.0, 0.0
    return alpha, sigma


def cases() -> Iterator[Case]:
    for steps, note in ((1, "one step: nothing is remembered yet"), (2, "two steps"), (3, ""), (8, "")):
        batch, values = torch.randint(1, 5, (2,)).tolist()
        yield Case((_network(values), torch.randn(batch, values), *_times(steps)), note)
    yield Case((_network(3), torch.randn(2, 4, 3), *_times(5)), "several tokens a film")
    yield Case((_network(2), 5 * torch.randn(3, 2), *_times(6)), "loud noise")
    alpha = [0.0, *sorted(torch.rand(3).tolist()), 1.0]
    yield Case((_network(3), torch.randn(2, 3), alpha, [(1 - a * a) ** 0.5 for a in alpha]), "times of any distance")
    yield Case((_network(3), torch.randn(2, 3, dtype=torch.float64), *_times(4)), "float64")


def _walk(network: Callable, x: Tensor, alpha: list, sigma: list, first: Callable, remember: Callable) -> Tensor:
    """The solution with another memory: first(x) at the beginning, then remember(x_0, x_t, v, x_s, old)."""
    previous = first(x)
    for k in range(len(alpha) - 1):
        v = network(x, k, previous)
        x0, eps = alpha[k] * x - sigma[k] * v, sigma[k] * x + alpha[k] * v
        seen, x = x, alpha[k + 1] * x0 + sigma[k + 1] * eps
        previous = remember(x0, seen, v, x, previous)
    return x


def nothing_remembered(network, x, alpha, sigma):
    return _walk(network, x, alpha, sigma, torch.zeros_like, lambda x0, x_t, v, x_s, old: old)


def the_noisy_film(network, x, alpha, sigma):
    return _walk(network, x, alpha, sigma, torch.zeros_like, lambda x0, x_t, v, x_s, old: x_t)


def the_next_noisy_film(network, x, alpha, sigma):
    return _walk(network, x, alpha, sigma, torch.zeros_like, lambda x0, x_t, v, x_s, old: x_s)


def the_answer_itself(network, x, alpha, sigma):
    return _walk(network, x, alpha, sigma, torch.zeros_like, lambda x0, x_t, v, x_s, old: v)


def noise_at_first(network, x, alpha, sigma):
    return _walk(network, x, alpha, sigma, lambda x: x, lambda x0, x_t, v, x_s, old: x0)


def two_steps_ago(network, x, alpha, sigma):
    late = [torch.zeros_like(x)]

    def remember(x0, x_t, v, x_s, old):
        late.append(x0)
        return late[-2]

    return _walk(network, x, alpha, sigma, torch.zeros_like, remember)


def asked_twice(network, x, alpha, sigma):
    previous = torch.zeros_like(x)
    for k in range(len(alpha) - 1):
        for _ in range(2):
            v = network(x, k, previous)
            previous, eps = alpha[k] * x - sigma[k] * v, sigma[k] * x + alpha[k] * v
        x = alpha[k + 1] * previous + sigma[k + 1] * eps
    return x


def sign_of_v_turned(network, x, alpha, sigma):
    return solution(lambda x, k, previous: -network(x, k, previous), x, alpha, sigma)


def numbered_from_1(network, x, alpha, sigma):
    return solution(lambda x, k, previous: network(x, k + 1, previous), x, alpha, sigma)


def the_sum_of_all(network, x, alpha, sigma):
    return _walk(network, x, alpha, sigma, torch.zeros_like, lambda x0, x_t, v, x_s, old: old + x0)


EXERCISE = Exercise(
    name="walt.with_memory",
    title="What it believed before",
    difficulty=3,
    minutes=20,
    statement="""
        A sampler asks the network fifty times what the film is, and forgets the answer each time. With
        **self-conditioning** ([2208.04202](https://arxiv.org/abs/2208.04202)) the network is shown what it believed one
        step before, beside the noisy film. Write the whole sampler: DDIM's steps from noise to film, a network that
        predicts $v = \\alpha\\,\\epsilon - \\sigma\\,x_0$, and its memory. With $\\alpha^2 + \\sigma^2 = 1$ and
        $x_t = \\alpha\\,x_0 + \\sigma\\,\\epsilon$ both $x_0$ and $\\epsilon$ follow from $x_t$ and $v$.
        """,
    hints=(
        "Solve v = alpha eps - sigma x_0 and x_t = alpha x_0 + sigma eps for x_0 and eps: two equations, two unknowns.",
        "x_0 = alpha x_t - sigma v and eps = sigma x_t + alpha v. The next x is alpha x_0 + sigma eps with the next "
        "time's shares. What goes on into the next call?",
        "previous = zeros; for k in range(steps): v = network(x, k, previous); previous = alpha[k] x - sigma[k] v; "
        "eps = sigma[k] x + alpha[k] v; x = alpha[k+1] previous + sigma[k+1] eps.",
    ),
    compare="Compare: in training nobody walks. There the opinion is made by a first pass at the same time, without a "
            "gradient, for nine films of ten.",
    stub=stub,
    gradients=False,  # it films; nothing is trained through it
    solution=solution,
    cases=cases,
    mistakes={
        "nothing_remembered": Mistake(nothing_remembered, "the steps are right, but the network is shown zeros each "
                                      "time: what it believed is never handed on."),
        "the_noisy_film": Mistake(the_noisy_film, "you hand on the noisy film of the step before. What it believed is "
                                  "x_0, without noise."),
        "the_next_noisy_film": Mistake(the_next_noisy_film, "you hand on the film that the step arrives at, which is "
                                       "noisy still, and which the network gets anyhow. What it believed is x_0."),
        "the_answer_itself": Mistake(the_answer_itself, "you hand on v. It is the network's answer, but what it "
                                     "believes of the film is x_0 = alpha x_t - sigma v."),
        "noise_at_first": Mistake(noise_at_first, "your memory begins with the noise. At first nothing is believed: "
                                  "zeros, as in the trainings without an opinion."),
        "two_steps_ago": Mistake(two_steps_ago, "your memory is one step late: it holds what was believed two steps "
                                 "ago."),
        "asked_twice": Mistake(asked_twice, "you ask twice at each time, the second time with the first answer, as "
                               "training does. In sampling the opinion comes from the step before, for nothing."),
        "sign_of_v_turned": Mistake(sign_of_v_turned, "your x_0 and eps follow from -v. From v = alpha eps - sigma x_0 "
                                    "comes x_0 = alpha x_t - sigma v, and eps = sigma x_t + alpha v."),
        "numbered_from_1": Mistake(numbered_from_1, "you ask the network for time k + 1 with the film of time k."),
        "the_sum_of_all": Mistake(the_sum_of_all, "you add the opinions up. The last one replaces those before it."),
    },
)  # fmt: skip
