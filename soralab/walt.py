"""W.A.L.T: a causal autoencoder of films and pictures alike, and a diffusion transformer that attends in windows.

Paper: Gupta et al. 2023, "Photorealistic Video Generation with Diffusion Models" (2312.06662). Section 4.1 is the
autoencoder, 4.2 the windows, 4.3 conditioning, 4.4 autoregressive generation.

    film [b, 1 + 4k, 3, h, w]  --encode-->  latents [b, 1 + k, 16, h/4, w/4]  --one token a place-->  [b, n, 16]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import (
    CausalTime,
    ResBlock,
    Space,
    TimestepEmbedding,
    grid_positions,
    patchify,
    rotary_angles,
    unpatchify,
)  # fmt: skip
from soralab.blocks.dit import Block, initialise, read_out
from soralab.blocks.film_codec import FilmCodec
from soralab.clip import PromptEncoder
from soralab.diffusion import LinearBeta, ddim, diffusion_loss, guide, sample_times
from soralab.diffusion.process import noise_like
from soralab.files.checkpoints import load_model
from soralab.kernels import attention, windows
from soralab.latent_diffusion import check_scale, word_ids

# ----------------------------------------------------------------------------------- the causal autoencoder (4.1)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the causal autoencoder. It makes films 4 times smaller in space and 4 times in time."""

    latent: int = 16  # channels
    width: int = 64  # channels at half resolution; twice as many at a quarter
    taps: int = 3  # frames that a kernel over time spans; 1 makes it a picture model, which `inflate` begins with


class Later(nn.Module):
    """Every frame twice, but the first once: 1 + k frames become 1 + 2k."""

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, 1 + k, height, width, dim] to [batch, 1 + 2k, height, width, dim]."""
        return x.repeat_interleave(2, dim=1)[:, 1:]


class CausalAutoencoder(FilmCodec):
    """Films to latents and back, no frame nor latent seeing what comes after it.

    The first frame is coded alone, so a picture is a film of one frame; latent j > 0 holds frames 4j - 3 to 4j, as
    frames before them let it. The norms are over the channels of one place: one over time would look ahead. The paper's
    kernels span space and time at once; here they take turns.
    """

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__(config.latent)
        self.config = config
        half, quarter, z = config.width, 2 * config.width, config.latent
        block = partial(ResBlock, second=partial(CausalTime, taps=config.taps))
        over_time = partial(CausalTime, quarter, quarter, taps=config.taps)
        self.encoder = nn.Sequential(
            Space(12, half), block(half), Space(half, quarter, stride=2), block(quarter), over_time(stride=2),
            block(quarter), over_time(stride=2), block(quarter),
            nn.LayerNorm(quarter), nn.SiLU(), Space(quarter, 2 * z),
        )  # fmt: skip
        self.decoder_quarter = nn.Sequential(
            Space(z, quarter), block(quarter), Later(), over_time(), block(quarter), Later(), over_time(),
            block(quarter), block(quarter), nn.Linear(quarter, 4 * half),
        )  # fmt: skip
        self.decoder_half = nn.Sequential(block(half), block(half), nn.LayerNorm(half), nn.SiLU(), Space(half, 12))

    def posterior(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | film): mean and log variance, each [batch, 1 + k, latent, height / 4, width / 4], unscaled."""
        self.check(film)
        x = rearrange(film, "b t c (h p) (w q) -> b t h w (p q c)", p=2, q=2)
        mean, logvar = rearrange(self.encoder(x), "b t h w (two c) -> two b t c h w", two=2)
        return mean, logvar.clamp(-20, 10)

    def reconstruct(self, z: Tensor) -> Tensor:
        """p(film | z) for unscaled z [batch, 1 + k, latent, height / 4, width / 4]: its mean, of 1 + 4k frames."""
        x = self.decoder_quarter(rearrange(z, "b t c h w -> b t h w c"))
        x = self.decoder_half(rearrange(x, "b t h w (p q c) -> b t (h p) (w q) c", p=2, q=2))
        return rearrange(x, "b t h w (p q c) -> b t c (h p) (w q)", p=2, q=2)

    def check(self, film: Tensor) -> None:
        """Raise ValueError if the film's size is not one that can be encoded."""
        if film.ndim != 5 or film.shape[2] != 3:
            raise ValueError(f"film is {list(film.shape)}; it takes [batch, time, 3, height, width], also of a picture")
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
        else:  # over time: [out, slots * in]
            tensors[name].zero_()[:, -kernel.shape[1] :] = kernel
    return film


# ------------------------------------------------------------------------------ the transformer, in windows (4.2, 4.3)


Size = tuple[int, int, int]  # (time, height, width)


@dataclass(frozen=True)
class WaltConfig:
    """Sizes of the transformer. Its windows are counted in tokens, as the paper's are: one of one latent frame, one of
    all of them and half of each side."""

    channels: int = 16  # of a latent
    patch: int = 1  # rows and columns of latents in a token
    dim: int = 128
    depth: int = 6
    heads: int = 4
    vocabulary: int = 256
    words: int = 48
    size: Size = (3, 8, 8)  # of the latents that it was trained on
    windows: tuple[Size, Size] | None = ((1, 8, 8), (3, 4, 4))  # None: every token sees its whole film
    rank: int | None = 2  # r of AdaLN-LoRA; None: each block has a layer of its own for its modulations

    @classmethod
    def large(cls, **changes) -> WaltConfig:
        """The paper's L, for latents of 5 x 16 x 16 with 8 channels: films of 17 x 128 x 128."""
        paper = {"channels": 8, "dim": 1024, "depth": 24, "heads": 16, "size": (5, 16, 16)}
        return cls(**{**paper, "windows": ((1, 16, 16), (5, 8, 8)), **changes})


class LowRank(nn.Sequential):
    """W_b W_a c: what a block adds to the modulations that all blocks share (AdaLN-LoRA, section 4.3, Eq. (3))."""

    def __init__(self, dim: int, rank: int):
        super().__init__(nn.Linear(dim, rank, bias=False), nn.Linear(rank, 6 * dim, bias=False))


@lru_cache(maxsize=64)
def segments(size: Size, window: Size, films: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(cu_seqlens, row_map) for so many films of `size` tokens, cut into windows (soralab.kernels.windows).

    The same tensors for the same films, so that what the kernels work out from them is worked out once. Raises
    ValueError for a window larger than the film.
    """
    if any(w > n for n, w in zip(size, window, strict=True)):
        raise ValueError(f"window is {window} tokens; it takes at most the film's, {size} (time, height, width)")
    bounds, row_map = windows(size, window, films)
    return bounds.to(device), row_map.to(device)


@dataclass(frozen=True)
class InWindows:
    """Attention within windows that do not overlap, for `attend` of soralab.blocks.Attention."""

    size: Size  # of a film, in tokens
    window: Size
    backend: str = "auto"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v [batch, heads, tokens, dim], a film's tokens row by row; returns the same shape."""
        bounds, row_map = segments(self.size, self.window, len(q), q.device)
        rows = (rearrange(x, "b h n d -> (b n) h d") for x in (q, k, v))
        seen = attention(*rows, cu_seqlens_q=bounds, row_map=row_map, backend=self.backend)
        return rearrange(seen, "(b n) h d -> b h n d", b=len(q))


class Walt(nn.Module):
    """Noisy latents, a time and a prompt in, the velocity out; blocks see one frame and a part of all frames in turn.

    A picture is a film of one frame, and in every second block each of its tokens sees itself alone: the paper's
    identity mask. These blocks do not read the words either. (The paper's cross-attention has the queries' own tokens
    among its keys; here they are the words alone.)
    """

    def __init__(self, config: WaltConfig = WaltConfig(), backend: str = "auto"):
        super().__init__()
        self.config, self.backend = config, backend
        values, dim, (t, h, w) = config.channels * config.patch**2, config.dim, config.size
        self.embed = nn.Linear(3 * values + config.patch**2, dim)  # noisy, own last opinion, known frames, their mask
        self.frames = nn.Parameter(0.02 * torch.randn(t, 1, 1, dim))
        self.places = nn.Parameter(0.02 * torch.randn(h // config.patch, w // config.patch, dim))
        self.time = TimestepEmbedding(dim)
        self.text = PromptEncoder(config.vocabulary, dim, config.words)
        self.base = nn.Linear(dim, 6 * dim) if config.rank else None
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, True, k % 2 == 0, LowRank(dim, config.rank) if config.rank else None)
            for k in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation, self.head = nn.Linear(dim, 2 * dim), nn.Linear(dim, values)
        gates = [block.modulation[1] if config.rank else block.modulation for block in self.blocks]
        gates += [block.cross.to_out for block in self.blocks if block.cross] + ([self.base] if config.rank else [])
        initialise(self, [*gates, self.modulation, self.head])

    def attend(self, size: Size, block: int):
        """What self-attention is in this block, for a film of `size` tokens: a function (q, k, v) -> output."""
        if self.config.windows is None:
            return partial(attention, backend=self.backend)
        window = self.config.windows[block % 2]
        return InWindows(size, (1, 1, 1) if block % 2 and size[0] == 1 else window, self.backend)

    def forward(
        self, x: Tensor, t: Tensor, ids: Tensor, previous: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """x [batch, time, channel, height, width] at times t [batch] in [0, 1], word ids [batch, words]; returns v.

        previous: the x_0 that the model believed in before, like x, or None. known: c_fp = (m z, m), the frames that
        are given and where, [batch, time, channel + 1, height, width], or None. Raises ValueError for sizes that do
        not fit.
        """
        if x.ndim != 5 or x.shape[2] != self.config.channels:
            raise ValueError(f"x is {list(x.shape)}; it takes [batch, time, {self.config.channels}, height, width]")
        p, (frames, _, *sides) = self.config.patch, x.shape[1:]
        if frames > len(self.frames) or any(side % p for side in sides):
            raise ValueError(f"x is {frames}x{sides[0]}x{sides[1]} (time, height, width); it takes at most "
                             f"{len(self.frames)} frames and sides that patch={p} divides")  # fmt: skip
        size = (frames, sides[0] // p, sides[1] // p)
        known = x.new_zeros(len(x), frames, x.shape[2] + 1, *sides) if known is None else known
        given = torch.cat([x, torch.zeros_like(x) if previous is None else previous, known], dim=2)
        places = F.interpolate(rearrange(self.places, "h w d -> 1 d h w"), size[1:], mode="bilinear")
        places = self.frames[:frames] + rearrange(places, "1 d h w -> h w d")
        tokens = self.embed(patchify(given, (1, p, p))) + rearrange(places, "t h w d -> (t h w) d")  # [b, n, dim]
        pairs = self.config.dim // self.config.heads // 2
        angles = rotary_angles(grid_positions(size, x.device), (pairs - 2 * (pairs // 3), *[pairs // 3] * 2), 100.0)
        words, word_mask, whole = self.text(ids)
        c = F.silu(self.time(t) + whole)
        base = self.base(c) if self.base else 0.0  # A^1 of all blocks
        for k, block in enumerate(self.blocks):
            attend = self.attend(size, k)
            tokens = block(tokens, c, words, word_mask[:, None, None], None, angles, attend, base=base)
        return unpatchify(read_out(self, tokens, c), (1, p, p), (frames, *sides))


# ------------------------------------------------------------- training (4.3) and films longer than training's (4.4)


PROCESS = LinearBeta(zero_terminal_snr=True)


def given_frames(z: Tensor, count: Tensor) -> Tensor:
    """c_fp = (m z, m): the first count[k] frames of film k of z [batch, time, channel, height, width], and where."""
    m = (torch.arange(z.shape[1], device=z.device) < count[:, None]).to(z.dtype)[:, :, None, None, None]
    return torch.cat([m * z, m.expand_as(z[:, :, :1])], dim=2)


def walt_loss(
    model: Walt, x0: Tensor, ids: Tensor, generator: torch.Generator, p_sc: float = 0.9, p_fp: float = 0.5
) -> Tensor:
    """Squared error of v for each film or picture of x0 [batch, time, channel, height, width]: [batch].

    With probability p_sc a film is shown what the model itself believed before, at the same x_t. With probability p_fp
    a film is given its first latent frame or its first two. (Section 4.3; Chen et al. 2208.04202 for the first.)"""
    n, device = len(x0), x0.device
    t = sample_times(n, generator, device=device)
    eps = noise_like(x0, generator)
    draws = torch.rand(3, n, generator=generator, device=generator.device).to(device)
    count = (draws[0] < p_fp) * (1 + (draws[1] < 0.5).long()) * (x0.shape[1] > 1)
    given, previous = {"ids": ids, "known": given_frames(x0, count)}, None
    if p_sc:
        with torch.no_grad():
            x_t = PROCESS.add_noise(x0, eps, t)
            believed = PROCESS.to_x0_eps(model(x_t, t, **given).to(x0.dtype), x_t, t, "v")[0]
        previous = believed * (draws[2] < p_sc)[:, None, None, None, None]
    return diffusion_loss(PROCESS, model, x0, "v", t=t, eps=eps, condition={**given, "previous": previous})


def remembering(network, kind: str = "v"):
    """A denoiser for the samplers whose network is shown the x_0 of its step before: network(x_t, t, previous=...)."""
    x0 = None

    def denoise(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        nonlocal x0
        times = torch.full((len(x),), float(t), device=x.device)
        x0, eps = PROCESS.to_x0_eps(network(x, times, previous=x0), x, times, kind)
        return x0, eps

    return denoise


@dataclass
class Filmmaker:
    """Everything between a prompt and a film, or a film's beginning and its continuation."""

    walt: Walt
    autoencoder: CausalAutoencoder
    opinions: bool = True  # the network is shown what it believed in before; one that never was is to be shown nothing

    @torch.no_grad()
    def latents(self, ids: Tensor, noise: Tensor, start: Tensor | None = None, steps: int = 50, guidance: float = 3.0):
        """From noise [batch, time, channel, height, width] to latents; start: given first latents, kept as they are.

        Guidance is away from no prompt and no given frames together."""
        known = start.shape[1] if start is not None else 0
        z = noise * 0 if not known else torch.cat([start, noise[:, known:] * 0], dim=1)
        frames = given_frames(z, torch.full((len(z),), known, device=z.device))
        condition, null = {"ids": ids, "known": frames}, {"ids": ids * 0, "known": frames * 0}

        def network(x, t, previous):
            shown = {"previous": previous if self.opinions else None}
            return guide(self.walt, {**condition, **shown}, {**null, **shown}, check_scale(guidance))(x, t)

        z = ddim(remembering(network), noise, PROCESS, steps)
        return torch.cat([start, z[:, known:]], dim=1) if known else z

    def film(self, prompts: list[str], seed: int = 0, **options) -> Tensor:
        """Film each prompt: [prompts, frames, 3, height, width] in [-1, 1]; film k from the noise of seed + k."""
        ids = word_ids(prompts, self.walt.config.words).to(self.walt.head.weight.device)
        return self.autoencoder.decode(self.latents(ids, self.noise(seed, len(ids)), **options)).clamp(-1, 1)

    def noise(self, seed: int, count: int) -> Tensor:
        """Noise of seed, seed + 1, ...: [count, time, channel, height, width], drawn on the CPU."""
        c = self.walt.config
        draws = [torch.randn(c.size[0], c.channels, *c.size[1:], generator=torch.Generator().manual_seed(seed + k))
                 for k in range(count)]  # fmt: skip
        return torch.stack(draws).to(self.walt.head.weight.device)

    def extend(self, film: Tensor, prompts: list[str], seed: int = 0, **options) -> Tensor:
        """Films [batch, frames, 3, height, width] and what comes after them: the last five frames are encoded as two
        latents, or a picture as one, the model films what comes after these, and it is appended (section 4.4)."""
        given = film[:, -5:]
        ids = word_ids(prompts, self.walt.config.words).to(self.walt.head.weight.device)
        z = self.latents(ids, self.noise(seed, len(film)), start=self.autoencoder.encode(given), **options)
        return torch.cat([film, self.autoencoder.decode(z)[:, given.shape[1] :].clamp(-1, 1)], dim=1)


def load_autoencoder(name: str = "walt_autoencoder") -> CausalAutoencoder:
    """A shipped causal autoencoder, verified. Raises CheckpointError."""
    return load_model(name, lambda c: CausalAutoencoder(AutoencoderConfig(**c)), "CausalAutoencoder")[0]
