"""How chapter 16's spacetime autoencoder is trained and measured: `soralab train sora_autoencoder`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from soralab import world
from soralab.recipes import RUNS, publish
from soralab.sora import AutoencoderConfig, SpacetimeAutoencoder, autoencoder_loss, load_autoencoder
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.world import referee

NAME = "sora_autoencoder"
BATCH, SEED, FRAMES = 16, 16, 9
CONFIG = TrainConfig(steps=2400, lr=1e-3, warmup=100, cooldown=0.3, ema=0.998, seed=SEED)


def build() -> SpacetimeAutoencoder:
    """The autoencoder at the size that is shipped."""
    return SpacetimeAutoencoder(AutoencoderConfig())


def batch(step: int) -> Tensor:
    """Batch number `step`: films [BATCH, 9, 3, 32, 32]; half of them crowded, 3 in 8 simple, 1 in 8 no toy at all."""
    full, simple = BATCH // 2, 3 * BATCH // 8
    films = [
        world.clips(SEED, range(step * full, (step + 1) * full), FRAMES, level="full")[0],
        world.clips(SEED, range(step * simple, (step + 1) * simple), FRAMES, level="simple")[0],
        textures(BATCH - full - simple, FRAMES, 32, 32, seed=step),
    ]
    return torch.cat(films)


def textures(count: int, frames: int, height: int, width: int, seed: int) -> Tensor:
    """Films of drifting coloured clouds, [count, frames, 3, height, width] in [-1, 1].

    The reader's own clips are not made of discs on black; without a share of these the autoencoder cannot draw them.
    """
    rng = np.random.default_rng((SEED, seed))
    film = torch.zeros(count, 3, frames, height, width)
    for scale in (2, 4, 8, 16):
        noise = torch.from_numpy(rng.standard_normal((count, 3, 3, scale + 1, scale + 1), np.float32))
        grey = noise.mean(1, keepdim=True) * 1.7  # most of the world's texture is in its brightness
        film += F.interpolate(0.4 * noise + grey, (frames, height, width), mode="trilinear") * scale**-0.7
    gain = torch.from_numpy(rng.uniform(0.3, 1.5, (count, 1, 1, 1, 1)).astype(np.float32))
    return (film * gain).tanh().transpose(1, 2).contiguous()


def loss(model: SpacetimeAutoencoder, film: Tensor, generator: torch.Generator):
    """The training loss of one batch; see `soralab.sora.autoencoder_loss`."""
    return autoencoder_loss(model, film, generator)


def train(name: str = NAME, folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) the autoencoder in runs/NAME, then save it as folder/NAME; returns its path."""
    torch.manual_seed(SEED)
    model = build()
    config = replace(CONFIG, steps=steps or by_profile(smoke=2, laptop=CONFIG.steps, gpu=4 * CONFIG.steps))
    result = loop.train(model, loss, batch, config, RUNS / name)
    with result.ema.applied(model):
        model.eval().fit_scale(world.clips(SEED, range(256), FRAMES, level="full")[0])
        card = {
            "config": asdict(model.config), "data_seed": SEED, "steps": result.steps, "batch": BATCH,
            "seconds": round(result.seconds), "command": f"soralab train {name}", "metrics": measure(model),
        }  # fmt: skip
        return publish((folder or RUNS / name) / name, model.state_dict(), card)


@torch.no_grad()
def measure(model: SpacetimeAutoencoder, count: int = 200) -> dict[str, float]:
    """PSNR in dB on `count` films of each kind that training never saw, and how often the referee still reads them."""
    metrics = {}
    for level in world.LEVELS:
        films, scenes = world.clips(SEED, range(count), FRAMES, level=level, split="test")
        copies = reconstruct(model, films)
        metrics[f"psnr_{level}"] = round(psnr(films, copies).mean().item(), 2)
        reports = referee.read_all(copies)
        right = [referee.score(report, scene)["all"] for report, scene in zip(reports, scenes, strict=True)]
        metrics[f"read_right_{level}"] = sum(right) / count
    clouds = textures(count // 4, FRAMES, 32, 32, seed=10**6)
    metrics["psnr_textures"] = round(psnr(clouds, reconstruct(model, clouds)).mean().item(), 2)
    return metrics


@torch.no_grad()
def reconstruct(model: SpacetimeAutoencoder, films: Tensor, chunk: int = 50) -> Tensor:
    """decode(encode(films)), in chunks, clamped to [-1, 1]."""
    return torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in films.split(chunk)])


def psnr(films: Tensor, copies: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each film, in dB: [batch]. The peak is 2, from -1 to 1."""
    return 10 * torch.log10(4 / (films - copies).square().flatten(1).mean(1))


def evaluate(name: str = NAME, checkpoint: str | None = None) -> str:
    """The table of `measure` for the shipped autoencoder."""
    metrics = measure(load_autoencoder(checkpoint or name))
    return "\n".join(f"{key:20s} {value:8.2f}" for key, value in metrics.items())
