"""The kernels compiled for GPUs that need not be here: Triton brings NVIDIA's assembler. Run by tests/test_kernels.py.

It checks that they compile, and into what: tensor cores, no spilled registers, shared memory that fits. Their speed is
measured by `python -m benchmarks gpu` alone.
"""

import functools
import re
import subprocess
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from soralab.kernels import attention, dispatch, triton_kernels, triton_launch
from soralab.kernels.triton_launch import CONFIGS, PASSES

# Bytes a program can have. Rows 80 serve every chip that has not Hopper's; consumers', older and newer, have 99 KB.
SHARED_MEMORY = {80: 101_376, 90: 232_448}
TUNED = ((3, 8), (3, 9))  # with these versions no register spills; with older ones that are TESTED, a few bytes do
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
BY_16 = [["tt.divisibility", 16]]
KINDS = {"plain": (), "causal": ("CAUSAL",), "row map": ("MAPPED",), "sliding": ("MAPPED", "LISTED")}
JOBS = [
    (arch, bits, dim, direction, kind)
    for arch, bits, dim in CONFIGS
    for direction in PASSES
    for kind in (KINDS if (arch, bits) == (90, 16) else ["row map", "sliding"])  # those that need the most registers
]


@functools.cache
def build(arch, bits, dim, direction, kind, chip=None):
    """The kernel as the launcher would have it compiled, for contiguous tensors on 16 bytes; chip: if newer."""
    config, fn = CONFIGS[arch, bits, dim][PASSES.index(direction)], getattr(triton_kernels, direction)
    if kind == "sliding":
        config = triton_launch.for_film_tiles(config, direction, bits, 64 if bits == 16 else 32)
    flags = {name: name in KINDS[kind] for name in ("CAUSAL", "MAPPED", "LISTED")}
    sizes = dict(BLOCK_Q=config.block_q, BLOCK_K=config.block_k, DIM=dim, BLOCK_D=dim, ACC=tl.float32)
    signature, constants, hints = {}, {}, {}
    for index, name in enumerate(fn.arg_names):
        if name in flags or name in sizes:
            signature[name], constants[index,] = "constexpr", {**flags, **sizes}[name]
        elif name.endswith("_at"):
            signature[name] = ("i32",) * 3
            hints |= {(index, axis): BY_16 for axis in range(3) if name != "lse_at"}
        elif name.endswith("scale"):
            signature[name] = "fp32"
        else:
            number = {"map": "i32", "table": "i32", "visits": "i32"}.get(name, "bf16" if bits == 16 else "fp32")
            signature[name] = "*fp32" if name.startswith(("lse", "delta")) else f"*{number}"
            hints[index,] = BY_16
    source = ASTSource(fn, signature, constants, hints)
    options = dict(num_warps=config.warps, num_stages=config.stages)
    return triton.compile(source, target=GPUTarget("cuda", chip or arch, 32), options=options)


def test_the_compiler_is_what_runs():
    assert not triton_launch.INTERPRETED


@pytest.mark.parametrize("job", JOBS, ids=lambda job: "-".join(map(str, job)))
def test_a_kernel_compiles_into_what_was_meant(job, tmp_path):
    arch, bits = job[:2]
    binary = build(*job)
    (tmp_path / "kernel.cubin").write_bytes(binary.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "-res-usage", tmp_path / "kernel.cubin"], capture_output=True, text=True)
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout).groups())
    most = 0 if TUNED[0] <= dispatch.release("triton") <= TUNED[1] else 48
    if (arch, job[-1]) == (80, "sliding"):  # its tiles are the film's, and cannot be chosen to fit
        most = max(most, 8)
    assert registers <= 255 and stack <= most, f"{registers} registers and {stack} bytes spilled"
    assert binary.metadata.shared <= SHARED_MEMORY[arch]
    ptx = binary.asm["ptx"]
    assert ("wgmma.mma_async" in ptx) == (arch == 90 and bits == 16)  # Hopper's tensor cores
    assert ("mma.sync" in ptx) == (arch == 80 and bits == 16)  # Ampere's
    assert ("cp.async" in ptx) == (job[1:2] + job[3:] != (32, "forward", "sliding"))  # tiles are loaded ahead
    assert not re.search(r"\b(?:atom|red)\.", ptx)  # no two programs write to one place
    assert bits == 16 or "tf32" not in ptx  # float32 is multiplied as float32
    assert "ex2.approx" in ptx


@pytest.mark.parametrize("direction", PASSES)
def test_a_newer_chip_with_less_shared_memory_takes_the_rows_that_fit(direction):
    """Consumers' Blackwell, capability 12: rows 80 fit, and rows 90, meant for Hopper, would not all."""
    fits = build(80, 16, 128, direction, "row map", chip=120).metadata.shared <= SHARED_MEMORY[80]
    large = build(90, 16, 128, direction, "row map").metadata.shared > SHARED_MEMORY[80]
    assert fits and large == (direction == "backward_q")


def test_a_triton_that_compiles_is_not_taken_for_the_interpreter(monkeypatch):
    """Whoever sets the variable after triton came in is told so."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x = torch.randn(1, 1, 4, 16)
    with pytest.raises(ValueError, match="Triton was imported before TRITON_INTERPRET=1 was set"):
        attention(x, x, x, backend="triton")


def test_a_spill_would_be_seen(tmp_path, monkeypatch):
    """A configuration that is too large for its registers."""
    config = triton_launch.Config(128, 128, 4, 1)
    monkeypatch.setitem(CONFIGS, (80, 16, 64), (config,) * 3)
    build.cache_clear()
    with pytest.raises(AssertionError, match="bytes spilled"):
        test_a_kernel_compiles_into_what_was_meant((80, 16, 64, "forward", "row map"), tmp_path)
