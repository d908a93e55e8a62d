"""environment.yml (conda) and pyproject.toml (pip) must name the same packages with the same ranges."""
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

try:
    import tomllib
except ModuleNotFoundError:            # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAME = {"torch": "pytorch", "matplotlib": "matplotlib-base"}       # conda-forge's names
CONDA_ONLY = {"python", "pip"}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def conda_packages() -> dict[str, str]:
    """{package: range} of environment.yml, "" where it names no range."""
    lines = [line for line in conda()["dependencies"] if isinstance(line, str)]
    split = {}
    for line in lines:
        name = line.split(">")[0].split("=")[0].split("<")[0].strip()
        split[name] = line[len(name):].replace(" ", "")
    return split


def pip_packages(python: str) -> dict[str, str]:
    """{conda's name: range} that pip installs for `-e .[test]` with this Python."""
    project = pyproject()["project"]
    wanted = map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"])
    kept = [r for r in wanted if r.marker is None or r.marker.evaluate({"python_version": python})]
    return {CONDA_NAME.get(r.name, r.name): str(r.specifier) for r in kept}


def test_same_packages_and_ranges():
    have = conda_packages()
    python = have["python"].lstrip("=")
    assert {name: spec for name, spec in have.items() if name not in CONDA_ONLY} == pip_packages(python)


def test_conda_installs_this_package_and_a_python_it_accepts():
    have = conda_packages()
    assert have["python"].lstrip("=") in SpecifierSet(pyproject()["project"]["requires-python"])
    pip = [line for entry in conda()["dependencies"] if isinstance(entry, dict) for line in entry["pip"]]
    assert pip == ["-e ."]
    assert conda()["channels"] == ["conda-forge", "nodefaults"]          # one source, not a mixture


def test_ranges_are_floors():
    """A reader with newer versions must get in: no exact pin, no ceiling, in any extra."""
    project = pyproject()["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (Requirement(text) for one in lists for text in one):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, f"{requirement} should have a floor and nothing else"


def test_bootstrap_and_package_agree():
    """course.py reads no TOML, so the oldest Python stands twice; so does the version."""
    import course
    import soralab

    project = pyproject()["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, course.OLDEST_PYTHON))
    assert project["version"] == soralab.__version__


@pytest.mark.parametrize("python, has_tomli", [("3.10", True), ("3.11", False)])
def test_markers_are_read(python, has_tomli):
    assert ("tomli" in pip_packages(python)) is has_tomli
