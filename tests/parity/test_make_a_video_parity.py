"""Chapter 14's pseudo-3-D layers against PyTorch's 3-D convolutions and diffusers' attention, with the same weights."""

import pytest
import torch
from torch import nn

from soralab.blocks import sincos
from soralab.make_a_video import JointAttention, PseudoAttention, PseudoConv

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


def theirs_and(ours):
    """diffusers' attention with two heads, and ours with its weights."""
    from diffusers.models.attention_processor import Attention

    theirs, ours = randomise(Attention(16, heads=2, dim_head=8, bias=True), 2), randomise(ours, 3)
    weights = theirs.state_dict()
    for part in ("weight", "bias"):
        getattr(ours.attention.to_q, part).data = weights[f"to_q.{part}"]
        getattr(ours.attention.to_kv, part).data = torch.cat([weights[f"to_k.{part}"], weights[f"to_v.{part}"]])
        getattr(ours.attention.to_out, part).data = weights[f"to_out.0.{part}"]
    return theirs, ours


@torch.no_grad()
def test_eq_3_is_diffusers_attention_at_each_place():
    theirs, ours = theirs_and(PseudoAttention(16, 2))
    x = numbers(FILMS, FRAMES, 16, 3, 4)
    want = x.clone()
    for row in range(3):
        for column in range(4):
            place = x[..., row, column]
            want[..., row, column] += theirs(ours.norm(place) + sincos(torch.arange(FRAMES), 16))
    torch.testing.assert_close(ours(x.flatten(0, 1), FRAMES), want.flatten(0, 1), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_joint_attention_is_diffusers_over_all_tokens_of_a_film():
    theirs, ours = theirs_and(JointAttention(16, 2))
    x = numbers(FILMS, FRAMES, 16, 2, 4)
    tokens = x.permute(0, 1, 3, 4, 2).flatten(1, 3)  # frame after frame, row after row
    places = torch.arange(1.0 * FRAMES), torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0, 5.0, 7.0])
    frame, row, column = (axis.flatten() for axis in torch.meshgrid(*places, indexing="ij"))
    told = torch.cat([sincos(axis, 32) for axis in (frame, row, column)], 1)
    added = theirs(ours.norm(tokens) + ours.where(told)).unflatten(1, (FRAMES, 2, 4)).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(ours(x.flatten(0, 1), FRAMES), (x + added).flatten(0, 1), rtol=1e-5, atol=1e-5)
