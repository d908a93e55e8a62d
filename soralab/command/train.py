"""`soralab train`: a model of the course, trained by its recipe and measured; on real data by SORALAB_DATASET."""

from __future__ import annotations

from pathlib import Path

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    train = verb(verbs, "train", "train a model of the course (resumes where it was stopped)")
    train.add_argument("name", help="such as unet or sora; a wrong one lists them all")
    train.add_argument("--steps", type=count(1, 10**7), help="in all (default: the recipe's)")
    train.add_argument("--folder", type=Path, help="where the checkpoint goes (default: runs/NAME)")
    return train


def run(options) -> None:
    """Train it, and say where the checkpoint lies."""
    from soralab.datasets.registry import chosen
    from soralab.experiments import EXPERIMENTS, make
    from soralab.files.atomic import check_writable, make_folder
    from soralab.files.lock import alone
    from soralab.recipes import RECIPES, RUNS, recipe

    if chosen():
        print(_on_real(options, chosen()))
        return
    if options.name in set(EXPERIMENTS) - set(RECIPES):
        raise ValueError(f"NAME is {options.name!r}, which has nothing to train: it is code alone")
    recipe(options.name)
    for folder in (options.folder or RUNS / options.name, RUNS / options.name):
        check_writable(make_folder(folder) / options.name)  # told now, not after hours of training
    with alone(RUNS / options.name, "command"):
        print(f"saved {make(options.name, options.folder, options.steps)}")


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
