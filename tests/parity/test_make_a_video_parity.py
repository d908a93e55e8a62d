"""Chapter 14's pseudo-3-D layers against PyTorch's 3-D convolutions and diffusers' attention, with the same weights."""

import pytest
import torch
from torch import nn

from soralab.blocks import sincos
from soralab.make_a_video import PseudoAttention, PseudoConv

diffusers = pytest.importorskip("diffusers")
FILMS, FRAMES = 2, 5


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(module, seed=0):
    """Every weight: what starts at zero, or as the identity, would hide what it does."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.normal_(std=0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5, generator=generator)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_eq_2_is_two_3d_convolutions_after_each_other(stride):
    space = nn.Conv3d(6, 8, (1, 3, 3), (1, stride, stride), (0, 1, 1))
    theirs = randomise(nn.Sequential(space, nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))), 1)
    ours = PseudoConv(nn.Conv2d(6, 8, 3, stride, 1)).eval()
    ours.frames = FRAMES
    ours.load_state_dict({
        "space.weight": theirs[0].weight[:, :, 0], "space.bias": theirs[0].bias,
        "time.weight": theirs[1].weight[..., 0], "time.bias": theirs[1].bias,
    })  # fmt: skip
    film = numbers(FILMS, 6, FRAMES, 8, 6)
    want = theirs(film).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(ours(film.transpose(1, 2).flatten(0, 1)), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_eq_3_is_diffusers_attention_at_each_place():
    from diffusers.models.attention_processor import Attention

    theirs = randomise(Attention(16, heads=2, dim_head=8, bias=True), 2)
    ours = randomise(PseudoAttention(16, 2), 3)
    weights = theirs.state_dict()
    for part in ("weight", "bias"):
        getattr(ours.attention.to_q, part).copy_(weights[f"to_q.{part}"])
        getattr(ours.attention.to_kv, part).copy_(torch.cat([weights[f"to_k.{part}"], weights[f"to_v.{part}"]]))
        getattr(ours.attention.to_out, part).copy_(weights[f"to_out.0.{part}"])
    x, moments = numbers(FILMS, FRAMES, 16, 3, 4), torch.arange(FRAMES) / 2
    want = x.clone()
    for row in range(3):
        for column in range(4):
            place = x[..., row, column]
            want[..., row, column] += theirs(ours.norm(place) + sincos(moments, 16))
    torch.testing.assert_close(ours(x.flatten(0, 1), moments), want.flatten(0, 1), rtol=1e-5, atol=1e-5)
