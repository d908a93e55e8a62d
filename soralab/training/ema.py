"""Averages of a model's weights: samples come from the average, not the last step."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class EMA:
    """Keeps, for each trainable parameter θ of a model, the average  s ← d·s + (1 - d)·θ.

    d = min(decay, (1 + n) / (10 + n)) after n updates: early on, when the weights still run away from their
    random start, the average forgets fast. Buffers are not averaged; they are the model's own.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999):
        """Start the average at the model's present weights. decay in [0, 1); 0 follows the weights."""
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, it takes a number from 0 up to but not 1")
        self.decay, self.updates = decay, 0
        self.shadow: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @staticmethod
    @torch.no_grad()
    def _write(model: nn.Module, values: dict[str, Tensor]) -> None:
        current = dict(model.named_parameters())
        torch._foreach_copy_([current[k] for k in values], list(values.values()))

    def rate(self) -> float:
        """d, the share of the old average that the next update keeps."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average: one fused pass over all of them."""
        current = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.shadow.values()), [current[k] for k in self.shadow], 1 - self.rate())
        self.updates += 1

    def to(self, device: torch.device | str) -> None:
        """Move the average to a device."""
        self.shadow = {name: value.to(device) for name, value in self.shadow.items()}

    def copy_to(self, model: nn.Module) -> None:
        """Write the average into the model's weights, for good."""
        self._write(model, self.shadow)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Inside the block the model has the averaged weights; afterwards, in any case, its own again."""
        own = {k: p.detach().clone() for k, p in model.named_parameters() if k in self.shadow}
        self.copy_to(model)
        try:
            yield model
        finally:
            self._write(model, own)


def average_checkpoints(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several checkpoints' tensors, name by name.

    As 1706.03762 makes its translators (section 6.1: of the last 5 of base, 20 of big). Raises ValueError for none, or
    for other names in one than in the rest.
    """
    if not states or any(state.keys() != states[0].keys() for state in states):
        raise ValueError(f"states holds {len(states)} checkpoints; it takes at least one, all of the same names")
    return {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
