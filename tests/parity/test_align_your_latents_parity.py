"""Chapter 10's layers over time against diffusers' of Stable Video Diffusion, by the same authors, with its weights."""

import pytest
import torch

from soralab.align_your_latents import Beside, TemporalConv, TemporalTransformer

diffusers = pytest.importorskip("diffusers")


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(module, seed=0):
    """Every weight: what starts at zero would hide the layers before it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.normal_(std=0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5, generator=generator)
    return module.eval()


def renamed(state, table):
    """The weights by our names; to_k and to_v are one matrix here."""
    out = {}
    for key, value in state.items():
        theirs = next(name for name in table if key.startswith(name + "."))
        out[table[theirs] + key[len(theirs):]] = value
    for name in [key for key in out if key.endswith("to_k.weight")]:
        k, v = out.pop(name), out.pop(name.replace("to_k", "to_v"))
        out[name.replace("to_k", "to_kv")] = torch.cat([k, v])
    return {key.replace("to_out.0", "to_out"): value for key, value in out.items()}


@torch.no_grad()
def test_the_convolution_is_theirs():
    from diffusers.models.resnet import TemporalResnetBlock

    theirs = randomise(TemporalResnetBlock(in_channels=32, out_channels=32, temb_channels=16, eps=1e-5))
    ours = TemporalConv(32, 16).eval()
    names = ("norm1", "conv1", "norm2", "conv2")
    state = renamed(theirs.state_dict(), {name: name for name in names} | {"time_emb_proj": "time"})
    ours.load_state_dict({key: value[..., 0] if value.ndim == 5 else value for key, value in state.items()})
    x, time = numbers(2, 32, 5, 6), numbers(2, 16)
    want = theirs(x[..., None], time[:, None].expand(-1, 5, -1))[..., 0]
    torch.testing.assert_close(ours(x, time), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_attention_is_theirs():
    from diffusers.models.attention import TemporalBasicTransformerBlock
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    theirs = randomise(TemporalBasicTransformerBlock(32, 32, 2, 16, cross_attention_dim=24), 1)
    place, sines = randomise(TimestepEmbedding(32, 128, out_dim=32), 2), Timesteps(32, True, 0)
    ours = TemporalTransformer(32, 2, 24).eval()
    parts = {"norm_in": "norm_in", "ff_in.net.0.proj": "mlp_in.0", "ff_in.net.2": "mlp_in.1", "norm1": "norm1",
             "attn1": "over_time", "norm2": "norm2", "attn2": "across", "norm3": "norm3", "ff.net.0.proj": "mlp.0",
             "ff.net.2": "mlp.1"}  # fmt: skip
    state = renamed(theirs.state_dict(), parts)
    state |= renamed(place.state_dict(), {"linear_1": "place.0", "linear_2": "place.2"})
    ours.load_state_dict(state)
    x, words = numbers(2, 32, 5, 6), numbers(2, 3, 24)
    tokens = x.permute(0, 2, 3, 1).flatten(0, 1)  # [batch * frames, places, dim], as theirs takes them
    tokens = tokens + place(sines(torch.arange(5).repeat(2)))[:, None]
    context = words[:, None].expand(-1, 6, -1, -1).flatten(0, 1)
    want = theirs(tokens, num_frames=5, encoder_hidden_states=context).unflatten(0, (2, 5)).permute(0, 3, 1, 2)
    got = ours(x, torch.arange(5), words, None)
    assert want.abs().max() > 0.5
    torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_the_mixture_is_theirs():
    from diffusers.models.transformers.transformer_temporal import AlphaBlender

    class Plus(torch.nn.Module):
        def forward(self, x):
            return x + 1

    theirs, ours = AlphaBlender(alpha=0.3, merge_strategy="learned"), Beside(Plus())
    ours.a.fill_(0.3)
    z = numbers(6, 4, 2, 2)
    want = theirs(z, z + 1, torch.zeros(2, 3))
    torch.testing.assert_close(ours(z, 3), want)
