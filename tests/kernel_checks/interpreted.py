"""The kernels' arithmetic, run by Triton's interpreter without a GPU. Run by tests/test_kernels.py.

It checks what kernels compute, not that they compile: compiled.py does that.
"""

import random
import re
from contextlib import nullcontext
from pathlib import Path

import battery
import bfloat16
import pytest
import torch
from battery import dense, mapped, packed, sliding

import soralab.kernels
from soralab.kernels import tables, triton_launch

operator = triton_launch.attention


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    battery.poison(monkeypatch, triton_launch)
    monkeypatch.setattr(triton_launch, "config", triton_launch.config)  # battery.prepare sets it; put back afterwards
    battery.GUARDED.clear()


def output(case):
    battery.prepare(triton_launch, case)
    return operator(case.q, case.k, case.v, *case.arguments())


def test_the_interpreter_is_what_runs():
    assert triton_launch.INTERPRETED


@pytest.mark.parametrize("case", [*battery.cases(), *battery.large()], ids=lambda case: case.name)
def test_a_case_of_the_battery(case):
    battery.prepare(triton_launch, case)
    assert battery.trouble(operator, case) == ""


@pytest.mark.parametrize("scene", battery.SCENES, ids=lambda scene: scene.__name__)
def test_a_scene_of_several_calls(scene):
    assert scene(triton_launch) == ""


@pytest.mark.parametrize("name", ["packed", "packed, causal, other lengths", "dense, causal, whole tiles"])
def test_pointers_give_the_numbers_of_descriptors(name, monkeypatch):
    """To the last bit, where there are none and where they cannot describe: they load the same tiles."""
    (case,) = (case for case in battery.cases() if case.name == name)
    do, runs, described = battery.grad_of(case), [], []
    whole = triton_launch.TensorDescriptor
    monkeypatch.setattr(triton_launch, "TensorDescriptor", lambda *given: described.append(1) or whole(*given))
    for bulk, there in ((True, triton_launch.TensorDescriptor), (False, None), (True, None)):
        monkeypatch.setattr(triton_launch, "TensorDescriptor", there)
        battery.prepare(triton_launch, case, bulk)
        runs.append(battery.run(operator, case, do))
    assert len(described) == 6  # two a pass, of the first run alone
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("wrong", ["begins between", "row stride", "head stride", "batch stride"])
def test_what_no_descriptor_describes_is_known(wrong):
    """The copy engine's addresses are multiples of 16 bytes: four numbers of float32."""
    at = ["batch stride", "head stride", "row stride"].index(wrong) if "stride" in wrong else None
    strides = [1024 + (at == 0), 256 + (at == 1), 20 + (at == 2), 1]
    x = torch.zeros(4096)[8 + (at is None) :]
    assert triton_launch.describable(torch.zeros(4096)[8:].as_strided((2, 2, 3, 16), (1024, 256, 20, 1)))
    assert not triton_launch.describable(x.as_strided((2, 2, 3, 16), strides))


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
        alone = operator(q, k, v, None, None, None, False, 24**-0.5, [])
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
    lse = triton_launch.operator(case.q, case.k, case.v, *case.arguments())[1]
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
        lambda *x: operator(*x, *case.arguments()), leaves, fast_mode=True, atol=1e-5, rtol=1e-3
    )


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_gradients_for_some_of_the_inputs(wanted):
    case = dense("", 1, 1, 16, 16, 16)
    case.blocks = ((16, 16),) * 3
    want = battery.reference(case, torch.ones_like(case.q))[1:]
    leaves = [x.detach().clone().requires_grad_(n in wanted) for n, x in enumerate((case.q, case.k, case.v))]
    battery.prepare(triton_launch, case)
    operator(*leaves, *case.arguments()).sum().backward()  # its gradient is expanded: all strides 0
    for n, leaf in enumerate(leaves):
        assert (leaf.grad is not None) == (n in wanted)
        if n in wanted:
            torch.testing.assert_close(leaf.grad, want[n].float(), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- reading the source


def test_no_load_without_what_to_put_where_the_mask_is_false():
    """The interpreter puts zeros there, a GPU anything: so it must be said."""
    source = Path(soralab.kernels.__file__).with_name("triton_kernels.py").read_text(encoding="utf-8")
    loads = re.findall(r"tl\.load\(((?:[^()]|\([^()]*\))*)\)", source)
    assert len(loads) == source.count("tl.load(") >= 8
    assert [load for load in loads if "mask=" in load and "other=" not in load] == []


@pytest.mark.parametrize("case", [
    packed("", [5, 0, 40, 7, 3], [0, 4, 57, 3, 3], causal=True), packed("", [1, 0, 19, 33]), mapped("", [16, 21]),
    mapped("", [70, 3], causal=True), sliding("", (1, 4, 18), (1, 4, 4), (1, 1, 3)),
    sliding("", (5, 6, 7), (2, 2, 4), (3, 3, 1), batch=2),
])  # fmt: skip
@pytest.mark.parametrize("blocks", [(16, 16), (64, 32), (32, 64), (64, 64)])
def test_no_pair_is_visited_twice_and_no_tile_in_vain(case, blocks):
    """Of every tile that counts as whole all pairs may attend; whole tiles and pieces hold each pair that may attend
    once, for each batch entry, and none that holds no such pair is visited."""
    layout = triton_launch.layout_of(case.q, case.k, *case.arguments()[:4], case.arguments()[5])
    for owner, seen in (("queries", case.mask), ("keys", case.mask.T)):
        table, *maps = layout.tiles(owner, *blocks)
        own, other = (torch.arange(n) if m is None else m.long() for n, m in zip(seen.shape, maps, strict=True))
        size, block = blocks if owner == "queries" else blocks[::-1]
        found = torch.zeros(len(case.q) if case.q.ndim == 4 else 1, *seen.shape, dtype=torch.int)
        for entry, first, end, begin, stop, origin, full_lo, full_hi, edge_lo, edge_hi in table.tolist():
            mine = own[first : min(first + size, end)]
            spans = [(origin + t * block, block, True) for t in range(full_lo, full_hi)]
            small = tables.piece(block)
            spans += [(origin + t * small, small, False) for t in range(edge_lo, edge_hi)]
            for place, length, whole in spans:
                theirs = other[max(place, begin) : min(place + length, stop)]
                pairs = seen[mine[:, None], theirs]
                assert pairs.any() and (not whole or (len(theirs) == length and pairs.all()))
                found[entry, mine[:, None], theirs] += pairs.int()
        assert torch.equal(found, seen.int().expand_as(found))


def test_cases_are_what_they_say():
    """A battery whose masks are all True would prove nothing."""
    masks = [case.mask for case in battery.cases()]
    assert sum(not mask.all() for mask in masks) >= 4 and all(mask.any() for mask in masks)
