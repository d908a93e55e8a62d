"""A picture brought to life: what is known is put back after every step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    """x [batch, time, channel, height, width] at time t with what is known of it in its place.

    Returns a new tensor; x stays as it is. known [batch, k, channel, height, width] are the first k latents of the
    film, clean; noise, of the same shape, is the noise that was drawn for them. t runs from 1 (noise) to 0 (film).
    """
    raise NotImplementedError


def solution(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    """x [batch, time, channel, height, width] at time t with what is known of it in its place: a new tensor."""
    there = (1 - t) * known + t * noise
    return torch.cat([there, x[:, known.shape[1] :]], dim=1)


def cases() -> Iterator[Case]:
    for t, note in ((1.0, "pure noise"), (0.0, "the film is finished"), (0.5, "half way"), (0.9, ""), (0.15, "")):
        k = int(torch.randint(1, 4, ()))
        b, time, c, h, w = 1 + k % 2, k + int(torch.randint(1, 4, ())), 3, 2, 4
        yield Case((torch.randn(b, time, c, h, w), t, torch.randn(b, k, c, h, w), torch.randn(b, k, c, h, w)), note)
    yield Case((torch.randn(1, 2, 1, 1, 1), 0.7, torch.randn(1, 2, 1, 1, 1), torch.randn(1, 2, 1, 1, 1)),
               "all of it known")
    yield Case((torch.randn(2, 3, 1, 1, 1), 0.3, torch.randn(2, 0, 1, 1, 1), torch.randn(2, 0, 1, 1, 1)),
               "nothing known")
    one = torch.randn(3, 5, 8, 2, 2, dtype=torch.float64)
    yield Case((one, 0.8, torch.randn_like(one[:, :1]), torch.randn_like(one[:, :1])), "float64, the first latent")


def without_noise(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    return solution(x, 0.0, known, noise)


def the_other_way(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    return solution(x, 1 - t, known, noise)


def roots(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    return torch.cat([(1 - t) ** 0.5 * known + t**0.5 * noise, x[:, known.shape[1] :]], 1)


def noise_on_top(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    return torch.cat([known + t * noise, x[:, known.shape[1] :]], 1)


def mixed_with_x(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    k = known.shape[1]
    return torch.cat([(1 - t) * known + t * x[:, :k], x[:, k:]], 1)


def at_the_end(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    return torch.cat([x[:, : x.shape[1] - known.shape[1]], (1 - t) * known + t * noise], 1)


def pushed_along(x: Tensor, t: float, known: Tensor, noise: Tensor) -> Tensor:
    return torch.cat([(1 - t) * known + t * noise, x[:, : x.shape[1] - known.shape[1]]], 1)


EXERCISE = Exercise(
    name="sora.put_back",
    title="A picture brought to life",
    difficulty=2,
    minutes=10,
    statement="""
        The report brings pictures to life. Our model was never trained to, but it can be led. The first latent is the
        first frame alone (that is what causality was for), so a picture gives the first latent of its film. Film as
        always, but after every step put that latent back into its place. The rest must not notice that it comes from
        elsewhere: at time t the transformer expects a latent that is as noisy as all others.
        """,
    hints=(
        "What does the transformer see at t = 0.9 in the places that are *not* known? What should stand in the others?",
        "The straight line of the chapter, for the known part alone: between its clean latents and its noise, at t.",
        "torch.cat of (1 - t) * known + t * noise and of x[:, known.shape[1]:], along time.",
    ),
    compare="Compare: nothing is learnt for it, which is why it is cheap. W.A.L.T trains with known frames instead.",
    stub=stub,
    gradients=False,  # it films; nothing is trained through it
    solution=solution,
    cases=cases,
    mistakes={
        "without_noise": Mistake(without_noise, "you put the clean latent back. At time t all around it is noisy: "
                                 "the transformer has never seen a film of which one part is clean."),
        "the_other_way": Mistake(the_other_way, "your t runs backwards: t = 1 is noise and t = 0 the film."),
        "roots": Mistake(roots, "roots of the two shares are for processes that keep the variance (chapter 06). Here "
                         "film and noise are mixed on a straight line."),
        "noise_on_top": Mistake(noise_on_top, "you add the noise and leave the picture at full strength. On the line "
                                "the picture has the share 1 - t."),
        "mixed_with_x": Mistake(mixed_with_x, "you mix the picture with x, which is half-way to a film of its own "
                                "already. What belongs there is the noise alone, t times."),
        "at_the_end": Mistake(at_the_end, "you put it at the end of the film. What is known are the first latents."),
        "pushed_along": Mistake(pushed_along, "you put the known in front of the film and let the last of it fall off. "
                                "It takes the place of the first latents; the others stay where they are."),
    },
)  # fmt: skip
