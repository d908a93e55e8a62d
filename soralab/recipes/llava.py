"""How chapter 13's LLaVA is trained: `soralab train llava`.

The paper takes a language model that has read the web, Vicuna. Ours has to learn its few words first, from text alone:
stories made of the same captions and boxes, and questions about them. Then the paper's two stages. What the tower sees
is the same in every epoch, for it is frozen, so it looks once at each picture, and its features are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from soralab import world
from soralab.datasets import stills
from soralab.datasets.instructions import (
    WORDS,
    Symbols,
    Turn,
    brief,
    conversation,
    description,
    symbols,
)
from soralab.datasets.short_films import FRAMES, film_scene
from soralab.datasets.stories import lesson, story
from soralab.figures import Watched
from soralab.llava import PAD, Assistant, LLaVA, LLaVAConfig, answer_loss, expand, grid, stage_1, stage_2, template
from soralab.recipes import RUNS, Trained
from soralab.recipes.clip import load as load_clip
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.muon import muon_groups
from soralab.training.probes import Probes
from soralab.training.profiles import by_profile, device, larger
from soralab.training.progress import progress
from soralab.world.language import words

SEED, TOWER, LAYER = 13, "clip", -2
TOKENS = ("<pad>", "<image>", "<stop>", "<human>", "<assistant>", *WORDS)
INDEX = {word: id for id, word in enumerate(TOKENS)}
PICTURES, FILMS = 16_000, 6000  # of the shipped model's training
BATCH, TURNS, ASKED = 64, 4, 8  # pictures in a batch, half as many films; questions about each; and about a story
CONFIG = LLaVAConfig.small(len(TOKENS))
READING = TrainConfig(steps=2000, lr=2e-3, warmup=100, cooldown=0.2, betas=(0.9, 0.98), ema=0.99, seed=SEED,
                      log_every=20, save_every=200)  # fmt: skip
STAGE_1 = replace(READING, steps=300, lr=2e-3, warmup=20)
STAGE_2 = replace(READING, steps=8000, cooldown=0.4, ema=0.995, save_every=300)

Pair = tuple[list[int], list[int]]  # a question and its answer, as ids


# --------------------------------------------------------------------------------------------------------------- data


def ids_of(text: str) -> list[int]:
    """The ids of a question's or an answer's words."""
    return [INDEX[word] for word in words(text)]


def pair(turn: Turn) -> Pair:
    """A turn as ids."""
    return ids_of(turn.question), ids_of(turn.answer)


def scene_of(show: str, seed: int, index: int, split: str = "train") -> world.Scene:
    """Scene number `index` for pictures, of which half have two things, or for films."""
    if show == "film":
        return film_scene(seed, index, split)
    return stills.sample(seed, index, split, 1 + index % 2)


def pictures_of(scenes: Sequence[world.Scene], show: str) -> Tensor:
    """What is shown of scenes: [n, pictures, 3, 32, 32] in [-1, 1]."""
    return world.to_film(world.render(scenes, 1 if show == "picture" else FRAMES, 32, 32))


def tower() -> nn.Module:
    """Chapter 04's picture tower, which stays as it is."""
    return load_clip(TOWER)[0].image.to(device()).requires_grad_(False)


@torch.no_grad()
def seen(sight: Callable[[Tensor], Tensor], scenes: Sequence[world.Scene], show: str, chunk: int = 250) -> Tensor:
    """Z of scenes, in half precision on the CPU: [n, pictures, tokens, width]. sight: of pictures [m, 3, 32, 32]."""
    found = []
    for k in progress(range(0, len(scenes), chunk), desc=f"the tower looks at each {show}", unit="batch"):
        shown = pictures_of(scenes[k : k + chunk], show)
        found.append(sight(shown.flatten(0, 1).to(device())).unflatten(0, shown.shape[:2]).half().cpu())
    return torch.cat(found)


@dataclass(frozen=True)
class Shown:
    """Pictures or films: what the tower sees of each, and all that the teacher says about it."""

    scenes: list[world.Scene]
    Z: Tensor  # [n, pictures, tokens, width]
    told: list[Symbols]
    talk: list[list[Pair]]  # conversation, reasoning and description
    brief: list[Pair]

    @classmethod
    def of(cls, show: str, count: int, seed: int = SEED, split: str = "train") -> Shown:
        """`count` scenes, looked at and talked about."""
        scenes = [scene_of(show, seed, k, split) for k in progress(range(count), desc=f"{show} scenes", unit="scene")]
        told, rng = [symbols(scene, show) for scene in scenes], Random(f"talk/{show}/{seed}")
        talk = [[pair(turn) for turn in dict.fromkeys(
            [*conversation(t, rng), *conversation(t, rng), description(t, rng)])] for t in told]  # fmt: skip
        Z = seen(partial(grid, tower(), layer=LAYER), scenes, show)
        return cls(scenes, Z, told, talk, [pair(brief(t, rng)) for t in told])

    def of_two(self) -> Shown:
        """Those with two things."""
        kept = [k for k, told in enumerate(self.told) if len(told.boxes) == 2]
        lists = (self.scenes, self.told, self.talk, self.brief)
        scenes, told, talk, brief = ([each[k] for k in kept] for each in lists)
        return Shown(scenes, self.Z[kept], told, talk, brief)


class Talks:
    """Batches of conversations about pictures and films, in a new order each epoch.

    films: one batch of so many is about films, of 0 none. By `brief` each is stage 1's pair instead: one instruction,
    and the caption.
    """

    def __init__(
        self, shown: dict[str, Shown], seed: int = SEED, batch: int = BATCH, brief: bool = False, films: int = 3
    ):
        self.shown, self.seed, self.batch, self.brief, self.films = shown, seed, batch, brief, films

    def which(self, step: int) -> tuple[str, list[int]]:
        """What batch `step` shows, and the numbers of its scenes."""
        before = step // self.films if self.films else 0  # batches of films until here
        film = self.films and step % self.films == self.films - 1
        show, number = ("film", before) if film else ("picture", step - before)
        count = len(self.shown[show].told)
        size = min(self.batch // (2 if show == "film" else 1), count)
        epoch, place = divmod(number, count // size)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        return show, order[place * size : (place + 1) * size].tolist()

    def row(self, show: str, k: int, rng: Random) -> list[int]:
        """A conversation about scene k, as ids; where the picture stands is drawn anew."""
        here, first = self.shown[show], rng.random() < 0.5
        turns = [here.brief[k]] if self.brief else rng.sample(here.talk[k], min(TURNS, len(here.talk[k])))
        return template(turns, here.Z.shape[1], first)

    def rows(self, step: int) -> tuple[Tensor, str, list[int]]:
        """Batch `step` as ids [batch, n], PAD at the end, with what it shows and the numbers of its scenes."""
        show, which = self.which(step)
        rng = Random(f"{self.seed}/{step}")
        rows = [torch.tensor(self.row(show, k, rng)) for k in which]
        return pad_sequence(rows, batch_first=True), show, which

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"ids": [batch, n], "Z": [batch, pictures, tokens, width]}."""
        ids, show, which = self.rows(step)
        return {"ids": ids, "Z": self.shown[show].Z[which].float()}


class Stories(Talks):
    """Batches of text alone: where a picture would stand is a story, and `ASKED` questions about it follow.

    The stories are of two things: of one there is nothing to look up.
    """

    def __init__(self, shown: dict[str, Shown], seed: int = SEED, batch: int = BATCH):
        super().__init__({show: each.of_two() for show, each in shown.items()}, seed, batch)

    def row(self, show: str, k: int, rng: Random) -> list[int]:
        """A story of scene k and what it is asked, as ids."""
        about, first = self.shown[show].told[k], rng.random() < 0.5
        asked = lesson(about, rng)
        turns = [pair(turn) for turn in rng.sample(asked, min(ASKED, len(asked)))]
        told, (question, answer) = ids_of(story(about, rng)), turns[0]
        return template([([*told, *question] if first else [*question, *told], answer), *turns[1:]], 0)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"ids": [batch, n]}."""
        return {"ids": self.rows(step)[0]}


def loss(model: LLaVA, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
    """Eq. (3) of a batch with pictures. Of text alone it is that and every word's, as language models learn to read."""
    ids, Z = batch["ids"], batch.get("Z")
    if Z is not None:
        return answer_loss(model(ids, Z), expand(ids, Z.shape[2]))
    logits = model(ids)
    return answer_loss(logits, ids) + F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(),
                                                      ignore_index=PAD)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- train


def fit(
    model: LLaVA, training: TrainConfig, batches: Callable, folder: Path, probes: Probes | None = None
) -> tuple[LLaVA, loop.TrainResult]:
    """Train what of a model may be trained, or go on with it: the averaged model and the result."""
    result = loop.train(model, loss, batches, training, folder, parameters=parameters(model), probes=probes)
    result.ema.copy_to(model)
    return model.eval(), result


def parameters(model: LLaVA) -> list[dict]:
    """The layers' matrices train with Muon, W and the embedding with AdamW; what stays as it is with neither."""
    return [group for group in muon_groups(model, "layers.") if group["params"]]


def fresh(config: LLaVAConfig = CONFIG, seed: int = SEED) -> LLaVA:
    """An untrained model of these sizes."""
    torch.manual_seed(seed)
    return LLaVA(config)


@lru_cache(maxsize=1)
def library() -> dict[str, Shown]:
    """What the shipped model is trained on, kept for what is measured with it."""
    pictures, films = by_profile(smoke=(24, 12), laptop=(PICTURES, FILMS), gpu=(4 * PICTURES, 4 * FILMS))
    return {"picture": Shown.of("picture", pictures), "film": Shown.of("film", films)}


STAGES = {  # in their order: how each is trained, what it reads, and what learns
    "read": (READING, Stories, stage_2),
    "stage_1": (STAGE_1, partial(Talks, brief=True), stage_1),
    "stage_2": (STAGE_2, partial(Talks, films=2), stage_2),
}


def lasting(training: TrainConfig, steps: int | None = None) -> TrainConfig:
    """The training with so many steps; without a number with as many as the profile gives it."""
    full = training.steps
    return replace(training, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))


def taught(
    shown: dict[str, Shown], folder: Path, steps: int | None = None, upto: str = "stage_2", reading: int | None = None
) -> tuple[LLaVA, dict[str, loop.TrainResult]]:
    """The trainings one after the other, in `folder`, up to that of a name: the model, and the result of each.

    read: the language model, on text alone, for `reading` steps; stage 1: W; stage 2: both, for `steps`. What is done
    is not done again.
    """
    lasts = {"read": reading, "stage_2": steps}
    model, results = fresh(), {}
    for stage, (training, batches_of, trains) in STAGES.items():
        trains(model)
        batches = batches_of(shown, batch=larger(BATCH, 4))
        model, results[stage] = fit(model, lasting(training, lasts.get(stage)), batches, folder / stage)
        if stage == upto:
            break
    return model, results


def train(name: str = "llava", steps: int | None = None) -> Trained:
    """Train the model, or go on with it, in runs/NAME; steps: of stage 2."""
    shown = library()
    model, results = taught(shown, RUNS / name, steps)
    stages = {stage: {"steps": result.steps, "seconds": round(result.seconds)} for stage, result in results.items()}
    trained = Trained.of(
        model, CONFIG, results["stage_2"], tokens=TOKENS, tower=TOWER, layer=LAYER, data_seed=SEED,
        pictures=len(shown["picture"].told), films=len(shown["film"].told), batch=larger(BATCH, 4), stages=stages,
    )  # fmt: skip
    trained.card["seconds"] = sum(stage["seconds"] for stage in stages.values())
    return trained


# --------------------------------------------------------------------------------------------- the notebook's short run

SHORT_STEPS, SHORT_PICTURES, PROBED = 120, 1500, 128
SHORT = replace(
    STAGE_2, steps=SHORT_STEPS, warmup=20, cooldown=0.0, ema=0.95, log_every=2, precision="float32"
)
SHORT_CONFIG = LLaVAConfig.small(len(TOKENS), N=2)


def short_run(seed: int, steps: int = SHORT_STEPS, folder: str | Path | None = None) -> dict:
    """Stage 2 from the start, on pictures alone, by a shallower model; the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    shown = {"picture": Shown.of("picture", min(SHORT_PICTURES, 16 * steps))}
    unseen = Shown.of("picture", PROBED, SEED + 1, "test")
    held = Talks({"picture": unseen}, batch=PROBED, films=0)(0)
    asked, first = [unseen.talk[k][0] for k in range(4)], unseen.Z[:4].float()

    def said(model: LLaVA) -> list[str]:
        helper = Assistant(model, tower(), TOKENS)
        return helper.answers(first, [helper.text(question) for question, _ in asked])

    probes = Watched("llava", loss, held, steps, swap=("Z",), sample=said,
                     truth=[" ".join(TOKENS[id] for id in answer) for _, answer in asked])  # fmt: skip
    training = replace(SHORT, steps=steps, seed=seed, save_every=steps)
    with TemporaryDirectory() as temporary:
        batches = Talks(shown, seed, batch=32, films=0)
        return probes.log(fit(fresh(SHORT_CONFIG, seed), training, batches, Path(folder or temporary), probes)[1].log)
