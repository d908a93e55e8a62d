"""What chapter 06 measures: `soralab evaluate latent_autoencoder`, `latent_diffusion`, and the cards' metrics.

The card of `latent_diffusion` also holds the experiments: the trade-off over f, KL or VQ, where two things stand,
guidance, samplers, conditions laid over z, and MNIST, each in a file of its own.
"""

from __future__ import annotations

from pathlib import Path

from soralab.blocks.first_stage import Autoencoder
from soralab.datasets import mnist, stills
from soralab.experiments.latent_diffusion_conditions import concatenation
from soralab.experiments.latent_diffusion_digits import mnist_digits
from soralab.experiments.latent_diffusion_relation import relation
from soralab.experiments.latent_diffusion_sampling import guidance, samplers
from soralab.experiments.latent_diffusion_scores import floors, measure, measure_first_stage
from soralab.experiments.latent_diffusion_trade_off import alone, both_stages, regularisation, trade_off
from soralab.latent_diffusion import Painter, load_autoencoder
from soralab.recipes import RUNS, Trained
from soralab.recipes.latent_diffusion import FIRST, SECOND, SIDE, library
from soralab.training.profiles import by_profile, device


def metrics(name: str, trained: Trained) -> dict:
    """The card's. Of the first stage its copies; of the second the referee's scores, beside those of true pictures, and
    the experiments, MNIST's None where the reader has none. What was trained once is not trained again."""
    if name == FIRST:
        return measure_first_stage(trained.model, count_of_tests(10))
    painter, count = Painter(trained.model, first_stage(trained.card["autoencoder"]), SIDE), count_of_tests(4)
    return {
        "scores": measure(painter, count, **by_profile(smoke={"steps": 2}, laptop={}, gpu={})),
        "referee": {f"{split}, {things}": stills.true_scores(split, things, count)["all"]
                    for split in ("test", "held_out") for things in (1, 2)},
        **experiments(RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps", painter),
    }  # fmt: skip


def first_stage(name: str | Path) -> Autoencoder:
    """A shipped first stage, on the device."""
    return load_autoencoder(name).to(device())


def count_of_tests(smoke: int) -> int:
    """Pictures that are judged, of each kind."""
    return by_profile(smoke=smoke, laptop=400, gpu=400)


def experiments(folder: Path, painter: Painter) -> dict:
    """The card's tables; MNIST's is None where the reader has none."""
    few = by_profile(smoke={"count": 4}, laptop={}, gpu={})
    short = {**few, **by_profile(smoke={"steps": 2}, laptop={}, gpu={})}
    data = alone(library(by_profile(smoke=64, laptop=20_000, gpu=20_000)))
    return {
        "trade-off": trade_off(folder / "trade_off", data, **short),
        "trade-off again": {"4": both_stages(folder / "again", data, 4, again=1, **short)},
        "regularisation": regularisation(folder / "trade_off", data, **short),
        "relation": relation(painter, **few),
        "guidance": guidance(painter, **few, **by_profile(smoke={"scales": (1.0, 3.0)}, laptop={}, gpu={})),
        "floor": floors(by_profile(smoke=(3, 4), laptop=(100, 200), gpu=(100, 200))),
        "samplers": samplers(painter, **few, **by_profile(smoke={"calls": (2,)}, laptop={}, gpu={})),
        "concatenation": concatenation(folder / "concatenation", data, painter.autoencoder, **short),
        "mnist": mnist_digits(folder / "mnist", **short) if mnist.available() else None,
    }


def evaluate(name: str = SECOND, checkpoint: str | None = None) -> str:
    """The scores of a shipped model on test and held-out scenes, measured now."""
    if name == FIRST:
        found = measure_first_stage(first_stage(checkpoint or name), count_of_tests(10))
        return "\n".join(f"{key:16s} {value:8.3f}" for key, value in found.items())
    table = measure(Painter.load(checkpoint or name, device()), count_of_tests(4))
    lines = [" " * 14 + "".join(f"{column:>10s}" for column in (*stills.COLUMNS, "binding"))]
    for row, values in table.items():
        lines.append(f"{row:14s}" + "".join(f"{values[c]:10.1%}" for c in (*stills.COLUMNS, "binding")))
    return "\n".join(lines)
