"""A film under less and less noise: what the network takes it for, and what the best possible guess would be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from soralab import world
from soralab.diffusion.process import noise_like
from soralab.sora import Filmmaker, word_ids
from soralab.training.data import beside
from soralab.world.scene import RADIUS, SLIDE, SPIN, Object, Scene

TIMES = (0.97, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
ROWS = ("the noisy film", "the network's opinion", "the best possible guess")


def sliding(size: str = "small", colour: str = "red", shape: str = "circle") -> list[Scene]:
    """144 films of one sentence, "a small red circle slides right": nine heights, eight starts, two speeds."""
    edge = 0.5 - RADIUS[size]
    heights = torch.linspace(-edge, edge, 9).tolist()
    return [
        Scene((Object(shape, colour, size, "slides right", speed=speed, x=-edge + k * (2 * edge - v) / 7, y=y,
                      velocity=(v, 0.0)),))
        for y in heights for k in range(8) for speed, v in SLIDE.items()
    ]  # fmt: skip


def turning(size: str = "medium", colour: str = "orange", shape: str = "square", corners: int = 4) -> list[Scene]:
    """64 films of one sentence, "a medium orange square spins": sixteen angles, slow or fast, one way or the other.

    Turned by a whole corner the shape looks as before, so the angles lie within one.
    """
    return [
        Scene((Object(shape, colour, size, "spins", speed=speed, turn=turn, phase=math.tau / corners * k / 16),))
        for k in range(16) for speed in SPIN for turn in ("clockwise", "anticlockwise")
    ]  # fmt: skip


def best_guess(z_t: Tensor, t: float, known: Tensor) -> Tensor:
    """E[z_0 | z_t] where z_0 is one of `known` [films, time, channel, height, width], each as likely as the others.

    z_t = (1 - t) z_0 + t ε, [time, channel, height, width], 0 < t <= 1. Returns [1, time, channel, height, width].
    """
    if not 0 < t <= 1:
        raise ValueError(f"t: got {t}, takes a number above 0 and at most 1")
    distance = (z_t - (1 - t) * known).square().flatten(1).sum(1)
    weight = (-distance / (2 * t**2)).softmax(0)
    return torch.einsum("k,k...->...", weight, known)[None]


@torch.no_grad()
def guesses(maker: Filmmaker, text: str, scenes: list[Scene], truth: int, seed: int = 0, times=TIMES):
    """One of the films `scenes`, number `truth`, under noise of each time in `times`, with both guesses at it.

    text: the prompt that the network is given. Returns the films [times, 3, frames, channel, height, width] in
    [-1, 1], in the order of ROWS, and a sentence with both squared errors for each time.
    """
    known = maker.autoencoder.encode(beside(maker.sora, world.to_film(world.render(scenes, 9, 32, 32))))
    clean = known[truth : truth + 1]
    noise = noise_like(clean, torch.Generator().manual_seed(seed))
    films, says = [], []
    for t in times:
        z_t = (1 - t) * clean + t * noise
        ours = z_t - t * maker.sora(z_t, *beside(maker.sora, (torch.tensor([t]), word_ids([text], 48))))
        best = best_guess(z_t, t, known)
        films.append(maker.autoencoder.decode(torch.cat([z_t, ours, best])).clamp(-1, 1))
        errors = [(guess - clean).square().mean().item() for guess in (ours, best)]
        says.append(f"squared error of the opinion {errors[0]:.3f}, of the best guess {errors[1]:.3f}")
    return torch.stack(films), says
