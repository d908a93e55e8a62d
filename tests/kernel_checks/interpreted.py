"""The kernels' arithmetic, run by Triton's interpreter without a GPU. Run by tests/test_kernels.py.

It checks what kernels compute, not that they compile: compiled.py does that.
"""

import random
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import battery
import bfloat16
import pytest
import torch
from battery import dense, mapped, numbers, packed, sliding

import soralab.kernels
from soralab.kernels import attention, sliding_tile_attention, tables, triton_launch
from soralab.sora import Sora, SoraConfig

operator = triton_launch.attention


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    monkeypatch.setattr(triton_launch, "empty", battery.poisoned)
    monkeypatch.setattr(triton_launch, "config", triton_launch.config)  # battery.prepare sets it; put back afterwards
    battery.GUARDED.clear()


def output(case):
    battery.prepare(triton_launch, case)
    return operator(case.q, case.k, case.v, *case.arguments())[0]


def test_the_interpreter_is_what_runs():
    assert triton_launch.INTERPRETED


@pytest.mark.parametrize("case", [*battery.cases(), *battery.large()], ids=lambda case: case.name)
def test_a_case_of_the_battery(case):
    battery.prepare(triton_launch, case)
    assert battery.trouble(operator, case) == ""


@pytest.mark.skipif(not bfloat16.there(), reason="this Triton's interpreter is another one than we know how to mend")
@pytest.mark.parametrize("case", [
    packed("packed", [1, 0, 37, 33], heads=2, dim=64, dtype=torch.bfloat16),
    packed("packed, causal, other lengths", [5, 0, 20, 7], [0, 4, 37, 3], dim=24, causal=True, dtype=torch.bfloat16),
], ids=lambda case: case.name)  # fmt: skip
def test_bfloat16_once_the_interpreter_multiplies_it(case):
    battery.prepare(triton_launch, case)
    assert battery.trouble(operator, case) != ""  # as it is, the interpreter is wrong
    with bfloat16.mended():
        assert battery.trouble(operator, case) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_errors_are_no_larger_than_torchs_own(dtype):
    """Of the formula as torch computes it in the same precision, by a fifth at most."""
    if dtype == torch.bfloat16 and not bfloat16.there():
        pytest.skip("see above")
    case = packed("", [37, 64], heads=2, dim=64, dtype=dtype)
    battery.prepare(triton_launch, case)
    do = battery.grad_of(case)
    want = battery.reference(case, do)
    leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
    q, k, v = (x.transpose(0, 1) for x in leaves)
    o = ((q * 64**-0.5) @ k.transpose(-1, -2)).masked_fill(~case.mask, -torch.inf).softmax(-1) @ v
    theirs = [o.transpose(0, 1), *torch.autograd.grad(o, leaves, do.transpose(0, 1))]
    with bfloat16.mended() if dtype == torch.bfloat16 else nullcontext():
        mine = battery.run(operator, case, do)
    for name, a, b, exact in zip(("o", "dq", "dk", "dv"), mine, theirs, want, strict=True):
        error, limit = ((x.detach().double() - exact).norm() for x in (a, b))
        assert error <= 1.2 * limit, (name, error, limit)


@pytest.mark.parametrize("seed", range(4))
def test_shapes_that_nobody_chose(seed):
    """Lengths, heads, dimension and mask drawn by lot."""
    rng = random.Random(seed)
    lengths = [rng.choice((0, 1, rng.randint(2, 30))) for _ in range(rng.randint(0, 3))]
    keys = rng.choice((None, [rng.randint(0, 30) for _ in lengths] + [20]))
    lengths.append(rng.randint(5, 40))
    heads, dim, causal = rng.randint(1, 2), rng.randint(16, 70), rng.random() < 0.5
    case = packed(f"{lengths} {keys}", lengths, keys, heads, dim, causal, seed=seed)
    case.blocks = tuple((rng.choice((16, 32)), rng.choice((16, 32))) for _ in range(3))
    battery.prepare(triton_launch, case)
    assert battery.trouble(operator, case) == ""


def test_one_long_segment_among_many_short_ones():
    case = packed("", [1, 2, 1, 97, 3, 1, 1])
    battery.prepare(triton_launch, case)
    assert battery.trouble(operator, case) == ""


def test_two_runs_are_equal_to_the_last_bit_and_tile_sizes_hardly_matter():
    case, do = packed("", [33, 20], causal=True), None
    runs = []
    for blocks in ((32, 16), (32, 16), (16, 64), (64, 32)):
        case.blocks, do = (blocks,) * 3, battery.grad_of(case)
        battery.prepare(triton_launch, case)
        runs.append(battery.run(operator, case, do))
    assert all(torch.equal(a, b) for a, b in zip(*runs[:2], strict=True))
    for other in runs[2:]:
        for a, b in zip(runs[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


def test_a_segment_does_not_see_the_others():
    case = packed("", [7, 20, 18])
    before = output(case)
    for x in (case.q, case.k, case.v):
        x[:7], x[27:] = 1e4, -1e4
    assert torch.equal(output(case)[7:27], before[7:27])


def test_the_past_does_not_see_the_future():
    case = dense("", 1, 1, 40, 40, 16, causal=True)
    before = output(case)
    case.k[:, :, 23:], case.v[:, :, 23:] = 1e4, -1e4
    after = output(case)
    assert torch.equal(after[:, :, :23], before[:, :, :23])
    assert (after[:, :, 23:] != before[:, :, 23:]).any(-1).all()


def test_packed_segments_equal_each_alone():
    lengths = [9, 33]
    case = packed("", lengths, heads=2, dim=24)
    together = output(case)
    for part in (slice(0, 9), slice(9, 42)):
        q, k, v = (x[part].transpose(0, 1)[None] for x in (case.q, case.k, case.v))
        alone = operator(q, k, v, None, None, None, False, 24**-0.5, [])[0]
        torch.testing.assert_close(together[part].transpose(0, 1)[None], alone, rtol=1e-5, atol=1e-6)


def test_values_of_one_give_one_and_weights_give_back_all_of_do():
    case = dense("", 1, 2, 20, 40, 16)
    case.v.fill_(1)
    do = battery.grad_of(case)
    battery.prepare(triton_launch, case)
    o, dq, dk, dv = battery.run(operator, case, do)
    torch.testing.assert_close(o, torch.ones_like(o), rtol=0, atol=1e-6)
    torch.testing.assert_close(dv.sum(2), do.sum(2), rtol=1e-4, atol=1e-5)
    assert max(dq.abs().max(), dk.abs().max()) < 1e-5  # the output does not depend on the weights


def test_equal_keys_give_the_queries_no_gradient():
    case = dense("", 1, 1, 20, 40, 16)
    case.k.copy_(case.k[:, :, :1].expand_as(case.k))
    battery.prepare(triton_launch, case)
    o, dq, *_ = battery.run(operator, case, battery.grad_of(case))
    assert dq.abs().max() < 1e-5
    torch.testing.assert_close(o, case.v.mean(2, keepdim=True).expand_as(o), rtol=1e-4, atol=1e-6)


def test_gradients_do_not_cross_from_segment_to_segment():
    case = packed("", [7, 20, 18])
    battery.prepare(triton_launch, case)
    do = torch.zeros_like(case.q)
    do[7:27] = battery.grad_of(case)[7:27]
    for grad in battery.run(operator, case, do)[1:]:
        assert grad[:7].abs().max() == grad[27:].abs().max() == 0 and grad[7:27].abs().min(0).values.max() > 0


def test_queries_and_segments_without_keys_get_zeros():
    case = packed("", [5, 3], [0, 2], causal=True)
    battery.prepare(triton_launch, case)
    o, dq, dk, dv = battery.run(operator, case, battery.grad_of(case))
    assert o[:6].abs().max() == 0 and dq[:6].abs().max() == 0 and o[6:].abs().min() > 0
    lse = operator(case.q, case.k, case.v, *case.arguments())[1]
    assert lse[0, 0, :6].tolist() == [float("inf")] * 6 and lse[0, 0, 6:].isfinite().all()


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nothing_at_all(lengths):
    case = packed("", lengths)
    o, dq, dk, dv = battery.run(operator, case, torch.zeros_like(case.q))
    assert o.shape == dq.shape == dk.shape == dv.shape == (0, 1, 16)


def test_gradients_in_float64_are_those_of_finite_differences():
    case = packed("", [3, 6], [4, 2], causal=True, dtype=torch.float64)
    case.blocks = ((16, 16),) * 3
    battery.prepare(triton_launch, case)
    leaves = [x.contiguous().requires_grad_() for x in (case.q, case.k, case.v)]
    # Scalars reach the kernel as float32, so its scale is off by 1e-8.
    assert torch.autograd.gradcheck(
        lambda *x: operator(*x, *case.arguments())[0], leaves, fast_mode=True, atol=1e-5, rtol=1e-3
    )


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_gradients_for_some_of_the_inputs(wanted):
    case = dense("", 1, 1, 16, 16, 16)
    case.blocks = ((16, 16),) * 3
    want = battery.reference(case, torch.ones_like(case.q))[1:]
    leaves = [x.detach().clone().requires_grad_(n in wanted) for n, x in enumerate((case.q, case.k, case.v))]
    battery.prepare(triton_launch, case)
    operator(*leaves, *case.arguments())[0].sum().backward()  # its gradient is expanded: all strides 0
    for n, leaf in enumerate(leaves):
        assert (leaf.grad is not None) == (n in wanted)
        if n in wanted:
            torch.testing.assert_close(leaf.grad, want[n].float(), rtol=1e-4, atol=1e-5)


def test_offsets_beyond_31_bits():
    """Rows 2^30 numbers apart: the third lies at 2^31, which as an int32 is -2^31. Memory is reserved, not used."""
    try:
        far = torch.empty(2**32 + 64, dtype=torch.float16)
    except RuntimeError:
        pytest.skip("this machine reserves no 8 GB")
    q = far.as_strided((1, 1, 3, 16), (1, 1, 2**30, 1), 2**31 - 2**30)
    near = numbers(1, 1, 3, 16, dtype=torch.float16)
    q.copy_(near)
    arguments = [None, None, None, False, 0.25, []]
    assert torch.equal(operator(q, q, q, *arguments)[0], operator(near, near, near, *arguments)[0])


# ------------------------------------------------------------------------------------------ the operator and its cache


def test_the_operator_is_registered_as_torch_wants_it():
    case = packed("", [5, 12])
    case.blocks = ((16, 16),) * 3
    battery.prepare(triton_launch, case)
    triton_launch.empty = torch_empty
    leaves = [x.clone().requires_grad_() for x in (case.q, case.k, case.v)]
    torch.library.opcheck(operator, (*leaves, *case.arguments()))


def torch_empty(shape, like, dtype=None):
    """Zeros, so that two calls agree where nothing is written (opcheck compares NaN with NaN as unequal)."""
    return torch.zeros(tuple(shape), dtype=dtype or like.dtype)


def test_torch_compile_takes_it_whole():
    case = packed("", [5, 12])
    case.blocks = ((16, 16),) * 3
    battery.prepare(triton_launch, case)
    bounds = case.rest["cu_q"]

    def layer(x):
        return (attention(x, x * 2, x + 1, cu_seqlens_q=bounds, backend="triton") * 2).square().sum()

    x = case.q.clone().requires_grad_()
    want = torch.autograd.grad(layer(x), x)[0]
    got = torch.autograd.grad(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), x)[0]
    torch.testing.assert_close(got, want)


def test_the_table_is_made_once_for_all_layers(monkeypatch):
    made = []
    build = tables.Layout.build
    monkeypatch.setattr(tables.Layout, "build", lambda self, *key: made.append(key) or build(self, *key))
    case = packed("", [5, 12])
    battery.prepare(triton_launch, case)
    for _ in range(3):
        battery.run(operator, case, battery.grad_of(case))
    assert len(made) == 3  # forward, backward_q and backward_k: each has tile sizes of its own here


def test_bounds_that_are_written_to_are_read_again():
    case, other = packed("", [5, 12]), packed("", [12, 5])
    before = output(case)
    case.rest["cu_q"].copy_(other.rest["cu_q"])
    after = output(case)
    assert not torch.equal(before, after)
    case.rest["cu_q"] = other.rest["cu_q"].clone()
    assert torch.equal(output(case), after)


@pytest.mark.parametrize("make", [
    lambda **b: attention(numbers(1, 1, 5, 24).float(), numbers(1, 1, 7, 24, seed=1).float(),
                          numbers(1, 1, 7, 24, seed=2).float(), causal=True, scale=0.3, **b),
    lambda **b: attention(*[numbers(17, 1, 16, seed=n).float() for n in range(3)], **b,
                          cu_seqlens_q=battery.bounds([5, 12]), row_map=torch.arange(17).flip(0)),
    lambda **b: sliding_tile_attention(*[numbers(1, 1, 40, 16, seed=n).float() for n in range(3)], (1, 4, 10),
                                       (1, 4, 4), (1, 1, 1), **b),
])  # fmt: skip
def test_both_backends_say_the_same(make):
    torch.testing.assert_close(make(backend="triton"), make(backend="torch"), rtol=1e-5, atol=1e-6)


def test_what_the_interpreter_multiplies_wrongly_is_refused():
    x = numbers(1, 1, 4, 16, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="q is bfloat16, and Triton's interpreter multiplies it wrongly"):
        attention(x, x, x, backend="triton")


@pytest.mark.parametrize("capability, rows", [(8, 80), (9, 90), (10, 90), (12, 80)])
def test_a_gpu_takes_the_configurations_that_fit_it(monkeypatch, capability, rows):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    assert triton_launch.rows_for(SimpleNamespace(is_cuda=True, device="cuda")) == rows


def test_chapter_16s_model_computes_on_the_kernels_forwards_and_backwards():
    """Two blocks, RoPE and all, 32 tokens in one tile: the same film and the same gradients as through torch's."""
    torch.manual_seed(0)
    model = Sora(SoraConfig(dim=32, depth=2, heads=2, size=(2, 8, 8), rotary=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # gates and head start at 0, and would hide everything
    triton_launch.config = lambda direction, x, layout: triton_launch.Config(32, 32, 4, 1)
    x, t, ids = torch.randn(2, 2, 8, 8, 8), torch.tensor([0.2, 0.9]), torch.tensor([[3, 4, 0], [5, 0, 0]])
    found = {}
    for backend in ("torch", "triton"):
        model.backend = backend
        model.zero_grad()
        film = model(x, t, ids)
        film.square().mean().backward()
        found[backend] = [film.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    for mine, theirs in zip(found["triton"], found["torch"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert battery.GUARDED  # the kernels did run


# ------------------------------------------------------------------------------------------------- reading the source


def test_no_load_without_what_to_put_where_the_mask_is_false():
    """The interpreter puts zeros there, a GPU anything: so it must be said."""
    source = Path(soralab.kernels.__file__).with_name("triton_kernels.py").read_text(encoding="utf-8")
    loads = re.findall(r"tl\.load\(((?:[^()]|\([^()]*\))*)\)", source)
    assert len(loads) == source.count("tl.load(") >= 12
    assert [load for load in loads if "mask=" in load and "other=" not in load] == []


@pytest.mark.parametrize("case", [sliding("", (1, 4, 18), (1, 4, 4), (1, 1, 3)), mapped("", [16, 21])], ids=str)
def test_no_tile_is_visited_twice_or_in_vain(case):
    """Every pair of tiles with a pair of tokens that may attend is visited once, from both sides; no other is."""
    layout = triton_launch.layout_of(case.q, case.k, *case.arguments()[:4], case.arguments()[5])
    order = torch.arange(len(case.mask)) if layout.row_map is None else layout.row_map.long()
    mask = case.mask[order][:, order]
    for owner, seen in (("queries", mask), ("keys", mask.T)):
        table, visits = layout.table(owner, 16, 16)
        for _, first, _, other, other_end, *ranges in table.tolist():
            tiles = [*range(*ranges[:2]), *range(*ranges[2:])]
            spans = [visits[t].tolist() if visits is not None else [other + 16 * t, other_end] for t in tiles]
            met = sorted(begin for begin, end in spans)
            end_of = table[table[:, 1] == first][0, 2].item()
            columns = seen[first : min(first + 16, end_of)].any(0)
            begins = sorted({b for b in met if columns[b : b + 16].any()})
            assert met == begins and sum(columns[b : min(b + 16, e)].sum() for b, e in spans) == columns.sum()


def test_cases_are_what_they_say():
    """A battery whose masks are all True would prove nothing."""
    masks = [case.mask for case in battery.cases()]
    assert sum(not mask.all() for mask in masks) >= 4 and all(mask.any() for mask in masks)
