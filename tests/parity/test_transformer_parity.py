"""Chapter 02 against torch's own layers: the same weights, the same answer to 1e-5."""

import pytest
import torch
from torch import nn

from soralab.transformer import (
    PAD,
    MultiHeadAttention,
    Transformer,
    TransformerConfig,
    causal_mask,
    padding_mask,
)

pytest.importorskip("torch", minversion="2.9")

CONFIG = TransformerConfig(vocabulary=20, N=2, d_model=24, d_ff=40, h=3, d_k=8, d_v=8)


def randomised(module, seed):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim == 1:  # norms and biases, which start at 1 and 0
            nn.init.normal_(parameter, mean=0.5, std=0.3)
    return module.eval()


def give_attention(theirs: nn.MultiheadAttention, ours: MultiHeadAttention):
    """Put our matrices into torch's layer; its biases, where it has them, become 0."""
    theirs.in_proj_weight.data = torch.cat([ours.W_Q.weight, ours.W_K.weight, ours.W_V.weight]).detach()
    theirs.out_proj.weight.data = ours.W_O.weight.detach()
    if theirs.in_proj_bias is not None:
        theirs.in_proj_bias.data.zero_()
        theirs.out_proj.bias.data.zero_()


def give(theirs: nn.Module, ours: nn.Module):
    """Put the weights of an encoder or decoder layer of ours into torch's."""
    pairs = [(theirs.linear1, ours.ffn[0]), (theirs.linear2, ours.ffn[2]), (theirs.norm1, ours.norm1),
             (theirs.norm2, ours.norm2)]
    give_attention(theirs.self_attn, ours.attention)
    if hasattr(ours, "cross"):
        give_attention(theirs.multihead_attn, ours.cross)
        pairs.append((theirs.norm3, ours.norm3))
    for his, mine in pairs:
        his.load_state_dict(mine.state_dict())


def torchs(ours: Transformer) -> nn.Transformer:
    c = ours.config
    theirs = nn.Transformer(c.d_model, c.h, c.N, c.N, c.d_ff, c.P_drop, norm_first=False, batch_first=True).eval()
    for his, mine in zip([*theirs.encoder.layers, *theirs.decoder.layers], [*ours.encoder, *ours.decoder], strict=True):
        give(his, mine)
    theirs.encoder.norm = theirs.decoder.norm = None  # the paper's stacks do not end in a norm; torch's do
    return theirs


def sentences():
    generator = torch.Generator().manual_seed(5)
    source = torch.randint(3, 20, (3, 7), generator=generator)
    source[1, 5:] = source[2, 2:] = PAD
    return source, torch.randint(3, 20, (3, 6), generator=generator)


@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention(masked):
    ours = randomised(MultiHeadAttention(CONFIG), 0)
    theirs = nn.MultiheadAttention(CONFIG.d_model, CONFIG.h, bias=False, batch_first=True).eval()
    give_attention(theirs, ours)
    source, _ = sentences()
    x, memory = torch.randn(3, 6, 24), torch.randn(3, 7, 24)
    mask = padding_mask(source) if masked else None
    expected, weights = theirs(
        x, memory, memory, key_padding_mask=source == PAD if masked else None, average_attn_weights=False
    )
    k, v = ours.keys_values(memory)
    torch.testing.assert_close(ours(x, k, v, mask), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.weights(x, k, mask), weights, rtol=1e-5, atol=1e-5)


def run(theirs: nn.Transformer, ours: Transformer):
    """Torch's transformer with our embeddings before it and our matrix behind it."""
    source, target = sentences()
    hidden = theirs(
        ours.embed(source), ours.embed(target), tgt_mask=~causal_mask(target.shape[1]),
        src_key_padding_mask=source == PAD, memory_key_padding_mask=source == PAD,
    )  # fmt: skip
    return hidden @ ours.embedding.weight.T, ours(source, target)


def test_the_whole_transformer():
    ours = randomised(Transformer(CONFIG), 1)
    expected, logits = run(torchs(ours), ours)
    assert logits.std() > 0.3
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_torchs_own_final_norms_are_not_the_papers():
    """With them the answer is another one; and they are 2,048 parameters of the base model."""
    ours = randomised(Transformer(CONFIG), 1)
    theirs = torchs(ours)
    theirs.decoder.norm = nn.LayerNorm(CONFIG.d_model)
    expected, logits = run(theirs, ours)
    assert (logits - expected).abs().max() > 0.1
    with torch.device("meta"):
        base = nn.Transformer(norm_first=False)
        mine = sum(p.numel() for p in Transformer(TransformerConfig.base(1)).parameters()) - 512
    attention_biases = 18 * 4 * 512
    assert sum(p.numel() for p in base.parameters()) == mine + attention_biases + 2 * 2 * 512 == 44_140_544


def test_gradients_agree():
    ours = randomised(Transformer(CONFIG), 2)
    theirs = torchs(ours)
    expected, logits = run(theirs, ours)
    (theirs_first,) = torch.autograd.grad(expected.square().mean(), [theirs.encoder.layers[0].linear1.weight])
    (ours_first,) = torch.autograd.grad(logits.square().mean(), [ours.encoder[0].ffn[0].weight])
    assert ours_first.abs().max() > 1e-5
    torch.testing.assert_close(ours_first, theirs_first, rtol=1e-4, atol=1e-6)
