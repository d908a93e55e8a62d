"""Machines of other kinds: the scripts that try them here, the file that lets a code host do it, and the draws that
would not be the same there."""
import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cpu_classes
import nbformat
import pytest
import ranges
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import course
from soralab.kernels.dispatch import TESTED

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ranges.tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# -------------------------------------------------------------------------- draws that differ from machine to machine

UNEVEN = {"multinomial", "bernoulli", "bernoulli_", "exponential_", "Bernoulli", "Categorical", "Exponential",
          "Multinomial", "gumbel_softmax", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "dropout",
          "alpha_dropout"}  # fmt: skip
EVALUATED = "off in evaluation, and what a training with it ends at is compared nowhere"
ALLOWED = {
    ("soralab/vqvae.py", "multinomial"): "PixelCNN.sample: its pictures are shown in chapter 05, whose compared words "
    "are those that were asked for; drawn otherwise they and the card's two shares of 120 would be others",
    ("soralab/unet.py", "Dropout"): EVALUATED,
    ("soralab/transformer.py", "Dropout"): EVALUATED,
    ("soralab/llava.py", "Dropout"): EVALUATED,
}


def uneven(source: str) -> set[str]:
    """The functions and layers in a source whose random numbers another processor or build of PyTorch may not draw."""
    lines = [line for line in source.splitlines() if not line.startswith(("%", "!"))]
    called = [node.func for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.Call)]
    return {name.attr if isinstance(name, ast.Attribute) else name.id for name in called
            if isinstance(name, ast.Attribute | ast.Name)} & UNEVEN | imported(source) & UNEVEN  # fmt: skip


def imported(source: str) -> set[str]:
    """Names that a source takes from elsewhere: `from torch import bernoulli as coin` is a call by another name."""
    return set(re.findall(r"\bimport .*?(\w+) as ", source))


def own_methods(source: str) -> set[str]:
    """What a module calls on itself is not PyTorch's: `self.dropout(x)` is a layer that was made elsewhere."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {f.attr for f in calls if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name)
            and f.value.id == "self"}  # fmt: skip


def compared_cells():
    """(notebook, cell's id, source) of each code cell whose output the tests compare."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            free = {"nbval-ignore-output", "nbval-skip"} & set(cell.metadata.get("tags", []))
            if cell.cell_type == "code" and not free:
                yield path.name, cell.id, cell.source


def test_the_library_draws_evenly():
    """`rand`, `randn`, `randint` and `randperm` draw the same everywhere; these do not, and each has a reason."""
    found = {}
    for path in sorted((ROOT / "soralab").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for name in uneven(source) - own_methods(source):
            found[path.relative_to(ROOT).as_posix(), name] = True
    assert set(found) == set(ALLOWED)


def test_compared_cells_draw_evenly():
    cells = list(compared_cells())
    assert len(cells) > 400
    assert [(page, name) for page, name, source in cells if uneven(source)] == []


@pytest.mark.parametrize("source, found", [
    ("torch.multinomial(p, 1)", {"multinomial"}), ("x.bernoulli_(0.5)", {"bernoulli_"}),
    ("y = F.dropout(x) if hot else x", {"dropout"}), ("from torch import bernoulli\nbernoulli(p)", {"bernoulli"}),
    ("from torch import bernoulli as coin\ncoin(p)", {"bernoulli"}), ("%magic\nnn.Dropout(0.1)", {"Dropout"}),
    ("torch.distributions.Categorical(p).sample()", {"Categorical"}), ("torch.rand(3) < 0.5", set()),
    ("config.dropout", set()),
])
def test_uneven_draws_are_found_in_every_spelling(source, found):
    assert uneven(source) == found


DRAWS = """
import torch
from torch import nn
for draw in (lambda: torch.rand(9), lambda: torch.randperm(9), lambda: nn.Dropout().eval()(torch.ones(9)),
             lambda: torch.bernoulli(torch.full((99,), 0.5)), lambda: torch.empty(9).exponential_(),
             lambda: torch.multinomial(torch.ones(99), 9), lambda: nn.Dropout()(torch.ones(99)),
             lambda: torch.ones(99).bernoulli(generator=torch.Generator().manual_seed(5)).sum() + torch.zeros(9)):
    torch.manual_seed(0)
    print(draw().tolist())
"""


def test_the_other_streams_are_others_where_they_should_be(tmp_path):
    """The first three are the same, the next four are not, and the last, always 1, has no chance to be."""
    plain, other = (
        subprocess.run([sys.executable, "-c", DRAWS], env=cpu_classes.environment(kind, tmp_path), text=True,
                       capture_output=True, check=True).stdout.splitlines() for kind in ("avx2", "streams")
    )  # fmt: skip
    assert [a == b for a, b in zip(plain, other, strict=True)] == [True] * 3 + [False] * 4 + [True]


@pytest.mark.parametrize("output, code, told", [
    ("..\n12 passed in 3.0s\n", 0, "12 passed in 3.0s"),
    ("F.\nFAILED notebooks/03_vit.ipynb::Cell 12\n1 failed, 11 passed in 3.0s\n", 1, "1 failed, 11 passed in 3.0s; 12"),
    ("", 4, "no such file"),
])
def test_the_account_of_a_page(monkeypatch, output, code, told):
    done = SimpleNamespace(stdout=output, stderr="no such file", returncode=code)
    monkeypatch.setattr(cpu_classes.subprocess, "run", lambda *_, **__: done)
    assert cpu_classes.compare(Path("03_vit.ipynb"), {}) == (told, code)


@pytest.mark.parametrize("code", [0, 1])
def test_classes_that_this_machine_cannot_play_are_left_out_and_differences_counted(monkeypatch, capsys, code):
    asked = []
    monkeypatch.setattr(cpu_classes, "known", lambda kind, env: kind != "avx512")
    monkeypatch.setattr(cpu_classes, "compare", lambda path, env: asked.append(path.name[:2]) or ("told", code))
    assert cpu_classes.main(["05", "--only", "default", "avx512", "streams"]) == code
    assert asked == ["05", "05"] and "avx512   this machine cannot play it" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ ranges of versions


def test_the_oldest_is_every_floor_and_the_newest_every_range():
    every = [extra for extra in PROJECT["optional-dependencies"] if extra != "triton"]
    lines = list(map(Requirement, ranges.requirements(every)))
    oldest = list(map(Requirement, ranges.wanted("oldest", every)))
    assert [need.name for need in oldest] == ranges.names(every) == [need.name for need in lines]
    for need, exact in zip(lines, oldest, strict=True):
        (floor,), (pin,) = need.specifier, exact.specifier
        assert (floor.operator, pin.operator, floor.version) == (">=", "==", pin.version)
        assert need.marker == exact.marker
    assert ranges.wanted("newest", every) == ranges.requirements(every)


class Called:
    """What the script would start, noted instead; a command that holds the word `fails` fails."""

    def __init__(self, fails=None):
        self.fails, self.commands = fails, []

    def __call__(self, command, check=False, **_):
        words = [str(word) for word in command]
        self.commands.append(words)
        if words[1:3] == ["-m", "venv"]:
            Path(words[-1]).mkdir(parents=True, exist_ok=True)
        code = int(self.fails is not None and any(self.fails in word for word in words))
        if code and check:
            raise subprocess.CalledProcessError(code, command)
        return SimpleNamespace(returncode=code, stdout="told\n")


@pytest.mark.parametrize("fails, code, said", [
    (None, 0, ["oldest: passed", "newest: passed"]),
    ("oldest/wanted.txt", 1, ["oldest: could not be made", "oldest: failed", "newest: passed"]),
    ("newest/bin/python", 1, ["oldest: passed", "newest: could not be made"]),
])
def test_both_environments_are_made_and_tried_whatever_the_first_says(tmp_path, monkeypatch, capsys, fails, code, said):
    called = Called(fails and str(tmp_path / fails))  # whole: the Python that runs this may lie in a like folder
    monkeypatch.setattr(ranges.subprocess, "run", called)
    monkeypatch.setattr(ranges.sys, "platform", "linux")
    assert ranges.main([str(tmp_path), "--", "tests/test_unet.py"]) == code
    printed = capsys.readouterr().out
    assert all(line in printed for line in said)
    tests = [words for words in called.commands if words[1:3] == ["-m", "pytest"]]
    assert all(words[-1] == "tests/test_unet.py" for words in tests) and len(tests) == (2 if fails is None else 1)
    upgraded = [words for words in called.commands if "--upgrade" in words]
    assert all("newest" in words[-1] for words in upgraded)
    assert "torch==2.9\n" in (tmp_path / "oldest" / "wanted.txt").read_text()


def test_only_one_and_by_another_python(tmp_path, monkeypatch):
    called = Called()
    monkeypatch.setattr(ranges.subprocess, "run", called)
    assert ranges.main([str(tmp_path), "--only", "newest", "--python", "python3.13", "--extras", "test"]) == 0
    assert called.commands[0][:3] == ["python3.13", "-m", "venv"] and not (tmp_path / "oldest").exists()
    assert "timm" not in (tmp_path / "newest" / "wanted.txt").read_text()


# ------------------------------------------------------------------------------------------- what a code host shall run

WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"


def workflow() -> dict:
    """The file; YAML 1.1 reads its key `on` as true."""
    read = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    read["on"] = read.pop(True)
    return read


def pythons() -> list[str]:
    """The Pythons that pyproject.toml names, from the oldest to the newest."""
    last = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    return sorted(last, key=Version)


def commands(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_pythons_agree():
    named = pythons()
    assert PROJECT["requires-python"] == f">={named[0]}" and course.OLDEST_PYTHON == Version(named[0]).release
    assert f"Python {named[0]} or newer" in README
    minors = [Version(name).minor for name in named]
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_the_host_runs_three_systems_by_the_oldest_and_the_newest_python():
    jobs = workflow()["jobs"]
    matrix = jobs["course"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == [pythons()[0], pythons()[-1]]
    rows = jobs["ranges"]["strategy"]["matrix"]["include"]
    assert [(row["versions"], row["python"]) for row in rows] == list(zip(ranges.KINDS, matrix["python"], strict=True))


def test_the_host_runs_the_readmes_commands():
    told = re.findall(r"^(python3 course\.py \w+) ", README, re.MULTILINE)
    assert told == ["python3 course.py lab", "python3 course.py test"]
    lab, test, thorough = commands(workflow()["jobs"]["course"])
    assert (lab, test) == (f"{told[0]} --version", told[1])     # JupyterLab tells its version and ends
    assert thorough == f"{told[1]} --thorough" and f"`{thorough}`" in README
    assert commands(workflow()["jobs"]["ranges"]) == ["python3 tests/ranges.py ranges --only ${{ matrix.versions }}"]


def test_the_host_is_asked_for_no_more_than_it_should_give():
    """Every job ends by itself, a newer push ends an older run, one failure hides no other, and nothing is written."""
    read = workflow()
    assert read["concurrency"]["cancel-in-progress"] is True and "github.ref" in read["concurrency"]["group"]
    assert read["permissions"] == {"contents": "read"} and {"push", "pull_request"} <= set(read["on"])
    for job in read["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 90 and job["strategy"]["fail-fast"] is False
        uses = {step["uses"].split("@")[0]: step.get("with", {}) for step in job["steps"] if "uses" in step}
        setup = uses["actions/setup-python"]
        assert "actions/checkout" in uses and setup["python-version"] == "${{ matrix.python }}"
        assert (setup["cache"], setup["cache-dependency-path"]) == ("pip", "pyproject.toml")


def test_the_readme_names_the_tritons_that_were_tested():
    oldest, newest = (".".join(map(str, bound)) for bound in TESTED)
    assert f"tested with Triton {oldest} to {newest}" in README
    (need,) = map(Requirement, PROJECT["optional-dependencies"]["triton"])
    assert str(need.specifier) == f">={oldest}"
