"""Latent diffusion: an autoencoder throws away what the eye does not miss, and diffusion happens in what is left.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (LDM, 2112.10752). This file
is sections 3.2 and 3.3; section 3.1, the autoencoder, is `soralab.blocks.first_stage`. With an encoder E that makes
pictures x smaller by f, z = E(x), and an encoder tau of a condition y:

    L_DM  = E_{x, eps, t} |eps - eps_theta(x_t, t)|^2               (1)  diffusion on pixels
    L_LDM = E_{E(x), eps, t} |eps - eps_theta(z_t, t)|^2            (2)  the same on latents
    L_LDM = E_{E(x), y, eps, t} |eps - eps_theta(z_t, t, tau(y))|^2 (3)  and conditioned by cross-attention

    picture [b, 3, h, w]  --encode-->  latents z [b, c, h/f, w/f]  --eps_theta-->  latents  --decode-->  picture

The noise process, the loss of (1) to (3), the samplers and guidance are soralab.diffusion's; a first stage regularised
by vector quantisation has chapter 05's codebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import SpatialAttention, SpatialTransformer, TimestepEmbedding, Upsample, stable_diffusion
from soralab.blocks.convolution import ResBlock
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.clip import PromptEncoder
from soralab.diffusion import SAMPLERS, Process, ScaledLinearBeta, guide
from soralab.files.checkpoints import config_of, load_model
from soralab.vqvae import VectorQuantizer
from soralab.world.language import PROMPT_WORDS, encode

PROCESS = ScaledLinearBeta()

# ------------------------------------------------------------------------------------- the first stage, section 3.1


class Codebook(VectorQuantizer):
    """Chapter 05's codebook as the first layer of a decoder: what it takes and gives has the channels second."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z [batch, c, h, w] to (the nearest codes, of z's shape and gradient; the loss; which codes [batch, h, w])."""
        quantised = super().forward(rearrange(z, "b c h w -> b h w c"))
        return rearrange(quantised.z_q, "b h w c -> b c h w"), quantised.loss, quantised.indices


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """A fresh first stage: with vector quantisation if `config.codes`, else with the KL term.

    The codebook learns by moving averages, and codes that nobody uses are placed anew (chapter 05)."""
    codebook = Codebook(config.codes, config.latent, decay=0.99, revive=0.5) if config.codes else None
    return Autoencoder(config, codebook)


# ------------------------------------------------------------------ the denoising U-Net, sections 3.2 and 3.3


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the denoising U-Net; the defaults are the course's small one, the named ones are published."""

    channels: int = 4  # of its input: those of z, and of what is concatenated to it
    out: int = 4
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)  # of the width, one a level; each level after the first halves the sides
    blocks: int = 2  # residual blocks a level on the way down; one more on the way up
    attention: tuple[int, ...] = (0, 1)  # levels that attend, 0 the finest; between down and up there always is one
    heads: int = 4
    head_dim: int = 0  # above 0: heads of this width instead, as many as fit
    context: int | None = 64  # width of tau(y); None: no condition, the places attend to one another alone
    groups: int = 32

    def __post_init__(self) -> None:
        if self.width % self.groups:
            raise ValueError(f"width is {self.width}; it takes a multiple of groups, which is {self.groups}")

    @property
    def stride(self) -> int:
        """What the sides of its input must be multiples of."""
        return 2 ** (len(self.multipliers) - 1)

    @classmethod
    def ldm4(cls, **changes) -> UNetConfig:
        """Unconditional LDM-4 of CelebA-HQ, FFHQ and LSUN-Bedrooms. `changes` are fields of the config."""
        return cls(**{"channels": 3, "out": 3, "width": 224, "multipliers": (1, 2, 3, 4), "attention": (1, 2, 3),
                      "head_dim": 32, "context": None, **changes})  # fmt: skip

    @classmethod
    def imagenet(cls, **changes) -> UNetConfig:
        """Class-conditional LDM-4 of ImageNet (cin256-v2)."""
        return cls.ldm4(**{"width": 192, "multipliers": (1, 2, 3, 5), "heads": 1, "head_dim": 0, "context": 512,
                           **changes})  # fmt: skip

    @classmethod
    def text(cls, **changes) -> UNetConfig:
        """Text-to-image LDM-8 (the U-Net of the 1.45 billion)."""
        return cls(**{"width": 320, "multipliers": (1, 2, 4, 4), "attention": (0, 1, 2), "heads": 8, "context": 1280,
                      **changes})  # fmt: skip

    @classmethod
    def stable_diffusion(cls, **changes) -> UNetConfig:
        """Stable Diffusion 1's: that of `text`, reading CLIP's words."""
        return cls.text(**{"context": 768, **changes})


After = Callable[[nn.Module, Tensor], Tensor]  # (a layer, what it gave) -> what the next one gets


class Layers(nn.ModuleList):
    """Layers in a row, each given what it reads: the time, the condition, or neither."""

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor | None, mask: Tensor | None, after: After | None = None
    ) -> Tensor:
        """x [batch, channel, height, width], time [batch, 4 width], context, mask and after as for the U-Net."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, time)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, mask)
            else:
                x = layer(x)
            x = x if after is None else after(layer, x)
        return x


class UNet(nn.Module):
    """eps_theta: noisy latents, a time and a condition in, the noise out.

    The layers are numbered as in the official code: `down` and `up` have one entry for each skip connection."""

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__()
        self.config = config
        dims, time = [config.width * m for m in config.multipliers], 4 * config.width
        self.time = TimestepEmbedding(time, frequencies=config.width)

        def attend(dim: int) -> nn.Module:
            heads = dim // config.head_dim if config.head_dim else config.heads
            if config.context is None:
                return SpatialAttention(dim, heads, config.groups)
            return SpatialTransformer(dim, heads, config.context, config.groups)

        def block(a: int, level: int) -> list[nn.Module]:
            attends = [attend(dims[level])] if level in config.attention else []
            return [ResBlock(a, dims[level], time, config.groups), *attends]

        self.down = nn.ModuleList([Layers([nn.Conv2d(config.channels, dims[0], 3, padding=1)])])
        skips, dim = [dims[0]], dims[0]
        for level in range(len(dims)):
            for _ in range(config.blocks):
                self.down.append(Layers(block(dim, level)))
                dim = dims[level]
                skips.append(dim)
            if level < len(dims) - 1:
                self.down.append(Layers([nn.Conv2d(dim, dim, 3, stride=2, padding=1)]))
                skips.append(dim)
        res = [ResBlock(dim, dim, time, config.groups) for _ in range(2)]
        self.middle = Layers([res[0], attend(dim), res[1]])
        self.up = nn.ModuleList()
        for level in range(len(dims) - 1, -1, -1):
            for k in range(config.blocks + 1):
                layers = block(dim + skips.pop(), level)
                dim = dims[level]
                self.up.append(Layers(layers + ([Upsample(dim)] if level and k == config.blocks else [])))
        self.head = nn.Sequential(nn.GroupNorm(config.groups, dim), nn.SiLU(), nn.Conv2d(dim, config.out, 3, padding=1))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(
        self, z: Tensor, t: Tensor, context: Tensor | None = None, mask: Tensor | None = None,
        concat: Tensor | None = None, after: After | None = None, told: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict from z [batch, c, height, width] at diffusion times t [batch] in [0, 1]: [batch, out, height, width].

        context [batch, keys, context] is read by cross-attention, where mask [batch, keys] is True. concat [batch, rest
        of the channels, height, width] is a condition that lies place by place over z: a mask and the known part
        for inpainting, a small picture for super-resolution. after: what is laid behind every layer, where later
        chapters put theirs for films. told [batch, 4 width] is added to the embedded time. ValueError for a misfit."""
        if concat is not None and concat.shape[:1] + concat.shape[2:] != z.shape[:1] + z.shape[2:]:
            raise ValueError(f"concat is {list(concat.shape)}; it takes z's {list(z.shape)} but for the channels")
        z = z if concat is None else torch.cat([z, concat], dim=1)
        self.check(z, t, context)
        time, kept = self.time(t) if told is None else self.time(t) + told, []
        for layers in self.down:
            z = layers(z, time, context, mask, after)
            kept.append(z)
        z = self.middle(z, time, context, mask, after)
        for layers in self.up:
            z = layers(torch.cat([z, kept.pop()], dim=1), time, context, mask, after)
        return self.head(z)

    def layers(self) -> Iterator[tuple[str, nn.Module, int, int]]:
        """Its residual blocks and attention, in order: (name, layer, channels, how often the sides were halved)."""
        level = 0
        rows = [*((f"down_{k}", row) for k, row in enumerate(self.down)), ("middle", self.middle),
                *((f"up_{k}", row) for k, row in enumerate(self.up))]  # fmt: skip
        for place, row in rows:
            for k, layer in enumerate(row):
                if isinstance(layer, ResBlock):
                    yield f"{place}_{k}", layer, layer.conv2.out_channels, level
                elif isinstance(layer, SpatialTransformer | SpatialAttention):
                    yield f"{place}_{k}", layer, layer.norm.num_channels, level
                elif isinstance(layer, Upsample):
                    level -= 1
                elif isinstance(layer, nn.Conv2d) and layer.stride[0] > 1:
                    level += 1

    def check(self, z: Tensor, t: Tensor, context: Tensor | None) -> None:
        """Raise ValueError if z, with what is concatenated to it, t or context is not what this network takes."""
        c = self.config
        if z.ndim != 4 or z.shape[1] != c.channels:
            raise ValueError(f"z with concat is {list(z.shape)}; it takes [batch, {c.channels}, height, width]")
        for name, side in zip(("height", "width"), z.shape[2:], strict=True):
            if side % c.stride or not side:
                raise ValueError(f"the {name} of z is {side}; it takes a multiple of {c.stride}")
        if (context is None) != (c.context is None):
            raise ValueError(f"context is {'missing' if context is None else 'given'}; this network takes "
                             + ("none" if c.context is None else f"[batch, keys, {c.context}]"))  # fmt: skip
        if context is not None and (context.ndim != 3 or len(context) != len(z) or context.shape[-1] != c.context):
            raise ValueError(f"context is {list(context.shape)}; it takes [{len(z)}, keys, {c.context}]")
        if t.shape != z.shape[:1]:
            raise ValueError(f"t is {list(t.shape)}; it takes a time for each of z, [{len(z)}]")

    @classmethod
    def from_stable_diffusion(cls, state: Mapping[str, Tensor]) -> UNet:
        """Stable Diffusion's, of version 1 or 2, in eval mode: its weights in the official names or diffusers'.

        It counts times from 0: where a process has t it is told t - 1 / 1000. Raises ValueError for what does not fit.
        """
        model = cls(UNetConfig.stable_diffusion(**stable_diffusion.unet_sizes(state)))
        return stable_diffusion.fill_unet(model, state).eval()


# --------------------------------------------------------------------------------------------- prompt to picture


@dataclass(frozen=True)
class LatentDiffusionConfig:
    """Sizes of a U-Net and of the encoder tau of its prompts, which is as wide as `unet.context`."""

    unet: UNetConfig = UNetConfig()
    vocabulary: int = 256
    words: int = 24  # of a prompt, at most
    depth: int = 2  # layers of tau


class LatentDiffusion(nn.Module):
    """eps_theta(z_t, t, tau(y)) of Eq. (3): a U-Net and the encoder of its prompts, trained together."""

    def __init__(self, config: LatentDiffusionConfig = LatentDiffusionConfig()):
        super().__init__()
        self.config = config
        self.text = PromptEncoder(config.vocabulary, config.unet.context, config.words, config.depth)
        self.unet = UNet(config.unet)

    def forward(self, z: Tensor, t: Tensor, ids: Tensor, concat: Tensor | None = None) -> Tensor:
        """z [batch, c, height, width], t [batch], ids [batch, words], all 0 for no prompt; concat as in `UNet`."""
        words, mask, _ = self.text(ids)
        return self.unet(z, t, words, mask, concat=concat)


@dataclass
class Painter:
    """Everything between a prompt and a picture. `Painter.load("latent_diffusion")` gives the shipped one.

    Without an autoencoder it paints in pixels, as Eq. (1) does."""

    model: LatentDiffusion
    autoencoder: Autoencoder | None
    side: int = 32  # of the pictures that it was trained on, pixels
    process: Process = PROCESS

    @classmethod
    def load(cls, name: str = "latent_diffusion", device: torch.device | str = "cpu") -> Painter:
        """Load and verify a shipped checkpoint, and the autoencoder that its card names. Raises CheckpointError."""
        model, card = load_model(name, lambda c: LatentDiffusion(config_of(LatentDiffusionConfig, c)),
                                 "LatentDiffusion")  # fmt: skip
        first = card.get("autoencoder")
        return cls(model.to(device), load_autoencoder(first).to(device) if first else None)

    @property
    def f(self) -> int:
        """Pixels on a side of one latent."""
        return self.autoencoder.config.f if self.autoencoder else 1

    @torch.no_grad()
    def paint(
        self, prompts: list[str], seed: int = 0, steps: int = 50, guidance: float = 3.0, sampler: str = "ddim",
        size: tuple[int, int] | None = None, **options,
    ) -> Tensor:  # fmt: skip
        """Paint each prompt ("" is none): [prompts, channels, height, width] in [-1, 1].

        Picture k starts from the noise of seed + k, whatever is painted beside it; what a sampler draws on its way
        comes from `seed`. Both are drawn on the CPU, so a seed is the same picture on any device; the pictures are
        where the model is. guidance: the scale of classifier-free guidance, from 0 (1: the prompt alone). size:
        (height, width), by default as trained. options: the sampler's own, such as eta of "ddim". Raises ValueError for
        a prompt that cannot be read, and for a number that is out of range."""
        ids = word_ids(prompts, self.model.config.words).to(self.model.text.positional_embedding.device)
        network = guide(self.model, {"ids": ids}, {"ids": torch.zeros_like(ids)}, check_scale(guidance), batched=True)
        options.setdefault("generator", torch.Generator().manual_seed(seed))
        z = self.sample(network, noise(seed, len(prompts), self.shape(size)), steps, sampler, **options)
        return (self.autoencoder.decode(z) if self.autoencoder else z).clamp(-1, 1)

    def sample(self, network, z: Tensor, steps: int, sampler: str = "ddim", **options) -> Tensor:
        """From noise z [batch, c, height, width] to latents, by a network that predicts the noise."""
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler is {sampler!r}; it takes one of {', '.join(SAMPLERS)}")
        if not 1 <= steps <= 1000:
            raise ValueError(f"steps is {steps}; it takes a whole number from 1 to 1000, as many as there are times")
        z = z.to(next(self.model.parameters()).device)
        return SAMPLERS[sampler](self.process.denoiser(network, "eps"), z, self.process, steps, **options)

    def shape(self, size: tuple[int, int] | None) -> tuple[int, int, int]:
        """The (channels, height, width) that the U-Net sees of a picture of (height, width) pixels."""
        step = self.f * self.model.config.unet.stride
        for name, side in zip(("height", "width"), size or (self.side, self.side), strict=True):
            if side < step or side % step:
                near = f"{side // step * step} or {(side // step + 1) * step}" if side > step else f"{step}"
                raise ValueError(f"the {name} is {side}; it takes a multiple of {step}: {near}")
        height, width = size or (self.side, self.side)
        return self.model.config.unet.out, height // self.f, width // self.f


def noise(seed: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """Gaussian noise [count, *shape]; row k depends on seed + k alone."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed + k)) for k in range(count)])


def check_scale(guidance: float) -> float:
    """The scale of guidance, if it is a finite number from 0. Raises ValueError."""
    if not 0 <= guidance < float("inf"):
        raise ValueError(f"guidance is {guidance}; it takes a number from 0 (1: none)")
    return guidance


def word_ids(prompts: Sequence[str], words: int) -> Tensor:
    """Prompts to ids [prompts, words], 0 for padding; "" is none. ValueError: an unknown word, no list, none in it."""
    if isinstance(prompts, str):
        raise ValueError(f"prompts is the text {prompts!r}; it takes a list of texts")
    if not prompts:
        raise ValueError("prompts is empty; it takes one or more")
    return torch.tensor([encode(text, words, PROMPT_WORDS) if text else [0] * words for text in prompts])


def load_autoencoder(name: str = "latent_autoencoder") -> Autoencoder:
    """The shipped first stage, verified. Raises CheckpointError."""
    return load_model(name, lambda c: build_autoencoder(config_of(AutoencoderConfig, c)), "Autoencoder")[0]
