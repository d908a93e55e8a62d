"""Chapter 06 against diffusers with the same weights: the U-Net with and without a condition, and the autoencoder."""

import re

import pytest
import torch

from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.diffusion import ScaledLinearBeta
from soralab.latent_diffusion import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    assert b.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def randomise(model):
    """Every weight: what starts at zero would hide the layers before it."""
    for seed, parameter in enumerate(model.parameters()):
        scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.eval()


# --------------------------------------------------------------------------------------- their names, in our layout

RESNET = {"norm1": "norm1", "conv1": "conv1", "time_emb_proj": "time", "norm2": "norm2", "conv2": "conv2",
          "conv_shortcut": "skip"}  # fmt: skip
SELF = {"norm1": "norm1", "norm2": "norm2", "norm3": "norm3", "attn1": "among", "attn2": "across",
        "ff.net.0.proj": "mlp.0", "ff.net.2": "mlp.1"}  # fmt: skip


def rename(key, table):
    """key with its beginning replaced after the table."""
    for theirs, ours in table.items():
        if key.startswith(theirs + "."):
            return ours + key[len(theirs):]
    raise AssertionError(f"{key} has no name here")


def attention_name(key):
    """Of a transformer block or an attention alone: to_k and to_v become "k" and "v", to be joined."""
    for theirs, ours in {"to_q": "to_q", "to_k": "k", "to_v": "v", "to_out.0": "to_out"}.items():
        key = re.sub(rf"\b{re.escape(theirs)}\.", f"{ours}.", key)
    return key


def layer_name(key):
    """The name inside a residual block, a transformer, or an attention of diffusers, as ours has it."""
    kind, _, number, inner = re.match(r"(resnets|attentions)(\.)(\d+)\.(.*)", key).groups()
    if kind == "resnets":
        return kind, int(number), rename(inner, RESNET)
    if inner.startswith("transformer_blocks.0."):
        return kind, int(number), attention_name(rename(inner.removeprefix("transformer_blocks.0."), SELF))
    if inner.split(".")[0] in ("norm", "proj_in", "proj_out"):
        return kind, int(number), inner
    if inner.startswith("group_norm"):
        return kind, int(number), inner.replace("group_norm", "norm")
    return kind, int(number), "attention." + attention_name(inner)


def unet_name(key, config):
    """Where a weight of diffusers' U-Net lies in ours."""
    per, levels = config.blocks, len(config.multipliers)
    for theirs, ours in {"conv_in": "down.0.0", "time_embedding.linear_1": "time.mlp.0", "conv_norm_out": "head.0",
                         "time_embedding.linear_2": "time.mlp.2", "conv_out": "head.2"}.items():
        if key.startswith(theirs + "."):
            return ours + key[len(theirs):]
    if key.startswith("mid_block."):
        kind, number, inner = layer_name(key.removeprefix("mid_block."))
        return f"middle.{1 if kind == 'attentions' else 2 * number}.{inner}"
    side, level, rest = re.match(r"(down|up)_blocks\.(\d+)\.(.*)", key).groups()
    level = int(level)
    if rest.startswith("downsamplers"):
        return f"down.{(per + 1) * (level + 1)}.0{rest.removeprefix('downsamplers.0.conv')}"
    entry = level * (per + 1)
    if rest.startswith("upsamplers"):
        place = 1 + (levels - 1 - level in config.attention)
        return f"up.{entry + per}.{place}{rest.removeprefix('upsamplers.0.conv')}"
    kind, number, inner = layer_name(rest)
    return f"{side}.{entry + number + (side == 'down')}.{int(kind == 'attentions')}.{inner}"


def ours(model, theirs, name):
    """`model` with the weights of `theirs`; keys and values, apart in diffusers, are one layer in ours."""
    weights, halves = {}, {}
    for key, value in theirs.state_dict().items():
        new = name(key)
        head, last, rest = re.match(r"(.*\.)?([kv])\.(weight|bias)$", new).groups() if re.search(
            r"(^|\.)[kv]\.(weight|bias)$", new) else (None, None, None)
        if last:
            halves.setdefault(f"{head}to_kv.{rest}", {})[last] = value
        else:
            weights[new] = value
    weights.update({key: torch.cat([pair["k"], pair["v"]]) for key, pair in halves.items()})
    model.load_state_dict({**weights, **{k: v for k, v in model.state_dict().items() if k == "scale"}})
    return model.eval()


# -------------------------------------------------------------------------------------------------- the denoising U-Net

CONDITIONED = {
    "Stable Diffusion's proportions": UNetConfig.stable_diffusion(width=32, heads=2, context=24),
    "the course's": UNetConfig(width=32, heads=2, context=16),
    "one block a level, attention below alone": UNetConfig(
        width=32, multipliers=(1, 2, 3), blocks=1, attention=(2,), heads=4, context=8),
}  # fmt: skip


def theirs_conditioned(config):
    def kind(level, way):
        return f"CrossAttn{way}Block2D" if level in config.attention else f"{way}Block2D"

    levels = range(len(config.multipliers))
    return randomise(diffusers.UNet2DConditionModel(
        in_channels=config.channels, out_channels=config.out, layers_per_block=config.blocks,
        down_block_types=[kind(level, "Down") for level in levels],
        up_block_types=[kind(level, "Up") for level in reversed(levels)],
        block_out_channels=[config.width * m for m in config.multipliers], cross_attention_dim=config.context,
        attention_head_dim=config.heads,
    ))  # fmt: skip


@pytest.mark.parametrize("config", CONDITIONED.values(), ids=CONDITIONED)
@torch.no_grad()
def test_a_conditioned_unet_gives_diffusers_output(config):
    """diffusers counts times k = 0 ... 999 and embeds k; ours embeds 1000 t, so the same number is 1000 t = k."""
    theirs = theirs_conditioned(config)
    model = ours(UNet(config), theirs, lambda key: unet_name(key, config))
    z, context, t = numbers(3, 4, 16, 24, seed=1), numbers(3, 7, config.context, seed=2), torch.tensor([0.0, 0.25, 0.9])
    want = theirs(z, 1000 * t, context).sample
    close(model(z, t, context), want)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [True] + [False] * 6])
    close(model(z, t, context, mask), theirs(z, 1000 * t, context, encoder_attention_mask=mask).sample)
    assert (model(z, t, context, mask) - want).abs().max() > 1e-3


@torch.no_grad()
def test_an_unconditional_unet_gives_diffusers_output():
    config = UNetConfig.ldm4(width=32, head_dim=16)
    levels = range(4)
    theirs = randomise(diffusers.UNet2DModel(
        in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=[32, 64, 96, 128],
        down_block_types=["AttnDownBlock2D" if level in config.attention else "DownBlock2D" for level in levels],
        up_block_types=["AttnUpBlock2D" if level in config.attention else "UpBlock2D" for level in reversed(levels)],
        attention_head_dim=16,
    ))  # fmt: skip
    model = ours(UNet(config), theirs, lambda key: unet_name(key, config))
    z, t = numbers(2, 3, 16, 24, seed=3), torch.tensor([0.1, 0.7])
    close(model(z, t), theirs(z, 1000 * t).sample)


def test_every_published_size_has_as_many_weights_as_diffusers():
    with torch.device("meta"):
        model = diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    assert sum(p.numel() for p in model.parameters()) == 859_520_964  # ours: tests/test_latent_diffusion.py


# ------------------------------------------------------------------------------------------------------ the first stage


def first_stage_name(key, config):
    """Where a weight of diffusers' AutoencoderKL lies in ours: two rows of layers, numbered through."""
    levels, per = len(config.multipliers), config.blocks
    if key.startswith("quant_conv"):
        return f"encoder.{levels * (per + 1) + 6}{key.removeprefix('quant_conv')}"
    if key.startswith("post_quant_conv"):
        return f"decoder.0{key.removeprefix('post_quant_conv')}"
    side, rest = key.split(".", 1)
    last = levels * (per + 1) if side == "encoder" else 5 + levels * (per + 2) - 1
    middle = last if side == "encoder" else 2
    for theirs, place in {"conv_in": 0 if side == "encoder" else 1, "conv_norm_out": last + 3 * (side == "encoder"),
                          "conv_out": last + 3 * (side == "encoder") + 2}.items():
        if rest.startswith(theirs + "."):
            return f"{side}.{place}{rest[len(theirs):]}"
    if rest.startswith("mid_block."):
        kind, number, inner = layer_name(rest.removeprefix("mid_block."))
        return f"{side}.{middle + (1 if kind == 'attentions' else 2 * number)}.{inner}"
    level, rest = re.match(r"(?:down|up)_blocks\.(\d+)\.(.*)", rest).groups()
    level = int(level)
    start = 1 + level * (per + 1) if side == "encoder" else 5 + level * (per + 2)
    if rest.startswith("downsamplers"):
        return f"{side}.{start + per}{rest.removeprefix('downsamplers.0.conv')}"
    if rest.startswith("upsamplers"):
        return f"{side}.{start + per + 1}{rest.removeprefix('upsamplers.0.conv')}"
    _, number, inner = layer_name(rest)
    return f"{side}.{start + number}.{inner}"


@pytest.mark.parametrize("config", [
    AutoencoderConfig(), AutoencoderConfig.f8(width=32), AutoencoderConfig(multipliers=(1, 1), blocks=2, latent=3),
])  # fmt: skip
@torch.no_grad()
def test_the_autoencoder_gives_diffusers_output(config):
    levels = len(config.multipliers)
    theirs = randomise(diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=[config.width * m for m in config.multipliers], layers_per_block=config.blocks,
        latent_channels=config.latent, norm_num_groups=config.groups,
    ))  # fmt: skip
    model = ours(Autoencoder(config), theirs, lambda key: first_stage_name(key, config))
    x = numbers(2, 3, 16, 32, seed=4)
    want = theirs.encode(x).latent_dist
    mean, logvar = model.posterior(x)
    close(mean, want.mean)
    close(logvar, want.logvar)
    z = numbers(*mean.shape, seed=5)
    close(model.decode(z), theirs.decode(z).sample)


# --------------------------------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize("first, last", [(0.0015, 0.0195), (0.00085, 0.012)])
def test_the_schedule_is_diffusers(first, last):
    theirs = diffusers.DDPMScheduler(beta_start=first, beta_end=last, beta_schedule="scaled_linear")
    process, k = ScaledLinearBeta(first=first, last=last), torch.arange(0, 1000, 37)
    x0, eps = numbers(len(k), 3, 4, seed=6), numbers(len(k), 3, 4, seed=7)
    close(process.add_noise(x0, eps, (k + 1) / 1000), theirs.add_noise(x0, eps, k))
