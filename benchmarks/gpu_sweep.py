"""Which tiles are fastest: every candidate of every pass, mask and head dimension, timed on the GPU that is here.

`python -m benchmarks gpu --sweep` prints the best of each; soralab/kernels/configs.py holds what was chosen from it.
Candidates are compiled in parallel processes first: one after the other they would take half an hour.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks import gpu
from soralab.kernels import tables, windows
from soralab.kernels.configs import PASSES, Config

FAMILIES = ("dense", "causal", "packed", "windows", "sliding", "pointers")
OPERATIONS = {"forward": 4, "backward_q": 6, "backward_k": 8}  # times pairs times dim times heads
SMALL = {"HEADS": 2, "TOKENS": 1024, "FILM": (4, 16, 16)}  # to compile with: what is compiled depends on no size
PATIENCE = 120  # seconds for all compilers together
TILES = {
    "forward": [(64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 64, 8), (128, 128, 8), (128, 32, 4)],
    "backward_q": [(64, 32, 4), (64, 64, 4), (64, 128, 4), (128, 32, 4), (128, 64, 4), (128, 64, 8), (128, 128, 8)],
    "backward_k": [(32, 64, 4), (64, 64, 4), (128, 64, 4), (32, 128, 4), (64, 128, 8), (128, 128, 8)],
}


def candidates(family: str, direction: str) -> list[Config]:
    """What is tried."""
    bulk = family in ("dense", "causal", "packed")
    stages = (2, 3) if bulk else (1, 2, 3)
    return [Config(*tiles, stage, bulk) for tiles, stage in itertools.product(TILES[direction], stages)]


def layout_of(family: str) -> tables.Layout:
    """The layout that stands for a family: the benchmark's."""
    device, n = torch.device(gpu.DEVICE), gpu.TOKENS
    if family == "sliding":
        return tables.sliding(gpu.FILM, gpu.TILE, gpu.SEEN, 1, device)
    if family == "windows":
        cu, order = (x.to(device) for x in windows(gpu.FILM, gpu.WINDOW))
        return tables.packed(cu, None, order, n, n, False)
    if family == "packed":
        bounds = torch.tensor([0, *gpu.lengths()]).cumsum(0).to(torch.int32).to(device)
        return tables.packed(bounds, None, None, n, n, False)
    return tables.dense(1, n, n, family == "causal", device)


def passes(family: str, dim: int) -> tuple[tables.Layout, dict[str, Callable[[], None]]]:
    """{pass: a launch of it}, on random numbers."""
    from soralab.kernels import triton_launch

    layout, shape = layout_of(family), (1, gpu.HEADS, gpu.TOKENS, dim)
    q, k, v, do = (torch.randn(shape, device=gpu.DEVICE, dtype=torch.bfloat16) for _ in range(4))
    o, dq, dk, dv = (torch.randn_like(q) for _ in range(4))
    rows = tuple(torch.zeros(shape[:3], device=gpu.DEVICE).add_(n) for n in (16, 0))  # lse, delta
    numbers = (dim**-0.5 * math.log2(math.e), dim**-0.5)
    start = partial(triton_launch.launch, layout=layout)
    return layout, {
        "forward": partial(start, "forward", tensors=(q, k, v, o), rows=rows[:1], visited=(k, v), numbers=numbers[:1]),
        "backward_q": partial(start, "backward_q", tensors=(q, k, v, o, do, dq), rows=rows, visited=(k, v),
                              numbers=numbers),
        "backward_k": partial(start, "backward_k", tensors=(q, k, v, do, dk, dv), rows=rows, visited=(q, do),
                              numbers=numbers),
    }  # fmt: skip


def with_config(layout: tables.Layout, launch: Callable[[], None], config: Config) -> Callable[[], None]:
    """The launch with a configuration of its own, prepared."""
    from soralab.kernels import triton_launch

    layout.prepared.clear()
    triton_launch.config = lambda *_: config
    launch()
    return launch


_READY: dict = {}


def compiles(job: tuple) -> tuple[tuple, bool]:
    """The job, and whether it compiles and starts, in a process of its own; Triton keeps what it compiled."""
    family, dim, direction, config = job
    vars(gpu).update(SMALL)
    try:
        if (family, dim) not in _READY:
            _READY[family, dim] = passes(family, dim)
        layout, launches = _READY[family, dim]
        with_config(layout, launches[direction], config)
        torch.cuda.synchronize()
        return job, True
    except Exception:  # too large for the chip, or Triton cannot
        return job, False


def alike(family: str) -> str:
    """The family that compiles into the same: packed into what dense does, sliding tiles into what windows do."""
    return {"packed": "dense", "sliding": "windows"}.get(family, family)


def compiled(jobs: set[tuple], seconds: float = PATIENCE) -> set[tuple]:
    """The jobs that compile, after so many seconds at most, in a process for each core."""
    end, good = time.monotonic() + seconds, set()
    order = sorted(jobs, key=lambda job: (job[-1].block_q * job[-1].block_k, str(job)))
    with multiprocessing.get_context("spawn").Pool(max(1, (os.cpu_count() or 2) - 1)) as pool:
        done = pool.imap_unordered(compiles, order)
        for _ in order:
            try:
                job, runs = done.next(max(0.1, end - time.monotonic()))
            except multiprocessing.TimeoutError:
                break
            good |= {job} if runs else set()
    return good


def run(seconds: Callable[[Callable], float] | None = None) -> Iterator[str]:
    """The best candidates of each, as lines."""
    from triton.testing import do_bench

    clock = seconds or partial(do_bench, warmup=2, rep=12, quantiles=[0.5])
    good = compiled({(alike(family), dim, direction, config) for dim in (64, 128) for family in FAMILIES
                     for direction in PASSES for config in candidates(family, direction)})  # fmt: skip
    for dim, family in itertools.product((64, 128), FAMILIES):
        layout, launches = passes(family, dim)
        pairs = visited(layout)
        for direction in PASSES:
            times = []
            for config in candidates(family, direction):
                if (alike(family), dim, direction, config) in good:
                    times.append((clock(with_config(layout, launches[direction], config)), config))
            times.sort()
            tera = OPERATIONS[direction] * pairs * dim * gpu.HEADS / 1e9
            best = "; ".join(f"{tuple(c)[:4]} {ms:.3f} ms {tera / ms:.0f} TFLOP/s" for ms, c in times[:4])
            yield f"{family:9s} D {dim:3d} {direction:10s} {best}"


def visited(layout: tables.Layout) -> int:
    """How many pairs of a query and a key the layout has, a diagonal counted half."""
    table = layout.tiles("queries", 64, 64).table.long().cpu()
    own = torch.minimum(table[:, 2] - table[:, 1], torch.tensor(64))
    seen = (table[:, 7] - table[:, 6]) * 64 + (table[:, 9] - table[:, 8]) * tables.piece(64)
    return int((own * torch.minimum(seen, table[:, 4] - table[:, 3])).sum())
