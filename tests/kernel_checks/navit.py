"""Chapter 07's packed rows through Triton's interpreter: the same answers and gradients as through torch's backend.

Run by tests/test_navit.py.
"""

import torch

from soralab.kernels import triton_launch
from soralab.navit import NaViT, NaViTConfig, collate

CONFIG = NaViTConfig(patch=4, dim=32, depth=1, heads=2, classes=5, grid=(7, 9))
SIZES = ((12, 8), (4, 4), (8, 28))


def model_and_batch():
    torch.manual_seed(0)
    model = NaViT(CONFIG)
    torch.nn.init.normal_(model.head.weight)
    return model, collate([torch.randn(3, *size) for size in SIZES], 4, 30)


def test_the_interpreter_is_what_runs():
    assert triton_launch.INTERPRETED


def test_answers_and_gradients_are_torch_s():
    model, batch = model_and_batch()
    found = {}
    for backend in ("torch", "triton"):
        model.zero_grad()
        out = model(**batch, backend=backend)
        out.square().sum().backward()
        found[backend] = [out.detach(), *(p.grad.clone() for p in model.parameters())]
    for want, got in zip(found["torch"], found["triton"], strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * want.abs().max().item())
    assert found["torch"][0].abs().max() > 0.1


def test_nothing_leaks_through_the_kernels():
    model, batch = model_and_batch()
    with torch.no_grad():
        before = model(**batch, backend="triton")
        for k in (1,):  # a neighbour on either side
            patches = batch["patches"].masked_fill((batch["ids"] != k)[..., None], float("nan"))
            assert torch.equal(model(**batch | {"patches": patches}, backend="triton")[k], before[k])
