"""What chapter 08 measures: `soralab evaluate vivit`, and the card's metrics.

The four models and two bags on unseen films, beside what each costs; the four on single frames; other starts, from
chapter 03's picture model, and uniform frames for tubelets; what turns; what an order of time does to each of the four;
and chapter 16's films, read by the shipped one and by the referee.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from soralab.datasets import order
from soralab.experiments.vivit_scores import COLUMNS, measure, order_of_time
from soralab.experiments.vivit_sora import beside_the_referee
from soralab.figures import read_log
from soralab.files.atomic import kept
from soralab.recipes import RUNS, Trained
from soralab.recipes.vivit import BAG, TRAINING, begun, fit, load, readers
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile, device
from soralab.vivit import NAMES, ViViT, ViViTConfig, cost

TEST_FILMS, PROMPTS, APART = 1000, 100, 0.3
PAIRS_BAG = ViViTConfig(2, temporal_depth=0)  # the paper's: tubelets of two frames, the moments' mean
STARTS = {  # other beginnings than the readers' own, from nothing: what is trained, and where its weights are from
    "central frame": (ViViTConfig(4), "central frame"),
    "inflated": (ViViTConfig(4), "inflated"),
    "tubelets drawn anew": (ViViTConfig(4), "random"),
    "uniform frames": (ViViTConfig(4, frames=4, tubelet=(1, 4, 4)), "central frame"),
    "uniform frames from nothing": (ViViTConfig(4, frames=4, tubelet=(1, 4, 4)), None),
    "central frame in Model 2": (ViViTConfig(2), "central frame"),
}
SINGLE = {  # of single frames, which can meet in the transformer alone: what is trained, and how far moments are apart
    **{f"model {k}": (ViViTConfig(k, frames=4, tubelet=(1, 4, 4)), APART) for k in NAMES},
    "model 2, nearly alike": (ViViTConfig(2, frames=4, tubelet=(1, 4, 4)), 0.0),
}


def seconds_a_film(model: ViViT, films: int = 8, runs: int = 5) -> float:
    """Seconds that the model takes to read one film of a batch, the quickest of a few runs, on this machine."""
    model = model.to(device())
    c = model.config
    batch = torch.zeros(films, c.frames, c.channels, c.image, c.image, device=device())
    taken = []
    with torch.no_grad():
        for _ in range(runs):
            began = time.perf_counter()
            model(batch).cpu()
            taken.append(time.perf_counter() - began)
    return float(f"{min(taken) / films:.3g}")


def table_row(model: ViViT, log: Path, count: int) -> dict:
    """One line of the chapter's Table 2: what a model costs, how its training went, what it makes of both splits."""
    parameters, macs = cost(model.config)
    splits = {split: measure(model.to(device()), split, count) for split in ("test", "held_out")}
    return {"parameters": parameters, "macs": macs, "seconds": seconds_a_film(model), "learnt": learnt(log), **splits}


def learnt(log: Path) -> list[list[float]]:
    """How a training went: [[step, loss, share of its films that was read right], ...]."""
    columns = read_log(log)
    lines = zip(*(columns[key].tolist() for key in ("step", "loss", "right")), strict=True)
    return [[step, round(loss, 4), round(right, 4)] for step, loss, right in lines]


def arm(name: str, build: Callable, training: TrainConfig, folder: Path, batch: int, count: int) -> dict:
    """A training like the readers', of what `build` makes, and what came of it."""
    model, result = fit(build, training, folder / name.replace(" ", "_"), batch=batch)
    return table_row(model, result.log, count)


def turns(training: TrainConfig, folder: Path, batch: int, count: int) -> dict:
    """Model 4 trained like the readers, but on what turns alone."""
    build = partial(ViViT, ViViTConfig(4, classes=2 * len(order.TURNS)))
    model, result = fit(build, training, folder / "turns", batch=batch, pairs=order.TURNS)
    return {"learnt": learnt(result.log), "test": measure(model.to(device()), "test", count, order.TURNS)}


def metrics(name: str, trained: Trained) -> dict:
    """The card's. What was measured already lies in runs/NAME_experiments, and is not measured again."""
    best, batch = trained.card["best"], trained.card["batch"]
    training = replace(TRAINING, steps=trained.card["steps"])
    folder = RUNS / f"{name}_experiments" / f"{training.steps}_steps"
    count, texts = by_profile(smoke=(20, 3), laptop=(TEST_FILMS, PROMPTS), gpu=(TEST_FILMS, PROMPTS))

    def once(of: str, measure: Callable, *arguments) -> dict:
        return kept(folder / f"{of.replace(' ', '_')}.json", partial(measure, *arguments))

    rows, orders = {}, {}
    for key, (model, result) in readers(training, trained.log.parents[1], batch).items():
        shown = trained.model if key == best else model  # the best in eight bits, as it is shipped
        rows[key] = once(key, table_row, shown, result.log, count)
        if key != BAG:
            orders[key] = once(f"order {key}", order_of_time, shown, count)

    def trial(name: str, config: ViViTConfig, *begin) -> dict:
        return once(name, arm, name, partial(begun, config, *begin), training, folder, batch, count)

    return {
        "films": count,
        "trained on": training.steps * batch,
        "models": {key: row for key, row in rows.items() if key != BAG},
        "bag": rows[BAG],
        "bag of pairs": trial("bag of pairs", PAIRS_BAG),
        "single frames": {
            kind: trial(f"single {kind}", config, "central frame", apart) for kind, (config, apart) in SINGLE.items()
        },
        "starts": {kind: trial(f"start {kind}", *begin) for kind, begin in STARTS.items()},
        "turns": once("turns", turns, training, folder, batch, count),
        "order of time": orders,
        "sora": once("sora", beside_the_referee, trained.model, texts),
    }


def evaluate(name: str = "vivit", checkpoint: str | None = None) -> str:
    """The shares of unseen films that the shipped reader gets right, measured now, on both splits."""
    model = load(checkpoint or name).to(device())
    count = by_profile(smoke=20, laptop=TEST_FILMS, gpu=TEST_FILMS)
    lines = []
    for split in ("test", "held_out"):
        found = measure(model, split, count)
        lines.append(f"{split:10s}" + "".join(f"{column} {found[column]:8.2%}   " for column in COLUMNS))
    return "\n".join(lines)
