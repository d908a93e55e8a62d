"""Chapter 13's short trainings, which differ in what the language model is shown: the last layer but one of the tower,
the last one, one vector for the whole picture, nothing. And in whether W has had a stage 1.

All begin with the shipped model's language model after its reading, and train it together with W: a new one or, in one
arm, stage 1's. The arms see pictures alone, the same ones for equally many steps. The blind model gets one token of
zeros for each picture, in films too. Each is judged after half of its steps as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.experiments.llava_scores import Exam, measure, probe, totals
from soralab.files.atomic import kept
from soralab.llava import Assistant, LLaVA, grid, projector
from soralab.recipes.llava import (
    BATCH,
    LAYER,
    STAGE_2,
    TOKENS,
    Shown,
    Talks,
    fit,
    lasting,
    library,
    seen,
    taught,
    tower,
)
from soralab.training.loop import TrainConfig, TrainResult
from soralab.training.profiles import device, larger

PICTURES = 5000  # of the library, that these trainings see
ARM = replace(STAGE_2, steps=350, ema=0.98)
BLIND = replace(STAGE_2, steps=300, ema=0.98)
SIGHTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {  # an arm's Z of pictures [n, 3, 32, 32]
    "penultimate layer": partial(grid, layer=LAYER),
    "last layer": partial(grid, layer=-1),
    "one vector": lambda net, pixels: net(pixels)[:, None],
}
ARMS = {name: (name, "read") for name in SIGHTS} | {"after stage 1": ("penultimate layer", "stage_1")}
"""Each arm's sight, and which of the recipe's trainings it begins after."""


def nothing(Z: Tensor) -> Tensor:
    """What the blind model sees of pictures [n, pictures, tokens, width]: one token of zeros for each."""
    return torch.zeros_like(Z[:, :, :1])


class Blind(Talks):
    """Conversations about pictures that nobody sees."""

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`, its pictures one token of zeros each."""
        batch = super().__call__(step)
        return batch | {"Z": nothing(batch["Z"])}


def begun(folder: Path, width: int, after: str = "read") -> LLaVA:
    """The language model after its reading, as a training in `folder` left it, with a new W for tokens of `width`; or
    after "stage_1", with that one's W."""
    model, _ = taught(library(), folder, upto=after)
    if after == "read":
        torch.manual_seed(0)
        model.W = projector(width, model.config.text.d_model)
        nn.init.xavier_uniform_(model.W.weight)
        nn.init.zeros_(model.W.bias)
        model.config = replace(model.config, width=width)
    return model.requires_grad_(True)


def training(config: TrainConfig) -> TrainConfig:
    """A short training's config, by the profile."""
    return replace(lasting(config), save_every=100)


def halfway(
    begin: Callable[[], LLaVA], config: TrainConfig, batches: Callable, folder: Path, judge: Callable[[Assistant], dict]
) -> tuple[dict[str, dict], Assistant, TrainResult]:
    """What `judge` finds after half of a training's steps and after all, {"150": ..., "300": ...}; and the model.

    Both are trainings to their end, where the learning rate is 0: the long one goes on from where the short one's rate
    began to fall, and is what it would be alone.
    """
    def trained(steps: int) -> tuple[Assistant, TrainResult]:
        model, result = fit(begin(), replace(config, steps=steps), batches, folder)
        return Assistant(model.to(device()), tower(), TOKENS), result

    found = {str(steps): kept(folder / f"{steps}_steps.json", lambda steps=steps: judge(trained(steps)[0]))
             for steps in (config.steps // 2, config.steps)}  # fmt: skip
    return found, *trained(config.steps)


def blind(folder: Path, own: Path, exams: list[Exam]) -> tuple[dict[str, dict], Assistant]:
    """The blind model's scores after half of its steps and after all, and the model; own: where the shipped model was
    trained."""
    begin, batches = partial(begun, own, exams[0].Z.shape[-1]), Blind(library(), batch=larger(BATCH, 4))
    judge = partial(measure, exams=exams, sight=nothing)
    return halfway(begin, training(BLIND), batches, folder / "blind", judge)[:2]


def arm(name: str, folder: Path, own: Path, count: int) -> dict[str, dict]:
    """One of ARMS, on pictures: {group: {"right", "of"}} after half of its "steps" and after all; its "probe"."""
    sight, after = ARMS[name]
    net, every = tower(), library()["picture"]
    size = min(PICTURES, len(every.told))
    look = partial(SIGHTS[sight], net)
    scenes, exam = every.scenes[:size], Exam.of(net, "picture", count)
    Z, unseen = seen(look, scenes, "picture"), seen(look, exam.scenes, "picture")
    shown = Shown(scenes, Z, every.told[:size], every.talk[:size], every.brief[:size])
    batches = Talks({"picture": shown}, batch=larger(BATCH, 4), films=False)
    begin = partial(begun, own, Z.shape[-1], after)
    found, _, result = halfway(begin, training(ARM), batches, folder, partial(measure, exams=[replace(exam, Z=unseen)]))
    return {
        "probe": probe((every.told[:size], Z.flatten(1)), (exam.told, unseen.flatten(1))),
        "seconds": round(result.seconds), "vectors": Z.shape[2],
        "steps": {steps: totals(table) for steps, table in found.items()},
    }  # fmt: skip


def arms(folder: Path, own: Path, count: int) -> dict[str, dict]:
    """Every one of ARMS: {arm: {"steps": {"350": {group: ...}, ...}, "probe", "vectors" a picture, "seconds"}}."""
    def one(name: str) -> dict:
        where = folder / name.replace(" ", "_")
        return kept(where.with_suffix(".json"), partial(arm, name, where, own, count))

    return {name: one(name) for name in ARMS}
