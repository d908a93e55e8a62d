"""The house stays as CONTRIBUTING.md draws it: imports go down only, and no path of one machine is in it."""
import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "soralab"

# The syllabus in order: a paper may import those before it.
PAPERS = [
    "unet", "transformer", "vit", "clip", "vqvae", "latent_diffusion", "navit", "vivit", "imagen_video",
    "align_your_latents", "walt", "recaptioning", "llava", "make_a_video", "tune_a_video", "dit", "sora", "sora_full",
]
SECOND = "dit"  # chapter 16 is about two papers; the other one is its name
# The floors from the ground up. A room imports from lower floors only, and not from its neighbours.
FLOORS = [
    {"files"},
    {"blocks", "diffusion", "world"},
    {"training", "datasets", "kernels"},
    {"figures"},
    {"workbook"},
    set(PAPERS),
    {"recipes"},
    {"experiments", "exercises", "sessions"},
    {"command"},
    {"__main__"},
]
WITHOUT_EXERCISES = {"00"}
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
TEXT = {".py", ".md", ".toml", ".yml", ".cfg", ".json", ".ipynb", ".sh", ""}
MACHINE_PATH = re.compile(
    r"(?<![\w.$}])/(?:work|tmp|root|home|Users|farm|mnt|opt|media)/[\w.-]+|\b[A-Z]:\\{1,2}(?:Users|work)\b"
)


def room_of(path: Path) -> str:
    """The room a file of the package lies in: "sora" for sora.py, "world" for world/render.py. What `python -m` runs
    stands above the command, in whatever folder it is."""
    parts = path.relative_to(PACKAGE).parts
    return "__main__" if parts[-1] == "__main__.py" else parts[0].removesuffix(".py")


def imported(source: str, package: tuple[str, ...]) -> list[str]:
    """What a file imports anywhere, also inside functions: "soralab.world.scene", and "soralab.world.scene.WALL" for a
    name of it.

    package: the file's package below soralab, () for soralab/sora.py, ("world",) for soralab/world/render.py.
    """
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("soralab", *package)[: 1 + len(package) - (node.level - 1)] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            modules += [f"{stem}.{alias.name}" for alias in node.names]
    return modules


def imported_rooms(source: str, package: tuple[str, ...]) -> set[str]:
    """The rooms of soralab that a file imports."""
    split = [module.split(".") for module in imported(source, package)]
    return {parts[1] for parts in split if parts[0] == "soralab" and len(parts) > 1}


def climbs(room: str, other: str) -> bool:
    """Whether an import of `other` in `room` goes up, sideways, or to a later chapter."""
    if room == other or other == "__version__":
        return False
    if room in PAPERS and other in PAPERS:
        return PAPERS.index(other) > PAPERS.index(room)
    return FLOOR[other] >= FLOOR[room]


def imported_files(path: Path, package: Path = PACKAGE) -> set[Path]:
    """The files of the package that a file of it imports: the module that is named, or that a name is taken from."""
    found = set()
    for name in imported(path.read_text(encoding="utf-8"), path.relative_to(package).parts[:-1]):
        parts = name.split(".")
        for end in (len(parts), len(parts) - 1):        # the whole name is a module, or its last part a name in one
            stem = package.joinpath(*parts[1:end])
            files = [file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.exists()]
            if parts[0] == package.name and end > 1 and files:
                found.add(files[0])
                break
    return found - {path}


def circles(package: Path = PACKAGE) -> list[list[str]]:
    """Files of a package that import each other, directly or through others: the way around, for each that has one."""
    below = {path: imported_files(path, package) for path in package.rglob("*.py")}
    found = []

    def walk(path, way):
        if path in way:
            around = way[way.index(path) :]
            names = [str(each.relative_to(package).as_posix()) for each in around]
            first = names.index(min(names))
            if (circle := names[first:] + names[:first]) not in found:
                found.append(circle)
        elif path not in done:
            for other in sorted(below[path]):
                walk(other, [*way, path])
            done.add(path)

    done: set[Path] = set()
    for path in sorted(below):
        walk(path, [])
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_has_a_room_and_imports_go_down(path):
    room = room_of(path)
    assert room in FLOOR, f"soralab/{room} is no room of the house: see CONTRIBUTING.md"
    others = imported_rooms(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).parts[:-1])
    assert others <= set(FLOOR) | {"__version__"}, f"unknown rooms: {others - set(FLOOR)}"
    assert [other for other in sorted(others) if climbs(room, other)] == []


def test_no_files_import_each_other():
    assert circles() == []


@pytest.mark.parametrize("folder", ["notebooks", "tests", "tests/kernel_checks", "benchmarks"])
def test_scripts_do_not_either(folder):
    """They import each other by bare names, from their own folder."""
    sources = {path.stem: ast.parse(path.read_bytes()) for path in (ROOT / folder).glob("*.py")}
    below = {name: {word for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
                    for word in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
                    if word in sources} for name, tree in sources.items()}  # fmt: skip
    TopologicalSorter(below).prepare()  # raises CycleError


@pytest.mark.parametrize("files, found", [
    ({"a.py": "from soralab import b", "b.py": "import soralab.a"}, [["a.py", "b.py"]]),
    ({"a.py": "def f():\n    from soralab.b import g", "b.py": "def g():\n    from soralab.a import f"},
     [["a.py", "b.py"]]),
    ({"a.py": "from soralab.b import g", "b.py": "from soralab.c import h", "c.py": "from soralab import a"},
     [["a.py", "b.py", "c.py"]]),
    ({"room/__init__.py": "from soralab.room.a import f", "room/a.py": "from soralab.room import f"},
     [["room/__init__.py", "room/a.py"]]),
    ({"room/a.py": "from . import b", "room/b.py": "from .a import f"}, [["room/a.py", "room/b.py"]]),
    ({"a.py": "if TYPE_CHECKING:\n    from soralab.b import g", "b.py": "from soralab.a import f"}, [["a.py", "b.py"]]),
    ({"a.py": "from soralab.b import g", "b.py": "import torch.a", "c.py": "from soralab import a, b"}, []),
    ({"room/__init__.py": "from soralab.room import a", "room/a.py": "from soralab.room.b import f", "room/b.py": ""},
     []),
])
def test_circles_are_found_in_every_spelling(tmp_path, files, found):
    package = tmp_path / "soralab"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    assert circles(package) == found


@pytest.mark.parametrize("source, package, rooms", [
    ("import soralab.world.scene", (), {"world"}),
    ("from soralab import sora, unet", (), {"sora", "unet"}),
    ("def f():\n    from soralab.files.atomic import atomic_write", ("world",), {"files"}),
    ("from . import scene", ("world",), {"world"}),
    ("from ..sora import Sora", ("world",), {"sora"}),
    ("from .. import sora", ("world",), {"sora"}),
    ("from .deep import x", (), {"deep"}),
    ("import torch.nn\nfrom torch import soralab", (), set()),
])
def test_imports_are_read_in_every_spelling(source, package, rooms):
    assert imported_rooms(source, package) == rooms


@pytest.mark.parametrize("room, other, up", [
    ("command", "sora", False), ("sora", "world", False), ("sora", "unet", False), ("unet", "sora", True),
    ("world", "sora", True), ("diffusion", "blocks", True), ("training", "command", True),
    ("files", "world", True), ("recipes", "exercises", True), ("recipes", "experiments", True),
    ("experiments", "recipes", False), ("exercises", "experiments", True), ("figures", "world", False),
    ("world", "world", False),
])
def test_down_means_down(room, other, up):
    assert climbs(room, other) is up


def test_importing_the_package_loads_the_standard_library_only():
    """It should take under 0.3 seconds. That nothing heavy is loaded is why, and a test can hold that."""
    code = (
        "import sys; before = set(sys.modules); import soralab\n"
        "print(*sorted({name for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "soralab" in loaded
    strangers = {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names} - {"soralab"}
    assert strangers == set()


def missing_rooms(root: Path) -> list[str]:
    """What a notebook NN_name lacks: soralab/name.py, its recipe, its experiments, its exercises, its test. 00 is the
    map and has none; 17's module is the folder kernels/, it has exercises, and there is nothing to train."""
    missing = []
    for notebook in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        number, name = notebook.stem.split("_", 1)
        rooms = [f"soralab/exercises/{name}/__init__.py"] if number not in WITHOUT_EXERCISES else []
        if number not in ("00", "17"):
            chapters = [paper for paper in PAPERS if paper != SECOND]
            assert chapters.index(name) + 1 == int(number), f"{notebook.name} is not the syllabus' chapter {number}"
            rooms += [f"soralab/{name}.py", f"soralab/recipes/{name}.py", f"soralab/experiments/{name}.py",
                      f"tests/test_{name}.py"]  # fmt: skip
        missing += [room for room in rooms if not (root / room).exists()]
    return missing


def test_every_chapter_has_its_rooms():
    assert missing_rooms(ROOT) == []


@pytest.mark.parametrize("lost", [
    "soralab/vit.py", "soralab/recipes/vit.py", "soralab/experiments/vit.py", "soralab/exercises/vit/__init__.py",
    "tests/test_vit.py",
])
def test_a_room_that_is_missing_is_named(tmp_path, lost):
    rooms = ["notebooks/03_vit.ipynb", "soralab/vit.py", "soralab/recipes/vit.py", "soralab/experiments/vit.py",
             "soralab/exercises/vit/__init__.py", "tests/test_vit.py"]  # fmt: skip
    for room in set(rooms) - {lost}:
        (tmp_path / room).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / room).touch()
    assert missing_rooms(tmp_path) == [lost]


def course_files():
    """The course's own text files: not the reader's runs, not what is downloaded or built."""
    folders = [".ci", ".github", "benchmarks", "data", "notebooks", "soralab", "tests"]
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in folders:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    skipped = {"downloads", "__pycache__", ".ipynb_checkpoints"}
    skipped.add(".git")                # a file in a worktree, and it holds a path
    return [p for p in files if p.suffix in TEXT and not skipped & set(p.relative_to(ROOT).parts)]


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "parity").glob("*.py")), ids=lambda path: path.stem)
def test_a_parity_test_stands_alone(path):
    """It finds tests/tiny_models.py only if a test beside that file was collected before it, in the same process."""
    helpers = {file.stem for file in (ROOT / "tests").glob("*.py")}
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    taken = [node.module if isinstance(node, ast.ImportFrom) else alias.name
             for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]  # fmt: skip
    assert not helpers & set(taken)


def test_no_path_of_one_machine():
    examples = {Path(__file__).name, "test_notebooks.py"}               # these two hold paths to be refused
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in course_files()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8", errors="ignore"))
        if path.name not in examples
    ]
    assert found == []


def test_the_search_reads_the_whole_house():
    names = {str(path.relative_to(ROOT).as_posix()) for path in course_files()}
    some = {"README.md", ".ci/run", ".github/workflows/tests.yml", "soralab/__init__.py", "notebooks/execute.py"}
    assert some <= names


MODULE = re.compile(r"python3? -m (soralab[\w.]*\w)")


def runs(name: str, root: Path = ROOT) -> bool:
    """Whether `python -m name` does something: there is such a file, and it says what to do when it is run."""
    stem = root.joinpath(*name.split("."))
    path = stem / "__main__.py" if stem.is_dir() else stem.with_suffix(".py")
    return path.exists() and '__name__ == "__main__"' in path.read_text(encoding="utf-8")


def test_every_module_that_a_reader_is_told_to_run_runs():
    told = {
        (name, str(path.relative_to(ROOT)))
        for path in course_files()
        if path.name != Path(__file__).name
        for name in MODULE.findall(path.read_text(encoding="utf-8", errors="ignore"))
    }
    assert len(told) > 5 and sorted(each for each in told if not runs(each[0])) == []


@pytest.mark.parametrize("name, right", [
    ("soralab", True), ("soralab.experiments.transformer", True), ("soralab.experiments.sora", False),
    ("soralab.recipes.transformer", False), ("soralab.no_such", False), ("soralab.figures", False),
])
def test_a_module_that_cannot_be_run_is_told_apart(name, right):
    assert runs(name) is right


@pytest.mark.parametrize("text, machine", [
    ("saved to /home/ada/film.gif", True), ("open('/tmp/x')", True), (r"C:\Users\ada", True),
    ('"C:\\\\Users"', True), ("/usr/bin/env bash", False), ("data/home/x", False),
    ("https://example.org/home/page", False),
    ("notebooks/tmp/x", False),
])
def test_machine_paths_are_told_from_others(text, machine):
    assert bool(MACHINE_PATH.search(text)) is machine
