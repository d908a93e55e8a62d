"""`soralab train`: a model of the course, trained by its recipe and measured; on real data by SORALAB_DATASET, and
under torchrun by many processes."""

from __future__ import annotations

import contextlib
import inspect
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
    train.add_argument("--stream", type=Path, metavar="FOLDER", help="learn from the films in its .tar shards "
                       "(sora, sora_pixels, sora_autoencoder; see soralab.datasets.film_shards)")  # fmt: skip
    train.add_argument("--shard", action="store_true", help="under torchrun: each process keeps a part of the weights")
    return train


def run(options) -> None:
    """Train it, and say where the checkpoint lies. The first process measures and saves, the others only train."""
    from soralab.datasets.registry import chosen
    from soralab.experiments import EXPERIMENTS, finish
    from soralab.files.atomic import check_writable, new_folder
    from soralab.files.lock import alone
    from soralab.recipes import RECIPES, RUNS, recipe
    from soralab.training.distributed import team

    if chosen():
        print(_on_real(options, chosen()))
        return
    name, folder = options.name, options.folder or RUNS / options.name
    if name in set(EXPERIMENTS) - set(RECIPES):
        raise ValueError(f"NAME is {name!r}, which has nothing to train: it is code alone")
    train, more = recipe(name).train, {"stream": options.stream} if options.stream else {}
    if not more.keys() <= inspect.signature(train).parameters.keys():
        raise ValueError(f"stream takes sora, sora_pixels or sora_autoencoder; {name} draws its own examples")
    with contextlib.ExitStack() as held:
        with team(options.accumulate, options.shard) as mine:
            if mine.leads:
                for each in (folder, RUNS / name):
                    check_writable(held.enter_context(new_folder(each)) / name)  # told now, not after hours of training
                held.enter_context(alone(RUNS / name, "command"))
            trained = train(name, options.steps, **more)
        if mine.leads:
            print(f"saved {finish(name, trained, folder)}")


def _on_real(options, real) -> str:
    """The table of a training on the set that SORALAB_DATASET names, by one process and in one part."""
    from soralab.experiments.real import chapter, make, place
    from soralab.files.atomic import check_writable, new_folder
    from soralab.files.lock import alone
    from soralab.training.distributed import processes

    if processes() > 1 or options.accumulate or options.stream or options.shard:
        raise ValueError(f"SORALAB_DATASET is {real.name}, which one process learns from in one part: leave out "
                         "torchrun, --accumulate, --stream and --shard, or unset it")  # fmt: skip
    chapter(options.name, real)
    with new_folder(options.folder or place(options.name, real)) as folder:
        check_writable(folder / "found.json")
        with alone(folder, "command"):
            return make(options.name, real, folder, options.steps)
