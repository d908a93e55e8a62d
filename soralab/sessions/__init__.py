"""What a reading group's leader needs: the guide to each chapter (`guide`) and slides from its notebook (`slides`).

Both are read from `notebooks/` of the clone that soralab is installed from; nothing is fetched.
"""

from __future__ import annotations

import re
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
GUIDES = "sessions"  # the folder in NOTEBOOKS where the guides lie


def numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """The chapters' files in `folder`, by number: {7: .../07_navit.md}. suffix: ".md" or ".ipynb".

    Raises FileNotFoundError, with the mend, where there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} is missing: it is part of the course's repository, so clone "
                                "that and install soralab from the clone (pip install -e .)")
    files = sorted(folder.glob(f"[0-9][0-9]_*{suffix}"))
    return {int(path.name[:2]): path for path in files if re.fullmatch(r"\d\d_\w+", path.stem)}


def chosen(files: dict[int, Path], number: int, argument: str) -> Path:
    """files[number]. Raises ValueError, naming the argument and the numbers there are, for another."""
    if number not in files:
        there = ", ".join(map(str, files)) or "none yet"
        raise ValueError(f"{argument} is {number}; it takes one of {there}")
    return files[number]
