"""How chapter 09's films are judged: each stage alone and after the others, on prompts that training never saw.

The referee reads 32 x 32 pixels: a smaller film is shown to it enlarged bilinearly. Beside each stage's films stand the
true ones of the same size, which no stage can be expected to beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from soralab import world
from soralab.diffusion import diffusion_loss, guide
from soralab.experiments.sora_scores import COLUMNS, judge, prompts
from soralab.imagen_video import (
    PROCESS,
    Cascade,
    Stage,
    augmented,
    dynamic_threshold,
    film_stage,
    larger_frames,
    more_frames,
    oscillating,
    stochastic,
    unfold,
)
from soralab.latent_diffusion import noise, word_ids
from soralab.recipes.imagen_video import BASE, EVERY, FOLDS, FRAMES, LOW, SIDE, WORDS, films, library, seen, smaller
from soralab.training.data import beside
from soralab.world.language import short_caption

CHUNK = 50  # films made at once
NOISE = 10_000  # film k is made from the noise of seed NOISE + k
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.45)  # of the noise on what the last stage is given
SCALES = (1.0, 2.0, 4.0, 8.0)  # of guidance


def true_films(count: int) -> tuple[Tensor, list[str]]:
    """The films of the first test prompts, [count, 9, 3, 32, 32], and these prompts."""
    texts, scenes = prompts("test", count)
    return world.to_film(films(scenes)), texts


def shares(some: Tensor, texts: Sequence[str]) -> dict[str, float]:
    """The share of films [n, frames, 3, side, side] that are read as their prompts say, for each of COLUMNS."""
    shown = some if some.shape[-1] == SIDE else larger_frames(some, (SIDE, SIDE))
    found = judge(shown.cpu(), list(texts))
    return {column: round(found[column], 4) for column in COLUMNS}


def in_chunks(make: Callable[[list[str], int, slice], Tensor], texts: Sequence[str]) -> Tensor:
    """make(prompts, seed, which of all), a chunk at a time: [prompts, frames, 3, height, width] on the CPU."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(texts), CHUNK)]
    return torch.cat([make(list(texts[part]), NOISE + part.start, part).cpu() for part in parts])


def base_films(cascade: Cascade, texts: Sequence[str], **options) -> Tensor:
    """The base's films. options: of `Cascade.small`."""
    return in_chunks(lambda said, seed, part: cascade.small(said, seed, **options), texts)


def more_films(cascade: Cascade, low: Tensor, texts: Sequence[str], **options) -> Tensor:
    """Films of small frames with more of them. options: of `Cascade.more`."""
    return in_chunks(lambda said, seed, part: cascade.more(low[part], said, seed, **options), texts)


def larger_films(cascade: Cascade, low: Tensor, texts: Sequence[str], **options) -> Tensor:
    """Films of small frames with larger ones. options: of `Cascade.larger`."""
    return in_chunks(lambda said, seed, part: cascade.larger(low[part], said, seed, **options), texts)


@torch.no_grad()
def held_loss(model: Stage, name: str, count: int = 128, level: float = 0.1) -> float:
    """Squared error of v on unseen films, at times and noise that are the same for every model of a stage."""
    scenes, rng = library(count, "test"), torch.Generator().manual_seed(5)
    task = seen(name, world.to_film(films(scenes)))
    t, x = (torch.arange(count) + 0.5) / count, task["x"]
    given = {"x": x, "t": t, "eps": torch.randn(x.shape, generator=rng),
             "ids": word_ids([short_caption(scene) for scene in scenes], WORDS)}  # fmt: skip
    if "low" in task:
        levels = torch.full((count,), level)
        given |= {"low": augmented(task["low"], levels, rng), "level": levels}
    given = beside(model, given)
    errors = []
    for part in torch.arange(count).split(32):
        condition = {key: given[key][part] for key in ("ids", "low", "level") if key in given}
        errors.append(diffusion_loss(PROCESS, model, given["x"][part], "v", t=given["t"][part], eps=given["eps"][part],
                                     condition=condition))  # fmt: skip
    return round(torch.cat(errors).mean().item(), 4)


def ceilings(count: int) -> dict[str, dict[str, float]]:
    """What the referee reads of true films: as they are, shrunk, and shrunk with every second frame shown twice."""
    true, texts = true_films(count)
    held = more_frames(true[:, ::EVERY], FRAMES)
    table = {"9x32x32": true, "9x16x16": smaller(true, SIDE // 2), "9x8x8": smaller(true), "5x8x8": smaller(held)}
    return {size: shares(some, texts) for size, some in table.items()}


def by_stage(cascade: Cascade, texts: Sequence[str], **options) -> tuple[dict[str, dict], dict[str, Tensor]]:
    """What is read right after each stage of the whole cascade, the base's frames shown until the next; and the films.
    options: of `Cascade.small`."""
    few = base_films(cascade, texts, **options)
    more = more_films(cascade, few, texts)
    made = {"base": few, "time": more, "space": larger_films(cascade, more, texts)}
    return {name: shares(more_frames(some, FRAMES), texts) for name, some in made.items()}, made


def exposure(cascade: Cascade, made: Tensor, texts: Sequence[str], levels: Sequence[float] = LEVELS) -> dict:
    """The last stage on true small films and on those that the stages before it `made`: {level: {"true", "made"}}."""
    true = smaller(true_films(len(texts))[0])
    return {f"{level:g}": {kind: shares(larger_films(cascade, low, texts, level=level), texts)
                           for kind, low in (("true", true), ("made", made))} for level in levels}  # fmt: skip


def without_words(cascade: Cascade, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """The last stage on true small films, with their prompts, with none, and with the prompts of other films."""
    low = smaller(true_films(len(texts))[0])
    said = {"prompt": list(texts), "none": [""] * len(texts), "another": [*texts[1:], texts[0]]}
    table = {}
    for kind, told in said.items():
        parts = in_chunks(lambda _, seed, part, told=told: cascade.larger(low[part], told[part], seed), texts)
        table[kind] = shares(parts, texts)
    return table


def space_steps(cascade: Cascade, texts: Sequence[str], counts: Sequence[int] = (1, 2, 4, 8, 16)) -> dict[str, dict]:
    """The last stage on true small films, by its number of steps."""
    low = smaller(true_films(len(texts))[0])
    return {str(steps): shares(larger_films(cascade, low, texts, steps=steps), texts) for steps in counts}


@torch.no_grad()
def base_by(base: Stage, texts: Sequence[str], scales: Sequence[float], threshold: Callable | None) -> Tensor:
    """The base's films with a scale of guidance for each step, and another threshold than the cascade's."""
    ids, side = word_ids(list(texts), base.config.words), FOLDS[BASE]
    z = noise(NOISE, len(texts), (len(range(0, FRAMES, EVERY)), 3 * side**2, LOW // side, LOW // side))
    ids, z = beside(base, (ids, z))
    return unfold(film_stage(base, z, ids, scales, threshold=threshold), side).cpu()


def guidance(base: Stage, texts: Sequence[str], steps: int = 32) -> dict[str, dict[str, float]]:
    """The base's films over scales of guidance, by turns high and low, and with other thresholds at the highest; with
    "far": the share of values beyond [-1, 1]."""
    high = SCALES[-1]
    rows = {f"{scale:g}": ([scale] * steps, dynamic_threshold) for scale in SCALES}
    rows |= {
        "by turns": (oscillating(steps, high, 1.0, constant=steps // 4), dynamic_threshold),
        "clipped": ([high] * steps, lambda x: x.clamp(-1, 1)),
        "no threshold": ([high] * steps, None),
    }  # fmt: skip
    table = {}
    for name, (scales, threshold) in rows.items():
        some = base_by(base, texts, scales, threshold)
        far = round((some.abs() > 1.001).float().mean().item(), 4)
        table[name] = shares(more_frames(some.clamp(-1, 1), FRAMES), texts) | {"far": far}
    return table


@torch.no_grad()
def stochastic_films(student: Stage, texts: Sequence[str], steps: int) -> Tensor:
    """A student's small films by the stochastic sampler of section 2.7."""
    side = FOLDS[BASE]

    def make(said: list[str], seed: int, part: slice) -> Tensor:
        ids = word_ids(said, student.config.words)
        z = noise(seed, len(said), (len(range(0, FRAMES, EVERY)), 3 * side**2, LOW // side, LOW // side))
        ids, z = beside(student, (ids, z))
        network = guide(student, {"ids": ids}, {"ids": ids * 0}, 1.0)
        denoise = PROCESS.denoiser(network, "v", dynamic_threshold)
        return unfold(stochastic(denoise, z, steps, torch.Generator().manual_seed(seed)), side)

    return in_chunks(make, texts)


def seconds(make: Callable[[], object], films_made: int) -> float:
    """Seconds of the processor that `make` takes a film: the faster of two calls."""
    best = float("inf")
    for _ in range(2):
        began = time.process_time()
        make()
        best = min(best, time.process_time() - began)
    return round(best / films_made, 4)


def costs(cascade: Cascade, student: Cascade, count: int = 10) -> dict[str, float]:
    """Seconds of the processor a film: of the base, of its student, and of the two stages that enlarge."""
    texts = prompts("test", count)[0]
    low = smaller(true_films(count)[0])
    calls = {
        "base": partial(cascade.small, texts), "student": partial(student.small, texts),
        "time": partial(cascade.more, low[:, ::EVERY], texts), "space": partial(cascade.larger, low, texts),
    }  # fmt: skip
    return {name: seconds(call, count) for name, call in calls.items()}
