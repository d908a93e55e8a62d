"""Wrong kernels, each of which the battery must reject. Run by tests/test_kernels_mutants.py, with TRITON_INTERPRET=1.

A mutant is the course's own source with one line changed, as a slip of the hand would change it. Run as a program, with
the same variable set, this prints the list of chapter 17: each mutant and the first case that gives it away.
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
    "the last tile is not masked in the backward pass": (K, "inside[None, :] & may_attend(i", "may_attend(i", 1),
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
    "o has the strides of q": (K, "row, inside, o_at[2], DIM", "row, inside, q_at[2], DIM", 0),
    "k is read with v's strides": (K, "other, k_at[2], v_at[2]", "other, v_at[2], v_at[2]", 1),
    "q is read with do's strides": (K, "other, q_at[2],\n        do_at[2]", "other, do_at[2],\n        do_at[2]", 0),
    "keys of the first head for all": (K, "slab(k_in, batch, head, k_at)", "slab(k_in, batch, head * 0, k_at)", 0),
    "values of the first film for all": (K, "slab(v_in, batch, head, v_at)", "slab(v_in, batch * 0, head, v_at)", 0),
    "every second head is the first": (K, "return batch, tl.program_id(1)", "return batch, tl.program_id(1) % 2", 0),
    "every third head is the first": (K, "return batch, tl.program_id(1)", "return batch, tl.program_id(1) % 3", 0),
    "a batch entry's offset has 32 bits": (K, "batch.to(tl.int64)", "batch", 0),
    "a head's offset has 32 bits": (K, "head.to(tl.int64)", "head", 0),
    "a row's offset has 32 bits": (K, "row.to(tl.int64)", "row", 0),
    "a descriptor's tile is the first head's": (K, "[batch, head, first, 0]", "[batch, 0, first, 0]", 0),
    "a descriptor's tile is the first film's": (K, "[batch, head, first, 0]", "[0, head, first, 0]", 0),
    "a cut tile is loaded by a descriptor": (K, "if WHOLE and BULK", "if BULK", 0),
    "whole tiles are read past the head's dimension": (K, "if WHOLE and DIM == BLOCK_D", "if WHOLE", 0),
    "the head dimension is not masked on loading": (
        K, "inside[:, None] & (d[None, :] < DIM), other",
        "inside[:, None], other", 0),
    "the head dimension is not masked on storing": (
        K, "mask=inside[:, None] & (d[None, :] < DIM))",
        "mask=inside[:, None])", 0),
    "lse is in another base": (K, "m + tl.log2(ell)", "m + tl.log(ell)", 0),
    "lse of a row without keys is -inf": (K, 'tl.log2(ell), float("inf"))', 'tl.log2(ell), float("-inf"))', 0),
    "lse is written by place, not by row": (K, "lse_at) + row, lse", "lse_at) + i, lse", 0),
    "the row map is not followed": (K, "row = load_numbers(map, place, inside, 0, WHOLE)", "row = place", 0),
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
        L, "(scale * math.log2(math.e),)",
        "(1.001 * scale * math.log2(math.e),)", 0),
    "2^x for e^x": (L, "scale * math.log2(math.e)", "scale", 0),
    "the strides of the first call are kept": (L, "*[x.stride() for x in tensors]", "*[x.ndim for x in tensors]", 0),
    "the alignment of the first call is kept": (L, "x.data_ptr() % 16 for x", "0 for x", 0),
    "what descriptors cannot describe is not asked": (L, "all(map(describable, visited))", "True", 0),
    "the last tile counts as whole": (
        T, "full, small = all_see // block_k,",
        "full, small = ceil_div(all_see, block_k),", 0),
    "the last piece of the diagonal is skipped": (
        T, "ceil_div(any_sees, small)",
        "ceil_div(any_sees - small, small)", 0),
    "the keys' diagonal is not masked": (
        T, "ceil_div(queries[s], block_q), all_seen // block_q",
        "ceil_div(queries[s], block_q), any_seen // block_q", 0),
    "the first queries are skipped": (
        T, "tiles * pieces - ceil_div(any_seen, small)",
        "tiles * pieces - any_seen // small", 0),
    "a key tile visits the queries it would see itself": (T, "else self.near.T)", "else self.near)", 0),
    "a list of rows runs on into the next": (T, "n.cumsum(0) + n).repeat", "n.cumsum(0)).repeat", 0),
    "a tile that the film cuts is listed as whole": (T, "n = lengths[tile]", "n = lengths.max().expand(len(tile))", 0),
    "the window leaves the film": (T, ".clamp(0, tiles - window)[:, None]", "[:, None]", 0),
    "a row map's stride is not seen": (T, "row_map.to(torch.int32, copy=True)", "row_map.to(torch.int32)", 0),
    "bounds that died are remembered": (
        T, "if layout and all(other() is t for other, t in zip(others, given[1:], strict=True)):", "if layout:", 0),
}  # fmt: skip


def mutant(name: str, folder: Path):
    """The module with one slip in it, and under which name the launcher knows it ("": it is the launcher)."""
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
    """The first case or scene of the battery that a launcher fails, "" if it passes all."""
    checks = [(case.name, case) for case in battery.cases()] + [(f.__name__, f) for f in battery.SCENES]
    for name, check in checks:
        battery.GUARDED.clear()
        try:
            if isinstance(check, battery.Case):
                battery.prepare(launch, check)
                found = battery.trouble(launch.attention, check)
            else:
                found = check(launch)
        except Exception as error:  # a wrong kernel may also stop
            found = type(error).__name__
        if found:
            return f"{name.replace('_', ' ')}: {found}"
    return ""


def test_the_course_own_kernels_pass(monkeypatch):
    battery.poison(monkeypatch, triton_launch)
    monkeypatch.setattr(triton_launch, "config", triton_launch.config)
    assert failure(triton_launch) == ""


def rejected(name: str, folder: Path) -> str:
    """How the battery rejects a mutant, "" if it does not."""
    part, module = mutant(name, folder)
    launch = triton_launch if part else module
    with pytest.MonkeyPatch.context() as patch:
        if part:
            patch.setattr(triton_launch, part, module)
        patch.setattr(launch, "config", launch.config)
        battery.poison(patch, launch)
        return failure(launch)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_rejected(name, tmp_path):
    assert rejected(name, tmp_path) != "", f"the battery does not see that {name}"


def test_there_are_at_least_twenty_and_no_two_are_the_same():
    assert len(MUTANTS) >= 20 and len(set(MUTANTS.values())) == len(MUTANTS)


def test_the_chapter_lists_them_all():
    path = Path(__file__).parents[2] / "notebooks" / "17_triton_attention.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    (text,) = [cell for cell in cells if " slips, and the case that gives each away" in cell]
    listed = [name for line in text.splitlines() if line.startswith("- ") for name in line.split("** ")[1].split("; ")]
    assert sorted(listed) == sorted(MUTANTS) and f"The {len(MUTANTS)} slips" in text
    assert any(f"{len(MUTANTS)} wrong kernels" in cell for cell in cells)


if __name__ == "__main__":
    by_case = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in MUTANTS:
            by_case.setdefault(rejected(name, Path(folder)).partition(":")[0], []).append(name)
    for case, names in by_case.items():
        print(f"- **{case}:** {'; '.join(names)}")
