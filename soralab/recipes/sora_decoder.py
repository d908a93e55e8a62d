"""How the decoder of chapter 16's simple model is trained on: `soralab train sora_decoder`.

It begins as the autoencoder that the transformer learned in, and sees films that the transformer took back
(`soralab.recipes.decoder`). They are made once, and kept in runs/NAME/pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.diffusion import guide
from soralab.files.checkpoints import load_checkpoint, read_card, save_checkpoint
from soralab.latent_diffusion import word_ids
from soralab.recipes import RUNS, Trained
from soralab.recipes import decoder as shared
from soralab.recipes.sora import used, wordings
from soralab.recipes.sora_autoencoder import FRAMES
from soralab.sora import Filmmaker, load_autoencoder
from soralab.training import loop
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress

NAME, SORA, SEED = "sora_decoder", "sora", 27
FIRST = 10**6  # where its scenes begin in the library
FILMS = 12_000
TRAINING = replace(shared.TRAINING, steps=1500, seed=SEED)


def taken_back(maker: Filmmaker, some: Sequence[world.Scene], film: Tensor, rng: Random) -> Tensor:
    """The latents of films, noised and taken back by the simple model: [batch, latent frames, ...]."""
    with torch.no_grad():
        z = maker.autoencoder.encode(film.to(maker.sora.head.weight.device))
    told = [wordings(scene)[1 + (rng.random() < 0.5)] for scene in some]
    ids = word_ids(told, maker.sora.config.words).to(z.device)

    def velocity(scale: float):
        return guide(maker.sora, {"ids": ids}, {"ids": torch.zeros_like(ids)}, scale, batched=True)

    return shared.taken_back(velocity, z, rng, maker.shift, "dpm_solver_pp")


def pairs(maker: Filmmaker, folder: Path, films: int) -> dict[str, Tensor]:
    """So many films of the training's library and their latents as `taken_back` has them; those that `folder` holds, of
    the same transformer, are taken from there."""
    of = {"films": films, "seed": SEED, "sora": read_card(SORA)["sha256"]}
    path = folder / SORA
    mend = f"remove {path}.json, and its films are made again"
    if path.with_suffix(".json").exists() and read_card(path, mend).get("of") == of:
        return load_checkpoint(path, mend=mend)[0]
    source, made, shown = used(count(FIRST)), [], []
    for first in progress(range(0, films, shared.CHUNK), desc="taking back films", unit="batch"):
        some = list(islice(source, min(shared.CHUNK, films - first)))
        film = world.to_film(world.render(some, FRAMES))
        made.append(taken_back(maker, some, film, Random(f"{SEED}/{first}")).cpu().half())
        shown.append(shared.to_bytes(film))
    found = {"latents": torch.cat(made), "film": torch.cat(shown)}
    save_checkpoint(path, found, {"of": of})
    return found
