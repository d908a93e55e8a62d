"""Stable Diffusion's weights as they are published: what its layers are called in the official code and in diffusers.

Chapter 06's U-Net and first stage are the official ones, layer by layer; here is each layer's name in both codes, side
by side. A name that begins with model.diffusion_model. or first_stage_model. is one of a whole checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from soralab.blocks.attention import Attention
from soralab.blocks.convolution import ResBlock, SpatialAttention, SpatialTransformer, Upsample
from soralab.files.published import Layout, counted, fill, shape_of, under

OFFICIAL, DIFFUSERS = 0, 1  # which of two names
RESIDUAL = {  # a residual block's layers: (official, diffusers)
    "norm1": ("in_layers.0", "norm1"), "conv1": ("in_layers.2", "conv1"), "time": ("emb_layers.1", "time_emb_proj"),
    "norm2": ("out_layers.0", "norm2"), "conv2": ("out_layers.3", "conv2"),
    "skip": ("skip_connection", "conv_shortcut"),
}  # fmt: skip
FIRST_STAGE_RESIDUAL = {ours: (theirs, theirs) for ours, (_, theirs) in RESIDUAL.items()} | {
    "skip": ("nin_shortcut", "conv_shortcut")}  # fmt: skip
BEFORE_0_18 = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # of diffusers
UNET, FIRST_STAGE = "model.diffusion_model.", "first_stage_model."
BESIDE = ("loss.", "model_ema.")  # what a training of the first stage saved besides


def unet_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The U-Net's weights in a whole checkpoint, or all of a file that holds nothing else."""
    return _part(state, UNET)


def first_stage_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first stage's weights in a whole checkpoint, or in a file of its own."""
    return {name: value for name, value in _part(state, FIRST_STAGE).items() if not name.startswith(BESIDE)}


def unet_sizes(state: Mapping[str, Tensor]) -> dict:
    """What the weights tell of the U-Net's sizes: fields of its config that are not as in Stable Diffusion 1.

    How many heads there are, no weight tells: version 1 has 8, version 2, whose projections are linear, has as many as
    are 64 wide. Raises ValueError for weights of something else.
    """
    state, stem, code = _read(unet_part(state), UNET, "down_blocks.")
    what = "Stable Diffusion's U-Net"
    first, last = (("input_blocks.0.0", "out.2"), ("conv_in", "conv_out"))[code]
    block = stem + ("input_blocks.1.1", "down_blocks.0.attentions.0")[code]
    width, channels, _, _ = shape_of(state, f"{stem}{first}.weight", 4, what)
    out = shape_of(state, f"{stem}{last}.weight", 4, what)[0]
    context = shape_of(state, f"{block}.transformer_blocks.0.attn2.to_k.weight", 2, what)[1]
    linear = f"{block}.proj_in.weight" in state and state[f"{block}.proj_in.weight"].ndim == 2
    return {"width": width, "channels": channels, "out": out, "context": context, "head_dim": 64 if linear else 0}


def fill_unet(unet: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The U-Net of `unet_sizes` with the published weights. Raises Mismatch, a ValueError."""
    own, stem, code = _read(unet_part(state), UNET, "down_blocks.")
    fill(unet_layout(unet, code, stem), own, "Stable Diffusion's U-Net")
    return unet


def first_stage_sizes(state: Mapping[str, Tensor]) -> dict:
    """What the weights tell of the first stage's sizes: fields of its config. Raises ValueError."""
    state, stem, code = _read(first_stage_part(state), FIRST_STAGE, "encoder.down_blocks.")
    what, level = "Stable Diffusion's first stage", f"{stem}encoder.{('down.', 'down_blocks.')[code]}"
    inner = ("block.", "resnets.")[code]
    width, channels, _, _ = shape_of(state, f"{stem}encoder.conv_in.weight", 4, what)
    latent = shape_of(state, f"{stem}post_quant_conv.weight", 4, what)[0]
    dims = [shape_of(state, f"{level}{k}.{inner}0.conv1.weight", 4, what)[0] for k in range(counted(state, level))]
    return {"width": width, "channels": channels, "latent": latent, "blocks": counted(state, f"{level}0.{inner}"),
            "multipliers": tuple(max(dim // width, 1) for dim in dims) or (1,)}  # fmt: skip


def fill_first_stage(stage: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The first stage of `first_stage_sizes` with the published weights. Raises Mismatch, a ValueError."""
    own, stem, code = _read(first_stage_part(state), FIRST_STAGE, "encoder.down_blocks.")
    fill(first_stage_layout(stage, code, stem), own, "Stable Diffusion's first stage")
    return stage


def _part(state: Mapping[str, Tensor], stem: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith(stem)} or dict(state)


def _read(own: Mapping[str, Tensor], stem: str, sign: str) -> tuple[dict[str, Tensor], str, int]:
    """(the weights under today's names, what every name begins with, whose names they are)."""
    stem = stem if any(name.startswith(stem) for name in own) else ""
    if not any(name.startswith(stem + sign) for name in own):
        return dict(own), stem, OFFICIAL
    named = {}
    for name, value in own.items():
        for old, new in BEFORE_0_18.items():
            name = name.replace(old, new)
        named[name] = value
    return named, stem, DIFFUSERS


# ------------------------------------------------------------------------------------------------- the names, in order


@torch.no_grad()
def unet_layout(unet: nn.Module, code: int, stem: str = "") -> Layout:
    """Where each published weight lies in chapter 06's `UNet`. code: OFFICIAL or DIFFUSERS; stem: before each name."""
    layout = {}
    for *names, layer in _unet_layers(unet):
        layout |= _inside(f"{stem}{names[code]}", layer, code, RESIDUAL, linear=unet.config.head_dim > 0)
    return layout


@torch.no_grad()
def first_stage_layout(stage: nn.Module, code: int, stem: str = "") -> Layout:
    """Where each published weight lies in an `Autoencoder` with a KL term."""
    layout = {}
    for *names, layer in _first_stage_layers(stage):
        layout |= _inside(f"{stem}{names[code]}", layer, code, FIRST_STAGE_RESIDUAL)
    return layout


def _unet_layers(unet: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """(official name, name in diffusers, layer), in order."""
    yield "time_embed.0", "time_embedding.linear_1", unet.time.mlp[0]
    yield "time_embed.2", "time_embedding.linear_2", unet.time.mlp[2]
    yield "input_blocks.0.0", "conv_in", unet.down[0][0]
    for way, theirs, rows in (("input_blocks", "down", unet.down), ("output_blocks", "up", unet.up)):
        first = int(way == "input_blocks")
        for k, row in enumerate(rows[first:]):
            level, number = divmod(k, unet.config.blocks + 1)
            for j, layer in enumerate(row):
                official, kind = _kind(layer, number)
                yield f"{way}.{k + first}.{j}{official}", f"{theirs}_blocks.{level}.{kind}", layer
    for j, layer in enumerate(unet.middle):
        yield f"middle_block.{j}", f"mid_block.{_kind(layer, j // 2)[1]}", layer
    yield "out.0", "conv_norm_out", unet.head[0]
    yield "out.2", "conv_out", unet.head[2]


def _kind(layer: nn.Module, number: int) -> tuple[str, str]:
    """What the official code appends to a layer's place, and what diffusers calls the layer in its level."""
    if isinstance(layer, ResBlock):
        return "", f"resnets.{number}"
    if isinstance(layer, SpatialTransformer):
        return "", f"attentions.{number}"
    return (".conv", "upsamplers.0.conv") if isinstance(layer, Upsample) else (".op", "downsamplers.0.conv")


def _first_stage_layers(stage: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """(official name, name in diffusers, layer), in order."""
    levels, per = len(stage.config.multipliers), stage.config.blocks
    encoder, decoder = iter(stage.encoder), iter(stage.decoder)
    yield "post_quant_conv", "post_quant_conv", next(decoder)
    for way, layers in (("encoder", encoder), ("decoder", decoder)):
        yield f"{way}.conv_in", f"{way}.conv_in", next(layers)
        if way == "encoder":
            for level in range(levels):
                if level:
                    last = level - 1
                    yield f"encoder.down.{last}.downsample.conv", _level(way, last, "downsamplers.0.conv"), next(layers)
                for k in range(per):
                    yield f"encoder.down.{level}.block.{k}", _level(way, level, f"resnets.{k}"), next(layers)
        for official, theirs in (("block_1", "resnets.0"), ("attn_1", "attentions.0"), ("block_2", "resnets.1")):
            yield f"{way}.mid.{official}", f"{way}.mid_block.{theirs}", next(layers)
        if way == "decoder":
            for level in reversed(range(levels)):  # diffusers counts the other way
                for k in range(per + 1):
                    name = _level(way, levels - 1 - level, f"resnets.{k}")
                    yield f"decoder.up.{level}.block.{k}", name, next(layers)
                if level:
                    name = _level(way, levels - 1 - level, "upsamplers.0.conv")
                    yield f"decoder.up.{level}.upsample.conv", name, next(layers)
        yield f"{way}.norm_out", f"{way}.conv_norm_out", next(layers)
        next(layers)  # SiLU
        yield f"{way}.conv_out", f"{way}.conv_out", next(layers)
    yield "quant_conv", "quant_conv", next(encoder)


def _level(way: str, level: int, layer: str) -> str:
    return f"{way}.{'down' if way == 'encoder' else 'up'}_blocks.{level}.{layer}"


def _inside(name: str, layer: nn.Module, code: int, residual: Mapping, linear: bool = False) -> Layout:
    """The weights of one layer called `name`; linear: its projections are no 1 x 1 convolutions."""
    stem = f"{name}."
    if isinstance(layer, ResBlock):
        return under(stem, {names[code]: getattr(layer, ours) for ours, names in residual.items()
                            if getattr(layer, ours) is not None})  # fmt: skip
    if isinstance(layer, SpatialAttention):
        names = (("q", "k", "v", "proj_out"), ("to_q", "to_k", "to_v", "to_out.0"))[code]
        norm = under(stem, {("norm", "group_norm")[code]: layer.norm})
        return norm | _attention(stem, layer.attention, names, kernel=code == OFFICIAL)
    if not isinstance(layer, SpatialTransformer):
        return under("", {name: layer})
    block = f"{stem}transformer_blocks.0."
    layout = under(stem, {"norm": layer.norm, "proj_in": layer.proj_in, "proj_out": layer.proj_out})
    if linear:
        layout |= {key: layout[key][:, :, 0, 0] for key in (f"{stem}proj_in.weight", f"{stem}proj_out.weight")}
    layout |= under(block, {"norm1": layer.norm1, "norm2": layer.norm2, "norm3": layer.norm3,
                            "ff.net.0.proj": layer.mlp[0], "ff.net.2": layer.mlp[1]})  # fmt: skip
    return layout | _attention(f"{block}attn1.", layer.among) | _attention(f"{block}attn2.", layer.across)


def _attention(
    stem: str, layer: Attention, names: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0"), kernel: bool = False
) -> Layout:
    """Keys and values, one layer here, are two there; kernel: each is a 1 x 1 convolution there."""
    layout = under(stem, {names[0]: layer.to_q, names[3]: layer.to_out})
    for key, value in layer.to_kv.state_dict().items():
        layout |= {f"{stem}{name}.{key}": half for name, half in zip(names[1:3], value.chunk(2), strict=True)}
    return {key: value[..., None, None] if kernel and value.ndim == 2 else value for key, value in layout.items()}
