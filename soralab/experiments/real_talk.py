"""Chapter 13 on real photographs: the same LLaVA, taught from five people's sentences a photograph by `photo_talk`.

The tower is chapter 04's, trained on the same photographs and then frozen; the language model reads their sentences,
and questions about them, before it is shown one. Then the two stages of the paper. No public set of the registry has
instructions: the authors' 158,000 are about other photographs, and GPT-4 wrote them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.datasets.by_kind import captioned
from soralab.datasets.instructions import Turn
from soralab.datasets.multi30k import BytePairs
from soralab.datasets.photo_talk import KINDS, conversation, description
from soralab.datasets.photo_words import pieces_of, plain, plainly
from soralab.datasets.still_captions import to_pixels
from soralab.experiments.clip_trainings import SHORT, photo_clip
from soralab.llava import ASSISTANT, Assistant, LLaVA, LLaVAConfig, template
from soralab.recipes.llava import LAYER, SEED, STAGE_2, STAGES, TURNS, Shown, Talks, fit
from soralab.training.profiles import by_profile, device

STEPS, BATCH = 300, 32  # of stage 2; the other stages have their shares of the shipped model's
FIRST = ASSISTANT + 1  # the first id that is a piece of a word
STORY = 3  # sentences that the language model reads in place of a photograph


@dataclass(frozen=True)
class Speller(Assistant):
    """An Assistant that reads and writes pieces of words."""

    pieces: BytePairs | None = None

    def ids(self, text: str) -> list[int]:
        """The ids of a text's pieces."""
        return self.pieces.encode(plain(text))

    def text(self, ids: Sequence[int]) -> str:
        """The words of these ids."""
        return self.pieces.decode(ids)


class Sentences(Talks):
    """Batches of text alone: some of the sentences stand for the photograph. In `Shown`, told are they, as ids."""

    def row(self, show: str, k: int, rng: Random) -> list[int]:
        """Sentences about photograph k and a conversation, as ids."""
        told, talk = self.shown[show].told[k], self.shown[show].talk[k]
        story = [*chain(*rng.sample(told, min(STORY, len(told))))]
        (question, answer), *more = rng.sample(talk, min(TURNS, len(talk)))
        return template([([*story, *question], answer), *more], 0)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"ids": [batch, n]}."""
        return {"ids": self.rows(step)[0]}


def asked(lines: list[list[str]], seed: int) -> list[list[Turn]]:
    """The conversation about each photograph; what is asked and is not there is of another, drawn by lot."""
    rng = Random(f"photo talk/{seed}")
    return [conversation(several, lines[int(rng.random() * len(lines))], rng) for several in lines]


def shown(helper: Speller, pictures: Tensor, lines: list[list[str]]) -> Shown:
    """Photographs uint8 [n, 3, 36, 36] to learn from: what the tower sees of each, and all that is said about it."""
    rng = Random(f"descriptions/{SEED}")

    def pair(turn: Turn) -> tuple[list[int], list[int]]:
        return helper.ids(turn.question), helper.ids(turn.answer)

    talk = [[pair(turn) for turn in (*turns, *more, description(several, rng))]
            for turns, more, several in zip(asked(lines, 1), asked(lines, 2), lines, strict=True)]  # fmt: skip
    told = [[helper.ids(text) for text in several] for several in lines]
    brief = [pair(description(several, rng, brief=True)) for several in lines]
    return Shown([], helper.see(small(pictures)[:, None]).half().cpu(), told, talk, brief)


def small(pictures: Tensor) -> Tensor:
    """Photographs uint8 [n, 3, side, side] as a tower takes them: [n, 3, 32, 32] in [-1, 1]."""
    return F.interpolate(to_pixels(pictures), (32, 32), mode="bilinear")


def taught(model: LLaVA, photographs: Shown, folder: Path, steps: int) -> LLaVA:
    """A model after its reading and both stages of the paper."""
    for stage, (training, batches_of, trains) in STAGES.items():
        trains(model)
        lasts = max(1, round(steps * training.steps / STAGE_2.steps))
        training = replace(training, steps=lasts, warmup=min(training.warmup, lasts // 4), save_every=lasts)
        batches_of = Sentences if stage == "read" else batches_of
        batches = batches_of({"picture": photographs}, batch=BATCH, films=0)
        model, _ = fit(model, training, batches, folder / stage)
    return model.to(device())


def counted(answers: Sequence[str], turns: Sequence[Turn]) -> dict[str, float]:
    """The shares of answers that are the truth word by word, for each of KINDS, and how many questions there were."""
    right: Counter = Counter(turn.kind for turn, said in zip(turns, answers, strict=True) if said == turn.answer)
    of = Counter(turn.kind for turn in turns)
    return {kind: round(right[kind] / of[kind], 4) for kind in KINDS if of[kind]} | {"questions": len(turns)}


def commonest(known: Sequence[Turn], turns: Sequence[Turn]) -> list[str]:
    """To each question the answer that training gave most often to questions of its kind."""
    best = {kind: Counter(turn.answer for turn in known if turn.kind == kind).most_common(1) for kind in KINDS}
    return [best[turn.kind][0][0] if best[turn.kind] else "" for turn in turns]


def examined(helper: Speller, Z: Tensor, talk: Sequence[Sequence[Turn]]) -> dict[str, float]:
    """`counted`, of a model's answers to all questions about photographs of which the tower saw Z."""
    which, turns = zip(*((k, turn) for k, about in enumerate(talk) for turn in about), strict=True)
    return counted(helper.answers(Z[list(which)], [turn.question for turn in turns]), turns)


def talks(name: str, folder: Path, steps: int = STEPS) -> dict[str, dict[str, float]]:
    """Rows of answers to the teacher's questions about a set's test photographs, word by word: training's commonest
    answer to each kind of question, the trained model, the same one that is shown zeros, and the trained one of
    photographs that it has learnt from.

    The truth is what people wrote. Raises FileNotFoundError that says how to get the set.
    """
    count, merges = by_profile(smoke=(12, 20), laptop=(500, 1000), gpu=(1000, 1000))
    (pictures, lines), (unseen, people) = captioned(name, "train", 36), captioned(name, "test", 36)
    lines, people, unseen = plainly(lines), plainly(people)[:count], unseen[:count]
    clip, _ = photo_clip(folder / "clip", (pictures, lines), min(steps, SHORT.steps), merges)
    learnt, new = asked(lines, 1), asked(people, 0)
    pieces = pieces_of(lines, (f"{turn.question} {turn.answer}" for turn in chain(*learnt)), FIRST)
    torch.manual_seed(SEED)
    helper = Speller(LLaVA(LLaVAConfig.small(FIRST + len(pieces.pieces))), clip.image.requires_grad_(False),
                     (), LAYER, pieces)  # fmt: skip
    photographs = shown(helper, pictures, lines)
    taught(helper.model, photographs, folder, steps)
    helper.tower.to(device())
    Z, known = helper.see(small(unseen)[:, None]), photographs.Z[: len(people)]
    turns = [*chain(*new)]
    table = {
        "the commonest answer": counted(commonest([*chain(*learnt)], turns), turns),
        "sees": examined(helper, Z, new), "sees zeros": examined(helper, torch.zeros_like(Z), new),
        "sees what it learnt from": examined(helper, known, learnt[: len(known)]),
    }  # fmt: skip
    return {row: {**found, "pictures": len(known)} for row, found in table.items()}


def world_pictures(card: dict) -> dict[str, dict[str, float]]:
    """The shipped model's rows of the same kinds of questions about the world's pictures."""
    rows = {}
    for row, table in (("sees", card["test"]), ("sees zeros", card["zeroed"])):
        each = {kind: [found[kind] for group, found in table.items() if group != "films" and kind in found]
                for kind in KINDS}  # fmt: skip
        right, of = ({kind: sum(one[key] for one in found) for kind, found in each.items()} for key in ("right", "of"))
        rows[row] = {kind: round(right[kind] / of[kind], 4) for kind in KINDS} | {"questions": sum(of.values())}
    return rows
