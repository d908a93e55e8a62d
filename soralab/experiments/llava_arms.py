"""Chapter 13's short trainings, which differ in what the language model is shown: the last layer but one of the tower,
the last one, one vector for the whole picture, nothing.

All begin with the shipped model's language model after its reading, and train it together with a new W. The first three
see pictures alone, for equally many steps. The blind one gets one token of zeros for each picture, in films too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.experiments.llava_scores import Exam, measure, probe
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
    library,
    seen,
    taught,
    tower,
)
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile, device, larger

PICTURES = 5000  # of the library, that these trainings see
ARM = replace(STAGE_2, steps=350, ema=0.98)
BLIND = replace(STAGE_2, steps=300, ema=0.98)
SIGHTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {  # an arm's Z of pictures [n, 3, 32, 32]
    "penultimate layer": partial(grid, layer=LAYER),
    "last layer": partial(grid, layer=-1),
    "one vector": lambda net, pixels: net(pixels)[:, None],
}


def nothing(Z: Tensor) -> Tensor:
    """What the blind model sees of pictures [n, pictures, tokens, width]: one token of zeros for each."""
    return torch.zeros_like(Z[:, :, :1])


class Blind(Talks):
    """Conversations about pictures that nobody sees."""

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`, its pictures one token of zeros each."""
        batch = super().__call__(step)
        return batch | {"Z": nothing(batch["Z"])}


def begun(folder: Path, width: int) -> LLaVA:
    """The language model after its reading, as a training in `folder` left it, with a new W for tokens of `width`."""
    model, _ = taught(library(), folder, upto="read")
    torch.manual_seed(0)
    model.W = projector(width, model.config.text.d_model)
    nn.init.xavier_uniform_(model.W.weight)
    nn.init.zeros_(model.W.bias)
    model.config = replace(model.config, width=width)
    return model.requires_grad_(True)


def training(config: TrainConfig) -> TrainConfig:
    """A short training's config, by the profile."""
    return replace(config, steps=by_profile(smoke=2, laptop=config.steps, gpu=config.steps), save_every=100)


def blind(folder: Path, own: Path, exams: list[Exam]) -> tuple[dict, Assistant]:
    """The blind model's scores, and the model; own: where the shipped model was trained."""
    batches = Blind(library(), batch=larger(BATCH, 4))
    model, _ = fit(begun(own, exams[0].Z.shape[-1]), training(BLIND), batches, folder / "blind")
    assistant = Assistant(model.to(device()), tower(), TOKENS)
    return measure(assistant, exams, nothing), assistant


def arm(sight: Callable, folder: Path, own: Path, count: int) -> dict[str, dict]:
    """One of SIGHTS: {group: {"right", "of"}} on pictures, and its "probe"."""
    net, every = tower(), library()["picture"]
    size = min(PICTURES, len(every.told))
    look = partial(sight, net)
    scenes, exam = every.scenes[:size], Exam.of(net, "picture", count)
    Z, unseen = seen(look, scenes, "picture"), seen(look, exam.scenes, "picture")
    shown = Shown(scenes, Z, every.told[:size], every.talk[:size], every.brief[:size])
    batches = Talks({"picture": shown}, batch=larger(BATCH, 4), films=False)
    model, result = fit(begun(own, Z.shape[-1]), training(ARM), batches, folder)
    found = measure(Assistant(model.to(device()), net, TOKENS), [replace(exam, Z=unseen)])
    return {
        "probe": probe((every.told[:size], Z.flatten(1)), (exam.told, unseen.flatten(1))),
        "seconds": round(result.seconds), "tokens": Z.shape[2],
        "right": {name: row["all"] for name, row in found.items()},
    }  # fmt: skip


def arms(folder: Path, own: Path, count: int) -> dict[str, dict]:
    """Every one of SIGHTS: {arm: {"right": {group: ...}, "probe", "tokens", "seconds"}}."""
    def one(name: str) -> dict:
        where = folder / name.replace(" ", "_")
        return kept(where.with_suffix(".json"), partial(arm, SIGHTS[name], where, own, count))

    return {name: one(name) for name in SIGHTS}
