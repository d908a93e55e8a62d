"""How often the referee is right about true films: its own examination, before it may judge a model.

    print(table(validate(5000)))        # a quarter of an hour on one core; validate(200) takes half a minute
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from soralab.world import clips
from soralab.world.referee import read, score

ASPECTS = ("shape", "colour", "motion", "count", "all")
KINDS = (  # level, frames, height, width
    ("simple", 8, 32, 32), ("simple", 9, 32, 32), ("simple", 16, 32, 32), ("simple", 8, 64, 96), ("simple", 8, 96, 64),
    ("full", 8, 32, 32), ("full", 9, 32, 32), ("full", 16, 32, 32), ("full", 8, 64, 96), ("full", 8, 96, 64),
    ("full", 16, 64, 96),
)  # fmt: skip
SEED = 77  # of the films; neither training nor a test of a model uses it
CHUNK = 50


def validate(
    n: int = 5000, kinds: Sequence[tuple[str, int, int, int]] = KINDS, split: str = "test", seed: int = SEED, progress=iter
) -> list[dict]:
    """Read `n` true films of every kind. One dict a kind: level, frames, height, width, n, and how many were right.

    `progress` wraps the iteration over chunks of films (tqdm, for one).
    """
    results = []
    for level, frames, height, width in kinds:
        right = dict.fromkeys((*ASPECTS, "size", "speed", "background", "camera"), 0)
        for first in progress(range(0, n, CHUNK)):
            films, scenes = clips(seed, range(first, min(first + CHUNK, n)), frames, height, width, level, split)
            for film, scene in zip(films, scenes, strict=True):
                marks = score(read(film), scene)
                for key in right:
                    right[key] += marks[key]
        results.append({"level": level, "frames": frames, "height": height, "width": width, "n": n, **right})
    return results


def table(results: Iterable[dict]) -> str:
    """A markdown table of `validate`'s results: per cent right, with 95 % Wilson intervals."""
    lines = ["| level | frames | size | " + " | ".join(ASPECTS) + " |", "|---|---|---|" + "---|" * len(ASPECTS)]
    for row in results:
        cells = []
        for key in ASPECTS:
            low, high = wilson(row[key], row["n"])
            cells.append(f"{100 * row[key] / row['n']:.2f} ({100 * low:.2f}–{100 * high:.2f})")
        size = f"{row['height']}×{row['width']}"
        lines.append(f"| {row['level']} | {row['frames']} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: `right` of `n`."""
    if n < 1:
        raise ValueError(f"n is {n}; it takes at least 1")
    share = right / n
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
