"""How a decoder learns to read what a transformer writes: that of chapter 16's whole model.

An autoencoder's decoder has seen the latents of true films alone. Those of a transformer are a little off, in ways of
their own, and it shows them as dents and bumps. So films are noised, each to a time of its own, and the transformer
takes them back: what comes out is nearly the same film, with the transformer's errors in it, and the true film is
known. On such pairs the decoder goes on learning. The encoder stays, and all latents with it. Tacotron 2 trains its
vocoder so, on "ground truth-aligned" predictions (Shen et al. 2017, 1712.05884).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random

import torch
from torch import Tensor, nn

from soralab.blocks.film_codec import FilmCodec
from soralab.blocks.first_stage import misfit
from soralab.diffusion import SAMPLERS, RectifiedFlow
from soralab.diffusion.process import noise_like, seeded
from soralab.recipes.walt_autoencoder import CONFIG
from soralab.training import loop

PROCESS = RectifiedFlow()
LATEST = 0.9  # of the times that films are noised to: from later ones another film comes back
SCALES = (1.5, 2.0, 3.0, 3.0)  # of the guidance that they are taken back with
WAY = 8  # steps from noise to film; of a shorter way, fewer
CHUNK = 20  # films that are noised to one time
PIXELS = 16 * 9 * 32 * 32  # of a batch, nearly
TRAINING = replace(CONFIG, lr=3e-3, warmup=30, cooldown=0.5, ema=0.99, save_every=100)


@torch.no_grad()
def taken_back(
    velocity: Callable[[float], Callable[[Tensor, Tensor], Tensor]], z: Tensor, rng: Random, shift: float, sampler: str
) -> Tensor:
    """Latents z [batch, ...] noised to a time that is drawn from 0 to LATEST, and what a transformer makes of them.

    velocity: from a scale of guidance to the network that answers it, (x, t) -> v.
    """
    t, scale, own = rng.uniform(0, LATEST), rng.choice(SCALES), seeded(rng.randrange(2**31), len(z))
    denoise = PROCESS.denoiser(velocity(scale), "v")
    noisy, steps = PROCESS.add_noise(z, noise_like(z, own), t), max(1, round(WAY * t))
    fresh = {"generator": own} if sampler == "ddpm" else {}
    return SAMPLERS[sampler](denoise, noisy, PROCESS, steps, t_start=t, shift=shift, **fresh)


class Pairs:
    """Batches of latents that were taken back, and of the true films: of one library after another, each in the share
    of batches that is given, and its films in a new order each epoch.

    libraries: {"latents" [films, ...] float16, "film" [films, frames, 3, height, width] uint8} of each.
    """

    def __init__(self, libraries: Sequence[dict[str, Tensor]], shares: Sequence[int], seed: int):
        self.libraries, self.seed = libraries, seed
        self.turns = [k for k, share in enumerate(shares) for _ in range(share)]
        Random(seed).shuffle(self.turns)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"latents" [batch, ...], "film" [batch, frames, 3, height, width] in [-1, 1]}."""
        which, rounds = self.turns[step % len(self.turns)], step // len(self.turns)
        held, mine = self.libraries[which], self.turns.count(which)
        films, size = len(held["film"]), self.size(which)
        first = (rounds * mine + self.turns[: step % len(self.turns)].count(which)) * size
        places = (divmod(k, films) for k in range(first, first + size))
        rows = torch.tensor([order(films, self.seed + which, epoch)[place] for epoch, place in places])
        return {"latents": held["latents"][rows].float(), "film": held["film"][rows].float() / 127.5 - 1}

    def size(self, which: int) -> int:
        """How many films of a library are a batch: an even number, of nearly PIXELS pixels, and at most 32."""
        held = self.libraries[which]["film"]
        pixels = held[0, :, 0].numel()
        return min(2 * max(1, round(PIXELS / pixels / 2)), 32, len(held) // 2 * 2)


@lru_cache(maxsize=32)
def order(films: int, seed: int, epoch: int) -> list[int]:
    """In which order an epoch has the films of a library."""
    generator = torch.Generator().manual_seed(loop.step_seed(seed, epoch))
    return torch.randperm(films, generator=generator).tolist()


def to_bytes(film: Tensor) -> Tensor:
    """Films in [-1, 1] as the library holds them: uint8."""
    return ((film + 1) * 127.5).round().clamp(0, 255).byte()


def parameters(model: FilmCodec) -> list[dict]:
    """The decoder's alone: what stands between its first and last layers trains with Muon, the rest with AdamW. The
    encoder is shut off."""
    decoder = [module for name, module in model.named_children() if name.startswith("decoder")]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    mine = [parameter.requires_grad_(True) for module in decoder for parameter in module.parameters()]
    ends = {decoder[0][0].weight, decoder[-1][-1].weight}
    inner = [p for p in mine if p.ndim >= 2 and p not in ends]
    return [{"params": inner, "muon": True}, {"params": [p for p in mine if p.ndim < 2 or p in ends]}]


def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """Chapter 06's misfit of the decoded film and the true one. Returns (loss, {"psnr"})."""
    error = model.decode(batch["latents"]).float() - batch["film"]
    return misfit(error), {"psnr": (10 * torch.log10(4 / error.detach().square().mean())).item()}
