"""Classifier-free guidance (Ho & Salimans 2207.12598) for any network and any kind of prediction.

    guided = unconditional + scale (conditional - unconditional)              (eq. 6, scale = 1 + w)

For one x_t the predictions of eps, v and x_0 are affine in each other and the two weights sum to 1, so
guidance gives the same film whichever of them the network predicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .process import Network


def guide(
    network: Network,
    condition: Mapping[str, Any],
    null: Mapping[str, Any],
    scale: float,
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
    batched: bool = False,
) -> Network:
    """A guided network f(x_t [batch, ...], t [batch]) -> [batch, ...], ready for `process.denoiser`.

    network    called as network(x_t, t, **condition) and network(x_t, t, **null)
    condition  keyword arguments; tensors are [batch, ...]
    null       the same keywords for "no condition"; a tensor of batch 1 serves the whole batch
    scale      1: the condition alone; 0: no condition; above 1: more of what the condition changes.
               At 1, and at 0 without rescale, only the one network call that is needed is made.
    interval   times (low, high) where guidance acts; elsewhere the condition alone (Kynkaanniemi et al. 2404.07724)
    rescale    phi of Lin et al. 2305.08891 (eqs. 15-16): 1 brings the standard deviation of each example back to that
               of the conditional prediction, 0 leaves it. It depends on what the network predicts.
    batched    both predictions in one forward pass of twice the batch
    """
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"interval: got {interval}, takes (low, high) with 0 <= low <= high <= 1")
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale: got {rescale}, takes a number in [0, 1]")
    if set(condition) != set(null):
        raise ValueError(f"null: got keywords {sorted(null)}, takes those of condition, {sorted(condition)}")

    always = (low, high) == (0, 1)  # then nobody need wait for a GPU to say which times are inside

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        acts = (t >= low) & (t <= high)
        if scale == 1 or not (always or acts.any()):
            return network(x_t, t, **condition)
        if scale == 0 and rescale == 0 and (always or acts.all()):
            return network(x_t, t, **_for_batch(null, len(x_t)))
        with_c, without = _both(network, x_t, t, condition, _for_batch(null, len(x_t)), batched)
        answer = without + scale * (with_c - without)
        if rescale > 0:
            answer = answer * (1 - rescale + rescale * _std(with_c) / _std(answer).clamp(min=1e-12))
        return torch.where(acts.reshape(-1, *[1] * (x_t.ndim - 1)), answer, with_c)

    return guided


def _both(
    network: Network,
    x_t: Tensor,
    t: Tensor,
    condition: Mapping[str, Any],
    null: Mapping[str, Any],
    batched: bool,
) -> tuple[Tensor, Tensor]:
    """The conditional and the unconditional prediction, each [batch, ...], in two calls or in one."""
    if not batched:
        return network(x_t, t, **condition), network(x_t, t, **null)
    pair = {}
    for key, value in condition.items():
        other = null[key]
        if isinstance(value, Tensor) and isinstance(other, Tensor) and value.shape == other.shape:
            pair[key] = torch.cat([value, other])
        elif isinstance(value, Tensor) or isinstance(other, Tensor) or value != other:
            got = getattr(value, "shape", value), getattr(other, "shape", other)
            raise ValueError(f"batched: {key} is {got[0]} and {got[1]}; takes equal shapes, or batched=False")
        else:
            pair[key] = value
    with_c, without = network(torch.cat([x_t, x_t]), torch.cat([t, t]), **pair).chunk(2)
    return with_c, without


def _for_batch(null: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """`null` with its tensors of batch 1 repeated for the whole batch."""
    return {
        key: value.expand(batch, *value.shape[1:])
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == 1
        else value
        for key, value in null.items()
    }


def _std(x: Tensor) -> Tensor:
    """Standard deviation of each example: [batch, ...] -> [batch, 1, ...]. ValueError for examples of one number."""
    if math.prod(x.shape[1:]) < 2:
        raise ValueError(f"rescale: got examples of shape {tuple(x.shape[1:])}, takes two numbers or more")
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
