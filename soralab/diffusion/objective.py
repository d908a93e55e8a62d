"""Training: which times to practise at, and the loss of a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .process import Network, Prediction, Process, check_kind, noise_like, shift_times


def sample_times(
    n: int,
    generator: torch.Generator | None = None,
    distribution: str = "uniform",
    *,
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw n training times: [n] float32 in [0, 1].

    "uniform", or "logit_normal": sigmoid(mean + std z), z ~ N(0, 1), which prefers the middle of the road
    (Esser et al. 2403.03206, section 3.1). Then `shift_times`. ValueError for another distribution.
    """
    source = generator.device if generator is not None else device
    if distribution == "uniform":
        t = torch.rand(n, generator=generator, device=source)
    elif distribution == "logit_normal":
        t = torch.sigmoid(mean + std * torch.randn(n, generator=generator, device=source))
    else:
        raise ValueError(f'distribution: got {distribution!r}, takes "uniform" or "logit_normal"')
    t = shift_times(t, shift)
    return t if device is None else t.to(device)


def diffusion_loss(
    process: Process,
    network: Network,
    x0: Tensor,
    kind: Prediction,
    *,
    space: Prediction | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
    weight: Callable[[Tensor], Tensor] | None = None,
    floor: float = 0.05,
    condition: Mapping[str, Any] | None = None,
) -> Tensor:
    """Mean squared error of a network's prediction for each example of x0 [batch, ...]: [batch].

    The network predicts `kind`; the error is measured in `space` (default: the same). Given x_t and t, the
    errors in x, eps and v are one error times sigma, alpha and 1, up to a common factor, so predicting x with
    the loss in v space is the x loss times 1 / sigma^2. The divisor (here sigma) is held above `floor`, since
    it reaches 0 at one end.

    t [batch] and eps [batch, ...] are drawn if not given: uniform times, Gaussian noise. `weight` maps t
    [batch] to factors [batch]. `condition` goes to the network as keyword arguments. Raises ValueError that names what
    has another shape; times and factors may be one number for all.
    """
    space = kind if space is None else space
    check_kind("kind", kind)
    check_kind("space", space)
    if t is None:
        t = sample_times(len(x0), generator, device=x0.device)
    if eps is None:
        eps = noise_like(x0, generator)
    if eps.shape != x0.shape:  # broadcasting would hide each of these and train on nonsense
        raise ValueError(f"eps: got {tuple(eps.shape)}, takes the shape of x0, {tuple(x0.shape)}")
    _check_batch("t", t, len(x0))
    prediction = network(process.add_noise(x0, eps, t), t, **(condition or {}))
    if prediction.shape != x0.shape:
        raise ValueError(f"network: gave {tuple(prediction.shape)}, takes the shape of x0, {tuple(x0.shape)}")
    loss = (prediction - process.target(x0, eps, t, kind)).square().flatten(1).mean(1)
    if space != kind:
        size = {"x": process.sigma(t), "eps": process.alpha(t), "v": torch.ones_like(t)}
        loss = loss * (size[space] / size[kind].clamp(min=floor)) ** 2
    if weight is None:
        return loss
    factors = weight(t)
    _check_batch("weight", factors, len(x0))
    return loss * factors


def _check_batch(name: str, values: float | Tensor, batch: int) -> None:
    """ValueError naming the argument unless it is one number, or one for each example."""
    shape = tuple(getattr(values, "shape", ()))
    if shape not in ((), (batch,)):
        raise ValueError(f"{name}: got {shape}, takes ({batch},), a number for each example")
