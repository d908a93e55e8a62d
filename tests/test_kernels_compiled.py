"""Chapter 17's kernels compiled for two generations of GPUs; none has to be here."""

import pytest
from kernel_checks.process import run_apart, triton_is_here


@triton_is_here
def test_kernels_compile_without_spills(tmp_path):
    """For Ampere: the rows of configurations that serve every chip without Hopper's."""
    run_apart("compiled.py", "-k", "not meant[90", TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.thorough
@triton_is_here
def test_kernels_compile_for_hopper_without_spills(tmp_path):
    run_apart("compiled.py", "-k", "meant[90", TRITON_CACHE_DIR=str(tmp_path))
