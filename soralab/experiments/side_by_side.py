"""Many measurements at once: a process with one thread for each core is done sooner than one process with all of them,
since the referee, the renderer and much between a network's layers use one core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor

import torch

from soralab.training.profiles import by_profile, cores, device
from soralab.training.progress import progress

MOST = 8  # processes: each holds the model
_work: Mapping[str, Callable] = {}  # of this process


def side_by_side(
    build: Callable[[], Mapping[str, Callable]], titles: Iterable[str], processes: int | None = None
) -> dict:  # fmt: skip
    """{title: what build()[title]() finds}, in the order of `titles`.

    processes: one for each core (on a GPU, and in the smoke profile, one in all). Each calls `build`, which must be
    picklable, once. With one, nothing is started and all is measured here.
    """
    titles = list(titles)
    every = 1 if device().type != "cpu" else cores() or 1
    if (count := min(processes or by_profile(smoke=1, laptop=every, gpu=every), len(titles), MOST)) < 2:
        work = build()
        return {title: work[title]() for title in titles}
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(build,))
    try:
        found = pool.map(_measure, titles)
        return dict(zip(titles, progress(found, total=len(titles), desc="measuring", unit="part"), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(build: Callable[[], Mapping[str, Callable]]) -> None:
    os.environ["TQDM_DISABLE"] = "1"  # the bar is the parent's
    torch.set_num_threads(1)
    _work.update(build())


def _measure(title: str):
    return _work[title]()
