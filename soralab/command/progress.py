"""`soralab progress`: which exercises are solved, by one reader or by a group."""

from __future__ import annotations

import sys

from soralab.command.arguments import verb


def declare(verbs):
    """Its arguments; returns its parser."""
    progress = verb(verbs, "progress", "show which exercises are solved: yours, or a group's from its records")
    progress.add_argument("records", nargs="*", help="files that --export wrote; they are merged into a group's board")
    progress.add_argument("--export", metavar="FILE", help="write your record, for a group's board")
    progress.add_argument("--name", help="what the board calls you (default: your login name)")
    return progress


def run(options) -> None:
    """Print a table or a group's board, or write the reader's record."""
    from soralab.exercises import course
    from soralab.workbook import board, progress

    if options.records:
        if options.export or options.name:
            raise ValueError("--export and --name are about your own record: give them without other records")
        people = progress.merge([progress.read(path) for path in options.records])
        print(board.group_board(people, course()))
        return
    problem, said = "", None
    if options.export is not None:
        record, problem = progress.export(options.export, options.name)
        said = f"{options.export}: the record of {record.name}"
    elif options.name is not None:
        problem = progress.rename(options.name)
    if problem:
        print(f"soralab: {problem}", file=sys.stderr)
    print(said or board.own_table(progress.own_record(), course()))
