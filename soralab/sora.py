"""Sora in small: a spacetime autoencoder and a diffusion transformer on spacetime patches.

Papers: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (DiT, 2212.09748); Brooks et al. 2024, "Video
generation models as world simulators" (the Sora report). The report names the parts and gives no sizes: a video
compression network, spacetime patches, a diffusion transformer, text conditioning. The autoencoder is causal in time,
as W.A.L.T's is (2312.06662, section 4.1), so that one frame is a film of length one; but its encoder looks at every
frame by itself, and its decoder alone looks back.

    film [b, 1 + 2k, 3, h, w]  --encode-->  latents [b, 1 + k, 8, h/4, w/4]  --patchify-->  tokens [b, n, 32]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab import latent_diffusion
from soralab.blocks import (
    CausalTime,
    ResBlock,
    Space,
    TimestepEmbedding,
    grid_positions,
    patchify,
    rotary_angles,
    sincos_grid,
    unpatchify,
)  # fmt: skip
from soralab.blocks.dit import Block, initialise, read_out
from soralab.blocks.film_codec import FilmCodec
from soralab.clip import PromptEncoder
from soralab.diffusion import SAMPLERS, RectifiedFlow, guide
from soralab.diffusion.process import noise_like, seeded
from soralab.dit import SIZES
from soralab.files.checkpoints import config_of, load_model
from soralab.kernels import attention

# ------------------------------------------------------------------------------------ the video compression network


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the spacetime autoencoder. It makes films 4 times smaller in space and 2 times in time."""

    latent: int = 8  # channels; half of them are of the first and half of the second of a latent's two frames
    width: int = 64  # channels at half resolution; twice as many at a quarter


class SpacetimeAutoencoder(FilmCodec):
    """The video compression network: films to latents and back, each frame blind to what comes after it.

    A latent is the codes of two frames, one on top of the other, and each code is of its frame alone, so that what
    the transformer films is never a mixture of two moments. The decoder looks back in time.
    """

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__(config.latent)
        self.config = config
        half, quarter, z = config.width, 2 * config.width, config.latent // 2
        self.encoder = nn.Sequential(
            Space(12, half), ResBlock(half, Space), Space(half, quarter, stride=2), ResBlock(quarter, Space),
            ResBlock(quarter, Space), nn.LayerNorm(quarter), Space(quarter, 2 * z),
        )  # fmt: skip
        self.decoder_quarter = nn.Sequential(
            Space(z, quarter), ResBlock(quarter, CausalTime), ResBlock(quarter, CausalTime), Space(quarter, 4 * half)
        )
        self.decoder_half = nn.Sequential(
            ResBlock(half, CausalTime), ResBlock(half, CausalTime), nn.LayerNorm(half), nn.SiLU(), Space(half, 12)
        )

    def posterior(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | film): mean and log variance, each [batch, 1 + k, latent, height / 4, width / 4], unscaled."""
        self.check(film)
        x = rearrange(film, "b t c (h p) (w q) -> b t h w (p q c)", p=2, q=2)
        codes = self.encoder(x)
        codes = torch.cat([codes[:, :1], codes], dim=1)  # the first latent is the first frame, twice
        mean, logvar = rearrange(codes, "b (t f) h w (two c) -> two b t (f c) h w", f=2, two=2)
        return mean, logvar.clamp(-20, 10)

    def reconstruct(self, z: Tensor) -> Tensor:
        """p(film | z) for unscaled z: its mean, [batch, 1 + 2k, 3, height, width]."""
        codes = rearrange(z, "b t (f c) h w -> b (t f) h w c", f=2)[:, 1:]
        x = rearrange(self.decoder_quarter(codes), "b t h w (p q c) -> b t (h p) (w q) c", p=2, q=2)
        return rearrange(self.decoder_half(x), "b t h w (p q c) -> b t c (h p) (w q)", p=2, q=2)

    def check(self, film: Tensor) -> None:
        """Raise ValueError if the film's size is not one that can be encoded."""
        t, _, h, w = film.shape[1:]
        if t % 2 == 0 or h % 4 or w % 4:
            raise ValueError(f"film is {t}x{h}x{w}; it takes an odd number of frames and sides that 4 divides")


# --------------------------------------------------------------------------------------- the diffusion transformer


@dataclass(frozen=True)
class SoraConfig:
    """Sizes of the spacetime-patch diffusion transformer."""

    channels: int = 8  # of what it films: 8 for latents, 3 for pixels
    patch: tuple[int, int, int] = (1, 2, 2)  # (time, height, width)
    dim: int = 192
    depth: int = 6
    heads: int = 4
    vocabulary: int = 256
    words: int = 48
    size: tuple[int, int, int] = (5, 8, 8)  # (time, height, width) of what it was trained on
    rotary: bool = False  # beside DiT's sines: attention also turns queries and keys by their places

    @classmethod
    def pixels(cls, **changes) -> SoraConfig:
        """The same transformer without the autoencoder: one patch is 8 x 8 pixels of one frame."""
        return cls(**{**asdict(cls()), "channels": 3, "patch": (1, 8, 8), "size": (9, 32, 32), **changes})

    def sized(self, name: str) -> SoraConfig:
        """The same at the width, depth and heads of one of DiT's sizes: S, B, L or XL (2212.09748, table 1)."""
        return replace(self, **SIZES[name])


class Sora(nn.Module):
    """The spacetime-patch diffusion transformer: noisy latents, a time and a prompt in, a prediction out.

    Any (time, height, width) that the patch divides: positions are sines of the patch's place, not a learned table.
    """

    def __init__(self, config: SoraConfig = SoraConfig(), backend: str = "torch"):
        super().__init__()
        self.config, self.backend = config, backend  # what computes self-attention: soralab.kernels.attention
        values = config.channels * config.patch[0] * config.patch[1] * config.patch[2]
        self.embed = nn.Linear(values, config.dim)
        self.time = TimestepEmbedding(config.dim)
        self.text = PromptEncoder(config.vocabulary, config.dim, config.words)
        self.blocks = nn.ModuleList(Block(config.dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(config.dim, 2 * config.dim)
        self.head = nn.Linear(config.dim, values)
        gates = [layer for block in self.blocks for layer in (block.modulation, block.cross.to_out)]
        initialise(self, [*gates, self.modulation, self.head])

    def grid(self, size: tuple[int, int, int]) -> Tensor:
        """(time, row, column) of each patch of x with this (time, height, width): [tokens, 3], where the model is."""
        steps = tuple(s // p for s, p in zip(size, self.config.patch, strict=True))
        return grid_positions(steps, self.head.weight.device)

    def positions(self, size: tuple[int, int, int]) -> Tensor:
        """Where each patch stands: [tokens, dim], a quarter of the channels for time, the rest for height and width."""
        quarter = self.config.dim // 8 * 2
        rest = (self.config.dim - quarter) // 4 * 2
        return sincos_grid(self.grid(size), (self.config.dim - 2 * rest, rest, rest), max_period=100.0)

    def angles(self, size: tuple[int, int, int]) -> Tensor | None:
        """By how much attention turns each patch: [tokens, dim / heads / 2], a third of the pairs for each axis."""
        pairs = self.config.dim // self.config.heads // 2
        third = pairs // 3
        return rotary_angles(self.grid(size), (pairs - 2 * third, third, third), 100.0) if self.config.rotary else None

    def forward(self, x: Tensor, t: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict from x [batch, time, channel, height, width] at diffusion times t [batch] in [0, 1].

        `ids` [batch, words] are the prompt's word ids, all 0 for no prompt; `mask` [batch, 1, tokens, tokens], True =
        may attend, keeps apart what is packed into one row. Returns the shape of x.
        """
        size = (x.shape[1], *x.shape[3:])
        tokens = self.embed(patchify(x, self.config.patch))  # [b, n, dim]
        tokens = tokens + self.positions(size).to(tokens)
        angles = self.angles(size)
        ours = mask is None and self.backend != "torch"
        attend = partial(attention, backend=self.backend) if ours else None
        words, word_mask, whole = self.text(ids)
        c = F.silu(self.time(t) + whole)
        for block in self.blocks:
            tokens = block(tokens, c, words, word_mask[:, None, None], mask, angles, attend)
        return unpatchify(read_out(self, tokens, c), self.config.patch, size)


# ------------------------------------------------------------------------------------------------- prompt to film


GUIDANCE = 30  # the largest scale that is taken; far below it films are noise already


@dataclass
class Filmmaker:
    """Everything between a prompt and a film. `Filmmaker.load("sora")` gives the shipped one.

    `kind` is what the transformer predicts; without an autoencoder it films in pixels. `shift` bends the times of
    sampling (soralab.diffusion.shift_times).
    """

    sora: Sora
    autoencoder: SpacetimeAutoencoder | None
    kind: str = "v"
    shift: float = 1.0

    @classmethod
    def load(cls, name: str = "sora", device: torch.device | str = "cpu") -> Filmmaker:
        """Load and verify a shipped checkpoint, and the autoencoder that its card names. Raises CheckpointError."""
        entries = ("autoencoder", "kind", "shift")
        sora, card = load_model(name, lambda c: Sora(config_of(SoraConfig, c)), "Sora", entries)
        first, kind, shift = (card[entry] for entry in entries)
        return cls(sora.to(device), load_autoencoder(first).to(device) if first else None, kind, shift)

    @torch.no_grad()
    def film(
        self, prompts: list[str], seed: int = 0, steps: int = 20, guidance: float = 3.0,
        sampler: str = "dpm_solver_pp", size: tuple[int, int, int] | None = None, callback=None,
    ) -> Tensor:  # fmt: skip
        """Film each prompt: [prompts, frames, 3, height, width] in [-1, 1].

        Film k starts from the noise of seed + k, whatever is filmed beside it: drawn on the CPU and moved to where the
        model is, so that a seed is the same film on any device. There the films are returned. `guidance` is the scale
        of classifier-free guidance (1: none). `size` (frames, height, width) of the film; default: as trained; others
        were never learnt and mostly fail.
        `callback(step, t, x, x0)` is called after every step. Raises ValueError, before anything is computed, for an
        argument that is none of these, and for a word that is not the world's. It takes prompts as they are;
        `soralab.world.prompts.read_prompt` reads what people type.
        """
        check_film(prompts, seed, steps, guidance, sampler)
        device = self.sora.head.weight.device
        ids = word_ids(prompts, self.sora.config.words).to(device)
        frames, height, width = self.latent_size(size)
        shape = (frames, self.sora.config.channels, height, width)
        generators = seeded(seed, len(prompts))
        noise = noise_like(torch.empty(len(prompts), *shape, device=device), generators)
        process = RectifiedFlow()
        network = guide(self.sora, {"ids": ids}, {"ids": torch.zeros_like(ids)}, guidance, batched=True)
        sample = SAMPLERS[sampler]
        denoise = process.denoiser(network, self.kind)
        fresh = {"generator": generators} if sampler == "ddpm" else {}  # the only one that draws noise on its way
        x = sample(denoise, noise, process, steps, shift=self.shift, callback=callback, **fresh)
        return (self.autoencoder.decode(x) if self.autoencoder else x).clamp(-1, 1)

    def latent_size(self, size: tuple[int, int, int] | None) -> tuple[int, int, int]:
        """The (time, height, width) that the transformer sees of a film of (frames, height, width)."""
        if size is None:
            return self.sora.config.size
        if self.autoencoder is None:
            return size
        self.autoencoder.check(torch.empty(1, size[0], 3, *size[1:], device="meta"))
        return (size[0] + 1) // 2, size[1] // 4, size[2] // 4


def check_film(prompts, seed, steps, guidance, sampler) -> None:
    """Raise ValueError that names the argument of a filmmaker which is not what it takes."""
    if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(text, str) for text in prompts):
        raise ValueError(f"prompts is {prompts!r}; it takes a list of one text or more")
    for name, value, least in (("seed", seed, 0), ("steps", steps, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; it takes a whole number from {least}")
    if not isinstance(guidance, int | float) or not 0 <= guidance <= GUIDANCE:
        raise ValueError(f"guidance is {guidance!r}; it takes a number from 0 to {GUIDANCE} (1 is none, 3 is usual)")
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}; it takes one of {', '.join(SAMPLERS)}")


def load_autoencoder(name: str = "sora_autoencoder") -> SpacetimeAutoencoder:
    """The shipped spacetime autoencoder, verified. Raises CheckpointError."""
    return load_model(name, lambda c: SpacetimeAutoencoder(AutoencoderConfig(**c)), "SpacetimeAutoencoder")[0]


def word_ids(prompts: list[str], words: int) -> Tensor:
    """Chapter 06's, but [prompts, longest]: as many columns as the longest prompt of the batch has words."""
    ids = latent_diffusion.word_ids(prompts, words)
    return ids[:, : max(int((ids > 0).sum(1).max()), 1)]
