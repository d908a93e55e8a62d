"""Chapter 17's kernels compiled for two generations of GPUs; none has to be here."""

from kernel_checks.process import run_apart, triton_is_here


@triton_is_here
def test_kernels_compile_without_spills(tmp_path):
    run_apart("compiled.py", TRITON_CACHE_DIR=str(tmp_path))
