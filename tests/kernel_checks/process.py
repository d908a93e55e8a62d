"""Tests that need a Python of their own: Triton decides when it is imported whether it compiles or interprets."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from soralab.kernels.dispatch import why_no_triton

HERE = Path(__file__).resolve().parent
# Matrix products of numpy's are the interpreter's work; on tiles, more threads than one are slower.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

triton_is_here = pytest.mark.skipif(bool(why_no_triton()), reason=why_no_triton())


def run_apart(file: str, *options: str, **environment: str) -> None:
    """Run a file of this folder by pytest in a process of its own; fails with what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", str(HERE / file), "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    env |= THREADS | environment
    done = subprocess.run([*command, *options], cwd=HERE.parents[1], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\b\d+ passed", done.stdout) and "failed" not in done.stdout
