"""Chapter 03's ViT against torchvision's and timm's with the same weights, and what each makes of another size."""

import pytest
import torch
from torch.nn import functional as F

from soralab.vit import ViT, interpolate_positions

SIZES = {  # (image, patch, dim, depth, heads, classes, width of the pre-training head)
    "B/16's proportions": (64, 16, 48, 3, 4, 11, 0),
    "H/14's patch, tanh head": (56, 14, 80, 2, 5, 7, 32),
    "one patch": (8, 8, 32, 1, 2, 3, 0),
}


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    assert b.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def randomise(model):
    """Every weight, also the class token and the head, which start at zero, and the norms, which start at one."""
    for seed, parameter in enumerate(model.parameters()):
        scale = 0.3 if parameter.ndim < 2 or 1 in parameter.shape[:1] else parameter[0].numel() ** -0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.eval()


def torchvisions(image, patch, dim, depth, heads, classes, hidden):
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    return randomise(vision.VisionTransformer(
        image_size=image, patch_size=patch, num_layers=depth, num_heads=heads, hidden_dim=dim, mlp_dim=4 * dim,
        num_classes=classes, representation_size=hidden or None,
    ))  # fmt: skip


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_torchvisions_weights_give_torchvisions_output(size):
    theirs = torchvisions(*size)
    pixels = numbers(3, 3, size[0], size[0], seed=90)
    want = theirs(pixels)
    close(ViT.from_torchvision(theirs)(pixels), want)
    close(ViT.from_torchvision(theirs.state_dict(), heads=size[4])(pixels), want)


@torch.no_grad()
def test_published_files_call_the_mlp_otherwise():
    size = SIZES["B/16's proportions"]
    theirs = torchvisions(*size)
    old = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
           for key, value in theirs.state_dict().items()}  # fmt: skip
    assert any("linear_1" in key for key in old)
    pixels = numbers(2, 3, size[0], size[0], seed=91)
    close(ViT.from_torchvision(old, heads=size[4])(pixels), theirs(pixels))


@pytest.mark.parametrize("spoil, says", [
    (lambda s: s.pop("encoder.ln.bias"), "^source: lacks encoder.ln.bias$"),
    (lambda s: s.pop("conv_proj.weight"), "source has no conv_proj.weight; it takes the weights of a torchvision"),
    (lambda s: s.update({"encoder.layers.encoder_layer_1.mlp.0.weight": torch.zeros(7, 48)}),
     r"encoder_layer_1.mlp.0.weight is \[7, 48\]; it takes \[192, 48\]"),
    (lambda s: s.update({"class_token": torch.zeros(48)}), r"class_token is \[48\]; it takes \[1, 1, 48\]"),
    (lambda s: s.update({"conv_proj.weight": torch.zeros(48, 768)}), r"conv_proj.weight is \[48, 768\]; it takes 4"),
    (lambda s: s.update({"encoder.layers.encoder_layer_0.ln_3.weight": torch.zeros(48)}), "0.ln_3.weight, which a"),
])  # fmt: skip
def test_other_weights_are_refused_by_name(spoil, says):
    state = dict(torchvisions(*SIZES["B/16's proportions"]).state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=says):
        ViT.from_torchvision(state, heads=4)


def test_a_state_dict_of_an_unknown_width_asks_for_the_heads():
    state = torchvisions(*SIZES["B/16's proportions"]).state_dict()
    with pytest.raises(ValueError, match="heads is None; with a width of 48"):
        ViT.from_torchvision(state)


@torch.no_grad()
def test_the_weights_are_copies():
    theirs = torchvisions(*SIZES["one patch"])
    ours = ViT.from_torchvision(theirs)
    pixels = numbers(1, 3, 8, 8, seed=92)
    before = ours(pixels)
    for parameter in theirs.parameters():
        parameter.zero_()
    assert torch.equal(ours(pixels), before)


def timms(image, patch, dim, depth, heads, classes):
    """timm's with our kind of sizes, random weights and, in the same layout as torchvision's, their state_dict."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    model = randomise(timm.VisionTransformer(
        img_size=image, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads, num_classes=classes,
    ))  # fmt: skip
    names = {"norm1": "ln_1", "norm2": "ln_2", "attn.qkv.": "self_attention.in_proj_",
             "attn.proj": "self_attention.out_proj", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3",
             "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj"}
    state = {}
    for key, value in model.state_dict().items():
        for theirs, name in names.items():
            key = key.replace(theirs, name)
        key = key.replace("blocks.", "encoder.layers.encoder_layer_")
        key = f"heads.{key}" if key.startswith("head.") else f"encoder.ln{key[4:]}" if key.startswith("norm.") else key
        state[key] = value
    return model, state


@pytest.mark.parametrize("size", [(64, 16, 48, 3, 4, 11), (56, 14, 80, 2, 5, 7)])
@torch.no_grad()
def test_timms_weights_give_timms_output(size):
    theirs, state = timms(*size)
    pixels = numbers(3, 3, size[0], size[0], seed=93)
    close(ViT.from_torchvision(state, heads=size[4])(pixels), theirs(pixels))


@torch.no_grad()
def test_timms_weights_at_another_size():
    """Both at a higher resolution, with the positions stretched as the official code stretches them."""
    size = (64, 16, 48, 3, 4, 11)
    theirs, state = timms(*size)
    ours = ViT.from_torchvision(state, heads=4)
    wide = ours.finetune(image=96)
    wide.head.load_state_dict(ours.head.state_dict())
    larger, _ = timms(96, *size[1:])
    state = theirs.state_dict()
    state["pos_embed"] = interpolate_positions(ours.positions, (4, 4), (6, 6))[None]
    larger.load_state_dict(state)
    pixels = numbers(2, 3, 96, 96, seed=94)
    close(wide(pixels), larger(pixels))


@torch.no_grad()
def test_what_the_others_do_to_positions():
    """torchvision: bicubic, corners on corners; timm: bicubic, antialiased, without. Neither is the official way."""
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    resample = pytest.importorskip("timm.layers").resample_abs_pos_embed
    positions = numbers(1 + 16, 32, seed=95)
    state = {"encoder.pos_embedding": positions[None]}
    grid = positions[1:].T.reshape(1, 32, 4, 4)
    theirs = vision.interpolate_embeddings(96, 16, dict(state))["encoder.pos_embedding"][0]
    bicubic = F.interpolate(grid, (6, 6), mode="bicubic", align_corners=True)
    close(theirs[1:], bicubic.reshape(32, 36).T)
    timms_way = resample(positions[None], (6, 6), num_prefix_tokens=1)[0]
    smooth = F.interpolate(grid, (6, 6), mode="bicubic", align_corners=False, antialias=True)
    close(timms_way[1:], smooth.reshape(32, 36).T)
    ours = interpolate_positions(positions, (4, 4), (6, 6))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[0], timms_way[0])
    assert (ours - theirs).abs().max() > 0.1 and (ours - timms_way).abs().max() > 0.1
