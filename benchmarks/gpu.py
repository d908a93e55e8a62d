"""Chapter 17's kernels on a GPU beside torch's: `python -m benchmarks gpu`. Needs CUDA, torch, triton and einops.

Every mask of the course, head dimensions 64 and 128, bfloat16, forwards and backwards, under four minutes. Beside each
time stands the error against float64 of one head, so that nothing is fast by being wrong. "Kernel" is what the chip
works, "call" what passes from one call to the next, the processor's part included.

    --json FILE   writes what was measured there as well
    --tuned       with FlexAttention autotuned too, which takes minutes more
    --sweep       no comparison: which tiles are the fastest on this chip (gpu_sweep.py)
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.kernels import attention, sliding_tile_attention, tables, windows
from soralab.kernels.dispatch import why_no_triton

DEVICE, BACKEND = "cuda", "triton"
HEADS, TOKENS = 16, 16384
FILM = (16, 32, 32)  # TOKENS as a film
WINDOW, TILE, SEEN = (1, 16, 16), (4, 4, 4), (3, 3, 3)
FEW = 256  # tokens of a call that is all processor's work


def run(*options: str) -> Iterator[str]:
    """The benchmark's lines, as they are measured; one line that says why where there is nothing to measure."""
    trouble = "there is no CUDA GPU here" if not torch.cuda.is_available() else why_no_triton()
    if trouble:
        yield f"gpu: not measured, {trouble}"
        return
    if "--sweep" in options:
        from benchmarks import gpu_sweep

        yield from gpu_sweep.run()
        return
    import triton

    found = {"date": str(date.today()), "card": torch.cuda.get_device_name(), "clocks": clocks(),
             "torch": torch.__version__, "triton": triton.__version__, "heads": HEADS, "tokens": TOKENS}  # fmt: skip
    yield ", ".join(f"{name} {value}" for name, value in found.items()) + "; bfloat16"
    rows, calls = [], []
    for row in host_work():
        calls.append(row)
        yield (f"{row['way']:16s}{FEW} tokens: {row['forward_us']:6.0f} us a call forwards, "
               f"{row['both_us']:6.0f} us forwards and backwards")  # fmt: skip
    yield "kernel ms forwards | backwards (TFLOP/s) || call ms forwards, both || errors of o, dq, dk, dv (float64)"
    for dim in (64, 128):
        for name, case in cases().items():
            for row in compare(name, dim, *case, tuned="--tuned" in options):
                rows.append(row)
                yield line(row)
    if "--json" in options:
        path = Path(options[options.index("--json") + 1])
        path.write_text(json.dumps({**found, "calls": calls, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def line(row: dict) -> str:
    """A row in words."""
    head = f"{row['mask']:14s}D {row['dim']:3d} {row['way']:13s}"
    if "trouble" in row:
        return f"{head}does not run: {row['trouble']}"
    forward, backward = row["forward_ms"], row["backward_ms"]
    rates = [flops * row["flops"] / ms / 1e9 for flops, ms in ((1, forward), (2.5, backward))]
    errors = " ".join(f"{error:.1e}" for error in row["errors"])
    times = f"{forward:8.3f} ({rates[0]:3.0f}) |{backward:8.3f} ({rates[1]:3.0f})"
    return f"{head}{times} ||{row['forward_call_ms']:8.3f},{row['both_call_ms']:8.3f} || {errors}"


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


def compare(mask_name: str, dim: int, given: dict, may_attend: Callable, tuned: bool = False) -> Iterator[dict]:
    """A row for each way to compute a mask: times in ms, operations forwards, errors of (o, dq, dk, dv)."""
    leaves = [torch.randn(1, HEADS, TOKENS, dim, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    leaves = [x.requires_grad_() for x in leaves]
    do = torch.randn_like(leaves[0])
    place = torch.arange(TOKENS, device=DEVICE)
    mask = may_attend(place[:, None], place[None, :]).expand(TOKENS, TOKENS)
    flops = 4 * mask.sum().item() * dim * HEADS
    want = reference([x[:, :1].detach() for x in leaves], mask, do[:, :1])
    del mask
    for way, fn in ways(given, may_attend, tuned).items():
        row = {"mask": mask_name, "dim": dim, "way": way, "flops": flops}
        try:
            o = fn(*leaves)
            grads = torch.autograd.grad(o, leaves, do, retain_graph=True)
            forward = partial(fn, *(x.detach() for x in leaves))

            def backward(o: Tensor = o) -> object:
                return torch.autograd.grad(o, leaves, do, retain_graph=True)

            def both(fn: Callable = fn) -> object:
                return torch.autograd.grad(fn(*leaves), leaves, do)

            times = {"forward_ms": on_the_chip(forward), "backward_ms": on_the_chip(backward),
                     "forward_call_ms": by_the_clock(forward), "both_call_ms": by_the_clock(both)}  # fmt: skip
        except (RuntimeError, ImportError, ValueError) as error:
            yield {**row, "trouble": str(error).splitlines()[0][:80]}
            continue
        got = zip((o, *grads), want, strict=True)
        errors = [((a[:, :1].double() - b).norm() / b.norm()).item() for a, b in got]
        yield {**row, **times, "errors": errors}


def ways(given: dict, may_attend: Callable, tuned: bool) -> dict[str, Callable]:
    """{name: (q, k, v) -> o} on [1, heads, tokens, dim]: ours and torch's ways to compute one mask."""
    from torch.nn.attention import SDPBackend
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()  # each mask compiles the same function anew, and dynamo stops compiling after a few
    block_mask = create_block_mask(lambda b, h, q, k: may_attend(q, k), None, None, TOKENS, TOKENS, device=DEVICE)
    flex = torch.compile(flex_attention, dynamic=False)
    out = {"ours": partial(ours, given), "flex": partial(flex, block_mask=block_mask)}
    if tuned:
        best = torch.compile(flex_attention, dynamic=False, mode="max-autotune-no-cudagraphs")
        out["flex, tuned"] = partial(best, block_mask=block_mask)
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


def varlen(bounds: Tensor, q: Tensor, k: Tensor, v: Tensor, longest: int = 0) -> Tensor:
    """torch's packed attention; longest: of the segments, which it wants to be told."""
    from torch.nn.attention.varlen import varlen_attn

    packed = (x[0].transpose(0, 1) for x in (q, k, v))
    longest = longest or max(lengths())
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


def on_the_chip(work: Callable[[], object], repeats: int = 8) -> float:
    """Milliseconds that the chip works on it: its kernels' own times, added up."""
    from torch.profiler import ProfilerActivity, profile

    for _ in range(2):
        work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in seen.key_averages()) / repeats / 1e3


def by_the_clock(work: Callable[[], object], seconds: float = 0.04) -> float:
    """Milliseconds from one call to the next, in a row of calls: the chip's or the processor's, whoever is slower."""
    work()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    times = max(5, int(seconds / (time.perf_counter() - begin)))
    begin = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin) / times


def host_work() -> Iterator[dict]:
    """What a call costs the processor, where the chip has nearly nothing to do: microseconds."""
    bounds = torch.tensor([0, 100, FEW], device=DEVICE, dtype=torch.int32)
    ways = {
        "ours": partial(ours, {}), "SDPA": F.scaled_dot_product_attention,
        "ours, packed": partial(ours, {"cu_seqlens_q": bounds}), "varlen_attn": partial(varlen, bounds, longest=FEW),
    }  # fmt: skip
    for way, fn in ways.items():
        leaves = [torch.randn(1, HEADS, FEW, 64, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
        do, asked = torch.randn_like(leaves[0]), [x.clone().requires_grad_() for x in leaves]

        def both(fn: Callable = fn, asked: list = asked, do: Tensor = do) -> object:
            return torch.autograd.grad(fn(*asked), asked, do)

        try:
            times = [1e3 * by_the_clock(work, 0.1) for work in (partial(fn, *leaves), both)]
        except (RuntimeError, ImportError):  # a torch without it
            continue
        yield {"way": way, "forward_us": times[0], "both_us": times[1]}
