"""From v to x_0 and eps, with dynamic thresholding on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(z: Tensor, v: Tensor, alpha: float, sigma: float, share: float) -> tuple[Tensor, Tensor]:
    """(x_0, eps) of a step of the sampler, each of z's shape.

    z [batch, frames, channels, height, width] = alpha x_0 + sigma eps, with alpha^2 + sigma^2 = 1 and sigma above 0;
    v is the network's answer at z, an estimate of alpha eps - sigma x_0. x_0 is thresholded dynamically: with q what
    `share` of a film's absolute values lie below (torch.quantile), 1 at the least, it is clipped at -q and q and
    divided by q. eps: the noise of z, if x_0 is what you return.
    """
    raise NotImplementedError


def solution(z: Tensor, v: Tensor, alpha: float, sigma: float, share: float) -> tuple[Tensor, Tensor]:
    """(x_0, eps) of a step of the sampler, each of z's shape."""
    x = alpha * z - sigma * v
    q = x.flatten(1).abs().quantile(share, dim=1).clamp(min=1)[:, None, None, None, None]
    x = x.clamp(-q, q) / q
    return x, (z - alpha * x) / sigma


def _case(batch: int, angle: float, share: float, loud: float = 2.0, dtype=torch.float32) -> tuple:
    frames, c, height, width = torch.randint(1, 4, (4,)).tolist()
    z, v = torch.randn(2, batch, frames, c, height + 1, width + 1, dtype=dtype)
    strength = loud * (1 + torch.arange(batch, dtype=dtype))[:, None, None, None, None]  # each film louder than before
    a = torch.tensor(angle, dtype=torch.float64)
    return strength * z, strength * v, a.cos().item(), a.sin().item(), share


def cases() -> Iterator[Case]:
    yield Case(_case(1, 0.7, 0.9), "one film")
    yield Case(_case(3, 0.7, 0.8), "three films, each louder than the one before")
    yield Case(_case(2, 0.7, 0.9, 0.05), "quiet films: nothing lies beyond 1")
    yield Case(_case(2, 1.0, 0.9, 0.5), "one film is quiet and one is loud")
    yield Case(_case(2, 0.05, 0.9), "hardly any noise")
    yield Case(_case(2, 1.5, 0.9), "hardly anything but noise")
    yield Case(_case(2, 0.9, 1.0), "a share of 1: the largest value of all")
    yield Case(_case(2, 0.4, 0.7, dtype=torch.float64), "float64")


def _walk(z, v, alpha, sigma, share, x0=lambda z, v, a, s: a * z - s * v, q=None, cut=lambda x, q: x.clamp(-q, q) / q,
          eps=lambda z, v, x, a, s: (z - a * x) / s):
    """The solution with another x_0, q, threshold or eps."""
    x = x0(z, v, alpha, sigma)
    measure = q or (lambda x: x.flatten(1).abs().quantile(share, dim=1).clamp(min=1)[:, None, None, None, None])
    x = cut(x, measure(x))
    return x, eps(z, v, x, alpha, sigma)


def _per_film(values: Callable) -> Callable:
    return lambda x: values(x.flatten(1))[:, None, None, None, None]


def noise_of_the_network(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, eps=lambda z, v, x, a, s: s * z + a * v)


def noise_before_dividing(z, v, alpha, sigma, share):
    x, _ = clipped_alone(z, v, alpha, sigma, share)
    return solution(z, v, alpha, sigma, share)[0], (z - alpha * x) / sigma


def sign_of_v(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, x0=lambda z, v, a, s: a * z + s * v)


def taken_for_noise(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, x0=lambda z, v, a, s: (z - s * v) / a)


def one_measure_for_all(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, q=lambda x: x.abs().flatten().quantile(share).clamp(min=1))


def one_measure_a_frame(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, q=lambda x: x.flatten(2).abs().quantile(share, dim=2).clamp(min=1)[
        :, :, None, None, None])  # fmt: skip


def clipped_at_1(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, cut=lambda x, q: x.clamp(-1, 1))


def clipped_alone(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, cut=lambda x, q: x.clamp(-q, q))


def divided_alone(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, cut=lambda x, q: x / q)


def quiet_films_made_loud(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, q=_per_film(lambda x: x.abs().quantile(share, dim=1)))


def signs_kept_in_the_measure(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, q=_per_film(lambda x: x.quantile(share, dim=1).clamp(min=1)))


def the_other_share(z, v, alpha, sigma, share):
    return _walk(z, v, alpha, sigma, share, q=_per_film(lambda x: x.abs().quantile(1 - share, dim=1).clamp(min=1)))


EXERCISE = Exercise(
    name="imagen_video.bounded",
    title="Within bounds",
    difficulty=2,
    minutes=15,
    statement="""
        A network answers with $v$; the sampler wants $x_0$ and $\\epsilon$. Under strong guidance $x_0$ leaves the
        range of pixels, and the next step starts from what no film looks like. So it is brought back first, each film
        by its own measure (section 2.6.2). Then there are two accounts of the noise: the network's, and what is left of
        $z$ without the new $x_0$. Only one of them agrees with $z = \\alpha x_0 + \\sigma \\epsilon$.
        """,
    hints=(
        "Write down z and v, two equations with two unknowns. Multiply the first by alpha, the second by sigma, and "
        "subtract: what is left of x_0?",
        "x_0 = alpha z - sigma v. Each film has its q: flatten all but the batch, absolute values, quantile, at least "
        "1, and four axes more so that it broadcasts.",
        "x = alpha * z - sigma * v; q = x.flatten(1).abs().quantile(share, dim=1).clamp(min=1), reshaped to "
        "[batch, 1, 1, 1, 1]; clip and divide; then solve z = alpha x + sigma eps for eps.",
    ),
    compare="Compare: at which noise does it matter most which eps you return? Look at the division by sigma.",
    stub=stub,
    solution=solution,
    gradients=False,  # it samples; nothing is trained through it
    cases=cases,
    mistakes={
        "noise_of_the_network": Mistake(noise_of_the_network, "your x_0 is right, and your eps belongs to the x_0 "
                                        "before it was brought back: alpha x_0 + sigma eps is no longer z."),
        "noise_before_dividing": Mistake(noise_before_dividing, "your x_0 is right, and your eps belongs to the x_0 "
                                         "that was clipped and not yet divided by q."),
        "sign_of_v": Mistake(sign_of_v, "your sign of v is turned round: v = alpha eps - sigma x_0, so that alpha z - "
                             "sigma v is x_0."),
        "taken_for_noise": Mistake(taken_for_noise, "you take v for the noise. It is alpha eps - sigma x_0, and gives "
                                   "x_0 without a division."),
        "one_measure_for_all": Mistake(one_measure_for_all, "you measure all films of the batch together, so a film "
                                       "depends on what is made beside it. Each has a q of its own."),
        "one_measure_a_frame": Mistake(one_measure_a_frame, "you measure each frame by itself: a film would flicker as "
                                       "its frames are divided by other numbers. One q for a film."),
        "clipped_at_1": Mistake(clipped_at_1, "you clip at 1 whatever the film. That is static thresholding: all that "
                                "lies beyond becomes flat black and white."),
        "clipped_alone": Mistake(clipped_alone, "you clip at q and leave it there: up to q lies beyond 1. Divide by q "
                                 "as well."),
        "divided_alone": Mistake(divided_alone, "you divide by q without clipping first: the loudest values still lie "
                                 "beyond 1."),
        "quiet_films_made_loud": Mistake(quiet_films_made_loud, "where q is below 1 you divide too, which makes a "
                                         "quiet film louder. q is 1 at the least."),
        "signs_kept_in_the_measure": Mistake(signs_kept_in_the_measure, "you take the quantile of the values with "
                                             "their signs: a dark film with values far below -1 passes. Take absolute "
                                             "ones."),
        "the_other_share": Mistake(the_other_share, "you take the quantile of 1 - share: `share` of the values lie "
                                   "below q, few above."),
    },
)  # fmt: skip
