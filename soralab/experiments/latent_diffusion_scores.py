"""How chapter 06's models are judged: PSNR, what the referee reads, and the Frechet distance to true pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from soralab.blocks.first_stage import Autoencoder
from soralab.datasets import stills
from soralab.latent_diffusion import Painter
from soralab.recipes import vit as chapter_03
from soralab.recipes.latent_diffusion import SEED
from soralab.training.data import beside
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress


@torch.no_grad()
def copies(model: Autoencoder, pictures: Tensor, chunk: int = 100) -> Tensor:
    """What is left of pictures after the first stage: decode(encode(pictures)), in [-1, 1], where the pictures are."""
    parts = [beside(model, part) for part in pictures.split(chunk)]
    return torch.cat([model.decode(model.encode(part)).clamp(-1, 1).to(pictures.device) for part in parts])


def psnr(pictures: Tensor, copied: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures [n, ...]; the peak is 2, from -1 to 1."""
    error = (copied - pictures).square().flatten(1).mean(1)
    return round((10 * torch.log10(4 / error)).mean().item(), 2)


def measure_first_stage(model: Autoencoder, count: int = 400) -> dict[str, float]:
    """On pictures that training never saw: PSNR in dB, and the share of copies that the referee reads right."""
    scenes = [stills.mixed(SEED, k, "test") for k in range(count)]
    pictures = stills.pictures(scenes)
    copied = copies(model, pictures)
    texts = [stills.caption(scene) for scene in scenes]
    return {
        "psnr": psnr(pictures, copied),
        "read_right": round(stills.scores(copied, texts)["all"], 4),
        "read_right_true": round(stills.scores(pictures, texts)["all"], 4),
    }


def painted(painter: Painter, texts: Sequence[str], seed: int = 60_000, chunk: int = 50, **options) -> Tensor:
    """The painter's pictures of texts; `options` go to `Painter.paint`."""
    parts = progress(range(0, len(texts), chunk), desc="painting", unit="batch")
    return torch.cat([painter.paint(list(texts[k : k + chunk]), seed + k, **options) for k in parts])


def measure(painter: Painter, count: int = 400, **options) -> dict[str, dict[str, float]]:
    """The referee's scores of what is painted from prompts alone, for each split and number of things.

    Training has met all 126 test prompts of one thing, and about 6 of 10 of two things; none of those held out.
    """
    table = {}
    for split in ("test", "held_out"):
        for things in (1, 2):
            texts, _ = stills.prompts(split, things, count)
            row = stills.scores(painted(painter, texts, **options), texts)
            table[f"{split}, {things}"] = {"pictures": count, **{k: round(v, 4) for k, v in row.items()}}
    return table


def walk() -> int:
    """Steps of DDIM, wherever their number is not the question."""
    return by_profile(smoke=2, laptop=25, gpu=25)


def quality(painter: Painter, count: int, **options) -> dict[str, float]:
    """Of test prompts of one thing, painted: the share read right, and the Frechet distance to true pictures."""
    texts, scenes = stills.prompts("test", 1, count)
    shown = painted(painter, texts, **options)
    return {"read_right": round(stills.scores(shown, texts)["all"], 4),
            "distance": round(frechet(shown, stills.pictures(scenes)), 3)}  # fmt: skip


def floors(counts: Sequence[int] = (100, 200)) -> dict[str, list[float]]:
    """{pictures: `floor`}: a Frechet distance grows as its sets become smaller, and so does that of true pictures."""
    return {str(count): floor(count) for count in counts}


def floor(count: int, sets: int = 6) -> list[float]:
    """[least, most]: how far from `quality`'s true pictures others of the same prompts are, of `sets` sets."""
    texts, scenes = stills.prompts("test", 1, count)
    truth, distances = stills.pictures(scenes), []
    for seed in range(61, 61 + sets):
        found: dict[str, list] = {text: [] for text in texts}
        scenes_of = (stills.sample(seed, k, "test") for k in itertools.count())
        while any(len(found[text]) < texts.count(text) for text in found):
            scene = next(scenes_of)
            found.get(stills.caption(scene), []).append(scene)
        others = stills.pictures([found[text].pop() for text in texts])
        distances.append(round(frechet(others, truth), 3))
    return [min(distances), max(distances)]


def frechet(a: Tensor, b: Tensor) -> float:
    """The Frechet distance (FID, 1706.08500) of two sets of pictures [n, 3, 32, 32], in chapter 03's ViT's features.

    Fitted by Gaussians: |mean - mean'|^2 + Tr(C + C' - 2 (C C')^1/2). Not to be held against an FID of Inception.
    """
    model = chapter_03.load().to(device())
    with torch.no_grad():
        seen = [torch.cat([model.features(beside(model, part)) for part in each.split(250)]) for each in (a, b)]
    seen = [features.cpu().double() for features in seen]
    return gaussian_distance(*seen)


def gaussian_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of two samples [n, dim], taken for Gaussian."""
    ours, theirs = torch.cov(a.T), torch.cov(b.T)
    values = torch.linalg.eigvals(ours @ theirs).real.clamp(min=0)  # those of a product of two covariances are not < 0
    return ((a.mean(0) - b.mean(0)).square().sum() + ours.trace() + theirs.trace() - 2 * values.sqrt().sum()).item()
