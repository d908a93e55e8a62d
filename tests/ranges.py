"""Do the ranges of pyproject.toml hold? Their oldest and their newest versions, installed apart, and the tests.

    python tests/ranges.py FOLDER [--only oldest] [--python python3.10] [--extras test] [-- arguments of pytest]

Makes two environments, FOLDER/oldest with every floor as an exact version and FOLDER/newest with what pip finds today,
and runs pytest in each (by default the tests without the notebooks), then tells versions and outcome. `--python` is
the Python of what is made, by default the one that runs this; with `--only` each can have another: the oldest
versions on the oldest Python, the newest on the newest. It downloads up to 4 GB each, so it is not a test itself: run
it when a range is changed, or a package used in a new way. An environment that is there is brought up to date.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10 has it inside pip alone, and nothing is installed yet
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("oldest", "newest")
EXTRAS = ["test", "parity"]  # what `python3 course.py test` installs
TELL = """
import importlib.metadata as have, platform, sys
print(f"{sys.argv[1]}: python {platform.python_version()}", *(f"{name} {have.version(name)}" for name in sys.argv[2:]
      if list(have.distributions(name=name))), sep=", ")
"""


def requirements(extras: list[str]) -> list[str]:
    """The lines of pyproject.toml for the package and these extras, such as "torch>=2.9"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]


def wanted(kind: str, extras: list[str]) -> list[str]:
    """What pip is asked for: "torch==2.9" for the oldest, "torch>=2.9" for the newest."""
    return [re.sub(">=", "==", line) if kind == "oldest" else line for line in requirements(extras)]


def names(extras: list[str]) -> list[str]:
    """The packages of these extras, without ranges."""
    return [re.split("[><=;]", line)[0].strip() for line in requirements(extras)]


def make(folder: Path, kind: str, python: str, extras: list[str]) -> Path:
    """Make an environment or bring it up to date; returns its Python. Raises CalledProcessError where pip fails."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    listed = folder / "wanted.txt"
    listed.write_text("\n".join(wanted(kind, extras)) + "\n", encoding="utf-8")
    upgrade = ["--upgrade", "--upgrade-strategy", "eager"] if kind == "newest" else []
    for what in ([*upgrade, "-r", listed], ["--no-deps", "-e", ROOT]):  # --no-deps: nothing may lift the floors again
        subprocess.run([inside, "-m", "pip", "install", *what], check=True)
    return inside


def options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What was asked for, and pytest's arguments: all after "--"."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip(), description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=KINDS, help="one of the two environments")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--extras", nargs="*", default=EXTRAS)
    return parser.parse_args(arguments[:cut]), arguments[cut + 1 :] or ["tests", "-n", "2", "-q"]


def main(arguments: list[str] | None = None) -> int:
    """Make the environments and test in them; returns 1 if pip or pytest failed in one."""
    asked, tests = options(sys.argv[1:] if arguments is None else arguments)
    outcomes = []
    for kind in [asked.only] if asked.only else KINDS:
        try:
            python = make(asked.folder.resolve() / kind, kind, asked.python, asked.extras)
        except subprocess.CalledProcessError as error:
            outcomes.append((kind, f"{kind}: could not be made", error.returncode))
            continue
        code = subprocess.run([python, "-m", "pytest", *tests], cwd=ROOT).returncode
        told = subprocess.run([python, "-c", TELL, kind, *names(asked.extras)], capture_output=True, text=True)
        outcomes.append((kind, told.stdout.strip(), code))
    for kind, told, code in outcomes:
        print(f"{told}\n{kind}: {'failed' if code else 'passed'}")
    return int(any(code for *_, code in outcomes))


if __name__ == "__main__":
    sys.exit(main())
