"""What each chapter measures with its trained model and writes on the checkpoint's card, one file a chapter.

`experiments/NAME.py` has `metrics(name, trained)`, the card's own table, and `evaluate(name, checkpoint)`, which
`soralab evaluate NAME` prints. How a chapter judges is in NAME_scores.py; an experiment that is long has a file of its
own, such as `vit_crossing.py`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from soralab.files.catalogue import IN_EIGHT_BITS
from soralab.recipes import RECIPES, RUNS, Trained, recipe

EXPERIMENTS = {**RECIPES, "referee": "referee"}  # the referee is code: it is measured, and there is nothing to train


def experiment(name: str):
    """The module that measures a checkpoint, or the referee. Raises ValueError for a name that there is none of."""
    if name not in EXPERIMENTS:
        raise ValueError(f"NAME is {name!r}; it takes one of {', '.join(EXPERIMENTS)}")
    return importlib.import_module(f"soralab.experiments.{EXPERIMENTS[name]}")


def make(name: str, folder: Path | None = None, steps: int | None = None) -> Path:
    """Train by the recipe, or go on with it, measure, and save as folder/NAME (runs/NAME/NAME); returns the path.

    The checkpoint is written last and whole: whatever stops before, a training or an experiment, leaves none, and the
    next call goes on from there. Raises ValueError for a name without a recipe.
    """
    return finish(name, recipe(name).train(name, steps), folder or RUNS / name)


def finish(name: str, trained: Trained, folder: Path) -> Path:
    """Measure what a recipe trained, and save it as folder/NAME; returns the path."""
    from soralab.files.eight_bits import pack, unpack
    from soralab.training.profiles import device

    if name in IN_EIGHT_BITS:  # what is measured is what is shipped
        trained.model.load_state_dict(unpack(pack(trained.model.state_dict())))
    trained.model.to(device())
    metrics = experiment(name).metrics(name, trained)
    card = {**trained.card, "command": f"soralab train {name}", "metrics": metrics}
    return publish(folder / name, trained.model.state_dict(), card)


def publish(path: str | Path, tensors: dict, card: dict) -> Path:
    """Save a trained model's weights with a card that says what it is and how it was made.

    In half precision; those of `IN_EIGHT_BITS` with a byte a weight for matrices and kernels.
    """
    import torch

    from soralab.files.checkpoints import save_checkpoint
    from soralab.training.profiles import hardware

    eight = Path(path).stem in IN_EIGHT_BITS
    small = {
        key: value.to(torch.float16) if value.is_floating_point() and not (eight and value.ndim > 1) else value
        for key, value in tensors.items()
    }
    return save_checkpoint(path, small, {**card, "hardware": hardware()}, eight_bits=eight)
