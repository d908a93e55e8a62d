"""Values and errors in words, as the verdicts on an answer tell them."""

from __future__ import annotations

import dis
import linecache
import math
import numbers
import textwrap
from collections.abc import Callable

LONGEST = 240  # letters of an error's text that are shown
WIDTH = 110  # columns of a verdict or a hint
FEW = 12  # so many numbers are shown one by one


def folded(text: str) -> str:
    """A verdict or a hint in lines that a page does not break."""
    whole = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "  "}
    return "\n".join(textwrap.fill(line, WIDTH, **whole) for line in text.splitlines())


def what(value) -> str:
    """A value's kind: "a tensor [3, 4] of float32", "None", "a tuple of 2"."""
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "a tensor" if type(value).__module__.startswith("torch") else "an array"
        return f"{kind} {list(value.shape)} of {dtype(value)}"
    name = type(value).__name__
    size = f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else ""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}{size}"


def dtype(value) -> str:
    """"float32" of a tensor or an array."""
    return str(value.dtype).removeprefix("torch.")


def number(value) -> str:
    """A number in at most six digits: "0.333333", "12", "NaN", "-inf", "True"."""
    if isinstance(value, complex) or not isinstance(value, numbers.Number):
        return str(value)
    if isinstance(value, (bool, int)):
        return str(value)
    return "NaN" if math.isnan(value) else f"{float(value):g}"


def shown(value) -> str:
    """A small value as it stands, "[1, 0.5]"; "" for one that is too large, too deep or of another kind."""
    if getattr(value, "ndim", 0) > 2:
        return ""
    if hasattr(value, "tolist"):
        value = value.tolist()
    leaves = _leaves(value)
    if leaves is None or len(leaves) > FEW:
        return ""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(shown(item) for item in value)}]"
    return repr(value) if isinstance(value, str) else number(value)


def _leaves(value) -> list | None:
    """The numbers and words in nested lists; None if there is something else in them."""
    if isinstance(value, (list, tuple)):
        parts = [_leaves(item) for item in value]
        return None if None in parts else [leaf for part in parts for leaf in part]
    return [value] if isinstance(value, (numbers.Number, str, type(None))) else None


def argument(name: str, value) -> str:
    """One argument of a call: "sigma = 5", "x [2, 3, 9, 9]", "labels = [[0, 1], [2, 0]]"."""
    if small := shown(value):
        return f"{name} = {small}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{name} {list(value.shape)}" + ("" if dtype(value) in ("float32", "int64") else f" of {dtype(value)}")
    return f"{name}, {what(value)}"


def amount(args) -> float:
    """How much there is to read in a call: the numbers in its tensors, arrays and lists; of a number, itself."""
    if hasattr(args, "shape"):
        return math.prod(args.shape)
    if isinstance(args, (tuple, list)):
        return sum(map(amount, args))
    return min(abs(args), 1e9) / 1e3 if isinstance(args, (int, float)) else 1


def error(problem: Exception) -> str:
    """An exception in one line: "KeyError: 'b'"."""
    text = " ".join(str(problem).split())
    text = text[:LONGEST] + "…" if len(text) > LONGEST else text
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def place(problem: Exception, fn: Callable) -> str:
    """", line 3: `x = y`": the last line of the reader's module that was being run, or ""."""
    mine = [step for step in _steps(problem) if step.tb_frame.f_globals.get("__name__") == getattr(fn, "__module__", 0)]
    if not mine:
        return ""
    frame, line = mine[-1].tb_frame, mine[-1].tb_lineno
    text = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    return f", line {line}: `{text}`" if text else f", line {line}"


def says_not_attempted(problem: Exception, fn: Callable) -> bool:
    """Whether a `raise NotImplementedError` in the reader's own code made it: torch raises the same class for a type
    that it cannot add up."""
    if not isinstance(problem, NotImplementedError):
        return False
    last = _steps(problem)[-1]
    by_raise = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    return by_raise and last.tb_frame.f_globals.get("__name__") == getattr(fn, "__module__", None)


def _steps(problem: BaseException) -> list:
    """The traceback's entries, outermost first."""
    steps, step = [], problem.__traceback__
    while step is not None:
        steps.append(step)
        step = step.tb_next
    return steps
