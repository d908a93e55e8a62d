"""How right the referee is on true films: `soralab evaluate referee`. It is code; there is nothing to train."""

from __future__ import annotations

from soralab import world
from soralab.figures.curves import wilson
from soralab.training.progress import progress
from soralab.world import referee

COLUMNS = ("shape", "colour", "motion", "count", "all")
SEED, CHUNK = 5000, 100
KINDS = {  # name: (level, frames, height, width)
    "simple, 8 frames": ("simple", 8, 32, 32),
    "simple, 9 frames": ("simple", 9, 32, 32),
    "full, 8 frames": ("full", 8, 32, 32),
    "full, 9 frames": ("full", 9, 32, 32),
    "full, 16 frames of 64x96": ("full", 16, 64, 96),
    "full, 16 frames of 96x64": ("full", 16, 96, 64),
}


def measure(kind: str, count: int) -> dict[str, int]:
    """Of `count` true films of a kind, drawn from a seed of their own: how many are read right, for each of COLUMNS."""
    level, frames, height, width = KINDS[kind]
    right = dict.fromkeys(COLUMNS, 0)
    for start in progress(range(0, count, CHUNK), desc=kind, unit="batch"):
        indices = range(start, min(start + CHUNK, count))
        films, scenes = world.clips(SEED, indices, frames, height, width, level, "test")
        for film, scene in zip(films, scenes, strict=True):
            marks = referee.score(referee.read(film), scene)
            for column in COLUMNS:
                right[column] += marks[column]
    return right


def evaluate(name: str = "referee", checkpoint: str | None = None, count: int = 1000) -> str:
    """The table of the data card: percentages with 95 % Wilson intervals, for each kind of film."""
    lines = ["| kind of film | films | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind in KINDS:
        right = measure(kind, count)
        cells = []
        for column in COLUMNS:
            low, high = wilson(right[column], count)
            cells.append(f"{100 * right[column] / count:.1f} ({100 * low:.1f}–{100 * high:.1f})")
        lines.append(f"| {kind} | {count:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
