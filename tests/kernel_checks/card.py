"""The kernels on the GPU that is here, tuned as they are for it. Run by tests/test_kernels_card.py where there is one.

Inputs lie in NaN as in battery.py, and tiles are the real ones, so lengths are larger. bfloat16 is what it is for.
"""

import battery
import pytest
import torch
from battery import dense, mapped, packed, sliding

from soralab.kernels import attention, triton_launch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def cases():
    for dim in (64, 128):
        yield packed("packed", [1, 0, 19, 333, 700], heads=3, dim=dim)
        yield packed("packed, causal, other lengths", [5, 0, 320, 7, 203], [0, 4, 437, 33, 203], dim=dim, causal=True)
        yield dense("dense, cut tiles", 2, 2, 333, 517, dim)
        yield dense("dense, whole tiles", 1, 5, 512, 384, dim)
        yield dense("dense, causal", 1, 2, 512, 512, dim, causal=True)
        yield dense("more queries than keys, causal", 1, 2, 600, 300, dim, causal=True)
        yield mapped("row map", [256, 256, 0, 100], dim=dim)
        yield mapped("row map, causal", [300, 41], dim=dim, causal=True)
        yield sliding("sliding tiles that the film cuts", (4, 10, 18), (2, 4, 4), (3, 3, 3), batch=2, dim=dim)
        yield sliding("sliding tiles", (8, 12, 12), (4, 4, 4), (3, 3, 3), dim=dim)
    for dim in (24, 80):
        yield packed("packed", [1, 0, 19, 333], heads=2, dim=dim)
        yield dense("dense, causal", 1, 2, 200, 200, dim, causal=True)
    yield dense("dense, large logits", 2, 2, 170, 400, 64, scale=2.0, slack=10.0)


def on_card(x):
    """The tensor with the memory around it, its strides and its alignment."""
    if not isinstance(x, torch.Tensor):
        return x
    whole = x.detach().as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)
    return whole.cuda().as_strided(x.shape, x.stride(), x.storage_offset())


def to_dtype(case, dtype):
    """The case in another type, in memory laid out as before."""
    for name in "qkv":
        x = getattr(case, name)
        whole = x.as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)
        setattr(case, name, whole.to(dtype).as_strided(x.shape, x.stride(), x.storage_offset()))
    return case


def plain(case, do):
    """(o, dq, dk, dv) of the formula as torch computes it in the case's type."""
    leaves = [on_card(x).requires_grad_() for x in (case.q, case.k, case.v)]
    q, k, v = (x.transpose(0, 1) if x.ndim == 3 else x for x in leaves)
    mask = case.mask.cuda()
    p = ((q * case.arguments()[4]) @ k.transpose(-1, -2)).masked_fill(~mask, -1e4).softmax(-1) * mask
    o = p.to(v.dtype) @ v
    o = o.transpose(0, 1) if case.q.ndim == 3 else o
    return [o.detach(), *torch.autograd.grad(o, leaves, do.cuda())]


def run(case, do):
    leaves = [on_card(x).requires_grad_() for x in (case.q, case.k, case.v)]
    o = triton_launch.attention(*leaves, *map(on_card, case.arguments()))
    return [o.detach(), *torch.autograd.grad(o, leaves, do.cuda())]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.name} {case.q.shape[-1]}")
def test_a_case(case, dtype):
    """Right, no worse than torch in the same type by a fifth, and equal to the last bit when run again."""
    case = to_dtype(case, dtype)
    do = battery.grad_of(case)
    want, got, theirs = battery.reference(case, do), run(case, do), plain(case, do)
    again = run(case, do)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    found = [x.cpu() for x in got]
    assert battery.apart(case, found, want) == ""
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, a, b, exact in zip(("o", "dq", "dk", "dv"), found, theirs, want, strict=True):
        error, limit = ((x.cpu().double() - exact).norm() for x in (a, b))
        assert error <= 1.2 * limit, (name, error, limit)


@pytest.mark.parametrize("shift", [1, 8])
def test_tensors_that_no_descriptor_describes_give_the_same_numbers(shift):
    """Memory that begins 2 bytes beside a multiple of 16 is loaded by pointers."""
    torch.manual_seed(0)
    for dim in (64, 128):
        memory = torch.randn(3, 2 * 300 * dim + 8, device="cuda", dtype=torch.bfloat16)
        beside = [x[shift : shift + 2 * 300 * dim].view(1, 2, 300, dim) for x in memory]
        for causal in (False, True):
            there = attention(*beside, causal=causal, backend="triton")
            here = attention(*(x.clone() for x in beside), causal=causal, backend="triton")
            assert (there.double() - here.double()).norm() < 3e-3 * here.double().norm()


def test_inductor_compiles_it_whole():
    """Forwards and backwards, the layout of memory that it was told of included."""
    torch.manual_seed(0)
    cu = torch.tensor([0, 100, 256], device="cuda", dtype=torch.int32)

    def layer(x):
        q, k, v = x.view(256, 3, 4, 64).unbind(1)
        packed = attention(q, k, v, cu_seqlens_q=cu, backend="triton")
        q, k, v = (y.transpose(0, 1)[None] for y in (q, k, v))
        return (attention(q, k, v, causal=True, backend="triton")[0].transpose(0, 1) * packed).float().square().sum()

    x = torch.randn(256, 3 * 4 * 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    want = torch.autograd.grad(layer(x), x)[0]
    got = torch.autograd.grad(torch.compile(layer, fullgraph=True)(x), x)[0]
    assert (got.double() - want.double()).norm() < 1e-2 * want.double().norm()
