"""Chapter 17's exercise in Triton, in a Python whose Triton interprets. Run by tests/test_kernels.py."""

import functools
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import test_exercises as judge

from soralab.exercises import exercise
from soralab.exercises.triton_attention.moving_window import run, solution
from soralab.kernels.interpreter import start, tl

(NAME,) = judge.APART
TASK = exercise(NAME)


def remembered(call):
    """`call`, which runs each of the course's own kernels, the right one and the slips, on each case once."""
    known, own = {}, [TASK.solution, *(mistake.fn for mistake in TASK.mistakes.values())]

    @functools.wraps(call)
    def recall(kernel, *args):
        if kernel not in own:
            return call(kernel, *args)
        key = kernel, *(x.numpy().tobytes() if torch.is_tensor(x) else x for x in args)
        if key not in known:
            known[key] = call(kernel, *args)
        return known[key].clone()

    return recall


TASK.call = remembered(TASK.call)  # all answers are held against them, and the interpreter is slow


def test_it_holds_what_it_promises():
    assert judge.problems(TASK, seeds=[1]) == []


def test_its_cells_run_alone(capsys):
    judge.test_the_cells_of_an_exercise_run_alone(TASK, capsys)


def test_the_solution_is_attention_in_windows():
    """By torch's softmax; the solution is what all answers are held against."""
    for case in TASK.drawn():
        q, k, v, window, block = case.args
        i = torch.arange(len(q))
        seen = (i[None] <= i[:, None]) & (i[None] > i[:, None] - window)
        s = (q.shape[1] ** -0.5 * q.double() @ k.double().T).masked_fill(~seen, -torch.inf)
        want = torch.cat([s.softmax(1) @ v.double(), torch.full((block, q.shape[1]), torch.nan, dtype=torch.float64)])
        got = run(solution, q.double(), k.double(), v.double(), window, block)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7, equal_nan=True)


# ------------------------------------------------------------------------------------------------- written otherwise


def a_key_at_a_time(q_in, k_in, v_in, out, scale, tokens, window, D: tl.constexpr, BLOCK: tl.constexpr):
    i, d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    at = i[:, None] * D + d[None, :]
    q = tl.load(q_in + at, mask=i[:, None] < tokens)
    m = tl.full([BLOCK], -1e30, tl.float32)  # in place of -inf: its exponential is 0 as well
    ell, o = m * 0, q * 0
    begin = tl.program_id(0) * BLOCK - window + 1
    for j in range(begin if begin > 0 else 0, min(tl.program_id(0) * BLOCK + BLOCK, tokens)):
        s = scale * tl.sum(q * tl.load(k_in + j * D + d)[None, :], 1)
        s = tl.where((j <= i) & (i - j < window), s, -1e38)
        new = tl.maximum(m, s)
        p, shrink = tl.where(s > -1e37, tl.exp(s - new), 0.0), tl.exp(m - new)
        ell, m = ell * shrink + p, new
        o = o * shrink[:, None] + p[:, None] * tl.load(v_in + j * D + d)[None, :]
    tl.store(out + at, o / ell[:, None], mask=i[:, None] < tokens)


def from_its_own_tile_back(q_in, k_in, v_in, out, scale, tokens, window, D: tl.constexpr, BLOCK: tl.constexpr):
    """So that every query sees itself first, and no row is ever empty."""
    first = tl.program_id(0) * BLOCK
    i, d = first + tl.arange(0, BLOCK), tl.arange(0, D)
    q = tl.load(q_in + i[:, None] * D + d[None, :], mask=i[:, None] < tokens, other=0)
    begin = first
    m, ell, o = tl.zeros([BLOCK], tl.float32) - 1e30, tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK, D], tl.float32)
    while (begin >= 0) & (begin + BLOCK > first - window + 1):
        j = begin + tl.arange(0, BLOCK)
        k = tl.load(k_in + d[:, None] + j[None, :] * D, mask=j[None, :] < tokens, other=0)
        s = tl.dot(q * scale, k, input_precision="ieee")
        s = tl.where((i[:, None] - j[None, :] >= 0) & (i[:, None] - j[None, :] < window), s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp(s - new[:, None])
        v = tl.load(v_in + d[None, :] + j[:, None] * D, mask=j[:, None] < tokens, other=0)
        o = o * tl.exp(m - new)[:, None] + tl.dot(p, v, input_precision="ieee")
        ell = ell * tl.exp(m - new) + tl.sum(p, 1)
        m = new
        begin -= BLOCK
    tl.store(out + i[:, None] * D + d[None, :], o / ell[:, None], mask=i[:, None] < tokens)


def tiles_that_begin_at_the_window(
    q_in, k_in, v_in, out, scale, tokens, window, D: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    first, d = tl.program_id(0) * BLOCK, tl.arange(0, D)
    i = first + tl.arange(0, BLOCK)
    rows = i[:, None] < tokens
    q = tl.load(q_in + i[:, None] * D + d[None, :], mask=rows, other=0.0)
    m, ell, o = tl.full([BLOCK], float("-inf"), tl.float32), tl.zeros([BLOCK], tl.float32), 0.0
    for at in range(tl.maximum(first - window + 1, 0), first + BLOCK, BLOCK):
        j = at + tl.arange(0, BLOCK)
        there = (j < tokens) & (j < first + BLOCK)
        k = tl.load(k_in + j[:, None] * D + d[None, :], mask=there[:, None], other=0.0)
        s = scale * tl.dot(q, tl.trans(k), input_precision="ieee")
        s = tl.where((j[None, :] <= i[:, None]) & (j[None, :] + window > i[:, None]), s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        safe = tl.maximum(new, -1e30)
        p = tl.exp(s - safe[:, None])
        ell = ell * tl.exp(m - safe) + tl.sum(p, 1)
        v = tl.load(v_in + j[:, None] * D + d[None, :], mask=there[:, None], other=0.0)
        o = o * tl.exp(m - safe)[:, None] + tl.dot(p, v, input_precision="ieee")
        m = new
    tl.store(out + i[:, None] * D + d[None, :], o / ell[:, None], mask=rows)


@pytest.mark.parametrize("answer", [a_key_at_a_time, tiles_that_begin_at_the_window])
def test_a_right_answer_written_otherwise(answer):
    assert str(TASK.judge(answer)) == "✓ right"


def test_a_decorated_kernel_is_taken_too():
    import triton

    assert str(TASK.judge(triton.jit(from_its_own_tile_back))) == "✓ right"


# ------------------------------------------------------------------------------------------------------------- wrong


def edited(old: str, new: str):
    """The solution's text with a change."""
    text = TASK.solution_source()
    assert text.count(old) >= 1, old
    names = {"__name__": "edited"}
    exec(text.replace(old, new), names)
    return names["moving_window"]


@pytest.mark.parametrize("old, new, says", [
    ("// BLOCK * BLOCK", "// BLOCK", "it returns"),
    ("first - window + 1, 0", "first - window, 0", "your loop begins too early"),
    ("first - window + 1, 0", "first - window + 2, 0", "it returns"),
    ("first - window + 1, 0", "first - BLOCK, 0", "it returns"),
    ("- window + 1", "+ 1", "the program's own tile alone counts"),
    ("j[None, :] > i[:, None] - window", "j[None, :] >= i[:, None] - window", "your windows hold one token more"),
    ("j[None, :] > i[:, None] - window", "j[None, :] > i[:, None] - window + 1", "it returns"),
    ("scale * tl.dot", "tl.dot", "it returns"),
    (" / ell[:, None]", "", "it returns"),
    ("shrink * ell", "ell", "it returns"),
    ("first + BLOCK, BLOCK)", "tokens, BLOCK)", "your loop goes on behind the program's own tile"),
    ("first + BLOCK, BLOCK)", "first + BLOCK + 1, BLOCK)", "your loop goes on behind the program's own tile"),
    ("mask=j[:, None] < tokens, other=0.0", "mask=j[:, None] < 0, other=0.0", "it returns"),
    ("tl.store(out + i[:, None]", "tl.store(out + (i % BLOCK)[:, None]", "your code stops with ValueError: program"),
    ("        m = m_new\n", "", "and what they gave is kept (m too is carried on)"),
    ("s, float(\"-inf\"))", "s, -20.0)", "logits around -200"),
    ("tl.store(", "undefined(", "your code stops with NameError"),
    ("m_new == float(\"-inf\")", "m_new == 0.0", "right but for queries that have seen nothing"),
])  # fmt: skip
def test_a_wrong_answer_is_told_something_true(old, new, says):
    verdict = TASK.judge(edited(old, new))
    assert verdict.state == "wrong" and says in verdict.message, str(verdict)


def test_the_language_is_tritons():
    import triton.language

    assert tl is triton.language


def test_a_kernel_of_ones_own():
    def double(x_in, out, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + i, 2 * tl.load(x_in + i))

    x, out = torch.arange(12.0), torch.full((12,), -1.0)
    start(double, 3, (x, out), only=1, BLOCK=4)
    assert torch.equal(out, torch.where((x >= 4) & (x < 8), 2 * x, -1))
    start(double, 3, (x, out), BLOCK=4)
    assert torch.equal(out, 2 * x)


def test_what_a_kernel_raises_is_what_comes():
    def stops(x_in, BLOCK: tl.constexpr):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        start(stops, 1, (torch.zeros(1),), BLOCK=1)
