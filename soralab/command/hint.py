"""`soralab hint`: an exercise's next hint, or the list of all exercises."""

from __future__ import annotations

import sys

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    hint = verb(verbs, "hint", "give the next hint of an exercise; without a name list all exercises")
    hint.add_argument("name", nargs="?", help="such as unet.weight_map")
    which = hint.add_mutually_exclusive_group()
    which.add_argument("--tier", type=count(1, 3), help="1 a nudge, 2 the idea, 3 nearly the code (default: the next)")
    which.add_argument("--all", action="store_true", help="all three")
    return hint


def run(options) -> None:
    """Print the hint, or the list."""
    from soralab.exercises import course, exercise
    from soralab.workbook import board, steps

    if options.name is None:
        if options.tier or options.all:
            raise ValueError("NAME is missing: --tier and --all take the name of an exercise before them")
        print(board.list_exercises(course()))
        return
    task = exercise(options.name)
    text, problem = steps.give_hint(task.name, task.hints, options.tier, options.all)
    print(text)
    if problem:
        print(f"soralab: {problem}", file=sys.stderr)
