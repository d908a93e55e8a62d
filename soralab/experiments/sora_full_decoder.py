"""What chapter 16 measures of the decoder that was trained on: `soralab evaluate sora_full_decoder`.

The same latents, shown by the autoencoder's decoder and by this one: those of true films, those that were noised and
taken back by the transformer, and those that it made of prompts.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from soralab import world
from soralab.diffusion.process import noise_like, seeded
from soralab.experiments import walt_autoencoder
from soralab.experiments.sora_full_scores import CHUNK, NOISE, marks, percent
from soralab.figures.curves import wilson
from soralab.recipes import Trained
from soralab.recipes.sora_full import first_stage
from soralab.sora_full import PROCESS, STEPS, FullFilmmaker
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress
from soralab.walt import CausalAutoencoder, load_autoencoder
from soralab.world.language import short_caption

SEED, FRAMES = 403, 9  # of the prompts: others than those of the whole model's own table
TIMES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)  # that films are noised to; at 1 nothing of them is left
BEFORE, AFTER = "the autoencoder's", "trained on"


def metrics(name: str, trained: Trained) -> dict:
    """The card's: {"copies": chapter 11's table for both decoders, "taken back": `shown` of both}."""
    count, few = by_profile(smoke=(2, 4), laptop=(200, 300), gpu=(200, 300))
    both = {BEFORE: first_stage().to(device()), AFTER: trained.model.to(device())}
    copies = {whose: walt_autoencoder.measure(model, few) for whose, model in both.items()}
    return {"films": count, "copies": copies, "taken back": shown(both, count)}


@torch.no_grad()
def shown(both: dict[str, CausalAutoencoder], count: int) -> dict[str, dict[str, list[list[int]]]]:
    """{split: {whose decoder: for each of TIMES [films that are right in all, films]}}, of unseen simple scenes."""
    maker, found = FullFilmmaker.load(device=device()), {}
    for split in ("test", "held_out"):
        scenes = [world.sample_scene(SEED, k, "simple", split) for k in range(count)]
        texts = [short_caption(scene) for scene in scenes]
        rows = found[split] = {whose: [] for whose in both}
        for t in progress(TIMES, desc=f"taking back {split}", unit="time"):
            right = dict.fromkeys(both, 0)
            for k in range(0, count, CHUNK):
                z = taken_back(maker, scenes[k : k + CHUNK], texts[k : k + CHUNK], t, NOISE + k)
                for whose, model in both.items():
                    films = replace(maker, autoencoder=model).decode(z).cpu()
                    right[whose] += sum(marks(f, text)["all"] for f, text in zip(films, texts[k:], strict=False))
            for whose, many in right.items():
                rows[whose].append([int(many), count])
    return found


def taken_back(maker: FullFilmmaker, scenes: list[world.Scene], texts: list[str], t: float, seed: int) -> Tensor:
    """The latents of scenes' films, noised to time t and taken back with as many of the sampler's steps."""
    z = maker.encode(world.to_film(world.render(scenes, FRAMES)).to(device()))
    own = seeded(seed, len(z))
    start = PROCESS.add_noise(z, noise_like(z, own), t)
    steps = round(STEPS * t)
    if not steps:
        return z
    nothing = torch.full_like(z, torch.nan)
    return maker.walk(nothing, (FRAMES,), texts, own, t, start, steps=steps, sampler="ddpm", rate=FRAMES)


def table(found: dict[str, dict[str, list[list[int]]]]) -> str:
    """A line for each split and decoder: what is right at each of TIMES, in percent; the last with its interval."""
    head = "".join(f"{t:6g}" for t in TIMES)
    lines = [f"{'noised to':10s}{'decoder':20s}{head}"]
    for split, rows in found.items():
        for whose, cells in rows.items():
            low, high = wilson(*cells[-1])
            shares = "".join(f"{percent(cell):>6s}" for cell in cells)
            lines.append(f"{split:10s}{whose:20s}{shares}  ({100 * low:.0f}\u2013{100 * high:.0f})")
    return "\n".join(lines)


def evaluate(name: str = "sora_full_decoder", checkpoint: str | None = None) -> str:
    """The table of what both decoders show."""
    both = {BEFORE: first_stage().to(device()), AFTER: load_autoencoder(checkpoint or name).to(device())}
    return table(shown(both, by_profile(smoke=2, laptop=200, gpu=200)))
