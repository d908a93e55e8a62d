"""The exercises: one file a chapter, each exercise one object with its stub, hints, check, solution, wrong answers.

    from soralab.exercises import exercise

    task = exercise("unet.weight_map")      # as a cell's last line: the statement
    weight_map = task.check(weight_map)     # the reader's function if it is right, else the course's own

A chapter's file holds `EXERCISES`, a tuple of `Exercise` in the notebook's order. Nothing else lists them: a file
named as its chapter is found because it is there (`chapters`). How to write one stands in `task.py`; what a reader
solved is kept by `progress.py` and shown by `board.py`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from soralab.exercises.task import Exercise, Verdict, WrongAnswer

__all__ = ["Exercise", "Verdict", "WrongAnswer", "chapters", "exercise", "exercises"]


def chapters() -> list:
    """The chapters that have exercises: entries of `soralab.figures.CHAPTERS`, in the syllabus' order."""
    from soralab.figures.syllabus import CHAPTERS

    files = _files()
    return [chapter for chapter in CHAPTERS if chapter.name in files]


def exercises(chapter: str | None = None) -> list[Exercise]:
    """All exercises, in the course's order, or those of one chapter ("unet").

    Raises ValueError for a chapter without exercises.
    """
    names = [known.name for known in chapters()]
    if chapter is not None and chapter not in names:
        raise ValueError(f"chapter is {chapter!r}; it takes one of {', '.join(names) or '(none has exercises yet)'}")
    return [task for name in names if chapter in (None, name) for task in _load(name)]


def exercise(name: str) -> Exercise:
    """The exercise `name`, such as "unet.weight_map"; only its chapter's file is imported.

    Raises ValueError, with the nearest names, for one that there is not.
    """
    chapter = str(name).partition(".")[0]
    for task in _load(chapter) if chapter in _files() else ():
        if task.name == name:
            return task
    known = [task.name for task in exercises()]
    near = [other for other in known if name in (other.partition(".")[0], other.partition(".")[2])]
    near = near or difflib.get_close_matches(str(name), known, 3, 0.5)
    raise ValueError(f"exercise is {name!r}, which there is not; "
                     + (f"nearest: {', '.join(near)}" if near else "`soralab hint` lists all"))


def _files() -> set[str]:
    """The files and folders of this folder that can be imported, chapters' and others."""
    return {module.name for module in pkgutil.iter_modules(__path__)}


def _load(chapter: str) -> tuple[Exercise, ...]:
    return getattr(importlib.import_module(f"{__name__}.{chapter}"), "EXERCISES", ())
