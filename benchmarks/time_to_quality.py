"""Time to quality: how long chapter 16's recipe trains until 90 % of unseen prompts come out right, beside a U-Net.

`python -m benchmarks time_to_quality --minutes 60` goes on for so many minutes of the processor (default 60) and stops;
the same command goes on from there. All of it takes hours: see `plan`. `--share 0.5` plans half of the recipe's steps;
what a folder was begun with stays. `--json FILE` writes what is known there as well.

Ours films in latents; what it needs before, the autoencoder's training (by its card) and the encoding of its films,
counts. (The encoding comes first and is not stopped by the minutes.) The U-Net (pixel_unet.py) has as many weights,
films in pixels, and learns the same world's films and prompts, hard ones last, by the same loss, with the optimizer and
rate of chapter 06's U-Net. Its schedule is as long as ours by the processor's clock. Each time that EVERY minutes have
passed the averaged model films prompts that no training saw, with the same sampler and guidance, and the world's
referee reads the films; that time does not count. Of a model that gets fewer than half of the first FIRST prompts right
the others are not filmed: the U-Net needs a quarter of an hour for a hundred.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from benchmarks.pixel_unet import PACKAGE, PixelUNet
from benchmarks.rows import parameters, why_missing
from benchmarks.table import value
from soralab import world
from soralab.experiments import sora_scores
from soralab.figures.curves import wilson
from soralab.files.atomic import atomic_write, kept, make_folder
from soralab.files.checkpoints import read_card
from soralab.recipes import RUNS
from soralab.recipes import sora as recipe
from soralab.recipes.latent_diffusion import TRAINING as UNET_TRAINING
from soralab.sora import Filmmaker, SoraConfig, load_autoencoder
from soralab.training import loop
from soralab.training.ema import EMA
from soralab.training.profiles import by_profile, compiled, hardware
from soralab.training.state import read_log

FOLDER = RUNS / "time_to_quality"
GOAL, EVERY, MINUTES, SHARE = 0.9, 15.0, 60.0, 1.0
FIRST = 10  # prompts that every model films
BATCH = 8  # films in a step of the U-Net: with our 64 it would take an eighth of the steps
LOG = 10  # our steps from a line of the log to the next; the U-Net's are twenty times as long
LATENTS = recipe.RECIPES["sora"]
PIXELS = recipe.Recipe("pixel_unet", SoraConfig.pixels(), "v", LATENTS.shift, replace(UNET_TRAINING, log_every=2))


@dataclass(frozen=True)
class Side:
    """One of the two trainings. before: seconds that what it needs has taken elsewhere."""

    name: str
    recipe: recipe.Recipe
    network: Callable[[], nn.Module]
    groups: Callable[[nn.Module], list | None]
    batches: Callable[[int, Path], Callable[[int], dict[str, Tensor]]]
    before: Callable[[], float]
    autoencoder: str | None = None  # the checkpoint through which it films; None: in pixels
    shapes: int = 0  # that one layer of the network is called with, where torch.compile is to make each anew

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return FOLDER / self.name

    def compiled(self, model: nn.Module) -> nn.Module:
        """Its network, compiled where this machine can."""
        if not self.shapes:
            return compiled(model)
        torch._dynamo.config.cache_size_limit = self.shapes  # past it a layer would run as it is
        return compiled(model, dynamic=False)  # of shapes that may change PyTorch 2.14 cannot order the strides


def pixel_batches(steps: int, _: Path) -> Callable[[int], dict[str, Tensor]]:
    """Films themselves, as hard as ours: in the last part of the steps half of a batch is of the hard ones."""
    late = round(recipe.LATE * steps)

    def batch(step: int) -> dict[str, Tensor]:
        rng, hard = Random(f"{recipe.SEED}/{step}"), BATCH // 2 if step >= late else 0
        scenes = list(islice(recipe.used(count(step * recipe.REST * BATCH)), BATCH - hard))
        said = [recipe.prompt(scene, rng) for scene in scenes]
        if hard:  # one scene in about 30 is
            more = list(islice(recipe.hard(count(recipe.FILMS + step * 60 * hard)), hard))
            scenes, said = scenes + more, said + [recipe.prompt(scene, rng, null=0.0) for scene in more]
        films = world.render(scenes, recipe.FRAMES, recipe.SIDE, recipe.SIDE)
        return recipe.as_batch(world.to_film(films), said)

    return batch


SIDES = (
    Side("ours", replace(LATENTS, training=replace(LATENTS.training, log_every=LOG)), partial(recipe.build, LATENTS),
         recipe.parameters, partial(recipe.curriculum, LATENTS),
         lambda: float(read_card(LATENTS.autoencoder)["seconds"]), LATENTS.autoencoder),
    Side("pixel U-Net", PIXELS, lambda: PixelUNet(PIXELS.config), lambda _: None, pixel_batches, lambda: 0.0,
         shapes=64),
)  # fmt: skip


def run(*options: str) -> Iterator[str]:
    """What is known after so many more minutes, a line for each time that prompts were filmed."""
    if trouble := why_missing((PACKAGE,)):
        yield f"time to quality: not measured, video-diffusion-pytorch is {trouble}; pip install 'soralab[benchmarks]'"
        return
    minutes, share = float(value("--minutes", options) or MINUTES), float(value("--share", options) or SHARE)
    steps = kept(FOLDER / "plan.json", partial(plan, share))
    for side in SIDES:
        go_on(side, steps[side.name], 60 * minutes / len(SIDES))
        yield from lines(side, steps[side.name])
    if path := value("--json", options):
        with atomic_write(Path(path)) as temporary:
            temporary.write_text(json.dumps(record(steps), indent=1) + "\n", encoding="utf-8")
    yield verdict()


def plan(share: float = SHARE) -> dict[str, int]:
    """How many steps each takes: ours this share of its recipe's, the U-Net as many as take as long on this machine."""
    each = [seconds_a_step(side) for side in SIDES]
    whole = round(share * LATENTS.training.steps)
    ours = max(2 * LOG, by_profile(smoke=0, laptop=whole, gpu=whole))
    theirs = max(2 * LOG, round((SIDES[0].before() + ours * each[0]) / each[1])) if each[1] else ours
    return {SIDES[0].name: ours, SIDES[1].name: by_profile(smoke=2 * LOG, laptop=theirs, gpu=theirs)}


def seconds_a_step(side: Side, times: int = 3) -> float:
    """Seconds of the processor that a forward and backward pass takes, the best of so many; one more does not count."""
    torch.manual_seed(recipe.SEED)
    model, config = side.network(), side.recipe.config
    films = BATCH if side.name != "ours" else recipe.BATCH
    batch = {"x0": torch.randn(films, config.size[0], config.channels, *config.size[1:]),
             "ids": torch.randint(1, 100, (films, 18))}  # fmt: skip
    loss, best, here = recipe.make_loss(side.recipe, side.compiled(model)), float("inf"), torch.device("cpu")
    with loop.autocast(loop.autocast_dtype(side.recipe.training.precision, here), here):
        for turn in range(times + 1):
            began = time.process_time()
            loss(model, batch, torch.Generator().manual_seed(turn)).backward()
            best = min(best, time.process_time() - began) if turn else best
    return best


class Watch:
    """What the loop asks for each line of the log: {"processor": seconds so far}, and {"right": share of the films,
    "films": how many} when EVERY minutes have passed since the last time. It stops the training at the goal and when
    `seconds` are over.
    """

    def __init__(self, side: Side, seconds: float, steps: int):
        self.side, self.left, self.steps, self.stopped = side, seconds, steps, False
        self.mark = time.process_time()

    def begin(self, model: nn.Module) -> None:
        """Nothing is to be remembered of the start."""

    def __call__(self, record: dict, model: nn.Module, average: EMA) -> dict[str, float]:
        log = read_log(self.side.folder / "log.jsonl")
        spent, now = log[-1]["processor"] if log else 0.0, time.process_time()
        self.left -= now - self.mark
        found = {"processor": round(spent + now - self.mark, 3)}
        every = by_profile(smoke=0.0, laptop=60 * EVERY, gpu=60 * EVERY)
        due = not every or found["processor"] // every > spent // every
        if due or record["step"] == self.steps:
            with average.applied(model):
                found["right"], found["films"] = right(self.side, model)
        if (found.get("right", 0.0) >= GOAL or self.left <= 0) and record["step"] < self.steps:
            self.stopped = True
            signal.raise_signal(signal.SIGINT)  # the loop ends this step, saves and raises KeyboardInterrupt
        self.mark = time.process_time()
        return found


def right(side: Side, model: nn.Module) -> tuple[float, int]:
    """The share of unseen prompts that the model films as they say, by the world's referee; and how many it filmed."""
    autoencoder = side.autoencoder and load_autoencoder(side.autoencoder)
    training = model.training
    maker = Filmmaker(model.eval(), autoencoder, side.recipe.kind, side.recipe.shift)
    for films in by_profile(smoke=(2,), laptop=(FIRST, 100), gpu=(FIRST, 400)):
        share = sora_scores.evaluate(maker, "test", films)["all"]
        if share < 0.5:
            break
    model.train(training)
    return share, films


def go_on(side: Side, steps: int, seconds: float) -> None:
    """Train for so many more seconds of the processor, or until the goal or the schedule's end."""
    if reached(side) is not None or (log := read_log(side.folder / "log.jsonl")) and log[-1]["step"] >= steps:
        return
    torch.manual_seed(recipe.SEED)
    model = side.network()
    began = time.process_time()
    batches = prepared(side, steps)
    config, left = replace(side.recipe.training, steps=steps), seconds - (time.process_time() - began)
    loss, watch = recipe.make_loss(side.recipe, side.compiled(model)), Watch(side, left, steps)
    try:
        loop.train(model, loss, batches, config, side.folder, parameters=side.groups(model), probes=watch)
    except KeyboardInterrupt:
        if not watch.stopped:
            raise


def prepared(side: Side, steps: int) -> Callable[[int], dict[str, Tensor]]:
    """The batches; the processor's seconds until they are there are added up, as often as that is interrupted."""
    path, began = side.folder / "prepared.json", time.process_time()
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    try:
        return side.batches(steps, side.folder)
    finally:
        if not (side.folder / "log.jsonl").exists():  # later they are only loaded
            make_folder(side.folder)
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(before + time.process_time() - began), encoding="utf-8")


def minutes(side: Side, record: dict) -> float:
    """Minutes of the processor until a line of the log, with all that the training needs."""
    prepared = json.loads((side.folder / "prepared.json").read_text(encoding="utf-8"))
    return (record["processor"] + side.before() + prepared) / 60


def scored(side: Side) -> list[dict]:
    """The lines of the log that have a score."""
    return [record for record in read_log(side.folder / "log.jsonl") if "right" in record]


def reached(side: Side) -> float | None:
    """Minutes until the goal; None where it is not reached yet."""
    return next((minutes(side, record) for record in scored(side) if record["right"] >= GOAL), None)


def lines(side: Side, steps: int) -> Iterator[str]:
    """A training's scores over its minutes."""
    yield f"{side.name}: {parameters(side.network()) / 1e6:.2f} M weights, a schedule of {steps:,} steps"
    for record in scored(side):
        films = record["films"]
        low, high = wilson(round(record["right"] * films), films)
        yield (f"{minutes(side, record):8.1f} minutes, step {record['step']:6,}: {record['right']:4.0%} "
               f"({low:.0%} to {high:.0%}) of {films} unseen prompts right")  # fmt: skip


def record(steps: dict[str, int]) -> dict:
    """What is known so far, with the machine: of each side {"weights", "steps": its schedule's, "step", "minutes": how
    far it is, "scores": [{"minutes", "step", "right", "films"}]}."""
    found = {}
    for side in SIDES:
        log = read_log(side.folder / "log.jsonl")
        of = [{"minutes": round(minutes(side, row), 1), **{key: row[key] for key in ("step", "right", "films")}}
              for row in scored(side)]  # fmt: skip
        far = {"step": log[-1]["step"], "minutes": round(minutes(side, log[-1]), 1)} if log else {}
        found[side.name] = {"weights": parameters(side.network()), "steps": steps[side.name], **far, "scores": of}
    return {"machine": hardware(), "goal": GOAL, "sides": found}


def verdict() -> str:
    """What the two come to."""
    words = []
    for side in SIDES:
        log, goal = read_log(side.folder / "log.jsonl"), reached(side)
        so_far = f"not after {minutes(side, log[-1]):.1f}" if log else "not begun"
        words.append(f"{side.name} {so_far if goal is None else f'{goal:.1f}'}")
    return f"minutes of the processor until {GOAL:.0%} come out right: {', '.join(words)}"
