"""The kernels compiled for GPUs that need not be here: Triton brings NVIDIA's assembler. Run by tests/test_kernels.py.

It checks that they compile, and into what: tensor cores, the copy engine, registers, shared memory that fits. Their
speed is measured by `python -m benchmarks gpu` alone: "no register spills" had once been taken for "fast", and was not.
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

from soralab.exercises.triton_attention import moving_window
from soralab.kernels import attention, dispatch, tables, triton_kernels, triton_launch
from soralab.kernels.configs import CONFIGS, PASSES, Config

# Bytes a program can have. Rows 80 serve every chip that has not Hopper's; consumers', older and newer, have 99 KB.
SHARED_MEMORY = {80: 101_376, 90: 232_448}
TUNED = ((3, 8), (3, 9))  # with these versions no register spills but where `most_spilled` says so; with others a few
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
BY_16 = [["tt.divisibility", 16]]
KINDS = {"plain": (), "causal": ("CAUSAL",), "row map": ("MAPPED",), "row map, causal": ("MAPPED", "CAUSAL")}
OF_FAMILY = {"dense": ["plain"], "causal": ["causal"], "packed": ["plain"], "windows": ["row map", "row map, causal"],
             "sliding": ["row map"], "sliding, wide": ["row map"], "pointers": ["plain", "causal"]}  # fmt: skip


def jobs():
    """(rows, bits, dim, pass, kind, configuration), each once. Rows without families serve all kinds."""
    found = {}
    for (rows, bits, dim), families in CONFIGS.items():
        for family, passes in families.items():
            for kind in OF_FAMILY[family] if len(families) > 1 else ["causal", "row map"]:
                for direction, config in zip(PASSES, passes, strict=True):
                    found[rows, bits, dim, direction, kind, config] = None
    return list(found)


@functools.cache
def build(rows, bits, dim, direction, kind, config, chip=None):
    """The kernel as the launcher would have it compiled, for contiguous tensors on 16 bytes; chip: if newer."""
    fn, number = getattr(triton_kernels, direction), "bf16" if bits == 16 else "fp32"
    visited = config.block_q if direction == "backward_k" else config.block_k
    given = dict(BULK=config.bulk, BLOCK_Q=config.block_q, BLOCK_K=config.block_k, PIECE=tables.piece(visited), DIM=dim,
                 BLOCK_D=dim, ACC=tl.float32)  # fmt: skip
    given |= {name: name in KINDS[kind] for name in ("CAUSAL", "MAPPED")}
    given |= {} if "MAPPED" in KINDS[kind] else {"map": None, "own_map": None}
    signature, constants, hints = {}, {}, {}
    for index, name in enumerate(fn.arg_names):
        if name.endswith("_tiles") and config.bulk:
            signature[name] = f"tensordesc<{number}[1, 1, {visited}, {dim}]>"
        elif name in given or name.endswith("_tiles"):
            signature[name], constants[index,] = "constexpr", given.get(name)
        elif name.endswith("_at"):
            signature[name] = ("i32",) * 3
            hints |= {(index, axis): BY_16 for axis in range(3) if (name, axis) != ("lse_at", 2)}
        elif name.endswith("scale"):
            signature[name] = "fp32"
        else:
            kind_of = "i32" if name in ("map", "own_map", "table") else number
            signature[name] = "*fp32" if name.startswith(("lse", "delta")) else f"*{kind_of}"
            hints[index,] = BY_16
    source = ASTSource(fn, signature, constants, hints)
    options = dict(num_warps=config.warps, num_stages=config.stages)
    return triton.compile(source, target=GPUTarget("cuda", chip or rows, 32), options=options)


def most_spilled(rows, bits, dim, direction, kind, config) -> int:
    """Bytes of registers that may spill: what these tiles do spill, so that a change that adds to it shows.

    Hopper's tiles for keys' gradients were chosen by the time that earlier kernels took (data/benchmarks/gpu.json), not
    by spills. What the bytes cost the present ones, no card has told.
    """
    if (rows, direction) == (90, "backward_k"):
        return 80 if config.bulk and TUNED[0] <= dispatch.release("triton") <= TUNED[1] else 136
    if (rows, bits, kind) == (80, 32, "causal"):  # beside some hundred registers' worth of sums
        return 48 if dispatch.release("triton") < TUNED[0] else 16
    return 0 if TUNED[0] <= dispatch.release("triton") <= TUNED[1] else 48


def test_the_compiler_is_what_runs():
    assert not triton_launch.INTERPRETED


@pytest.mark.parametrize("job", jobs(), ids=lambda job: "-".join(map(str, (*job[:5], *job[5]))))
def test_a_kernel_compiles_into_what_was_meant(job, tmp_path):
    rows, bits, *_, config = job
    binary = build(*job)
    (tmp_path / "kernel.cubin").write_bytes(binary.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "-res-usage", tmp_path / "kernel.cubin"], capture_output=True, text=True)
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout).groups())
    assert registers <= 255 and stack <= most_spilled(*job), f"{registers} registers and {stack} bytes spilled"
    assert binary.metadata.shared <= SHARED_MEMORY[rows]
    ptx = binary.asm["ptx"]
    assert ("wgmma.mma_async" in ptx) == (rows == 90 and bits == 16)  # Hopper's tensor cores
    assert ("mma.sync" in ptx) == (rows == 80 and bits == 16)  # Ampere's
    assert ("cp.async.bulk.tensor" in ptx) == config.bulk  # its copy engine
    assert config.bulk or config.stages == 1 or "cp.async" in ptx  # tiles are loaded ahead
    assert not re.search(r"\b(?:atom|red)\.", ptx)  # no two programs write to one place
    assert bits == 16 or "tf32" not in ptx  # float32 is multiplied as float32
    assert "ex2.approx" in ptx


@pytest.mark.parametrize("direction", PASSES)
def test_offsets_are_of_64_bits(direction):
    """No address of a tensor is made by adding 32 bits: batch, head and row times their strides can pass 2^31."""
    config = CONFIGS[90, 16, 64]["pointers"][PASSES.index(direction)]
    text = build(90, 16, 64, direction, "row map", config).asm["ttir"]
    added = re.findall(r"tt\.addptr [^:]*: (?:tensor<[\dx]*)?!tt\.ptr<(\w+)>+, (?:tensor<[\dx]*)?(i\d+)", text)
    assert len(added) >= 8 and {width for number, width in added if number in ("bf16", "f32")} == {"i64"}, added


@pytest.mark.parametrize("direction", PASSES)
def test_a_newer_chip_with_less_shared_memory_takes_the_rows_that_fit(direction):
    """Consumers' Blackwell, capability 12: rows 80 fit, and rows 90, meant for Hopper, would not all."""
    at = PASSES.index(direction)
    small, large = CONFIGS[80, 16, 128]["pointers"][at], CONFIGS[90, 16, 128]["dense"][at]
    assert build(80, 16, 128, direction, "row map", small, chip=120).metadata.shared <= SHARED_MEMORY[80]
    too_much = build(90, 16, 128, direction, "plain", large).metadata.shared > SHARED_MEMORY[80]
    assert too_much == (direction != "backward_k")


def test_a_triton_that_compiles_is_not_taken_for_the_interpreter(monkeypatch):
    """Whoever sets the variable after triton came in is told so."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x = torch.randn(1, 1, 4, 16)
    with pytest.raises(ValueError, match="Triton was imported before TRITON_INTERPRET=1 was set"):
        attention(x, x, x, backend="triton")


def test_a_spill_would_be_seen(tmp_path):
    """A configuration that is too large for its registers."""
    job = (80, 16, 64, "forward", "row map", Config(128, 128, 4, 1))
    with pytest.raises(AssertionError, match="bytes spilled"):
        test_a_kernel_compiles_into_what_was_meant(job, tmp_path)


@pytest.mark.parametrize("chip", [80, 90])
def test_the_kernel_of_the_exercise_is_one_that_a_gpu_takes(chip, monkeypatch):
    """The chapter's exercise runs in the interpreter, which accepts more than a compiler does."""
    monkeypatch.setattr(moving_window, "tl", tl, raising=False)
    signature = dict.fromkeys(("q_in", "k_in", "v_in", "out"), "*fp32") | {"scale": "fp32"}
    signature |= dict.fromkeys(("tokens", "window"), "i32") | dict.fromkeys(("D", "BLOCK"), "constexpr")
    fn = triton.jit(moving_window.solution)
    assert fn.arg_names == list(signature)
    source = ASTSource(fn, signature, {(fn.arg_names.index("D"),): 32, (fn.arg_names.index("BLOCK"),): 16})
    ptx = triton.compile(source, target=GPUTarget("cuda", chip, 32)).asm["ptx"]
    assert "st.global" in ptx and "atom" not in ptx
