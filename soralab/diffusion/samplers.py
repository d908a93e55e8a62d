"""Samplers: from noise back to data, with any process and any kind of prediction.

All share one call:

    x_0 = sampler(denoise, x, process, steps, t_start=1.0, shift=1.0, generator=None, callback=None)

`denoise` comes from `process.denoiser(network, kind)`; x [batch, ...] is the noisy data at t_start, pure
noise at t = 1. A smaller t_start with x = process.add_noise(film, eps, t_start) is SDEdit (Meng et al.
2108.01073).

The deterministic ones follow the probability-flow ODE. With the network's x_0 and eps it reads

    d x = x_0 d alpha + eps d sigma,                                                            (B)

and stays finite at both ends, where alpha or sigma is 0. Where a sampler needs d alpha / dt it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .process import Denoise, Process, noise_like, shift_times

Callback = Callable[[int, float, Tensor, Tensor], "Tensor | None"]


@dataclass(frozen=True)
class Step:
    """One step from time t down to s < t, in plain numbers worked out in float64."""

    number: int
    t: float
    s: float
    alpha_t: float
    sigma_t: float
    alpha_s: float
    sigma_s: float


def time_grid(steps: int, t_start: float = 1.0, shift: float = 1.0) -> Tensor:
    """Times from t_start down to 0: [steps + 1] float64, evenly spaced before `shift_times` bends them.

    The bend is applied to the share of the way, so the grid begins at t_start whatever the shift.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: got {steps!r}, takes a whole number of at least 1")
    if not 0 < t_start <= 1:
        raise ValueError(f"t_start: got {t_start}, takes a number in (0, 1]")
    return t_start * shift_times(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)


def _steps(process: Process, steps: int, t_start: float, shift: float) -> Iterator[Step]:
    grid = time_grid(steps, t_start, shift)
    t, alpha, sigma = grid.tolist(), process.alpha(grid).tolist(), process.sigma(grid).tolist()
    for i in range(steps):
        yield Step(i + 1, t[i], t[i + 1], alpha[i], sigma[i], alpha[i + 1], sigma[i + 1])


def _report(callback: Callback | None, number: int, t: float, x: Tensor, x0: Tensor) -> Tensor:
    """Tell the caller where we are: callback(number, time reached, x, x_0 estimate).

    If it returns a tensor, sampling goes on from that one. So known frames can be put back after every step.
    """
    changed = None if callback is None else callback(number, t, x, x0)
    return x if changed is None else changed


@torch.no_grad()
def ddpm(
    denoise: Denoise,
    x: Tensor,
    process: Process,
    steps: int,
    *,
    t_start: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
    variance: str = "small",
) -> Tensor:
    """Ancestral sampling (DDPM, algorithm 2) from x [batch, ...]: draw x_s from q(x_s | x_t, x_0), eqs. 6, 7.

    `variance` is DDPM's choice in section 3.2: "small" is the posterior's own (exact if the data are one
    point), "large" that of q(x_t | x_s), beta_t in the paper (exact if the data are N(0, 1)). The last step
    adds no noise.
    """
    if variance not in ("small", "large"):
        raise ValueError(f'variance: got {variance!r}, takes "small" or "large"')
    for step in _steps(process, steps, t_start, shift):
        x0, _ = denoise(x, step.t)
        on_x0, on_x, var = process.posterior(step.t, step.s)
        if variance == "large":
            var = process.transition(step.t, step.s)[1]
        x = float(on_x0) * x0 + float(on_x) * x
        if step.s > 0:
            x = x + float(var) ** 0.5 * noise_like(x, generator)
        x = _report(callback, step.number, step.s, x, x0)
    return x


@torch.no_grad()
def ddim(
    denoise: Denoise,
    x: Tensor,
    process: Process,
    steps: int,
    *,
    t_start: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2010.02502, eq. 12) from x [batch, ...]: re-noise the x_0 estimate to the next level.

    eta = 0 adds no fresh noise and is Euler's method on (B); eta = 1 is `ddpm`.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: got {eta}, takes a number in [0, 1]")
    for step in _steps(process, steps, t_start, shift):
        x0, eps = denoise(x, step.t)
        fresh = eta * float(process.posterior(step.t, step.s)[2]) ** 0.5 if eta > 0 else 0.0
        x = step.alpha_s * x0 + max(step.sigma_s**2 - fresh**2, 0.0) ** 0.5 * eps
        if fresh > 0:
            x = x + fresh * noise_like(x, generator)
        x = _report(callback, step.number, step.s, x, x0)
    return x


@torch.no_grad()
def euler(
    denoise: Denoise,
    x: Tensor,
    process: Process,
    steps: int,
    *,
    t_start: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Euler's method in t from x [batch, ...]: x_s = x_t + (s - t) (alpha' x_0 + sigma' eps), first order.

    On a rectified flow this is x_s = x_t + (s - t) v and the same as `ddim`. On a curved process `ddim` is
    better: it takes the curves of alpha and sigma exactly. `generator` is not used. ValueError where alpha'
    is infinite.
    """
    for step in _steps(process, steps, t_start, shift):
        x0, eps = denoise(x, step.t)
        rates = process.rates(step.t)
        if not all(rate.isfinite() for rate in rates):
            raise ValueError(f"process: {process} has an infinite slope at t = {step.t:g}; use ddim")
        x = x + (step.s - step.t) * (float(rates[0]) * x0 + float(rates[1]) * eps)
        x = _report(callback, step.number, step.s, x, x0)
    return x


@torch.no_grad()
def heun(
    denoise: Denoise,
    x: Tensor,
    process: Process,
    steps: int,
    *,
    t_start: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Heun's method on (B) from x [batch, ...]: second order, two calls a step (Karras et al. 2206.00364).

    Predict with a `ddim` step, look again there, and redo the step with the mean of both looks. The last
    step has only the first look, since nothing is left to predict at sigma = 0: 2 steps - 1 calls.
    `generator` is not used.
    """
    for step in _steps(process, steps, t_start, shift):
        x0, eps = denoise(x, step.t)
        ahead = step.alpha_s * x0 + step.sigma_s * eps
        if step.s > 0:
            x0_ahead, eps_ahead = denoise(ahead, step.s)
            x0, eps = (x0 + x0_ahead) / 2, (eps + eps_ahead) / 2
            ahead = x + (step.alpha_s - step.alpha_t) * x0 + (step.sigma_s - step.sigma_t) * eps
        x = _report(callback, step.number, step.s, ahead, x0)
    return x


@torch.no_grad()
def dpm_solver_pp(
    denoise: Denoise,
    x: Tensor,
    process: Process,
    steps: int,
    *,
    t_start: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) from x [batch, ...]: second order, one call a step (Lu et al. 2211.01095, alg. 2).

    It extrapolates x_0 in lambda = log(alpha / sigma) from this step's estimate and the last one's. The first
    step has no past, and the last ends at lambda = infinity: both are first order. `generator` is not used.
    """
    x0_past, h_past = None, 0.0
    for step in _steps(process, steps, t_start, shift):
        x0, _ = denoise(x, step.t)
        h = float(process.log_snr(step.s) - process.log_snr(step.t)) / 2
        direction = x0
        if x0_past is not None and step.s > 0:
            direction = x0 + h / (2 * h_past) * (x0 - x0_past)
        # sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D, exp(-h) written out: h is infinite at both ends.
        shrink = step.sigma_s / step.sigma_t
        x0_past, h_past = x0, h
        x = shrink * x + (step.alpha_s - shrink * step.alpha_t) * direction
        x = _report(callback, step.number, step.s, x, x0)
    return x


@torch.no_grad()
def invert(
    denoise: Denoise,
    x: Tensor,
    process: Process,
    steps: int,
    *,
    t_start: float = 1.0,
    shift: float = 1.0,
    callback: Callback | None = None,
    iterations: int = 1,
) -> Tensor:
    """DDIM inversion: the noise at t_start from which `ddim`, called alike, makes x [batch, ...] again.

    Each DDIM step down, from t to s, is undone by looking for the x_t that it would take to x_s: begin with
    x_t = x_s and add what is missing, x_s - step(x_t). One look (`iterations` = 1) is one call a step and
    first order, as the usual inversion is, which solves the step for x_t as if eps did not depend on it.
    More looks converge to the exact inverse as long as steps are short. The network is never asked at t = 0.
    """
    if iterations < 1:
        raise ValueError(f"iterations: got {iterations}, takes a whole number of at least 1")
    path = list(_steps(process, steps, t_start, shift))
    for number, step in enumerate(reversed(path), start=1):
        target, x0 = x, x
        for _ in range(iterations):
            x0, eps = denoise(x, step.t)
            x = x + (target - step.alpha_s * x0 - step.sigma_s * eps)
        x = _report(callback, number, step.t, x, x0)
    return x


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm_solver_pp": dpm_solver_pp,
}
