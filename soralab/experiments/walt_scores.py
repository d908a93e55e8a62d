"""Judging chapter 11's models on scenes that training never saw: films from words, films continued, films made long."""

from __future__ import annotations

import torch
from torch import Tensor

from soralab.diffusion import diffusion_loss
from soralab.latent_diffusion import word_ids
from soralab.recipes.walt import FRAMES, caption, films, scene
from soralab.training.data import beside
from soralab.walt import PROCESS, CausalAutoencoder, Filmmaker, Walt
from soralab.world import referee
from soralab.world.scene import Scene

COLUMNS = ("colour", "shape", "motion", "all")
GUIDANCE = 2.0
NOISE = 10_000  # the seed of a film's noise is NOISE and its number


def held_out(count: int) -> list[Scene]:
    """`count` scenes that training never saw."""
    return [scene(index, "test") for index in range(count)]


def read(some: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """What share of films [n, time, 3, height, width] the referee reads as their scenes are, for each of COLUMNS."""
    marks = [referee.score(report, of) for report, of in zip(referee.read_all(some), scenes, strict=True)]
    return {column: sum(mark[column] for mark in marks) / len(marks) for column in COLUMNS}


def psnr(true: Tensor, made: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of the mean over all films: a thing that stands still is repeated exactly."""
    return (10 * torch.log10(4 / (true - made).square().mean())).item()


@torch.no_grad()
def loss(model: Walt, autoencoder: CausalAutoencoder, count: int = 256) -> float:
    """Squared error of v on unseen films, at times and noise that are the same for every model; nothing is given."""
    scenes, rng = held_out(count), torch.Generator().manual_seed(5)
    x0 = autoencoder.encode(beside(autoencoder, films(scenes, 4 * model.config.size[1])[:, :FRAMES]))
    t = (torch.arange(count) + 0.5) / count
    eps = torch.randn(x0.shape, generator=rng)
    ids = word_ids([caption(of) for of in scenes], model.config.words)
    t, eps, ids = beside(model, (t, eps, ids))
    errors = [diffusion_loss(PROCESS, model, x0[part], "v", t=t[part], eps=eps[part], condition={"ids": ids[part]})
              for part in torch.arange(count).split(64)]  # fmt: skip
    return torch.cat(errors).mean().item()


def from_words(maker: Filmmaker, count: int, steps: int = 25) -> dict[str, float]:
    """Films of unseen prompts, as `read` reads them."""
    scenes = held_out(count)
    made = maker.film([caption(of) for of in scenes], seed=NOISE, steps=steps, guidance=GUIDANCE)
    return read(made, scenes)


def continued(maker: Filmmaker, count: int, steps: int = 25) -> dict[str, float]:
    """Nine frames of which the first five were given: how near the last four are to the truth (PSNR in dB), beside the
    last given frame repeated and the autoencoder's copy; and as `read` reads the whole."""
    scenes = held_out(count)
    true = beside(maker.walt, films(scenes, 4 * maker.walt.config.size[1])[:, :FRAMES])
    longer = maker.extend(true[:, :5], [caption(of) for of in scenes], seed=NOISE, steps=steps, guidance=GUIDANCE)
    copy = _copy(maker.autoencoder, true)
    last = true[:, 4:5].expand(-1, 4, -1, -1, -1)
    found = {"psnr": longer[:, 5:], "psnr repeated": last, "psnr copied": copy[:, 5:]}
    return {name: psnr(true[:, 5:], four) for name, four in found.items()} | read(longer, scenes)


def drift(maker: Filmmaker, count: int, steps: int = 25) -> list[dict[str, float]]:
    """Nine true frames made 13, 17 and 21: after each extension the PSNR of its four new frames, that of the last true
    frame repeated, that of the autoencoder's copy of the truth, and what `read` makes of the last nine frames."""
    scenes = held_out(count)
    true = beside(maker.walt, films(scenes, 4 * maker.walt.config.size[1]))
    copy, film, rows = _copy(maker.autoencoder, true), true[:, :FRAMES], []
    for extension in range(3):
        seed = NOISE + count * extension
        film = maker.extend(film, [caption(of) for of in scenes], seed, steps=steps, guidance=GUIDANCE)
        new = slice(film.shape[1] - 4, film.shape[1])
        repeated = true[:, FRAMES - 1 : FRAMES].expand(-1, 4, -1, -1, -1)
        found = {"psnr": film[:, new], "psnr repeated": repeated, "psnr copied": copy[:, new]}
        rows.append({name: psnr(true[:, new], four) for name, four in found.items()}
                    | read(film[:, -FRAMES:], scenes))  # fmt: skip
    return rows


@torch.no_grad()
def _copy(autoencoder: CausalAutoencoder, film: Tensor) -> Tensor:
    return autoencoder.decode(autoencoder.encode(film)).clamp(-1, 1)
