"""Why chapter 16's whole model films worse in larger frames: whose shape is right, of what is small, medium or large.

Sizes go by the frame: where the short side has 48 pixels, a thing of any size is half again as wide as where it has 32.
`python -m soralab.experiments.sora_full_sizes` films prompts of one thing in frames of four sizes and writes
data/experiments/sora_full_sizes.json, in about a quarter of an hour of one core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from soralab.blocks.film_codec import decoded_by
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.sora_full_scores import films_of, percent
from soralab.figures.curves import wilson
from soralab.files.atomic import kept
from soralab.files.checkpoints import read_card
from soralab.recipes import RUNS
from soralab.recipes.sora_full import NAME
from soralab.sora_full import DECODER, FullFilmmaker
from soralab.training.profiles import by_profile, device
from soralab.world import SIZES, referee
from soralab.world.reader import read_caption

FILE = EXPERIMENTS / "sora_full_sizes.json"
BEFORE = EXPERIMENTS / "sora_full_sizes_21800.json"  # the same before training had more films of 48 x 64
NAMES = {"simple": "32 x 32", "48 x 64": "48 x 64", "48 x 48, never seen": "48 x 48, never seen",
         "portrait 64 x 48, never seen": "64 x 48, never seen"}  # fmt: skip
FILMS, CELL = 200, 13


def by_size(films: Tensor, texts: list[str]) -> dict[str, dict]:
    """{size that the prompt names: {"films": count, "shape": in how many it is right, "read": {size that the referee
    reads at the largest thing: count}}}."""
    found = {named: {"films": 0, "shape": 0, "read": dict.fromkeys(SIZES, 0)} for named in SIZES}
    for film, text in zip(films, texts, strict=True):
        asked, report = read_caption(text), referee.read(film)
        row = found[asked[0]["size"]]
        row["films"] += 1
        row["shape"] += bool(referee.score_caption(report, asked)["shape"])
        if report.objects:
            row["read"][report.objects[0].size] += 1
    return found


def measure(maker: FullFilmmaker, kind: str, count: int) -> dict[str, dict]:
    """`by_size` of the model's films of a kind's first prompts."""
    return by_size(*films_of(maker, kind, count))


def who() -> str:
    """A name for the models that film and show: the beginnings of their hashes."""
    card = read_card(NAME)
    return "_".join(each["sha256"][:8] for each in (card, read_card(decoded_by(DECODER, str(card["autoencoder"])))))


def load_experiment(path: Path | None = None) -> dict[str, dict[str, dict]]:
    """What the course holds: {kind of NAMES: `by_size`}; path: FILE or BEFORE."""
    return json.loads((path or FILE).read_text(encoding="utf-8"))


def table(found: Mapping[str, Mapping]) -> str:
    """A line for each size of frame: in percent of its small, medium and large things, whose shape is right, with 95 %
    Wilson intervals; and what size the referee reads at its large ones."""
    wide = max(map(len, NAMES.values())) + 1
    head = [" " * wide + "the shape is right".ljust(len(SIZES) * CELL) + "large things are read as"]
    head.append(" " * wide + "".join(size.ljust(CELL) for size in SIZES) + "  ".join(SIZES))
    lines = []
    for kind, rows in found.items():
        shapes = []
        for row in rows.values():
            right = row["shape"], row["films"]
            low, high = wilson(*right)
            shapes.append(f"{percent(right)} ({100 * low:.0f}\u2013{100 * high:.0f})".ljust(CELL))
        large = rows[SIZES[-1]]
        read = (f"{percent((large['read'][size], large['films'])):>{len(size)}s}" for size in SIZES)
        lines.append(f"{NAMES[kind]:{wide}s}" + "".join(shapes) + "  ".join(read))
    return "\n".join(head + lines)


def main() -> None:
    """Film and judge, and write what was found; what is done is kept in runs/."""
    for_the_course(FILE)
    maker, count = FullFilmmaker.load(NAME, device()), by_profile(smoke=2, laptop=FILMS, gpu=FILMS)
    folder = RUNS / "sora_full_sizes" / f"{who()}_{count}"
    found = {kind: kept(folder / f"{number}.json", partial(measure, maker, kind, count))
             for number, kind in enumerate(NAMES)}  # fmt: skip
    write(FILE, found)
    print(table(found))


if __name__ == "__main__":
    main()
