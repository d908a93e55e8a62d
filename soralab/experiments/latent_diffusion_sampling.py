"""Chapter 06: the scale of the guidance, and samplers by their calls of the network."""

from __future__ import annotations

from collections.abc import Sequence

from soralab.datasets import stills
from soralab.experiments.latent_diffusion_scores import painted, quality, walk
from soralab.latent_diffusion import Painter
from soralab.recipes.latent_diffusion import SEED

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
CALLS = (2, 5, 10, 20, 50)  # of the network
VAGUE = ("a red circle", "a blue square", "a green triangle", "a white cross")  # size, place and background unsaid


def guidance(painter: Painter, count: int = 100, scales: Sequence[float] = SCALES) -> dict:
    """{scale: {"one": share right, "two": share right, "spread": of the places that things are put at}}.

    "spread" is that of pictures of one prompt that leaves the place open, in short sides; that of true pictures is
    under "true".
    """
    table = {"true": {"spread": round(stills.spread(stills.pictures([stills.sample(SEED, k, "test") for k in
                                                                     range(count)])), 3)}}  # fmt: skip
    for scale in scales:
        row = {}
        for name, things in (("one", 1), ("two", 2)):
            texts, _ = stills.prompts("test", things, count)
            row[name] = round(stills.scores(painted(painter, texts, steps=walk(), guidance=scale), texts)["all"], 4)
        each = [painted(painter, [text] * (count // 4), steps=walk(), guidance=scale) for text in VAGUE]
        row["spread"] = round(sum(stills.spread(shown) for shown in each) / len(each), 3)
        table[f"{scale:g}"] = row
    return table


def samplers(painter: Painter, count: int = 100, calls: Sequence[int] = CALLS) -> dict:
    """{sampler: {calls of the network: {"read_right", "distance"}}} for test prompts of one thing.

    Not to be held against the trade-off's distances, which are of larger sets: see `latent_diffusion_scores.floors`.
    Heun's method calls the network twice a step and once in the last one: the odd number of calls up to `calls`.
    """
    table = {}
    for name in ("ddpm", "ddim", "heun", "dpm_solver_pp"):
        table[name] = {}
        for n in calls:
            steps = (n + 1) // 2 if name == "heun" else n
            made = 2 * steps - 1 if name == "heun" else n
            table[name][str(made)] = quality(painter, count, sampler=name, steps=steps)
    return table
