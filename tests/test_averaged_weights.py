"""What a recipe hands on are the averaged weights of its training, not those of the last step."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_models import numbers

from soralab.clip import CLIP, CLIPConfig
from soralab.latent_diffusion import LatentDiffusion
from soralab.navit import NaViT
from soralab.recipes import (
    clip,
    latent_diffusion,
    llava,
    navit,
    recaptioning,
    sora_autoencoder,
    tune_a_video,
    unet,
    vit,
    vivit,
    vqvae,
    walt_autoencoder,
)
from soralab.training import loop
from soralab.training.ema import EMA
from soralab.unet import UNetConfig
from soralab.vit import ViT

SMALL = CLIPConfig(layers=(1, 1), width=16, text_width=16, text_layers=1, vocabulary=20)
LATENT = replace(latent_diffusion.CONFIG, unet=replace(latent_diffusion.CONFIG.unet, width=16))


def first_stage(folder):
    batches = latent_diffusion.PictureBatches(numbers(4, 3, 32, 32))
    training = latent_diffusion.FIRST_TRAINING
    return latent_diffusion.fit_first_stage(latent_diffusion.AUTOENCODER, training, batches, folder, None)[0]


def painter(folder):
    model = LatentDiffusion(LATENT)
    recaptioning.fit_painter(model, recaptioning.PAINTER_TRAINING, None, folder)
    return model


def captioner(folder):
    model = recaptioning.fresh(clip=CLIP(SMALL))
    recaptioning.fit(model, recaptioning.loss, recaptioning.TRAINING, None, folder)
    return model


def tuned(folder):
    start, z = SimpleNamespace(model=LatentDiffusion(LATENT)), numbers(3, 4, 8, 8)
    return tune_a_video.fit(start, z, "a red circle", tune_a_video.TUNING, folder)[0]


FITS = {  # each trains in a folder, and gives back the model that is shipped, or shown
    "unet": lambda folder: unet.fit(UNetConfig.small(), unet.CONFIG, None, folder)[0],
    "vit": lambda folder: vit.fit(partial(ViT, vit.CONFIG), vit.TRAINING, None, folder)[0],
    "clip": lambda folder: clip.fit(partial(CLIP, SMALL), clip.TRAINING, None, folder)[0],
    "vqvae": lambda folder: vqvae.fit(vqvae.build(vqvae.PRIOR), vqvae.prior_loss, vqvae.TRAINING, None, folder)[0],
    "latent_diffusion, the first stage": first_stage,
    "latent_diffusion, the second stage": lambda folder: latent_diffusion.fit_second_stage(
        LATENT, latent_diffusion.TRAINING, None, folder)[0],
    "navit": lambda folder: navit.fit(partial(NaViT, navit.CONFIG), navit.TRAINING, None, folder)[0],
    "vivit": lambda folder: vivit.fit(
        partial(vivit.begun, vivit.READERS["model 4"]), vivit.TRAINING, folder, batches=len)[0],
    "llava": lambda folder: llava.fit(llava.fresh(llava.SHORT_CONFIG), llava.STAGE_2, None, folder)[0],
    "tune_a_video": tuned,
    "walt_autoencoder": lambda folder: walt_autoencoder.train().model,
    "sora_autoencoder": lambda folder: sora_autoencoder.train().model,
    "recaptioning, the captioners": captioner,
    "recaptioning, the painter": painter,
}  # fmt: skip


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Trainings are played: the average lies a little beside the last weights. What each weight is to be, by its id,
    and under "batches" what each training was to learn from."""
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.chdir(tmp_path)
    found = {"batches": []}

    def train(model, loss_fn, batch_fn, config, folder, **options):
        ema = EMA(model)
        ema.shadow = {key: value + 0.01 for key, value in ema.shadow.items()}
        found.update({id(p): ema.shadow[key] for key, p in model.named_parameters() if key in ema.shadow})
        found["batches"].append(batch_fn)
        return loop.TrainResult(2, 0.0, 0.0, 0.0, ema, tmp_path / "log.jsonl", tmp_path / "state.safetensors")

    monkeypatch.setattr(loop, "train", train)
    return found


@pytest.mark.parametrize("name", FITS)
def test_what_is_handed_on_is_the_average(name, tmp_path, played):
    model = FITS[name](tmp_path)
    found = [(p, played[id(p)]) for p in model.parameters() if p.requires_grad]
    assert found and all(torch.equal(p, expected) for p, expected in found)
    assert not model.training


def test_the_card_tells_the_batch_that_was_trained(played, monkeypatch):
    """As it is under the profile, which may be more or less than the laptop's."""
    assert walt_autoencoder.train().card["batch"] == len(played["batches"].pop()(0)) == 4
    monkeypatch.setattr(llava, "larger", lambda size, times: 7 * size)
    assert llava.train().card["batch"] == {batches.batch for batches in played["batches"]}.pop() == 7 * llava.BATCH
