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
    """Print its table."""
    from soralab.experiments import experiment

    print(experiment(options.name).evaluate(options.name, options.checkpoint))
