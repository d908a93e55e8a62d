"""How a model is trained: the numbers, and what follows from them for a step, its rate, its seed and its precision."""

from __future__ import annotations

import contextlib
import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
# What torch.cpu tells of processors that have products of bfloat16: Intel's AMX, and AVX-512 with them (Zen 4, Zen 5).
MULTIPLY_BFLOAT16 = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Learning rate: up over `warmup` steps, constant, down to 0 over the last share
    `cooldown` of the steps. Constant in between, so that a finished run can be lengthened: see `train`."""

    steps: int
    lr: float = 1e-3
    warmup: int = 200  # steps
    cooldown: float = 0.2  # share of the steps
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = 1.0  # largest norm of the gradient; math.inf or None: none
    ema: float = 0.999
    seed: int = 0
    log_every: int = 50  # steps
    save_every: int = 500  # steps
    precision: str = "auto"  # of the products: bfloat16 where the machine multiplies it fast, else float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "clip", math.inf if self.clip is None else self.clip)
        for name in ("steps", "log_every", "save_every"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}, it takes a whole number from 1")
        for name, low, high in (("lr", 0, math.inf), ("warmup", 0, math.inf), ("cooldown", 0, 1),
                                ("weight_decay", 0, math.inf), ("clip", 0, math.inf), ("ema", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)!r}, it takes a number from {low} to {high}")
        if self.ema == 1:
            raise ValueError("ema is 1, it takes a number below 1: with 1 the average would never move")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, it takes one of {', '.join(PRECISIONS)}")

    def card(self) -> dict[str, Any]:
        """The fields as JSON holds them, which has no infinity; `TrainConfig(**card)` is this configuration."""
        return asdict(self) | {"betas": list(self.betas), "clip": None if math.isinf(self.clip) else self.clip}

    @property
    def cooldown_start(self) -> int:
        """Steps done when the learning rate begins to fall."""
        return self.steps - round(self.cooldown * self.steps)


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of step number `step` (from 0)."""
    up = (step + 1) / max(config.warmup, 1)
    down = (config.steps - step) / max(config.steps - config.cooldown_start, 1)
    return config.lr * min(up, 1.0, down)


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """A seed for step `step` of a run with `seed`, unlike any other pair's; the same in every process.

    Where a batch is cut into parts, each but the first has a seed of its own.
    """
    text = f"{seed}/{step}/{part}" if part else f"{seed}/{step}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 if the matrix products are to run in it on `device`, None for plain float32."""
    if precision == "auto":
        here = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in MULTIPLY_BFLOAT16)
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else here
        precision = "bfloat16" if fast else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def autocast(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager:
    """Inside, products on `device` run in this type, as `autocast_dtype` gives it; None changes nothing."""
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
