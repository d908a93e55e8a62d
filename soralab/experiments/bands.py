"""The bands of reference runs, data/bands/NAME.json: where right runs went, so that a reader's run can be held to them.

`python -m soralab.experiments.bands unet` makes a chapter's band again: eight of its recipe's short runs, which
differ in their seed alone. The notebook draws it with `figures.loss_curve(log, band="unet")`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from soralab.figures.bands import BANDS, Band
from soralab.files.atomic import atomic_write, make_folder

# The chapters with a short run.
NAMES = ("unet", "transformer", "vit", "clip", "vqvae", "latent_diffusion", "navit", "vivit", "imagen_video",
         "align_your_latents", "walt", "recaptioning", "llava", "make_a_video", "tune_a_video", "sora")
SEEDS = range(1, 9)


def write_band(
    name: str, run: Callable[[int], Mapping], seeds: Sequence[int] = SEEDS, folder: Path | None = None
) -> Path:
    """Run `run(seed)` for each seed and keep the band of the logs in data/bands/NAME.json; returns the file's path.

    run: gives a log as columns {"step", "loss", ...}, as `figures.read_log` does. folder: another one than data/bands.
    Raises ValueError for logs that lack a column, hold nothing finite, or differ in length.
    """
    band = Band.of([run(seed) for seed in seeds])
    path = make_folder(folder or BANDS) / f"{name}.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(rounded(band.to_json()), allow_nan=False) + "\n", encoding="utf-8")
    return path


def rounded(value):
    """A nest of lists and dicts with its numbers to five significant digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(name: str) -> None:
    """Make the band of a chapter again."""
    if name not in NAMES:
        raise SystemExit(f"{name!r}: it takes one of {', '.join(NAMES)}")
    run = importlib.import_module(f"soralab.recipes.{name}").short_run
    log_of = (lambda seed: run(seed)[0]) if name == "transformer" else run  # its notebook wants the model too
    print(f"wrote {write_band(name, log_of).name}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
