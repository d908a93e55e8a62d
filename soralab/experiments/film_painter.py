"""Does a painter draw frames of films as well as stills? `soralab evaluate film_painter`, and the cards' metrics.

Asked of chapter 06's painter first, which has seen stills alone, and of the one that has seen frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soralab import world
from soralab.blocks.first_stage import Autoencoder
from soralab.datasets import frames, stills
from soralab.experiments.latent_diffusion_scores import copies, measure, psnr
from soralab.experiments.sora_scores import judge
from soralab.latent_diffusion import PROCESS, Painter, load_autoencoder, noise, word_ids
from soralab.recipes import Trained
from soralab.recipes.film_painter import FIRST, SECOND
from soralab.training.data import beside
from soralab.training.profiles import by_profile, device
from soralab.world.language import short_caption
from soralab.world.scene import SLIDES, WALL

SEED = 61
KINDS = {"slides": SLIDES, "bounces": ("bounces",), "orbits": ("orbits",), "spins": ("spins",), "grows": ("grows",),
         "shrinks": ("shrinks",), "wall": (WALL,)}  # fmt: skip
TIMES = (0.2, 0.4, 0.6)


def films_of(kind: str, count: int) -> tuple[list[world.Scene], Tensor]:
    """`count` scenes of the simple world that training never saw, of one kind of motion, and their films."""
    scenes, index = [], 0
    while len(scenes) < count:
        scene = world.sample_scene(SEED, index, "simple", "test")
        scenes += [scene] if scene.objects[0].motion in KINDS[kind] else []
        index += 1
    return scenes, world.to_film(world.render(scenes, frames.FRAMES, 32, 32))


def measure_copies(model: Autoencoder, count: int = 100) -> dict[str, dict[str, float]]:
    """What a first stage keeps of stills and of films, frame by frame: PSNR in dB, and the share that is read right.

    Films are read as films, by the strict referee: each visible frame counts.
    """
    shown = [stills.mixed(SEED, k, "test") for k in range(count)]
    pictures = stills.pictures(shown)
    copied = copies(model, pictures)
    right = stills.scores(copied, [stills.caption(scene) for scene in shown])["all"]
    table = {"stills": {"psnr": psnr(pictures, copied), "read_right": round(right, 4)}}
    for kind in KINDS:
        scenes, films = films_of(kind, count)
        copied = copies(model, films.flatten(0, 1)).unflatten(0, films.shape[:2])
        right = judge(copied, [short_caption(scene) for scene in scenes])["all"]
        table[kind] = {"psnr": psnr(films, copied), "read_right": round(right, 4)}
    return table


@torch.no_grad()
def measure_frames(painter: Painter, count: int = 100) -> dict[str, dict[str, float]]:
    """The squared error of the noise that the painter finds in stills and in frames, at each of TIMES, their prompt
    given. What a painter has never met it takes for noise."""
    shown = [stills.mixed(SEED, k, "test") for k in range(count)]
    kinds = {"stills": (stills.pictures(shown), [stills.caption(scene) for scene in shown])}
    for kind in KINDS:
        scenes, films = films_of(kind, count)
        middle = [frames.FRAMES // 2 + k % 3 for k in range(count)]
        kinds[kind] = films[range(count), middle], [frames.still(short_caption(scene)) for scene in scenes]
    table: dict[str, dict[str, float]] = {}
    for kind, (pictures, texts) in kinds.items():
        z = painter.autoencoder.encode(beside(painter.model, pictures))
        ids, eps = word_ids(texts, painter.model.config.words).to(z.device), noise(SEED, len(z), z.shape[1:]).to(z)
        table[kind] = {}
        for t in TIMES:
            times = torch.full((len(z),), t, device=z.device)
            found = painter.model(PROCESS.add_noise(z, eps, times), times, ids)
            table[kind][f"t={t}"] = round(float((found - eps).square().mean()), 4)
    return table


def metrics(name: str, trained: Trained) -> dict:
    """The card's: each model beside chapter 06's."""
    few, count = by_profile(smoke=4, laptop=100, gpu=100), by_profile(smoke=4, laptop=400, gpu=400)
    before = load_autoencoder().to(device())
    if name == FIRST:
        return {"copies": measure_copies(trained.model, few), "copies of chapter 06": measure_copies(before, few)}
    painter = Painter(trained.model, load_autoencoder(trained.card["autoencoder"]).to(device()))
    return {
        "scores": measure(painter, count, **by_profile(smoke={"steps": 2}, laptop={}, gpu={})),
        "error": measure_frames(painter, few),
        "error of chapter 06": measure_frames(Painter.load(device=device()), few),
    }


def evaluate(name: str = SECOND, checkpoint: str | None = None) -> str:
    """The table of a shipped model on pictures that training never saw, measured now."""
    few = by_profile(smoke=4, laptop=100, gpu=100)
    if name == FIRST:
        table = measure_copies(load_autoencoder(checkpoint or name).to(device()), few)
    else:
        table = measure_frames(Painter.load(checkpoint or name, device()), few)
    columns = list(table["stills"])
    lines = [" " * 10 + "".join(f"{column:>12s}" for column in columns)]
    lines += [f"{kind:10s}" + "".join(f"{row[c]:12.4g}" for c in columns) for kind, row in table.items()]
    return "\n".join(lines)
