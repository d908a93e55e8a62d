"""`soralab evaluate`: a shipped model, or the referee, measured now."""

from __future__ import annotations

from soralab.command.arguments import verb


def declare(verbs):
    """Its arguments; returns its parser."""
    evaluate = verb(verbs, "evaluate", "measure a shipped model on what it never saw")
    evaluate.add_argument("name", help="such as sora or referee; a wrong one lists them all")
    evaluate.add_argument("--checkpoint", help="the path of your own instead")
    evaluate.add_argument("--all", action="store_true", help="every checkpoint whose name begins with NAME, in turn")
    return evaluate


def run(options) -> None:
    """Print its table; of the set that SORALAB_DATASET names, beside the world's."""
    from soralab.datasets.registry import SWITCH, chosen
    from soralab.experiments import experiment

    if options.checkpoint == "":
        raise ValueError("--checkpoint is empty: give a name or a path, or leave it out")
    if options.all:
        other = "--checkpoint" if options.checkpoint else SWITCH if chosen() else None
        if other:
            raise ValueError(f"--all is of the course's own, on its own films, and {other} names others: leave one out")
        for name in family(options.name):
            print(f"\n{name}\n{'-' * len(name)}\n{experiment(name).evaluate(name)}", flush=True)
        return
    if chosen():
        from soralab.experiments.real import evaluate

        if options.checkpoint:
            raise ValueError(f"--checkpoint is {options.checkpoint!r}, which was trained on the world: unset {SWITCH}")
        print(evaluate(options.name, chosen()))
        return

    print(experiment(options.name).evaluate(options.name, options.checkpoint))


def family(name: str) -> list[str]:
    """A checkpoint, and the others whose names begin with its: those whose weights are here. Raises ValueError for a
    name that there is none of."""
    from soralab.experiments import EXPERIMENTS, experiment
    from soralab.files.checkpoints import held_paths

    experiment(name)
    return [other for other in EXPERIMENTS
            if other == name or other.startswith(f"{name}_") and held_paths(other)[0].exists()]  # fmt: skip
