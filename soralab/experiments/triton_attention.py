"""What one H200 measured of chapter 17's kernels as they were (data/benchmarks/gpu.json), set beside torch's own.

The kernels have been changed since, by these numbers; what they do now no card has timed. `python -m benchmarks gpu`
measures where there is one.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from soralab.files.checkpoints import ROOT

FILE = ROOT / "data" / "benchmarks" / "gpu.json"
MASKS = ("dense", "causal", "packed", "windows", "sliding tiles")
# Keys that a query sees, of a film of 16 x 32 x 32 tokens: half of all on average; a window of 1 x 16 x 16; 3 x 3 x 3
# tiles of 4 x 4 x 4. Packed pictures differ in length and have no one number.
KEYS = {"dense": 16384, "causal": 8192, "windows": 256, "sliding tiles": 27 * 64}
# Products of tiles that a pair of tokens needs (what the papers count), and arrays of tokens x dim that must be read or
# written once: q, k, v, o forwards; with those of their gradients, and without delta, eight backwards.
PRODUCTS, ARRAYS = {"forward": 2, "backward": 5}, {"forward": 4, "backward": 8}


class Point(NamedTuple):
    """A way's place in a roofline: operations a byte at the least, TFLOP/s reached."""

    mask: str
    way: str
    intensity: float
    rate: float


def measured() -> dict:
    """The file."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def times(mask: str, dim: int) -> dict[str, tuple[float, float]]:
    """{way: (ms forwards, ms backwards)}, the processor's part of a call included."""
    return {row["way"]: (row["forward_ms"], row["backward_ms"])
            for row in measured()["shipped"] if (row["mask"], row["dim"]) == (mask, dim)}


def speed(mask: str, dim: int, way: str) -> tuple[float, float]:
    """How many times as fast as `way` ours was, forwards and backwards."""
    rows = times(mask, dim)
    return tuple(theirs / ours for theirs, ours in zip(rows[way], rows["ours"], strict=True))


def tried(mask: str, dim: int, name: str, loads: str = "pointers") -> dict:
    """A kernel's own time with the best tiles that were found, and (by pointers) with those that it had."""
    (row,) = (row for row in measured()["tiles"]
              if (row["mask"], row["dim"], row["pass"], row["loads"]) == (mask, dim, name, loads))
    return row


def trial(dim: int) -> float:
    """How many times as fast as flash the backward kernels were in the trial with descriptors: dense, whole tiles."""
    (flash,) = (row for row in measured()["whole_passes"] if (row["dim"], row["way"]) == (dim, "flash"))
    return flash["backward_ms"] / sum(tried("dense", dim, name, "descriptors")["ms"]
                                      for name in ("backward_q", "backward_k"))


def kernel_alone(mask: str, dim: int, direction: str) -> float | None:
    """ms of our kernels themselves, without the call; None where they were not timed at the film's length."""
    names = ("forward",) if direction == "forward" else ("backward_q", "backward_k")
    rows = [tried(mask, dim, name) for name in names
            if any((row["mask"], row["dim"], row["pass"]) == (mask, dim, name) for row in measured()["tiles"])]
    known = len(rows) == len(names) and all(row["tokens"] == measured()["tokens"] for row in rows)
    return sum(row["shipped_ms"] for row in rows) if known else None


def points(dim: int, direction: str) -> list[Point]:
    """Every way's place in the roofline of a pass, and that of "our kernel alone" where it was timed."""
    file = measured()
    found = []
    for mask, keys in KEYS.items():
        ms = {way: pair[direction == "backward"] for way, pair in times(mask, dim).items()}
        ms["our kernel alone"] = kernel_alone(mask, dim, direction)
        work = 2 * PRODUCTS[direction] * file["tokens"] * keys * dim * file["heads"]
        moved = 2 * ARRAYS[direction] * file["tokens"] * dim * file["heads"]
        found += [Point(mask, way, work / moved, work / time / 1e9) for way, time in ms.items() if time]
    return found


def table() -> str:
    """Our time beside that of the fastest of torch's ways, for each mask, head dimension and pass."""
    file = measured()
    lines = [f"{file['card']}, {file['type']}, {file['heads']} heads, {file['tokens']:,} tokens, {file['date']}, the "
             "kernels as they were then:", f"{'':19s}ms forwards                      ms backwards"]
    for mask in MASKS:
        for dim in (64, 128):
            rows, cells = times(mask, dim), []
            for k in (0, 1):
                best = min((way for way in rows if way != "ours"), key=lambda way: rows[way][k])
                ours, theirs = rows["ours"][k], rows[best][k]
                cells.append(f"{ours:5.2f}, {best} {theirs:.2f}: {theirs / ours:.2f} x".ljust(33))
            lines.append(f"{mask:13s} D {dim:3d} {''.join(cells)}".rstrip())
    return "\n".join(lines)
