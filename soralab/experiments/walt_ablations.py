"""Chapter 11's short trainings, which differ in one thing each: windows, rank, self-conditioning, pictures.

`python -m soralab.experiments.walt_ablations` makes them, one after the other, in runs/walt_ablations, and goes on
where it was stopped: what a run measured lies there as JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from soralab.experiments.walt_scores import continued, drift, from_words, loss
from soralab.files.atomic import atomic_write, make_folder
from soralab.recipes import RUNS
from soralab.recipes.walt import LARGE, SMALL, TRAINING, Latents, Run, fit, load_autoencoder, parameters
from soralab.recipes.walt import loss as training_loss
from soralab.training.data import model_flops
from soralab.walt import CausalAutoencoder, Filmmaker, Walt

SHORT = replace(TRAINING, steps=400)
SEEDS = (1, 2, 3)
WINDOWS, FULL = Run(), Run(config=replace(LARGE, windows=None))
BASE = Run(config=SMALL, training=SHORT, scenes=4000)
ARMS = {
    "as the paper": BASE,
    "r = 16": replace(BASE, config=replace(SMALL, rank=16)),
    "a layer a block": replace(BASE, config=replace(SMALL, rank=None)),
    "no self-conditioning": replace(BASE, self_conditioning=0.0),
    "films alone": replace(BASE, pictures=False),
}
FOLDER = RUNS / "walt_ablations"


def kept(path: Path, measure: Callable[[], dict]) -> dict:
    """What `measure` finds, kept at `path`; what lies there is taken as it is."""
    if not path.exists():
        make_folder(path.parent)
        found = measure()
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def step_seconds(runs: list[Run], batches: Latents, rounds: int = 6) -> list[float]:
    """Seconds of the processor that a training step of each run takes: the fastest of so many rounds in turn."""
    models = [Walt(run.config, "torch") for run in runs]
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
    p, model = run.config.patch, Walt(run.config, "torch")
    size = (run.config.size[0], run.config.size[1] // p, run.config.size[2] // p)
    q = torch.zeros(1, run.config.heads, size[0] * size[1] * size[2], run.config.dim // run.config.heads)
    return sum(model_flops(model.attend(size, block), q, q, q) for block in range(run.config.depth))


def judged(model: Walt, autoencoder: CausalAutoencoder, count: int) -> dict:
    """All of a model's scores but its drift."""
    maker = Filmmaker(model, autoencoder)
    return {"loss": loss(model, autoencoder), "words": from_words(maker, count), "continued": continued(maker, count)}


def windows(folder: Path = FOLDER, count: int = 100) -> dict[str, dict]:
    """Windows against full attention, at equal seconds of the processor, on films of 9 x 48 x 48: {"windows", "full"}.

    The first has TRAINING's steps, the other as many as take as long.
    """
    autoencoder, batches = load_autoencoder(), None

    def trained(name: str, run: Run, steps: int) -> dict:
        nonlocal batches
        batches = batches or Latents(autoencoder, run)
        model, result = fit(replace(run, training=replace(run.training, steps=steps)), batches, folder / name)
        found = judged(model, autoencoder, count) | {"steps": result.steps, "seconds": round(result.seconds)}
        return found | {"attention flops": attention_flops(run), "drift": drift(Filmmaker(model, autoencoder), count)}

    def timed() -> dict:
        nonlocal batches
        batches = batches or Latents(autoencoder, WINDOWS)
        return dict(zip(("windows", "full"), step_seconds([WINDOWS, FULL], batches), strict=True))

    seconds = kept(folder / "step_seconds.json", timed)
    steps = {"windows": TRAINING.steps, "full": round(TRAINING.steps * seconds["windows"] / seconds["full"])}
    return {
        name: kept(folder / f"{name}.json", lambda name=name, run=run: trained(name, run, steps[name]))
        | {"step seconds": seconds[name]}
        for name, run in (("windows", WINDOWS), ("full", FULL))
    }


def arms(folder: Path = FOLDER, count: int = 64) -> dict[str, list[dict]]:
    """Every arm with every seed: {arm: [scores]}, on films of 9 x 32 x 32."""
    autoencoder, batches, table = load_autoencoder(), None, {name: [] for name in ARMS}

    def trained(name: str, run: Run, where: Path) -> dict:
        nonlocal batches
        batches = batches or Latents(autoencoder, BASE)
        batches.run = run
        model, result = fit(run, batches, where)
        return judged(model, autoencoder, count) | {"seconds": round(result.seconds)}

    for seed in SEEDS:
        for name, run in ARMS.items():
            run = replace(run, training=replace(run.training, seed=seed))
            where = folder / f"{name.replace(' ', '_').replace('=', '')}_{seed}"
            found = kept(where.with_suffix(".json"), lambda name=name, run=run, where=where: trained(name, run, where))
            table[name].append(found)
    return table


if __name__ == "__main__":
    print(json.dumps(windows(), indent=1))
    print(json.dumps(arms(), indent=1))
