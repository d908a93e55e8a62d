"""`soralab train`: a model of the course, trained by its recipe and measured; on real data by SORALAB_DATASET, and
under torchrun by many processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    train = verb(verbs, "train", "train a model of the course (resumes where it was stopped)")
    train.add_argument("name", help="such as unet or sora; a wrong one lists them all")
    train.add_argument("--steps", type=count(1, 10**7), help="in all (default: the recipe's)")
    train.add_argument("--folder", type=Path, help="where the checkpoint goes (default: runs/NAME)")
    train.add_argument("--accumulate", type=count(1, 10**4), metavar="K",
                       help="each process takes its batch in K parts, one after the other: less memory")  # fmt: skip
    return train


def run(options) -> None:
    """Train it, and say where the checkpoint lies. The first process measures and saves, the others only train."""
    from soralab.datasets.registry import chosen
    from soralab.experiments import EXPERIMENTS, finish
    from soralab.files.atomic import check_writable, make_folder
    from soralab.files.lock import alone
    from soralab.recipes import RECIPES, RUNS, recipe
    from soralab.training.distributed import team

    if chosen():
        print(_on_real(options, chosen()))
        return
    name, folder = options.name, options.folder or RUNS / options.name
    if name in set(EXPERIMENTS) - set(RECIPES):
        raise ValueError(f"NAME is {name!r}, which has nothing to train: it is code alone")
    train = recipe(name).train
    with contextlib.ExitStack() as held:
        with team(options.accumulate) as mine:
            if mine.leads:
                for each in (folder, RUNS / name):
                    check_writable(make_folder(each) / name)  # told now, not after hours of training
                held.enter_context(alone(RUNS / name, "command"))
            trained = train(name, options.steps)
        if mine.leads:
            print(f"saved {finish(name, trained, folder)}")


def _on_real(options, real) -> str:
    """The table of a training on the set that SORALAB_DATASET names."""
    from soralab.experiments.real import chapter, make, place
    from soralab.files.atomic import check_writable, make_folder
    from soralab.files.lock import alone

    chapter(options.name, real)
    folder = make_folder(options.folder or place(options.name, real))
    check_writable(folder / "found.json")
    with alone(folder, "command"):
        return make(options.name, real, folder, options.steps)
