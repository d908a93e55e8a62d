"""One exercise: what the reader sees, how an answer is judged, and wrong answers that must be refused.

How to write one stands in CONTRIBUTING.md, and `soralab/exercises/unet/crop_and_concat.py` is the model. The usual
exercise is a pure function: `cases()` yields the arguments to ask with, `solution` tells what is right, `mistakes`
are wrong functions with the misconception that each shows. A mistake's message is given only if the answer equals
that mistake on all cases. What is no pure function, or what the statement forbids, is asked by a generator `check(fn)`
that yields probes `(ok, message)`; the first that is not ok ends it. An exercise has either, or both.

For all of them: torch's, numpy's and Python's global generators start from the same seed (and are given back
untouched), gradients are on, the answer works on copies, it must leave its arguments as they were, and gradients must
flow through it as they flow through the solution.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from soralab.workbook import gradients, progress, source, steps, watch, words
from soralab.workbook.compare import difference
from soralab.workbook.watch import Watched, copied, same_start

MARKS = {"open": "☐ not attempted", "wrong": "✗ not yet", "right": "✓ right", "own": "☐ not yours"}
INSTEAD = "  From here on the notebook uses the course's own `{}`."
OWN = "`{}` is the course's own here, since the check before handed it over: run your own cell again, then this one."
CHANGED = ("what you return is right, but `{}` is no longer what was handed in. Whoever calls the function goes on "
           "using it: work on a copy, or without changes in place.")
COMPARE = "Compare your code with the course's own, folded below."


@dataclass(frozen=True)
class WrongAnswer:
    """A plausible wrong answer. fn: the function; says: part of the message that its reader must be told."""

    fn: Callable
    says: str


@dataclass(frozen=True)
class Mistake:
    """A misconception. fn: the function that has it; says: what its reader is told, a whole sentence or more."""

    fn: Callable
    says: str


@dataclass(frozen=True)
class Case:
    """One call. args: the arguments; note: what is special about them, as "an odd difference", or ""."""

    args: tuple
    note: str = ""


class NotHere(Exception):
    """What a check needs is not on this machine. Its text says what, and where to get it."""


@dataclass(frozen=True)
class Verdict:
    """What a check found. state: "open" (not attempted), "wrong", "right", "own" (the course's own was handed in)."""

    state: str
    message: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.state]}: {self.message}" if self.message else MARKS[self.state]


class Exercise:
    """One exercise. All arguments are given by name.

    name: "chapter.function", where `function` is what the reader's function is called.
    title, statement (Markdown): what to do. difficulty: 1 to 3. minutes: about how long it takes.
    hints: three texts (a nudge, the idea, nearly the code). compare: what is worth comparing in the solution.
    stub, solution: functions of the same signature; they may have any name, the reader sees `function`.
    call: how an answer is called with a case's arguments, if not as `answer(*arguments)`: `call(answer, *arguments)`.
        It may raise `NotHere`, which leaves the exercise open.
    cases: generator function of the calls to ask with, each a `Case` or a tuple of arguments. It may draw from the
        global generators, which are seeded; draw sizes too, and include the odd, smallest, largest, negative, empty.
    mistakes: {name: Mistake}, each other than the solution on some case. tolerance: see `compare.difference`.
    check: generator function, `check(fn)` yields (ok, message); asked after the cases.
    wrong: {name: WrongAnswer}, further wrong answers. Mistakes and wrong answers are at least three together.
    in_place: whether the function is meant to change its arguments. gradients: whether, where the solution lets
        gradients through to a tensor, the answer must too, and the same ones.
    Raises ValueError for an argument that is not of that kind.
    """

    def __init__(self, *, name: str, title: str, statement: str, difficulty: int, minutes: int,
                 hints: tuple[str, str, str], stub: Callable, solution: Callable,
                 cases: Callable[[], Iterator[Case | tuple]] | None = None,
                 mistakes: Mapping[str, Mistake] | None = None, tolerance: float = 1e-4,
                 check: Callable[[Callable], Iterator[tuple[bool, str]]] | None = None,
                 wrong: Mapping[str, WrongAnswer] | None = None, in_place: bool = False, gradients: bool = True,
                 compare: str = "", call: Callable | None = None):
        self.name, self.title, self.statement = name, title, inspect.cleandoc(statement)
        self.difficulty, self.minutes, self.compare = difficulty, minutes, compare
        self.hints = tuple(inspect.cleandoc(hint) for hint in hints)
        self.stub, self.solution, self.tolerance = stub, solution, tolerance
        self.cases, self.mistakes = cases, dict(mistakes or {})
        self.probes, self.wrong = check, dict(wrong or {})
        self.in_place, self.gradients, self.call = in_place, gradients, call
        self._refuse_slips(hints)

    def _refuse_slips(self, hints) -> None:
        name = self.name
        if not re.fullmatch(r"[a-z]\w*\.[A-Za-z]\w*", name):
            raise ValueError(f"name is {name!r}; it takes chapter.function, such as unet.weight_map")
        for argument, value in (("title", self.title), ("statement", self.statement)):
            if not value.strip():
                raise ValueError(f"{argument} of {name} is empty")
        if self.difficulty not in (1, 2, 3):
            raise ValueError(f"difficulty of {name} is {self.difficulty!r}; it takes 1, 2 or 3")
        if not isinstance(self.minutes, int) or self.minutes < 1:
            raise ValueError(f"minutes of {name} is {self.minutes!r}; it takes a whole number from 1")
        if isinstance(hints, str) or len(self.hints) != 3 or not all(self.hints):
            raise ValueError(f"hints of {name} takes three texts: a nudge, the idea, nearly the code")
        if self.cases is None and self.probes is None:
            raise ValueError(f"cases of {name} is missing, and so is check: it takes one of the two")
        for argument, value in (("cases", self.cases), ("check", self.probes)):
            if value is not None and not inspect.isgeneratorfunction(value):
                raise ValueError(f"{argument} of {name} yields nothing; it takes a generator function")
        if self.mistakes and self.cases is None:
            raise ValueError(f"mistakes of {name} are compared on cases, and there are none")
        if len({*self.wrong, *self.mistakes}) < 3:
            raise ValueError(f"wrong and mistakes of {name} are fewer than three: it takes at least three, each once")

    # ------------------------------------------------------------------------------------------ what the reader sees

    @property
    def chapter(self) -> str:
        """The chapter's name: "unet" of "unet.weight_map"."""
        return self.name.partition(".")[0]

    @property
    def order(self) -> tuple[str, ...]:
        """The functions of the chapter's exercises in the notebook's order, () for an exercise outside the course."""
        return getattr(sys.modules.get(f"soralab.exercises.{self.chapter}"), "ORDER", ())

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

    def first_cell(self) -> str:
        """The code of the notebook's cell that shows the statement: the stub and the check run after it alone."""
        lines = source.imports(self.stub, self.function)
        standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
        ours = [line for line in lines if line.startswith("from soralab")]
        blocks = [standard, [line for line in lines if line not in standard + ours],
                  ["from soralab.exercises import exercise", *ours], [f'task = exercise("{self.name}")', "task"]]
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def _repr_markdown_(self) -> str:
        return "\n\n".join([
            f"**{self.title}** · `{self.name}` · {self.dots} · {self.minutes} minutes",
            self.statement,
            f"**Hand in** `{self.function}`, in the next cell. Stuck? `task.hint()` gives one hint after the other, "
            f"three in all; so does `soralab hint {self.name}` in a terminal.",
        ])

    def __repr__(self) -> str:
        return f"Exercise {self.name}: {self.title} ({self.dots}, {self.minutes} minutes)"

    def hint(self, tier: int | None = None) -> None:
        """Print the next hint that was not read yet, or that of `tier` (1, 2, 3). Which were read is recorded."""
        if tier not in (None, 1, 2, 3):
            raise ValueError(f"tier is {tier!r}; it takes 1, 2 or 3")
        text, problem = steps.give_hint(self.name, self.hints, tier, how="task.hint({tier})")
        _say(f"{words.folded(text)}\n({problem})" if problem else words.folded(text))

    # --------------------------------------------------------------------------------------------------- the check

    def check(self, fn: Callable) -> Callable:
        """Judge `fn`, print the verdict, record it; return `fn` if it is right, else the course's own."""
        verdict = self.judge(fn)
        lines = [words.folded(str(verdict))]
        if verdict.state in ("open", "wrong"):
            lines.append(INSTEAD.format(self.function))
        if verdict.state in ("wrong", "right"):
            problem = progress.note_try(self.name, verdict.state == "right")
            lines += [f"  ({problem})"] if problem else []
        if verdict.state == "right":
            lines.append(words.folded(f"  {self.compare or COMPARE}"))
            if self.function in self.order:
                lines.append(f"  {steps.onward(self.name, self.order)}")
        _say("\n".join(lines))
        return fn if verdict.state == "right" else self.solution

    def judge(self, fn: Callable, seed: int = 0) -> Verdict:
        """The verdict on `fn`; nothing is printed or recorded. What `fn` raises becomes a message.

        seed: of the cases that are drawn; a reader's answer is always asked those of 0.
        """
        if not callable(fn):
            return Verdict("wrong", f"`{self.function}` is {words.what(fn)}, not a function. Hand in the function "
                           "itself: its name without brackets behind it.")
        answer = Watched(fn, self.solution, self.call)
        try:
            with same_start():
                verdict = self._on_cases(answer, self.drawn(seed)) if self.cases else None
        except NotHere as reason:
            return Verdict("open", str(reason))
        with same_start():
            verdict = verdict or (self._on_probes(answer) if self.probes else None) or self._kept(answer)
        if verdict is None and answer.own:
            return Verdict("own", OWN.format(self.function))
        return verdict or Verdict("right")

    # ---------------------------------------------------------------------------------------------------- cases

    def drawn(self, seed: int = 0) -> list[Case]:
        """The cases, drawn from a seed; the check asks those of seed 0."""
        with same_start(seed):
            cases = [case if isinstance(case, Case) else Case(tuple(case)) for case in self.cases()]
        if not cases:
            raise ValueError(f"cases of {self.name} are none")
        return cases

    def _on_cases(self, answer: Watched, cases: list[Case]) -> Verdict | None:
        """None if `answer` is right on all cases; else the mistake that it equals on all, or the smallest case."""
        right = [_outcome(self._called(self.solution), case.args, precise=True) for case in cases]
        for result in right:
            if isinstance(result, Exception):
                raise result
        got = []
        for case in cases:
            got.append(_outcome(answer, case.args))
            if words.says_not_attempted(got[-1], answer.fn):
                return Verdict("open")
        differing = [k for k, pair in enumerate(zip(got, right, strict=True)) if self._differ(*pair)]
        if not differing:
            return None
        for mistake in self.mistakes.values():
            same = (self._differ(mine, _outcome(self._called(mistake.fn), case.args, precise=True)) == ""
                    for mine, case in zip(got, cases, strict=True))
            if all(same):
                return Verdict("wrong", mistake.says)
        k = min(differing, key=lambda k: words.amount(cases[k].args))
        return Verdict("wrong", f"with {self._words(cases[k])} {self._differ(got[k], right[k], answer)}")

    def _called(self, fn: Callable) -> Callable:
        """A function of a case's arguments."""
        return partial(self.call, fn) if self.call else fn

    def _differ(self, got, want, answer: Watched | None = None) -> str:
        """"" if two outcomes of a call are the same, else how they differ. An exception equals one of its class."""
        if isinstance(got, Exception):
            if type(got) is type(want):
                return ""
            return f"your code stops with {words.error(got)}{words.place(got, answer.fn) if answer else ''}."
        if isinstance(want, Exception):
            return f"it stops with {words.error(want)}"
        if got is None and want is not None:
            return "it returns None: is there a `return` at its end?"
        try:
            return difference(got, want, self.tolerance)
        except Exception as error:  # a nested tensor, a number beyond floats, a list in itself
            return f"it returns a {type(got).__name__} that cannot be compared ({words.error(error)})."

    def _words(self, case: Case) -> str:
        """A case's arguments: "skip [1, 2, 9, 9] and x [1, 3, 4, 4] (an odd difference)"."""
        parts = [words.argument(name, value) for name, value in zip(self._names(), case.args, strict=False)]
        text = ", ".join(parts[:-1]) + (" and " if parts[1:] else "") + parts[-1] if parts else "no argument"
        return f"{text} ({case.note})" if case.note else text

    def _names(self) -> list[str]:
        names = list(inspect.signature(self.call or self.stub).parameters)
        return names[1:] if self.call else names

    # --------------------------------------------------------------------------------------------------- probes

    def _on_probes(self, answer: Watched) -> Verdict | None:
        """None if every probe of the check is ok; else the first one's message, or what the answer raised."""
        asked = 0
        try:
            with contextlib.closing(self.probes(answer)) as probes:
                for ok, message in probes:
                    asked += 1
                    if not bool(ok):
                        return Verdict("wrong", message)
        except Exception as error:
            if words.says_not_attempted(error, answer.fn):
                return Verdict("open")
            return Verdict("wrong", self._trouble(error, answer))
        if not asked:
            raise ValueError(f"check of {self.name} asked nothing")
        return None

    def _trouble(self, error: Exception, answer: Watched) -> str:
        """In words: the error, and whether the answer stopped or the check could not use what it returned."""
        text, place = words.error(error), words.place(error, answer.fn)
        mine = any(error is other for other in answer.raised)  # not `in`: errors may compare oddly
        if mine or (place and getattr(answer.fn, "__module__", None) != self.probes.__module__):
            return f"your code stops with {text}{place}"
        if answer.given and answer.given[0] is None:
            return f"`{self.function}` gives back None: is there a `return` at its end? ({text})"
        back = words.what(answer.given[0]) if answer.given else "nothing"
        return f"`{self.function}` gives back {back}, which the check cannot use ({text})"

    def _kept(self, answer: Watched) -> Verdict | None:
        """None if the arguments are what they were and gradients flow; asked of what is right otherwise."""
        if answer.changed is not None and not self.in_place:
            names = self._names()
            name = answer.changed if isinstance(answer.changed, str) else names[min(answer.changed, len(names) - 1)]
            return Verdict("wrong", CHANGED.format(name))
        if self.gradients:
            for args in answer.calls:
                mine, own = self._called(answer.fn), self._called(self.solution)
                found = gradients.trouble(mine, own, args, self._names(), self.tolerance)
                if found:
                    return Verdict("wrong", found)
        return None


def _outcome(fn: Callable, args: tuple, precise: bool = False):
    """What a call with copies returns, or the exception that it raises. precise: float32 goes in as float64."""
    try:
        with same_start():
            return fn(*(watch.precise(copied(value)) if precise else copied(value) for value in args))
    except Exception as error:
        return error


def _say(text: str) -> None:
    """Print, also on a console that does not know every letter."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
