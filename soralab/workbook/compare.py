"""Whether a result is what it should be, and if not, where it differs: in one sentence."""

from __future__ import annotations

import numbers

import numpy as np
import torch
from torch import Tensor

from soralab.files.counts import so_many
from soralab.workbook import words

KINDS = {"b": "bool", "i": "whole numbers", "u": "whole numbers", "f": "floating point numbers", "c": "complex numbers"}


def difference(got, want, tolerance: float, place: str = "it returns") -> str:
    """"" if `got` is `want` up to rounding, else what came and what should have come.

    Tensors, arrays, numbers and texts, alone or in lists, tuples and dictionaries. A number differs if it is further
    from what it should be than `tolerance` times that number, or times the mean size of its tensor if this is more.
    Any precision is taken, lists for tuples too; whole numbers, truth values and infinities are compared exactly.
    """
    if isinstance(want, (Tensor, np.ndarray)):
        return _arrays(got, want, tolerance, place)
    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            keys = f"a dictionary with the keys {', '.join(map(str, want))}"
            return f"{place} {words.what(got)}, it should be {keys}."
        found = (difference(got[key], want[key], tolerance, f"at {key!r} {place}") for key in want)
        return next(filter(None, found), "")
    if isinstance(want, (list, tuple)):
        return _lists(got, want, tolerance, place)
    if isinstance(want, numbers.Number):
        return _numbers(got, want, tolerance, place)
    return "" if type(got) is type(want) and got == want else f"{place} {_told(got)}, it should be {_told(want)}."


def _lists(got, want, tolerance: float, place: str) -> str:
    if isinstance(got, (np.ndarray, range)) and all(isinstance(item, numbers.Number) for item in want):
        got = list(got)
    if not isinstance(got, (list, tuple)):
        return f"{place} {words.what(got)}, it should be {words.what(want)}."
    plain = all(isinstance(item, (numbers.Number, str)) for item in (*got, *want))
    if plain and words.shown(got) and words.shown(want):
        wrong = len(got) != len(want) or any(difference(a, b, tolerance) for a, b in zip(got, want, strict=True))
        return f"{place} {words.shown(got)}, it should be {words.shown(want)}." if wrong else ""
    for k, (a, b) in enumerate(zip(got, want, strict=False)):
        if found := difference(a, b, tolerance, f"at [{k}] {place}"):
            return found
    return "" if len(got) == len(want) else f"{place} {len(got)} things, it should be {len(want)}."


def _numbers(got, want, tolerance: float, place: str) -> str:
    single = isinstance(got, (numbers.Number, np.ndarray, Tensor)) and np.ndim(got) == 0
    wrong = not single or isinstance(want, bool) != _is_bool(got)
    wrong = wrong or np.iscomplexobj(_plain(got)) and not np.iscomplexobj(want)
    wrong = wrong or not bool(_close(np.asarray(_plain(got)), np.asarray(want), tolerance))
    return f"{place} {_told(got)}, it should be {_told(want)}." if wrong else ""


def _is_bool(value) -> bool:
    return isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.dtype(bool))


def _arrays(got, want, tolerance: float, place: str) -> str:
    kind = Tensor if isinstance(want, Tensor) else (np.ndarray, np.generic)
    if not isinstance(got, kind):
        name = "a tensor" if isinstance(want, Tensor) else "an array"
        return f"{place} {words.what(got)}, it should be {name} {list(want.shape)}."
    if got.shape != want.shape:
        return f"{place} the shape {list(got.shape)}, it should be {list(want.shape)}."
    try:
        a, b = _plain(got), _plain(want)
    except (TypeError, RuntimeError, NotImplementedError):  # quantised, nested, on the meta device
        return f"{place} {words.what(got)} of a kind ({words.dtype(got)}) that cannot be compared."
    kinds = ["i" if array.dtype.kind == "u" else array.dtype.kind for array in (a, b)]
    if kinds[0] != kinds[1]:
        return f"{place} {KINDS.get(kinds[0], a.dtype)} ({words.dtype(got)}), it should be {KINDS[kinds[1]]}."
    off = ~_close(a, b, tolerance)
    return _where(a, b, off, place) if off.any() else ""


def _close(got: np.ndarray, want: np.ndarray, tolerance: float) -> np.ndarray:
    """True where two arrays of one shape agree."""
    if want.dtype.kind in "biu" and got.dtype.kind in "biu":
        return got == want
    kind = np.complex128 if "c" in got.dtype.kind + want.dtype.kind else np.float64
    got, want = got.astype(kind), want.astype(kind)
    finite = np.isfinite(want)
    mean = np.abs(want[finite]).mean() if finite.any() else 0.0
    with np.errstate(invalid="ignore"):
        near = np.abs(got - want) <= tolerance * np.maximum(np.abs(want), mean or 1.0)
    return np.where(finite, near, (got == want) | (np.isnan(got) & np.isnan(want)))


def _where(got: np.ndarray, want: np.ndarray, off: np.ndarray, place: str) -> str:
    if got.size <= words.FEW and words.shown(got):
        return f"{place} {words.shown(got)}, it should be {words.shown(want)}."
    with np.errstate(invalid="ignore"):
        kind = np.complex128 if "c" in got.dtype.kind + want.dtype.kind else np.float64
        size = np.abs(got.astype(kind) - want.astype(kind))
    size = np.where(off, np.where(np.isfinite(size), size, np.inf), -1)
    worst = np.unravel_index(int(size.argmax()), got.shape)
    there = ", ".join(str(int(index)) for index in worst)
    values = words.number(got[worst].item()), words.number(want[worst].item())
    count, differ = so_many(off.size, "number"), "differs" if off.sum() == 1 else "differ"
    return (f"{int(off.sum())} of {count} {differ}, most at [{there}]: {place} {values[0]} there, "
            f"it should be {values[1]}.")


def _plain(value):
    """An array of a tensor, of floats in float64: numpy does not know all their types."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    value = value.detach().cpu().resolve_conj().resolve_neg()
    value = value if value.layout == torch.strided else value.to_dense()
    return (value.double() if value.is_floating_point() else value).numpy()


def _told(value) -> str:
    return words.shown(value) or words.what(value)
