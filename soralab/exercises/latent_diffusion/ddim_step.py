"""A step of DDIM that draws lots, as many as one likes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float, eta: float, noise: Tensor) -> Tensor:
    """One step of DDIM from time t down to s < t with fresh noise: x_s, of the shape of x_t.

    eps is what the network takes the noise in x_t for; noise is new, N(0, 1). alpha_bar falls from 1 (data) towards 0.
    eta from 0 to 1: the fresh part has eta times the deviation of DDPM's posterior q(x_s | x_t, x_0).
    """
    raise NotImplementedError


def solution(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float, eta: float, noise: Tensor) -> Tensor:
    """One step of DDIM from time t down to s < t with fresh noise: x_s, of the shape of x_t."""
    x_0 = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5
    sigma = eta * ((1 - alpha_bar_s) * (1 - alpha_bar_t / alpha_bar_s) / (1 - alpha_bar_t)) ** 0.5
    old = max(1 - alpha_bar_s - sigma**2, 0.0) ** 0.5  # variances add up: what is fresh is no longer predicted
    return alpha_bar_s**0.5 * x_0 + old * eps + sigma * noise


def _draw(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype)


def cases() -> Iterator[Case]:
    def case(three: tuple, t: float, s: float, eta: float, note: str) -> Case:
        x_t, eps, noise = three
        return Case((x_t, eps, t, s, eta, noise), note)

    yield case(_draw(1), 0.2, 0.5, 0.0, "eta = 0: the step of the page")
    yield case(_draw(1), 0.2, 0.5, 1.0, "eta = 1")
    yield case(_draw(2, 1), 0.2, 0.5, 0.5, "eta = 0.5")
    yield case(_draw(1, 2), 0.7, 1.0, 1.0, "the last step: no noise is left")
    yield case(_draw(2), 0.002, 0.9, 1.0, "nearly all the way at once")
    yield case(_draw(2), 0.970, 0.971, 1.0, "a short step, near the data")
    for _ in range(4):
        t, s = sorted((0.02 + 0.96 * torch.rand(2)).tolist())
        yield case(_draw(*torch.randint(1, 5, (4,)).tolist()), t, s, float(torch.rand(())), "any step")
    yield case(_draw(3, 2, dtype=torch.float64), 0.1, 0.4, 0.7, "float64")


def _guess(x_t: Tensor, eps: Tensor, alpha_bar_t: float) -> Tensor:
    return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5


def _sigma(alpha_bar_t: float, alpha_bar_s: float, eta: float) -> float:
    return eta * ((1 - alpha_bar_s) * (1 - alpha_bar_t / alpha_bar_s) / (1 - alpha_bar_t)) ** 0.5


def nothing_fresh(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return solution(x_t, eps, alpha_bar_t, alpha_bar_s, 0.0, noise)


def noise_on_top(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return nothing_fresh(x_t, eps, alpha_bar_t, alpha_bar_s, 0.0, noise) + _sigma(alpha_bar_t, alpha_bar_s, eta) * noise


def deviations_add_up(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    sigma = _sigma(alpha_bar_t, alpha_bar_s, eta)
    return nothing_fresh(x_t, eps, alpha_bar_t, alpha_bar_s, 0.0, noise) + sigma * (noise - eps)


def all_fresh(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return alpha_bar_s**0.5 * _guess(x_t, eps, alpha_bar_t) + (1 - alpha_bar_s) ** 0.5 * noise


def shares_of_deviation(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    mixed = (1 - eta**2) ** 0.5 * eps + eta * noise
    return alpha_bar_s**0.5 * _guess(x_t, eps, alpha_bar_t) + (1 - alpha_bar_s) ** 0.5 * mixed


def eta_of_the_variance(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    return solution(x_t, eps, alpha_bar_t, alpha_bar_s, eta**0.5, noise)


def variance_for_deviation(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    sigma = eta * _sigma(alpha_bar_t, alpha_bar_s, 1.0) ** 2
    return (alpha_bar_s**0.5 * _guess(x_t, eps, alpha_bar_t) + (1 - alpha_bar_s - sigma**2) ** 0.5 * eps
            + sigma * noise)


def variance_of_the_step(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    variance = eta**2 * (1 - alpha_bar_t / alpha_bar_s)
    old = max(1 - alpha_bar_s - variance, 0.0) ** 0.5
    return alpha_bar_s**0.5 * _guess(x_t, eps, alpha_bar_t) + old * eps + variance**0.5 * noise


def posterior_mean(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    alpha, x_0 = alpha_bar_t / alpha_bar_s, _guess(x_t, eps, alpha_bar_t)
    mean = alpha_bar_s**0.5 * (1 - alpha) * x_0 + alpha**0.5 * (1 - alpha_bar_s) * x_t
    return mean / (1 - alpha_bar_t) + _sigma(alpha_bar_t, alpha_bar_s, eta) * noise


def no_roots(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    sigma, x_0 = _sigma(alpha_bar_t, alpha_bar_s, eta), (x_t - (1 - alpha_bar_t) * eps) / alpha_bar_t
    return alpha_bar_s * x_0 + (1 - alpha_bar_s - sigma**2) * eps + sigma * noise


def not_divided(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise):
    x_0 = x_t - (1 - alpha_bar_t) ** 0.5 * eps
    missing = alpha_bar_s**0.5 * (x_0 - _guess(x_t, eps, alpha_bar_t))
    return solution(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise) + missing


EXERCISE = Exercise(
    name="latent_diffusion.ddim_step",
    title="As much fresh noise as you like",
    difficulty=2,
    minutes=15,
    statement=r"""
        The paper's figures 5, 26 and 27 were not made without lots: 200 steps of DDIM with $\eta = 1$. $\eta$ says how
        much of the noise in $x_s$ is fresh. Its deviation $\sigma$ is $\eta$ times that of DDPM's posterior for the
        same step, whose variance stands in "The way back". The trap is what happens to the rest: $x_s$ must have
        exactly the noise of time $s$, variance $1 - \bar\alpha_s$, however much of it is new.
        """,
    hints=(
        "Two independent noises, one predicted and one fresh, are to have the variance 1 - alpha_bar_s together. "
        "Which is left for the predicted one?",
        "sigma is eta times the root of the posterior's variance, with alpha = alpha_bar_t / alpha_bar_s. Variances "
        "add up, deviations do not: eps gets sqrt(1 - alpha_bar_s - sigma**2).",
        "The page's step, sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps, with the second root replaced by "
        "sqrt(1 - alpha_bar_s - sigma**2), plus sigma * noise.",
    ),
    compare="Compare: where does your code notice that the last step, to alpha_bar_s = 1, may draw nothing?",
    stub=stub,
    solution=solution,
    gradients=False,  # it samples; nothing is trained through it
    cases=cases,
    mistakes={
        "nothing_fresh": Mistake(nothing_fresh, "nothing is drawn: that is the page's step, right for eta = 0 alone."),
        "noise_on_top": Mistake(noise_on_top, "you add the fresh noise on top of all of the predicted one. x_s is then "
                                "noisier than time s allows, and the network, which is told s, leaves the rest in the "
                                "picture."),
        "deviations_add_up": Mistake(deviations_add_up, "you take sigma away from the predicted noise's deviation. "
                                     "Independent noises add up by their variances, so too little is left."),
        "all_fresh": Mistake(all_fresh, "all of the noise is fresh, whatever eta is. Even at eta = 1 a part of it is "
                             "the predicted one: as much as the posterior says."),
        "shares_of_deviation": Mistake(shares_of_deviation, "eta is a share of all of x_s's noise for you. It is one "
                                       "of the posterior's deviation, which is smaller the shorter the step is."),
        "eta_of_the_variance": Mistake(eta_of_the_variance, "your eta multiplies the variance. It is the deviation, "
                                       "its root, that is multiplied."),
        "variance_for_deviation": Mistake(variance_for_deviation, "your sigma is eta times the posterior's variance. "
                                          "Its root is the deviation."),
        "variance_of_the_step": Mistake(variance_of_the_step, "your variance is 1 - alpha, that of the noise which one "
                                        "step adds to x_s. The posterior also knows x_0, and its variance is smaller."),
        "posterior_mean": Mistake(posterior_mean, "the predicted noise keeps what a full draw leaves it, whatever "
                                  "eta is, as in the mean of DDPM's posterior. That is right for eta = 1 alone."),
        "no_roots": Mistake(no_roots, "alpha_bar is the share of the *variance* that is data. What x_0 and the noises "
                            "are multiplied by are roots."),
        "not_divided": Mistake(not_divided, "what is left of x_t without the noise is sqrt(alpha_bar_t) x_0, not x_0 "
                               "yet: divide."),
    },
)  # fmt: skip
