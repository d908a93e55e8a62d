"""One switch for sizes and steps (SORALAB_PROFILE), one choice of device, one description of the machine."""

import os
import platform
import re
import subprocess
import warnings
from typing import TypeVar

import torch
from torch import nn

from soralab.training.distributed import TEAM

PROFILES = ("smoke", "laptop", "gpu")
T = TypeVar("T")


def profile() -> str:
    """The profile in force: SORALAB_PROFILE = smoke (seconds, for tests) | laptop (default) | gpu."""
    chosen = os.environ.get("SORALAB_PROFILE") or "laptop"
    if chosen not in PROFILES:
        raise ValueError(f"SORALAB_PROFILE is {chosen!r}, it takes one of {', '.join(PROFILES)}")
    return chosen


def by_profile(*, smoke: T, laptop: T, gpu: T) -> T:
    """Whichever of the three belongs to the profile in force."""
    return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[profile()]


def larger(size: int, times: int) -> int:
    """How much a step takes in: `size`, and under the gpu profile so many `times` more, in as many steps."""
    return by_profile(smoke=size, laptop=size, gpu=times * size)


def device() -> torch.device:
    """What is trained, sampled and measured on: CUDA where there is one, else the CPU; SORALAB_DEVICE (cpu, cuda,
    cuda:1, mps) overrides.

    `loop.train` moves a model there and back; commands and recipes move what they load. By design the CPU has what is
    no network: the world's renderer, the referee, files.
    Apple's mps is taken only if asked for, with a notice: the numbers of the course are checked on the CPU.
    Raises ValueError for a device that is unknown or not there.
    """
    wanted = os.environ.get("SORALAB_DEVICE")
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = wanted.partition(":")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", wanted, re.ASCII):
        raise ValueError(f"SORALAB_DEVICE is {wanted!r}, it takes cpu, cuda, cuda:N or mps")
    if not there[kind] or (kind == "cuda" and index and int(index) >= torch.cuda.device_count()):
        raise ValueError(f"SORALAB_DEVICE is {wanted!r}, but this machine has no such device: unset it")
    if kind == "mps":
        warnings.warn("device mps: the numbers are not the checked ones, which are the CPU's", stacklevel=2)
    return torch.device(wanted)


def compiled(model: nn.Module, **options) -> nn.Module:
    """The model through torch.compile, its weights shared, where this machine can compile; else the model itself.

    `options` are torch.compile's. Compiling takes a minute, so the smoke profile goes without; and so do shards, which
    are brought together on the way through the model.
    """
    if profile() == "smoke" or TEAM.get().shard:
        return model
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device()))
    except Exception:  # no compiler, or one that fails: every system and release has an error of its own
        return model
    return torch.compile(model, **options)


def hardware() -> dict:
    """What a run was made on, for a checkpoint's card: CPU, GPU if it was used, versions. No host name, no path."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": gpu_name(device()),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def gpu_name(where: torch.device) -> str | None:
    """What the maker calls this GPU; None for a device that is not CUDA's."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else None


def cores() -> int | None:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    """The processor's name as its maker gives it, or its architecture where the system does not tell."""
    try:
        if platform.system() == "Linux":
            with open("/proc/cpuinfo", encoding="utf-8") as lines:
                for line in lines:
                    if line.startswith("model name"):
                        return line.partition(":")[2].strip()
        elif platform.system() == "Darwin":
            ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()
