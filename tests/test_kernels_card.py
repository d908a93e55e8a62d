"""Chapter 17's kernels on a GPU, where there is one: `python -m pytest tests/test_kernels_card.py`."""

import shutil

import pytest
from kernel_checks.process import run_apart, triton_is_here


@triton_is_here
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA GPU here")
def test_kernels_on_the_card():
    """Without conftest.py, which hides the GPU from all other tests."""
    run_apart("card.py", "--noconftest", CUDA_VISIBLE_DEVICES="0")
