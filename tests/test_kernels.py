"""Chapter 17: the public function on torch's backend, what it refuses, and the tile tables; then the interpreter's run.

The kernels themselves are tested in processes of their own: tests/kernel_checks/.
"""

import gc
import importlib
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from kernel_checks import battery
from kernel_checks.battery import bounds, numbers
from kernel_checks.process import run_apart, triton_is_here
from tiny_models import randomise

from soralab.blocks import patchify
from soralab.kernels import Packed, attention, configs, dispatch, interpreter, sliding_tile_attention, tables, windows
from soralab.sora import Sora, SoraConfig

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
TINY = SoraConfig(dim=32, depth=2, heads=2, size=(3, 4, 4), rotary=True)


@pytest.fixture(autouse=True)
def nothing_chosen():
    dispatch._CHOSEN.clear()


@triton_is_here
@pytest.mark.parametrize("file", ["interpreted.py", "launched.py", "exercises.py"])
def test_the_kernels_in_the_interpreter(file):
    run_apart(file, TRITON_INTERPRET="1")


# -------------------------------------------------------------------------------------------------- torch's backend


def on_torch(q, k, v, cu_q, cu_k, row_map, causal, scale, sliding):
    """The operator's signature for torch's backend, so that the kernels' cases judge the reference too."""
    if sliding:
        size, tile, window = sliding[:3], sliding[3:6], sliding[6:]
        return sliding_tile_attention(q, k, v, size, tile, window, scale, backend="torch")
    rest = dict(cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, row_map=row_map, causal=causal, scale=scale)
    return attention(q, k, v, **rest, backend="torch")


@pytest.mark.parametrize("case", [*battery.cases(), *battery.large()], ids=lambda case: case.name)
def test_a_case_of_the_battery(case):
    assert battery.trouble(on_torch, case) == ""


@pytest.mark.parametrize("wrong, name", [
    ({"causal": False}, "packed, causal, other lengths"),
    ({"row_map": torch.arange(37)}, "row map"),
    ({"scale": 1.001 * 24**-0.5}, "packed"),
    ({"sliding": [1, 4, 18, 1, 4, 4, 1, 1, 5]}, "sliding tiles"),
])  # fmt: skip
def test_another_mask_or_scale_is_rejected(wrong, name):
    (case,) = (case for case in battery.cases() if case.name == name)
    want = battery.reference(case, battery.grad_of(case))
    case.rest |= wrong
    got = battery.run(on_torch, case, battery.grad_of(case))
    assert battery.apart(case, got, want) != ""


def runs():
    """Segments of which neighbours have as many queries each, and other keys or none: they go together."""
    yield battery.packed("other keys", [4, 4, 4, 2, 2, 4], [3, 17, 1, 5, 5, 2], heads=2)
    yield battery.packed("no keys among others", [4, 4, 4, 3], [3, 0, 5, 0])
    yield battery.packed("no keys first and last", [4, 4, 4], [0, 6, 0])
    yield battery.packed("no queries among others", [0, 0, 3, 3, 0], [2, 4, 1, 6, 0])
    yield battery.packed("causal, alike", [4, 4, 4, 4, 4], [4, 4, 6, 2, 2], causal=True)
    yield battery.packed("large logits, other keys", [5, 5, 5], [9, 2, 6], scale=8.0)
    yield battery.mapped("row map, alike", [6, 6, 0, 6, 5])
    yield battery.mapped("row map, alike, causal", [6, 6, 0, 6, 5], causal=True)


@pytest.mark.parametrize("case", [*runs()], ids=lambda case: case.name)
def test_neighbours_that_go_together_are_each_as_if_alone(case):
    case.slack = 10.0 if "large" in case.name else 1.0
    assert battery.trouble(on_torch, case) == ""


def test_neighbours_without_any_keys_get_zeros():
    q, k = numbers(8, 1, 16).requires_grad_(), numbers(0, 1, 16)
    o = attention(q, k, k, cu_seqlens_q=bounds([4, 4]), cu_seqlens_k=bounds([0, 0]))
    o.sum().backward()
    assert o.shape == (8, 1, 16) and not o.any() and not q.grad.any()


def products(q, k, v, mask, scale, slip=lambda mask: mask, grow=1.0):
    """`dispatch.dense`, and wrong ones."""
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=None if mask is None else slip(mask), scale=scale * grow
    )


@pytest.mark.parametrize("name", ["no mask", "one key more", "one key less", "of the neighbour", "scaled twice"])
def test_filled_up_keys_that_are_seen_are_noticed(monkeypatch, name):
    slips = {
        "no mask": lambda mask: torch.ones_like(mask),
        "one key more": lambda mask: torch.cat([mask[..., :1], mask[..., :-1]], -1),
        "one key less": lambda mask: torch.cat([mask[..., 1:], mask[..., -1:] & False], -1) | (mask.cumsum(-1) == 1),
        "of the neighbour": lambda mask: mask.roll(1, 0),
    }
    case = battery.packed("", [4, 4, 4], [3, 7, 5])
    monkeypatch.setattr(dispatch, "dense", products)
    assert battery.trouble(on_torch, case) == ""
    wrong = partial(products, slip=slips[name]) if name in slips else partial(products, grow=0.25)
    monkeypatch.setattr(dispatch, "dense", wrong)
    assert battery.trouble(on_torch, case) != ""


def test_neighbours_with_as_many_queries_are_one_call(monkeypatch):
    """With causal masks only those that have as many keys too."""
    calls = []
    monkeypatch.setattr(dispatch, "dense", lambda q, *rest: calls.append(len(q)) or products(q, *rest))
    case = battery.packed("", [4, 4, 4, 2, 2, 4], [3, 7, 7, 5, 5, 4])
    for causal, want in ((False, [3, 2, 1]), (True, [1, 2, 2, 1])):
        calls.clear()
        on_torch(case.q, case.k, case.v, case.rest["cu_q"], case.rest["cu_k"], None, causal, 0.25, [])
        assert calls == want


def test_a_neighbour_of_nan_changes_no_bit_of_what_goes_with_it():
    """Not of its output, and not of its gradients, though its keys are filled up to the neighbour's."""
    def told(poison, cu_k):
        leaves = [numbers(n, 2, 16, seed=s).float() for s, n in enumerate((8, 10, 10))]
        for x, own in zip(leaves, (4, 3, 3), strict=True):
            x[own:] = x[own:] * poison
        leaves = [x.requires_grad_() for x in leaves]
        o = attention(*leaves, cu_seqlens_q=bounds([4, 4]), cu_seqlens_k=cu_k, backend="torch")
        o[:4].square().sum().backward()
        return [o[:4], *(x.grad[:own] for x, own in zip(leaves, (4, 3, 3), strict=True))]

    right = told(1.0, bounds([3, 7]))
    assert all(torch.equal(a, b) for a, b in zip(told(torch.nan, bounds([3, 7])), right, strict=True))
    assert not all(x.isfinite().all() for x in told(torch.nan, bounds([4, 6])))  # with a key of the neighbour's


@pytest.mark.parametrize("case", [
    battery.packed("other keys", [4, 4, 4, 2], [3, 17, 1, 5], heads=2, dtype=torch.bfloat16),
    battery.packed("no keys among others", [4, 4, 4], [3, 0, 5], dtype=torch.bfloat16),
    battery.packed("causal", [4, 4, 9], [4, 4, 12], causal=True, dtype=torch.bfloat16),
    battery.packed("more queries than keys, causal", [6, 6], [4, 4], causal=True, dtype=torch.bfloat16),
    battery.packed("self", [5, 5, 7], dtype=torch.bfloat16),
], ids=lambda case: case.name)  # fmt: skip
@pytest.mark.parametrize("fused", [False, True])
def test_bfloat16_trains_as_float64_does(monkeypatch, case, fused):
    """On the way that is the faster one for short rows, and on the fused one, which this is kept to by FUSED_FROM."""
    monkeypatch.setattr(dispatch, "FUSED_FROM", 0 if fused else 10**9)
    case.slack = 3.0
    assert battery.trouble(on_torch, case) == ""
    case.rest["scale"] = 0.3
    got = battery.run(on_torch, case, battery.grad_of(case))
    case.rest["scale"] = 0.25
    assert battery.apart(case, got, battery.reference(case, battery.grad_of(case))) != ""


def test_plain_products_are_for_training_in_bfloat16_alone(monkeypatch):
    fused = []
    right = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(dispatch.F, "scaled_dot_product_attention", lambda *a, **k: fused.append(1) or right(*a, **k))
    for dtype, learns, long, want in ((torch.bfloat16, True, False, 0), (torch.bfloat16, False, False, 1),
                                      (torch.float32, True, False, 1), (torch.bfloat16, True, True, 1)):  # fmt: skip
        fused.clear()
        q, k, v = (numbers(1, 1, 600 if long else 8, 16, dtype=dtype) for _ in range(3))
        attention(q.requires_grad_(learns), k, v, backend="torch")
        assert len(fused) == want, (dtype, learns, long)


def test_packed_tokens_may_be_causal_too():
    q, k, v = (numbers(9, 2, 1, 16, seed=n) for n in range(3))
    cu = bounds([4, 5])
    want = attention(q[:, :, 0], k[:, :, 0], v[:, :, 0], cu_seqlens_q=cu, causal=True)
    assert torch.equal(Packed(cu, causal=True)(q, k, v)[:, :, 0], want)
    assert not torch.allclose(Packed(cu)(q, k, v)[:, :, 0], want)


def test_a_query_without_keys_gets_zeros_and_gradients_of_zero():
    q, k, v = numbers(1, 2, 3, 16).requires_grad_(), numbers(1, 2, 0, 16), numbers(1, 2, 0, 16)
    o = attention(q, k, v)
    o.sum().backward()
    assert not o.any() and not q.grad.any()


@pytest.mark.parametrize("queries, keys", [(3, 0), (0, 3), (0, 0)])
@pytest.mark.parametrize("segments", [None, 1, 2])
def test_where_nothing_is_attended_all_three_get_gradients_of_zero_and_the_answer_is_a_tensor_of_its_own(
    queries, keys, segments
):
    given, shapes = {}, [(1, 2, n, 16) for n in (queries, keys, keys)]
    if segments is not None:
        given = {"cu_seqlens_q": bounds([queries] * segments), "cu_seqlens_k": bounds([keys] * segments)}
        shapes = [(n * segments, 2, 16) for n in (queries, keys, keys)]
    q, k, v = (numbers(*shape).requires_grad_() for shape in shapes)
    o = attention(q, k, v, **given, backend="torch")
    assert o.shape == q.shape and not o.any()
    o.mul_(2).sum().backward()
    assert all(x.grad is not None and x.grad.shape == x.shape and not x.grad.any() for x in (q, k, v))


def test_no_segments_at_all_are_an_answer_of_no_tokens():
    q, k, v = (numbers(0, 2, 16).requires_grad_() for _ in range(3))
    o = attention(q, k, v, cu_seqlens_q=bounds([]), cu_seqlens_k=bounds([]), backend="torch")
    o.mul_(2).sum().backward()
    assert o.shape == q.shape and all(x.grad is not None for x in (q, k, v))


def test_nothing_imports_triton_until_it_is_chosen():
    code = (
        "import sys, torch; from soralab.kernels import attention\n"
        "x = torch.randn(1, 1, 4, 16); attention(x, x, x)\n"
        "assert not any(name.split('.')[0] == 'triton' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


WITHOUT_TRITON = """
import importlib.metadata, sys
import nbformat
version = importlib.metadata.version
def without(name):
    if name == "triton":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
sys.modules["triton"] = None  # importing it fails
here = {}
for cell in nbformat.read(sys.argv[1], as_version=4).cells:
    if cell.cell_type == "code":
        exec(cell.source, here)
"""


def test_the_notebook_runs_where_there_is_no_triton_and_says_so():
    """As on macOS and Windows."""
    notebook = PYPROJECT.parent / "notebooks" / "17_triton_attention.ipynb"
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON, notebook], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "No kernel runs in this notebook, everything below is computed by torch: triton is not ins" in done.stdout


# ---------------------------------------------------------------------------------------------------- W.A.L.T's windows


def test_windows_are_blocks_that_do_not_overlap():
    """Windows of 1 x 2 x 2 and of 3 x 2 x 2 over films of 3 x 4 x 5: a token meets its own block and no other."""
    size = (3, 4, 5)
    places = torch.cartesian_prod(*map(torch.arange, size))
    for window in ((1, 2, 2), (3, 2, 2)):
        cu, order = windows(size, window, films=2)
        film = torch.arange(2).repeat_interleave(60)
        block = torch.cat([film[:, None], (places // torch.tensor(window)).repeat(2, 1)], 1)
        together = (block[:, None] == block[None, :]).all(-1)
        mine = torch.zeros(120, 120, dtype=torch.bool)
        for a, b in zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True):
            inside = order[a:b].long()
            assert inside.diff().min() > 0  # row by row within a block
            mine[inside[:, None], inside[None, :]] = True
        assert torch.equal(mine, together)


@pytest.mark.parametrize("wrong, says", [
    ({"films": 0}, "films is 0; it takes a whole number from 1"),
    ({"window": (1, 0, 2)}, r"window is \(1, 0, 2\); it takes three whole numbers from 1"),
    ({"size": (3, 4)}, r"size is \(3, 4\); it takes three whole numbers from 1"),
])  # fmt: skip
def test_windows_that_cannot_be_are_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        windows(**{"size": (3, 4, 5), "window": (1, 2, 2), **wrong})


# ----------------------------------------------------------------------------------------------------- chapter 16 on it


@pytest.fixture(scope="module")
def sora():
    return randomise(Sora(TINY)).eval()


@torch.no_grad()
def test_the_model_says_the_same_on_another_backend(sora, monkeypatch):
    x, t, ids = numbers(2, 3, 8, 4, 4).float(), torch.tensor([0.2, 0.9]), torch.tensor([[3, 4, 0], [5, 0, 0]])
    want = sora(x, t, ids)
    asked = []
    monkeypatch.setattr(dispatch, "choose", lambda backend, q: asked.append(backend) or "torch")
    other = Sora(TINY, backend="triton").eval()
    other.load_state_dict(sora.state_dict())
    torch.testing.assert_close(other(x, t, ids), want, rtol=1e-4, atol=1e-5)
    assert asked == ["triton"] * TINY.depth  # every block's self-attention
    cut = torch.ones(2, 1, 12, 12).tril().bool()  # a mask is torch's, whatever the backend
    torch.testing.assert_close(other(x, t, ids, cut), sora(x, t, ids, cut))
    assert asked == ["triton"] * TINY.depth and not torch.allclose(sora(x, t, ids, cut), want)


@torch.no_grad()
def test_packed_films_of_mixed_size_equal_each_film_alone(sora):
    """Two films of different sizes in one row of tokens, each with its own prompt and its own diffusion time."""
    films = [numbers(1, 3, 8, 4, 4).float(), numbers(1, 1, 8, 8, 4, seed=1).float()]
    times, prompts = [0.2, 0.9], [torch.tensor([[3, 4, 6]]), torch.tensor([[5, 0, 0]])]
    alone, tokens, words, c, angles = [], [], [], [], []
    for x, t, ids in zip(films, times, prompts, strict=True):
        size = (x.shape[1], *x.shape[3:])
        tokens.append((sora.embed(patchify(x, TINY.patch)) + sora.positions(size).to(x))[0])
        w, mask, whole = sora.text(ids)
        c.append(torch.nn.functional.silu(sora.time(torch.tensor([t])) + whole).expand(len(tokens[-1]), -1))
        words.append(w[mask])
        angles.append(sora.angles(size))
        z = tokens[-1][None]
        for block in sora.blocks:
            z = block(z, c[-1][:1], w, mask[:, None, None], None, angles[-1])
        alone.append(z[0])
    cu_q, cu_k = (bounds([len(part) for part in parts]) for parts in (tokens, words))
    start, c, w = torch.cat(tokens)[:, None], torch.cat(c), torch.cat(words)[:, None]  # a batch of one token each

    def packed(seen):
        z = start
        for block in sora.blocks:
            z = block(z, c, w, None, None, torch.cat(angles)[:, None, None], seen, Packed(cu_q, cu_k, backend="torch"))
        return z[:, 0]

    torch.testing.assert_close(packed(Packed(cu_q, backend="torch")), torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert (packed(Packed(bounds([len(c)]))) - torch.cat(alone)).abs().max() > 1e-3  # without bounds they mix


# --------------------------------------------------------------------------------------------------------------- errors

X, P = numbers(1, 2, 6, 16), numbers(6, 2, 16)  # dense, packed
CU = bounds([2, 4])


@pytest.mark.parametrize("make, says", [
    (lambda: attention(P, P, P), r"q is \[6, 2, 16\]; it takes \[batch, heads, tokens, dim\]; packed .* cu_seqlens_q"),
    (lambda: attention(X, X, X, cu_seqlens_q=CU), r"q is \[1, 2, 6, 16\]; it takes \[tokens, heads, dim\]"),
    (lambda: attention(X, X.float(), X), "k is float32 and q float64; convert them to one dtype"),
    (lambda: attention(X, X, X.to("meta")), "v is on meta and q on cpu; move them to one device"),
    (lambda: attention(X.int(), X.int(), X.int()), "q is int32; it takes float32, float16 or bfloat16"),
    (lambda: attention(X, X, X[:, :, :5]), r"v is \[1, 2, 5, 16\]; it takes k's shape, \[1, 2, 6, 16\]"),
    (lambda: attention(X, X[:, :1], X[:, :1]), r"k is \[1, 1, 6, 16\]; with q \[1, 2, 6, 16\] it takes \[1, 2"),
    (lambda: attention(X[..., :8], X[..., :8], X[..., :8]), "q has heads of dimension 8; it takes 16 to 128"),
    (lambda: attention(*[numbers(1, 1, 2, 129)] * 3), "q has heads of dimension 129"),
    (lambda: attention(X, X, X, scale=0.0), "scale is 0.0; it takes a number above 0"),
    (lambda: attention(X, X, X, scale=float("nan")), "scale is nan"),
    (lambda: attention(X, X, X, backend="cuda"), "backend is 'cuda'; it takes 'auto', 'torch', 'triton'"),
    (lambda: attention(X, X, X, cu_seqlens_k=CU), "cu_seqlens_k is given and cu_seqlens_q is not"),
    (lambda: attention(X, X, X, row_map=torch.arange(6)), "row_map is given and cu_seqlens_q is not"),
    (lambda: attention(P, P, P, cu_seqlens_q=CU, cu_seqlens_k=CU, row_map=torch.arange(6)), "row_map is for self-att"),
    (lambda: attention(P, P, P, cu_seqlens_q=CU.to("meta")), "cu_seqlens_q is on meta and q on cpu; move it there"),
    (lambda: attention(P, P, P, cu_seqlens_q=torch.tensor([0, 4, 2, 6])), "cu_seqlens_q goes back from 4 to 2 at 2"),
    (lambda: attention(P, P, P, cu_seqlens_q=torch.tensor([0, 2, 7])), "runs from 0 to 7; .* number of tokens, 6"),
    (lambda: attention(P, P, P, cu_seqlens_q=torch.tensor([1, 6])), "cu_seqlens_q runs from 1 to 6"),
    (lambda: attention(P, P, P, cu_seqlens_q=torch.tensor([0.0, 6.0])), r"cu_seqlens_q is \[2\] of float32; it takes"),
    (lambda: attention(P, P[:4], P[:4], cu_seqlens_q=CU), "cu_seqlens_k is None and k has 4 tokens, q 6"),
    (lambda: attention(P, P, P, cu_seqlens_q=CU, cu_seqlens_k=torch.tensor([0, 6])), "has 2 bounds; it takes 3"),
    (lambda: attention(P, P, P, cu_seqlens_q=CU, row_map=torch.tensor([0, 1, 2, 3, 4, 4])), "row_map is no perm"),
    (lambda: attention(P, P, P, cu_seqlens_q=CU, row_map=torch.arange(5)), r"row_map is \[5\] of int64; it takes"),
    (lambda: sliding_tile_attention(X, X, X, (1, 2, 2)), r"size is \(1, 2, 2\), 4 tokens; q has 6 and k 6"),
    (lambda: sliding_tile_attention(X, X, X, (1, 2, 3), tile=(1, 0, 3)), r"tile is \(1, 0, 3\); it takes three whole"),
    (lambda: sliding_tile_attention(X, X, X, (1, 2, 3), window=(1, 2, 3)), r"window is \(1, 2, 3\); it takes odd"),
    (lambda: sliding_tile_attention(X, X, X, (1, 6)), r"size is \(1, 6\); it takes three whole numbers from 1"),
    (lambda: Packed(CU)(P[:, :, None], P[:, :, None].repeat(1, 1, 2, 1), P), r"k is \[6, 2, 2, 16\]; packed, it takes"),
    (lambda: Packed(CU)(P, P, P), r"q is \[6, 2, 16\]; packed, it takes \[tokens, heads, 1, dim\]"),
    (lambda: attention(X, X, X, backend="triton"), "q is float64; Triton's backend takes float32, float16 or bfloat16"),
])  # fmt: skip
def test_errors_name_the_argument(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("installed, says", [
    (None, r"triton is not installed; pip install 'soralab\[triton\]' .*backend='torch'"),
    ("2.1.0", "triton is 2.1.0, which is untested; it takes"),
    ("99.0.0", "triton is 99.0.0, which is untested"),
])  # fmt: skip
def test_a_triton_that_is_missing_or_untested_is_named(monkeypatch, installed, says):
    def version(name):
        if installed is None:
            raise dispatch.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(dispatch, "version", version)
    x = X.float()
    with pytest.raises(ValueError, match=says):
        attention(x, x, x, backend="triton")
    torch.testing.assert_close(attention(x, x, x), attention(x, x, x, backend="torch"))  # "auto" does without


def test_the_extra_brings_a_triton_that_is_tested():
    (line,) = re.findall(r'^triton = \["triton>=(\d+)\.(\d+);', PYPROJECT.read_text(encoding="utf-8"), re.M)
    assert tuple(map(int, line)) == dispatch.TESTED[0]


def test_an_interpreter_that_cannot_work_with_its_numpy_is_named(monkeypatch):
    monkeypatch.setattr(dispatch, "version", {"triton": "3.6.0", "numpy": "2.4.6"}.get)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="triton 3.6.0 cannot work with numpy 2.4.6; take numpy below 2.4 or triton"):
        attention(X.float(), X.float(), X.float(), backend="triton")


@pytest.mark.parametrize("before", [None, "0"])
def test_an_interpreter_that_failed_leaves_a_gpu_to_be_found(monkeypatch, before):
    """With TRITON_INTERPRET=1 left behind, "auto" would keep clear of the GPU without a word."""
    monkeypatch.setattr(dispatch, "version", {"triton": "3.6.0", "numpy": "2.4.6"}.get)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if before is not None:
        monkeypatch.setenv("TRITON_INTERPRET", before)
    assert "cannot work with numpy 2.4.6" in interpreter.why_not() and interpreter.tl.constexpr is None
    assert os.environ.get("TRITON_INTERPRET") == before
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    q = SimpleNamespace(is_cuda=True, dtype=torch.float16, device="cuda:0")
    assert dispatch.choose("auto", q) == "triton"


def test_who_asked_for_the_interpreter_is_left_asking(monkeypatch):
    monkeypatch.setattr(dispatch, "version", {"triton": "3.6.0", "numpy": "2.4.6"}.get)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "cannot work with numpy 2.4.6" in interpreter.why_not() and os.environ["TRITON_INTERPRET"] == "1"


@pytest.mark.parametrize("capability, backend", [(7, "torch"), (8, "triton"), (12, "triton")])
def test_an_old_gpu_is_left_to_torch(monkeypatch, capability, backend):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "why_no_triton", lambda: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 5))
    q = SimpleNamespace(is_cuda=True, dtype=torch.float16, device="cuda:0")
    assert dispatch.choose("auto", q) == backend
    if backend == "torch":
        with pytest.raises(ValueError, match="q is on cuda:0, of compute capability below 8; .*backend='torch'"):
            dispatch.choose("triton", q)


def test_a_gpu_does_not_hide_the_interpreter(monkeypatch):
    """With TRITON_INTERPRET=1 nothing is compiled, whatever the machine has: "auto" keeps clear of it, and bfloat16,
    which it multiplies wrongly, is refused."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(dispatch, "why_no_triton", lambda: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    q = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, device="cuda:0")
    assert dispatch.choose("auto", q) == "torch"
    asked = []
    monkeypatch.setattr(dispatch, "check_interpreter", asked.append)
    assert dispatch.choose("triton", q) == "triton" and asked == [q]


def test_without_a_gpu_the_interpreter_is_offered(monkeypatch):
    monkeypatch.setattr(dispatch, "why_no_triton", lambda: "")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="q is on cpu; it takes a CUDA tensor, or TRITON_INTERPRET=1"):
        attention(X.float(), X.float(), X.float(), backend="triton")


# ------------------------------------------------------------------------------------------------------ the tile tables


def ranges(tiles):
    """{first place of a program's tile: where it counts from, its whole tiles, its pieces}."""
    return {row[1]: (row[5], *row[6:]) for row in tiles.table.tolist()}


def test_a_table_by_hand():
    """Segments of 3 and 5 queries in tiles of 2, keys in tiles of 2, causal: what each program visits."""
    layout = tables.packed(bounds([3, 5]), None, None, 8, 8, True)
    tiles = layout.tiles("queries", 2, 2)
    assert tiles.own_map is tiles.other_map is None and tiles.table.dtype == torch.int32
    # Tile [5, 7) of the second segment (places 3..7): its queries see 3 and 4 keys, so one whole tile and one not.
    assert ranges(tiles) == {
        0: (0, 0, 0, 0, 1), 2: (0, 0, 1, 1, 2), 3: (3, 0, 0, 0, 1), 5: (3, 0, 1, 1, 2), 7: (3, 0, 2, 2, 3),
    }  # fmt: skip
    assert tiles.table[0, 1] == 7  # the longest first
    # Keys count back from their segment's last query: two tiles of queries from place -1, three from place 2.
    assert ranges(layout.tiles("keys", 2, 2)) == {
        0: (-1, 1, 2, 0, 1), 2: (-1, 2, 2, 1, 2), 3: (2, 1, 3, 0, 1), 5: (2, 2, 3, 1, 2), 7: (2, 3, 3, 2, 3),
    }  # fmt: skip


def test_cut_tiles_are_visited_in_pieces():
    """100 keys in tiles of 64: one whole, and 36 in two pieces of 32; backwards the pieces come first."""
    layout = tables.dense(1, 100, 100, False, torch.device("cpu"))
    assert ranges(layout.tiles("queries", 128, 64)) == {0: (0, 0, 1, 2, 4)}
    assert ranges(layout.tiles("keys", 128, 64)) == {0: (-28, 1, 1, 0, 4), 64: (-28, 1, 1, 0, 4)}
    assert tables.piece(128) == tables.piece(64) == 32 and tables.piece(16) == 16


def test_tiles_that_see_the_same_tiles_are_one_segment():
    """4 x 4 tiles of a film, windows of 3 x 3: at the border two tiles of a row see the same, so 2 x 2 groups."""
    layout = tables.sliding((1, 16, 16), (1, 4, 4), (1, 3, 3), 1, torch.device("cpu"))
    tiles = layout.tiles("queries", 64, 16)
    assert len(tiles.table) == 4 and layout.family == "sliding"  # of 64 queries: no 128 see the same
    assert (tiles.table[:, 4] - tiles.table[:, 3]).tolist() == [9 * 16] * 4
    assert sorted(tiles.own_map.tolist()) == list(range(256)) and len(tiles.other_map) == 4 * 9 * 16
    wide = tables.sliding((4, 16, 16), (4, 4, 4), (1, 3, 3), 1, torch.device("cpu"))
    assert wide.family == "sliding, wide"
    assert tables.sliding((4, 32, 32), (4, 4, 4), (1, 3, 3), 1, torch.device("cpu")).family == "sliding"


def test_the_layout_is_remembered_while_the_bounds_live_and_are_not_written_to():
    cu = bounds([2, 4])
    first = tables.packed(cu, None, None, 6, 6, False)
    assert tables.packed(cu, None, None, 6, 6, False) is first
    assert tables.packed(cu, None, None, 6, 6, True) is not first
    cu[1] = 3
    assert tables.packed(cu, None, None, 6, 6, False).q_end.tolist() == [3, 6]
    with torch.inference_mode():
        unversioned = bounds([2, 4])
    assert tables.packed(unversioned, None, None, 6, 6, False).q_end.tolist() == [2, 6]


def test_bounds_that_are_written_to_for_every_batch_do_not_pile_up():
    cu = bounds([2, 4])
    for k in range(3 * tables.REMEMBERED):
        cu[1] = k % 6
        tables.packed(cu, None, None, 6, 6, False)
    assert len(tables._PACKED[cu]) == tables.REMEMBERED


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_what_is_remembered_goes_with_the_bounds(dtype):
    before = len(tables._PACKED)
    cu = bounds([2, 4]).to(dtype)
    tables.packed(cu, None, None, 6, 6, False)
    assert len(tables._PACKED) == before + 1
    del cu
    assert len(tables._PACKED) == before


@pytest.mark.parametrize("other", [
    lambda cu: {"cu_k": cu}, lambda cu: {"cu_k": cu[:]}, lambda cu: {"row_map": cu[:-1]},
], ids=["the same", "a view", "a row map that is a view"])  # fmt: skip
def test_bounds_of_keys_that_are_those_of_the_queries_do_not_keep_themselves_alive(other):
    gc.collect()
    before = len(tables._PACKED)
    for _ in range(3):
        cu = torch.arange(7, dtype=torch.int32)
        given = {"cu_k": None, "row_map": None, **other(cu)}
        first = tables.packed(cu, queries=6, keys=6, causal=False, **given)
        assert tables.packed(cu, queries=6, keys=6, causal=False, **given) is first
    del cu, given
    gc.collect()
    assert len(tables._PACKED) == before


def test_new_bounds_of_keys_that_got_the_id_of_old_ones_are_read(monkeypatch):
    """Which object gets the place of one that is gone is Python's own affair, so here those of keys share one id."""
    cu, keys = bounds([2, 4]), bounds([1, 5])
    monkeypatch.setattr(tables, "id", lambda t: id(cu) if t is cu else 7, raising=False)
    assert tables.packed(cu, keys, None, 6, 6, False).k_end.tolist() == [1, 6]
    del keys
    assert tables.packed(cu, bounds([4, 2]), None, 6, 6, False).k_end.tolist() == [4, 6]


def test_a_window_stops_at_the_border():
    assert [row.nonzero().flatten().tolist() for row in tables.window_of(5, 3)] == [
        [0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4],
    ]  # fmt: skip
    assert tables.window_of(2, 3).all()


# --------------------------------------------------------------------------------------------- the benchmark for a GPU


def test_hoppers_tiles_are_those_that_were_measured():
    """data/benchmarks/gpu.json holds them. What has no time of its own is named in configs.py."""
    path = PYPROJECT.parent / "data" / "benchmarks" / "gpu.json"
    measured = {
        (row["mask"], row["dim"], row["loads"], row["pass"]): tuple(row["tiles"])
        for row in json.loads(path.read_text(encoding="utf-8"))["tiles"]
    }
    loads = {"dense": "descriptors", "causal": "pointers", "packed": "pointers", "windows": "pointers"}
    for dim in (64, 128):
        rows = configs.CONFIGS[90, 16, dim]
        for family, how in loads.items():
            for name, chosen in zip(configs.PASSES, rows[family], strict=True):
                want = measured.get((family, dim, how, name), tuple(rows["dense"][configs.PASSES.index(name)][:4]))
                assert chosen[:3] == want[:3] and chosen.stages >= want[3] and chosen.bulk == (family != "windows")
        for name, *chosen in zip(configs.PASSES, rows["pointers"], rows["sliding"], strict=True):
            by = [measured[mask, dim, "pointers", name] for mask in ("dense", "sliding tiles")]
            assert chosen[0] == (*by[0], False) and (chosen[1] == (*by[1], False) or name == "backward_k")


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark, small, on the CPU and through torch's backend."""
    monkeypatch.syspath_prepend(PYPROJECT.parent)
    module = importlib.import_module("benchmarks.gpu")
    small = dict(DEVICE="cpu", BACKEND="torch", HEADS=1, TOKENS=1024, FILM=(4, 16, 16), WINDOW=(1, 4, 4))
    for name, value in {**small, "SEEN": (1, 1, 3)}.items():
        monkeypatch.setattr(module, name, value)
    for clock in ("on_the_chip", "by_the_clock"):
        monkeypatch.setattr(module, clock, lambda work, *_: 1.0 if work() is not None else 0.0)
    monkeypatch.setattr(module, "ways", lambda given, may_attend, tuned: {"ours": partial(module.ours, given)})
    return module


@pytest.mark.parametrize("dim", [16, 64])
def test_the_gpu_benchmark_measures_the_masks_that_it_names(gpu, dim):
    """Its masks and its reference agree with what it times."""
    cases = gpu.cases()
    assert len(cases) == 5 and sum(gpu.lengths()) == 1024 and len(gpu.lengths()) > 1
    for name, case in cases.items():
        (row,) = gpu.compare(name, dim, *case)
        assert len(row["errors"]) == 4 and max(row["errors"]) < 0.02 and row["both_call_ms"] == 1.0, row
        assert name in gpu.line(row) and str(dim) in gpu.line(row)
    wrong = cases["causal"][0], cases["packed"][1]  # another mask than what was computed
    (row,) = gpu.compare("wrong", dim, *wrong)
    assert min(row["errors"]) > 0.02


def test_the_sweep_counts_the_pairs_of_the_masks_that_it_names(gpu):
    sweep = importlib.import_module("benchmarks.gpu_sweep")
    pairs = {name: case[1](*torch.meshgrid(*[torch.arange(1024)] * 2, indexing="ij")).sum().item()
             for name, case in gpu.cases().items()}  # fmt: skip
    pairs["sliding"] = pairs.pop("sliding tiles")
    for family, count in pairs.items():
        assert count <= sweep.visited(sweep.layout_of(family)) <= 1.1 * count
        for direction in sweep.PASSES:
            assert len(set(sweep.candidates(family, direction))) == len(sweep.candidates(family, direction)) > 10


def test_the_gpu_benchmark_needs_no_more_than_the_kernels_do():
    blocked = "matplotlib tqdm av torchvision transformers diffusers open_clip scipy PIL safetensors ipywidgets".split()
    code = f"import sys, runpy; sys.modules.update(dict.fromkeys({blocked}))\n"
    code += "sys.argv[1:] = ['gpu']; runpy.run_module('benchmarks', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=PYPROJECT.parent, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr
