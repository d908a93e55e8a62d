"""Chapter 17's exercises in PyTorch: right answers of other styles, and wrong ones that nobody planned for. The one in
Triton: tests/kernel_checks/exercises.py; here it says what it needs."""

import math
import subprocess
import sys

import pytest
import torch

from soralab.exercises import exercise
from soralab.kernels import interpreter
from soralab.workbook.task import NotHere


def judged(name: str, answer):
    return exercise(f"triton_attention.{name}").judge(answer)
# ---------------------------------------------------------------------------------------------- right, of other styles

# ---------------------------------------------------------------------------------------------- right, of other styles


def by_a_maximum(lse, o, s, v):
    m = torch.cat([lse[:, None], s], 1).max(1).values
    m = m.masked_fill(m.isinf(), 0)
    old, new = (lse - m).exp(), (s - m[:, None]).exp()
    total = old + new.sum(1)
    o = (old[:, None] * o + new @ v) / total.clamp(min=1e-30)[:, None]
    return [m + total.log(), o]


def as_one_more_key(lse, o, s, v):
    """The old average is a key with the logit lse and the value o."""
    logits = torch.cat([lse[:, None], s], 1)
    weights = logits.softmax(1).nan_to_num(0.0)
    return logits.logsumexp(1), weights[:, :1] * o + weights[:, 1:] @ v


def by_counting(first, last, queries, keys, block):
    seen = [[j <= i + keys - queries for j in range(keys)] for i in range(first, last + 1)]
    tiles = [[row[t : t + block] for row in seen] for t in range(0, keys, block)]
    whole = sum(all(map(all, rows)) and len(rows[0]) == block for rows in tiles)
    return [whole, sum(any(map(any, rows)) for rows in tiles)]


def by_ceil(first, last, queries, keys, block):
    left, right = (max(i + 1 + keys - queries, 0) for i in (first, last))
    return math.floor(left / block), math.ceil(right / block)


def by_einsum(q, k, v, o, do, lse, dlse, scale):
    p = torch.exp(torch.einsum("id,jd->ij", q, k) * scale - lse[:, None])
    dp = torch.einsum("id,jd->ij", do, v) + dlse.unsqueeze(1)
    ds = scale * (p * dp - p * (o * do).sum(1, keepdim=True))
    return [torch.einsum("ij,jd->id", ds, k), torch.einsum("ij,id->jd", ds, q), torch.einsum("ij,id->jd", p, do)]


def key_by_key(q, k, v, o, do, lse, dlse, scale):
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for j in range(len(k)):
        p = (scale * (q * k[j]).sum(1) - lse).exp()
        ds = scale * p * ((do * (v[j] - o)).sum(1) + dlse)
        dq, dk[j], dv[j] = dq + ds[:, None] * k[j], (ds[:, None] * q).sum(0), (p[:, None] * do).sum(0)
    return dq, dk, dv


@pytest.mark.parametrize("name, answer", [
    ("take_in", by_a_maximum), ("take_in", as_one_more_key), ("visits", by_counting), ("visits", by_ceil),
    ("gradients", by_einsum), ("gradients", key_by_key),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(judged(name, answer)) == "✓ right"


def test_a_tiles_gradients_add_up_to_those_of_all_keys():
    """Keys [0:7] and [7:12] with the whole row's o and lse: autograd's, through both results."""
    torch.manual_seed(0)
    q, k, v, do, dlse = (torch.randn(shape).double() for shape in ((5, 4), (12, 4), (12, 4), (5, 4), (5,)))
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    s = 0.7 * q @ k.T
    o, lse = s.softmax(1) @ v, s.logsumexp(1)
    want = torch.autograd.grad((o * do).sum() + (lse * dlse).sum(), (q, k, v))
    solution = exercise("triton_attention.gradients").solution
    with torch.no_grad():
        (dq, *first), (dq_2, *last) = (solution(q, k[t], v[t], o, do, lse, dlse, 0.7) for t in (slice(7), slice(7, 12)))
    got = dq + dq_2, *(torch.cat(pair) for pair in zip(first, last, strict=True))
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() < 1e-14


# ---------------------------------------------------------------------------------------------------------------- wrong


def by_autograd(q, k, v, o, do, lse, dlse, scale):
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        s = scale * q @ k.T
        return torch.autograd.grad((s.softmax(1) @ v * do).sum() + (s.logsumexp(1) * dlse).sum(), (q, k, v))


def tile(lse, o, s, v):
    return exercise("triton_attention.take_in").solution(torch.full_like(lse, -torch.inf), 0 * o, s, v)


def from_the_tiles_maximum(lse, o, s, v):
    m = s.amax(1).masked_fill((s == -torch.inf).all(1), 0) if s.numel() else torch.zeros_like(lse)
    old, new = (lse - m).exp(), (s - m[:, None]).exp()
    total = old + new.sum(1)
    return m + total.log(), (old[:, None] * o + new @ v) / total.clamp(min=1e-30)[:, None]


def from_the_old_sum(lse, o, s, v):
    m = lse.masked_fill(lse == -torch.inf, 0)
    old, new = (lse - m).exp(), (s - m[:, None]).exp()
    total = old + new.sum(1)
    return m + total.log(), (old[:, None] * o + new @ v) / total.clamp(min=1e-30)[:, None]


TAKE_IN = {
    "from the tile's maximum": from_the_tiles_maximum,  # the old sum may lie far above it
    "from the old sum": from_the_old_sum,  # the tile may
    "base 2": lambda lse, o, s, v: (torch.logaddexp2(lse, s.logsumexp(1)), o),
    "o untouched": lambda lse, o, s, v: (torch.logaddexp(lse, s.logsumexp(1)), o),
    "the sum, not its logarithm": lambda lse, o, s, v: (lse.exp() + s.exp().sum(1), o),
    "shares of the maxima": lambda lse, o, s, v: (
        torch.logaddexp(lse, s.logsumexp(1)),
        torch.lerp(tile(lse, o, s, v)[1], o, torch.sigmoid(lse - s.amax(1))[:, None]) if s.numel() else o),
    "shares the other way": lambda lse, o, s, v: (
        torch.logaddexp(lse, s.logsumexp(1)),
        torch.lerp(o, tile(lse, o, s, v)[1], torch.sigmoid(lse - s.logsumexp(1))[:, None]).nan_to_num()),
    "a row of the wrong axis": lambda lse, o, s, v: (torch.logaddexp(lse, s.logsumexp(0)[:1]), o),
    "one tensor": lambda lse, o, s, v: torch.cat([lse[:, None], o], 1),
    "three things": lambda lse, o, s, v: (lse, lse, o),
    "clamped logits": lambda lse, o, s, v: by_a_maximum(lse, o, s.clamp(max=20), v),
    "-inf for -1e4": lambda lse, o, s, v: by_a_maximum(lse.clamp(min=-1e4), o, s.clamp(min=-1e4), v),
    "naive, in float64": lambda lse, o, s, v: (
        (lse.double().exp() + s.double().exp().sum(1)).log(), o),
}  # fmt: skip
VISITS = {
    "one for none": lambda first, last, queries, keys, block: (
        0, max(1, by_counting(first, last, queries, keys, block)[1])),
    "all tiles": lambda first, last, queries, keys, block: (
        by_counting(first, last, queries, keys, block)[0], -(-keys // block)),
    "keys, not tiles": lambda first, last, queries, keys, block: (
        max(0, first + 1 + keys - queries), max(0, last + 1 + keys - queries)),
    "floats": lambda first, last, queries, keys, block: (
        max(0, first + 1 + keys - queries) / block, max(0, last + 1 + keys - queries) / block),
    "swapped": lambda first, last, queries, keys, block: by_counting(first, last, queries, keys, block)[::-1],
    "one more than floor": lambda first, last, queries, keys, block: (
        max(0, first + 1 + keys - queries) // block, max(0, last + 1 + keys - queries) // block + 1),
    "absolute shift": lambda first, last, queries, keys, block: (
        (first + 1 + abs(keys - queries)) // block, -(-(last + 1 + abs(keys - queries)) // block)),
}
GRADIENTS = {
    "autograd": by_autograd,
    "lse in base 2": lambda q, k, v, o, do, lse, dlse, scale: by_einsum(q, k, v, o, do, lse * 1.4427, dlse, scale),
    "dlse not through p": lambda q, k, v, o, do, lse, dlse, scale: (
        lambda dq, dk, dv: (dq + scale * dlse[:, None] * k.sum(0), dk, dv))(
            *by_einsum(q, k, v, o, do, lse, 0 * dlse, scale)),
    "dlse in dv": lambda q, k, v, o, do, lse, dlse, scale: by_einsum(q, k, v, o, do + dlse[:, None], lse, dlse, scale),
    "dk in q's place": lambda q, k, v, o, do, lse, dlse, scale: by_einsum(q, k, v, o, do, lse, dlse, scale)[::-1],
    "scale twice": lambda q, k, v, o, do, lse, dlse, scale: by_einsum(
        q * scale**0.5, k * scale**0.5, v, o, do, lse, dlse, 1.0),
    "delta a mean over channels": lambda q, k, v, o, do, lse, dlse, scale: by_einsum(
        q, k, v, o / o.shape[1], do, lse, dlse, scale),
    "the tile's share of a softmax": lambda q, k, v, o, do, lse, dlse, scale: by_einsum(
        q, k, v, o, do, torch.logaddexp(lse, (scale * q @ k.T).logsumexp(1)), dlse, scale),
}


@pytest.mark.parametrize("name, which", [
    *(("take_in", which) for which in TAKE_IN), *(("visits", which) for which in VISITS),
    *(("gradients", which) for which in GRADIENTS),
])  # fmt: skip
def test_a_wrong_answer_of_another_kind(name, which):
    """It is refused, and what it is told is of the smallest case on which it differs, or a mistake that it equals."""
    answer = {"take_in": TAKE_IN, "visits": VISITS, "gradients": GRADIENTS}[name][which]
    verdict = judged(name, answer)
    assert verdict.state == "wrong", str(verdict)
    planned = [mistake.says for mistake in exercise(f"triton_attention.{name}").mistakes.values()]
    assert verdict.message.startswith("with ") or (which, planned.index(verdict.message)) in {("autograd", 6)}


# ------------------------------------------------------------------------------- the one in Triton, where Triton cannot


def test_without_an_interpreter_the_exercise_stays_open_and_says_why(monkeypatch, capsys):
    trouble = "triton is not installed; pip install 'soralab[triton]' (Linux only), or backend='torch'"
    monkeypatch.setattr(interpreter, "why_no_triton", lambda: trouble)
    assert interpreter.why_not() == trouble
    assert vars(interpreter.__getattr__("tl")) == {"constexpr": None}  # so that the lines which define a kernel run
    task = exercise("triton_attention.moving_window")
    with pytest.raises(NotHere, match="not installed"):
        task.call(task.solution, *task.drawn()[0].args)
    assert task.check(lambda *arguments: None) is task.solution
    said = capsys.readouterr().out
    assert said.startswith("☐ not attempted: this exercise runs in Triton's interpreter. triton is not installed")


ASKED = """
import sys
from soralab.exercises import exercise
task = exercise("triton_attention.moving_window")
task.first_cell(), task.drawn(), repr(task)
assert "triton" not in sys.modules and "TRITON_INTERPRET" not in __import__("os").environ
sys.modules["triton"] = sys  # as if it had been imported before
from soralab.kernels import interpreter
print(interpreter.why_not())
try:
    interpreter.nothing
except AttributeError as error:
    print(error)
"""


def test_reading_the_exercise_imports_no_triton_and_a_triton_that_compiles_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reason, nothing = done.stdout.splitlines()
    known = "start the notebook's kernel (or Python) anew", "not installed", "which is untested; it takes"
    assert any(why in reason for why in known), reason
    assert "has no attribute 'nothing'" in nothing
