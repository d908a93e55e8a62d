"""The files of data/experiments, which notebooks show: where they lie, who may write them, and how.

A main that measures one begins with `for_the_course` and ends with `write`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from soralab.figures.bands import BANDS
from soralab.files.atomic import atomic_write, make_folder
from soralab.training.profiles import profile

EXPERIMENTS = BANDS.parent / "experiments"


def for_the_course(path: Path) -> None:
    """End with one line and exit code 2 where the smoke profile would measure what the course ships at `path`.

    Its few steps would replace the course's numbers, and a later run in earnest would take the parts that it keeps in
    runs/ for its own. A file elsewhere is anybody's.
    """
    if profile() == "smoke" and path.resolve().parent == EXPERIMENTS.resolve():
        print(f"{path.name}: the smoke profile is for trying; SORALAB_PROFILE=laptop measures what data/experiments "
              "holds", file=sys.stderr)  # fmt: skip
        raise SystemExit(2)


def write(path: Path, found: Any, indent: int | None = 1, ensure_ascii: bool = True) -> None:
    """Write what was found as JSON at `path`, whole or not at all; its folder is made where it is missing."""
    make_folder(path.parent)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(found, indent=indent, ensure_ascii=ensure_ascii) + "\n", encoding="utf-8")
