"""The table of `python -m benchmarks`, from the cases of the other files."""

from __future__ import annotations

import json
import platform
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.memory import Processes
from benchmarks.rows import NOTE, SECONDS, Row, heading, line, measure, processor_time, product, why_missing
from soralab.training.profiles import processor

TIE = 0.02  # what two measures of one side differ by


def run(names: Sequence[str], *options: str) -> Iterator[str]:
    """The table's lines, as they are measured, of the files of these names. options: see the top of __main__.py."""
    began, seconds = time.perf_counter(), float(value("--seconds", options) or SECONDS)
    clock = processor_time if "--processor-time" in options else time.perf_counter
    cases = [case for name in names for case in import_module(f"benchmarks.{name}").cases()]
    there = {need for case in cases for need in case.needs if not why_missing([need])}
    machine = {
        "date": str(date.today()), "processor": processor(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "python": platform.python_version(), "peak_gflops": product(clock) / 1e9,
    }  # fmt: skip
    yield "{processor}, {threads} threads, torch {torch}; a matrix product: {peak_gflops:.0f} GFLOP/s".format(**machine)
    yield from heading()
    modules = [*(f"benchmarks.{name}" for name in names), *sorted(there)]
    rows: list[Row] = []
    peak = None if "--no-memory" in options else Processes(modules).peak
    for case in cases:
        rows.append(measure(case, peak, seconds, clock))
        yield line(rows[-1])
    yield ""
    yield NOTE + ("\nAll times are the processor's." if clock is processor_time else "")
    yield summary(rows, time.perf_counter() - began)
    if path := value("--json", options):
        records = [{**asdict(row), "ratio": row.ratio} for row in rows]
        Path(path).write_text(json.dumps({**machine, "rows": records}, indent=1) + "\n", encoding="utf-8")


def value(option: str, options: Sequence[str]) -> str | None:
    """What stands after an option; None without it."""
    return options[options.index(option) + 1] if option in options else None


def summary(rows: Sequence[Row], seconds: float) -> str:
    """How many rows are slower than their peer, if that is not ours in another form, which, and how long all took."""
    compared = [row for row in rows if row.ratio is not None and not row.peer.startswith("ours")]
    slower = [f"{row.what} ({row.ratio:.2f} of {row.peer})" for row in compared if row.ratio > 1 + TIE]
    missing = sorted({row.peer for row in rows if row.trouble})
    words = f"{len(compared) - len(slower)} of {len(compared)} rows as fast as their peer or faster"
    words += f"; slower: {', '.join(slower)}" if slower else ""
    words += f"; not compared, for it is missing here: {', '.join(missing)}" if missing else ""
    return textwrap.fill(f"{words}. {seconds:.0f} s in all.", 119)
