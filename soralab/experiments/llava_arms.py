"""Chapter 13's short trainings, which differ in what the language model is shown: the last layer but one of the tower,
the last one, one vector for the whole picture, nothing. And in whether W has had a stage 1, and in how long the
language model has read.

All train the language model together with W, a new one or stage 1's. But for the one that has read little they begin
with the shipped model's reading. The arms see pictures alone, and the same ones. The blind model gets one token of
zeros for each picture, in films too. What is compared after half of the steps as well is judged twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.experiments.llava_scores import Exam, measure, probe, told_in_words, totals
from soralab.files.atomic import kept
from soralab.llava import Assistant, LLaVA, grid, projector
from soralab.recipes.llava import (
    BATCH,
    LAYER,
    READING,
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
SHORT = replace(STAGE_2, steps=350, ema=0.98)
BLIND = replace(STAGE_2, steps=300, ema=0.98)
SIGHTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {  # what is seen of pictures [n, 3, 32, 32]
    "penultimate layer": partial(grid, layer=LAYER),
    "last layer": partial(grid, layer=-1),
    "one vector": lambda net, pixels: net(pixels)[:, None],
}


@dataclass(frozen=True)
class Arm:
    """A short training on pictures."""

    sight: str = "penultimate layer"  # one of SIGHTS
    after: str = "read"  # the recipe's training that it begins after
    steps: int = SHORT.steps
    halved: bool = True  # is it judged after half of them, too?
    little: bool = False  # has the language model read for an eighth of the steps?


READ = {  # how long the language model has read, and how it then learns to see
    "little read": Arm(after="stage_1", steps=2 * SHORT.steps, halved=False, little=True),
    "well read": Arm(after="stage_1", steps=2 * SHORT.steps, halved=False),
}
ARMS = {name: Arm(name) for name in SIGHTS} | {"after stage 1": Arm(after="stage_1")} | READ


def nothing(Z: Tensor) -> Tensor:
    """What the blind model sees of pictures [n, pictures, tokens, width]: one token of zeros for each."""
    return torch.zeros_like(Z[:, :, :1])


class Blind(Talks):
    """Conversations about pictures that nobody sees."""

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`, its pictures one token of zeros each."""
        batch = super().__call__(step)
        return batch | {"Z": nothing(batch["Z"])}


def begun(folder: Path, width: int, after: str = "read", reading: int | None = None) -> LLaVA:
    """The language model after its reading, as a training in `folder` left it, with a new W for tokens of `width`; or
    after "stage_1", with that one's W. reading: its steps, if not the recipe's."""
    model, _ = taught(library(), folder, upto=after, reading=reading)
    if after == "read":
        torch.manual_seed(0)
        model.W = projector(width, model.config.text.d_model)
        nn.init.xavier_uniform_(model.W.weight)
        nn.init.zeros_(model.W.bias)
        model.config = replace(model.config, width=width)
    return model.requires_grad_(True)


def trainings(config: TrainConfig, halved: bool = True) -> list[TrainConfig]:
    """A short training, by the profile; before it, if it is `halved`, one of half of its steps."""
    whole = replace(lasting(config), save_every=100)
    return [replace(whole, steps=whole.steps // 2), whole] if halved else [whole]


def judged(
    begin: Callable[[], LLaVA], configs: Sequence[TrainConfig], batches: Callable, folder: Path,
    judge: Callable[[Assistant], dict],
) -> tuple[dict[str, dict], Assistant, TrainResult]:  # fmt: skip
    """What `judge` finds after trainings of a few steps and of more, {"150": ..., "300": ...}; the last model, its
    training.

    Each is a training to its end, where the learning rate is 0: a longer one goes on from where the shorter one's rate
    began to fall, and is what it would be alone.
    """
    def trained(config: TrainConfig) -> tuple[Assistant, TrainResult]:
        model, result = fit(begin(), config, batches, folder)
        return Assistant(model.to(device()), tower(), TOKENS), result

    def one(config: TrainConfig) -> dict:
        return kept(folder / f"{config.steps}_steps.json", lambda: judge(trained(config)[0]))

    found = {str(config.steps): one(config) for config in configs}
    return found, *trained(configs[-1])


def blind(folder: Path, own: Path, exams: list[Exam]) -> tuple[dict[str, dict], Assistant]:
    """The blind model's scores after half of its steps and after all, and the model; own: where the shipped model was
    trained."""
    begin, batches = partial(begun, own, exams[0].Z.shape[-1]), Blind(library(), batch=larger(BATCH, 4), films=2)
    judge = partial(measure, exams=exams, sight=nothing)
    return judged(begin, trainings(BLIND), batches, folder / "blind", judge)[:2]


def reader(name: str, folder: Path, own: Path) -> tuple[Path, int | None]:
    """Where an arm's language model reads, and for how many steps, if not the recipe's."""
    return (folder / "own", max(1, lasting(READING).steps // 8)) if ARMS[name].little else (own, None)


def told(name: str, folder: Path, own: Path, count: int) -> dict[str, dict]:
    """`told_in_words` of an arm's language model, before it has seen anything."""
    where, reading = reader(name, folder, own)
    model, _ = taught(library(), where, upto="read", reading=reading)
    return told_in_words(model.to(device()), count)


def arm(name: str, folder: Path, own: Path, count: int) -> dict[str, dict]:
    """One of ARMS: {group: {"right", "of"}} after the "steps" at which it is judged; its "probe", and for each kind of
    question about two things {kind: {"right", "of"}} in the end."""
    this, net, every = ARMS[name], tower(), library()["picture"]
    size = min(PICTURES, len(every.told))
    look = partial(SIGHTS[this.sight], net)
    scenes, exam = every.scenes[:size], Exam.of(net, "picture", count)
    Z, unseen = seen(look, scenes, "picture"), seen(look, exam.scenes, "picture")
    shown = {"picture": Shown(scenes, Z, every.told[:size], every.talk[:size], every.brief[:size])}
    batches = Talks(shown, batch=larger(BATCH, 4), films=0)
    where, reading = reader(name, folder, own)
    begin = partial(begun, where, Z.shape[-1], this.after, reading)
    configs = trainings(replace(SHORT, steps=this.steps), this.halved)
    found, _, result = judged(begin, configs, batches, folder, partial(measure, exams=[replace(exam, Z=unseen)]))
    return {
        "probe": probe((every.told[:size], Z.flatten(1)), (exam.told, unseen.flatten(1))),
        "seconds": round(result.seconds), "vectors": Z.shape[2],
        "steps": {steps: totals(table) for steps, table in found.items()},
        "kinds": {kind: row for group in ("two things", "relations")
                  for kind, row in found[max(found, key=int)].get(group, {}).items() if kind != "all"},
    }  # fmt: skip


def arms(folder: Path, own: Path, count: int) -> dict[str, dict]:
    """Every one of ARMS: {arm: {"steps": {"350": {group: ...}, ...}, "kinds", "probe", "vectors", "seconds"}}; vectors
    of a picture. Of those of READ "told" as well."""
    def one(name: str) -> dict:
        where = folder / name.replace(" ", "_")
        found = kept(where.with_suffix(".json"), partial(arm, name, where, own, count))
        if name in READ:
            found |= {"told": kept(where / "told.json", partial(told, name, where, own, count))}
        return found

    return {name: one(name) for name in ARMS}
