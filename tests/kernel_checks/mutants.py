"""Wrong kernels, each of which the battery must reject. Run by tests/test_kernels_mutants.py, with TRITON_INTERPRET=1.

A mutant is the course's own source with one line changed, as a slip of the hand would change it. Run as a program, with
the same variable set, this prints the table of chapter 17: each mutant and the first case that gives it away.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path

import battery
import pytest

import soralab.kernels
from soralab.kernels import triton_launch

FOLDER = Path(soralab.kernels.__file__).parent
K, T, L = "triton_kernels.py", "tables.py", "triton_launch.py"
# name: (file, the right text, the wrong text, which of its occurrences). The battery's words need not be the same.
MUTANTS = {
    "the last tile of keys is not masked": (K, "inside[None, :] & may_attend(i", "may_attend(i", 0),
    "nor is it in the backward pass": (K, "inside[None, :] & may_attend(i", "may_attend(i", 1),
    "causal sees one key too few": (K, "j <= i + shift", "j < i + shift", 0),
    "causal sees one key too many": (K, "j <= i + shift", "j <= i + shift + 1", 0),
    "causal ignores unequal lengths": (K, "j <= i + shift", "j <= i", 0),
    "o is not rescaled when the maximum rises": (K, "o = o * shrink[:, None] +", "o = o +", 0),
    "the sum is not rescaled when the maximum rises": (K, "ell = ell * shrink +", "ell = ell +", 0),
    "the maximum is not carried on": (
        K, "m_new = tl.maximum(m, tl.max(s, 1) * scale)",
        "m_new = tl.max(s, 1) * scale", 0),
    "no maximum is subtracted": (K, "        base = m_new\n", "        base = m_new = tl.zeros_like(m_new)\n", 0),
    "a row without keys yet is -inf minus -inf": (K, 'tl.where(m_new == float("-inf"), 0.0, m_new)', "m_new", 0),
    "masked with -20": (K, 's = tl.where(allowed, s, float("-inf"))', "s = tl.where(allowed, s, -20.0)", 0),
    "weights are rounded to half precision": (K, "p.to(v.dtype)", "p.to(tl.float16).to(v.dtype)", 0),
    "o is not divided by the sum": (K, "o / ell[:, None]", "o", 0),
    "o has the strides of q": (
        K, "row, inside, o_at[2], DIM, BLOCK_D)\n    lse",
        "row, inside, q_at[2], DIM, BLOCK_D)\n    lse", 0),
    "keys of the first head for all": (K, "k_in += batch * k_at[0] + head * k_at[1]", "k_in += batch * k_at[0]", 0),
    "values of the first film for all": (K, "v_in += batch * v_at[0] + head * v_at[1]", "v_in += head * v_at[1]", 0),
    "the head dimension is not masked on loading": (
        K, "inside[:, None] & (d[None, :] < DIM), other",
        "inside[:, None], other", 0),
    "the head dimension is not masked on storing": (
        K, "mask=inside[:, None] & (d[None, :] < DIM))",
        "mask=inside[:, None])", 0),
    "lse is in another base": (K, "m + tl.log2(ell)", "m + tl.log(ell)", 0),
    "lse of a row without keys is -inf": (K, 'tl.log2(ell), float("inf"))', 'tl.log2(ell), float("-inf"))', 0),
    "lse is written by place, not by row": (K, "lse_at[1] + row, lse", "lse_at[1] + i, lse", 0),
    "the row map is not followed": (K, "row = tl.load(map + place, mask=inside, other=0)", "row = place", 0),
    "delta is forgotten in dq": (
        K, "(product(do, tl.trans(v), ACC) - delta[:, None])",
        "product(do, tl.trans(v), ACC)", 0),
    "delta is forgotten in dk": (
        K, "(product(v, tl.trans(do), ACC) - delta[None, :])",
        "product(v, tl.trans(do), ACC)", 0),
    "dv is of the last tile alone": (K, "dv += product(p", "dv = product(p", 0),
    "dq lacks the scale": (K, "dq * dq_scale", "dq", 0),
    "dk lacks the scale": (K, "dk * dk_scale", "dk", 0),
    "the scale is a thousandth too large": (
        L, "[scale * math.log2(math.e)],",
        "[1.001 * scale * math.log2(math.e)],", 0),
    "2^x for e^x": (L, "scale * math.log2(math.e)", "scale", 0),
    "the last tile counts as whole": (
        T, "full, some = all_see // block_k,",
        "full, some = ceil_div(all_see, block_k),", 0),
    "one key tile of the diagonal is skipped": (
        T, "ceil_div(any_sees, block_k)",
        "ceil_div(any_sees - block_k, block_k)", 0),
    "the keys' diagonal is not masked": (
        T, "mid = ceil_div((last + shift)",
        "mid = lo + 0 * ceil_div((last + shift)", 0),
    "the last tile of queries is skipped": (T, "ceil_div(queries[s], block_q), lo", "queries[s] // block_q, lo", 0),
    "a key tile visits the queries it would see itself": (T, "else self.near.T", "else self.near", 0),
    "a tile that the film cuts counts as whole": (
        T, "whole = self.ends - self.begins == self.volume",
        "whole = self.ends > 0", 0),
    "the window leaves the film": (T, ".clamp(0, tiles - window)[:, None]", "[:, None]", 0),
}  # fmt: skip


def mutant(name: str, folder: Path):
    """The operator with one slip in it, and the module whose `empty` and `config` it uses."""
    file, right, wrong, which = MUTANTS[name]
    source = (FOLDER / file).read_text(encoding="utf-8")
    parts = source.split(right)
    assert len(parts) > which + 1, f"{file} does not hold {right!r}: write this mutant anew"
    text = right.join(parts[: which + 1]) + wrong + right.join(parts[which + 1 :])
    path = folder / f"mutant_{list(MUTANTS).index(name)}.py"
    path.write_text(text.replace('"soralab::', f'"{path.stem}::'), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {K: "kernels", T: "tables", L: ""}[file], module


def failure(launch) -> str:
    """The first case of the battery that an operator fails, "" if it passes all."""
    for case in battery.cases():
        battery.prepare(launch, case)
        battery.GUARDED.clear()
        try:
            found = battery.trouble(launch.attention, case)
        except Exception as error:  # a wrong kernel may also stop
            found = f"{case.name}: {type(error).__name__}"
        if found:
            return found
    return ""


def test_the_course_own_kernels_pass(monkeypatch):
    monkeypatch.setattr(triton_launch, "empty", battery.poisoned)
    assert failure(triton_launch) == ""


def rejected(name: str, folder: Path) -> str:
    """How the battery rejects a mutant, "" if it does not."""
    part, module = mutant(name, folder)
    launch = triton_launch if part else module
    with pytest.MonkeyPatch.context() as patch:
        if part:
            patch.setattr(triton_launch, part, module)
            triton_launch.tables.dense.cache_clear()
        patch.setattr(launch, "empty", battery.poisoned)
        return failure(launch)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_rejected(name, tmp_path):
    assert rejected(name, tmp_path) != "", f"the battery does not see that {name}"


def test_there_are_at_least_twenty_and_no_two_are_the_same():
    assert len(MUTANTS) >= 20 and len(set(MUTANTS.values())) == len(MUTANTS)


def test_the_chapter_lists_them_all():
    path = Path(__file__).parents[2] / "notebooks" / "17_triton_attention.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    (text,) = [cell for cell in cells if "| the slip |" in cell]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[1:] == list(MUTANTS) and f"The {len(MUTANTS)} slips" in text


if __name__ == "__main__":
    print("| the slip | given away by |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in MUTANTS:
            print(f"| {name} | {rejected(name, Path(folder)).partition(':')[0]} |", flush=True)
