"""The exercises: a folder a chapter, a file an exercise, named after the function that the reader writes.

    from soralab.exercises import exercise

    task = exercise("unet.weight_map")      # as a cell's last line: the statement
    weight_map = task.check(weight_map)     # the reader's function if it is right, else the course's own

`unet/weight_map.py` holds `EXERCISE`, an `Exercise`; `unet/__init__.py` holds `ORDER`, the exercises' names in the
notebook's order. Nothing else lists them. How to write one stands in `soralab.workbook.task`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from soralab.workbook.task import Exercise

__all__ = ["Exercise", "chapters", "course", "exercise", "exercises"]


def chapters() -> list:
    """The chapters that have exercises: entries of `soralab.figures.CHAPTERS`, in the syllabus' order."""
    from soralab.figures.syllabus import CHAPTERS

    folders = _folders()
    return [chapter for chapter in CHAPTERS if chapter.name in folders]


def course() -> dict:
    """{chapter: its exercises} for `chapters()`, all imported: what the boards of `soralab.workbook.board` show."""
    return {chapter: exercises(chapter.name) for chapter in chapters()}


def exercises(chapter: str | None = None) -> list[Exercise]:
    """All exercises, in the course's order, or those of one chapter ("unet").

    Raises ValueError for a chapter without exercises.
    """
    names = [known.name for known in chapters()]
    if chapter is not None and chapter not in names:
        raise ValueError(f"chapter is {chapter!r}; it takes one of {', '.join(names) or '(none has exercises yet)'}")
    return [_load(name, function) for name in names if chapter in (None, name) for function in _order(name)]


def exercise(name: str) -> Exercise:
    """The exercise `name`, such as "unet.weight_map"; no other exercise's file is imported.

    Raises ValueError, with the nearest names, for one that there is not.
    """
    chapter, _, function = str(name).partition(".")
    if chapter in _folders() and function in _order(chapter):
        return _load(chapter, function)
    known = [f"{chapter.name}.{function}" for chapter in chapters() for function in _order(chapter.name)]
    near = [other for other in known if name in (other.partition(".")[0], other.partition(".")[2])]
    near = near or difflib.get_close_matches(str(name), known, 3, 0.5)
    raise ValueError(f"exercise is {name!r}, which there is not; "
                     + (f"nearest: {', '.join(near)}" if near else "`soralab hint` lists all"))


def _folders() -> set[str]:
    """The folders of this folder that can be imported: one a chapter."""
    return {module.name for module in pkgutil.iter_modules(__path__) if module.ispkg}


def _order(chapter: str) -> tuple[str, ...]:
    return importlib.import_module(f"{__name__}.{chapter}").ORDER


def _load(chapter: str, function: str) -> Exercise:
    return importlib.import_module(f"{__name__}.{chapter}.{function}").EXERCISE
