"""Four ways to films, and how each is trained for as many minutes of one core: `soralab.experiments.four_ways`.

A way is what its chapter's recipe trains, and nothing else of it changes than the length: every part of it gets the
same share of its steps. With a seed go films, the same for every way, and the weights and the noise of a training. What
a way begins with, as a painter, is shipped, and its minutes are told apart.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from soralab import sora as transformer
from soralab import world
from soralab.align_your_latents import TemporalLayers, VideoLDM
from soralab.datasets import frames
from soralab.figures.curves import read_log
from soralab.imagen_video import Cascade, Stage
from soralab.latent_diffusion import Painter, load_autoencoder, noise
from soralab.make_a_video import FilmDecoder, Filmmaker
from soralab.recipes import align_your_latents as chapter_10
from soralab.recipes import clip as chapter_04
from soralab.recipes import imagen_video as chapter_09
from soralab.recipes import make_a_video as chapter_14
from soralab.recipes import sora as chapter_16
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.memory import peak_gb
from soralab.training.profiles import by_profile
from soralab.training.progress import progress

FILMS, FINE = 4000, 500  # of a training; and those of them that chapter 10 has at twice as many frames
TIMED = 5  # steps of which the middle one is a part's pace, after one that is not timed
DDIM = 25  # steps, where a chapter's films take so many


def count(number: int, few: int = 2) -> int:
    """So many films, or steps of a sampler, and `few` of them under the smoke profile."""
    return by_profile(smoke=few, laptop=number, gpu=number)


def quick() -> dict[str, int]:
    """Options of a maker that films with its own number of steps: none, and two steps under the smoke profile."""
    return by_profile(smoke={"steps": 2}, laptop={}, gpu={})


@dataclass(frozen=True)
class Part:
    """A training that a way consists of, as its recipe has it.

    training: with all of the recipe's steps. build(parts that are trained already, by name) -> the model, its weights
    drawn from torch's seed. batches(coarse) -> batch_fn, whose first so many batches are coarse; coarse: their share.
    lesson: whether the next part takes its weights over, and trains them further.
    """

    name: str
    training: TrainConfig
    build: Callable[[dict[str, nn.Module]], nn.Module]
    loss: Callable
    parameters: Callable[[nn.Module], list[dict]]
    batches: Callable[[int], Callable[[int], Any]]
    coarse: float = 0.0
    lesson: bool = False


@dataclass(frozen=True)
class Way:
    """Parts that are trained one after the other; `maker` of them all has `film(prompts, seed, **options)`.

    begins_with: the shipped checkpoints that it needs and that its minutes do not hold.
    """

    parts: tuple[Part, ...]
    maker: Callable[[dict[str, nn.Module]], Any]
    begins_with: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def films_of(seed: int) -> int:
    """The seed of the world's films that every way learns from with this seed of a training."""
    return 1500 + seed


def changed(batches: Any, **attributes: Any) -> Any:
    """The same batches but for some attributes; what they are drawn from is not copied."""
    other = copy.copy(batches)
    vars(other).update(attributes)
    return other


# ------------------------------------------------------------------------------------------------------- the ways


def align_your_latents(seed: int) -> Way:
    """Chapter 10: layers over time beside a painter that stays as it is. The decoder in time is the shipped one."""
    first = load_autoencoder(chapter_10.FIRST)
    painter, in_time = Painter.load(chapter_10.PAINTER).model, chapter_10.load_decoder()
    batches = chapter_10.FilmBatches(
        first, count(FILMS, 16), count(FINE, 4), count(chapter_10.BATCH), seed=films_of(seed)
    )
    phi = Part(
        chapter_10.PHI, chapter_10.TRAINING, lambda _: TemporalLayers(painter.unet, chapter_10.CONFIG),
        chapter_10.loss(painter), chapter_10.parameters, lambda coarse: changed(batches, coarse=coarse),
        chapter_10.COARSE,
    )  # fmt: skip

    def maker(done: dict[str, nn.Module]) -> Any:
        return chapter_10.animator(VideoLDM(painter, done[chapter_10.PHI]), in_time)

    shipped = (chapter_10.FIRST, chapter_10.PAINTER, chapter_10.DECODER)
    return Way((phi,), maker, shipped, {"steps": count(DDIM)})


@dataclass
class Seeing:
    """Films from words for chapter 14's decoder: it is told what a picture of them looks like, as the prior guesses
    that. Of a film's prompt a picture shows no motion, so no word for one reaches it."""

    maker: Any
    prior: nn.Module
    shape: tuple[int, ...]  # of a film's latents

    @torch.no_grad()
    def film(self, prompts: Sequence[str], seed: int, **options: Any) -> Tensor:
        """Films [prompts, frames, 3, height, width] in [-1, 1]; film k starts from the noise of seed + k."""
        seen = chapter_14.looks([frames.still(text) for text in prompts], self.prior, seed)
        start, rate = noise(seed, len(prompts), self.shape), chapter_14.FINE // chapter_14.EVERY
        return self.maker.decode(self.maker.latents(seen, start, rate, **options)).clamp(-1, 1)


def make_a_video(seed: int) -> Way:
    """Chapter 14: the painter, told a look in place of words, and then films. Its prior is the shipped one; its
    enlarger makes films larger than those of the other ways, and is left out."""
    first, clip = load_autoencoder(chapter_14.FIRST), chapter_04.load()[0]
    library = chapter_14.Library.of(chapter_10.library(count(FILMS, 16), seed=films_of(seed)), first, clip)
    pictures = chapter_14.PictureBatches(library, count(chapter_14.PICTURE_BATCH))
    windows, before = chapter_14.FilmBatches(library, count(chapter_14.BATCH)), f"{chapter_14.FILM}_frames"
    parts = (
        Part(before, chapter_14.PICTURES, lambda _: chapter_14.decoder(seed), chapter_14.picture_loss,
             chapter_14.parameters, lambda _: pictures, lesson=True),
        Part(chapter_14.FILM, chapter_14.TRAINING, lambda done: FilmDecoder(done[before]), chapter_14.loss,
             partial(chapter_14.parameters, old=chapter_14.OLD), lambda short: changed(windows, short=short),
             chapter_14.SHORT),
    )  # fmt: skip
    shape = (frames.FRAMES, *library.z.shape[2:])

    def maker(done: dict[str, nn.Module]) -> Any:
        film = Filmmaker(done[chapter_14.FILM], chapter_10.picture_decoder(first))
        return Seeing(film, chapter_14.load_prior(), shape)

    shipped = (chapter_14.FIRST, chapter_14.PAINTER, "clip", chapter_14.PRIOR)
    return Way(parts, maker, shipped, {"steps": count(DDIM)})


def imagen_video(seed: int) -> Way:
    """Chapter 09: a cascade of three, from nothing. Its student is another training, and is left out."""
    base, moments, space = chapter_09.BASE, chapter_09.TIME, chapter_09.SPACE
    size = count(chapter_09.BATCH)
    whole = chapter_09.FilmBatches(base, count(FILMS, 16), size, count(chapter_09.PICTURES), seed=films_of(seed))
    own = {
        base: whole, moments: changed(whole, name=moments, pictures=0),
        space: changed(whole, name=space, pictures=0, batch=count(chapter_09.SPACE_BATCH)),
    }  # fmt: skip
    parts = tuple(
        Part(name, chapter_09.TRAININGS[name], lambda _, name=name: Stage(chapter_09.CONFIGS[name]), chapter_09.loss,
             chapter_09.parameters, lambda coarse, name=name: changed(own[name], coarse=coarse),
             chapter_09.COARSE if name == base else 0.0)
        for name in own
    )  # fmt: skip
    return Way(parts, lambda done: Cascade(*(done[name] for name in own)), (), quick())


class Latents:
    """Batches for chapter 16's transformer, drawn evenly from films that are encoded once: no film is a hard one."""

    def __init__(self, autoencoder: nn.Module, scenes: Sequence[world.Scene], batch: int, seed: int, chunk: int = 100):
        self.scenes, self.batch, self.seed, parts = scenes, batch, seed, []
        for start in progress(range(0, len(scenes), chunk), desc="encoding films", unit="batch"):
            film = world.render(scenes[start : start + chunk], chapter_16.FRAMES, chapter_16.SIDE, chapter_16.SIDE)
            with torch.no_grad():
                parts.append(autoencoder.encode(world.to_film(film)).half())
        self.z = torch.cat(parts)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`, as `soralab.recipes.sora.as_batch` gives it."""
        rng = Random(f"{self.seed}/{step}")
        which = [int(rng.random() * len(self.scenes)) for _ in range(self.batch)]
        said = [chapter_16.prompt(self.scenes[k], rng) for k in which]
        return chapter_16.as_batch(self.z[which].float(), said)


def sora(seed: int) -> Way:
    """Chapter 16: a transformer from nothing, in the latents of the shipped spacetime autoencoder."""
    recipe = chapter_16.RECIPES["sora"]
    autoencoder = transformer.load_autoencoder(recipe.autoencoder)
    scenes = chapter_10.library(count(FILMS, 16), seed=films_of(seed))
    batches = Latents(autoencoder, scenes, count(chapter_16.BATCH), films_of(seed))
    whole = Part("sora", recipe.training, lambda _: transformer.Sora(recipe.config), chapter_16.make_loss(recipe),
                 chapter_16.parameters, lambda _: batches)  # fmt: skip

    def maker(done: dict[str, nn.Module]) -> Any:
        return transformer.Filmmaker(done["sora"], autoencoder, recipe.kind, recipe.shift)

    return Way((whole,), maker, (recipe.autoencoder,), quick())


WAYS: dict[str, Callable[[int], Way]] = {
    "align_your_latents": align_your_latents, "make_a_video": make_a_video, "imagen_video": imagen_video, "sora": sora,
}  # fmt: skip

# ------------------------------------------------------------------------------------------------- equal minutes


class Stopwatch:
    """Beside a training: each line of its log says how many seconds of the processor it took since the line before,
    "core", and the most memory that the process has held so far, "gb"."""

    def begin(self, model: nn.Module) -> None:
        """Start it."""
        self.last = time.process_time()

    def __call__(self, record: dict, model: nn.Module, average: Any) -> dict[str, float]:
        """What to add to a line of the log."""
        before, self.last = self.last, time.process_time()
        return {"core": self.last - before, "gb": peak_gb()}


def shortened(training: TrainConfig, steps: int, seed: int) -> TrainConfig:
    """A recipe's training with fewer steps: its warm-up takes a tenth of them at most, and its average remembers so
    many. Float32 on any machine."""
    tenth = max(1, steps // 10)
    return replace(
        training, steps=steps, seed=seed, warmup=min(training.warmup, tenth), ema=min(training.ema, 1 - 1 / tenth),
        precision="float32", log_every=10, save_every=100,
    )  # fmt: skip


def step_seconds(part: Part, model: nn.Module, coarse: bool) -> float:
    """Seconds of the processor that a step of a part takes: the drawing of a batch and the step on it, of TIMED of each
    the middle one."""
    timed, batches, done = count(TIMED, 1), [], []
    draw, drawn = part.batches(1 + timed if coarse else 0), []
    for step in range(1 + timed):
        batches.append(draw(step))
        drawn.append(time.process_time())
    training = replace(shortened(part.training, 1 + timed, 0), log_every=1)
    with TemporaryDirectory() as folder:
        loop.train(model, part.loss, batches.__getitem__, training, folder, parameters=part.parameters(model),
                   on_log=lambda _: done.append(time.process_time()))  # fmt: skip
    return sum(median(later - sooner for sooner, later in zip(ends, ends[1:], strict=False)) for ends in (drawn, done))


def planned(parts: Sequence[Part], minutes: float) -> dict[str, dict[str, float]]:
    """{part: {"steps", "pace": seconds of the processor a step}}, for so many minutes of one core in all.

    Every part gets the same share of its recipe's steps, coarse ones and others alike.
    """
    done: dict[str, nn.Module] = {}
    plan: dict[str, dict[str, float]] = {}
    for part in parts:
        done[part.name] = part.build(done)
        pace = (1 - part.coarse) * step_seconds(part, done[part.name], coarse=False)
        if part.coarse:
            pace += part.coarse * step_seconds(part, done[part.name], coarse=True)
        plan[part.name] = {"steps": part.training.steps, "pace": pace}
    share = 60 * minutes / sum(row["steps"] * row["pace"] for row in plan.values())
    return {name: {"steps": max(1, round(share * row["steps"])), "pace": round(row["pace"], 5)}
            for name, row in plan.items()}  # fmt: skip


def fitted(
    part: Part, done: dict[str, nn.Module], steps: int, seed: int, folder: Path
) -> tuple[nn.Module, dict[str, float]]:
    """Train a part for so many steps, or go on with it, in `folder`: its averaged weights, and what they cost.

    {"steps", "core": seconds of the processor, "clock": seconds that it took, "gb": the most memory that the process
    held until then, "trained": weights, none for a lesson}
    """
    torch.manual_seed(seed)
    model = part.build(done)
    groups = part.parameters(model)
    trained = 0 if part.lesson else sum(p.numel() for group in groups for p in group["params"])
    training = shortened(part.training, steps, seed)
    batches = part.batches(int(part.coarse * steps))
    result = loop.train(model, part.loss, batches, training, folder, parameters=groups, probes=Stopwatch())
    result.ema.copy_to(model)
    log = read_log(result.log)
    cost = {"steps": steps, "core": round(float(log["core"].sum()), 1), "clock": round(result.seconds, 1),
            "gb": round(float(log["gb"].max()), 3), "trained": trained}  # fmt: skip
    return model.eval(), cost


def trained(way: Way, plan: dict[str, dict], seed: int, folder: Path) -> tuple[dict[str, nn.Module], dict[str, dict]]:
    """All parts of a way, one after the other, each in a folder of its own: the models and what they cost, by name."""
    done: dict[str, nn.Module] = {}
    costs: dict[str, dict] = {}
    for part in way.parts:
        done[part.name], costs[part.name] = fitted(part, done, plan[part.name]["steps"], seed, folder / part.name)
    return done, costs

