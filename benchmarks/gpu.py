"""Chapter 17's kernels on a GPU beside torch's: `python -m benchmarks gpu`. Needs CUDA, torch, triton and einops.

Every mask of the course, head dimensions 64 and 128, bfloat16, forwards and backwards. Beside each time stands the
error against float64 of one head, so that nothing is fast by being wrong. No GPU was at hand when this was written:
it was never run to its end, and its first line says so where it still cannot.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.kernels import attention, sliding_tile_attention, tables, windows
from soralab.kernels.dispatch import why_no_triton

DEVICE, BACKEND = "cuda", "triton"
HEADS, TOKENS = 16, 16384
FILM = (16, 32, 32)  # TOKENS as a film
WINDOW, TILE, SEEN = (1, 16, 16), (4, 4, 4), (3, 3, 3)


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured; one line that says why where there is nothing to measure."""
    trouble = "there is no CUDA GPU here" if not torch.cuda.is_available() else why_no_triton()
    if trouble:
        yield f"gpu: not measured, {trouble}"
        return
    import triton

    yield f"{date.today()}, {torch.cuda.get_device_name()}, {clocks()}"
    yield f"torch {torch.__version__}, triton {triton.__version__}; bfloat16"
    yield f"{HEADS} heads, {TOKENS} tokens; ms and TFLOP/s forwards | backwards | errors of o, dq, dk, dv (float64)"
    for dim in (64, 128):
        for name, case in cases().items():
            yield from compare(f"{name}, D {dim}", dim, *case)


def clocks() -> str:
    """The chip's clock and power limit, as its driver tells them now; they decide what a time means."""
    asked = ["--query-gpu=clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(["nvidia-smi", *asked], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "clocks not known"


def lengths() -> list[int]:
    """Pictures of mixed size packed into one row, as NaViT's: 64 to 4096 tokens, the small ones more often."""
    generator, out = torch.Generator().manual_seed(0), []
    while sum(out) < TOKENS:
        out.append(round(64 * 2 ** (6 * torch.rand((), generator=generator).item())))
    out[-1] -= sum(out) - TOKENS
    return out


def cases() -> dict[str, tuple[dict, Callable]]:
    """{mask: (arguments of `attention`, the mask as (q, k) -> may attend)}."""
    bounds = torch.tensor([0, *lengths()], device=DEVICE).cumsum(0).to(torch.int32)
    document = torch.bucketize(torch.arange(TOKENS, device=DEVICE), bounds[1:].long(), right=True)
    cu, order = (x.to(DEVICE) for x in windows(FILM, WINDOW))
    window = torch.empty(TOKENS, dtype=torch.long, device=DEVICE)
    window[order.long()] = torch.bucketize(torch.arange(TOKENS, device=DEVICE), cu[1:].long(), right=True)
    tiles = tables.sliding(FILM, TILE, SEEN, 1, torch.device(DEVICE))
    tile, near = tiles.tile_of.to(DEVICE), tiles.near.to(DEVICE)
    return {
        "dense": ({}, lambda q, k: q >= 0),
        "causal": ({"causal": True}, lambda q, k: q >= k),
        "packed": ({"cu_seqlens_q": bounds}, lambda q, k: document[q] == document[k]),
        "windows": ({"cu_seqlens_q": cu, "row_map": order}, lambda q, k: window[q] == window[k]),
        "sliding tiles": ({"sliding": True}, lambda q, k: near[tile[q], tile[k]]),
    }


def compare(name: str, dim: int, given: dict, may_attend: Callable) -> Iterator[str]:
    """One line for each way to compute a mask."""
    leaves = [torch.randn(1, HEADS, TOKENS, dim, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    leaves = [x.requires_grad_() for x in leaves]
    do = torch.randn_like(leaves[0])
    place = torch.arange(TOKENS, device=DEVICE)
    mask = may_attend(place[:, None], place[None, :]).expand(TOKENS, TOKENS)
    flops = 4 * mask.sum().item() * dim * HEADS
    want = reference([x[:, :1].detach() for x in leaves], mask, do[:, :1])
    for way, fn in ways(given, may_attend).items():
        try:
            o = fn(*leaves)
            grads = torch.autograd.grad(o, leaves, do, retain_graph=True)
            forward = median(partial(fn, *leaves))
            backward = median(lambda o=o: torch.autograd.grad(o, leaves, do, retain_graph=True))
        except (RuntimeError, ImportError, ValueError) as error:
            yield f"{name:20s}{way:16s} does not run: {str(error).splitlines()[0][:80]}"
            continue
        got = zip((o, *grads), want, strict=True)
        errors = [((a[:, :1].double() - b).norm() / b.norm()).item() for a, b in got]
        yield (f"{name:20s}{way:16s}{forward:8.3f} ms {flops / forward / 1e9:5.0f} |{backward:8.3f} ms "
               f"{2.5 * flops / backward / 1e9:5.0f} | " + " ".join(f"{error:.1e}" for error in errors))  # fmt: skip


def ways(given: dict, may_attend: Callable) -> dict[str, Callable]:
    """{name: (q, k, v) -> o} on [1, heads, tokens, dim]: ours and torch's ways to compute one mask."""
    from torch.nn.attention import SDPBackend
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()  # each mask compiles the same function anew, and dynamo stops compiling after a few
    block_mask = create_block_mask(lambda b, h, q, k: may_attend(q, k), None, None, TOKENS, TOKENS, device=DEVICE)
    flex = torch.compile(flex_attention, dynamic=False)
    out = {
        "ours": partial(ours, given),
        "flex": partial(flex, block_mask=block_mask),
        "flex, tuned": partial(torch.compile(flex_attention, dynamic=False, mode="max-autotune-no-cudagraphs"),
                               block_mask=block_mask),
    }  # fmt: skip
    if "cu_seqlens_q" in given and "row_map" not in given:
        out["varlen_attn"] = partial(varlen, given["cu_seqlens_q"])
    if set(given) <= {"causal"}:
        for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
            out[name] = partial(sdpa, backend, given.get("causal", False))
    return out


def ours(given: dict, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The course's kernel."""
    if "sliding" in given:
        return sliding_tile_attention(q, k, v, FILM, TILE, SEEN, backend=BACKEND)
    if "cu_seqlens_q" not in given:
        return attention(q, k, v, **given, backend=BACKEND)
    packed = (x[0].transpose(0, 1) for x in (q, k, v))
    return attention(*packed, **given, backend=BACKEND).transpose(0, 1)[None]


def sdpa(backend, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's dense attention by one of its backends."""
    with torch.nn.attention.sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def varlen(bounds: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's packed attention."""
    from torch.nn.attention.varlen import varlen_attn

    packed = (x[0].transpose(0, 1) for x in (q, k, v))
    longest = max(lengths())
    return varlen_attn(*packed, bounds, bounds, longest, longest).transpose(0, 1)[None]


def reference(leaves: list[Tensor], mask: Tensor, do: Tensor) -> list[Tensor]:
    """(o, dq, dk, dv) of one head in float64, a thousand queries at a time."""
    q, k, v, do = (x[0, 0].double() for x in (*leaves, do))
    scale, o, dq, dk, dv = 1 / math.sqrt(q.shape[-1]), *(torch.zeros_like(x) for x in (q, q, k, v))
    for part in torch.arange(len(q), device=q.device).split(1024):
        p = (scale * q[part] @ k.T).masked_fill(~mask[part], -torch.inf).softmax(-1)
        o[part] = p @ v
        ds = p * (do[part] @ v.T - (do[part] * o[part]).sum(-1, keepdim=True))
        dq[part] = scale * ds @ k
        dk += scale * ds.T @ q[part]
        dv += p.T @ do[part]
    return [x[None, None] for x in (o, dq, dk, dv)]


def median(work: Callable[[], object]) -> float:
    """Milliseconds, the median of many runs with an empty cache."""
    from triton.testing import do_bench

    return do_bench(work, quantiles=[0.5])
