"""Layers over time behind painters that they never met, without a step of training (section 4.2 of 2304.08818).

Two are tuned out of the painter that the layers grew up with, as DreamBooth tunes Stable Diffusion: one to other names
for colours, one to MNIST's digits. The third, chapter 06's painter of digits, has the same sizes and a life of its own.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from soralab import world
from soralab.align_your_latents import Animator, VideoLDM
from soralab.blocks.first_stage import Autoencoder
from soralab.datasets import frames, mnist
from soralab.datasets.frames import FRAMES
from soralab.diffusion import ddim, guide
from soralab.experiments.align_your_latents_scores import SHOWN, marks, painter_alone, shares, stopped
from soralab.experiments.latent_diffusion_digits import DIGITS, as_digits, as_pictures, digit_models
from soralab.experiments.latent_diffusion_scores import copies
from soralab.experiments.sora_scores import prompts
from soralab.experiments.vit_scores import accuracy
from soralab.latent_diffusion import PROCESS, LatentDiffusion, noise, word_ids
from soralab.recipes.align_your_latents import CONFIG, SIDE, picture_decoder
from soralab.recipes.film_painter import SEED, prompts_of
from soralab.recipes.latent_diffusion import BATCH, LatentBatches, encoded
from soralab.recipes.latent_diffusion import loss as painting_loss
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.world.language import short_caption

TUNING = TrainConfig(steps=300, lr=7e-4, warmup=30, cooldown=0.4, ema=0.98, seed=SEED, save_every=100)
NAMES = dict(zip(world.COLOURS, (*world.COLOURS[1:], world.COLOURS[0]), strict=True))  # what each colour's name becomes
WAYS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
FAR = 2.0  # pixels that the middle of a digit's ink must go to have moved


def tuned(model: LatentDiffusion, batches: LatentBatches, folder: Path) -> LatentDiffusion:
    """A painter trained a little further, or taken from the folder; the averaged weights, on the CPU."""
    training = replace(TUNING, steps=by_profile(smoke=2, laptop=TUNING.steps, gpu=TUNING.steps))
    model = model.requires_grad_(True)
    loop.train(model, painting_loss, batches, training, folder).ema.copy_to(model)
    return model.eval()


def behind(maker: Animator, painter: LatentDiffusion) -> Animator:
    """The same layers over time behind another painter."""
    there = next(maker.model.parameters()).device
    return Animator(VideoLDM(painter.to(there), maker.model.phi).eval(), maker.decode, maker.still)


# ------------------------------------------------------------------------------------------- other names for colours


def renamed(scene: world.Scene) -> world.Scene:
    """The scene with each thing in the colour that its name now stands for."""
    return replace(scene, objects=tuple(replace(thing, colour=NAMES[thing.colour]) for thing in scene.objects))


def colour_painter(painter: LatentDiffusion, first: Autoencoder, folder: Path) -> LatentDiffusion:
    """The painter of frames, tuned until "red" is what the next colour was."""
    count = by_profile(smoke=8, laptop=4000, gpu=4000)
    samples = [frames.sample(SEED, k) for k in range(count)]
    shown = frames.pictures([(renamed(scene), frame) for scene, frame in samples])
    batches = LatentBatches(encoded(first, shown), prompts_of([scene for scene, _ in samples]), batch=BATCH)
    return tuned(copy.deepcopy(painter), batches, folder)


def colours(folder: Path, maker: Animator, first: Autoencoder, count: int, **options) -> dict[str, dict]:
    """Films behind the painter of other names, judged by these names; that painter frame by frame; and the films of
    the old painter, judged likewise: it knows the old names alone."""
    texts, scenes = prompts("test", count)
    want = [short_caption(renamed(scene)) for scene in scenes]
    joined = behind(maker, colour_painter(maker.model.painter, first, folder / "colours"))
    rows = {"joined": joined, "painter alone": painter_alone(joined), "before": maker}
    return {"films": count, **{name: shares(marks(row.film(texts, seed=SEED, **options), want))
                               for name, row in rows.items()}}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- digits


def digit_painter(painter: LatentDiffusion, first: Autoencoder, folder: Path) -> LatentDiffusion:
    """The painter of frames, tuned to digits: its U-Net, and an encoder of one word, the digit plus 1."""
    digits, labels = mnist.load("train")
    shown = as_pictures(digits[: by_profile(smoke=BATCH, laptop=10_000, gpu=10_000)])
    torch.manual_seed(SEED)
    model = LatentDiffusion(DIGITS)
    model.unet.load_state_dict(painter.unet.state_dict())

    def word(k: int, rng: Random) -> Tensor:
        return (labels[k : k + 1] + 1) * (rng.random() > 0.1)

    return tuned(model, LatentBatches(encoded(first, shown), word), folder)


@torch.no_grad()
def film_digits(
    model: VideoLDM, first: Autoencoder, which: Tensor, ways: list[str], steps: int, scale: float = 3.0
) -> Tensor:
    """Films [n, 9, 3, 32, 32] of the digits which [n], each sliding its way; film k is from the noise of seed k."""
    words = word_ids([f"a medium white circle slides {way}" for way in ways], CONFIG.words)
    ids, words, z = beside(model, (which[:, None] + 1, words, noise(0, len(which), (FRAMES, 4, SIDE // 4, SIDE // 4))))
    condition = {"ids": ids, "words": words}
    network = guide(model, condition, {name: value * 0 for name, value in condition.items()}, scale)
    z = ddim(PROCESS.denoiser(network, "eps"), z, PROCESS, steps)
    return picture_decoder(first)(z).clamp(-1, 1).cpu()


def went(films: Tensor, ways: list[str]) -> float:
    """The share of films whose ink moves as asked: FAR pixels or more that way, and less across."""
    ink = (films.mean(2) + 1).clamp(min=0)  # [n, time, height, width]
    place = torch.arange(films.shape[-1], dtype=ink.dtype)
    total = ink.sum((2, 3)).clamp(min=1e-6)
    x, y = ((ink.sum(axis) * place).sum(-1) / total for axis in (2, 3))
    moved = torch.stack([x[:, -1] - x[:, 0], y[:, -1] - y[:, 0]], -1)
    asked = torch.tensor([WAYS[way] for way in ways], dtype=ink.dtype)
    along = (moved * asked).sum(-1)
    across = (moved * asked.flip(-1)).sum(-1).abs()
    return round(((along >= FAR) & (along > across)).float().mean().item(), 4)


def digits(folder: Path, maker: Animator, first: Autoencoder, steps: int, count: int = 40) -> dict[str, dict]:
    """Films of digits: {row: {"read": share of frames that are read as the digit, "went": share that moves as asked}}.

    Rows: the tuned painter with the layers over time and alone, and chapter 06's own with them. "copies": what is read
    of true digits through the first stage. Raises FileNotFoundError where there is no MNIST.
    """
    count, true = by_profile(smoke=2, laptop=count, gpu=count), mnist.load("test")
    trained = by_profile(smoke=2, laptop=500, gpu=500)
    own_first, own, reader = digit_models(folder / "own_digits", *mnist.load("train"), steps=trained)
    phi, painter = maker.model.phi, digit_painter(maker.model.painter, first, folder / "digits")
    there = next(phi.parameters()).device
    which = torch.arange(count) % 10
    ways = [list(WAYS)[k // 10 % len(WAYS)] for k in range(count)]
    rows = {
        "joined": (VideoLDM(painter.to(there), phi), first),
        "painter alone": (VideoLDM(painter, stopped(phi)), first),
        "chapter 06's": (VideoLDM(own.model.to(there), phi), own_first.to(there)),
    }
    shown, labels = (part[:500] for part in true)
    table = {"copies": {"read": accuracy(reader, as_digits(copies(first, as_pictures(shown)).cpu()), labels)}}
    for name, (model, decoder) in rows.items():
        shown = film_digits(model.eval(), decoder, which, ways, steps)
        read = [accuracy(reader, as_digits(shown[:, k]), which) for k in SHOWN]
        table[name] = {"read": round(sum(read) / len(read), 4), "went": went(shown, ways)}
    return {"films": count, **table}
