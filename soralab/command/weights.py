"""`soralab weights`: the weights that papers' authors published, in the course's own code.

The course ships none of them and fetches none: `list` says which ones its code takes and where they lie, `check` says
what is in a file that the reader has fetched.
"""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from soralab.command.arguments import verb


@dataclass(frozen=True)
class Published:
    """Weights that a chapter's code takes. `load` and `part` name a function of a state dict: "module:function"."""

    chapter: int
    what: str
    size: str
    where: str
    licence: str  # of the weights, as published
    load: str  # makes the chapter's model of them, or raises ValueError that names what does not fit
    marks: tuple[str, ...]  # how names of weights begin that tell them from others
    untold: str  # what no weight tells
    part: str = ""  # picks them out of a file that holds other models too; "": there is nothing else in it


STATISTICS = "pixels from 0 to 1, less a mean of {}, over a deviation of {}"

PUBLISHED = {
    "vit": Published(
        3, "torchvision's ViT: B/16, B/32, L/16, L/32, H/14", size="346 MB (B/16) to 2.5 GB (H/14)",
        where="https://download.pytorch.org/models/vit_b_32-d86f8d99.pth, which chapter 03 asks for; "
        "torchvision.models.ViT_B_16_Weights and its like name the others, as .DEFAULT.url",
        licence="none of their own, with a warning that the data set's terms may hold (ImageNet); those called SWAG, "
        "H/14's among them: CC BY-NC 4.0",
        load="soralab.vit:ViT.from_torchvision", marks=("encoder.layers.encoder_layer_", "conv_proj."),
        untold="heads (12 for B, 16 for L and H); "
        + STATISTICS.format("(0.485, 0.456, 0.406)", "(0.229, 0.224, 0.225)"),
    ),
    "clip": Published(
        4, "OpenAI's CLIP: ViT-B/32, B/16, L/14, L/14@336px and five ResNets, in OpenAI's names",
        size="605 MB (ViT-B/32) to 2.5 GB (RN50x64)",
        where="https://huggingface.co/timm/vit_base_patch32_clip_224.openai, open_clip_model.safetensors; ViT-L/14, "
        "which chapter 06 asks for, in timm/vit_large_patch14_clip_224.openai there. OpenAI's own files are archives "
        "with code in them, and are refused. Their vocabulary, bpe_simple_vocab_16e6.txt.gz, is in "
        "OpenAI's repository (github.com/openai/CLIP, clip/) and in the package open_clip",
        licence="MIT in OpenAI's repository, Apache 2.0 on that page",
        load="soralab.clip:CLIP.from_openai", marks=("visual.", "text_projection"),
        untold="QuickGELU: most of LAION's and others' of these names learnt with GELU and are wrong here; "
        + STATISTICS.format("(0.481, 0.458, 0.408)", "(0.269, 0.261, 0.276)"),
    ),
    "sd_unet": Published(
        6, "the U-Net of Stable Diffusion 1 or 2, in the official names or diffusers'",
        size="3.4 GB, or 4.3 GB with all else",
        where="https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive, v1-5-pruned-emaonly.safetensors",
        licence="CreativeML OpenRAIL-M (version 2: OpenRAIL++-M)",
        load="soralab.latent_diffusion:UNet.from_stable_diffusion",
        part="soralab.blocks.stable_diffusion:unet_part",
        marks=("model.diffusion_model.", "input_blocks.", "down_blocks.", "time_embed"),
        untold="heads (8 in version 1, 64 wide in 2); that it predicts the noise (2.1 at 768 pixels: v); that step k "
        "of 0 to 999 is told as k / 1000",
    ),
    "sd_vae": Published(
        6, "the first stage of Stable Diffusion, in the official names or diffusers'", size="335 MB",
        where="https://huggingface.co/stabilityai/sd-vae-ft-mse, diffusion_pytorch_model.safetensors; or in a "
        "checkpoint of sd_unet",
        licence="MIT (sd-vae-ft-mse); CreativeML OpenRAIL-M in a checkpoint",
        load="soralab.blocks.first_stage:Autoencoder.from_stable_diffusion",
        part="soralab.blocks.stable_diffusion:first_stage_part",
        marks=("first_stage_model.", "encoder.down", "decoder.up", "post_quant_conv."),
        untold="the latents' scale, 0.18215; pixels lie in [-1, 1] as the course's",
    ),
    "llava": Published(
        13, "LLaVA's projector, or LLaVA-1.5's, in the authors' names or transformers'",
        size="8 MB (7B) to 63 MB (1.5-13B)",
        where="https://huggingface.co/liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5, mm_projector.bin",
        licence="Llama 2 Community License",
        load="soralab.llava:published_projector", part="soralab.llava:projector_part",
        marks=("model.mm_projector.", "mm_projector.", "model.multi_modal_projector.", "multi_modal_projector."),
        untold="which tower it reads, and at which layer: CLIP's L/14 (1.5: at 336 pixels), the last but one",
    ),
    "dit": Published(
        16, "official DiT, adaLN-Zero, as DiT-XL/2", size="2.7 GB",
        where="https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt", licence="CC BY-NC 4.0",
        load="soralab.dit:DiT.from_official", marks=("x_embedder.", "y_embedder.", "t_embedder."),
        untold="heads, but for the paper's sizes; that its latents are those of sd_vae",
    ),
}  # fmt: skip


def declare(verbs):
    """Its arguments; returns its parser."""
    weights = verb(verbs, "weights", "published weights that the chapters' code takes, and whether a file holds them")
    does = weights.add_subparsers(dest="does", metavar="list|check", required=True)
    verb(does, "list", "which there are, where they lie, their size and licence")
    check = verb(does, "check", "say whose weights are in a file, and name each that fits nowhere")
    check.add_argument("file", metavar="FILE", help="a .safetensors file, or a state dict that PyTorch saved")
    check.add_argument("--as", dest="name", choices=PUBLISHED, metavar="NAME", help="of the list, such as vit")
    return weights


def run(options) -> None:
    """Print the list, or what is in the file."""
    if options.does == "list":
        print(table())
    else:
        check(options.file, options.name)


def table() -> str:
    """All of PUBLISHED, as the list prints them."""
    rows = []
    for name, each in PUBLISHED.items():
        module, _, function = each.load.partition(":")
        code = f"from {module} import {function.partition('.')[0]}; {function}(state)"
        rows.append(f"{name:8s} chapter {each.chapter:02d}  {each.what}")
        told = {"size": each.size, "where": each.where, "licence": each.licence, "code": code}
        rows += [*(f"{'':8s} {what:10s}  {text}" for what, text in told.items()), ""]
    rows.append("state is soralab.files.published.read_weights(FILE); soralab weights check FILE says what FILE holds; "
                "the chapters look for FILE in data/downloads/weights")  # fmt: skip
    return "\n".join(rows)


def check(file: str, name: str | None = None) -> None:
    """Print whose weights `file` holds. Raises ValueError, after naming each, where some fit nowhere."""
    from soralab.files.published import read_weights

    state = read_weights(file, "meta")
    names = [name] if name else [each for each, published in PUBLISHED.items()
                                 if any(key.startswith(published.marks) for key in state)]  # fmt: skip
    if not names:
        some = ", ".join(list(state)[:3]) + (", ..." if len(state) > 3 else "")
        raise ValueError(f"{file} holds {some}, which are weights of none of {', '.join(PUBLISHED)}; --as NAME asks "
                         "how far they are one's")  # fmt: skip
    beside, wrong = set(state), []
    for each in names:
        own = _function(PUBLISHED[each].part)(state) if PUBLISHED[each].part else state
        beside -= set(own)
        wrong += _compare(Path(file).name, PUBLISHED[each], own, state)
    groups = Counter(key.partition(".")[0] for key in beside)
    if groups:
        print("beside them, of other models: " + ", ".join(f"{group} ({count})" for group, count in groups.items()))
    if wrong:
        raise ValueError("; ".join(wrong))


def _compare(file: str, published: Published, own: dict, state: dict) -> list[str]:
    """Print how the weights `own` fit; returns what is wrong, in words."""
    import torch

    from soralab.files.published import Mismatch

    print(f"{file}: {published.what}, chapter {published.chapter:02d}")
    try:
        with torch.device("meta"):  # names and shapes alone: no memory
            model = _function(published.load)(state)
    except Mismatch as error:
        odd = {kind: getattr(error, kind) for kind in ("missing", "strange", "misshapen") if getattr(error, kind)}
        for kind, entries in odd.items():
            for key, shape in entries.items():
                told = f"{shape[0]}, it takes {shape[1]}" if kind == "misshapen" else shape
                print(f"  {kind:10s}{key}  {told}")
        of = error.matched + len(error.missing) + len(error.misshapen)
        counts = ", ".join(f"{len(entries)} {kind}" for kind, entries in odd.items())
        return [f"{file}: {error.matched} of {of} weights match, {counts}"]
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        return [f"{file}: {error}"]
    kinds = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in own.values()}))
    print(f"  all {len(own)} match, {sum(value.numel() for value in own.values()):,} numbers in {kinds}")
    print(f"  {' '.join(repr(getattr(model, 'config', model)).split())}")
    print(f"  no weight tells: {published.untold}")
    return []


def _function(name: str):
    """What "module:function" names."""
    module, _, function = name.partition(":")
    found = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return found
