"""The whole sampler of a film of which some frames are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(
    network: Callable, z: Tensor, given: Tensor, noise: Tensor, alpha: list[float], sigma: list[float], scale: float
) -> Tensor:
    """A film [batch, frames, channels, height, width] by DDIM's steps from noise; the given frames come back as they
    are.

    z of the film's shape holds the frames that are given [batch, frames], True; elsewhere whatever it holds. alpha,
    sigma [steps + 1]: the shares of film and noise, from noise (alpha > 0, though small) to film (sigma 0).
    network(x_t, k, known) predicts the noise eps in all frames at time number k, as it was trained to: x_t a film of
    which every frame is noisy, known [batch, frames, channels + 1, height, width] the given frames, zeros elsewhere,
    with the mask behind; known all zeros: nothing is told. scale: s of f(z_t) + s (f(z_t; c_S) - f(z_t)).
    """
    raise NotImplementedError


def solution(
    network: Callable, z: Tensor, given: Tensor, noise: Tensor, alpha: list[float], sigma: list[float], scale: float
) -> Tensor:
    """A film [batch, frames, channels, height, width] by DDIM's steps from noise."""
    m = given[:, :, None, None, None]
    known = torch.cat([torch.where(m, z, 0), m.to(z).expand_as(z[:, :, :1])], dim=2)
    x = noise
    for k in range(len(alpha) - 1):
        alone = network(x, k, torch.zeros_like(known))
        eps = alone + scale * (network(x, k, known) - alone)
        x0 = (x - sigma[k] * eps) / alpha[k]
        x = alpha[k + 1] * x0 + sigma[k + 1] * eps
    return torch.where(m, z, x)


def _network(frames: int, c: int) -> Callable:
    over, here = torch.randn(frames, frames, dtype=torch.float64) / frames, torch.randn(c, c + 1, dtype=torch.float64)

    def network(x: Tensor, k: int, known: Tensor) -> Tensor:
        """A fixed network, which listens to all that it is given, and to every frame."""
        seen = torch.einsum("st,btchw->bschw", over.to(x), x)
        told = torch.einsum("dc,btchw->btdhw", here.to(x), known)
        return torch.tanh(seen + 0.5 * told + 0.3 * told.mean(1, keepdim=True) + 0.2 * k)

    return network


def _times(steps: int) -> tuple[list[float], list[float]]:
    angle = torch.linspace(1.4, 0, steps + 1, dtype=torch.float64)
    return angle.cos().tolist(), [*angle.sin().tolist()[:-1], 0.0]


def _case(batch: int, frames: int, steps: int, scale: float, told: list[int] | None = None, dtype=torch.float32):
    z, noise = torch.randn(2, batch, frames, 2, 2, 1, dtype=dtype)
    given = torch.rand(batch, frames) < 0.5
    if told is not None:
        given = torch.tensor([[k in told for k in range(frames)]] * batch)
    return _network(frames, 2), z, given, noise, *_times(steps), scale


def cases() -> Iterator[Case]:
    yield Case(_case(1, 3, 1, 1.0, [0]), "one step, the first frame given")
    yield Case(_case(1, 3, 2, 1.0, [0, 1]), "two steps, two frames given")
    yield Case(_case(2, 5, 4, 1.0, [0, 2, 4]), "every second frame given")
    yield Case(_case(1, 4, 3, 2.5, [0]), "context guidance")
    yield Case(_case(1, 4, 3, 0.0, [0, 3]), "scale 0: nothing is told, and yet the given frames come back")
    yield Case(_case(1, 3, 3, 2.0, []), "nothing given")
    yield Case(_case(2, 3, 5, 3.0), "each film its own")
    yield Case(_case(2, 4, 4, 1.5, None, torch.float64), "float64")


def check(fn) -> Iterator[tuple[bool, str]]:
    network, z, given, *rest = _case(2, 4, 3, 1.5, [0, 2])
    want = fn(network, z.clone(), given, *rest)
    z[~given] = float("nan")
    yield torch.equal(fn(network, z, given, *rest), want), (
        "with NaN in the frames of z that are not given, the film is another. z holds whatever it holds there, and 0 "
        "times NaN is NaN: choose (torch.where), in c_S and at the end, instead of multiplying."
    )


def _walk(network, z, given, noise, alpha, sigma, scale, start=lambda x, z, m: x, step=lambda x, z, m, k: x,
          known=lambda c, z, m: c, nothing=torch.zeros_like, guided=lambda a, c, s: a + s * (c - a),
          guess=lambda x0, z, m: x0, end=lambda x, z, m: torch.where(m, z, x)):
    """The solution with another start, another thing done after each step, another c_S, with what tells nothing,
    guidance, guess of the film or end."""
    m = given[:, :, None, None, None]
    told = known(torch.cat([torch.where(m, z, 0), m.to(z).expand_as(z[:, :, :1])], 2), z, m)
    x = start(noise, z, m)
    for k in range(len(alpha) - 1):
        eps = guided(network(x, k, nothing(told)), network(x, k, told), scale)
        x = alpha[k + 1] * guess((x - sigma[k] * eps) / alpha[k], z, m) + sigma[k + 1] * eps
        x = step(x, z, m, k + 1)
    return end(x, z, m)


def clean_at_the_start(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, start=lambda x, z, m: torch.where(m, z, x))


def clean_after_each_step(network, z, given, noise, alpha, sigma, scale):
    put = lambda x, z, m, *_: torch.where(m, z, x)  # noqa: E731
    return _walk(network, z, given, noise, alpha, sigma, scale, start=put, step=put)


def noised_after_each_step(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, step=lambda x, z, m, k: torch.where(
        m, alpha[k] * z + sigma[k] * noise, x))  # fmt: skip


def noised_before_each_step(network, z, given, noise, alpha, sigma, scale):
    put = lambda x, z, m, k=0: torch.where(m, alpha[k] * z + sigma[k] * noise, x)  # noqa: E731
    return _walk(network, z, given, noise, alpha, sigma, scale, start=put, step=put)


def put_into_each_guess(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, guess=lambda x0, z, m: torch.where(m, z, x0))


def left_as_filmed(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, end=lambda x, z, m: x)


def the_whole_film_told(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale,
                 known=lambda c, z, m: torch.cat([z, c[:, :, -1:]], 2))  # fmt: skip


def never_told(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, guided=lambda a, c, s: a)


def mask_left_at_one(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale,
                 nothing=lambda told: torch.cat([0 * told[:, :, :-1], told[:, :, -1:]], 2))  # fmt: skip


def scale_forgotten(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, guided=lambda a, c, s: c)


def scale_on_top(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, guided=lambda a, c, s: c + s * (c - a))


def guided_from_the_told(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, guided=lambda a, c, s: c + s * (a - c))


def guided_away(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, guided=lambda a, c, s: a + s * (a - c))


def one_noise_for_all_frames(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, start=lambda x, z, m: x[:, :1].expand_as(x))


def from_the_given(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, start=lambda x, z, m: torch.where(
        m, alpha[0] * z + sigma[0] * x, x))  # fmt: skip


def by_products(network, z, given, noise, alpha, sigma, scale):
    return _walk(network, z, given, noise, alpha, sigma, scale, end=lambda x, z, m: m.to(z) * z + (1 - m.to(z)) * x)


EXERCISE = Exercise(
    name="align_your_latents.filled",
    title="Frames that are given, in a film of noise",
    difficulty=3,
    minutes=20,
    statement="""
        Write the whole sampler of a film of which some frames are given: what goes on from one or two frames, and what
        fills between them. In its training the network has seen every frame noisy, the given ones too; clean they came
        in as $c_S$ alone. So what does the film begin with, what is put back, and when? Guidance by the given frames
        is section 3.2's $f(z_t) + s\\,(f(z_t; c_S) - f(z_t))$.
        """,
    hints=(
        "What did x_t hold in the places of given frames, in training? What should it hold in sampling?",
        "Noise everywhere, also where frames are given; they are told by c_S, at each step. The network's own version "
        "of them is thrown away at the end.",
        "known = cat(where(m, z, 0), m); in each step eps = alone + scale (told - alone), x_0 = (x - sigma eps) / "
        "alpha, the next x from both; at last where(m, z, x).",
    ),
    compare="Compare: a network that was never told of given frames, as chapter 16's, gets them put back after each "
            "step, as noisy as the rest. Why is that wrong here, and why does it look right?",
    stub=stub,
    gradients=False,  # it films; nothing is trained through it
    solution=solution,
    cases=cases,
    check=check,
    wrong={"by_products": WrongAnswer(by_products, "with NaN in the frames of z that are not given")},
    mistakes={
        "clean_at_the_start": Mistake(clean_at_the_start, "you begin with the given frames clean in a film of noise. "
                                      "The network has never seen a clean frame at that time: noise in all of them."),
        "clean_after_each_step": Mistake(clean_after_each_step, "you put the given frames in clean, at each step. The "
                                         "network expects every frame as noisy as its time says; c_S tells them."),
        "noised_after_each_step": Mistake(noised_after_each_step, "you put the given frames back, noised, after each "
                                          "step. That is how to go on with a network that cannot be told what is "
                                          "given, as chapter 16's. This one is told, by c_S, and films those frames "
                                          "itself as it did in training."),
        "noised_before_each_step": Mistake(noised_before_each_step, "you put the given frames in, noised, before each "
                                           "step, the first too. Begin with the noise alone, and let the network film "
                                           "those frames: c_S tells it of them."),
        "put_into_each_guess": Mistake(put_into_each_guess, "you put the given frames into each guess x_0 of the clean "
                                       "film. Let it be the network's own in all frames, and put them in once, at the "
                                       "end."),
        "left_as_filmed": Mistake(left_as_filmed, "the given frames come back as the network filmed them. They are "
                                  "known: put them in at the end."),
        "the_whole_film_told": Mistake(the_whole_film_told, "c_S holds all of z. Where no frame is given there are "
                                       "zeros."),
        "never_told": Mistake(never_told, "the given frames change nothing of the others: c_S does not reach the "
                              "network, or its answer does not reach eps."),
        "mask_left_at_one": Mistake(mask_left_at_one, "where nothing is to be told you leave the mask at 1. That tells "
                                    "the network of given frames of zeros; the mask is 0 there too."),
        "scale_forgotten": Mistake(scale_forgotten, "the scale changes nothing: you take the told answer as it is."),
        "scale_on_top": Mistake(scale_on_top, "you add the arrow to the told answer, so that your scale is one too "
                                "small: it begins at the answer that is told nothing."),
        "guided_from_the_told": Mistake(guided_from_the_told, "your guidance is turned round: it goes from the told "
                                        "answer to the one that is told nothing, so that at scale 1 nothing is told."),
        "guided_away": Mistake(guided_away, "your arrow points away from the given frames: it is the told answer "
                               "minus the one that is told nothing."),
        "one_noise_for_all_frames": Mistake(one_noise_for_all_frames, "every frame begins with the first one's noise. "
                                            "The training's frames each had their own."),
        "from_the_given": Mistake(from_the_given, "you begin with a share of the given frames in the noise. Nearly "
                                  "right for a schedule that ends in noise; but the film begins with `noise` itself."),
    },
)  # fmt: skip
