"""`soralab weights`: the list holds together, and a file is told for what it is, each name that fits nowhere named."""

import importlib.util
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soralab.blocks import stable_diffusion
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.clip import CLIP, CLIPConfig, openai_layout
from soralab.command import main
from soralab.command.weights import PUBLISHED, check, table
from soralab.files.published import export, under
from soralab.latent_diffusion import UNet, UNetConfig
from soralab.llava import projector
from soralab.vit import ViT, ViTConfig, torchvision_layout

without_dit = pytest.mark.skipif(importlib.util.find_spec("soralab.dit") is None, reason="there is no soralab.dit")
HERE = [pytest.param(name, marks=without_dit if name == "dit" else ()) for name in PUBLISHED]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def vit():
    return export(torchvision_layout(ViT(ViTConfig(image=8, dim=12, depth=2, heads=3, classes=5))))


def wide_vit():
    """Of a width whose heads are known."""
    return export(torchvision_layout(ViT(ViTConfig(image=8, dim=768, depth=1, heads=12, classes=5))))


def clip():
    return export(openai_layout(CLIP(CLIPConfig(6, 8, 1, 64, 4, 5, 9, 64, 1, head=64))))


def stable():
    """A whole checkpoint: U-Net, first stage, and two other things."""
    unet, stage = UNet(UNetConfig.stable_diffusion(width=32, context=24)), Autoencoder(AutoencoderConfig.f8(width=32))
    beside = {"cond_stage_model.a": torch.ones(1), "cond_stage_model.b": torch.ones(1), "betas": torch.ones(3)}
    layouts = (stable_diffusion.unet_layout(unet, 0, stable_diffusion.UNET),
               stable_diffusion.first_stage_layout(stage, 0, stable_diffusion.FIRST_STAGE))  # fmt: skip
    return {**export(layouts[0]), **export(layouts[1]), **beside}


def llava():
    return under("", {"model.mm_projector": projector(6, 8)})


def told(capsys, state, *options, code=0, suffix="safetensors"):
    """(what `check` prints, its line of error) for a file of `state`."""
    if suffix == "safetensors":
        save_file(state, "w.safetensors")
    else:
        torch.save(state, f"w.{suffix}")
    assert main(["weights", "check", f"w.{suffix}", *options]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err and len(err.splitlines()) == (code > 0)
    return out, err.strip()


# ------------------------------------------------------------------------------------------------------------ the list


def test_the_list_tells_of_each_what_a_reader_asks(capsys):
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    for name, each in PUBLISHED.items():
        assert re.search(rf"^{name} +chapter {each.chapter:02d}  {re.escape(each.what)}$", out, re.M)
        for text in (each.size, each.where, each.licence):
            assert text in out and len(text) > 3
    assert "from soralab.vit import ViT; ViT.from_torchvision(state)" in out and "weights check FILE" in out


@pytest.mark.parametrize("name", HERE)
def test_what_the_list_names_is_there(name):
    for each in filter(None, (PUBLISHED[name].load, PUBLISHED[name].part)):
        module, _, function = each.partition(":")
        found = import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
        assert callable(found)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_chapter_that_is_told_is_the_one_whose_page_loads_them(name):
    (page,) = (Path(__file__).resolve().parents[1] / "notebooks").glob(f"{PUBLISHED[name].chapter:02d}_*.ipynb")
    assert f"{PUBLISHED[name].load.partition(':')[2]}(" in page.read_text(encoding="utf-8")


def test_torchvision_names_the_file_and_its_licence():
    """What the list says of it is what torchvision's table says."""
    models = pytest.importorskip("torchvision.models")
    assert models.ViT_B_32_Weights.DEFAULT.url in PUBLISHED["vit"].where
    assert all("SWAG" in weights.name and "SWAG" in weights.meta["license"] for weights in models.ViT_H_14_Weights)
    small, large = (4 * kind.DEFAULT.meta["num_params"] for kind in (models.ViT_B_16_Weights, models.ViT_H_14_Weights))
    assert PUBLISHED["vit"].size == f"{small / 1e6:.0f} MB (B/16) to {large / 1e9:.1f} GB (H/14)"


def test_what_the_chapters_ask_for_is_in_the_list():
    """By its file's name; but for a reader's own picture, and a file that chapter 06 lets the reader rename."""
    pages = Path(__file__).resolve().parents[1].glob("notebooks/[0-9]*.ipynb")
    asked = {name for page in pages for call in re.findall(r"fetched\(([^)]*)\)", page.read_text(encoding="utf-8"))
             for name in re.findall(r'\\"([^"\\]+)\\"', call)}  # fmt: skip
    assert len(asked) > 6
    assert {name for name in asked if name not in table()} == {"picture.jpg", "clip_l14.safetensors"}


# ------------------------------------------------------------------------------------------------------------- a file


@pytest.mark.parametrize("make, says", [
    (wide_vit, "ViTConfig(image=8, patch=4, channels=3, dim=768, depth=1, heads=12, classes=5, hidden=0)"),
    (clip, "CLIPConfig(embed=6, image=8, layers=1, width=64, patch=4, context=5"),
    (llava, "Linear(in_features=6, out_features=8, bias=True)"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_that_fits_is_told_with_its_sizes(capsys, make, says, suffix):
    state = make()
    out, _ = told(capsys, state, suffix=suffix)
    each = PUBLISHED[{"wide_vit": "vit"}.get(make.__name__, make.__name__)]
    assert out.startswith(f"w.{suffix}: {each.what}, chapter {each.chapter:02d}\n") and says in out
    numbers = sum(value.numel() for value in state.values())
    assert f"  all {len(state)} match, {numbers:,} numbers in float32\n" in out and each.untold in out


def test_a_whole_checkpoint_is_told_part_by_part(capsys):
    out, _ = told(capsys, stable())
    assert PUBLISHED["sd_unet"].what in out and PUBLISHED["sd_vae"].what in out
    assert "beside them, of other models: " in out and "cond_stage_model (2)" in out and "betas (1)" in out
    out, _ = told(capsys, stable(), "--as", "sd_vae")
    assert PUBLISHED["sd_unet"].what not in out and "model (" in out


def test_every_name_that_fits_nowhere_is_named(capsys):
    state = clip() | {"visual.extra": torch.ones(2, 2), "logit_bias": torch.ones(1), "ln_final.weight": torch.ones(7)}
    del state["visual.ln_post.bias"]
    out, err = told(capsys, state, code=2)
    assert "  missing   visual.ln_post.bias  [64]\n" in out and "  strange   visual.extra  [2, 2]\n" in out
    assert "  strange   logit_bias  [1]\n" in out and "  misshapen ln_final.weight  [7], it takes [64]\n" in out
    total = len(clip())
    assert err == f"soralab: w.safetensors: {total - 2} of {total} weights match, 1 missing, 2 strange, 1 misshapen"


def test_both_parts_of_a_checkpoint_are_looked_at_before_it_is_refused(capsys):
    state = stable()
    del state["model.diffusion_model.out.2.bias"], state["first_stage_model.quant_conv.bias"]
    out, err = told(capsys, state, code=2)
    assert "missing   model.diffusion_model.out.2.bias" in out and "missing   first_stage_model.quant_conv.bias" in out
    assert err.count("1 missing") == 2


OTHER = {"fc.weight": torch.ones(2), "fc.bias": torch.ones(1)}


@pytest.mark.parametrize("state, options, says", [
    (OTHER, (), "holds fc.bias, fc.weight, which are weights of none of vit, clip, sd_unet, sd_vae, llava, dit"),
    (OTHER, ("--as", "vit"), "source has no conv_proj.weight; it takes the weights of a torchvision"),
    (OTHER, ("--as", "llava"), "state has no name with mm_projector"),
    (vit(), (), "heads is None; with a width of 12, none of the paper's, it takes a number"),
    (vit(), ("--as", "clip"), "state has no text_projection; it takes the weights of a CLIP"),
    (vit() | {"conv_proj.weight": torch.ones(768, 3, 3, 3)}, (), "w.safetensors: "),
    ({}, (), "holds no tensors"),
])  # fmt: skip
def test_what_is_of_another_model_is_told_in_one_line(capsys, state, options, says):
    assert says in told(capsys, state, *options, code=2)[1]


def test_no_such_file_and_no_such_name(capsys):
    assert main(["weights", "check", "none.pt"]) == 2
    assert capsys.readouterr().err == "soralab: none.pt: No such file or directory\n"
    for argv, says in ((["weights"], "list|check"), (["weights", "check", "a", "--as", "vits"], "choice: 'vits'")):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        err = capsys.readouterr().err
        assert caught.value.code == 2 and says in err and len(err.splitlines()) == 1


def test_checking_takes_no_memory_for_weights(monkeypatch):
    """Names and shapes alone are read, and the model is made where nothing is allocated."""
    save_file(wide_vit(), "w.safetensors")
    made = []
    monkeypatch.setattr(ViT, "initialise", lambda model: made.append({p.device.type for p in model.parameters()}))
    check("w.safetensors")
    assert made == [{"meta"}]


@without_dit
def test_official_dits_weights_are_taken_too(capsys):
    """The line that chapter 16's other paper has in the list: names and shapes of DiT-XL/2, and one that is lost."""
    with torch.device("meta"):
        shapes = {"pos_embed": (1, 256, 1152), "y_embedder.embedding_table.weight": (1001, 1152)}
        layers = {"x_embedder.proj": (1152, 4, 2, 2), "t_embedder.mlp.0": (1152, 256), "t_embedder.mlp.2": (1152, 1152),
                  "final_layer.linear": (32, 1152), "final_layer.adaLN_modulation.1": (2304, 1152)}  # fmt: skip
        for k in range(28):
            layers |= {f"blocks.{k}.attn.qkv": (3456, 1152), f"blocks.{k}.attn.proj": (1152, 1152),
                       f"blocks.{k}.mlp.fc1": (4608, 1152), f"blocks.{k}.mlp.fc2": (1152, 4608),
                       f"blocks.{k}.adaLN_modulation.1": (6912, 1152)}  # fmt: skip
        shapes |= {f"{name}.weight": shape for name, shape in layers.items()}
        shapes |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    import soralab.command.weights as weights

    assert weights._compare("w.pt", PUBLISHED["dit"], state, state) == []
    assert "all 292 match, 675,129,632 numbers" in capsys.readouterr().out
    del state["blocks.3.mlp.fc1.bias"]
    wrong = weights._compare("w.pt", PUBLISHED["dit"], state, state)
    assert len(wrong) == 1 and "blocks.3.mlp.fc1.bias" in wrong[0] + capsys.readouterr().out
