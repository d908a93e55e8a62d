"""Execute the course's notebooks and store their outputs in them.

    python notebooks/execute.py                       every notebook
    python notebooks/execute.py 00 16                 the chapters of these numbers
    python notebooks/execute.py 16 --profile smoke    with another profile than the readers' (laptop)

The environment is the tests' one (conftest.ENV) but for the profile, so that the tests find the same outputs.
What changes from run to run without meaning anything (timestamps, widget state, the Python's version) is
stripped; cell ids stay. Then the notebook is brought into form (`normalise.py`). One that fails is left as it was.
"""
import argparse
import os
import sys
import time
from datetime import datetime
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
SLOW = 20                                 # seconds from which a cell's time is noted
sys.path[:0] = [str(FOLDER), str(ROOT)]

from normalise import exercise_minutes, find, normalise, store, there  # noqa: E402


def strip(nb) -> None:
    """Remove from a notebook that was run here what tells a reader nothing."""
    for cell in nb.cells:
        if cell.cell_type == "code" and "skip-execution" in cell.metadata.get("tags", []):
            cell.execution_count, cell.outputs = None, []
        for output in cell.get("outputs", ()):
            if output.output_type == "error":  # where the course lies on this machine
                output.traceback = [line.replace(f"{ROOT}{os.sep}", "") for line in output.traceback]


def measure(nb, profile: str) -> None:
    """Note in the metadata of a notebook that was run under the readers' profile what it took: the memory, and the
    seconds of each cell that took long. Its last cell, which is taken away, printed the peak."""
    peak = float(nb.cells.pop().outputs[0].text)
    if profile != "laptop":
        return
    times = {cell.id: cell.metadata["execution"] for cell in nb.cells if "execution" in cell.metadata}
    taken = {name: _seconds(time) for name, time in times.items()}
    nb.metadata["soralab"] = {
        "peak_gb": round(peak, 1), "seconds": {name: 10 * round(s / 10) for name, s in taken.items() if s > SLOW},
    }


def _seconds(times: dict) -> float:
    """How long a cell ran, by the timestamps that nbclient notes."""
    begin, end = (datetime.fromisoformat(times[key].replace("Z", "+00:00"))
                  for key in ("iopub.status.busy", "iopub.status.idle"))
    return (end - begin).total_seconds()


def execute(path: Path, timeout: int = 1800) -> float:
    """Execute one notebook in its folder, store it in place (whole or not at all); return the seconds taken.

    Raises nbclient.exceptions.CellExecutionError when a cell fails, CellTimeoutError after `timeout` seconds
    in one cell, OSError of one clear sentence when the notebook cannot be written.
    """
    import nbformat
    from nbclient import NotebookClient

    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    nb.cells.append(nbformat.v4.new_code_cell("from soralab.training.memory import peak_gb\n\nprint(peak_gb())"))
    begin = time.perf_counter()
    where = {"metadata": {"path": path.parent}}
    client = NotebookClient(nb, timeout=timeout, kernel_name="python3", record_timing=True, resources=where)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # this clone's soralab, wherever it is installed
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    measure(nb, os.environ.get("SORALAB_PROFILE", ""))
    strip(nb)
    normalise(nb, int(path.name[:2]), there(path.parent), exercise_minutes(path.stem[3:]))
    nbformat.validate(nb)
    store(path, nbformat.writes(nb) + "\n")
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
