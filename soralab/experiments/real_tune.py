"""Chapter 15 on real films: the painter of flat shapes is tuned on each, as on a film of the world.

The paper's painter, Stable Diffusion, has words for what a real film shows. Ours has words for circles and squares,
and its first stage has never copied anything but shapes. So each film is called PROMPT, which is not true of it, and
what is asked is what tuning can be asked without true words: does the tuned model know this film's noise better than
the painter does, does the film find its way back from noise, and does the word "red" still do something? The referee,
who judges the world's edits, has nothing to say about a person.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from soralab.datasets.by_kind import filmed
from soralab.datasets.frames import FRAMES
from soralab.experiments.sora_autoencoder import psnr
from soralab.experiments.tune_a_video import BACK, GUIDANCE, WALK, copy, there_and_back
from soralab.experiments.tune_a_video import filmed as edited
from soralab.files.atomic import kept
from soralab.latent_diffusion import Painter, word_ids
from soralab.recipes.tune_a_video import PAINTER, PROBED, Shot, tuned
from soralab.training.profiles import by_profile, device
from soralab.tune_a_video import Editor, tuning_loss

PROMPT, ASKED = "a circle", "a red circle"  # what each film is called, and what is asked for instead
FILMS = 2  # of a set's test films, spread over them
WAYS = {1.0: "to noise and back", BACK: "part of the way"}  # columns, by how far a film is walked back


@torch.no_grad()
def noise_error(editor: Editor) -> float:
    """The tuning loss at PROBED draws of noise that are always the same; whoever foretells none has 1."""
    ids = word_ids([PROMPT], editor.model.config.words).to(editor.z.device)
    draws = (torch.Generator().manual_seed(seed) for seed in range(PROBED))
    return mean(tuning_loss(editor.model, editor.z, ids, draw).item() for draw in draws)


def redness(film: Tensor) -> float:
    """By how much a film [frames, 3, height, width] in [-1, 1] is redder than it is green and blue: -2 to 2."""
    red, green, blue = film.mean((0, 2, 3)).tolist()
    return red - (green + blue) / 2


def marks(painter: Painter, film: Tensor, steps: int, walk: int) -> dict[str, float]:
    """What a film [frames, 3, 32, 32] comes to with `steps` of tuning, 0 for none: errors of the noise and of the way
    back (shares of the latents' size), and how much redder than its copy it is when a red thing is asked for."""
    editor = replace(tuned(painter, Shot(None, film, PROMPT), steps), steps=walk, back=BACK)
    found = {WAYS[way["back"]]: way["error"] for way in there_and_back(editor, (walk,), (1.0,))}
    red = edited(painter, editor, ASKED, editor.inverted(), GUIDANCE)
    return {"noise": noise_error(editor), **found, "redder": redness(red) - redness(copy(painter, film))}


def tuned_on_films(name: str, folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Rows of a set's test films, each tuned on for `steps` steps: the painter not tuned, and tuned, and how near the
    first stage's copy is, in dB, which no edit can better. Means over the films."""
    painter, walk = Painter.load(PAINTER, device()), by_profile(smoke=2, laptop=WALK, gpu=WALK)
    films, table = filmed(name, "test", FRAMES, count=by_profile(smoke=1, laptop=FILMS, gpu=FILMS)), {}
    copies = torch.stack([copy(painter, film) for film in films])
    table["the first stage's copy"] = {"psnr": psnr(films, copies).clamp(max=100).mean().item(), "films": len(films)}
    for row, count in (("not tuned", 0), ("tuned", steps)):
        each = [kept(folder / f"film_{k}_{count}.json", partial(marks, painter, film, count, walk))
                for k, film in enumerate(films)]  # fmt: skip
        table[row] = {column: mean(one[column] for one in each) for column in each[0]} | {"films": len(films)}
    return table


def world_films(found: dict) -> dict[str, dict[str, float]]:
    """The row of the world's films on which the chapter measured the way back."""
    ways = [way for way in found["way back"] if (way["walk"], way["guidance"]) == (WALK, 1.0)]
    return {"tuned": {column: mean(way["error"] for way in ways if way["back"] == back)
                      for back, column in WAYS.items()} | {"films": len(ways) // len(WAYS)}}  # fmt: skip
