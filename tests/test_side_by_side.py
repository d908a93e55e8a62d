"""Measuring in several processes finds what one finds, once each, in the order asked."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_full import tiny_filmmaker

from soralab.experiments import side_by_side as module
from soralab.experiments.side_by_side import side_by_side
from soralab.experiments.sora_full import keeping, work_on
from soralab.training import profiles


def build(folder: Path, titles: str):
    """Work that tells where and how it is done: built once a process, done once a title."""
    (folder / f"built_{os.getpid()}").touch(exist_ok=False)

    def done(title):
        (folder / f"done_{title}").touch(exist_ok=False)
        return title, os.getpid(), torch.get_num_threads(), os.environ.get("TQDM_DISABLE")

    return {title: partial(done, title) for title in titles}


def fails():
    return {"a": lambda: 1, "b": lambda: 1 / 0, "c": lambda: 3}


def test_two_processes_share_the_work_and_one_starts_none(tmp_path, monkeypatch):
    for library in ("OMP", "MKL"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")  # what a process would have by itself
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for processes in (2, 1):
        (folder := tmp_path / str(processes)).mkdir()
        found = side_by_side(partial(build, folder, "fedcba"), "fdeba", processes)
        assert list(found) == [title for title, *_ in found.values()] == list("fdeba")
        assert len(list(folder.glob("done_*"))) == 5 and len(list(folder.glob("built_*"))) == processes
        who = {pid for _, pid, _, _ in found.values()}
        assert who == {os.getpid()} if processes == 1 else os.getpid() not in who
        if processes == 2:
            assert {(threads, bar) for *_, threads, bar in found.values()} == {(1, "1")}


def test_the_models_own_films_are_the_same_in_two_processes(tmp_path):
    maker, titles = tiny_filmmaker(), ["simple", "true films, simple", "simple, in 4 steps"]
    there = side_by_side(partial(keeping, tmp_path, maker, 1), titles, 2)
    assert there == {title: work_on(maker, 1)[title]() for title in titles}
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["simple", "simple_in_4_steps", "true_films_simple"]


def test_what_fails_in_a_process_fails_here():
    with pytest.raises(ZeroDivisionError):
        side_by_side(fails, "abc", 2)


def test_a_process_for_each_core_but_one_on_a_gpu_and_in_the_smoke_profile(monkeypatch):
    started = []

    class Pool:
        def __init__(self, count, **_):
            started.append(count)

        def map(self, measure, titles):
            return titles

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(module, "cores", lambda: 3)
    where = torch.device("cpu")
    monkeypatch.setattr(module, "device", lambda: where)
    work = {title: title.upper for title in "abcdefghijklm"}
    for profile in profiles.PROFILES:
        monkeypatch.setenv("SORALAB_PROFILE", profile)
        side_by_side(lambda: work, work)
        side_by_side(lambda: work, "ab")
    assert started == [3, 2, 3, 2]
    monkeypatch.setattr(module, "cores", lambda: 64)
    side_by_side(lambda: work, work)
    monkeypatch.setattr(module, "cores", lambda: None)
    side_by_side(lambda: work, work)
    monkeypatch.setattr(module, "cores", lambda: 64)
    where = torch.device("cuda")
    assert side_by_side(lambda: work, "ab") == {"a": "A", "b": "B"}
    assert started[4:] == [module.MOST]
