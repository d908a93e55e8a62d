"""Chapter 12's painters: which captions teach one best, in equal time, and what longer prompts do.

Every painter starts as chapter 06's, with its encoder of prompts drawn anew, and has as many steps on the same
pictures. They differ in what the pictures are called alone.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from soralab.datasets import recaptions, stills
from soralab.experiments.latent_diffusion_scores import painted
from soralab.experiments.recaptioning_scores import KINDS, TEST_SEED, WALK, marks, prompts, scores
from soralab.files.atomic import kept
from soralab.latent_diffusion import Painter
from soralab.recaptioning import Expander
from soralab.recipes.latent_diffusion import SIDE, LatentBatches, encoded
from soralab.recipes.recaptioning import (
    PAINTER_TRAINING,
    fit_painter,
    forgetful,
    library,
    named,
    web_texts,
)
from soralab.training.profiles import by_profile
from soralab.world.claims import keeps

ARMS = {  # which captions, and the share of them; the rest are alt texts
    "alt texts": ("short", 0.0), "short, 95 %": ("short", 0.95), "descriptive, 65 %": ("descriptive", 0.65),
    "descriptive, 80 %": ("descriptive", 0.8), "descriptive, 90 %": ("descriptive", 0.9),
    "descriptive, 95 %": ("descriptive", 0.95),
}  # fmt: skip
SEEDS = (1, 2, 3)
PICTURES = 6000
SHORT_RUN = replace(PAINTER_TRAINING, steps=360, ema=0.98)


@dataclass(frozen=True)
class Shelf:
    """What all painters learn from: latents of pictures, what the web calls each, and what the captioners wrote."""

    start: Painter
    latents: Tensor
    web: list[str]
    written: dict[str, list[str]]  # "short", "descriptive"


def shelf(start: Painter, writers: dict[str, Callable], folder: Path, count: int = PICTURES) -> Shelf:
    """The first `count` pictures, recaptioned; what was written lies in `folder`."""
    scenes, shown = library(count)
    written = {name: kept(folder / f"{name}_captions.json", partial(write, shown)) for name, write in writers.items()}
    return Shelf(start, encoded(start.autoencoder, shown), web_texts(scenes), written)


def taught(shelf: Shelf, name: str, seed: int, folder: Path, steps: int = SHORT_RUN.steps) -> tuple[Painter, float]:
    """One painter, trained or gone on with in `folder`, and the seconds that it took."""
    captions, ratio = ARMS[name]
    torch.manual_seed(seed)
    model = forgetful(shelf.start)
    prompt = named(shelf.web, shelf.written[captions], ratio, model.config.words, seed)
    training = replace(SHORT_RUN, steps=steps, seed=seed, save_every=steps)
    result = fit_painter(model, training, LatentBatches(shelf.latents, prompt), folder)
    return Painter(model.to(shelf.latents.device), shelf.start.autoencoder, SIDE), result.seconds


def arm(shelf: Shelf, name: str, seed: int, folder: Path, steps: int = SHORT_RUN.steps, count: int = 100) -> dict:
    """One painter, trained and judged: {"seconds", "scores"}."""
    painter, seconds = taught(shelf, name, seed, folder, steps)
    return {"seconds": round(seconds), "scores": scores(painter, count)}


def place(folder: Path, name: str, seed: int) -> Path:
    """Where an arm's run lies."""
    return folder / f"{name.replace(', ', '_').replace(' ', '_').replace('%', 'percent')}_{seed}"


def arms(shelf: Shelf, folder: Path, seeds: Sequence[int] = SEEDS, **options) -> dict[str, list[dict]]:
    """{arm: a row for each seed}; a run that was measured is not run again. All arms of a seed come before the next."""
    rows: dict[str, list[dict]] = {name: [] for name in ARMS}
    for seed in seeds:
        for name in ARMS:
            where = place(folder, name, seed)
            rows[name].append(kept(where.with_suffix(".json"), partial(arm, shelf, name, seed, where, **options)))
    return rows


def summary(rows: Sequence[dict], cell: str, column: str) -> tuple[float, float]:
    """(mean, half of the 95 % interval) of a score over seeds: Student's t with as many degrees of freedom as there are
    seeds but one."""
    values = [row["scores"][cell][column] for row in rows]
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(values), 0.0)
    return mean(values), t * stdev(values) / len(values) ** 0.5 if t else 0.0


# ------------------------------------------------------------------------------------------------- pictures of the page

SHOWN = ("alt texts", "short, 95 %", "descriptive, 95 %")


def examples(shelf: Shelf, folder: Path, **options) -> dict:
    """What the painters of SHOWN, of the first seed, make of the first prompt of each kind that they are scored with,
    of one thing and of two: {"asked", "png": a row of pictures for each painter, in base64}."""
    asked = [prompts(kind, things, 1)[0][0] for things in (1, 2) for kind in KINDS]
    walk, rows = {**WALK, "steps": by_profile(smoke=2, laptop=10, gpu=10)}, []
    for name in SHOWN:
        painter, _ = taught(shelf, name, SEEDS[0], place(folder, name, SEEDS[0]), **options)
        made = painted(painter, asked, seed=120_000, **walk).cpu()
        rows.append(torch.cat(list(made.clamp(-1, 1)), dim=-1))
    sheet, buffer = torch.cat(rows, dim=-2).add(1).mul(127.5).round().byte().permute(1, 2, 0), BytesIO()
    Image.fromarray(sheet.numpy()).save(buffer, format="PNG")
    return {"asked": asked, "png": b64encode(buffer.getvalue()).decode()}


def pictures_of(found: dict) -> dict[str, Tensor]:
    """The pictures of `examples`: {name of an arm: [prompts, 3, 32, 32]}, in [-1, 1]."""
    with Image.open(BytesIO(b64decode(found["png"]))) as picture:
        sheet = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1
    rows = sheet.split(sheet.shape[1] // len(SHOWN), dim=1)
    return {name: torch.stack(row.split(row.shape[1], dim=2)) for name, row in zip(SHOWN, rows, strict=True)}


# ------------------------------------------------------------------------------------------------------ longer prompts


def expansion(painters: dict[str, Painter], expander: Expander, count: int = 200) -> dict:
    """Prompts without places, as they are and lengthened, by each painter; both judged by what was asked for.

    {"painter": {"things": {"off": marks, "on": marks}}}; "placed" is not asked for, so it says nothing here.
    """
    table: dict[str, dict] = {}
    steps = by_profile(smoke=2, laptop=10, gpu=10)
    for things in (1, 2):
        asked = [stills.caption(stills.sample(TEST_SEED, k, "test", things)) for k in range(count)]
        longer = expander(asked)
        for name, painter in painters.items():
            row = table.setdefault(name, {}).setdefault(str(things), {})
            for way, given in (("off", asked), ("on", longer)):
                row[way] = marks(painted(painter, given, seed=121_000, steps=steps, **WALK).cpu(), asked)
    return table


def lengthened(expander: Expander, asked: Sequence[str], seed: int = 1) -> dict:
    """What one draw makes of prompts: the shares that keep all that was asked ("kept"), that differ between two draws
    ("various"), and that tell a place; with six examples."""
    first, second = (expander.draw(list(asked), torch.Generator().manual_seed(seed + k)) for k in (0, 1))
    count = len(asked)
    return {
        "prompts": count,
        "kept": round(sum(map(keeps, asked, first)) / count, 4),
        "various": round(sum(a != b for a, b in zip(first, second, strict=True)) / count, 4),
        "placed": round(sum(any(recaptions.told_places(text)) for text in first) / count, 4),
        "examples": [[*row] for row in zip(asked[:6], first[:6], second[:6], strict=True)],
    }

