"""The bands of reference runs, data/bands/NAME.json: where right runs went, so that a reader's run can be held to them.

`python -m soralab.experiments.bands unet` makes a chapter's band again: three of its recipe's short runs, which
differ in their seed alone. The notebook draws it with `figures.loss_curve(log, band="unet")`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from soralab.figures.curves import BANDS
from soralab.files.atomic import atomic_write, make_folder

NAMES = ("unet", "transformer", "vit", "clip", "vqvae", "latent_diffusion", "sora")  # chapters with a short run


def write_band(
    name: str, run: Callable[[int], Mapping], seeds: Sequence[int] = (1, 2, 3), folder: Path | None = None
) -> Path:
    """Run `run(seed)` for each seed and keep the losses in data/bands/NAME.json; returns the file's path.

    run: gives a log as columns {"step", "loss", ...}, as `figures.read_log` does; all else than these two is left out.
    folder: another one than data/bands. Raises ValueError for a log that lacks one of the columns, or has a loss that
    is not finite: JSON cannot hold it, and no run should be held to it.
    """
    logs = []
    for seed in seeds:
        log = run(seed)
        if not {"step", "loss"} <= set(log):
            raise ValueError(f"run: got a log with {', '.join(log) or 'nothing'}, takes one with step and loss")
        logs.append({key: [round(float(value), 5) for value in log[key]] for key in ("step", "loss")})
    path = make_folder(folder or BANDS) / f"{name}.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(logs, allow_nan=False) + "\n", encoding="utf-8")
    return path


def main(name: str) -> None:
    """Make the band of a chapter again."""
    if name not in NAMES:
        raise SystemExit(f"{name!r}: it takes one of {', '.join(NAMES)}")
    run = importlib.import_module(f"soralab.recipes.{name}").short_run
    log_of = (lambda seed: run(seed)[0]) if name == "transformer" else run  # its notebook wants the model too
    print(f"wrote {write_band(name, log_of).name}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
