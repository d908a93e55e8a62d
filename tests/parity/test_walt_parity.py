"""Chapter 11's parts against others': diffusers' causal convolution and AdaLN-LoRA, torch's attention with a mask."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from soralab.blocks import CausalTime, modulate
from soralab.walt import InWindows, Walt, WaltConfig


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_wans_causal_convolution_is_ours(stride):
    wan = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_wan")
    theirs = wan.WanCausalConv3d(6, 10, (3, 1, 1), (stride, 1, 1), (1, 0, 0))
    ours = CausalTime(6, 10, stride=stride)
    theirs.weight.copy_(numbers(10, 6, 3, 1, 1, seed=1))
    theirs.bias.copy_(numbers(10, seed=2))
    ours.load_state_dict({"weight": theirs.weight[..., 0, 0].transpose(1, 2).flatten(1), "bias": theirs.bias})
    x = numbers(2, 6, 9, 3, 4)
    torch.testing.assert_close(ours(x.movedim(1, -1)).movedim(-1, 1), theirs(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("block", [0, 3])
def test_cosmos_modulation_of_low_rank_is_ours(block):
    """Theirs makes three of the six vectors; what all blocks share comes in as `temb`."""
    cosmos = pytest.importorskip("diffusers.models.transformers.transformer_cosmos")
    model = Walt(WaltConfig(dim=48, depth=4, heads=3, size=(3, 4, 4), windows=((1, 4, 4), (3, 2, 2)), rank=5))
    for seed, parameter in enumerate(model.parameters()):
        parameter.copy_(0.3 * numbers(*parameter.shape, seed=seed))
    down, up = model.blocks[block].modulation
    theirs = cosmos.CosmosAdaLayerNormZero(48, 5)
    theirs.linear_1.weight.copy_(down.weight)
    theirs.linear_2.weight.copy_(up.weight[: 3 * 48])
    x, told = numbers(2, 7, 48), numbers(2, 48, seed=3)
    base = model.base(F.silu(told))
    shift, scale, gate = (base + model.blocks[block].modulation(F.silu(told))).chunk(6, dim=-1)[:3]
    seen, opened = theirs(x, told, base[:, : 3 * 48])
    torch.testing.assert_close(modulate(model.blocks[block].norm1(x), shift, scale), seen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gate[:, None], opened, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("window", [(1, 6, 4), (3, 3, 2)])
def test_torchs_attention_with_a_mask_of_blocks_is_ours(window):
    """torch.nn's own layer, whose mask says where one may *not* look, with windows told by loops over places."""
    size, dim, heads = (3, 6, 4), 48, 3
    theirs = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
    theirs.in_proj_weight.copy_(dim**-0.5 * numbers(3 * dim, dim, seed=1))
    theirs.out_proj.weight.copy_(dim**-0.5 * numbers(dim, dim, seed=2))
    cells = [(t // window[0], y // window[1], x // window[2])
             for t in range(size[0]) for y in range(size[1]) for x in range(size[2])]  # fmt: skip
    hidden = torch.tensor([[a != b for b in cells] for a in cells])
    x = numbers(2, len(cells), dim)
    want, _ = theirs(x, x, x, attn_mask=hidden, need_weights=False)
    q, k, v = ((x @ w.T).unflatten(-1, (heads, -1)).transpose(1, 2) for w in theirs.in_proj_weight.chunk(3))
    seen = InWindows(size, window, "torch")(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(theirs.out_proj(seen), want, rtol=1e-5, atol=1e-5)
