"""Execute the course's notebooks and store their outputs in them.

    python notebooks/execute.py                       every notebook
    python notebooks/execute.py 00 16                 the chapters of these numbers
    python notebooks/execute.py 16 --profile smoke    with another profile than the readers' (laptop)

The environment is the tests' one (conftest.ENV) but for the profile, so that the tests find the same outputs.
What changes from run to run without meaning anything (timestamps, widget state, the Python's version) is
stripped; cell ids stay. A notebook that fails is left as it was.
"""
import argparse
import os
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent


def find(numbers: list[str], folder: Path = FOLDER) -> list[Path]:
    """The notebooks of these chapter numbers ("16", "7"), or all. Raises ValueError for an unknown number."""
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not numbers:
        return notebooks
    by_number = {path.name[:2]: path for path in notebooks}
    missing = [n for n in numbers if n.zfill(2) not in by_number]
    if missing:
        there = ", ".join(by_number) or "none"
        raise ValueError(f"numbers: no notebook has {', '.join(missing)}; there are {there}")
    return [by_number[n.zfill(2)] for n in numbers]


def strip(nb) -> None:
    """Remove from a notebook what changes with every run and tells a reader nothing."""
    nb.metadata.pop("widgets", None)
    nb.metadata.get("language_info", {}).pop("version", None)
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for cell in nb.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code" and "skip-execution" in cell.metadata.get("tags", []):
            cell.execution_count, cell.outputs = None, []
        for output in cell.get("outputs", ()):
            if output.output_type == "error":  # where the course lies on this machine
                output.traceback = [line.replace(f"{ROOT}{os.sep}", "") for line in output.traceback]


def execute(path: Path, timeout: int = 1800) -> float:
    """Execute one notebook in its folder, store it in place (whole or not at all); return the seconds taken.

    Raises nbclient.exceptions.CellExecutionError when a cell fails, CellTimeoutError after `timeout` seconds
    in one cell, OSError of one clear sentence when the notebook cannot be written.
    """
    import nbformat
    from nbclient import NotebookClient

    from soralab.files.atomic import atomic_write

    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    begin = time.perf_counter()
    where = {"metadata": {"path": path.parent}}
    NotebookClient(nb, timeout=timeout, kernel_name="python3", record_timing=False, resources=where).execute()
    strip(nb)
    nbformat.validate(nb)
    with atomic_write(path) as temporary:
        temporary.write_text(nbformat.writes(nb) + "\n", encoding="utf-8", newline="\n")
    return time.perf_counter() - begin


def main(arguments: list[str] | None = None) -> int:
    """The command line: see the top of this file. Returns 0; 1 if a notebook failed; 2 if misused."""
    parser = argparse.ArgumentParser(description="Execute notebooks and store their outputs in them.")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="chapter numbers; all without one")
    parser.add_argument("--profile", choices=["smoke", "laptop", "gpu"], default="laptop")
    chosen = parser.parse_args(arguments)
    try:
        notebooks = find(chosen.numbers)
    except ValueError as error:
        print(f"execute: {error}", file=sys.stderr)
        return 2

    sys.path.insert(0, str(ROOT))
    from conftest import ENV

    os.environ.update(ENV, SORALAB_PROFILE=chosen.profile, JUPYTER_PREFER_ENV_PATH="1")
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    failed = 0
    for path in notebooks:
        try:
            print(f"{path.name}: {execute(path):.0f} s", flush=True)
        except (CellExecutionError, CellTimeoutError) as error:
            failed = 1
            print(f"{path.name}: failed, left as it was\n{error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
