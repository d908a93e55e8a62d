"""What the films of chapter 16 know of the world's physics: data/experiments/sora_physics.json.

Kang et al. 2024, "How Far is Video Generation from World Model" (2411.02385), ask whether a film model has learnt a law
or the films. So do we: things of the shapes that bounce in training, and squares, which never do there, are let fall;
other things pass behind a wall. True films of the same prompts and their copies by the autoencoder stand beside, and
the films of the whole model. `python -m soralab.experiments.sora_physics` measures them all, some twelve minutes of one
core.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soralab import world
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.sora_scores import CHUNK, FRAMES, NOISE, SEED
from soralab.figures.curves import wilson
from soralab.files.atomic import kept
from soralab.recipes import RUNS
from soralab.sora import Filmmaker
from soralab.sora_full import FullFilmmaker
from soralab.training.profiles import by_profile, hardware
from soralab.training.progress import progress
from soralab.world import physics
from soralab.world.language import short_caption
from soralab.world.scene import WALL

FILE = EXPERIMENTS / "sora_physics.json"
FOLDER = RUNS / "sora_physics"
FILMS = 200  # of each kind
SEEN, NEW, HIDDEN = "bounces", "squares bounce, never seen", WALL
EARLY = 3 / FRAMES  # films: where frame 3 is
TRUE, COPIES, OURS, WHOLE = "true films", "copies", "sora", "whole model"
FALL = tuple(field.name for field in fields(physics.Fall))
PARTS = ("came_out", "same_shape", "same_colour", "on_time", "kept")  # of physics.Permanence


def scenes(kind: str) -> Iterator[world.Scene]:
    """The unseen scenes of a kind, without end."""
    drawn = (world.sample_scene(SEED, k, "simple", "held_out" if kind == NEW else "test") for k in count())
    for scene in drawn:
        thing = scene.objects[0]
        if thing.motion == ("bounces" if kind == NEW else kind) and (kind != NEW or thing.shape == "square"):
            yield scene


def films_of(maker: Filmmaker, some: list[world.Scene], first: int = 0) -> dict[str, Tensor]:
    """The films of scenes [scenes, 9, 3, 32, 32]: true ones, their copies, and the model's own of their captions."""
    true = world.to_film(world.render(some, FRAMES, 32, 32))
    with torch.no_grad():
        copies = maker.autoencoder.decode(maker.autoencoder.encode(true)).clamp(-1, 1)
    return {TRUE: true, COPIES: copies, OURS: maker.film([short_caption(s) for s in some], seed=NOISE + first)}


def whole_films(maker: FullFilmmaker, some: list[world.Scene], first: int = 0) -> dict[str, Tensor]:
    """The whole model's films of scenes."""
    return {WHOLE: maker.film([short_caption(s) for s in some], seed=NOISE + first)}


def fallen(film: Tensor) -> dict[str, float]:
    """What the referee fits to the thing that falls in a film; nothing where nothing falls."""
    fall = physics.gravity(film)
    return {name: round(value, 4) for name, value in vars(fall).items() if math.isfinite(value)} if fall else {}


def hidden(film: Tensor) -> dict[str, int]:
    """What becomes of the thing that goes behind the wall in a film; nothing where nothing does."""
    found = physics.permanence(film)
    return {part: int(getattr(found, part)) for part in PARTS} if found else {}


def measured(maker, kind: str, films: int, films_of=films_of) -> dict[str, dict[str, list]]:
    """{whose films: {what: a number for each film, None where it was not found}} of the first scenes of a kind."""
    some, rows = list(islice(scenes(kind), films)), {}
    look, names = (hidden, PARTS) if kind == HIDDEN else (fallen, FALL)
    for first in progress(range(0, films, CHUNK), desc=f"filming: {kind}", unit="batch"):
        for whose, made in films_of(maker, some[first : first + CHUNK], first).items():
            rows.setdefault(whose, []).extend(map(look, made))
    return {whose: {name: [row.get(name) for row in found] for name in names} for whose, found in rows.items()}


# ---------------------------------------------------------------------------------------------------------- the tables


def there(column: list[float | None]) -> np.ndarray:
    """The numbers of the films in which there is one."""
    return np.array([value for value in column if value is not None])


def early(of: Mapping[str, list]) -> np.ndarray:
    """Of the films in which something falls, which of them have it on the floor before frame 3: bool [films]."""
    return np.sqrt(2 * there(of["drop"]) / there(of["gravity"])) < EARLY


def of_these(found: Mapping[str, Mapping[str, Mapping]], *whose: str) -> dict[str, dict[str, Mapping]]:
    """Of all kinds, what was found in the films of these makers."""
    return {kind: {name: films[name] for name in whose if name in films} for kind, films in found.items()}


def falls(found: Mapping[str, Mapping[str, Mapping[str, list]]]) -> str:
    """The page's first table: of the films in which something falls, the median of each number and its middle 90 %;
    how many are `early`, and their gravity; the median misfit in pixels."""
    widths = (39, 12, 16, 22, 18, 8)
    lines = [_line(widths, ("", "it falls in", "gravity", "before frame 3", "after a bounce", "misfit"))]
    for kind in (SEEN, NEW):
        for whose, of in found.get(kind, {}).items():
            gravity, soon = there(of["gravity"]), early(of)
            lines.append(_line(widths, (
                f"{kind}: {whose}", f"{len(gravity)} of {len(of['gravity'])}", _spread(gravity, 1),
                f"{soon.sum()}: {_spread(gravity[soon], 1)}", _spread(there(of["restitution"]), 2),
                f"{32 * np.median(there(of['residual'])):.2f}",
            )))  # fmt: skip
    return "\n".join(lines)


def passages(found: Mapping[str, Mapping[str, Mapping[str, list]]]) -> str:
    """The second: of the films in which something goes behind the wall, in how many each part of permanence holds, and
    the 95 % Wilson interval of those in which all do."""
    widths = (12, 13, *(len(PARTS) * [13]), 12)
    lines = [_line(widths, ("", "goes behind", *(part.replace("_", " ") for part in PARTS), ""))]
    for whose, of in found.get(HIDDEN, {}).items():
        went, held = len(there(of["kept"])), [int(there(of[part]).sum()) for part in PARTS]
        low, high = wilson(held[-1], max(1, went))
        share = f"{100 * low:.0f}\u2013{100 * high:.0f} %"
        lines.append(_line(widths, (whose, f"{went} of {len(of['kept'])}", *map(str, held), share)))
    return "\n".join(lines)


def _line(widths: Sequence[int], cells: Sequence[str]) -> str:
    """The first cell to the left, the others to the right of their columns."""
    rest = (cell.rjust(width) for width, cell in zip(widths[1:], cells[1:], strict=True))
    return (cells[0].ljust(widths[0]) + "".join(rest)).rstrip()


def _spread(numbers: np.ndarray, digits: int) -> str:
    """The median, and the middle 90 %; of nothing a dash."""
    if not len(numbers):
        return "-"
    low, middle, high = (f"{value:.{digits}f}" for value in np.percentile(numbers, (5, 50, 95)))
    return f"{middle} ({low}\u2013{high})"


def load_experiment(path: Path = FILE) -> dict:
    """What the course ships: {kind: {whose films: the columns of `measured`}}; without the file nothing."""
    return json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else {}


def main() -> None:
    """Measure what is missing and write the file."""
    for_the_course(FILE)
    torch.set_num_threads(1)
    makers = ((Filmmaker.load("sora"), films_of, ""), (FullFilmmaker.load("sora_full"), whole_films, "_whole"))
    films, found = by_profile(smoke=2, laptop=FILMS, gpu=FILMS), {}
    for kind in (SEEN, NEW, HIDDEN):
        for maker, way, ending in makers:
            path = FOLDER / f"{kind.replace(' ', '_').replace(',', '')}{ending}.json"
            found.setdefault(kind, {}).update(kept(path, partial(measured, maker, kind, films, way)))
    write(FILE, {"films": films, "hardware": hardware(), "found": found}, indent=None)
    print(falls(found), passages(found), sep="\n\n")


if __name__ == "__main__":
    main()
