"""Noise processes: how data turns into noise, and what a network may predict about it.

Every process here mixes clean data and Gaussian noise by two numbers that depend on time alone,

    x_t = alpha(t) x_0 + sigma(t) eps,    eps ~ N(0, 1),    t = 0: data,  t = 1: noise.         (A)

Variance preserving (alpha^2 + sigma^2 = 1): DDPM, Ho et al. 2006.11239; `Cosine`, `LinearBeta`, `ScaledLinearBeta`.
Rectified flow (alpha = 1 - t, sigma = t): Liu et al. 2209.03003, Lipman et al. 2210.02747.

A network sees x_t and t and predicts one of three things, called its `kind`:

    "eps"  the noise
    "x"    the clean data x_0
    "v"    a velocity: alpha eps - sigma x_0 when variance preserving (Salimans & Ho 2202.00512, appendix D),
           eps - x_0 = d x_t / dt for the rectified flow

Any of them, together with x_t, gives x_0 and eps back. That is why one set of samplers serves all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

Prediction = Literal["eps", "v", "x"]
PREDICTIONS: tuple[str, ...] = ("eps", "v", "x")
Network = Callable[..., Tensor]
Denoise = Callable[[Tensor, "float | Tensor"], "tuple[Tensor, Tensor]"]


class Process(ABC):
    """A noise process: x_t = alpha(t) x_0 + sigma(t) eps. Times are numbers or tensors in [0, 1]."""

    @abstractmethod
    def alpha(self, t: float | Tensor) -> Tensor:
        """Share of the data at times t, any shape; the same shape comes back."""

    @abstractmethod
    def sigma(self, t: float | Tensor) -> Tensor:
        """Standard deviation of the noise at times t, any shape; the same shape comes back."""

    @abstractmethod
    def rates(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt, each of t's shape; infinite where the schedule is vertical."""

    @abstractmethod
    def velocity_weights(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """(p, q) of v = p x_0 + q eps, with alpha q - sigma p = 1, so that (x_t, v) gives (x_0, eps) back."""

    def log_snr(self, t: float | Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), of t's shape: +inf where there is no noise, -inf where there is no data."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def add_noise(self, x0: Tensor, eps: Tensor, t: float | Tensor) -> Tensor:
        """Equation (A): clean x0 and noise eps, both [batch, ...], at times t [batch] -> x_t [batch, ...]."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def target(self, x0: Tensor, eps: Tensor, t: float | Tensor, kind: Prediction) -> Tensor:
        """What a network of this kind should answer for x0, eps [batch, ...] at t [batch]: [batch, ...]."""
        check_kind("kind", kind)
        if kind == "x":
            return x0
        if kind == "eps":
            return eps
        p, q = self.velocity_weights(t)
        return expand(p, x0) * x0 + expand(q, x0) * eps

    def to_x0_eps(
        self, prediction: Tensor, x_t: Tensor, t: float | Tensor, kind: str
    ) -> tuple[Tensor, Tensor]:
        """A prediction made at x_t, t -> (x_0, eps). All are [batch, ...], but t [batch].

        Raises ValueError where the answer does not exist: at alpha = 0 (pure noise) the noise says nothing
        about the data, and at sigma = 0 (pure data) the data says nothing about the noise. "v" always works.
        """
        check_kind("kind", kind)
        alpha, sigma = self.alpha(t), self.sigma(t)
        if kind == "eps":
            if (alpha == 0).any():
                raise ValueError(
                    f'kind: "eps" gives no data at t = 1, where alpha of {self} is 0; '
                    'predict "v" or "x", or start below 1 (t_start=0.99)'
                )
            return (x_t - expand(sigma, x_t) * prediction) / expand(alpha, x_t), prediction
        if kind == "x":
            if (sigma == 0).any():
                raise ValueError(f'kind: "x" gives no noise at t = 0, where {self} has none; predict "v"')
            return prediction, (x_t - expand(alpha, x_t) * prediction) / expand(sigma, x_t)
        p, q = self.velocity_weights(t)
        x0 = expand(q, x_t) * x_t - expand(sigma, x_t) * prediction
        return x0, expand(alpha, x_t) * prediction - expand(p, x_t) * x_t

    def denoiser(
        self,
        network: Network,
        kind: Prediction,
        threshold: Callable[[Tensor], Tensor] | None = None,
        **condition: Any,
    ) -> Denoise:
        """Wrap a network for the samplers: denoise(x_t [batch, ...], t) -> (x_0, eps), both [batch, ...].

        `threshold` maps x_0 [batch, ...] to an allowed x_0, for instance `lambda x: x.clamp(-1, 1)` for
        pixels; eps is then made to agree with it, so that the pair still gives x_t. `condition` goes to the
        network as it is.
        """
        check_kind("kind", kind)

        def denoise(x_t: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
            # Half precision cannot tell 1000 times apart, so the network gets at least float32.
            dtype = torch.promote_types(x_t.dtype, torch.float32)
            t = torch.as_tensor(t, dtype=dtype, device=x_t.device)
            t = t.expand(len(x_t)) if t.ndim == 0 else t
            x0, eps = self.to_x0_eps(network(x_t, t, **condition), x_t, t, kind)
            if threshold is not None:
                x0 = threshold(x0)
                sigma = expand(self.sigma(t), x_t)
                agreed = (x_t - expand(self.alpha(t), x_t) * x0) / sigma.where(sigma > 0, 1)
                eps = torch.where(sigma > 0, agreed, eps)
            return x0, eps

        return denoise

    def transition(self, t: float | Tensor, s: float | Tensor) -> tuple[Tensor, Tensor]:
        """(scale, variance) of q(x_t | x_s) = N(scale x_s, variance) for s < t (DDPM eq. 2: beta_t).

        Both have the shape of t and s together. s must lie where there is data left (alpha > 0).
        """
        scale = self.alpha(t) / self.alpha(s)
        variance = self.sigma(t) ** 2 - scale**2 * self.sigma(s) ** 2
        return scale, variance.clamp(min=0)  # rounding may reach just below 0

    def posterior(self, t: float | Tensor, s: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, variance) of q(x_s | x_t, x_0) = N(a x_0 + b x_t, variance) for s < t, with sigma(t) > 0.

        DDPM eqs. 6 and 7 for any two times and any process; each of the shape of t and s together.
        """
        scale, variance = self.transition(t, s)
        share, noise = variance / self.sigma(t) ** 2, self.sigma(s) ** 2
        return self.alpha(s) * share, scale * noise / self.sigma(t) ** 2, noise * share


class VariancePreserving(Process):
    """alpha^2 + sigma^2 = 1: data of unit variance keeps unit variance at every t."""

    def velocity_weights(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """v = -sigma x_0 + alpha eps: the derivative of x_t along the angle arctan(sigma / alpha)."""
        return -self.sigma(t), self.alpha(t)


@dataclass(frozen=True)
class Cosine(VariancePreserving):
    """The cosine schedule in continuous time (Nichol & Dhariwal 2102.09672, eq. 17).

    alpha(t) = cos(h (t + s)) / cos(h s) with h = pi / (2 (1 + s)). At t = 1 alpha is exactly 0: zero
    terminal SNR. s = 0 is the plain quarter circle of Imagen Video.
    """

    s: float = 0.008

    @property
    def _h(self) -> float:
        return math.pi / 2 / (1 + self.s)

    def alpha(self, t: float | Tensor) -> Tensor:
        """cos(h (t + s)) / cos(h s), of t's shape."""
        # The sine of the complement: exactly 0 at t = 1, where a float32 cosine of pi / 2 is below zero.
        return (self._h * (1 - _times(t))).sin() / math.cos(self._h * self.s)

    def sigma(self, t: float | Tensor) -> Tensor:
        """sqrt(1 - alpha^2), of t's shape."""
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a) keeps the digits that 1 - alpha^2 loses near t = 0.
        t = _times(t)
        product = (self._h * t).sin() * (self._h * (t + 2 * self.s)).sin()
        return product.clamp(min=0).sqrt() / math.cos(self._h * self.s)

    def rates(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """d alpha / dt, and d sigma / dt = -alpha / sigma d alpha / dt from alpha^2 + sigma^2 = 1."""
        slope = -self._h * (self._h * (_times(t) + self.s)).sin() / math.cos(self._h * self.s)
        if self.s == 0:  # sigma = sin(h t), which is not vertical at 0
            return slope, self._h * self.alpha(t)
        return slope, -self.alpha(t) / self.sigma(t) * slope


@dataclass(frozen=True)
class LinearBeta(VariancePreserving):
    """The discrete schedule of DDPM (2006.11239, section 4): betas rise linearly over `steps` steps.

    Step k of the paper is t = k / steps, and alpha(t)^2 is the exact product of (1 - beta_1)...(1 - beta_k)
    there; between two steps alpha^2 is interpolated linearly. `zero_terminal_snr` rescales alpha to reach 0
    at t = 1 (Lin et al. 2305.08891, algorithm 1); without it alpha(1) is 0.0063 for the paper's numbers.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps: got {self.steps}, takes a whole number of at least 2")
        if not 0 < self.first <= self.last < 1:
            raise ValueError(f"first, last: got {self.first}, {self.last}, takes 0 < first <= last < 1")

    @property
    def betas(self) -> Tensor:
        """beta_1 ... beta_steps: [steps] float64."""
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)

    @cached_property
    def alpha_bar(self) -> Tensor:
        """alpha^2 at k / steps for k = 0 ... steps: [steps + 1] float64, the first entry 1."""
        products = torch.cumprod(1 - self.betas, dim=0)
        if self.zero_terminal_snr:
            root = products.sqrt()
            products = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return torch.cat([products.new_ones(1), products])

    def _interpolate(self, table: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Value and slope (per unit of t) of a table [steps + 1] at times t, each of t's shape."""
        t = _times(t)
        place = t * self.steps
        low = place.long().clamp(max=self.steps - 1)
        # The difference is taken in the table's float64: neighbours agree in most of their digits.
        base, rise = (column.to(t.dtype).to(t.device)[low] for column in (table, table.diff()))
        return (base + (place - low) * rise).clamp(min=0), rise * self.steps

    def alpha(self, t: float | Tensor) -> Tensor:
        """sqrt of alpha bar, of t's shape."""
        return self._interpolate(self.alpha_bar, t)[0].sqrt()

    def sigma(self, t: float | Tensor) -> Tensor:
        """sqrt(1 - alpha bar), of t's shape."""
        # A table of its own: 1 - alpha^2 in float32 would lose digits near t = 0.
        return self._interpolate(1 - self.alpha_bar, t)[0].sqrt()

    def rates(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt between the steps: d sqrt(a) = da / (2 sqrt(a))."""
        slope = self._interpolate(self.alpha_bar, t)[1]
        return slope / (2 * self.alpha(t)), -slope / (2 * self.sigma(t))


@dataclass(frozen=True)
class ScaledLinearBeta(LinearBeta):
    """Latent diffusion's schedule (2112.10752, official code): the square root of beta rises linearly.

    The numbers are those of its ImageNet models; the text-to-image models have 0.00085 and 0.012.
    """

    first: float = 0.0015
    last: float = 0.0195

    @property
    def betas(self) -> Tensor:
        """beta_1 ... beta_steps: [steps] float64."""
        return torch.linspace(self.first**0.5, self.last**0.5, self.steps, dtype=torch.float64) ** 2


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """Straight lines from data to noise, alpha = 1 - t, sigma = t (2209.03003, section 2.1; 2210.02747)."""

    def alpha(self, t: float | Tensor) -> Tensor:
        """1 - t."""
        return 1 - _times(t)

    def sigma(self, t: float | Tensor) -> Tensor:
        """t itself."""
        return _times(t)

    def rates(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """-1 and 1, each of t's shape."""
        one = torch.ones_like(_times(t))
        return -one, one

    def velocity_weights(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """v = eps - x_0, which is d x_t / dt."""
        return self.rates(t)


PROCESSES: dict[str, type[Process]] = {
    "cosine": Cosine,
    "linear_beta": LinearBeta,
    "scaled_linear_beta": ScaledLinearBeta,
    "rectified_flow": RectifiedFlow,
}


def shift_times(t: Tensor, shift: float) -> Tensor:
    """t' = shift t / (1 + (shift - 1) t), of t's shape: shift > 1 spends more time near the noise.

    Esser et al. 2403.03206, section 5.3.2: a larger picture hides its noise better and wants a larger shift.
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift: got {shift}, takes a number above 0 (1 = no shift)")
    return shift * t / (shift * t + (1 - t))  # the same denominator, summed so that t = 1 stays exactly 1


def seeded(seed: int, count: int) -> list[torch.Generator]:
    """Generators of seed, seed + 1, ..., on the CPU: one for each example."""
    return [torch.Generator().manual_seed(seed + k) for k in range(count)]


def noise_like(x: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
    """Gaussian noise like x, drawn on the generator's device: one seed, one noise, on any machine.

    Of a list of generators each draws for its own example, whatever is beside it.
    """
    if isinstance(generator, Sequence):
        return torch.stack([noise_like(row, own) for row, own in zip(x, generator, strict=True)])
    source = generator.device if generator is not None else x.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=source).to(x.device)


def _times(t: float | Tensor) -> Tensor:
    """Times as a floating tensor. Refuses whole numbers and, on a CPU, what is outside [0, 1]."""
    if not isinstance(t, Tensor):
        t = torch.tensor(float(t), dtype=torch.float64)  # of no dimension: it never widens what it meets
    if not t.is_floating_point():
        raise ValueError(f"t: got {t.dtype} times, takes floats in [0, 1] (a timestep / the number of steps)")
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t: got times from {t.min().item():g} to {t.max().item():g}, takes [0, 1]")
    return t


def expand(values: Tensor, x: Tensor) -> Tensor:
    """[batch] (or no dimension) to [batch, 1, ...], in x's type and on its device, ready to multiply x."""
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim)).to(x.dtype).to(x.device)


def check_kind(name: str, kind: str) -> None:
    """ValueError naming the argument unless kind is one of PREDICTIONS."""
    if kind not in PREDICTIONS:
        raise ValueError(f"{name}: got {kind!r}, takes one of {', '.join(PREDICTIONS)}")
