"""The rules for notebooks that nbval does not check: it accepts a cell that was never run, for one."""
import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import conftest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_NOTEBOOK, MAX_OUTPUT = 1_500_000, 400_000           # bytes, so that code hosts still show it
TAGS = {
    "nbval-ignore-output", "nbval-check-output", "nbval-skip", "skip-execution", "raises-exception",
    "exercise", "solution", "hide-input", "hide-output", "remove-cell", "remove-input", "navigation",
    "triton",
}
NETWORK = re.compile(r"\b(?:https?|ftp)://|\burlopen\b|\burlretrieve\b|\brequests\.(?:get|post)\b")
INSTALL = re.compile(
    r"^\s*[!%]{1,2}\s*(?:\S*python\S*\s+-m\s+)?(?:pip|conda|mamba|uv|apt|apt-get|wget|curl|git)\b"
    r"|-m['\", ]+pip\b", re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours
ABSOLUTE = re.compile(
    r"(?<![\w.:/$}\\])/(?:work|tmp|root|home|Users|opt|mnt|media|farm|var|usr|content)/[\w.-]+"
    r"|\b[A-Z]:\\{1,2}\w|(?<![\w/])~/")
NETWORK_PICTURE = re.compile(
    r"!\[[^\]]*\]\(\s*https?:"
    r"|<(?:img|video|script|iframe|link)\b[^>]*(?:src|href)\s*=\s*[\"']?(?:https?:)?//", re.I)
SILENT_PICTURE = re.compile(r"!\[\s*\]\(|<img\b(?![^>]*\balt\s*=\s*[\"'][^\"']+[\"'])[^>]*>", re.I)
SILENT_SVG = re.compile(r"<svg\b(?![^>]*aria-label)(?!.*?<(?:title|desc)\b)", re.I | re.S)
BARE_REPR = re.compile(r"^<[^<>]*>$")                     # <Figure size 600x400 with 1 Axes>: no description


def tags(cell):
    return cell.metadata.get("tags", [])


def markdown_around(nb, i):
    """Whether a text stands directly before or after cell i."""
    around = [nb.cells[j] for j in (i - 1, i + 1) if 0 <= j < len(nb.cells)]
    return any(cell.cell_type == "markdown" and len(cell.source.split()) >= 5 for cell in around)


def described(output):
    """Whether an output with a picture brings a text of its own that tells what it shows."""
    metadata = output.get("metadata", {})
    alts = [metadata.get("alt", "")]
    alts += [value.get("alt", "") for value in metadata.values() if isinstance(value, dict)]
    plain = output.data.get("text/plain", "")
    return any(alts) or bool(plain.strip() and not BARE_REPR.match(plain.strip()))


def source_problems(cell):
    """What is wrong with what a cell's author wrote."""
    if ABSOLUTE.search(cell.source):
        yield "an absolute path"
    if cell.cell_type == "code":
        if NETWORK.search(cell.source):
            yield "a network call or address in code"
        if INSTALL.search(cell.source):
            yield "installs something"
    if cell.cell_type == "markdown":
        if NETWORK_PICTURE.search(cell.source):
            yield "a picture or script from the network"
        if SILENT_PICTURE.search(cell.source):
            yield "a picture without a text alternative"
        if cell.get("attachments"):
            yield "an attached picture: draw it by code"


def output_problems(nb, i):
    """What is wrong with the outputs stored in code cell i."""
    for output in nb.cells[i].outputs:
        text = json.dumps(output)
        if len(text) > MAX_OUTPUT:
            yield f"an output of {len(text)} bytes"
        if output.output_type == "error" and "raises-exception" not in tags(nb.cells[i]):
            yield f"a stored error {output.ename}"
        if ABSOLUTE.search(ANSI.sub(" ", "\n".join(output.get("traceback", ())))):
            yield "an absolute path in a traceback"
        data = output.get("data", {})
        for kind, value in {**data, "stream": output.get("text", "")}.items():
            value = value if isinstance(value, str) else json.dumps(value)
            if not kind.startswith("image/") and ABSOLUTE.search(value):
                yield "an absolute path in an output"
        html = data.get("text/html", "") + data.get("image/svg+xml", "")
        if SILENT_PICTURE.search(html) or SILENT_SVG.search(html):
            yield "an HTML picture without a text alternative"
        if NETWORK_PICTURE.search(html):
            yield "a picture or script from the network in an output"
        picture = any(kind.startswith("image/") for kind in data)
        if picture and not described(output) and not markdown_around(nb, i):
            yield "a picture with no words about it"
        if any(kind in data for kind in ("image/gif", "image/webp", "video/mp4")):
            yield "a film that JupyterLab hides in a notebook from elsewhere: use soralab.figures"


def run_problems(cell):
    """What is wrong with how a code cell was run, or marked."""
    yield from (f"unknown tag {tag}" for tag in tags(cell) if tag not in TAGS and not tag.startswith("rtol="))
    skip = "nbval-skip" in tags(cell)
    if skip != ("skip-execution" in tags(cell)):
        yield "nbval-skip and skip-execution go together"
    if not skip and cell.source.strip() and cell.execution_count is None:
        yield "never run"
    if "execution" in cell.metadata:
        yield "timestamps: run notebooks/execute.py"


def problems(nb):
    """Everything wrong with a notebook: ["cell 3: never run", ...]."""
    found, counts = [], []
    for i, cell in enumerate(nb.cells):
        mine = list(source_problems(cell))
        if cell.cell_type == "code":
            mine += [*run_problems(cell), *output_problems(nb, i)]
            if "nbval-skip" not in tags(cell) and cell.source.strip():
                counts.append(cell.execution_count)
        found += [f"cell {i}: {problem}" for problem in mine]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"not run from top to bottom: {counts}")
    if "widgets" in nb.metadata:
        found.append("widget state: run notebooks/execute.py")
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    return found


CHANGES = re.compile(r"\bby_profile\(|\bavailable\(\)|\bfetched\(|\btime\.|\bfind_spec\(|\bwhy_no_triton\(")


def needlessly_exempt(nb):
    """Code cells that nbval does not compare, though neither a profile, the clock nor a reader's data changes them.

    What does is a call of CHANGES, or a name that a cell with such a call has set.
    """
    changing, found = set(), []
    for cell in nb.cells:
        if cell.cell_type == "code":
            code = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M)
            nodes = list(ast.walk(ast.parse(code)))
            names = {kind: {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, kind)}
                     for kind in (ast.Load, ast.Store)}
            names[ast.Store] |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
            changes = bool(CHANGES.search(code) or names[ast.Load] & changing)
            changing = changing | names[ast.Store] if changes else changing - names[ast.Store]
            if "nbval-ignore-output" in tags(cell) and not changes:
                found.append(cell.source.strip().splitlines()[0])
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_what_a_profile_changes_is_not_compared(path):
    found = needlessly_exempt(nbformat.read(path, as_version=4))
    assert not found, found


def test_what_need_not_be_exempt_is_found():
    exempt = {"tags": ["nbval-ignore-output"]}
    sources = ("n = by_profile(smoke=1, laptop=9)", "print(measure(n))", "def f():\n    return n", "f()",
               "n = 3", "g(n)")
    nb = new_notebook(cells=[new_code_cell(source, metadata=exempt) for source in sources])
    assert needlessly_exempt(nb) == ["n = 3", "g(n)"]
    nb.cells[-1].metadata.tags = []
    assert needlessly_exempt(nb) == ["n = 3"]


def test_what_chapter_17_says_without_triton_is_not_compared(monkeypatch):
    """On macOS and Windows; and only what has the tag, which is on this chapter's page alone."""
    from soralab.kernels import dispatch

    for why, skipped in (("triton is not installed", True), ("", False)):
        monkeypatch.setattr(dispatch, "why_no_triton", lambda why=why: why)
        assert conftest.without_triton(["triton"]) is skipped
        assert conftest.without_triton(["exercise"]) is conftest.without_triton([]) is False
    tagged = [path.stem for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if "triton" in tags(cell)]
    assert tagged == ["17_triton_attention"] * 2


def test_the_road_map_is_there():
    assert "00_road_to_sora" in [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    assert path.stat().st_size < MAX_NOTEBOOK
    assert problems(nb) == []


# Each rule refuses what it is there to refuse.

PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 600x400 with 1 Axes>"}


def good():
    nb = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nb.cells = [
        new_markdown_cell("A red circle slides to the right. [The paper](https://arxiv.org/abs/2212.09748)."),
        new_code_cell("a = 1", execution_count=1),
        new_code_cell("draw(a)", execution_count=2, outputs=[new_output("display_data", PNG)]),
        new_markdown_cell("Eight frames: the circle crosses the picture from left to right."),
    ]
    return nb


def output(data, **metadata):
    return [new_output("display_data", data, metadata=metadata)]


BREAK = {
    "never run": lambda nb: nb.cells[2].update(execution_count=None),
    "not run from top": lambda nb: nb.cells[1].update(execution_count=3),
    "unknown tag": lambda nb: nb.cells[1].metadata.update(tags=["nbval-ignore-ouput"]),
    "go together": lambda nb: nb.cells[1].metadata.update(tags=["nbval-skip"]),
    "stored error": lambda nb: nb.cells[1].update(
        outputs=[new_output("error", ename="NameError", evalue="", traceback=[])]),
    "output of": lambda nb: nb.cells[2].update(outputs=output({**PNG, "image/png": "A" * MAX_OUTPUT})),
    "an absolute path": lambda nb: nb.cells[1].update(source="open('/home/ada/film.gif')"),
    "absolute path in an output": lambda nb: nb.cells[1].update(
        outputs=[new_output("stream", name="stderr", text="/usr/lib/python3/x.py:3: UserWarning")]),
    "network call": lambda nb: nb.cells[1].update(source="u = 'https://example.org/x.png'"),
    "installs": lambda nb: nb.cells[1].update(source="x = 1\n%pip install soralab"),
    "script from the network": lambda nb: nb.cells[0].update(source="![a film](https://example.org/x.gif)"),
    "picture without a text": lambda nb: nb.cells[0].update(source="![](film.png)"),
    "HTML picture without": lambda nb: nb.cells[2].update(outputs=output({"text/html": "<img src='x'>"})),
    "no words about it": lambda nb: nb.cells.__delitem__(3),
    "film that JupyterLab hides": lambda nb: nb.cells[2].update(outputs=output({"image/gif": "R0lG"})),
    "timestamps": lambda nb: nb.cells[1].metadata.update(execution={"iopub.status.busy": "2024"}),
    "widget state": lambda nb: nb.metadata.update(widgets={}),
    "kernel is not": lambda nb: nb.metadata.kernelspec.update(name="my-env"),
}


def test_a_good_notebook_passes():
    assert problems(good()) == []


@pytest.mark.parametrize("rule", BREAK)
def test_rule_refuses(rule):
    nb = good()
    BREAK[rule](nb)
    assert any(rule in problem for problem in problems(nb)), problems(nb)


@pytest.mark.parametrize("data, metadata", [
    (PNG, {"image/png": {"alt": "a red circle"}}),
    (PNG, {"alt": "a red circle"}),
    ({**PNG, "text/plain": "film of 8 frames: a red circle slides right"}, {}),
])
def test_a_pictures_own_words_are_enough(data, metadata):
    nb = good()
    del nb.cells[3]
    nb.cells[2].outputs = output(data, **metadata)
    assert problems(nb) == []


# conftest.py's comparison of floats


@pytest.mark.parametrize("text, stored, same", [
    ("loss 0.12346", "loss 0.12350", True), ("loss 0.1239", "loss 0.1235", False),
    ("64 tokens", "65 tokens", False), ("[8, 3, 32]", "[8, 3, 31]", False),
    ("1.0e-9 nearly 0.", "0.0 nearly 0.", True), ("loss nan", "loss 0.5", False), ("-0.5", "0.5", False),
    ("loss 0.5 done", "loss 0.5 gone", False), ("0.5 0.6", "0.5", False),
])
def test_floats_are_compared_with_a_tolerance(text, stored, same):
    assert (conftest.snap(text, stored) == stored) is same


def test_a_cell_may_widen_its_tolerance():
    assert conftest.tolerance(["exercise", "rtol=0.05"]) == 0.05
    assert conftest.tolerance(["exercise"]) == conftest.RTOL
    assert conftest.snap("0.52", "0.50", 0.05) == "0.50"


def test_outputs_are_matched_by_kind():
    """A picture or a warning between them must not shift which text is compared with which."""
    stored = [new_output("stream", name="stdout", text="loss 0.5000"), *output({"text/plain": "1.0000"})]
    fresh = [*output({"text/plain": "1.0001"}), new_output("stream", name="stdout", text="loss 0.5001")]
    conftest._snap_outputs(fresh, stored, 1e-3)
    assert fresh[0].data["text/plain"] == "1.0000" and fresh[1].text == "loss 0.5000"


def test_nbval_fails_where_it_should(tmp_path):
    """conftest.py changes two methods inside nbval. Should a new nbval lose them, this shows it."""
    nb = good()
    nb.cells = [
        new_code_cell("print('near', 1.0001)", execution_count=1, outputs=[
            new_output("stream", name="stdout", text="near 1.0000\n")]),
        new_code_cell("print('far', 1.01)", execution_count=2, outputs=[
            new_output("stream", name="stdout", text="far 1.00\n")]),
        new_code_cell("import os; os._exit(3)", execution_count=3),
    ]
    nbformat.write(nb, tmp_path / "cells.ipynb")
    (tmp_path / "empty.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-p", "conftest", "--nbval",
         "--nbval-current-env", "-c", "empty.ini", "cells.ipynb"],
        capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)}, cwd=tmp_path,
    )
    results = re.findall(r"^(PASSED|FAILED|XFAIL|ERROR)\b.*(Cell \d)", done.stdout, re.M)
    assert results == [("PASSED", "Cell 0"), ("FAILED", "Cell 1"), ("FAILED", "Cell 2")], done.stdout
    assert "the kernel died" in done.stdout


# notebooks/execute.py


@pytest.fixture
def execute():
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_execute_finds_chapters_by_number(execute, tmp_path):
    for name in ("00_map.ipynb", "07_navit.ipynb", "notes.ipynb"):
        (tmp_path / name).touch()
    assert [p.name for p in execute.find(["7", "00"], tmp_path)] == ["07_navit.ipynb", "00_map.ipynb"]
    assert [p.name for p in execute.find([], tmp_path)] == ["00_map.ipynb", "07_navit.ipynb"]
    with pytest.raises(ValueError, match="99; there are 00, 07"):
        execute.find(["99"], tmp_path)


def test_execute_stores_what_the_rules_want(execute, tmp_path):
    nb = good()
    nb.cells[1] = new_code_cell("import os\nprint(os.getcwd().endswith('here'))")
    nb.cells[2] = new_code_cell("print(40 + 2)", id="keep-this-id", execution_count=7)
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"version_major": 2, "state": {}}}
    path = tmp_path / "here" / "07_navit.ipynb"
    path.parent.mkdir()
    nbformat.write(nb, path)
    execute.execute(path, timeout=300)
    done = nbformat.read(path, as_version=4)
    assert problems(done) == []
    assert [cell.outputs[0].text for cell in done.cells[2:4]] == ["True\n", "42\n"]
    assert done.cells[3].id == "keep-this-id"
    assert "version" not in done.metadata.language_info
    first = path.read_bytes()
    execute.execute(path, timeout=300)
    assert path.read_bytes() == first                    # a second run changes nothing


def test_execute_leaves_a_failing_notebook_as_it_was(execute, tmp_path, capsys):
    from nbclient.exceptions import CellExecutionError

    nb = good()
    nb.cells[1].source = "raise RuntimeError('no')"
    path = tmp_path / "07_navit.ipynb"
    nbformat.write(nb, path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError):
        execute.execute(path, timeout=300)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
