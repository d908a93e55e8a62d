"""Published weights in the course's code, against the libraries that publish them, with random weights.

Names and shapes of every published size on the meta device, where nothing is computed; what comes out, at small sizes
and, where two models take less than 2 GB, at the published one. The official names of Stable Diffusion are those that
diffusers' own converter reads.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from soralab.blocks import stable_diffusion
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.clip import CLIP, CLIPConfig
from soralab.clip import PUBLISHED as CLIPS
from soralab.diffusion import SAMPLERS, ScaledLinearBeta, guide
from soralab.files.published import export
from soralab.latent_diffusion import UNet, UNetConfig
from soralab.llava import PROJECTIONS, published_projector
from soralab.vit import ViT, ViTConfig

OFFICIAL = stable_diffusion.OFFICIAL
WHOLE = {"betas": torch.ones(3), "cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.ones(4),
         "model_ema.decay": torch.tensor(0.9)}  # what else lies in a whole checkpoint  # fmt: skip


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, tolerance=1e-5):
    assert b.abs().max() > 0.1  # zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def randomise(model):
    """Every weight: what starts at zero would hide the layers before it."""
    for seed, parameter in enumerate(model.parameters()):
        scale = 0.3 if parameter.ndim < 2 or len(parameter) == 1 else parameter[0].numel() ** -0.5
        parameter.copy_(scale * numbers(*parameter.shape, seed=seed))
    return model.eval()


@pytest.fixture
def meta():
    """Nothing is allocated or computed."""
    with torch.device("meta"):
        yield


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def params(model):
    return sum(value.numel() for value in model.parameters())


def theirs_unet(width=320, channels=4, context=768, version=1):
    diffusers = pytest.importorskip("diffusers")
    dims = [width * m for m in (1, 2, 4, 4)]
    return diffusers.UNet2DConditionModel(
        in_channels=channels, block_out_channels=dims, cross_attention_dim=context,
        attention_head_dim=8 if version == 1 else [dim // 64 for dim in dims], use_linear_projection=version == 2,
    )  # fmt: skip


def theirs_first_stage(width=128):
    diffusers = pytest.importorskip("diffusers")
    return diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, latent_channels=4,
        block_out_channels=[width, 2 * width, 4 * width, 4 * width], layers_per_block=2,
    )  # fmt: skip


def converted(kind, state, theirs):
    """State in the official names, in diffusers' by its own converter."""
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    return getattr(utils, f"convert_ldm_{kind}_checkpoint")(dict(state), dict(theirs.config))


# ------------------------------------------------------------------------------------------ Stable Diffusion, its U-Net


@pytest.mark.parametrize("sizes", [
    {"width": 32, "context": 24}, {"width": 32, "context": 24, "channels": 9},
    {"width": 64, "context": 16, "version": 2},
], ids=["version 1", "for inpainting", "version 2"])  # fmt: skip
@torch.no_grad()
def test_diffusers_unet_gives_diffusers_output(sizes):
    theirs = randomise(theirs_unet(**sizes))
    ours = UNet.from_stable_diffusion(theirs.state_dict())
    z, context = numbers(3, sizes.get("channels", 4), 16, 8, seed=1), numbers(3, 7, sizes["context"], seed=2)
    t = torch.tensor([0.0, 0.25, 0.9])
    assert not ours.training and ours.config.context == sizes["context"]
    close(ours(z, t, context), theirs(z, 1000 * t, context).sample)


@torch.no_grad()
def test_a_whole_checkpoint_in_the_official_names_gives_diffusers_output():
    """Written by our layout, read by diffusers' converter, whose model takes no name too few or too many."""
    ours = randomise(UNet(UNetConfig.stable_diffusion(width=32, context=24)))
    state = WHOLE | export(stable_diffusion.unet_layout(ours, OFFICIAL, "model.diffusion_model."))
    theirs = theirs_unet(32, context=24).eval()
    theirs.load_state_dict(converted("unet", state, theirs))
    again = UNet.from_stable_diffusion(state)
    z, context, t = numbers(2, 4, 8, 8, seed=3), numbers(2, 5, 24, seed=4), torch.tensor([0.1, 0.6])
    close(again(z, t, context), theirs(z, 1000 * t, context).sample)


@pytest.mark.usefixtures("meta")
def test_every_name_and_shape_of_the_published_unets():
    for version, context, count in ((1, 768, 859_520_964), (2, 1024, 865_910_724)):
        theirs = theirs_unet(context=context, version=version)
        state = theirs.state_dict()
        ours = UNet.from_stable_diffusion(state)
        assert params(ours) == params(theirs) == count
        official = export(stable_diffusion.unet_layout(ours, OFFICIAL, "model.diffusion_model."))
        assert shapes(converted("unet", official, theirs)) == shapes(state)
        assert UNet.from_stable_diffusion(official).config == ours.config
    assert ours.config.head_dim == 64 and UNetConfig.stable_diffusion().heads == 8


# ----------------------------------------------------------------------------------------------------- its first stage


def old(state):
    """The names of attention before diffusers 0.18, which its published first stages still have."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    found = {}
    for key, value in state.items():
        for new, before in names.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        found[key] = value
    assert found.keys() != state.keys()
    return found


def compared(ours, theirs, side=32):
    """One stage against the other: the mean of q(z | x) but for the scale, which is theirs, and a picture."""
    x, z = numbers(2, 3, side, side, seed=5), numbers(2, 4, side // 8, side // 8, seed=6)
    assert not ours.training
    assert ours.scale.item() == pytest.approx(theirs.config.scaling_factor) == pytest.approx(0.18215)
    close(ours.encode(x) / ours.scale, theirs.encode(x).latent_dist.mean)
    close(ours.decode(ours.scale * z), theirs.decode(z).sample)


@torch.no_grad()
def test_diffusers_first_stage_gives_diffusers_output():
    theirs = randomise(theirs_first_stage(32))
    compared(Autoencoder.from_stable_diffusion(theirs.state_dict()), theirs)
    compared(Autoencoder.from_stable_diffusion(old(theirs.state_dict())), theirs)


@torch.no_grad()
@pytest.mark.parametrize("stem, beside", [
    ("first_stage_model.", WHOLE), ("", {"loss.logvar": torch.zeros(1), "model_ema.decay": torch.ones(1)}),
])  # fmt: skip
def test_the_official_first_stage_gives_diffusers_output(stem, beside):
    ours = randomise(Autoencoder(AutoencoderConfig.f8(width=32)))
    state = beside | export(stable_diffusion.first_stage_layout(ours, OFFICIAL, stem))
    theirs = theirs_first_stage(32).eval()
    theirs.load_state_dict(converted("vae", {k: v for k, v in state.items() if k not in beside}, theirs))
    compared(Autoencoder.from_stable_diffusion(state), theirs)


@torch.no_grad()
def test_the_first_stage_at_its_published_size():
    theirs = randomise(theirs_first_stage())
    ours = Autoencoder.from_stable_diffusion(theirs.state_dict())
    assert params(ours) == params(theirs) == 83_653_863 and ours.config == AutoencoderConfig.f8()
    with torch.device("meta"):
        official = export(stable_diffusion.first_stage_layout(Autoencoder(AutoencoderConfig.f8()), OFFICIAL))
    assert shapes(converted("vae", official, theirs)) == shapes(theirs.state_dict())
    compared(ours, theirs)


# ------------------------------------------------------------------------------------------------ from noise to picture


@torch.no_grad()
def test_a_picture_from_noise_is_diffusers():
    """U-Net, guidance, DDIM and first stage together; the network counts from 0, so it is told the step before ours."""
    diffusers = pytest.importorskip("diffusers")
    theirs, stage = randomise(theirs_unet(32, context=24)), randomise(theirs_first_stage(32))
    ours, first = UNet.from_stable_diffusion(theirs.state_dict()), Autoencoder.from_stable_diffusion(stage.state_dict())
    z, words, none = numbers(2, 4, 8, 8, seed=7), numbers(2, 5, 24, seed=8), numbers(2, 5, 24, seed=9)

    def picture(told):
        network = guide(lambda x, t, context: ours(x, t - told, context), {"context": words}, {"context": none}, 7.5)
        process = ScaledLinearBeta(first=0.00085, last=0.012)
        return first.decode(SAMPLERS["ddim"](process.denoiser(network, "eps"), z, process, 4) * first.scale)

    made = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                   clip_sample=False, timestep_spacing="trailing")  # fmt: skip
    made.set_timesteps(4)
    latents = z
    for k in made.timesteps:
        told, untold = (theirs(latents, k, context).sample for context in (words, none))
        latents = made.step(untold + 7.5 * (told - untold), k, latents).prev_sample
    want = stage.decode(latents).sample
    close(picture(1 / 1000), want, 2e-4)
    assert (picture(0) - want).abs().max() > 2e-3


# ----------------------------------------------------------------------------------------------------------- the others


@pytest.mark.usefixtures("meta")
def test_every_name_and_shape_of_torchvisions_vits():
    vision = pytest.importorskip("torchvision.models")
    for name, config in {"b_16": ViTConfig.b16(), "b_32": ViTConfig.b32(), "l_16": ViTConfig.l16(),
                         "l_32": ViTConfig.l32(), "h_14": ViTConfig.h14()}.items():  # fmt: skip
        theirs = getattr(vision, f"vit_{name}")(weights=None)
        ours = ViT.from_torchvision(theirs.state_dict())
        assert ours.config == config and params(ours) == params(theirs)


@torch.no_grad()
def test_a_vit_at_its_published_size():
    theirs = randomise(pytest.importorskip("torchvision.models").vit_b_32(weights=None))
    pixels = numbers(1, 3, 224, 224, seed=10)
    close(ViT.from_torchvision(theirs.state_dict())(pixels), theirs(pixels))


def theirs_clip(name):
    clip = pytest.importorskip("open_clip.model")
    embed, image, layers, width, patch, text_width = CLIPS[name]
    vision = {"image_size": image, "layers": layers if patch else list(layers), "width": width}
    vision |= {"patch_size": patch} if patch else {}
    text = {"context_length": 77, "vocab_size": 49_408, "width": text_width, "heads": text_width // 64, "layers": 12}
    return clip.CLIP(embed, vision, text, quick_gelu=True)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.usefixtures("meta")
def test_every_name_and_shape_of_openais_clips(name):
    theirs = theirs_clip(name)
    ours = CLIP.from_openai(theirs.state_dict())
    assert ours.config == CLIPConfig.published(name) and params(ours) == params(theirs)


@torch.no_grad()
def test_a_clip_at_its_published_size():
    theirs = randomise(theirs_clip("ViT-B/32"))
    ours = CLIP.from_openai(theirs.state_dict())
    pixels, ids = numbers(2, 3, 224, 224, seed=11), torch.tensor([[49_406, 320, 49_407], [49_406, 1125, 49_407]])
    close(ours.encode_image(pixels), theirs.encode_image(pixels, normalize=True))
    close(ours.encode_text(ids), theirs.encode_text(F.pad(ids, (0, 74)), normalize=True))


@torch.no_grad()
@pytest.mark.parametrize("name", PROJECTIONS)
def test_llavas_projectors_at_their_published_sizes(name):
    """1.5's against transformers' own; LLaVA's is a matrix."""
    width, d_model, layers = PROJECTIONS[name]
    Z = numbers(2, 3, width, seed=12)
    if layers == 1:
        matrix = randomise(nn.Linear(width, d_model))
        state = {f"model.mm_projector.{key}": value.half() for key, value in matrix.state_dict().items()}
        want = Z @ state["model.mm_projector.weight"].float().T + state["model.mm_projector.bias"].float()
        return close(published_projector(state)(Z), want)
    llava = pytest.importorskip("transformers.models.llava.modeling_llava")
    configs = pytest.importorskip("transformers")
    tower = configs.CLIPVisionConfig(hidden_size=width, num_attention_heads=16)
    config = configs.LlavaConfig(vision_config=tower, text_config=configs.LlamaConfig(hidden_size=d_model))
    theirs = randomise(llava.LlavaMultiModalProjector(config))
    state = theirs.state_dict()
    close(published_projector({f"multi_modal_projector.{key}": value for key, value in state.items()})(Z), theirs(Z))
    names = {"linear_1": "0", "linear_2": "2"}
    authors = {f"model.mm_projector.{names[key.split('.')[0]]}.{key.split('.')[1]}": v for key, v in state.items()}
    close(published_projector(authors)(Z), theirs(Z))
