"""What the film autoencoders of two chapters share: latents of mean 0 and deviation 1, and the loss they train with."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks.first_stage import draw, kl_divergence, misfit
from soralab.files.checkpoints import held_paths, read_card


class FilmCodec(nn.Module):
    """An autoencoder of films whose latents are scaled, channel by channel, to mean 0 and deviation 1.

    A subclass has `posterior(film)`: the mean and log variance of q(z | film), and `reconstruct(z)`: the film again,
    both of unscaled z [batch, time, latent, height, width]. `fit_scale` measures the scale once, after training.
    """

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("std", torch.ones(latent))

    def encode(self, film: Tensor) -> Tensor:
        """Film [batch, frames, 3, height, width] to the mean of its latents, scaled."""
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        return (self.posterior(film)[0] - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`, into about [-1, 1]."""
        return self.reconstruct(latents * self.std[:, None, None] + self.mean[:, None, None])

    @torch.no_grad()
    def fit_scale(self, film: Tensor) -> None:
        """Set the scale of the latents from a batch of films [batch, time, 3, height, width]."""
        z = rearrange(self.posterior(film)[0].float(), "b t c h w -> c (b t h w)")
        self.mean.copy_(z.mean(1))
        self.std.copy_(z.std(1).clamp(min=1e-6))  # one that never changes has 0: all NaN


def autoencoder_loss(model: FilmCodec, film: Tensor, generator: torch.Generator, kl: float = 1e-4):
    """Chapter 06's misfit plus `kl` times KL(q(z | film) || N(0, 1)), per value (1312.6114, Eq. 10).

    Neither perceptual nor adversarial: at 32 x 32, of flat colours, there is no texture for these to save.
    Returns (loss, {"psnr", "kl"}).
    """
    mean, logvar = model.posterior(film)
    error = model.reconstruct(draw(mean, logvar, generator)).float() - film
    divergence = kl_divergence(mean.float(), logvar.float()).mean() / mean[0].numel()
    psnr = 10 * torch.log10(4 / error.detach().square().mean())
    return misfit(error) + kl * divergence, {"psnr": psnr.item(), "kl": divergence.item()}


def decoded_by(decoder: str, first: str) -> str:
    """The checkpoint that shows a transformer's films: `decoder` where it is held and, by its card, was trained on from
    the autoencoder `first`; else `first`. Raises CheckpointError where a card is missing or damaged."""
    own = read_card(first)["sha256"]
    there = any(path.exists() for path in held_paths(decoder)) and read_card(decoder).get("autoencoder_sha256") == own
    return decoder if there else first
