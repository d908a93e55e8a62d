"""Chapter 11's short trainings, which differ in one thing each: windows, rank, self-conditioning, pictures.

`soralab train walt` makes them after the model itself, one after the other, in runs/walt_ablations, and goes on where
it was stopped: what a run measured lies there as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from soralab.experiments.walt_scores import continued, drift, from_words, loss
from soralab.files.atomic import kept
from soralab.recipes import RUNS
from soralab.recipes.walt import SMALL, TRAINING, Latents, Run, fit, load_autoencoder, parameters
from soralab.recipes.walt import loss as training_loss
from soralab.training.data import model_flops
from soralab.training.profiles import device
from soralab.walt import CausalAutoencoder, Filmmaker, Walt

SHORT = replace(TRAINING, steps=400, ema=0.99)
SEEDS = (1, 2, 3)
WINDOWS = Run()
BASE = Run(config=SMALL, training=SHORT, batch=32)
ARMS: dict[str, Callable[[Run], Run]] = {
    "as the paper": lambda run: run,
    "r = 16": lambda run: replace(run, config=replace(run.config, rank=16)),
    "a layer a block": lambda run: replace(run, config=replace(run.config, rank=None)),
    "no self-conditioning": lambda run: replace(run, self_conditioning=0.0),
    "films alone": lambda run: replace(run, pictures=False),
}
FOLDER = RUNS / "walt_ablations"


def step_seconds(runs: list[Run], batches: Latents, rounds: int = 6) -> list[float]:
    """Seconds of the processor that a training step of each run takes: the fastest of so many rounds in turn."""
    models = [run.build(run.config) for run in runs]
    optimizers = [torch.optim.SGD((p for g in parameters(model) for p in g["params"]), 1e-4) for model in models]
    best = [float("inf")] * len(runs)
    for step in range(rounds):
        for k, (run, model, optimizer) in enumerate(zip(runs, models, optimizers, strict=True)):
            rng, began = torch.Generator().manual_seed(step), time.process_time()
            training_loss(run)(model, batches(step), rng).backward()
            optimizer.step()
            optimizer.zero_grad()
            best[k] = min(best[k], time.process_time() - began)
    return best


def attention_flops(run: Run) -> float:
    """Floating-point operations of attention's two products in the blocks' self-attention, for one film."""
    p, model = run.config.patch, run.build(run.config)
    size = (run.config.size[0], run.config.size[1] // p, run.config.size[2] // p)
    q = torch.zeros(1, run.config.heads, size[0] * size[1] * size[2], run.config.dim // run.config.heads)
    return sum(model_flops(model.attend(size, block), q, q, q) for block in range(run.config.depth))


def judged(model: Walt, autoencoder: CausalAutoencoder, count: int, opinions: bool = True) -> dict:
    """All of a model's scores but its drift. opinions: was it trained to be shown its own?"""
    maker = Filmmaker(model, autoencoder, opinions)
    words, more = from_words(maker, count), continued(maker, count)
    return {"loss": loss(model, autoencoder, 4 * count), "words": words, "continued": more}


def windows(folder: Path = FOLDER, count: int = 100, run: Run = WINDOWS, own: Path = RUNS / "walt") -> dict[str, dict]:
    """Windows against full attention, at equal seconds of the processor, on films of 9 x 48 x 48: {"windows", "full"}.

    The first is `run`, the shipped model's training, which lies in `own`; the other has as many steps as take as long.
    """
    autoencoder = load_autoencoder().to(device())
    other = replace(run, config=replace(run.config, windows=None))
    batches = cache(lambda: Latents(autoencoder, run))

    def trained(run: Run, steps: int, where: Path) -> dict:
        model, result = fit(replace(run, training=replace(run.training, steps=steps)), batches(), where)
        found = judged(model.to(device()), autoencoder, count) | {"drift": drift(Filmmaker(model, autoencoder), count)}
        return found | {"steps": steps, "seconds": round(result.seconds), "attention flops": attention_flops(run)}

    def timed() -> dict:
        return dict(zip(("windows", "full"), step_seconds([run, other], batches()), strict=True))

    seconds = kept(folder / "step_seconds.json", timed)
    steps = run.training.steps
    equal = max(1, round(steps * seconds["windows"] / seconds["full"]))
    table = {
        "windows": kept(folder / "windows.json", lambda: trained(run, steps, own)),
        "full": kept(folder / "full.json", lambda: trained(other, equal, folder / "full")),
    }
    return {name: found | {"step seconds": seconds[name]} for name, found in table.items()}


def arms(folder: Path = FOLDER, count: int = 64, seeds=SEEDS, base: Run = BASE) -> dict[str, list[dict]]:
    """Every one of ARMS with every seed: {arm: [scores]}, on films of 9 x 32 x 32."""
    autoencoder = load_autoencoder().to(device())
    batches, table = cache(lambda: Latents(autoencoder, base)), {name: [] for name in ARMS}

    def trained(run: Run, where: Path) -> dict:
        batches().run = run
        model, result = fit(run, batches(), where)
        found = judged(model.to(device()), autoencoder, count, run.self_conditioning > 0)
        return found | {"seconds": round(result.seconds)}

    for seed in seeds:
        for name, change in ARMS.items():
            run = change(replace(base, training=replace(base.training, seed=seed)))
            where = folder / f"{name.replace(' ', '_').replace('=', '')}_{seed}"
            table[name].append(kept(where.with_suffix(".json"), partial(trained, run, where)))
    return table
