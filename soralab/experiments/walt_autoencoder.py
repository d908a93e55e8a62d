"""What chapter 11 measures of its autoencoder, beside chapter 16's: `soralab evaluate walt_autoencoder`."""

from __future__ import annotations

import torch

from soralab import world
from soralab.blocks.film_codec import FilmCodec
from soralab.experiments.sora_autoencoder import psnr, reconstruct
from soralab.recipes import Trained
from soralab.recipes.sora_autoencoder import textures
from soralab.recipes.walt_autoencoder import FRAMES, SEED
from soralab.sora import load_autoencoder as load_soras
from soralab.training.profiles import by_profile, device
from soralab.walt import load_autoencoder
from soralab.world import referee

READ = ("shape", "motion", "colour", "all")
THEIRS, FILMS = "sora_autoencoder", 300


def metrics(name: str, trained: Trained) -> dict[str, dict]:
    """The card's: `measure` of this autoencoder (compression 4 in time), of chapter 16's (2), and the true films."""
    count = by_profile(smoke=4, laptop=FILMS, gpu=FILMS)
    models = {name: trained.model, THEIRS: load_soras(THEIRS).to(device()), "true films": None}
    return {"films": count, **{of: measure(model, count) for of, model in models.items()}}


@torch.no_grad()
def measure(model: FilmCodec | None, count: int) -> dict[str, dict]:
    """By level of the world, of `count` unseen films: PSNR in dB, in all and frame by frame, and the share of films of
    whose copies the referee reads each of READ as it is. model None: of the films themselves, without PSNR.
    """
    found = {}
    for level in world.LEVELS:
        films, scenes = world.clips(SEED, range(count), FRAMES, level=level, split="test")
        copies = films if model is None else reconstruct(model, films).cpu()
        marks = [referee.score(report, of) for report, of in zip(referee.read_all(copies), scenes, strict=True)]
        row = {column: sum(mark[column] for mark in marks) / count for column in READ}
        if model is not None:
            frames = [psnr(films[:, [k]], copies[:, [k]]).mean().item() for k in range(FRAMES)]
            row |= {"psnr": round(psnr(films, copies).mean().item(), 2), "frames": [round(x, 2) for x in frames]}
        found[level] = row
    if model is not None:
        clouds = textures(max(1, count // 6), FRAMES, 32, 32, seed=10**6)
        found["textures"] = {"psnr": round(psnr(clouds, reconstruct(model, clouds).cpu()).mean().item(), 2)}
    return found


def evaluate(name: str = "walt_autoencoder", checkpoint: str | None = None) -> str:
    """The table of `measure` for the shipped autoencoder, chapter 16's and the true films."""
    count = by_profile(smoke=4, laptop=FILMS, gpu=FILMS)
    models = {name: load_autoencoder(checkpoint or name).to(device()), THEIRS: load_soras(THEIRS).to(device())}
    lines = [f"{'':20s}{'':8s}" + "".join(f"{column:>8s}" for column in (*READ, "dB"))]
    for of, model in (*models.items(), ("true films", None)):
        for level, row in measure(model, count).items():
            shares = [f"{100 * row[column]:8.1f}" if column in row else f"{'':8s}" for column in READ]
            lines.append(f"{of:20s}{level:8s}" + "".join(shares) + (f"{row['psnr']:8.2f}" if "psnr" in row else ""))
    return "\n".join(lines)
