"""What a row of `python -m benchmarks` is: ours beside a peer's at the same sizes, in turns, in one run.

Every file of this folder that measures by rows has a `cases()`; a case builds each side, here for its time and in a
process of its own for its memory (memory.py).
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from soralab.training.data import model_flops

SECONDS = 4.0  # of a row's turns; what is slow takes longer, for each side has TURNS
TURNS = 4
Clock = Callable[[], float]
SQUARE = 1024  # side of the matrices whose product is the machine's peak


@dataclass(frozen=True)
class Work:
    """One side of a row, built. run() does once what is timed; weights are the model's; flops() counts the products of
    one run."""

    run: Callable[[], object]
    weights: int = 0
    flops: Callable[[], float] | None = None


@dataclass(frozen=True)
class Case:
    """A row to be measured. `ours` and `theirs` build a side; they go to another process, so they are functions of a
    module, or `partial`s of such.

    peer: whose the other side is, "" if there is none. needs: the modules that it takes, the first of them of the
    package that may be missing. memory: whether that is measured; what a process of its own does cannot be.
    """

    what: str
    ours: Callable[[], Work]
    peer: str = ""
    theirs: Callable[[], Work] | None = None
    needs: tuple[str, ...] = ()
    memory: bool = True


@dataclass(frozen=True)
class Row:
    """What was measured: seconds, bytes; None where there is nothing to tell. trouble: why there is no peer."""

    what: str
    weights: int
    ours: float
    peer: str
    theirs: float | None = None
    peer_weights: int = 0
    memory: float | None = None
    peer_memory: float | None = None
    share: float | None = None  # of the products that a plain matrix product reaches in the same turns
    trouble: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by theirs: below 1 ours is the faster."""
        return None if self.theirs is None else self.ours / self.theirs


# ------------------------------------------------------------------------------------------------------- measuring


def squared(answer: Tensor) -> Tensor:
    """A loss for anything."""
    return answer.square().mean()


def parameters(model: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in model.parameters())


def training(model: nn.Module, *given: Tensor, loss: Callable[..., Tensor] = squared) -> Work:
    """A forward and backward pass of model(*given) in float32, to loss(answer); no optimizer."""

    def run() -> None:
        model.zero_grad(set_to_none=True)
        loss(model(*given)).backward()

    def flops() -> float:  # backwards are two products for every one forwards
        still = copy.deepcopy(model).requires_grad_(False)  # else torch's counter stumbles over a view of a weight
        return 3 * model_flops(still, *given)

    return Work(run, parameters(model), flops)


def processor_time() -> float:
    """Seconds that the processor has worked for this process and for those that it started and that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def side_by_side(
    *works: Callable[[], object], seconds: float = SECONDS, turns: int = TURNS, clock: Clock = time.perf_counter
) -> list[float]:
    """The best of many runs of each, in turns, so that what disturbs one disturbs all; one run does not count.

    They take turns for so many seconds of the clock, and at least so many times.
    """
    for work in works:
        work()
    best, end, done = [math.inf] * len(works), clock() + seconds, 0
    while done < turns or clock() < end:
        for number, work in enumerate(works):
            began = clock()
            work()
            best[number] = min(best[number], clock() - began)
        done += 1
    return best


def product(clock: Clock = time.perf_counter) -> float:
    """Floating-point operations a second of a plain matrix product, the best of a second's runs."""
    square = torch.randn(SQUARE, SQUARE)
    return 2 * SQUARE**3 / side_by_side(lambda: square @ square, seconds=1.0, clock=clock)[0]


def why_missing(needs: Sequence[str]) -> str:
    """Why a peer cannot be measured: its package is not here, or lacks what is taken from it. "" if it can be."""
    for name in needs:
        package = name.split(".")[0]
        if find_spec(package) is None:
            return "not installed"
        try:
            import_module(name)
        except Exception:  # a release that is too old or does not go with another package: whatever it raises
            return "does not import"
    return ""


def measure(
    case: Case, peak: Callable | None = None, seconds: float = SECONDS, clock: Clock = time.perf_counter
) -> Row:
    """The row of a case. peak: measures memory (`Processes.peak`); None: it is not measured."""
    trouble = why_missing(case.needs) if case.theirs else ""
    sides = [case.ours()] + ([case.theirs()] if case.theirs and not trouble else [])
    square = torch.randn(SQUARE, SQUARE)
    *times, best = side_by_side(*(side.run for side in sides), lambda: square @ square, seconds=seconds, clock=clock)
    flops = sides[0].flops() if sides[0].flops else 0
    share = flops / times[0] / (2 * SQUARE**3 / best) if flops else None
    makes = (case.ours, case.theirs)[: len(sides)]
    weights = [side.weights for side in sides]
    del sides
    memory = [peak(make, case.needs) for make in makes] if peak and case.memory else []
    times, memory, weights = ([*of, None, None][:2] for of in (times, memory, weights))
    return Row(case.what, weights[0], times[0], case.peer, times[1], weights[1] or 0, *memory, share, trouble)


# -------------------------------------------------------------------------------------------------------- printing

COLUMNS = (  # heading, width; text to the left, numbers to the right
    ("what", -37), ("weights", 7), ("ours", 8), ("peer", -32), ("theirs", 8), ("ratio", 5), ("MB", 5), ("MB", 5),
    ("peak", 4),
)  # fmt: skip
NOTE = (
    "ours, theirs: the best of many runs in turns; ratio: ours / theirs, below 1 ours is the faster; MB: memory of "
    "ours\nand of theirs, each in a process of its own; peak: our share of what a matrix product reaches in the same "
    "turns.\nSteps are a forward and a backward pass in float32. (…): weights of a peer that has another number."
)


def in_columns(cells: Sequence[str]) -> str:
    """One line of the table."""
    pairs = zip(cells, COLUMNS, strict=True)
    return " ".join(f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}" for cell, (_, width) in pairs).rstrip()


def line(row: Row) -> str:
    """A row in words, under COLUMNS."""
    peer = row.peer or "-"
    if row.peer_weights and abs(row.peer_weights / row.weights - 1) > 0.005:
        peer = f"{row.peer} ({count(row.peer_weights)})"
    said = in_columns((
        row.what, count(row.weights), duration(row.ours), peer, duration(row.theirs),
        "-" if row.ratio is None else f"{row.ratio:.2f}", megabytes(row.memory), megabytes(row.peer_memory),
        "-" if row.share is None else f"{row.share:.0%}",
    ))  # fmt: skip
    if not row.trouble:
        return said
    begin, end = (sum(abs(width) + 1 for _, width in COLUMNS[:column]) for column in (3, 6))  # peer, theirs, ratio
    return said[:begin] + f"{row.peer}: {row.trouble}".ljust(end - begin) + said[end:]


def duration(seconds: float | None) -> str:
    """Three digits and a unit: "45.1 us", "812 ms", "1.20 s"."""
    if seconds is None:
        return "-"
    power, unit = next(((p, u) for p, u in ((1, "s"), (1e3, "ms")) if seconds * p >= 0.9995), (1e6, "us"))
    value = seconds * power
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"


def count(number: int) -> str:
    """Weights: "45", "12 k", "1.56 M"."""
    if number < 1000:
        return str(number or "-")
    return f"{number / 1e3:.0f} k" if number < 999_500 else f"{number / 1e6:.{2 if number < 1e7 else 1}f} M"


def megabytes(number: float | None) -> str:
    """Bytes as MB."""
    return "-" if number is None else f"{number / 1e6:.0f}"


def heading() -> Iterator[str]:
    """What stands above the rows."""
    yield in_columns([name for name, _ in COLUMNS])
    yield "-" * (sum(abs(width) + 1 for _, width in COLUMNS) - 1)
