"""Chapter 12 against open_clip's CoCa, where they match: the two losses, and what is read of the picture tower.

The decoder is chapter 02's (the norm after the sum), not CoCa's (before it); it is held to torch's own in
test_transformer_parity.py, and here with a picture in the sentence's place.
"""

import pytest
import torch
from torch import nn

from soralab.clip import CLIP, CLIPConfig
from soralab.recaptioning import CAPTIONING, CONTRASTIVE, Captioner, CaptionerConfig, CoCa, shifted

EYES = CLIPConfig(embed=64, image=64, layers=(2, 1, 3, 1), width=8, vocabulary=96, context=12, text_width=128, head=64)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def captioner(**changes):
    """Random weights everywhere, batch norms and their statistics too."""
    model = Captioner(CaptionerConfig(clip=EYES, N=2, d_model=24, d_ff=40, h=3, d_k=8, d_v=8, **changes)).eval()
    with torch.no_grad():
        for seed, (name, value) in enumerate([*model.named_parameters(), *model.named_buffers()]):
            if value.is_floating_point():
                drawn = numbers(*value.shape, seed=seed)
                scale = 0.3 if value.ndim < 2 else 1.4 * value[0].numel() ** -0.5
                value.copy_(0.5 + drawn.abs() if "running_var" in name else scale * drawn + 0.8 * (value.ndim < 2))
    return model


@torch.no_grad()
def test_the_losses_are_open_clips():
    loss = pytest.importorskip("open_clip.loss").CoCaLoss(caption_loss_weight=CAPTIONING, clip_loss_weight=CONTRASTIVE)
    model = captioner()
    joint = CoCa(model, CLIP(EYES).eval())
    film = numbers(4, 1, 3, 64, 64, seed=3)
    target = torch.tensor([[5, 6, 7, 2], [9, 2, 0, 0], [4, 4, 2, 0], [3, 8, 8, 2]])
    ids = torch.tensor([[1, 5, 95], [2, 95, 0], [7, 8, 95], [9, 9, 95]])
    ours = [CONTRASTIVE, CAPTIONING]
    ours = [weight * part for weight, part in zip(ours, joint(film, target, ids), strict=True)]
    features = joint.clip.encode_image(film[:, 0]), joint.clip.encode_text(ids)
    theirs = loss(*features, model(film, shifted(target)), target, joint.clip.scale)
    assert theirs[0] > 0.1 and theirs[1] > 1
    torch.testing.assert_close(tuple(ours), tuple(theirs), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_is_read_is_what_open_clips_tower_sees():
    theirs = pytest.importorskip("open_clip.modified_resnet").ModifiedResNet((2, 1, 3, 1), 64, 4, 64, 8).eval()
    model = captioner()
    state = {name: value for name, value in theirs.state_dict().items()}
    for seed, (name, value) in enumerate(state.items()):
        if value.is_floating_point():
            drawn = numbers(*value.shape, seed=seed)
            scale = 0.2 if value.ndim < 2 else 1.4 * value[0].numel() ** -0.5
            value.copy_(0.5 + drawn.abs() if "running_var" in name else scale * drawn + 0.9 * (value.ndim < 2))
    theirs.load_state_dict(state)
    model.tower.load_state_dict({name: value for name, value in state.items() if not name.startswith("attnpool")})
    pixels = numbers(2, 3, 64, 64, seed=9)
    fine = theirs.layer3(theirs.layer2(theirs.layer1(theirs.stem(pixels))))
    coarse = theirs.layer4(fine)
    coarse = nn.functional.interpolate(coarse, scale_factor=2, mode="nearest")
    want = torch.cat([fine, coarse], dim=1).flatten(2).transpose(1, 2)
    assert want.abs().max() > 0.1 and (want[0] - want[1]).abs().max() > 0.01
    torch.testing.assert_close(model.see(pixels), want, rtol=1e-5, atol=1e-5)


def give_attention(theirs, ours):
    theirs.in_proj_weight.data = torch.cat([ours.W_Q.weight, ours.W_K.weight, ours.W_V.weight]).detach()
    theirs.out_proj.weight.data = ours.W_O.weight.detach()
    theirs.in_proj_bias.data.zero_()
    theirs.out_proj.bias.data.zero_()


@torch.no_grad()
def test_the_decoder_is_torchs_over_the_places_of_a_film():
    model = captioner()
    c = model.config
    layer = nn.TransformerDecoderLayer(c.d_model, c.h, c.d_ff, 0.0, batch_first=True)
    theirs = nn.TransformerDecoder(layer, c.N).eval()
    for his, mine in zip(theirs.layers, model.decoder, strict=True):
        give_attention(his.self_attn, mine.attention)
        give_attention(his.multihead_attn, mine.cross)
        for a, b in ((his.linear1, mine.ffn[0]), (his.linear2, mine.ffn[2]), (his.norm1, mine.norm1),
                     (his.norm2, mine.norm2), (his.norm3, mine.norm3)):  # fmt: skip
            a.load_state_dict(b.state_dict())
    film, ids = numbers(2, 3, 3, 64, 64, seed=4), torch.tensor([[1, 5, 7, 7], [1, 9, 3, 0]])
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    want = theirs(model.embed(ids), model.encode(film), tgt_mask=mask) @ model.embedding.weight.T
    assert want.abs().max() > 0.1
    torch.testing.assert_close(model(film, ids), want, rtol=1e-5, atol=1e-5)
