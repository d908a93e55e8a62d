"""What chapter 16's whole model is asked, and what the strict referee reads in its films.

Beside every score stands the referee's own on true films of the same prompts. `all` is the referee's: shape, colour,
motion and count; `everything` is that and size, speed, turn, background, camera and relation, where they are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor

from soralab import world
from soralab.sora_full import FullFilmmaker
from soralab.training.progress import progress
from soralab.world import referee
from soralab.world.language import descriptive_caption, short_caption
from soralab.world.reader import read_caption, read_setting

SEED, NOISE, CHUNK = 400, 10_000, 25
JUDGED = ("colour", "motion", "speed", "shape", "size", "count", "background", "camera", "relation")


@dataclass(frozen=True)
class Asked:
    """One kind of prompt: which scenes, how they are told, and the size of the films."""

    level: str
    split: str
    told: Callable[[world.Scene], str]
    which: Callable[[world.Scene], bool] = lambda scene: True
    size: tuple[int, int, int] = (9, 32, 32)

    def scenes(self) -> Iterator[world.Scene]:
        """The scenes of this kind, without end."""
        aspect = self.size[2] / self.size[1]
        drawn = (world.sample_scene(SEED, k, self.level, self.split, aspect) for k in count())
        return (scene for scene in drawn if self.which(scene))


def things(number: int, related: bool = False) -> Callable[[world.Scene], bool]:
    """Whether a scene has so many things, and a relation."""
    return lambda scene: len(scene.objects) == number and bool(scene.relation) >= related


ASKED = {
    "simple": Asked("simple", "test", short_caption),
    "simple, held out": Asked("simple", "held_out", short_caption),
    "full, one thing": Asked("full", "test", descriptive_caption, things(1)),
    "full, two things": Asked("full", "test", descriptive_caption, things(2)),
    "full, two things related": Asked("full", "test", descriptive_caption, things(2, True)),
    "full, three things": Asked("full", "test", descriptive_caption, things(3)),
    "17 frames": Asked("simple", "test", short_caption, size=(17, 32, 32)),
    "48 x 64": Asked("simple", "test", short_caption, size=(9, 48, 64)),
    "portrait 64 x 48, never seen": Asked("simple", "test", short_caption, size=(9, 64, 48)),
    "5 frames, never seen": Asked("simple", "test", short_caption, size=(5, 32, 32)),
    "13 frames, never seen": Asked("simple", "test", short_caption, size=(13, 32, 32)),
    "48 x 48, never seen": Asked("simple", "test", short_caption, size=(9, 48, 48)),
}


def related(report: referee.Report, text: str, film: Tensor) -> bool | None:
    """Whether a film, and the report of it, shows the relation that its prompt names; None if it names none."""
    told = read_setting(text)["relation"]
    if told is None:
        return None
    kind, a, b = told
    pairs = {said: seen for seen, said in referee._match(report.objects, read_caption(text))}
    if a not in pairs or b not in pairs:
        return False
    first, second = report.objects[pairs[a]], report.objects[pairs[b]]
    way = second.trajectory - first.trajectory
    if kind in ("left of", "above"):
        along = way[:, 0 if kind == "left of" else 1]
        seen = along[~np.isnan(along)]
        return bool(len(seen) and seen.min() > 0)
    if kind == "in front of":
        over = np.hypot(*way.T) < 0.8 * (first.radius + second.radius)
        return bool(over.any()) and first.shape is not None and _hidden(film, first, over) < _hidden(film, second, over)
    half = len(way) // 2
    moved = [[_way(x.trajectory[:half]), _way(x.trajectory[-half:])] for x in (first, second)]
    return moved[0][0] > 2 * moved[0][1] and moved[1][1] > 2 * moved[1][0]


def _hidden(film: Tensor, thing: referee.Seen, over: np.ndarray) -> float:
    """The largest share of a thing that is out of sight in frames `over` [time]; its size may change."""
    sight = referee.look(referee.to_pixels(film))
    side = min(sight.height, sight.width)
    areas = (track.area / side**2 for track in sight.tracks)
    area = min(areas, key=lambda of: abs(of.mean() - thing.area)) / thing.radius**2
    return 1 - float(np.nanmin(area[over], initial=np.inf) / np.nanmax(area))


def _way(path: np.ndarray) -> float:
    """How far it goes from the first to the last place that is seen."""
    seen = path[~np.isnan(path).any(1)]
    return float(np.hypot(*(seen[-1] - seen[0]))) if len(seen) > 1 else 0.0


def marks(film: Tensor, text: str) -> dict[str, bool]:
    """What is right in a film, by its prompt."""
    report, setting = referee.read(film), read_setting(text)
    found = referee.score_caption(report, read_caption(text))
    for key in ("background", "camera"):
        if setting[key] and key in text:
            found[key] = getattr(report, key) == setting[key]
    if (right := related(report, text, film)) is not None:
        found["relation"] = right
    found["everything"] = all(found.values())
    return found


def verdict(film: Tensor, text: str) -> str:
    """"right", or what is not: "motion, shape". Where things are too many or too few it is "count" alone, since what
    they look like cannot be told then."""
    found = marks(film, text)
    wrong = [what for what in JUDGED if not found.get(what, True)]
    return "count" if "count" in wrong else ", ".join(wrong) or "right"


def asked(kind: str, count: int) -> tuple[list[str], list[world.Scene]]:
    """The first `count` prompts of a kind, and the scenes they are of."""
    scenes = list(islice(ASKED[kind].scenes(), count))
    return [ASKED[kind].told(scene) for scene in scenes], scenes


def shares(films: Tensor, texts: list[str]) -> dict[str, list[int]]:
    """{what: [films right, films asked for it]}."""
    table: dict[str, list[int]] = {}
    for film, text in zip(films, texts, strict=True):
        for what, right in marks(film, text).items():
            row = table.setdefault(what, [0, 0])
            row[0] += bool(right)
            row[1] += 1
    return table


def percent(counts: Sequence[int] | None) -> str:
    """(right, of) as a whole percentage; a dash for what was not asked."""
    return f"{100 * counts[0] / counts[1]:.0f}" if counts else "\u2013"


def films_of(maker: FullFilmmaker, kind: str, count: int, **options) -> tuple[Tensor, list[str]]:
    """The model's films of a kind's first prompts, and the prompts."""
    texts, _ = asked(kind, count)
    starts = progress(range(0, count, CHUNK), desc=f"filming {kind}", unit="batch")
    made = [maker.film(texts[k : k + CHUNK], seed=NOISE + k, size=ASKED[kind].size, **options) for k in starts]
    return torch.cat(made), texts


def measure(maker: FullFilmmaker, kind: str, count: int, **options) -> dict[str, list[int]]:
    """`shares` of the model's films of a kind."""
    return shares(*films_of(maker, kind, count, **options))


def true_films(kind: str, count: int) -> tuple[Tensor, list[str]]:
    """The true films of a kind's first prompts, and the prompts."""
    texts, scenes = asked(kind, count)
    return world.to_film(world.render(scenes, *ASKED[kind].size)), texts
