"""Chapter 11's windows through Triton's interpreter: the same answers and gradients as through torch's backend.

Run by tests/test_walt.py.
"""

import pytest
import torch

from soralab.kernels import triton_launch
from soralab.walt import InWindows, Walt, WaltConfig

CONFIG = WaltConfig(channels=4, dim=32, depth=2, heads=2, size=(3, 2, 4), windows=((1, 2, 4), (3, 1, 2)))
IDS = torch.tensor([[5, 9, 2], [7, 0, 0]])


def randomised(backend):
    torch.manual_seed(0)
    model = Walt(CONFIG, backend)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3 if p.ndim < 2 else p[0].numel() ** -0.5)
    return model


def test_the_interpreter_is_what_runs():
    assert triton_launch.INTERPRETED


@pytest.mark.parametrize("frames", [3, 1])  # a film, and a picture with its identity windows
def test_answers_and_gradients_are_torch_s(frames):
    x, t = torch.randn(2, frames, 4, 2, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3, 0.8])
    found = {}
    for backend in ("torch", "triton"):
        model = randomised(backend)
        out = model(x, t, IDS)
        out.square().sum().backward()
        found[backend] = [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    assert found["torch"][0].abs().max() > 0.1
    largest = max(want.abs().max().item() for want in found["torch"])  # alone in a window, a query's gradient is 0
    for want, got in zip(found["torch"], found["triton"], strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * want.abs().max().item() + 1e-6 * largest)


def test_nothing_leaks_from_one_window_into_another():
    q, k, v = (torch.randn(1, 2, 24, 16, generator=torch.Generator().manual_seed(s)) for s in range(3))
    attend = InWindows((3, 2, 4), (3, 1, 2), "triton")
    before = attend(q, k, v).reshape(1, 2, 3, 2, 4, 16)
    for x in (q, k, v):
        x.view(1, 2, 3, 2, 4, 16)[:, :, :, 1:] = torch.nan
    after = attend(q, k, v).reshape(before.shape)
    assert torch.equal(after[:, :, :, :1], before[:, :, :, :1]) and after[:, :, :, 1:].isnan().all()
