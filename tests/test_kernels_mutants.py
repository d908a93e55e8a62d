"""Are chapter 17's tests good enough? Every one of a list of wrong kernels is rejected by the battery of cases."""

import pytest
from kernel_checks.process import run_apart, triton_is_here


@pytest.mark.thorough
@triton_is_here
def test_wrong_kernels_are_rejected():
    run_apart("mutants.py", TRITON_INTERPRET="1")
