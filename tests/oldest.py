"""Do the floors of pyproject.toml hold? The oldest packages that it admits, installed apart, and the suite.

    python tests/oldest.py FOLDER [arguments of pytest]

Makes FOLDER an environment of the Python that runs this, with every floor of the package and of its tests as an exact
version, then runs pytest in it (by default the tests without the notebooks). It downloads up to 4 GB, so it is not a
test itself: run it when a floor is changed, or a package used in a new way.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def floors() -> list[str]:
    """Every floor as an exact version, such as "torch==2.6"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    return [re.sub(">=", "==", line) for line in wanted]


def main() -> int:
    """Make the environment, or bring it up to date, and test in it; returns pytest's exit code."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:] or ["tests", "-n", "2", "-q"]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    exact = folder / "floors.txt"
    exact.write_text("\n".join(floors()) + "\n", encoding="utf-8")
    for what in (["-r", exact], ["--no-deps", "-e", ROOT]):  # --no-deps: the floors are there, nothing may lift them
        subprocess.run([python, "-m", "pip", "install", *what], check=True)
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
