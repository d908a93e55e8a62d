"""How chapter 10's films are judged: from words, from frames that are given, between frames, and by their flicker.

Beside every score stands one that costs nothing: the painter frame by frame, the last frame repeated, the mean of two
neighbours; and one that cannot be passed, the true films as the first stage copies them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from soralab import world
from soralab.align_your_latents import Animator, TemporalLayers, VideoLDM
from soralab.blocks.first_stage import Autoencoder
from soralab.datasets import frames, stills
from soralab.datasets.frames import FRAMES
from soralab.experiments.latent_diffusion_scores import copies
from soralab.experiments.sora_scores import COLUMNS, by_motion, made, prompts
from soralab.recipes.align_your_latents import SEED, SIDE
from soralab.training.data import beside
from soralab.world import referee
from soralab.world.language import short_caption
from soralab.world.reader import read_caption

NOISE = 20_000  # seed of the noise of what is not filmed from words alone
SHOWN = (0, FRAMES // 2, FRAMES - 1)  # the frames that are judged as pictures
SCALES = (1.0, 2.0)  # of context guidance
LEVELS = 127.5  # grey levels of a difference of 1, where pixels lie in [-1, 1]


def stopped(phi: TemporalLayers) -> TemporalLayers:
    """The same with alpha at 1 in every layer: nothing of them is left."""
    phi = copy.deepcopy(phi)
    for layer in phi.beside.values():
        layer.a.data.fill_(math.inf)
    return phi


def painter_alone(maker: Animator) -> Animator:
    """The painter, frame by frame, each frame from noise of its own."""
    return Animator(VideoLDM(maker.model.painter, stopped(maker.model.phi)).eval(), maker.decode, maker.still)


def marks(films: Tensor, texts: Sequence[str]) -> list[dict[str, bool]]:
    """What the referee finds right of each film [n, time, 3, height, width]."""
    reports = referee.read_all(films.cpu())
    return [referee.score_caption(report, read_caption(text)) for report, text in zip(reports, texts, strict=True)]


def shares(found: Sequence[dict[str, bool]]) -> dict[str, float]:
    """The share of films that are right, for each of COLUMNS."""
    return {column: round(sum(mark[column] for mark in found) / len(found), 4) for column in COLUMNS}


def single_frames(films: Tensor, texts: Sequence[str]) -> float:
    """The share of the frames SHOWN that are, each by itself as a picture, what the prompt says of a picture."""
    names = [frames.still(text) for text in texts]
    return round(sum(stills.scores(films[:, k].cpu(), names)["all"] for k in SHOWN) / len(SHOWN), 4)


def from_words(maker: Animator, split: str, count: int, **options) -> dict:
    """Films of a split's first prompts: {"films", COLUMNS, "frames": `single_frames`, "motions": as `by_motion`}."""
    films, texts = made(maker, split, count, **options)
    found = marks(films, texts)
    motions = by_motion(found, texts)
    return {"films": count, **shares(found), "frames": single_frames(films, texts), "motions": motions}


def true_films(count: int, time: int = FRAMES) -> tuple[Tensor, list[str]]:
    """The films of the first test prompts, [count, time, 3, height, width], and these prompts."""
    texts, scenes = prompts("test", count)
    return world.to_film(world.render(scenes, time, SIDE, SIDE)), texts


def psnr(true: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of the mean error over all films: what stands still is repeated exactly."""
    return round((10 * torch.log10(4 / (true.cpu() - other.cpu()).square().mean())).item(), 2)


@torch.no_grad()
def encoded(autoencoder: Autoencoder, films: Tensor) -> Tensor:
    """Films as latents, each frame by itself: [films, time, c, height, width], where the autoencoder is."""
    return autoencoder.encode(beside(autoencoder, films.flatten(0, 1))).unflatten(0, films.shape[:2])


def copied(autoencoder: Autoencoder, films: Tensor) -> Tensor:
    """What the first stage makes of films, frame by frame."""
    return copies(autoencoder, films.flatten(0, 1)).unflatten(0, films.shape[:2])


@torch.no_grad()
def predicted(
    maker: Animator, autoencoder: Autoencoder, given: int, count: int, context_guidance: float = 1.0, **options
) -> dict[str, float]:
    """Nine frames of which the first are given, none, one or two: PSNR of frames 2 to 8 in dB, and as `shares`."""
    films, texts = true_films(count)
    z = encoded(autoencoder, films)
    if given:
        options = {"context_guidance": context_guidance, **options}
        z = maker.go_on(z[:, :given], texts, FRAMES, NOISE, **options)
    else:
        z = maker.latents(texts, maker.noise(NOISE, count, z.shape[1:]), **options)
    shown = maker.decode(z).clamp(-1, 1)
    return {"psnr": psnr(films[:, 2:], shown[:, 2:]), **shares(marks(shown, texts))}


def prediction(maker: Animator, autoencoder: Autoencoder, count: int, **options) -> dict[str, dict]:
    """`predicted` with 0, 1 and 2 frames, beside the second frame repeated and the copies of the truth; and, with two
    frames, over SCALES of context guidance."""
    films, texts = true_films(count)
    copy, still = copied(autoencoder, films), films[:, [0, 1, *[1] * (FRAMES - 2)]]
    found: dict[str, dict] = {str(n): predicted(maker, autoencoder, n, count, **options) for n in (0, 1, 2)}
    for name, shown in (("repeated", still), ("copied", copy)):
        found[name] = {"psnr": psnr(films[:, 2:], shown[:, 2:]), **shares(marks(shown, texts))}
    found["guidance"] = {
        f"{s:g}": predicted(maker, autoencoder, 2, count, context_guidance=s, **options) for s in SCALES[1:]
    }
    return {"films": count, **found}


@torch.no_grad()
def between(maker: Animator, autoencoder: Autoencoder, count: int, **options) -> dict[str, dict]:
    """From 9 frames to 17: PSNR in dB of the eight new ones, and as `shares`; filmed, as the mean of the neighbours,
    and as the first stage copies the truth."""
    films, texts = true_films(count, 2 * FRAMES)
    films = films[:, :-1]
    filmed = maker.decode(maker.between(encoded(autoencoder, films[:, ::2]), texts, NOISE, **options)).clamp(-1, 1)
    copy = copied(autoencoder, films)
    mean = copy.clone()
    mean[:, 1::2] = (copy[:, :-1:2] + copy[:, 2::2]) / 2
    rows = {"filmed": filmed, "mean": mean, "copied": copy}
    return {"films": count, **{name: {"psnr": psnr(films[:, 1::2], shown[:, 1::2]), **shares(marks(shown, texts))}
                               for name, shown in rows.items()}}  # fmt: skip


def flicker(shown: Tensor, true: Tensor | None = None) -> float:
    """How much stands still and changes nevertheless from frame to frame, in grey levels of 255: root mean square.

    shown, true [films, time, 3, height, width]: the places where two frames of the true film are the same; without a
    true film, all places, as where nothing moves.
    """
    change = (shown[:, 1:] - shown[:, :-1]).square().mean(2)
    still = torch.ones_like(change, dtype=torch.bool) if true is None else (true[:, 1:] == true[:, :-1]).all(2)
    return round(LEVELS * change[still.to(change.device)].mean().sqrt().item(), 3)


def still_texts(count: int) -> list[str]:
    """Prompts of things that stay still, which training never saw."""
    texts, index = [], 0
    while len(texts) < count:
        scene = world.sample_scene(SEED, index, "simple", "test")
        texts += [short_caption(scene)] if scene.objects[0].motion == "stays still" else []
        index += 1
    return texts


@torch.no_grad()
def decoded(
    decoders: dict[str, Callable[[Tensor], Tensor]], autoencoder: Autoencoder, count: int, jitter: float
) -> dict[str, dict]:
    """True films through each decoder, from their own latents and from latents with noise of deviation `jitter`:
    {decoder: {"psnr", "flicker", "jittered psnr", "jittered flicker", "all": share that is read right}}."""
    films, texts = true_films(count)
    z = encoded(autoencoder, films)
    rough = z + jitter * torch.randn(z.shape, generator=torch.Generator().manual_seed(NOISE)).to(z)
    table = {}
    for name, decode in decoders.items():
        own, other = decode(z).clamp(-1, 1), decode(rough).clamp(-1, 1)
        table[name] = {
            "psnr": psnr(films, own), "flicker": flicker(own, films), "all": shares(marks(own, texts))["all"],
            "jittered psnr": psnr(films, other), "jittered flicker": flicker(other, films),
        }  # fmt: skip
    return table


@torch.no_grad()
def own_flicker(maker: Animator, decoders: dict[str, Callable[[Tensor], Tensor]], count: int, **options) -> dict:
    """`flicker` of the model's films of things that stay still, through each decoder: the same latents for all."""
    texts = still_texts(count)
    c = maker.model.painter.config.unet.out
    noise = maker.noise(NOISE, count, (FRAMES, c, SIDE // 4, SIDE // 4))
    z = maker.latents(texts, noise, **options)
    return {name: flicker(decode(z).clamp(-1, 1)) for name, decode in decoders.items()}
