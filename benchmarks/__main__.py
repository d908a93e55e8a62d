"""`python -m benchmarks` prints one table, ours beside the peers; `python -m benchmarks vit dit` a part of it.

    --json FILE        writes the rows there as well
    --seconds S        how long the turns of a row last (4); what is slow takes longer
    --no-memory        does not measure memory, which takes a third of the time
    --processor-time   counts the processor's seconds, not the clock's: for a machine that has other work (and one
                       thread: OMP_NUM_THREADS=1)

By name only, for they are no rows of the table:
    gpu                chapter 17's kernels on an NVIDIA GPU (--help of it: the top of gpu.py)
    time_to_quality    hours of training: chapter 16 against a U-Net in pixels (see the top of time_to_quality.py)
"""

from __future__ import annotations

import sys
from importlib import import_module

TABLE = (
    "unet", "transformer", "vit", "clip", "vqvae", "latent_diffusion", "navit", "vivit", "walt", "dit", "films",
    "kernels",
)  # fmt: skip
ALONE = ("gpu", "time_to_quality")


def main(words: list[str]) -> None:
    """Do what the words after `python -m benchmarks` ask."""
    if "--help" in words and not set(ALONE) & set(words):
        sys.exit(__doc__)
    cut = next((k for k, word in enumerate(words) if word.startswith("--")), len(words))
    names, options = words[:cut], words[cut:]
    for name in names:
        if name not in (*TABLE, *ALONE):
            sys.exit(f"benchmarks: {name!r} is none; there are {', '.join((*TABLE, *ALONE))}")
    tables = [name for name in names or TABLE if name in TABLE]
    if tables:
        for line in import_module("benchmarks.table").run(tables, *options):
            print(line, flush=True)
    for name in (name for name in names if name in ALONE):
        for line in import_module(f"benchmarks.{name}").run(*options):  # what it needs, no more
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
