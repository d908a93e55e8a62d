"""DiT against diffusers': its transformer with the official time embedding, its DDPM step with a learned variance."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from soralab.blocks import grid_positions, sincos_grid
from soralab.diffusion import guide
from soralab.dit import DiT, DiTConfig, bits, guided, places, reverse, sample, told_block

diffusers = pytest.importorskip("diffusers")

DIM, DEPTH, HEADS, SIDE, CLASSES = 48, 3, 4, 8, 10
STEPS = torch.tensor([0, 1, 500, 999])  # as the official code counts them, from 0


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def official(patch=2, channels=4, depth=DEPTH, dim=DIM):
    """Weights as the official code saves them, all drawn at random, and its own table of positions."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    shapes = {"x_embedder.proj": (dim, channels, patch, patch), "t_embedder.mlp.0": (dim, 256),
              "t_embedder.mlp.2": (dim, dim), "final_layer.linear": (patch**2 * 2 * channels, dim),
              "final_layer.adaLN_modulation.1": (2 * dim, dim)}  # fmt: skip
    for k in range(depth):
        shapes |= {f"blocks.{k}.attn.qkv": (3 * dim, dim), f"blocks.{k}.attn.proj": (dim, dim),
                   f"blocks.{k}.mlp.fc1": (4 * dim, dim), f"blocks.{k}.mlp.fc2": (dim, 4 * dim),
                   f"blocks.{k}.adaLN_modulation.1": (6 * dim, dim)}  # fmt: skip
    state = {"y_embedder.embedding_table.weight": numbers(CLASSES + 1, dim, seed=99)}
    for seed, (name, shape) in enumerate(shapes.items()):
        state[f"{name}.weight"] = numbers(*shape, seed=seed) / math.prod(shape[1:]) ** 0.5
        state[f"{name}.bias"] = 0.3 * numbers(shape[0], seed=1000 + seed)
    table = get_2d_sincos_pos_embed(dim, SIDE // patch, base_size=SIDE // patch, output_type="pt")
    return state | {"pos_embed": table.float()[None]}


def theirs_of(state, patch=2, depth=DEPTH, dim=DIM, shift=0):
    """diffusers' model of these weights, which has the embeddings of time and label once in each block. `shift` is what
    its frequencies' denominator is less than half the channels: 1 as it comes, 0 in the official code."""
    model = diffusers.DiTTransformer2DModel(
        HEADS, dim // HEADS, in_channels=4, out_channels=8, num_layers=depth, sample_size=SIDE, patch_size=patch,
        activation_fn="gelu-approximate", num_embeds_ada_norm=CLASSES, norm_eps=1e-6,
    ).eval()  # fmt: skip
    wanted = {"pos_embed.proj": "x_embedder.proj", "proj_out_1": "final_layer.adaLN_modulation.1",
              "proj_out_2": "final_layer.linear"}  # fmt: skip
    tensors = {}
    for k in range(depth):
        ours, told = f"transformer_blocks.{k}", f"transformer_blocks.{k}.norm1.emb"
        wanted |= {f"{told}.timestep_embedder.linear_{n}": f"t_embedder.mlp.{2 * n - 2}" for n in (1, 2)}
        wanted |= {f"{ours}.attn1.to_out.0": f"blocks.{k}.attn.proj", f"{ours}.ff.net.2": f"blocks.{k}.mlp.fc2",
                   f"{ours}.norm1.linear": f"blocks.{k}.adaLN_modulation.1",
                   f"{ours}.ff.net.0.proj": f"blocks.{k}.mlp.fc1"}  # fmt: skip
        tensors[f"{told}.class_embedder.embedding_table.weight"] = state["y_embedder.embedding_table.weight"]
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", state[f"blocks.{k}.attn.qkv.{kind}"].chunk(3), strict=True):
                tensors[f"{ours}.attn1.to_{name}.{kind}"] = part
    for name, source in wanted.items():
        tensors |= {f"{name}.{kind}": state[f"{source}.{kind}"] for kind in ("weight", "bias")}
    model.load_state_dict(tensors)
    model.pos_embed.pos_embed.copy_(state["pos_embed"])  # not among its weights
    for module in model.modules():
        if hasattr(module, "downscale_freq_shift"):
            module.downscale_freq_shift = shift
    return model


def answers(patch=2, shift=0):
    state, y = official(patch), torch.tensor([3, CLASSES, 0, 7])
    x = numbers(len(STEPS), 4, SIDE, SIDE, seed=5)
    model = DiT.from_official(state, HEADS)
    with torch.no_grad():
        ours = model(x[:, None], (STEPS + 1).double() / 1000, y)[:, 0]
        theirs = theirs_of(state, patch, shift=shift)(x, timestep=STEPS, class_labels=y).sample
    return ours, theirs


@pytest.mark.parametrize("patch", [2, 4])
def test_official_weights_give_what_they_give_in_diffusers(patch, monkeypatch):
    """Once its frequencies are the official ones; as it comes it is another model. To the last bit where addcmul, which
    rounds a sum of a product once, rounds twice as theirs does."""
    ours, theirs = answers(patch)
    assert theirs.abs().max() > 1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (ours - answers(patch, shift=1)[1]).abs().max() > 0.1
    monkeypatch.setattr(torch, "addcmul", lambda a, b, c: a + b * c)
    ours, theirs = answers(patch)
    assert (ours - theirs).abs().max() == 0


def test_our_table_of_positions_is_theirs():
    """The column first, and of each half the sines before the cosines."""
    for patch in (1, 2, 4):
        table = official(patch)["pos_embed"][0]
        torch.testing.assert_close(places((1, SIDE // patch, SIDE // patch), DIM), table, rtol=1e-5, atol=1e-5)
    wrong = sincos_grid(grid_positions((1, 4, 4))[:, 1:], (DIM // 2, DIM // 2))
    assert (wrong - official(2)["pos_embed"][0]).abs().max() > 0.5


@torch.no_grad()
def test_three_guided_channels_of_four_are_the_official_ones():
    """forward_with_cfg: the noise of three channels is guided; of the fourth, and of the variance, it is as it was."""
    model, y, x, t = DiT.from_official(official(), HEADS), torch.tensor([3, 7]), numbers(2, 1, 4, 8, 8), torch.ones(2)
    told, untold = model(x, t, y), model(x, t, torch.full_like(y, CLASSES))
    whole, three = guided(model, y, 4.0)(x, t), guided(model, y, 4.0, channels=3)(x, t)
    everything = guide(model, {"y": y}, {"y": torch.full_like(y, CLASSES)}, 4.0)(x, t)
    torch.testing.assert_close(whole[:, :, :4], everything[:, :, :4], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(three[:, :, :3], (untold + 4 * (told - untold))[:, :, :3], rtol=1e-5, atol=1e-5)
    for answer, first in ((whole, 4), (three, 3)):
        torch.testing.assert_close(answer[:, :, first:], told[:, :, first:], rtol=1e-5, atol=1e-5)
    assert (whole - three)[:, :, 3].abs().max() > 0.5
    assert (everything - whole)[:, :, 4:].abs().max() > 0.5  # what guides all that comes out guides the variance too


# ----------------------------------------------------------------------------------------------- the learned variance


def scheduler(steps):
    made = diffusers.DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type="learned_range", clip_sample=False,
                                   timestep_spacing="trailing")  # fmt: skip
    made.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # in float32 its variances lose digits
    made.alphas = 1 - made.betas
    made.alphas_cumprod = made.alphas.cumprod(0)
    made.set_timesteps(steps)
    return made


@pytest.mark.parametrize("k", [1, 2, 400, 999])
def test_a_step_with_a_learned_variance_is_diffusers(k):
    x, answer = numbers(2, 1, 4, 8, 8), numbers(2, 1, 8, 8, 8, seed=1)
    t, s = (torch.full((2,), number / 1000, dtype=torch.float64) for number in (k + 1, k))
    mean, log_variance = reverse(answer, x, t, s)
    made = scheduler(1000)
    theirs = made.step(answer[:, 0], k, x[:, 0], generator=torch.Generator().manual_seed(2)).prev_sample.float()
    ours = mean + (log_variance / 2).exp() * numbers(2, 4, 8, 8, seed=2)[:, None]
    torch.testing.assert_close(ours[:, 0], theirs, rtol=1e-5, atol=1e-5)
    if k < 3:  # later the range is narrow: least and largest are nearly one
        swapped = torch.cat([answer[:, :, :4], -answer[:, :, 4:]], dim=2)  # the range the other way round
        other = mean + (reverse(swapped, x, t, s)[1] / 2).exp() * numbers(2, 4, 8, 8, seed=2)[:, None]
        assert (other[:, 0] - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [10, 50])
def test_sampling_in_fewer_steps_is_diffusers(steps):
    """Steps are skipped as 2102.09672, section 4, has it: the variances are those of the times that are left."""
    weights = numbers(8, 4, seed=3) / 2

    def network(x, t):
        return torch.einsum("dc,btchw->btdhw", weights, x).tanh() * (0.5 + t.reshape(-1, 1, 1, 1, 1)).to(x)

    x = numbers(2, 1, 4, 4, 4)
    ours = sample(network, x, steps, torch.Generator().manual_seed(4))
    made, theirs, generator = scheduler(steps), x, torch.Generator().manual_seed(4)
    for k in made.timesteps:
        answer = network(theirs, (k + 1).expand(2) / 1000)
        if k + 1 == 1000 // steps:  # theirs adds noise in the last step too, if steps are skipped: it asks for k > 0
            t, s = ((k + 1).expand(2).double() / 1000, torch.zeros(2, dtype=torch.float64))
            theirs = reverse(answer, theirs, t, s)[0]
        else:
            theirs = made.step(answer[:, 0], k, theirs[:, 0], generator=generator).prev_sample[:, None].float()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_divergence_is_torchs():
    """L_{t-1} by torch.distributions, and at the last step the surprise at x_0."""
    x0, eps, answer = numbers(3, 1, 4, 8, 8), numbers(3, 1, 4, 8, 8, seed=1), numbers(3, 1, 8, 8, 8, seed=2)
    steps = torch.tensor([1, 2, 800])
    t, s = steps.double() / 1000, (steps - 1).double() / 1000
    alpha_bar = scheduler(1000).alphas_cumprod
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar])[steps - 1].reshape(-1, 1, 1, 1, 1)
    now = alpha_bar[steps - 1].reshape(-1, 1, 1, 1, 1)
    beta = 1 - now / before
    x_t = (now.sqrt() * x0 + (1 - now).sqrt() * eps).float()
    mean = (before.sqrt() * beta * x0 + (now / before).sqrt() * (1 - before) * x_t) / (1 - now)
    least = beta * (1 - before) / (1 - now)
    least[0] = 1  # not asked for
    believed = reverse(answer, x_t, t, s)
    ours = bits(believed, x0, x_t, t, s)
    guess = Normal(believed[0].double(), (believed[1].double() / 2).exp())
    theirs = kl_divergence(Normal(mean, least.sqrt()), guess)
    theirs[0] = -guess.log_prob(x0.double())[0]
    torch.testing.assert_close(ours.double(), theirs.flatten(1).mean(1) / math.log(2), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------ the blocks that have plain norms


@torch.no_grad()
@pytest.mark.parametrize("way", ["in-context", "cross-attention"])
def test_blocks_with_plain_norms_are_torchs_layers(way):
    """ViT's block is torch's encoder layer with the norm first; one that looks at the condition, its decoder layer."""
    ours = told_block(DiTConfig(dim=DIM, heads=HEADS, conditioning=way))
    for seed, parameter in enumerate(ours.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=seed) * (0.3 if parameter.ndim < 2 else DIM**-0.5))
    kind = nn.TransformerEncoderLayer if way == "in-context" else nn.TransformerDecoderLayer
    gelu = partial(F.gelu, approximate="tanh")  # for an nn.GELU torch's quick path would take the exact one
    theirs = kind(DIM, HEADS, 4 * DIM, 0.0, gelu, 1e-6, batch_first=True, norm_first=True).eval()
    shift1, scale1, shift2, scale2 = ours.modulation[0].vectors.chunk(4)
    layers = {"self_attn": ours.attention, "multihead_attn": ours.cross}
    for name, layer in layers.items():
        if layer is not None:
            attention = getattr(theirs, name)
            attention.in_proj_weight.copy_(torch.cat([layer.to_q.weight, layer.to_kv.weight]))
            attention.in_proj_bias.copy_(torch.cat([layer.to_q.bias, layer.to_kv.bias]))
            attention.out_proj.load_state_dict(layer.to_out.state_dict())
    theirs.linear1.load_state_dict(ours.mlp[0].state_dict())
    theirs.linear2.load_state_dict(ours.mlp[2].state_dict())
    last = theirs.norm2 if way == "in-context" else theirs.norm3
    for norm, shift, scale in ((theirs.norm1, shift1, scale1), (last, shift2, scale2)):
        norm.weight.copy_(1 + scale)
        norm.bias.copy_(shift)
    x, c, both = numbers(2, 10, DIM, seed=50), numbers(2, DIM, seed=51), numbers(2, 2, DIM, seed=52)
    if ours.cross is not None:
        theirs.norm2.load_state_dict(ours.norm_words.state_dict())
        theirs.norm2.eps = ours.norm_words.eps
    want = theirs(x) if ours.cross is None else theirs(x, both)
    assert (want - x).abs().max() > 0.5
    torch.testing.assert_close(ours(x, c, both, None), want, rtol=1e-5, atol=1e-5)
