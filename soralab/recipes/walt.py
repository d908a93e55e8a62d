"""How chapter 11's transformer is trained: `soralab train walt`, and the short runs that its ablations compare.

Its world is a small one, so that a run of minutes learns something: three shapes in four colours, medium or large,
that stand still or slide one way at one speed. Their films are of 21 frames, and a training film is nine of these: what
comes after it is known, and a film that is made longer can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import world
from soralab.figures.watched import Watched
from soralab.files.checkpoints import config_of, load_model
from soralab.latent_diffusion import word_ids
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.muon import muon_groups
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress
from soralab.walt import CausalAutoencoder, Filmmaker, Walt, WaltConfig, load_autoencoder, walt_loss
from soralab.world.language import short_caption
from soralab.world.scene import RADIUS, Object, Scene

SEED, FRAMES, LONG = 11, 9, 21
SHAPES, COLOURS, SIZES = ("circle", "square", "triangle"), ("red", "yellow", "green", "blue"), ("medium", "large")
WAYS = {
    "stays still": (0, 0), "slides right": (1, 0), "slides left": (-1, 0), "slides up": (0, -1), "slides down": (0, 1),
}  # fmt: skip
SPEED = 0.5  # short sides in 21 frames
LONGEST = 8  # words of a prompt; the model would read padding up to 48
SHORT_STEPS, SHORT_BATCH, SHORT_SCENES, PROBED = 80, 32, 400, 64  # of a short run; films that it is probed with
NULL = 0.1  # share of prompts left out, for guidance
SMALL = WaltConfig(patch=2, dim=96, depth=4, heads=3, size=(3, 8, 8), windows=((1, 4, 4), (3, 2, 2)))  # 32 x 32 pixels
LARGE = replace(SMALL, size=(3, 12, 12), windows=((1, 6, 6), (3, 3, 3)))  # 48 x 48
TRAINING = TrainConfig(steps=3600, lr=4e-3, warmup=50, cooldown=0.3, ema=0.998, seed=SEED, save_every=1000,
                       precision="float32")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A training: the model's sizes, how it is trained, and on how many scenes."""

    config: WaltConfig = LARGE
    training: TrainConfig = TRAINING
    self_conditioning: float = 0.9  # p_sc
    pictures: bool = True  # beside films
    scenes: int = 4000
    batch: int = 16  # films, and as many pictures
    build: Callable[[WaltConfig], Walt] = partial(Walt, backend="torch")

    @property
    def side(self) -> int:
        """Of its films, in pixels."""
        return 4 * self.config.size[1]


def scene(index: int, split: str = "train") -> Scene:
    """A scene of the chapter's small world, a pure function of its arguments."""
    rng = Random(f"{SEED}/{split}/{index}")
    shape, colour, size, way = (rng.choice(of) for of in (SHAPES, COLOURS, SIZES, tuple(WAYS)))
    edge = 0.5 - RADIUS[size]
    starts = [rng.uniform(-edge + max(0, -d) * SPEED, edge - max(0, d) * SPEED) for d in WAYS[way]]
    velocity = tuple(d * SPEED for d in WAYS[way])
    speed = "fast" if way != "stays still" else ""
    thing = Object(shape, colour, size, way, speed=speed, x=starts[0], y=starts[1], velocity=velocity)
    return Scene((thing,), rng.choice(("black", "grey")))


def films(scenes: list[Scene], side: int) -> Tensor:
    """Their films of 21 frames: [scenes, 21, 3, side, side] in [-1, 1]."""
    return world.to_film(world.render(scenes, LONG, side, side))


def caption(of: Scene, moving: bool = True) -> str:
    """What a film is called, or a picture, in which no motion can be seen: "a large red circle"."""
    thing = of.objects[0]
    return short_caption(of) if moving else f"a {thing.size} {thing.colour} {thing.shape}"


class Latents:
    """Batches of latents: two cuts of nine frames from each scene's film, encoded once."""

    def __init__(self, autoencoder: CausalAutoencoder, run: Run):
        """Encode the films of run.scenes scenes at run.side."""
        self.run, cuts = run, []
        scenes = [scene(index) for index in range(run.scenes)]
        for start in progress(range(0, len(scenes), 50), desc="encoding films", unit="batch"):
            part = scenes[start : start + 50]
            first = [Random(f"{SEED}/cut/{start + k}").choice((0, 4)) for k in range(len(part))]
            whole = films(part, run.side)
            for after in (0, 8):
                cut = torch.stack([film[f + after : f + after + FRAMES] for film, f in zip(whole, first, strict=True)])
                with torch.no_grad():
                    cuts.append(autoencoder.encode(beside(autoencoder, cut)).half())
        order = [index for start in range(0, len(scenes), 50) for _ in range(2)
                 for index in range(start, min(start + 50, len(scenes)))]  # fmt: skip
        self.latents = torch.cat(cuts)
        self.ids, self.names = (
            word_ids([caption(scenes[index], moving) for index in order], run.config.words)[:, :LONGEST]
            for moving in (True, False)
        )

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"x0": [batch, 3, 16, h, w], "ids": [batch, words]}, and pictures of other films likewise."""
        rng = torch.Generator().manual_seed(loop.step_seed(SEED, step))
        films, pictures = torch.randint(len(self.latents), (2, self.run.batch), generator=rng)
        null = (torch.rand(2, self.run.batch, 1, generator=rng) >= NULL).long()
        batch = {"x0": self.latents[films].float(), "ids": self.ids[films] * null[0]}
        if self.run.pictures:
            batch |= {"pictures": self.latents[pictures, :1].float(), "names": self.names[pictures] * null[1]}
        return batch


def loss(run: Run):
    """The training loss of a batch: films, and pictures by the share of their tokens."""

    def of(model: Walt, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        whole = walt_loss(model, batch["x0"], batch["ids"], generator, run.self_conditioning).mean()
        if not run.pictures:
            return whole
        alone = walt_loss(model, batch["pictures"], batch["names"], generator, run.self_conditioning).mean()
        frames = batch["x0"].shape[1]
        return (frames * whole + alone) / (frames + 1)

    return of


def parameters(model: nn.Module) -> list[dict]:
    """The blocks' matrices train with Muon; embeddings, modulations, biases and norms with AdamW, more slowly."""
    return muon_groups(model, inside="blocks", outside=("modulation",), scale=0.2)


def fit(run: Run, batches, folder: Path, probes=None) -> tuple[Walt, TrainResult]:
    """Train by a run, or go on with it in `folder`; the model has the averaged weights."""
    torch.manual_seed(run.training.seed)
    model = run.build(run.config)
    result = loop.train(model, loss(run), batches, run.training, folder, parameters=parameters(model), probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """A short training on films of 9 x 32 x 32; returns the log as columns {"step", "loss", ...}.

    A constant learning rate after the warm-up.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=20, cooldown=0.0, ema=0.99, log_every=2, save_every=steps
    )
    run = Run(SMALL, training, batch=SHORT_BATCH, scenes=min(SHORT_SCENES, max(PROBED, 8 * steps)))
    autoencoder = load_autoencoder().to(device())
    scenes = [scene(index, "test") for index in range(PROBED)]
    true = films(scenes, run.side)[:, :FRAMES]
    with torch.no_grad():
        x0 = autoencoder.encode(beside(autoencoder, true))
    held = {"x0": x0, "pictures": x0[:, :1]}
    for key, moving in (("ids", True), ("names", False)):
        held[key] = word_ids([caption(of, moving) for of in scenes], run.config.words)[:, :LONGEST]
    shown = [0, FRAMES // 2, FRAMES - 1]
    probes = Watched("walt", loss(run), held, steps, swap=("ids", "names"), truth=true[0, shown], sample=lambda model:
                     Filmmaker(model, autoencoder).film([caption(scenes[0])], steps=10)[0, shown])  # fmt: skip
    with TemporaryDirectory() as temporary:
        return probes.log(fit(run, Latents(autoencoder, run), Path(folder or temporary), probes)[1].log)


def load(name: str = "walt", where: torch.device | str = "cpu") -> Filmmaker:
    """The shipped transformer with the autoencoder that its card names, verified. Raises CheckpointError."""
    model, card = load_model(name, lambda c: Walt(config_of(WaltConfig, c)), "Walt", ("autoencoder",))
    return Filmmaker(model.to(where), load_autoencoder(card["autoencoder"]).to(where))


def train(name: str = "walt", steps: int | None = None) -> Trained:
    """Train the transformer in windows, or go on with it, in runs/NAME."""
    full = TRAINING.steps
    config = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    run = Run(training=config, scenes=by_profile(smoke=20, laptop=4000, gpu=8000))
    model, result = fit(run, Latents(load_autoencoder().to(device()), run), RUNS / name)
    return Trained.of(model, run.config, result, autoencoder="walt_autoencoder", data_seed=SEED, batch=run.batch,
                      scenes=run.scenes)  # fmt: skip
