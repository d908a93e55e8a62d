"""How the decoder of chapter 16's whole model is trained on: `soralab train sora_full_decoder`.

It begins as the autoencoder that the transformer learned in, and sees films of all sizes that the transformer took
back (`soralab.recipes.decoder`). They are made once, kind by kind and in parts, and kept beside the run.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.files.checkpoints import read_card
from soralab.recipes import RUNS, Trained, parts
from soralab.recipes import decoder as shared
from soralab.recipes.sora import wordings
from soralab.recipes.sora_autoencoder import textures
from soralab.recipes.sora_full import KEPT, KINDS, REST, Kind, encode, render, scenes, still
from soralab.recipes.sora_full import NAME as SORA
from soralab.sora_full import FullFilmmaker
from soralab.training import loop
from soralab.training.profiles import by_profile, device
from soralab.training.progress import progress
from soralab.walt import load_autoencoder

NAME, SEED = "sora_full_decoder", 26
FILMS = {"9_32x32": (8000, 12), "9_32x48": (500, 1), "9_48x32": (500, 1), "9_32x32_of_18": (600, 1),
         "17_32x32": (500, 1), "9_48x64": (1200, 4), "17_48x64": (150, 1), "1_32x32": (400, 1),
         "1_48x64": (200, 1)}  # kind: films in its library, and of 25 batches how many it has  # fmt: skip
CLOUDS = (600, 2)  # the same of films of no world, as they are: without these the decoder forgets all that is no toy
PART = 10  # chunks of films between two saves; of the smallest films these take a quarter of a minute on one core
TRAINING = replace(shared.TRAINING, steps=4000, seed=SEED)


def taken_back(maker: FullFilmmaker, kind: Kind, some: list[world.Scene], film: Tensor, rng: Random) -> Tensor:
    """The latents of films of a kind, noised and taken back by the whole model: [batch, latent frames, ...]."""
    z = encode(maker.autoencoder, film, kind.clips).float()
    told = [wordings(still(scene) if kind.frames == 1 else scene)[1 + (rng.random() < 0.5)] for scene in some]
    rate = (kind.rate or kind.frames) if kind.frames > 1 else 0
    nothing = torch.full_like(z, torch.nan)

    def velocity(scale: float):
        return maker.network(nothing, kind.clips, told, scale, rate)

    return shared.taken_back(velocity, z, rng, maker.shift(z), "ddpm")


def pairs(kind: Kind, maker: FullFilmmaker, folder: Path, films: int, sora: str) -> dict[str, Tensor]:
    """The first `films` films of a kind's library, and their latents as `taken_back` has them; those that `folder`
    holds, of the transformer whose weights have the hash `sora`, are taken from there."""
    noised = [shared.LATEST, list(shared.SCALES), shared.WAY, shared.CHUNK]
    of = {"films": films, "seed": SEED, "sora": sora, "noised": noised, "kept": {**KEPT, "rest": REST}}
    listed = list(islice(scenes(kind, KINDS.index(kind)), films))

    def make(first: int, end: int) -> dict[str, Tensor]:
        made, shown, batches = [], [], range(first, end, shared.CHUNK)
        for at in progress(batches, desc=f"taking back {kind.name} from {first:,}", unit="batch"):
            some = listed[at : min(at + shared.CHUNK, end)]
            film = render(kind, some, at)
            made.append(taken_back(maker, kind, some, film, Random(f"{SEED}/{kind.name}/{at}")).cpu().half())
            shown.append(shared.to_bytes(film))
        return {"latents": torch.cat(made), "film": torch.cat(shown)}

    return parts.made(folder / kind.name, of, films, PART * shared.CHUNK, make, f"{kind.name} taken back")


def clouds(maker: FullFilmmaker, films: int) -> dict[str, Tensor]:
    """Films of drifting clouds, 9 frames of 32 x 32, and their latents, with no noise in them."""
    film = textures(films, 9, 32, 32, seed=SEED)
    z = torch.cat([encode(maker.autoencoder, some, (9,)).cpu() for some in film.split(shared.CHUNK)])
    return {"latents": z, "film": shared.to_bytes(film)}


def train(name: str = NAME, steps: int | None = None) -> Trained:
    """Train the decoder, or go on with it, in runs/NAME/of_HASH: with another transformer it begins anew. The smallest
    batches are two films, so it takes two processes at most."""
    torch.manual_seed(SEED)
    sora, full, few = read_card(SORA), TRAINING.steps, by_profile(smoke=4, laptop=None, gpu=None)
    first, home = str(sora["autoencoder"]), RUNS / name / f"of_{sora['sha256'][:8]}"
    of = {"autoencoder_sha256": read_card(first)["sha256"], "sora_sha256": sora["sha256"]}
    maker, model = FullFilmmaker.load(SORA, device()), load_autoencoder(first)
    config = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=full))
    kinds = [(kind, *FILMS[kind.name]) for kind in KINDS if kind.name in FILMS]
    libraries = [pairs(kind, maker, home / "pairs", few or films, sora["sha256"]) for kind, films, _ in kinds]
    libraries.append(clouds(maker, few or CLOUDS[0]))
    batches = shared.Pairs(libraries, [share for _, _, share in kinds] + [CLOUDS[1]], SEED)
    result = loop.train(model, shared.loss, batches, config, home, parameters=shared.parameters(model))
    result.ema.copy_to(model)
    return Trained.of(model, model.config, result, data_seed=SEED, **of)
