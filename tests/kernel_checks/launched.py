"""What stands between a call and the kernels: the operator, what is remembered, configurations. By the interpreter.

Run by tests/test_kernels.py, as interpreted.py is, which holds the kernels' arithmetic.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import battery
import pytest
import torch
from battery import dense, numbers, packed

import soralab.kernels
from soralab.kernels import attention, configs, dispatch, sliding_tile_attention, tables, triton_launch
from soralab.kernels.configs import Config
from soralab.sora import Sora, SoraConfig

operator = triton_launch.attention


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    battery.poison(monkeypatch, triton_launch)
    monkeypatch.setattr(triton_launch, "config", triton_launch.config)  # battery.prepare sets it; put back afterwards
    battery.GUARDED.clear()


def output(case):
    battery.prepare(triton_launch, case)
    return battery.output(triton_launch, case)


@pytest.mark.parametrize("case", [packed("", [5, 12]), dense("", 1, 2, 16, 16, 16)], ids=["packed", "dense"])
def test_the_operator_is_registered_as_torch_wants_it(case, monkeypatch):
    """Zeros for NaN in what kernels write to: opcheck compares two calls, and NaN is not equal to itself."""
    case.blocks = ((16, 16),) * 3
    battery.prepare(triton_launch, case)
    monkeypatch.setattr(triton_launch, "empty_like", torch.zeros_like)
    rows = triton_launch.empty_rows
    monkeypatch.setattr(triton_launch, "empty_rows", lambda q: torch.zeros_like(rows(q)))
    leaves = [x.clone().requires_grad_() for x in (case.q, case.k, case.v)]
    torch.library.opcheck(triton_launch.operator, (*leaves, *case.arguments()))


@pytest.mark.parametrize("name", ["packed", "dense, causal, whole tiles", "sliding tiles"])
def test_the_operator_says_what_the_eager_call_says(name):
    """While torch.compile traces it stands for the same launches; its output lies in memory as the eager one's."""
    (case,) = (case for case in battery.cases() if case.name == name)
    battery.prepare(triton_launch, case)
    do = battery.grad_of(case)
    eager, traced = (battery.run(fn, case, do) for fn in (operator, lambda *given: triton_launch.operator(*given)[0]))
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(eager, traced, strict=True))
    assert torch.equal(battery.output(triton_launch, case), eager[0])  # without gradients


def test_the_output_lies_in_memory_as_the_queries_do():
    """So a model's [batch, tokens, heads * dim] is a view of it, forwards and backwards."""
    x = numbers(1, 20, 3, 2, 16).float()
    q, k, v = (part.transpose(1, 2).requires_grad_() for part in x.unbind(2))
    o = operator(q, k, v, None, None, None, False, 0.25, [])
    grads = torch.autograd.grad(o, (q, k, v), torch.ones_like(o))
    assert {y.transpose(1, 2).is_contiguous() for y in (o, *grads)} == {True}


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


def test_a_second_call_asks_and_builds_nothing(monkeypatch):
    """What is knowable once is asked once: no table, no preparation, no package's version, no operator in between."""
    made = []
    for place, name in ((tables.Layout, "build"), (triton_launch.Pass, "__init__"), (triton_launch, "operator"),
                        (dispatch, "version"), (torch.cuda, "get_device_capability")):  # fmt: skip
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *given, _real=real, _name=name: made.append(_name) or _real(*given))
    case = packed("", [5, 12])
    battery.prepare(triton_launch, case)
    dispatch._CHOSEN.clear()

    def layer():
        leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
        o = attention(*leaves, cu_seqlens_q=case.rest["cu_q"], backend="triton")
        torch.autograd.grad(o, leaves, torch.ones_like(o))
        with torch.no_grad():
            attention(case.q, case.k, case.v, cu_seqlens_q=case.rest["cu_q"], backend="triton")

    monkeypatch.setattr(triton_launch, "empty_like", torch.empty_like)  # torch's memory begins on 16 bytes, always
    layer()
    assert made.count("build") == made.count("__init__") == 3 and made.count("version")  # a table for each pass's tiles
    made.clear()
    layer()
    assert made == []


def test_a_compiled_kernel_is_started_with_what_was_prepared(monkeypatch):
    """Where Triton compiles: the second time, what it compiled is started with the pointers that are new."""
    started = []

    class Compiled:
        def __getitem__(self, grid):
            return lambda *given: started.append((grid, given))

    class Kernel:
        def __getitem__(self, grid):
            return lambda *given, num_warps, num_stages: started.append((grid, given)) or Compiled()

    monkeypatch.setattr(triton_launch, "INTERPRETED", False)
    monkeypatch.setattr(triton_launch, "kernels", SimpleNamespace(forward=Kernel()))
    case = packed("", [5, 12], heads=2)
    battery.prepare(triton_launch, case)
    outputs = [battery.output(triton_launch, case) for _ in range(2)]
    (grid, first), (again, second) = started
    assert grid == again == (2, 2, 1) and len(first) == len(second) == len(kernel_names())
    for name, a, b, in zip(kernel_names(), first, second, strict=True):
        if name not in ("o_out", "lse_out", "k_tiles", "v_tiles"):
            assert a is b or a == b, name
    assert [given[3] is o for given, o in zip((first, second), outputs, strict=True)] == [True, True]
    assert second[kernel_names().index("k_tiles")].base is case.k


def kernel_names():
    """The arguments of the forward kernel, in order."""
    source = Path(soralab.kernels.__file__).with_name("triton_kernels.py").read_text(encoding="utf-8")
    return re.findall(r"\w+(?=[:,])", source.split("\ndef forward(")[1].split(")")[0].replace(": tl.constexpr", ""))


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
    """Only chips of rows 90 take descriptors, for what they can describe, and half precision."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    x = SimpleNamespace(is_cuda=True, device="cuda", shape=(1, 1, 9, 80), element_size=lambda: 2)
    assert configs.rows_for(x) == rows
    for family in ("dense", "causal", "packed"):
        layout = SimpleNamespace(family=family)
        chosen, plain = (configs.config("forward", x, layout, described) for described in (True, False))
        assert chosen.bulk == (rows == 90) and not plain.bulk
        assert chosen == configs.CONFIGS[rows, 16, 128].get(family, configs.CONFIGS[rows, 16, 128]["pointers"])[0]
    x.element_size = lambda: 4
    assert configs.config("backward_k", x, layout, True) == configs.CONFIGS[80, 32, 128]["pointers"][2]


def test_every_layout_has_a_family_that_the_table_knows():
    cpu, cu = torch.device("cpu"), battery.bounds([3, 4])
    found = {
        tables.dense(1, 4, 4, False, cpu).family, tables.dense(1, 4, 4, True, cpu).family,
        tables.packed(cu, None, None, 7, 7, False).family, tables.packed(cu, None, None, 7, 7, True).family,
        tables.packed(cu, None, torch.arange(7), 7, 7, True).family,
        tables.sliding((4, 8, 8), (4, 4, 4), (1, 1, 1), 1, cpu).family,
        tables.sliding((4, 8, 8), (4, 4, 4), (1, 3, 3), 1, cpu).family,
    }  # fmt: skip
    assert found | {"pointers"} == set(configs.CONFIGS[90, 16, 64]) == set(configs.CONFIGS[90, 16, 128])


def test_chapter_16s_model_computes_on_the_kernels_forwards_and_backwards():
    """Two blocks, RoPE and all, 32 tokens in one tile: the same film and the same gradients as through torch's."""
    torch.manual_seed(0)
    model = Sora(SoraConfig(dim=32, depth=2, heads=2, size=(2, 8, 8), rotary=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # gates and head start at 0, and would hide everything
    triton_launch.config = lambda *_: Config(32, 32, 4, 1)
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
