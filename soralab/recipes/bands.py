"""The bands of reference runs, data/bands/NAME.json: where right runs went, so that a reader's run can be held to them.

A recipe that has a short run for its notebook makes its band with one line:

    def reference() -> Path:
        return write_band("unet", lambda seed: short_run(seed))

and the notebook draws it with `figures.loss_curve(log, band="unet")`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from soralab.figures.curves import BANDS, load_band
from soralab.files.atomic import atomic_write, make_folder

__all__ = ["BANDS", "load_band", "write_band"]


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
