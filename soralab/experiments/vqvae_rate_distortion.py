"""Chapter 05's experiments: what bits buy, a VQ-VAE beside a continuous VAE, and three ways to learn a codebook.

A map of codes costs log2(K) bits a place as long as the prior is uniform, as it is while a VQ-VAE is trained (section
3.1). The continuous VAE (Kingma & Welling 2014, 1312.6114) costs KL(q(z | x) || N(0, 1)). Both are the same term of the
same bound, so both can stand on one axis.
"""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import torch
from torch import Tensor, nn

from soralab.datasets.what_and_where import Batches, frames, to_pixels
from soralab.diffusion.process import noise_like
from soralab.experiments.vqvae_scores import measure, psnr
from soralab.figures import read_log
from soralab.recipes.vqvae import BATCH, CONFIG, SEED, SIDE, TRAINING, VARIANCE, build, fit, loss
from soralab.training.profiles import by_profile
from soralab.vqvae import VQVAE, VQVAEConfig, picture_networks

CODES = (2, 8, 32, 128, 512)
KL_WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0)
ARM = replace(TRAINING, steps=1200, save_every=1200)
ARM_FRAMES, TEST = 20_000, 1000
CODEBOOKS = {  # the paper's experiments use the first, and describe the second in appendix A.1
    "gradient": replace(CONFIG, decay=0.0, revive=0.0),
    "averages": replace(CONFIG, revive=0.0),
    "averages, revived": CONFIG,
}
SMALL = " from a small start"  # each of these once more, its first codes as long as the official code's: 1, not sqrt(D)


class GaussianVAE(nn.Module):
    """The VQ-VAE's encoder and decoder with a Gaussian z between them instead of a codebook."""

    def __init__(self, config: VQVAEConfig = CONFIG):
        super().__init__()
        self.encoder = picture_networks(replace(config, dim=2 * config.dim))[0]
        self.decoder = picture_networks(config)[1]

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """x [batch, 3, h, w] to its copy, from a z that was drawn, and KL(q(z | x) || N(0, 1)) in nats, [batch]."""
        mean, logvar = self.encoder(x).float().chunk(2, dim=-1)
        logvar = logvar.clamp(-20, 10)
        z = mean + torch.exp(0.5 * logvar) * noise_like(mean, generator)
        return self.decoder(z), 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def vae_loss(weight: float):
    """Squared error in units of the variance, plus `weight` times the KL for each value of the picture."""

    def loss_of(model: GaussianVAE, batch: dict[str, Tensor], generator: torch.Generator):
        x = batch["pixels"]
        copy, divergence = model(x, generator)
        return (copy.float() - x).square().mean() / VARIANCE + weight * divergence.mean() / x[0].numel()

    return loss_of


def arm() -> tuple:
    """How an experiment's network is trained, on what, and on how many frames it is tested."""
    usual = ARM.steps, ARM_FRAMES, TEST
    steps, count, test = by_profile(smoke=(2, 64, 20), laptop=usual, gpu=usual)
    return replace(ARM, steps=steps), Batches(*frames(SEED + 1, range(count)), BATCH, SEED), test


@torch.no_grad()
def shortened(model: VQVAE) -> VQVAE:
    """The model with its first codes divided by sqrt(D): then their squares sum to about 1, as the official code's."""
    quantizer = model.quantizer
    for codes in (quantizer.codebook, *([quantizer.total] if quantizer.decay else [])):
        codes.div_(model.config.dim**0.5)
    return model


def codebook_run(folder: Path, config: VQVAEConfig, small: bool = False) -> dict:
    """One VQ-VAE, trained as an arm: its measures, and the perplexity as it was learning."""
    training, batches, test = arm()
    model = shortened(build(config)) if small else build(config)
    model, result = fit(model, loss, training, batches, folder)
    history = [round(value, 1) for value in read_log(result.log)["perplexity"].tolist()]
    return {**measure(model, "test", test, read=min(100, test)), "learning": history}


@torch.no_grad()
def vae_run(folder: Path, weight: float) -> dict[str, float]:
    """One continuous VAE, trained as an arm: the bits of its code on test frames, and PSNR."""
    training, batches, test = arm()
    torch.manual_seed(SEED)
    with torch.enable_grad():
        model, _ = fit(GaussianVAE(), vae_loss(weight), training, batches, folder)
    x = to_pixels(frames(SEED, range(test), SIDE, "test")[0])
    copy, divergence = model(x, torch.Generator().manual_seed(SEED))
    return {"bits": round(divergence.mean().item() / log(2), 1), "psnr": psnr(x, copy)}


def experiments(folder: Path) -> dict:
    """The tables of the card: {"codes": {K: ...}, "vae": {weight: ...}, "codebooks": {name: ...}}."""
    codes = {str(k): codebook_run(folder / f"codes_{k}", replace(CONFIG, codes=k)) for k in CODES}
    books = {
        name: codes[str(CONFIG.codes)] if config == CONFIG else codebook_run(folder / name.replace(", ", "_"), config)
        for name, config in CODEBOOKS.items()
    }
    for name, config in CODEBOOKS.items():
        where = folder / (name + SMALL).replace(", ", "_").replace(" ", "_")
        books[name + SMALL] = codebook_run(where, config, small=True)
    return {"codes": codes, "vae": {str(w): vae_run(folder / f"vae_{w}", w) for w in KL_WEIGHTS}, "codebooks": books}
