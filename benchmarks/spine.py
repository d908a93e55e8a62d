"""How fast the spine is on this machine: the world, the training step against the matrix peak, a film, the import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch

from soralab import world
from soralab.recipes import sora as recipe
from soralab.sora import Sora
from soralab.training.data import model_flops, peak_gflops


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured."""
    threads = torch.get_num_threads()
    yield f"{threads} threads, torch {torch.__version__}"
    torch.set_num_threads(1)
    for level in world.LEVELS:
        rate = 512 / seconds(lambda level=level: world.clips(0, range(512), level=level))
        yield f"world, {level:6s}        {rate:8.0f} clips of 8x32x32 a second on one core"
    torch.set_num_threads(threads)
    for name in ("sora", "sora_pixels"):
        for dtype in (torch.float32, torch.bfloat16):
            yield training_step(name, dtype)
    yield f"import soralab       {command('import soralab'):8.2f} s (python alone: {command('pass'):.2f} s)"
    film = "from soralab.command import main; main(['film', 'a red circle', '-o', 'runs/benchmark.gif'])"
    yield f"soralab film         {command(film):8.1f} s, start-up included"


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """The best of `times` runs, after one that does not count."""
    return side_by_side(work, times=times)[0]


def side_by_side(*works: Callable[[], object], times: int = 5) -> list[float]:
    """The best of `times` runs of each, in turns, so that what disturbs one disturbs all; one run does not count."""
    best = [float("inf")] * len(works)
    for run in range(times + 1):
        for number, work in enumerate(works):
            began = time.perf_counter()
            work()
            took = time.perf_counter() - began
            best[number] = min(best[number], took) if run else best[number]
    return best


def training_step(name: str, dtype: torch.dtype) -> str:
    """One forward and backward pass of a recipe's batch, and its share of the peak of plain matrix products."""
    config = recipe.RECIPES[name].config
    model = Sora(config)
    x = torch.randn(recipe.BATCH, config.size[0], config.channels, *config.size[1:])
    t, ids = torch.rand(recipe.BATCH), torch.randint(1, 100, (recipe.BATCH, 18))
    flops = 3 * model_flops(model, x, t, ids)  # the backward pass is two products for every one of the forward pass

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = (model(x, t, ids).float() - x).square().mean()
        loss.backward()

    rate, peak = flops / seconds(step) / 1e9, peak_gflops(dtype)
    films = rate * 1e9 / flops * recipe.BATCH
    kind = str(dtype).removeprefix("torch.")
    return f"{name:12s}{kind:9s}{films:8.0f} films a second, {rate:6.0f} of {peak:6.0f} GFLOP/s: {rate / peak:4.0%}"


def command(code: str) -> float:
    """Wall seconds of a fresh Python that runs `code`, the best of three."""
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True), 3)
