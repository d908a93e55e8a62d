"""TUTOR.md tells a reader's assistant what is true: commands that there are, rooms that there are, three hints each."""

import re
import shlex
from pathlib import Path

import pytest

from soralab.command import _parser
from soralab.exercises import course
from soralab.sessions.guide import show

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "TUTOR.md").read_text(encoding="utf-8")
STANDS_FOR = {"CHAPTER.FUNCTION": "unet.weight_map", "CHAPTER": "unet", "FUNCTION": "weight_map", "NUMBER": "1"}


def filled(text):
    for word, value in STANDS_FOR.items():
        text = text.replace(word, value)
    return text


def commands(page):
    return re.findall(r"`(soralab [^`]+)`", page)


def test_every_command_is_one():
    found = commands(PAGE)
    assert {command.split()[1] for command in found} >= {"progress", "hint", "session", "doctor"}
    for command in found:
        _parser().parse_args(shlex.split(filled(command))[1:])
    with pytest.raises(SystemExit):
        _parser().parse_args(["hints"])


def test_every_file_is_there():
    paths = re.findall(r"`((?:soralab|notebooks|data|tests)/[^`]+)`", PAGE)
    assert len(paths) >= 2
    for path in paths:
        assert (ROOT / filled(path)).exists(), path
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / link).exists(), link


def test_each_exercise_has_what_the_page_says_it_has():
    tasks = [task for tasks in course().values() for task in tasks]
    assert len(tasks) > 50
    for task in tasks:
        assert len(task.hints) == 3 and callable(task.stub) and callable(task.solution), task.name
        assert task.mistakes or task.wrong, task.name
        assert (ROOT / "soralab" / "exercises" / (task.name.replace(".", "/") + ".py")).exists()
    for part in ("`stub`", "`hints`", "`mistakes`", "`solution`"):
        assert part in PAGE
    assert "misconception" in show(1, "questions").lower()


def test_it_gives_no_solution_away():
    """No line of a solution's body of any length stands on the page."""
    import inspect

    words = " ".join(PAGE.split())
    for tasks in course().values():
        for task in tasks:
            lines = inspect.getsource(task.solution).split('"""')[-1].splitlines()[1:]
            assert not [line for line in map(str.strip, lines) if len(line) > 20 and line in words], task.name


def test_what_the_check_and_the_record_say_is_quoted_rightly():
    from soralab.workbook import progress, task

    for mark in re.findall(r"[✓✗☐] [a-z ]+(?=\")", PAGE):
        assert mark in task.MARKS.values(), mark
    assert "progress.json" in PAGE and "progress.json" in (progress.__doc__ or "")
