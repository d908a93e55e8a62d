"""The tables that `soralab hint` and `soralab progress` print.

Their `course` is what `soralab.exercises.course()` gives: {chapter: its exercises}.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from soralab.workbook.progress import Record
from soralab.workbook.task import Exercise

Course = Mapping  # of an entry of soralab.figures.CHAPTERS to its exercises, in the notebook's order


def list_exercises(course: Course) -> str:
    """All exercises by chapter: name, difficulty, minutes, title."""
    lines = []
    for chapter, tasks in course.items():
        lines += ["", f"{chapter.number:02d} {chapter.title}"]
        width = max((len(task.name) for task in tasks), default=0)
        lines += [f"  {task.name:{width}}  {task.dots}  {task.minutes:3d} min  {task.title}" for task in tasks]
    if not lines:
        return "no chapter has exercises yet"
    return "\n".join([*lines[1:], "", "a hint: soralab hint NAME"])


# ------------------------------------------------------------------------------------------------------ progress


def own_table(record: Record, course: Course) -> str:
    """One person's record: a table per chapter (exercise, difficulty, minutes, state, hints) and the totals."""
    lines, everything = [], _all(course)
    width = max((len(task.function) for task in everything), default=0)
    for chapter, tasks in course.items():
        lines += ["", f"{chapter.number:02d} {chapter.title}"]
        for task in tasks:
            state, hints = _state(record, task.name)
            lines.append(f"  {task.function:{width}}  {task.dots}  {task.minutes:3d} min  {state:22}  {hints}".rstrip())
    solved = [task for task in everything if record.solved(task.name)]
    minutes = f"{sum(task.minutes for task in solved)} of {sum(task.minutes for task in everything)} minutes' worth"
    return "\n".join([f"{record.name}: {len(solved)} of {len(everything)} exercises solved, {minutes}", *lines,
                      *_strangers([record], course)])


def _all(course: Course) -> list[Exercise]:
    return [task for tasks in course.values() for task in tasks]


def _state(record: Record, name: str) -> tuple[str, str]:
    entry = record.entry(name)
    tries = f"{entry.tries} {'try' if entry.tries == 1 else 'tries'}" if entry.tries else ""
    state = ", ".join(part for part in (f"✓ {entry.passed}" if entry.passed else "", tries) if part) or "–"
    hints = f"{'hint' if len(entry.hints) == 1 else 'hints'} {', '.join(map(str, entry.hints))}"
    return state, hints if entry.hints else ""


def group_board(records: list[Record], course: Course) -> str:
    """Several people's: a row a person, a column a chapter, a dot an exercise, filled where it is solved.

    records: one a person, as `progress.merge` gives them.
    """
    total = len(_all(course))
    rows = [["", *(f"{chapter.number:02d}" for chapter in course), "solved"]]
    for record in records:
        solved = sum(record.solved(task.name) for column in course.values() for task in column)
        dots = ("".join("●" if record.solved(task.name) else "○" for task in column) for column in course.values())
        rows.append([record.name, *dots, f"{solved} of {total}"])
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(_padded, row, widths)).rstrip() for row in rows]
    names = ", ".join(f"{chapter.number:02d} {chapter.title}" for chapter in course)
    return "\n".join([*lines, "", names, *_strangers(records, course)])


def _strangers(records: list[Record], course: Course) -> list[str]:
    """A line on entries of exercises that this version of the course does not have."""
    known = {task.name for task in _all(course)}
    strange = sorted({name for record in records for name in record.entries} - known)
    some = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
    return ["", f"not shown, as this version of the course has no such exercise: {some}"] if strange else []


def _width(text: str) -> int:
    """The columns that a text takes in a terminal: marks above a letter take none, wide letters two."""
    return sum(
        0 if unicodedata.category(letter) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
