"""Chapter 12 on real photographs: the report's captioners, where nobody knows the truth but what five people wrote.

The steps are the report's. A CLIP first (chapter 04's, on the same photographs); from its tower a base captioner, which
writes as people do; and from that, twice, a captioner of its own, tuned to each photograph's shortest sentence and to
its longest. Real sets have no fuller descriptions, so "descriptive" is here what one person takes the time to write.
No painter is taught from these captions: a few thousand photographs, 32 pixels wide, teach none.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from soralab.datasets.by_kind import captioned
from soralab.datasets.multi30k import SPACE, BytePairs
from soralab.datasets.photo_words import judged, pieces_of, plainly
from soralab.datasets.still_captions import to_pixels
from soralab.experiments.clip_trainings import SHORT, Photos, photo_clip
from soralab.recaptioning import Captioner, CoCa, Recaptioner, shifted
from soralab.recipes.recaptioning import BASE_TRAINING, fit, fresh, joint_loss, loss
from soralab.training.data import beside
from soralab.training.profiles import by_profile, device
from soralab.transformer import END, PAD

STEPS, BATCH = 300, 32  # of the base; half as many steps of each tuning
VOICES = {  # which of a photograph's sentences a captioner is tuned to, by their lengths in words
    "short": lambda several: [min(several, key=lambda text: len(text.split()))],
    "descriptive": lambda several: [max(several, key=lambda text: len(text.split()))],
}


class Sentences(Photos):
    """Batches of photographs, each with one of its sentences, for a captioner; by `read` for a CLIP as well."""

    def __init__(self, pictures: Tensor, lines: list[list[str]], pieces: BytePairs, batch: int, read=None):
        super().__init__(pictures, lines, None, batch, 0)
        self.pieces, self.read = pieces, read

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"film": [batch, 1, 3, 32, 32] in [-1, 1], "target": [batch, pieces], "ids" if read}."""
        pixels, lines = self.drawn(step)
        found = {"film": pixels[:, None], "target": to_ids(lines, self.pieces)}
        return found | ({"ids": self.read(lines)} if self.read else {})


def to_ids(lines: list[str], pieces: BytePairs) -> Tensor:
    """Plain sentences as a captioner writes them: [n, longest], END behind each and PAD behind that."""
    return pad_sequence([torch.tensor([*pieces.encode(text), END]) for text in lines], batch_first=True)


def captioners(
    folder: Path, train: tuple[Tensor, list[list[str]]], pieces: BytePairs, steps: int, merges: int
) -> dict[str, Captioner]:
    """The three captioners, trained one after the other: {"base", and each of VOICES}."""
    pictures, lines = train
    clip, words = photo_clip(folder / "clip", train, min(steps, SHORT.steps), merges)
    read = partial(words, context=clip.config.context)
    torch.manual_seed(BASE_TRAINING.seed)
    start = fresh(clip=clip, vocabulary=len(pieces))
    training = replace(BASE_TRAINING, steps=steps, warmup=min(BASE_TRAINING.warmup, steps // 4))
    fit(CoCa(start, clip), joint_loss, training, Sentences(pictures, lines, pieces, BATCH, read), folder / "base")
    found = {"base": start}
    for voice, chosen in VOICES.items():
        found[voice] = Captioner(start.config)
        found[voice].load_state_dict(start.state_dict())
        batches = Sentences(pictures, [chosen(several) for several in lines], pieces, BATCH)
        fit(found[voice], loss, replace(training, steps=max(1, steps // 2)), batches, folder / voice)
    return found


@torch.no_grad()
def log_p(model: Captioner, films: Tensor, target: Tensor, chunk: int = 100) -> Tensor:
    """Eq. (2), summed over each sentence: films [n, 1, 3, 32, 32] and target [n, pieces] to [n], on the CPU."""
    found = []
    for film, ids in zip(films.split(chunk), target.split(chunk), strict=True):
        film, ids = beside(model, (film, ids))
        each = model(film, shifted(ids)).float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        found.append((each * (ids != PAD)).sum(1).cpu())
    return torch.cat(found)


def written(model: Captioner, films: Tensor, pieces: BytePairs) -> list[str]:
    """A captioner's caption of each film, in words."""
    tokens = ("", "", "", *pieces.pieces)
    return [text.replace(" ", "").replace(SPACE, " ").strip() for text in Recaptioner(model, tokens)(films)]


def held(found: list[str], people: list[list[str]]) -> dict[str, float]:
    """`judged`, and "elsewhere": the precision if each text stood beside the next photograph."""
    return {**judged(found, people), "elsewhere": judged(found, people[1:] + people[:1])["precision"]}


def captions(name: str, folder: Path, steps: int = STEPS) -> dict[str, dict[str, float]]:
    """Rows of captions of a set's test photographs, held against four people's sentences (`photo_words.judged`): by the
    fifth person, by each captioner, and by the base of photographs that it knows.

    "elsewhere": the precision of the same texts if each stood beside the next photograph. "own picture": how often a
    captioner finds the fifth person's sentence likelier of its own photograph than of the next one, by chance 1/2.
    Raises FileNotFoundError that says how to get the set.
    """
    count, merges = by_profile(smoke=(12, 20), laptop=(500, 1000), gpu=(1000, 1000))
    (pictures, lines), (unseen, people) = captioned(name, "train", 36), captioned(name, "test", 32)
    lines, people, unseen = plainly(lines), plainly(people)[:count], unseen[:count]
    pieces = pieces_of(lines)
    models = captioners(folder, (pictures, lines), pieces, steps, merges)
    fifth, others = [several[0] for several in people], [several[1:] for several in people]
    table = {"people": held(fifth, others)}
    films, target = to_pixels(unseen)[:, None], to_ids(fifth, pieces)
    for voice, model in models.items():
        model.to(device())
        own, other = (log_p(model, shown, target) for shown in (films, films.roll(-1, 0)))
        table[voice] = held(written(model, films, pieces), others)
        table[voice]["own picture"] = round((own > other).float().mean().item(), 4)
    same = slice(len(people))
    known = torch.nn.functional.interpolate(to_pixels(pictures[same]), (32, 32), mode="bilinear")[:, None]
    table["base, of pictures that it knows"] = held(written(models["base"], known, pieces),
                                                    [several[1:] for several in lines[same]])  # fmt: skip
    return {row: {**found, "pictures": len(people)} for row, found in table.items()}
