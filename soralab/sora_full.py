"""Sora, whole: one transformer for films and pictures of any length, size and shape, packed into one row.

Papers: Brooks et al. 2024, "Video generation models as world simulators" (the Sora report); Peebles & Xie 2023,
"Scalable Diffusion Models with Transformers" (DiT, 2212.09748). The report names the parts and gives no sizes. Each
part is an earlier chapter's: the text tower is CLIP's (04), the video compression network W.A.L.T's causal autoencoder
(11), its shared modulations too (AdaLN-LoRA), and films of many sizes lie in one row, as NaViT packs pictures (07).

    film [1 + 4k, 3, h, w]  --encode-->  latents [1 + k, 16, h/4, w/4]  --patchify-->  (1 + k) (h/8) (w/8) tokens

A film is a string of clips, each coded alone: mostly one. Every latent frame has a diffusion time of its own. What is
known, a picture to begin with, the end of a film to go on from, stands in its place with time 0, which is no noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.blocks import TimestepEmbedding, grid_positions, patchify, rotary_angles, sincos, sincos_grid, unpatchify
from soralab.blocks.clips import LATENT, clip_for, latents, moments, nearest
from soralab.blocks.dit import Block, initialise
from soralab.blocks.film_codec import decoded_by
from soralab.clip import PromptEncoder
from soralab.diffusion import SAMPLERS, RectifiedFlow, guide, invert
from soralab.diffusion.process import noise_like, seeded
from soralab.files.checkpoints import CheckpointError, config_of, load_model, read_card
from soralab.kernels import Packed
from soralab.latent_diffusion import word_ids
from soralab.sora import check_film
from soralab.training.data import beside
from soralab.walt import CausalAutoencoder, LowRank, load_autoencoder


@dataclass(frozen=True)
class FullConfig:
    """Sizes of the transformer."""

    channels: int = 16  # of a latent
    patch: int = 2  # rows and columns of latents in a token
    dim: int = 256
    depth: int = 8
    heads: int = 4
    rank: int = 16  # of what a block adds to the modulations that all blocks share
    vocabulary: int = 256
    words: int = 48


@dataclass(frozen=True)
class Films:
    """Films of one size: x [batch, latent frames, channels, height, width], each a string of clips of `clips` frames.

    times [batch, latent frames] in [0, 1] are the diffusion times, 0 for what is known. rate [batch] is how many frames
    the motion takes from its beginning to its end, 0 for not said.
    """

    x: Tensor
    times: Tensor
    clips: tuple[int, ...]
    rate: Tensor

    def __post_init__(self):
        want = sum(latents(frames) for frames in self.clips)
        if self.x.ndim != 5 or self.x.shape[1] != want:
            raise ValueError(f"x is {list(self.x.shape)}; clips of {self.clips} frames take [batch, {want}, channels, "
                             "height, width]")  # fmt: skip
        if self.times.shape != self.x.shape[:2] or self.rate.shape != self.x.shape[:1]:
            raise ValueError(f"times, rate are {list(self.times.shape)}, {list(self.rate.shape)}; they take "
                             f"{list(self.x.shape[:2])}, {list(self.x.shape[:1])}")  # fmt: skip


class FullSora(nn.Module):
    """Noisy latents of films of any sizes, their times and prompts in; the velocity of each out.

    Self-attention is within a film, cross-attention from a film to its own prompt: the tokens of all films are one row,
    and `soralab.kernels` is told where each film ends.
    """

    def __init__(self, config: FullConfig = FullConfig(), backend: str = "auto"):
        super().__init__()
        self.config, self.backend = config, backend
        values, dim = config.channels * config.patch**2, config.dim
        self.embed = nn.Linear(values, dim)
        self.first = nn.Parameter(torch.zeros(dim))  # the latent is its clip's first: one frame, not four
        self.time, self.rate = TimestepEmbedding(dim), nn.Linear(dim, dim, bias=False)
        self.text = PromptEncoder(config.vocabulary, dim, config.words)
        self.base = nn.Linear(dim, 6 * dim)  # the modulations that all blocks share
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, True, modulation=LowRank(dim, config.rank)) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation, self.head = nn.Linear(dim, 2 * dim), nn.Linear(dim, values)
        gates = [layer for block in self.blocks for layer in (block.modulation[1], block.cross.to_out)]
        initialise(self, [*gates, self.base, self.modulation, self.head, self.rate])

    def place(self, films: Films) -> tuple[Tensor, Tensor]:
        """Of one film's tokens: what is added to them [n, dim], and by how much attention turns them [n, pairs]."""
        x, (dim, heads, p) = films.x, (self.config.dim, self.config.heads, self.config.patch)
        middles, first = moments(films.clips, x.device)
        where = grid_positions((len(middles), x.shape[3] // p, x.shape[4] // p), x.device)
        of, where = where[:, 0], where.float()
        where[:, 0] = middles[of] / LATENT
        rest = (dim - dim // 8 * 2) // 4 * 2
        added = sincos_grid(where, (dim - 2 * rest, rest, rest), max_period=100.0)
        third = (pairs := dim // heads // 2) // 3
        angles = rotary_angles(where, (pairs - 2 * third, third, third), 100.0)
        return added + first[of, None] * self.first, angles

    def forward(self, films: Sequence[Films], ids: Tensor) -> list[Tensor]:
        """The velocity of every film, each tensor like the x of its Films. ids [all films, words]: their prompts."""
        rows, angles, counts, lengths = [], [], [], []
        for part in films:
            added, turned = self.place(part)
            p = self.config.patch
            rows.append((self.embed(patchify(part.x, (1, p, p))) + added.to(part.x)).flatten(0, 1))
            angles.append(turned.repeat(len(part.x), 1))
            counts.append(len(added) // part.x.shape[1])  # tokens of a latent frame
            lengths += [len(added)] * len(part.x)
        x, angles = torch.cat(rows)[:, None], torch.cat(angles)[:, None, None]
        words, mask, whole = self.text(ids)
        words, bounds_k = words[mask][:, None], _bounds(mask.sum(1))
        bounds_q = _bounds(torch.tensor(lengths, device=ids.device))
        frames = [part.times.shape for part in films]
        c = F.silu(self.conditions(films, whole))

        def spread(told: Tensor) -> Tensor:
            """From one row a latent frame to one row a token."""
            parts = zip(told.split([b * t for b, t in frames]), counts, strict=True)
            return torch.cat([part[:, None].expand(-1, n, -1).flatten(0, 1) for part, n in parts])

        base = self.base(c)
        within = Packed(bounds_q, backend=self.backend)
        across = Packed(bounds_q, bounds_k, backend=self.backend)
        for block in self.blocks:
            told = spread(base + block.modulation(c))
            x = block(x, None, words, None, None, angles, within, across, told=told)
        shift, scale = spread(self.modulation(c)).chunk(2, dim=-1)
        out = self.head(torch.addcmul(shift, self.norm(x[:, 0]), 1 + scale))
        parts = out.split([len(part.x) * n * part.times.shape[1] for part, n in zip(films, counts, strict=True)])
        return [self.film(rows, part) for rows, part in zip(parts, films, strict=True)]

    def conditions(self, films: Sequence[Films], whole: Tensor) -> Tensor:
        """Time, prompt and rate of each latent frame of all films: [latent frames of all, dim]."""
        told = []
        for part, prompt in zip(films, whole.split([len(part.x) for part in films]), strict=True):
            rate = self.rate(sincos(part.rate, self.config.dim, 100.0)) * (part.rate > 0)[:, None]
            time = self.time(part.times.flatten()).unflatten(0, part.times.shape)
            told.append((time + (prompt + rate)[:, None]).flatten(0, 1))
        return torch.cat(told)

    def film(self, rows: Tensor, part: Films) -> Tensor:
        """Rows of tokens back to latents of the shape of part.x."""
        b, t, _, h, w = part.x.shape
        return unpatchify(rows.unflatten(0, (b, -1)), (1, self.config.patch, self.config.patch), (t, h, w))


def _bounds(lengths: Tensor) -> Tensor:
    """Where each segment of these lengths begins, and where the last ends: [segments + 1]."""
    return F.pad(lengths.cumsum(0), (1, 0)).int()


# ------------------------------------------------------------------------------------------------- prompt to film

PROCESS = RectifiedFlow()
DECODER = "sora_full_decoder"  # the autoencoder again; its decoder has seen what the transformer makes
STEPS, FRESH = 20, 8  # of the sampler, and from how many on noise of its own helps it
SHIFT, USUAL = 3.0, 48  # of the times of a film of so many tokens (Esser et al. 2403.03206, section 5.3.2)
MEMORY, EDGE = 9, 5  # frames that an extension remembers, and that a join sees of either film


def shift_of(tokens: int) -> float:
    """How far the times of a film of so many tokens are bent towards the noise, which a larger film hides better."""
    return SHIFT * math.sqrt(tokens / USUAL)


def remembered(frames: int, most: int) -> int:
    """How many frames at one end of a film of so many are shown to the model: a clip's, and at most `most`."""
    return min(clip_for(frames - LATENT + 1), most)


def extension(frames: int, by: int, backwards: bool = False) -> tuple[int, ...]:
    """The clips that are walked to make a film of so many frames longer."""
    known = remembered(frames, MEMORY)
    return (clip_for(by), known) if backwards else (clip_for(known + by),)


def joint(a: int, b: int, between: int) -> tuple[int, ...]:
    """The clips that are walked to join films of a and of b frames."""
    return remembered(a, EDGE), clip_for(between), remembered(b, EDGE)


@dataclass
class FullFilmmaker:
    """Everything between a prompt, a picture or films, and a film.

    Films are [batch, frames, 3, height, width] in [-1, 1], and so are the answers. Film k starts from the noise of
    seed + k, whatever is filmed beside it.
    """

    sora: FullSora
    autoencoder: CausalAutoencoder

    @classmethod
    def load(cls, name: str = "sora_full", device: torch.device | str = "cpu") -> FullFilmmaker:
        """Load and verify a checkpoint and its card's autoencoder (see `decoded_by`). Raises CheckpointError."""
        sora, card = load_model(name, lambda c: FullSora(config_of(FullConfig, c)), "FullSora", ("autoencoder",))
        sha = read_card(first := str(card["autoencoder"]))["sha256"]
        autoencoder = load_autoencoder(decoded_by(DECODER, first))
        if card.get("autoencoder_sha256", sha) != sha or autoencoder.config.latent != sora.config.channels:
            raise CheckpointError(f"{name} was trained with another {first} than this one: bring that back")
        return cls(sora.to(device), autoencoder.to(device))

    def film(
        self, prompts: list[str], seed: int = 0, size: tuple[int, int, int] = (9, 32, 32), rate: int = 0, **options
    ) -> Tensor:
        """Film each prompt. size (frames, height, width): any frames, sides that 8 divides; 1 frame is a picture.
        rate: frames that the motion takes; 0: as many as the film has. options: see `walk`."""
        frames, clip = size[0], clip_for(size[0])
        given = self.empty(len(prompts), (clip,), *size[1:])
        rate = (rate or frames) if frames > 1 else 0
        return self.decode(self.walk(given, (clip,), prompts, seed, rate=rate, **options))[:, :frames]

    def animate(self, pictures: Tensor, prompts: list[str], frames: int = 9, seed: int = 0, **options) -> Tensor:
        """Bring pictures [batch, 3, height, width] to life: each is its film's first frame, as it is."""
        return self.extend(pictures[:, None], frames - 1, prompts, seed, rate=options.pop("rate", frames), **options)

    def extend(
        self, films: Tensor, by: int, prompts: list[str], seed: int = 0, backwards: bool = False, **options
    ) -> Tensor:  # fmt: skip
        """The films with `by` frames more, behind them or before them."""
        films = beside(self.sora, films)
        clips, known = extension(films.shape[1], by, backwards), remembered(films.shape[1], MEMORY)
        given = self.empty(len(films), clips, *films.shape[3:])
        if backwards:
            z = self.encode(films[:, :known])
            given[:, -z.shape[1] :] = z
            new = self.decode(self.walk(given, clips, prompts, seed, **options)[:, : -z.shape[1]])
            return torch.cat([new[:, new.shape[1] - by :], films], dim=1)
        z = self.encode(films[:, -known:])
        given[:, : z.shape[1]] = z
        new = self.decode(self.walk(given, clips, prompts, seed, **options))
        return torch.cat([films, new[:, known:][:, :by]], dim=1)

    def loop(self, films: Tensor, by: int, prompts: list[str], seed: int = 0, **options) -> Tensor:
        """The films and `by` frames that lead from their end back to their beginning."""
        return self.join(films, films, by, prompts, seed, **options)[:, : films.shape[1] + by]

    def join(self, a: Tensor, b: Tensor, between: int, prompts: list[str], seed: int = 0, **options) -> Tensor:
        """Film a, `between` frames that lead from it to b, and b."""
        a, b = beside(self.sora, (a, b))
        clips = joint(a.shape[1], b.shape[1], between)
        left, right = self.encode(a[:, -clips[0] :]), self.encode(b[:, : clips[-1]])
        given = self.empty(len(a), clips, *a.shape[3:])
        given[:, : left.shape[1]], given[:, -right.shape[1] :] = left, right
        z = self.walk(given, clips, prompts, seed, **options)[:, left.shape[1] : -right.shape[1]]
        made = self.decode(z)  # a clip may have more frames: those left out are spread over it
        kept = torch.linspace(0, made.shape[1] + 1, between + 2).round().long()[1:-1] - 1
        return torch.cat([a, made[:, kept], b], dim=1)

    def edit(
        self, films: Tensor, prompts: list[str], strength: float, seed: int = 0, told: list[str] | None = None,
        **options,
    ) -> Tensor:  # fmt: skip
        """The films as other prompts tell them: taken back to time `strength`, and the prompts' way from there. At 0
        they stay as they are, at 1 only `told` knows of them.

        They are taken back by noise (SDEdit, Meng et al. 2108.01073) or, where `told` says what they are, by inversion.
        """
        films = beside(self.sora, films)
        if strength < 1e-6:
            return films.clone()
        clips = (clip_for(films.shape[1]),)
        z = self.encode(torch.cat([films, films[:, -1:].expand(-1, clips[0] - films.shape[1], -1, -1, -1)], dim=1))
        nothing, own = torch.full_like(z, math.nan), seeded(seed, len(z))
        if told is None:
            start = PROCESS.add_noise(z, noise_like(z, own), strength)
        else:
            back = PROCESS.denoiser(self.network(nothing, clips, told, 1.0, options.get("rate", 0)), "v")
            start = invert(back, z, PROCESS, options.get("steps", STEPS), t_start=strength, shift=self.shift(z))
        return self.decode(self.walk(nothing, clips, prompts, own, strength, start, **options))[:, : films.shape[1]]

    @torch.no_grad()
    def walk(
        self, given: Tensor, clips: tuple[int, ...], prompts: list[str], seed: int | list[torch.Generator] = 0,
        t_start: float = 1.0, start: Tensor | None = None, steps: int = STEPS, guidance: float = 3.0,
        sampler: str | None = None, rate: int = 0, callback=None,
    ) -> Tensor:  # fmt: skip
        """From noise, or from latents `start` that are as noisy as those of time t_start, to latents.

        given [batch, latent frames, ...]: what is known, NaN where nothing is. seed: of the noise, or what draws it.
        sampler: usually "ddpm", whose fresh noise makes good what the network got wrong before; in fewer steps than
        FRESH, and where `start` is to be kept, "dpm_solver_pp".
        """
        sampler = sampler or ("ddpm" if steps >= FRESH and start is None else "dpm_solver_pp")
        check_film(prompts, 0 if isinstance(seed, list) else seed, steps, guidance, sampler)
        own = seed if isinstance(seed, list) else seeded(seed, len(given))
        x, free = noise_like(given, own) if start is None else start, given[0, :, 0, 0, 0].isnan()
        denoise = PROCESS.denoiser(self.network(given, clips, prompts, guidance, rate), "v")
        whole = given.clone()
        fresh = {"generator": own} if sampler == "ddpm" else {}  # the only one that draws noise on its way
        whole[:, free] = SAMPLERS[sampler](denoise, x[:, free], PROCESS, steps, t_start=t_start,
                                           shift=self.shift(given), callback=callback, **fresh)  # fmt: skip
        return whole

    def network(self, given: Tensor, clips: tuple[int, ...], prompts: list[str], guidance: float, rate: int = 0):
        """The velocity of what is not known, (x, t) -> v, guided by the prompts."""
        ids = word_ids(prompts, self.sora.config.words).to(given.device)
        ids = ids[:, : max(1, int((ids > 0).sum(1).max()))]
        free = given[0, :, 0, 0, 0].isnan()

        def velocity(x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
            whole = given.repeat(len(x) // len(given), 1, 1, 1, 1)
            whole[:, free] = x
            rates = torch.full((len(x),), float(rate), device=x.device)
            return self.sora([Films(whole, t[:, None] * free, clips, rates)], ids)[0][:, free]

        return guide(velocity, {"ids": ids}, {"ids": torch.zeros_like(ids)}, guidance, batched=True)

    def shift(self, z: Tensor) -> float:
        """`shift_of` films of these latents."""
        return shift_of(z[0, :, 0].numel() // self.sora.config.patch**2)

    def empty(self, films: int, clips: tuple[int, ...], height: int, width: int) -> Tensor:
        """Latents of which nothing is known."""
        self.check(height, width)
        shape = (films, sum(map(latents, clips)), self.sora.config.channels, height // 4, width // 4)
        return torch.full(shape, math.nan, device=self.sora.head.weight.device)

    def check(self, height: int, width: int) -> None:
        """Raise ValueError, with the nearest sizes that work, unless patches divide these sides."""
        side = 4 * self.sora.config.patch
        if height % side or width % side or min(height, width) < side:
            near = " or ".join(f"{h}x{w}" for h, w in nearest(height, width, side))
            raise ValueError(f"size is {height}x{width}; it takes sides that {side} divides, such as {near}")

    @torch.no_grad()
    def encode(self, clip: Tensor) -> Tensor:
        """Latents of a clip."""
        self.check(*clip.shape[3:])
        return self.autoencoder.encode(clip)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """A clip of its latents."""
        return self.autoencoder.decode(z).clamp(-1, 1)
