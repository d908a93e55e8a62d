"""A short run that is held against its band while it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from soralab.figures.bands import BANDS, verdict
from soralab.figures.curves import read_log
from soralab.training.ema import EMA
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile


class Watched(Probes):
    """The probes of a short run that has a band: if it is wrong, it says so at the first mark, a tenth of its steps.

    name: of the band. sample(model) -> what the averaged model makes at each mark, pictures [n, channel, height,
    width] in [-1, 1] or texts; truth: what it should make. The rest goes to `Probes`. Under the smoke profile, where a
    run is too short for its band, two groups of examples are enough.
    """

    def __init__(self, name: str, loss_fn: Callable, batch: dict[str, Tensor] | list[dict[str, Tensor]], steps: int,
                 swap: Sequence[str] = (), groups: int = 16, sample: Callable[[nn.Module], Any] | None = None,
                 truth: Any = None):
        super().__init__(loss_fn, batch, steps, swap, groups, sample)
        self.groups = self.groups[: by_profile(smoke=2, laptop=None, gpu=None)]
        self.name, self.steps, self.truth, self.records = name, steps, truth, []

    def __call__(self, record: dict, model: nn.Module, average: EMA) -> dict[str, float]:
        """What to add to a line of the log; prints a line if the run looks wrong by now."""
        found = super().__call__(record, model, average)
        self.records.append(record | found)
        if found and record["step"] < self.steps and (BANDS / f"{self.name}.json").exists():
            keys = ("step", "loss", *found)
            said = verdict({key: np.array([r.get(key, np.nan) for r in self.records]) for key in keys}, self.name)
            if said.right is False:
                print(said)
        return found

    def log(self, path: Path) -> dict:
        """The run's log as columns, and as "samples" what the network made, by the step, beside the "truth"."""
        return read_log(path) | {"samples": self.samples | {"truth": self.truth}}
