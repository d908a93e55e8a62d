"""A kernel of one's own, run by Triton's interpreter: what chapter 17's exercise in Triton is written and judged with.

    from soralab.kernels.interpreter import start, tl

    def double(x_in, out, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + i, 2 * tl.load(x_in + i))

    start(double, 3, (x, out), BLOCK=4)      # three programs

`tl` is triton.language, imported when it is asked for: importing this file imports no triton and sets nothing. Where
Triton cannot interpret, `tl` is a stand-in, so that the lines that define a kernel still run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from soralab.kernels.dispatch import check_interpreter, why_no_triton

if TYPE_CHECKING:
    import triton.language as tl


def __getattr__(name: str):
    """`tl`, at its first import."""
    if name != "tl":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return SimpleNamespace(constexpr=None) if why_not() else language()


def why_not() -> str:
    """Why no kernel can be interpreted in this process, with the remedy; "" if one can."""
    try:
        language()
    except ValueError as error:
        return str(error).removeprefix("backend is 'triton', and ")
    return ""


def language():
    """triton.language, in a Triton that interprets. Raises ValueError, with the remedy, where there is none."""
    if trouble := why_no_triton():
        raise ValueError(trouble)
    before = os.environ.get("TRITON_INTERPRET")
    if "triton" not in sys.modules:  # it decides at its import
        os.environ["TRITON_INTERPRET"] = "1"
    elif before != "1":
        raise ValueError("Triton was imported before it was told to interpret; start the notebook's kernel (or Python) "
                         "anew, and run the chapter's first cell, or set TRITON_INTERPRET=1")
    try:
        check_interpreter(torch.empty(0))
    except ValueError:
        if "triton" not in sys.modules:  # the variable, left set in vain, would keep "auto" from a GPU
            del os.environ["TRITON_INTERPRET"]
            os.environ.update({} if before is None else {"TRITON_INTERPRET": before})
        raise
    import triton.language

    globals()["tl"] = triton.language
    return triton.language


def start(kernel: Callable, programs: int, given: tuple, only: int | None = None, **constants) -> None:
    """Run so many programs of a kernel that is not decorated, one after the other, or `only` the one of this number.

    given: its first arguments, tensors (which arrive as pointers) and numbers; constants: its tl.constexpr arguments.
    Raises ValueError where Triton cannot interpret, and what the kernel raises.
    """
    language()
    import triton

    try:
        triton.jit(program)[(programs,)](kernel, only, given, constants)
    except Exception as error:
        while type(error).__name__ == "InterpreterError" and error.__cause__:
            error = error.__cause__
        raise error from None


def program(kernel: tl.constexpr, only: tl.constexpr, given, constants: tl.constexpr):
    """One program; a function of the language calls another."""
    if only is None or only == tl.program_id(0):
        kernel(*given, **constants)
