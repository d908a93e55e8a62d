"""Chapter 16's block against the trusted ones: timm's attention and MLP put together as in facebookresearch/DiT's
`models.py`, and torch's own attention. The same weights, the same answer to 1e-5."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from soralab.blocks import attention
from soralab.sora import Block


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, **tolerance):
    assert a.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, **{"rtol": 1e-5, "atol": 1e-5, **tolerance})


@torch.no_grad()
def randomise(block):
    """Also the gates, which start at zero and would hide both halves of the block."""
    for seed, parameter in enumerate(block.parameters()):
        scale = 0.3 if parameter.ndim < 2 else parameter.shape[1] ** -0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return block


def timms_block(ours, dim, heads, gelu="none"):
    """A DiT block of timm's parts with our weights: forward(x, c), c the condition before its SiLU."""
    transformer = pytest.importorskip("timm.models.vision_transformer")
    attend = transformer.Attention(dim, num_heads=heads, qkv_bias=True)
    mlp = transformer.Mlp(dim, 4 * dim, act_layer=lambda: nn.GELU(gelu))
    with torch.no_grad():
        attend.qkv.weight.copy_(torch.cat([ours.attention.to_q.weight, ours.attention.to_kv.weight]))
        attend.qkv.bias.copy_(torch.cat([ours.attention.to_q.bias, ours.attention.to_kv.bias]))
    attend.proj.load_state_dict(ours.attention.to_out.state_dict())
    mlp.fc1.load_state_dict(ours.mlp[0].state_dict())
    mlp.fc2.load_state_dict(ours.mlp[2].state_dict())
    norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)

    def forward(x, c):
        parts = ours.modulation(F.silu(c))[:, None].chunk(6, dim=-1)
        for layer, (shift, scale, gate) in ((attend, parts[:3]), (mlp, parts[3:])):
            x = x + gate * layer(norm(x) * (1 + scale) + shift)
        return x

    return forward


@pytest.mark.parametrize("dim, heads, tokens", [(32, 4, 10), (48, 6, 64), (192, 4, 80)])
@torch.no_grad()
def test_the_block_without_words_is_dits(dim, heads, tokens):
    ours = randomise(Block(dim, heads))
    nn.init.zeros_(ours.cross.to_out.weight)
    nn.init.zeros_(ours.cross.to_out.bias)
    theirs = timms_block(ours, dim, heads)
    x, c, words = numbers(3, tokens, dim, seed=20), numbers(3, dim, seed=21), numbers(3, 4, dim, seed=22)
    result = ours(x, F.silu(c), words, torch.ones(3, 1, 1, 4, dtype=torch.bool))
    assert (result - x).abs().max() > 0.5
    close(result, theirs(x, c))
    # DiT takes the approximate GELU and we the exact one, which is faster here: a thousandth lies between them.
    close(result, timms_block(ours, dim, heads, gelu="tanh")(x, c), rtol=0, atol=2e-3)


@pytest.mark.parametrize("keys, shape", [(9, None), (9, (2, 1, 9, 9)), (9, (1, 1, 9, 9)), (5, (2, 1, 1, 5))])
@torch.no_grad()
def test_attention_is_torchs(keys, shape):
    """Also with masks of every shape that the models use; where nobody is left to attend, torch makes no promise."""
    q, k, v = numbers(2, 3, 9, 8), numbers(2, 3, keys, 8, seed=1), numbers(2, 3, keys, 8, seed=2)
    mask = None
    if shape:
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.5
        mask[..., 0] = True
    close(attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    if shape:
        unmasked = F.scaled_dot_product_attention(q, k, v)
        assert (attention(q, k, v, mask) - unmasked).abs().max() > 0.1


def test_the_gradients_of_attention_are_torchs():
    mask = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[..., 0] = True
    gradients = []
    for function in (attention, F.scaled_dot_product_attention):
        q, k, v = (numbers(2, 3, 9, 8, seed=s).requires_grad_() for s in range(3))
        (function(q, k, v, mask) * numbers(2, 3, 9, 8, seed=4)).sum().backward()
        gradients.append((q.grad, k.grad, v.grad))
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs)
