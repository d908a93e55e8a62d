"""How chapter 09's cascade is trained: `soralab train imagen_base`, then `imagen_time`, `imagen_space`,
`imagen_student`.

    5 frames of 8 x 8 --imagen_time--> 9 frames of 8 x 8 --imagen_space--> 9 frames of 32 x 32

Each stage is trained alone, on films that are true; the student learns from the base. The films are the simple world's,
one thing and every motion. A film of 8 x 8 pixels holds a thing's colour, place and size, and hardly a shape: that the
last stage reads in the prompt. (Of true films that were shrunk and enlarged again the referee reads no shape right from
8 x 8 pixels, and 2 of 60 from 16 x 16, but most motions from both; and 8 x 8 cost a quarter.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab import world
from soralab.diffusion import guide
from soralab.figures import Watched
from soralab.files.checkpoints import config_of, load_model, read_card
from soralab.imagen_video import (
    Cascade,
    Stage,
    StageConfig,
    fold,
    guided_loss,
    halving_loss,
    larger_frames,
    more_frames,
    stage_loss,
)
from soralab.latent_diffusion import UNetConfig, word_ids
from soralab.recipes import RUNS, Trained
from soralab.training import loop
from soralab.training.distributed import sliced
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.profiles import by_profile, device, larger
from soralab.training.progress import progress
from soralab.world.language import VOCABULARY, short_caption

SEED, SIDE, LOW = 9, 32, 8  # LOW: pixels on a side of the base's films
FRAMES, EVERY = 9, 2  # of a film; the base has every second one
BASE, TIME, SPACE, STUDENT = "imagen_base", "imagen_time", "imagen_space", "imagen_student"
FOLDS = {BASE: 2, TIME: 2, SPACE: 4}  # pixels on a side of what a network takes as one place
WORDS = 24
FILMS = 6000  # of the training
WINDOW = 5  # frames of a film that the last stage is trained on: it is convolutional over time, and is used on nine
BATCH, PICTURES = 32, 32  # films a step, and single pictures beside them, for the base
COARSE, COARSE_BATCH = 0.5, 48  # for a share COARSE of its steps the base has films of three frames, and more of them
TIMES = (0.6, 0.97)  # of these films' noise: with less of it the frames tell where things go, with more nothing does
SPACE_BATCH = 16
NOISY = (0.5, 0.97)  # times of every second film of the last stage: in much noise a shape is made out of its word
NULL = 0.1  # share of prompts left out, for guidance
MOST = 0.6  # the largest level of the noise that a stage's input gets


def _config(name: str) -> StageConfig:
    c = 3 * FOLDS[name] ** 2
    sizes = {"context": 64, "multipliers": (1,), "attention": (), "out": c, "channels": 2 * c}
    told = {"vocabulary": len(VOCABULARY) + 1, "words": WORDS, "depth": 1}
    if name == BASE:
        unet = UNetConfig(**{**sizes, "width": 40, "groups": 8, "blocks": 1, "attention": (0,), "channels": c})
        return StageConfig(unet, **{**told, "depth": 2})
    width, blocks = (32, 1) if name == TIME else (64, 2)
    unet = UNetConfig(**sizes, width=width, groups=16, blocks=blocks)
    return StageConfig.enlarging(unet, clean=name == SPACE, **told)


CONFIGS = {name: _config(name) for name in FOLDS}
TRAINING = TrainConfig(steps=2000, lr=4e-3, warmup=100, cooldown=0.4, ema=0.995, seed=SEED, log_every=25,
                       save_every=200, precision="float32")  # fmt: skip
TRAININGS = {BASE: TRAINING, TIME: replace(TRAINING, steps=5000), SPACE: replace(TRAINING, steps=3000)}
SHORT_STEPS, SHORT_BATCH, PROBED = 300, 16, 64

# ----------------------------------------------------------------------------------------------------- what is learned


def library(count: int, split: str = "train", seed: int = SEED) -> list[world.Scene]:
    """The first `count` scenes of the simple world, with one thing each."""
    return [world.sample_scene(seed, index, "simple", split) for index in range(count)]


def films(scenes: list[world.Scene], chunk: int = 200) -> np.ndarray:
    """Their films [scenes, 9, 3, 32, 32], bytes."""
    parts = progress(range(0, len(scenes), chunk), desc="drawing films", unit="batch")
    return np.concatenate([world.render(scenes[start : start + chunk], FRAMES, SIDE, SIDE) for start in parts])


def smaller(film: Tensor, side: int = LOW) -> Tensor:
    """A film [batch, frames, c, h, w] with square frames of `side` pixels, each the mean of those that it covers."""
    return F.adaptive_avg_pool2d(film.flatten(0, 1), side).unflatten(0, film.shape[:2])


def prompt(scene: world.Scene, rng: Random, moving: bool = True, null: float = NULL) -> str:
    """What a training film is called, or a picture, which shows no motion: its caption, at times without sizes, at
    times with the background, or ""."""
    if rng.random() < null:
        return ""
    thing = scene.objects[0]
    words = short_caption(scene) if moving else f"a {thing.size} {thing.colour} {thing.shape}"
    if rng.random() < 0.3:
        words = " ".join(word for word in words.split() if word not in world.SIZES)
    return f"{words} on a {scene.background} background" if rng.random() < 0.3 else words


def seen(name: str, film: Tensor) -> dict[str, Tensor]:
    """A stage's task on true films [batch, frames, 3, 32, 32] in [-1, 1]: {"x": what it is to make, "low": the smaller
    film in x's size, where it gets one}, folded."""
    small, side = smaller(film), FOLDS[name]
    if name == SPACE:
        task = {"x": film, "low": larger_frames(small, (SIDE, SIDE))}
    elif name == TIME:
        task = {"x": small, "low": more_frames(small[:, ::EVERY], film.shape[1])}
    else:
        task = {"x": small[:, ::EVERY]}
    return {key: fold(value, side) for key, value in task.items()}


class FilmBatches:
    """Batches of a stage's task, drawn anew in each step. The base learns from single pictures too (section 2.6).

    The base's first `coarse` steps are to learn the words for motions: from its first, middle and last frame, which are
    very noisy. The last stage learns the words for shapes in much noise, where every second of its films is.
    """

    def __init__(
        self, name: str, count: int = FILMS, batch: int = BATCH, pictures: int = 0, coarse: int = 0, seed: int = SEED
    ):
        self.name, self.batch, self.pictures, self.coarse, self.seed = name, batch, pictures, coarse, seed
        self.scenes = library(count, seed=seed)
        self.films = films(self.scenes)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"x", "low" [batch, frames, c, h, w], "ids" [batch, words]}, and of pictures, each a film of
        one frame, {"pictures", "names"}. A coarse one has {"moments" [frames], "t" [batch]}, and no pictures; the last
        stage's has {"t"} too."""
        rng, coarse = Random(f"{self.seed}/{self.name}/{step}"), step < self.coarse
        count = self.batch * COARSE_BATCH // BATCH if coarse else self.batch
        which = [int(rng.random() * len(self.scenes)) for _ in range(count)]
        frames = WINDOW if self.name == SPACE else FRAMES
        first = [int(rng.random() * (FRAMES - frames + 1)) for _ in which]
        film = np.stack([self.films[k, f : f + frames] for k, f in zip(which, first, strict=True)])
        batch = seen(self.name, world.to_film(film))
        batch["ids"] = word_ids([prompt(self.scenes[k], rng) for k in which], WORDS)
        if self.name == SPACE:
            batch["t"] = torch.tensor([rng.uniform(*(NOISY if k % 2 else (0.0, 1.0))) for k in range(count)])
        if coarse:
            moments = torch.arange(0, batch["x"].shape[1], EVERY)
            times = torch.tensor([rng.uniform(*TIMES) for _ in which])
            return batch | {"x": batch["x"][:, moments], "moments": moments, "t": times}
        if self.pictures:
            which = [int(rng.random() * len(self.scenes)) for _ in range(self.pictures)]
            shown = self.films[which, [int(rng.random() * FRAMES) for _ in which]][:, None]
            batch["pictures"] = fold(smaller(world.to_film(shown)), FOLDS[self.name])
            batch["names"] = word_ids([prompt(self.scenes[k], rng, moving=False) for k in which], WORDS)
        return batch

    @staticmethod
    def cut(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
        """A batch in so many parts, its films and its pictures each by themselves; their moments are the same."""
        whole = {name: value for name, value in batch.items() if name == "moments"}
        rest = {name: value for name, value in batch.items() if name not in whole}
        return [part | whole for part in sliced(rest, parts)]


# ----------------------------------------------------------------------------------------------------------- training


def loss(model: Stage, batch: dict[str, Tensor], generator: torch.Generator, most: float = MOST) -> Tensor:
    """The training loss of a stage: films, and pictures by the share of their frames.

    most: the largest level of noise in `low`; 0 trains without augmentation.
    """
    told = {key: batch[key] for key in ("low", "moments", "t") if key in batch}
    whole = stage_loss(model, batch["x"], batch["ids"], generator, most=most, **told).mean()
    if "pictures" not in batch:
        return whole
    x = batch["pictures"]
    alone = torch.ones(len(x), dtype=torch.bool, device=x.device)
    single = stage_loss(model, x, batch["names"], generator, alone=alone).mean()
    frames = batch["x"].shape[1]
    return (frames * whole + single) / (frames + 1)


def parameters(model: nn.Module) -> list[dict]:
    """Matrices and kernels inside train with Muon; what reads pixels, words and times, or gives pixels, with AdamW."""
    groups: dict[bool, list] = {True: [], False: []}
    edge = ("embedding", "head", "unet.down.0", "unet.time", "level")
    for name, p in model.named_parameters():
        groups[p.ndim > 1 and not any(part in name for part in edge)].append(p)
    return [{"params": groups[True], "muon": True}, {"params": groups[False], "scale": 0.3}]


def fit(
    model: Stage, training: TrainConfig, batches: Callable, folder: Path, loss: Callable = loss, probes=None
) -> tuple[Stage, TrainResult]:
    """Train a stage, or go on with it: the averaged weights, and the result."""
    result = loop.train(model, loss, batches, training, folder, parameters=parameters(model), probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def fresh(name: str, seed: int = SEED) -> Stage:
    """A stage before its first step."""
    torch.manual_seed(seed)
    return Stage(CONFIGS[name])


# -------------------------------------------------------------------------------------------------------- the student

GUIDANCE = 2.0  # of the base, and of the teacher: the student has it in itself
HALVINGS = (16, 8, 4)  # steps of the student, from a teacher of 32
TAUGHT = TrainConfig(steps=300, lr=1e-3, warmup=20, cooldown=0.5, ema=0.98, seed=SEED, log_every=25, save_every=100,
                     precision="float32")  # fmt: skip


def taught(base: Stage, training: TrainConfig, batches: Callable, folder: Path) -> list[tuple[Stage, TrainResult]]:
    """Progressive distillation (section 2.7) of a base, one folder a round, each gone on with where it was stopped: the
    student of every round, and the result. training: of one round.

    First the student learns the guided teacher's answer at every time; then, round by round, half the steps.
    """
    base = base.to(device()).eval().requires_grad_(False)

    def answer(student: Stage, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        ids = batch["ids"]
        teacher = guide(base, {"ids": ids}, {"ids": ids * 0}, GUIDANCE)
        return guided_loss(student, teacher, batch["x"], ids, generator).mean()

    student = copy.deepcopy(base).cpu().requires_grad_(True)
    found = [fit(student, training, batches, folder / "guided", answer)]
    for steps in HALVINGS:
        teacher = copy.deepcopy(found[-1][0]).to(device()).requires_grad_(False)

        def half(student: Stage, batch: dict[str, Tensor], generator: torch.Generator, teacher=teacher, steps=steps):
            ids = batch["ids"]
            return halving_loss(student, partial(teacher, ids=ids), batch["x"], ids, steps, generator).mean()

        student = copy.deepcopy(found[-1][0])
        found.append(fit(student, training, batches, folder / f"{steps}_steps", half))
    return found


# ----------------------------------------------------------------------------------------------- train, and load


def train(name: str = BASE, steps: int | None = None) -> Trained:
    """Train one of the four, or go on with it, in runs/NAME. The student needs the base's checkpoint, and trains so
    many steps a round. `steps` move the base's switch from coarse films to whole ones: a run of the base that is
    lengthened is not one that was long at once."""
    full = TAUGHT if name == STUDENT else TRAININGS[name]
    training = replace(full, steps=steps or by_profile(smoke=2, laptop=full.steps, gpu=full.steps))
    count = by_profile(smoke=16, laptop=FILMS, gpu=4 * FILMS)
    size = larger(SPACE_BATCH if name == SPACE else BATCH, 4)
    entries = {"data_seed": SEED, "batch": size, "films": count}
    if name == STUDENT:
        base = load_stage(BASE)
        students, results = zip(*taught(base, training, FilmBatches(BASE, count, size), RUNS / name), strict=True)
        whole = replace(results[-1], steps=sum(r.steps for r in results), seconds=sum(r.seconds for r in results))
        entries |= {"base": BASE, "guidance": GUIDANCE, "rounds": ["guided", *HALVINGS]}
        return Trained.of(students[-1], base.config, whole, **entries)
    of_base = {"pictures": larger(PICTURES, 4), "coarse": int(COARSE * training.steps)} if name == BASE else {}
    batches = FilmBatches(name, count, size, **of_base)
    model, result = fit(fresh(name), training, batches, RUNS / name)
    return Trained.of(model, model.config, result, **entries, pictures=batches.pictures)


def students(trained: Trained) -> dict[str, Stage]:
    """The student of each round of a distillation that is done, by its name on the card."""
    round_steps = trained.card["steps"] // len(trained.card["rounds"])
    folder, names = trained.log.parents[1], [str(name) for name in trained.card["rounds"]]
    none = FilmBatches(BASE, 1, 1)
    found = taught(load_stage(BASE), replace(TAUGHT, steps=round_steps), none, folder)
    return {name: student for name, (student, _) in zip(names, found, strict=True)}


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """The first steps of a training like the base's, with half the batch; its log as columns {"step", "loss", ...}.

    They are coarse ones, and so are the probes' films: in less noise a prompt tells little that frames do not. Float32
    on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(TRAINING, steps=steps, seed=seed, warmup=30, cooldown=0.0, ema=0.99, log_every=2,
                       save_every=steps)  # fmt: skip
    batches = FilmBatches(BASE, min(2000, max(PROBED, 16 * steps)), SHORT_BATCH, coarse=steps)
    unseen = library(PROBED, "test")
    texts, shown = [short_caption(scene) for scene in unseen], world.to_film(films(unseen))
    x, moments = seen(BASE, shown)["x"], torch.arange(0, FRAMES // EVERY + 1, EVERY)
    times = torch.linspace(*TIMES, PROBED)[torch.randperm(PROBED, generator=torch.Generator().manual_seed(0))]
    each = {"x": x[:, moments], "t": times, "ids": word_ids(texts, WORDS)}
    held = [{name: value[k : k + 4] for name, value in each.items()} | {"moments": moments}
            for k in range(0, PROBED, 4)]  # fmt: skip

    def film(base: Stage) -> Tensor:
        return Cascade(base).small(texts[:1], steps=10)[0]

    probes = Watched("imagen_video", loss, held, steps, swap=("ids",), truth=smaller(shown[:1])[0, ::EVERY],
                     sample=film)  # fmt: skip
    with TemporaryDirectory() as temporary:
        return probes.log(fit(fresh(BASE, seed), training, batches, Path(folder or temporary), probes=probes)[1].log)


def load_stage(name: str) -> Stage:
    """A shipped stage, verified. Raises CheckpointError."""
    return load_model(name, lambda c: Stage(config_of(StageConfig, c)), "Stage")[0].eval()


def load(where: torch.device | str = "cpu", student: bool = False) -> Cascade:
    """The shipped cascade, or with the base's student in its place, verified. Raises CheckpointError."""
    parts = [load_stage(name).to(where) for name in (STUDENT if student else BASE, TIME, SPACE)]
    return Cascade(*parts, student=read_card(STUDENT)["rounds"][-1] if student else None)
