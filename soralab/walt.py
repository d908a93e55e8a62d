"""W.A.L.T: a causal autoencoder of films and pictures alike, and a diffusion transformer that attends in windows.

Paper: Gupta et al. 2023, "Photorealistic Video Generation with Diffusion Models" (2312.06662). Section 3.1 is the
autoencoder, 3.2 the windows, 3.3 conditioning, 3.4 autoregressive generation.

    film [b, 1 + 4k, 3, h, w]  --encode-->  latents [b, 1 + k, 16, h/4, w/4]  --one token a place-->  [b, n, 16]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import CausalConv, CausalTime, ResBlock, Space
from soralab.blocks.film_codec import FilmCodec

# ----------------------------------------------------------------------------------- the causal autoencoder (3.1)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the causal autoencoder. It makes films 4 times smaller in space and 4 times in time."""

    latent: int = 16  # channels
    width: int = 48  # channels at half resolution; twice as many at a quarter
    taps: int = 3  # frames that a kernel over time spans; 1 makes it a picture model, which `inflate` begins with


class Later(nn.Module):
    """Every frame twice, but the first once: 1 + k frames become 1 + 2k."""

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, 1 + k, height, width, dim] to [batch, 1 + 2k, height, width, dim]."""
        return x.repeat_interleave(2, dim=1)[:, 1:]


class CausalAutoencoder(FilmCodec):
    """Films to latents and back, no frame nor latent seeing what comes after it.

    The first frame is coded alone, so a picture is a film of one frame; latent j > 0 holds frames 4j - 3 to 4j, as
    frames before them let it. The norms are over the channels of one place: one over time would look ahead.
    """

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__(config.latent)
        self.config = config
        half, quarter, z = config.width, 2 * config.width, config.latent
        block = partial(ResBlock, second=partial(CausalTime, taps=config.taps))
        conv = partial(CausalConv, quarter, quarter, taps=config.taps)
        self.encoder = nn.Sequential(
            Space(12, half), block(half), Space(half, quarter, stride=2), block(quarter), conv(stride=2),
            block(quarter), conv(stride=2), block(quarter), nn.LayerNorm(quarter), nn.SiLU(), Space(quarter, 2 * z),
        )  # fmt: skip
        self.decoder_quarter = nn.Sequential(
            Space(z, quarter), block(quarter), Later(), conv(), block(quarter), Later(), conv(), block(quarter),
            block(quarter), nn.Linear(quarter, 4 * half),
        )  # fmt: skip
        self.decoder_half = nn.Sequential(block(half), block(half), nn.LayerNorm(half), nn.SiLU(), Space(half, 12))

    def posterior(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | film): mean and log variance, each [batch, 1 + k, latent, height / 4, width / 4], unscaled."""
        self.check(film)
        x = rearrange(film, "b t c (h p) (w q) -> b t h w (p q c)", p=2, q=2)
        mean, logvar = rearrange(self.encoder(x), "b t h w (two c) -> two b t c h w", two=2)
        return mean, logvar.clamp(-20, 10)

    def reconstruct(self, z: Tensor) -> Tensor:
        """p(film | z) for unscaled z [batch, 1 + k, latent, height / 4, width / 4]: its mean, as many frames as went in."""
        x = self.decoder_quarter(rearrange(z, "b t c h w -> b t h w c"))
        x = self.decoder_half(rearrange(x, "b t h w (p q c) -> b t (h p) (w q) c", p=2, q=2))
        return rearrange(x, "b t h w (p q c) -> b t c (h p) (w q)", p=2, q=2)

    def check(self, film: Tensor) -> None:
        """Raise ValueError if the film's size is not one that can be encoded."""
        t, _, h, w = film.shape[1:]
        if t % 4 != 1 or h % 4 or w % 4:
            raise ValueError(f"film is {t}x{h}x{w}; it takes 1, 5, 9, ... frames and sides that 4 divides")


def inflate(picture: CausalAutoencoder) -> CausalAutoencoder:
    """A film model that begins as the picture model, frame by frame; the picture model has kernels of one frame.

    Each kernel goes to the last slot of the film's kernel, which is the present, and nothing to the others. Latent j is
    then the picture's of frame 4j, and the four frames of a latent are one picture. Raises ValueError for a film model.
    """
    if picture.config.taps != 1:
        raise ValueError(f"picture has kernels over {picture.config.taps} frames; it takes a model with taps=1")
    film = CausalAutoencoder(replace(picture.config, taps=AutoencoderConfig.taps)).to(picture.std)
    tensors = film.state_dict()
    for name, kernel in picture.state_dict().items():
        if tensors[name].shape == kernel.shape:
            tensors[name].copy_(kernel)
        else:
            present = (..., slice(-kernel.shape[1], None)) if kernel.ndim == 2 else (..., slice(-1, None), slice(None), slice(None))
            tensors[name].zero_()[present] = kernel
    return film
