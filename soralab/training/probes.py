"""What the loss of a run does not tell: five numbers, measured at a tenth, at three tenths and at the end of its steps.

A run whose average is never taken, whose labels are mixed up or whose head never learns can have the loss of a right
one. So at each of MARKS its log also says

    held     the loss of the averaged model, in eval mode, on examples that training never sees
    pairing  by how much a wrong label (prompt, target) makes that loss worse, in units of its spread between groups of
             examples: 0 where the network has not learnt what belongs to what
    lag      the distance of the averaged weights from the last ones, as a share of the way from the start to these: 0
             without an average, 1 where it stays at the start
    way      the distance of the last weights from the start, in units of the start's length: at first it is the
             learning rate that says how far they go, the same for every seed
    still    how many tensors of weights are exactly what they were at the start
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from soralab.training.data import batch_size, beside, map_tensors
from soralab.training.ema import EMA

MARKS = (0.1, 0.3, 1.0)  # shares of a run's steps


class Probes:
    """`loop.train(..., probes=Probes(...))` adds the five numbers to the first line of the log at each of MARKS.

    batch: examples that training never sees, a dict as loss_fn takes it; cut into `groups` of consecutive ones. Or a
    list of such dicts, a group each, where examples cannot be cut apart, as packed ones cannot. swap:
    the entries that are handed on by one example within each group, to make them wrong: each group then needs two or
    more. Without a swap there is no `pairing`. sample(model) -> what the averaged model makes on its device, kept in
    `samples` by the step, tensors on the CPU.
    """

    def __init__(self, loss_fn: Callable, batch: dict[str, Tensor] | list[dict[str, Tensor]], steps: int,
                 swap: Sequence[str] = (), groups: int = 16, sample: Callable[[nn.Module], Any] | None = None):
        self.loss_fn, self.swap, self.sample, self.samples = loss_fn, tuple(swap), sample, {}
        self.groups = batch if isinstance(batch, list) else cut_into(groups, batch, 2 if swap else 1)
        self.due = [share * steps for share in MARKS]
        self.start: dict[str, Tensor] = {}

    def begin(self, model: nn.Module) -> None:
        """Remember the weights of the start, and lay the examples on the model's device."""
        self.groups = beside(model, self.groups)
        self.start = {name: p.detach().clone() for name, p in model.named_parameters()}

    def goes_on(self, logged: int) -> None:
        """Leave out the marks that a resumed run's log has: its last line was of step `logged`."""
        self.due = [mark for mark in self.due if mark > logged]

    def __call__(self, record: dict, model: nn.Module, average: EMA) -> dict[str, float]:
        """What to add to a line of the log: the five numbers if a mark was passed since the last line, else {}."""
        step = record["step"]
        if not self.due or step < self.due[0]:
            return {}
        self.due = [mark for mark in self.due if mark > step]
        found = self._weights(model, average)
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), average.applied(model):
                found |= self._losses(model)
                if self.sample is not None:
                    self.samples[step] = map_tensors(Tensor.cpu, self.sample(model))
        finally:
            model.train(training)
        return found

    @torch.no_grad()
    def _weights(self, model: nn.Module, average: EMA) -> dict[str, float]:
        last = dict(model.named_parameters())
        way = sum((last[name] - self.start[name]).square().sum() for name in average.shadow).sqrt()
        behind = sum((last[name] - mean).square().sum() for name, mean in average.shadow.items()).sqrt()
        length = sum(self.start[name].square().sum() for name in average.shadow).sqrt()
        still = sum(torch.equal(last[name], start) for name, start in self.start.items())
        return {"lag": float(behind / way.clamp(min=1e-12)), "way": float(way / length), "still": still}

    def _losses(self, model: nn.Module) -> dict[str, float]:
        right = torch.stack([self._loss(model, group, k) for k, group in enumerate(self.groups)])
        found = {"held": float(right.mean())}
        if self.swap:
            wrong = torch.stack([self._loss(model, self._swapped(group), k) for k, group in enumerate(self.groups)])
            worse = wrong - right
            least = 1e-6 * right.abs().mean() + 1e-12  # below it, rounding alone differs
            found["pairing"] = float(worse.mean() / worse.std().clamp(min=float(least)))
        return found

    def _swapped(self, group: dict[str, Tensor]) -> dict[str, Tensor]:
        return group | {name: group[name].roll(1, 0) for name in self.swap}

    def _loss(self, model: nn.Module, group: Any, number: int) -> Tensor:
        """The loss of a group: of the same noise and times at every mark, and for right and wrong labels alike."""
        generator = torch.Generator(next(model.parameters()).device).manual_seed(number)
        out = self.loss_fn(model, group, generator)
        return (out[0] if isinstance(out, tuple) else out).float()


def cut_into(groups: int, batch: dict[str, Tensor], least: int) -> list[dict[str, Tensor]]:
    """The groups of a batch; raises ValueError if they hold fewer than `least` examples each."""
    size = batch_size(batch) // groups
    if size < least:
        raise ValueError(f"groups is {groups}, too many for {batch_size(batch)} examples: "
                         "a group takes one, and two if they are to be swapped")
    return [{name: value[k * size : (k + 1) * size] for name, value in batch.items()} for k in range(groups)]
