"""Latent diffusion's first stage: an autoencoder that throws away what the eye does not miss (2112.10752, section 3.1).

The network and its training are VQGAN's (Esser et al. 2021, 2012.09841); regularised by a weak KL term, or by vector
quantisation. Chapter 06 builds on it. Pictures are [batch, channel, height, width] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.blocks import stable_diffusion
from soralab.blocks.convolution import ResBlock, SpatialAttention, Upsample
from soralab.blocks.perception import Features, adaptive_weight, frozen, hinge_loss, perceptual_distance

START_LOGVAR = -6.0  # of q(z | x) before training: with torch's own start, about 0, the first copies are of noise


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the first stage; the defaults are the course's small one, the named ones are published."""

    channels: int = 3
    latent: int = 4  # c, channels of z
    width: int = 16  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 4)  # of the width, one a level; each level after the first halves the sides
    blocks: int = 1  # residual blocks a level in the encoder; the decoder has one more
    groups: int = 8  # of the norms
    codes: int = 0  # of the codebook of vector quantisation; 0: a KL term instead

    def __post_init__(self) -> None:
        if self.width % self.groups:
            raise ValueError(f"width is {self.width}; it takes a multiple of groups, which is {self.groups}")

    @property
    def f(self) -> int:
        """How many times smaller z is than the picture, on each side."""
        return 2 ** (len(self.multipliers) - 1)

    @classmethod
    def f4(cls, **changes) -> AutoencoderConfig:
        """The published one with f = 4 (kl-f4). `changes` are fields of the config, here and below."""
        return cls(**{"latent": 3, "width": 128, "blocks": 2, "groups": 32, **changes})

    @classmethod
    def f8(cls, **changes) -> AutoencoderConfig:
        """The published one with f = 8 (kl-f8), which is Stable Diffusion's too."""
        return cls.f4(**{"latent": 4, "multipliers": (1, 2, 4, 4), **changes})


class Halve(nn.Conv2d):
    """A 3 x 3 convolution in steps of 2, padded on the right and at the bottom alone, as the official code does."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, dim, height, width] to half its sides."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Autoencoder(nn.Module):
    """Pictures to latents and back, with one of the paper's two regularisations.

    KL (no `quantiser`): the encoder gives a mean and a variance, pulled weakly towards N(0, 1). VQ: `quantiser`, a
    module with forward(z [b, c, h, w]) -> (z_q, loss, ids), is the decoder's first layer; latents are what it gets.
    `encode` scales its latents to deviation 1 by one number for all channels (`fit_scale` measures it, after training).
    """

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig(), quantiser: nn.Module | None = None):
        super().__init__()
        if config.codes and quantiser is None:
            raise ValueError(f"quantiser is missing; with {config.codes} codes it takes a codebook")
        self.config, self.quantiser = config, quantiser
        dims, c = [config.width * m for m in config.multipliers], config.latent
        out = c if quantiser else 2 * c

        def block(a: int, b: int) -> ResBlock:
            return ResBlock(a, b, groups=config.groups, eps=1e-6)

        def middle(dim: int) -> list[nn.Module]:
            return [block(dim, dim), SpatialAttention(dim, groups=config.groups, eps=1e-6), block(dim, dim)]

        def head(dim: int, to: int) -> list[nn.Module]:
            return [nn.GroupNorm(config.groups, dim, 1e-6), nn.SiLU(), nn.Conv2d(dim, to, 3, padding=1)]

        down: list[nn.Module] = [nn.Conv2d(config.channels, dims[0], 3, padding=1)]
        for level, dim in enumerate(dims):
            before = dims[max(level - 1, 0)]
            down += [Halve(before)] if level else []
            down += [block(before if k == 0 else dim, dim) for k in range(config.blocks)]
        self.encoder = nn.Sequential(*down, *middle(dims[-1]), *head(dims[-1], out), nn.Conv2d(out, out, 1))
        nn.init.constant_(self.encoder[-1].bias[c:], START_LOGVAR)
        up: list[nn.Module] = [nn.Conv2d(c, c, 1), nn.Conv2d(c, dims[-1], 3, padding=1), *middle(dims[-1])]
        for level in range(len(dims) - 1, -1, -1):
            before = dims[min(level + 1, len(dims) - 1)]
            up += [block(before if k == 0 else dims[level], dims[level]) for k in range(config.blocks + 1)]
            up += [Upsample(dims[level])] if level else []
        self.decoder = nn.Sequential(*up, *head(dims[0], config.channels))
        self.register_buffer("scale", torch.ones(()))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | x): mean and log variance, each [batch, c, height / f, width / f], unscaled. With VQ: z, and no noise.

        Raises ValueError for sides that f does not divide; the message names those next to them that it does.
        """
        c, f = self.config, self.config.f
        if x.ndim != 4 or x.shape[1] != c.channels:
            raise ValueError(f"x is {list(x.shape)}; it takes [batch, {c.channels}, height, width]")
        for name, side in zip(("height", "width"), x.shape[2:], strict=True):
            if side % f or not side:
                near = f"{side // f * f} or {(side // f + 1) * f}" if side > f else f"{f}"
                raise ValueError(f"the {name} of x is {side}; it takes a multiple of f, which is {f}: {near}")
        out = self.encoder(x)
        if self.quantiser is not None:
            return out, torch.full_like(out, -torch.inf)
        mean, logvar = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=1)  # a sum of squares is next
        return mean, logvar.clamp(-30, 20)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures [batch, channels, height, width] to latents [batch, c, height / f, width / f], of deviation 1.

        With a generator, samples of q(z | x), which is what the paper trains on; without, its mean.
        """
        mean, logvar = self.posterior(x)
        return (mean if generator is None else draw(mean, logvar, generator)).mul(self.scale).to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`, into about [-1, 1]."""
        return self.reconstruct(z / self.scale)[0]

    def reconstruct(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Unscaled z to (pictures, the quantiser's loss, 0 without one)."""
        z, loss = (z, z.new_zeros(())) if self.quantiser is None else self.quantiser(z)[:2]
        return self.decoder(z), loss

    @classmethod
    def from_stable_diffusion(cls, state: Mapping[str, Tensor], scale: float = 0.18215) -> Autoencoder:
        """Stable Diffusion's, in eval mode: its weights in the official names (a whole checkpoint too) or diffusers'.

        scale: what `encode` multiplies by, which no weight tells; Stable Diffusion's by default. Raises ValueError for
        weights that are missing, too many, or of another shape, by name.
        """
        model = cls(AutoencoderConfig.f8(**stable_diffusion.first_stage_sizes(state)))
        model.scale.fill_(scale)
        return stable_diffusion.fill_first_stage(model, state).eval()

    @torch.no_grad()
    def fit_scale(self, x: Tensor) -> None:
        """Set the scale factor from a batch of pictures: 1 / deviation of all their latents (appendix G)."""
        mean, logvar = self.posterior(x)
        self.scale.copy_(1 / (mean.var(correction=0) + logvar.exp().mean()).sqrt())


def draw(mean: Tensor, logvar: Tensor, generator: torch.Generator | None) -> Tensor:
    """A sample of N(mean, exp(logvar)), each [batch, c, h, w]; the generator may be of another device."""
    source = mean.device if generator is None else generator.device
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=source)
    return mean + torch.exp(0.5 * logvar) * noise.to(mean.device)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each picture, summed over its latents: [batch]."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def misfit(error: Tensor) -> Tensor:
    """How far a copy is from its picture, from their difference: the mean square and a tenth of the mean absolute.

    VQGAN's paper writes the square (2012.09841, its L_VQ), its code takes the absolute error. On small things before a
    plain ground the latter alone is content with the ground, the median of the picture; alone, the square blurs edges.
    """
    return error.square().mean() + 0.1 * error.abs().mean()


def first_stage_loss(
    model: Autoencoder, discriminator: nn.Module, features: Features | None, x: Tensor, generator: torch.Generator,
    adversary: bool = True, kl: float = 1e-6, perceptual: float = 1.0, strength: float = 0.5,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Section 3.1 and appendix G: what autoencoder and discriminator minimise, each by its own weights alone.

        misfit(x - x') + perceptual LPIPS(x, x') + regulariser + strength lambda L_adv      autoencoder
        hinge loss of D(x) and D(x')                                                        discriminator

    x [batch, channels, height, width]. Means, where the official code sums: so `kl` times the sum over a picture's
    latents is divided by its number of pixel values. features None: no LPIPS. adversary False: no discriminator, as
    in the first steps of a training. Returns (loss, {"misfit", "perceptual", "regulariser", "lambda"}).
    """
    mean, logvar = model.posterior(x)
    copy, regulariser = model.reconstruct(mean if model.quantiser else draw(mean, logvar, generator))
    if model.quantiser is None:
        regulariser = kl * kl_divergence(mean, logvar).mean() / x[0].numel()
    missed, seen = misfit(x - copy), x.new_zeros(())
    if features is not None:
        seen = perceptual * perceptual_distance(features, x, copy).mean()
    loss, weight = missed + seen + regulariser, x.new_zeros(())
    if adversary:
        cheated = -frozen(discriminator)(copy).mean()
        weight = adaptive_weight(missed + seen, cheated, model.decoder[-1].weight)
        loss = loss + strength * weight * cheated + hinge_loss(discriminator(x), discriminator(copy.detach()))
    logged = {"misfit": missed, "perceptual": seen, "regulariser": regulariser, "lambda": weight}
    return loss, {name: value.item() for name, value in logged.items()}
