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
from soralab.experiments.sora_full_scores import CHUNK, NOISE, marks
from soralab.figures.curves import wilson
from soralab.files.checkpoints import CheckpointError, read_card
from soralab.recipes import Trained
from soralab.recipes.sora_full import AUTOENCODER
from soralab.sora_full import PROCESS, STEPS, FullFilmmaker
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress
from soralab.walt import CausalAutoencoder, load_autoencoder
from soralab.world import referee
from soralab.world.language import short_caption
from soralab.world.reader import read_caption

SEED, FRAMES = 403, 9  # of the prompts: others than those of the whole model's own table
TIMES = (0.0, 0.3, 0.6, 0.9, 1.0)  # that films are noised to; at 1 nothing of them is left
BEFORE, AFTER = "the autoencoder's", "trained on"
SHAPES = ("right", "none", "another")  # what the referee reads as the shape of a film's one thing


def metrics(name: str, trained: Trained) -> dict:
    """The card's: {"copies": chapter 11's table for both decoders, "taken back": `shown` of both}."""
    count, few = by_profile(smoke=(2, 4), laptop=(200, 300), gpu=(200, 300))
    both = {BEFORE: load_autoencoder(AUTOENCODER).to(device()), AFTER: trained.model.to(device())}
    copies = {whose: walt_autoencoder.measure(model, few) for whose, model in both.items()}
    return {"films": count, "copies": copies, "taken back": shown(both, count)}


@torch.no_grad()
def shown(both: dict[str, CausalAutoencoder], count: int) -> dict[str, dict]:
    """{whose decoder: {"right": for each of TIMES how many films of `count` are right in all; of those that are filmed
    from noise alone, "shapes": how many are of each of SHAPES, and "wrong": which are not right}}."""
    maker = FullFilmmaker.load(device=device())
    scenes = [world.sample_scene(SEED, k, "simple", "test") for k in range(count)]
    found = {whose: {"right": []} for whose in both}
    for t in progress(TIMES, desc="taking back", unit="time"):
        rows = {whose: [] for whose in both}
        for k in range(0, count, CHUNK):
            some = scenes[k : k + CHUNK]
            z = taken_back(maker, some, t, NOISE + k)
            for whose, model in both.items():
                films = replace(maker, autoencoder=model).decode(z).cpu()
                rows[whose] += [judged(film, short_caption(scene)) for film, scene in zip(films, some, strict=True)]
        for whose, told in rows.items():
            found[whose]["right"].append(sum(right for right, _ in told))
            found[whose]["shapes"] = [sum(shape == which for _, shape in told) for which in SHAPES]
            found[whose]["wrong"] = [k for k, (right, _) in enumerate(told) if not right]
    return found


def judged(film: Tensor, text: str) -> tuple[bool, str]:
    """Whether a film is right in all, and which of SHAPES the largest thing in it has ("" if there is none)."""
    seen = referee.read(film).objects
    asked = read_caption(text)[0]["shape"]
    shape = SHAPES[0 if seen[0].shape == asked else 1 if seen[0].shape is None else 2] if seen else ""
    return bool(marks(film, text)["all"]), shape


def taken_back(maker: FullFilmmaker, scenes: list[world.Scene], t: float, seed: int) -> Tensor:
    """The latents of scenes' films, noised to time t and taken back with as many of the sampler's steps."""
    z = maker.encode(world.to_film(world.render(scenes, FRAMES)).to(device()))
    own, texts, steps = seeded(seed, len(z)), [short_caption(scene) for scene in scenes], round(STEPS * t)
    if not steps:
        return z
    start, nothing = PROCESS.add_noise(z, noise_like(z, own), t), torch.full_like(z, torch.nan)
    return maker.walk(nothing, (FRAMES,), texts, own, t, start, steps=steps, sampler="ddpm", rate=FRAMES)


def table(found: dict[str, dict], films: int) -> str:
    """A line for each decoder: what is right at each of TIMES, in percent, the last with its 95 % interval; and of the
    last films how many show each of SHAPES."""
    wide, columns = max(map(len, ("noised to", *found))) + 1, "".join(f"  {which}" for which in SHAPES)
    lines = [f"{'noised to':{wide}s}" + "".join(f"{t:6g}" for t in TIMES) + f"{'':10s}  shape{columns}"]
    for whose, rows in found.items():
        low, high = wilson(rows["right"][-1], films)
        interval = f"  ({100 * low:.0f}\u2013{100 * high:.0f})"
        shares = "".join(f"{100 * right / films:6.0f}" for right in rows["right"])
        shapes = zip(rows["shapes"], SHAPES, strict=True)
        shapes = "".join(f"{many:{len(which) + 2}d}" for many, which in shapes)
        lines.append(f"{whose:{wide}s}{shares}{interval:10s}{'':7s}{shapes}")
    return "\n".join(lines)


def evaluate(name: str = "sora_full_decoder", checkpoint: str | None = None) -> str:
    """The table of what both decoders show. Raises CheckpointError for a decoder of another autoencoder."""
    if read_card(checkpoint or name).get("autoencoder_sha256") != read_card(AUTOENCODER)["sha256"]:
        raise CheckpointError(f"{checkpoint or name} was not trained on from {AUTOENCODER}: name another decoder")
    names = {BEFORE: AUTOENCODER, AFTER: checkpoint or name}
    both = {whose: load_autoencoder(one).to(device()) for whose, one in names.items()}
    films = by_profile(smoke=2, laptop=200, gpu=200)
    return table(shown(both, films), films)
