"""`soralab evaluate`: a shipped model, or the referee, measured now."""

from __future__ import annotations

from soralab.command.arguments import verb


def declare(verbs):
    """Its arguments; returns its parser."""
    evaluate = verb(verbs, "evaluate", "measure a shipped model on what it never saw")
    evaluate.add_argument("name", help="such as sora or referee; a wrong one lists them all")
    evaluate.add_argument("--checkpoint", help="the path of your own instead")
    return evaluate


def run(options) -> None:
    """Print its table; of the set that SORALAB_DATASET names, beside the world's."""
    from soralab.datasets.registry import SWITCH, chosen
    from soralab.experiments import experiment

    if chosen():
        from soralab.experiments.real import evaluate

        if options.checkpoint:
            raise ValueError(f"--checkpoint is {options.checkpoint!r}, which was trained on the world: unset {SWITCH}")
        print(evaluate(options.name, chosen()))
        return

    print(experiment(options.name).evaluate(options.name, options.checkpoint))
