"""One step of DDIM."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _step_stub(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    """One deterministic step of DDIM from time t down to s < t: x_s, of the shape of x_t.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, and eps is what the network takes the noise for.
    alpha_bar falls from 1 (data) towards 0 (noise).
    """
    raise NotImplementedError


def _step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    """One deterministic step of DDIM from time t down to s < t: x_s, of the shape of x_t."""
    x_0 = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5
    return alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s) ** 0.5 * eps


def _no_roots(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0 = (x_t - (1 - alpha_bar_t) * eps) / alpha_bar_t
    return alpha_bar_s * x_0 + (1 - alpha_bar_s) * eps


def _only_x_0(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5


def _not_divided(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0 = x_t - (1 - alpha_bar_t) ** 0.5 * eps
    return alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s) ** 0.5 * eps


def _old_noise_level(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    return alpha_bar_s**0.5 * _only_x_0(x_t, eps, alpha_bar_t, alpha_bar_s) + (1 - alpha_bar_t) ** 0.5 * eps


def _fresh_noise(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0 = _only_x_0(x_t, eps, alpha_bar_t, alpha_bar_s)
    return alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s) ** 0.5 * torch.randn_like(eps)


def _posterior_mean(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0, alpha = _only_x_0(x_t, eps, alpha_bar_t, alpha_bar_s), alpha_bar_t / alpha_bar_s
    on_x = alpha**0.5 * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return alpha_bar_s**0.5 * (1 - alpha) / (1 - alpha_bar_t) * x_0 + on_x * x_t


def _exchanged(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    return _step(x_t, eps, alpha_bar_s, alpha_bar_t)


STEP_MISTAKES = (  # in the order in which they are asked for
    (_no_roots, "alpha_bar is the share of the *variance* that is data. What x_0 and the noise are multiplied by are "
     "the roots of alpha_bar and of 1 - alpha_bar."),
    (_only_x_0, "you stop at the estimate of x_0. It is the goal, not the next step: noise it again, up to time s."),
    (_not_divided, "what is left without the noise is sqrt(alpha_bar_t) x_0, not x_0 yet: divide."),
    (_old_noise_level, "you put back the noise of time t. At time s there is less of it: sqrt(1 - alpha_bar_s)."),
    (_exchanged, "t and s are exchanged: you walk from the data into the noise. That is DDIM's inversion."),
    (_posterior_mean, "that is the mean of DDPM's posterior q(x_s | x_t, x_0), to which fresh noise belongs. DDIM "
     "re-uses the noise that it has just estimated."),
)  # fmt: skip


def _step_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for alpha_bar_t, alpha_bar_s in ((0.2, 0.5), (0.01, 0.04), (0.7, 1.0)):
        x_t, eps = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1)
        given = x_t, eps, alpha_bar_t, alpha_bar_s
        got, want, case = fn(*given), _step(*given), f"From alpha_bar {alpha_bar_t} to {alpha_bar_s}"
        yield isinstance(got, Tensor) and got.shape == want.shape, f"{case}: x_s has the shape of x_t, {[*x_t.shape]}."
        yield same(fn(*given), got), (f"{case}: asked twice, your step gives two answers. Nothing is drawn here: the "
                                      "noise that goes back in is eps.")  # fmt: skip
        for mistake, says in STEP_MISTAKES:
            yield same(got, want) or not same(got, mistake(*given)), f"{case}: {says}"
        yield same(got, want), (f"{case}: the numbers differ. Solve the first line of the docstring for x_0, with eps "
                                "as the noise; then write the same line for s.")  # fmt: skip


EXERCISE = Exercise(
    name="latent_diffusion.ddim_step",
    title="One step of DDIM",
    difficulty=2,
    minutes=15,
    statement="""
        The sampler that the paper's pictures are made with, and the reason why 50 calls of the network do what took
        DDPM 1,000. One step: from x_t and the network's eps to x_s, at a lower noise level, with no lot drawn.
        """,
    hints=(
        "If eps were the true noise, which x_0 would x_t have been made from?",
        "Two lines: solve x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps for x_0; then add the same eps to it "
        "at the level of s.",
        "x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t); "
        "x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps",
    ),
    stub=_step_stub,
    solution=_step,
    check=_step_check,
    wrong={
        "no_roots": WrongAnswer(_no_roots, "the share of the *variance*"),
        "only_x_0": WrongAnswer(_only_x_0, "the goal, not the next step"),
        "not_divided": WrongAnswer(_not_divided, "not x_0 yet: divide"),
        "old_noise_level": WrongAnswer(_old_noise_level, "you put back the noise of time t"),
        "fresh_noise": WrongAnswer(_fresh_noise, "Nothing is drawn here"),
        "ddpms_mean": WrongAnswer(_posterior_mean, "the mean of DDPM's posterior"),
        "exchanged": WrongAnswer(_exchanged, "t and s are exchanged"),
    },
)
