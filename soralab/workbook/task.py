"""One exercise: what the reader sees, how an answer is judged, and wrong answers that the check must refuse.

How to write one. `stub` is a real function with the signature and the docstring that the reader starts from; its
body is `raise NotImplementedError`. `solution` is the course's own. `check(fn)` is a generator that yields probes
`(ok, message)`; the first that is not ok ends it, and its message is what the reader learns, so it names the
misconception. `wrong` holds at least three wrong answers; tests/test_exercises.py shows each of them to the check,
and it must be refused with the words in `says`.

What a check may rely on: torch's, numpy's and Python's global generators start from the same seed at every check
(and are given back untouched), gradients are on, and the reader's function works on copies of the tensors, arrays,
lists and dictionaries that it is called with, so it cannot spoil what the check compares with.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import linecache
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from soralab.workbook import progress, source

MARKS = {"open": "☐ not attempted", "wrong": "✗ not yet", "right": "✓ right"}
LONGEST = 240  # letters of an error's text that are shown
INSTEAD = "  From here on the notebook uses the course's own `{}`."


@dataclass(frozen=True)
class WrongAnswer:
    """A plausible wrong answer. fn: the function; says: part of the message that its reader must be told."""

    fn: Callable
    says: str


@dataclass(frozen=True)
class Verdict:
    """What a check found. state: "open" (not attempted), "wrong" or "right"; message: the misconception, if wrong."""

    state: str
    message: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.state]}: {self.message}" if self.message else MARKS[self.state]


class Exercise:
    """One exercise. All arguments are given by name.

    name: "chapter.function", where `function` is what the reader's function is called.
    title, statement (Markdown): what to do. difficulty: 1 to 3. minutes: about how long it takes.
    hints: three texts (a nudge, the idea, nearly the code).
    stub, solution: functions of the same signature; they may have any name, the reader sees `function`.
    check: generator function, `check(fn)` yields (ok, message). wrong: {name: WrongAnswer}, at least three.
    Raises ValueError for an argument that is not of that kind.
    """

    def __init__(self, *, name: str, title: str, statement: str, difficulty: int, minutes: int,
                 hints: tuple[str, str, str], stub: Callable, solution: Callable,
                 check: Callable[[Callable], Iterator[tuple[bool, str]]], wrong: Mapping[str, WrongAnswer]):
        self.name, self.title, self.statement = name, title, inspect.cleandoc(statement)
        self.difficulty, self.minutes = difficulty, minutes
        self.hints = tuple(inspect.cleandoc(hint) for hint in hints)
        self.stub, self.solution, self.probes, self.wrong = stub, solution, check, dict(wrong)
        if not re.fullmatch(r"[a-z]\w*\.[A-Za-z]\w*", name):
            raise ValueError(f"name is {name!r}; it takes chapter.function, such as unet.weight_map")
        for argument, value in (("title", title), ("statement", statement)):
            if not value.strip():
                raise ValueError(f"{argument} of {name} is empty")
        if difficulty not in (1, 2, 3):
            raise ValueError(f"difficulty of {name} is {difficulty!r}; it takes 1, 2 or 3")
        if not isinstance(minutes, int) or minutes < 1:
            raise ValueError(f"minutes of {name} is {minutes!r}; it takes a whole number from 1")
        if isinstance(hints, str) or len(self.hints) != 3 or not all(self.hints):
            raise ValueError(f"hints of {name} takes three texts: a nudge, the idea, nearly the code")
        if not inspect.isgeneratorfunction(check):
            raise ValueError(f"check of {name} yields nothing; it takes a generator function")
        if len(self.wrong) < 3:
            raise ValueError(f"wrong of {name} has {len(self.wrong)} wrong answers; it takes at least three")

    # ------------------------------------------------------------------------------------------ what the reader sees

    @property
    def chapter(self) -> str:
        """The chapter's name: "unet" of "unet.weight_map"."""
        return self.name.partition(".")[0]

    @property
    def function(self) -> str:
        """What the reader's function is called: "weight_map" of "unet.weight_map"."""
        return self.name.partition(".")[2]

    @property
    def dots(self) -> str:
        """The difficulty as dots: ●●○ is 2 of 3."""
        return "●" * self.difficulty + "○" * (3 - self.difficulty)

    def stub_source(self) -> str:
        """The code that the reader starts from: exactly what the notebook's exercise cell holds."""
        return source.of(self.stub, self.function)

    def solution_source(self) -> str:
        """The course's solution with the imports it needs, so that it runs wherever it is pasted."""
        return source.with_imports(self.solution, self.function)

    def _repr_markdown_(self) -> str:
        return "\n\n".join([
            f"**{self.title}** · `{self.name}` · {self.dots} · {self.minutes} minutes",
            self.statement,
            f"**Hand in** `{self.function}`:",
            f"```python\n{self.stub_source()}\n```",
            f"Stuck? In a terminal, `soralab hint {self.name}` gives one hint after the other, three in all.",
        ])

    def __repr__(self) -> str:
        return f"Exercise {self.name}: {self.title} ({self.dots}, {self.minutes} minutes)"

    # --------------------------------------------------------------------------------------------------- the check

    def check(self, fn: Callable) -> Callable:
        """Judge `fn`, print the verdict, record it; return `fn` if it is right, else the course's own."""
        verdict = self.judge(fn)
        lines = [str(verdict)]
        if verdict.state != "right":
            lines.append(INSTEAD.format(self.function))
        if verdict.state != "open":
            problem = progress.note_try(self.name, verdict.state == "right")
            lines += [f"  ({problem})"] if problem else []
        _say("\n".join(lines))
        return fn if verdict.state == "right" else self.solution

    def judge(self, fn: Callable) -> Verdict:
        """The verdict on `fn`; nothing is printed or recorded. What `fn` raises becomes a message."""
        if not callable(fn):
            return Verdict("wrong", f"`{self.function}` is {_what(fn)}, not a function. Hand in the function itself: "
                           "its name without brackets behind it.")
        given = []  # what `fn` gave back, the last one only
        raised = []  # what it raised
        asked = 0
        try:
            with _same_start(), contextlib.closing(self.probes(_on_copies(fn, given, raised))) as probes:
                for ok, message in probes:
                    asked += 1
                    if not bool(ok):
                        return Verdict("wrong", message)
        except NotImplementedError as error:
            if _says_not_attempted(error, fn):
                return Verdict("open")
            return Verdict("wrong", self._trouble(error, fn, given, raised))
        except Exception as error:
            return Verdict("wrong", self._trouble(error, fn, given, raised))
        if not asked:
            raise ValueError(f"check of {self.name} asked nothing")
        return Verdict("right")

    def _trouble(self, error: Exception, fn: Callable, given: list, raised: list) -> str:
        """In words: the error, and whether `fn` stopped or the check could not use what `fn` gave back."""
        text = " ".join(str(error).split())
        text = text[:LONGEST] + "…" if len(text) > LONGEST else text
        error_text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        place = _place(error, fn)
        mine = any(error is other for other in raised)  # not `in`: errors may compare oddly
        if mine or (place and fn.__module__ != self.probes.__module__):
            return f"your code stops with {error_text}{place}"
        if given and given[0] is None:
            return f"`{self.function}` gives back None: is there a `return` at its end? ({error_text})"
        back = _what(given[0]) if given else "nothing"
        return f"`{self.function}` gives back {back}, which the check cannot use ({error_text})"


def _on_copies(fn: Callable, given: list, raised: list) -> Callable:
    """`fn`, called with copies; its last result goes into `given`, its last exception into `raised`."""

    def call(*args, **options):
        args, options = _copied(list(args)), _copied(options)
        try:
            given[:] = [fn(*args, **options)]
        except Exception as error:
            raised[:] = [error]
            raise
        return given[0]

    with contextlib.suppress(AttributeError, TypeError):  # a partial or an object has no name to take over
        functools.update_wrapper(call, fn, updated=())
    return call


def _copied(value):
    """Tensors, arrays, lists, tuples and dictionaries anew; a Parameter, a module or a generator as it is."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value if isinstance(value, torch.nn.Parameter) else value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


@contextlib.contextmanager
def _same_start() -> Iterator[None]:
    """Fixed seeds and gradients on inside; afterwards every global generator as it was."""
    import numpy as np
    import torch

    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(0)  # the processor's alone: torch.manual_seed would touch a GPU's too
    np.random.seed(0)
    random.seed(0)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def _steps(error: BaseException) -> list:
    """The traceback's entries, outermost first."""
    steps, step = [], error.__traceback__
    while step is not None:
        steps.append(step)
        step = step.tb_next
    return steps


def _says_not_attempted(error: NotImplementedError, fn: Callable) -> bool:
    """Whether a `raise` in the reader's own code made it: torch raises the same class for a type it cannot add up."""
    last = _steps(error)[-1]
    code = last.tb_frame.f_code.co_code
    by_raise = dis.opname[code[last.tb_lasti]] == "RAISE_VARARGS"
    return by_raise and last.tb_frame.f_globals.get("__name__") == getattr(fn, "__module__", None)


def _place(error: Exception, fn: Callable) -> str:
    """", line 3 of the cell: `x = y`": the last line of the reader's module that was being run, or ""."""
    mine = [step for step in _steps(error) if step.tb_frame.f_globals.get("__name__") == getattr(fn, "__module__", 0)]
    if not mine:
        return ""
    frame, line = mine[-1].tb_frame, mine[-1].tb_lineno
    text = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    return f", line {line}: `{text}`" if text else f", line {line}"


def _what(value) -> str:
    """A value's kind in words: "a tensor [3, 4] of float32", "None", "a tuple"."""
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "tensor" if type(value).__module__.startswith("torch") else "array"
        return f"a {kind} {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _say(text: str) -> None:
    """Print, also on a console that does not know every letter."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
