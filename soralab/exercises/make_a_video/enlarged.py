"""A sampler that makes frames larger one by one, with one noise for all frames of a film."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(network: Callable, draw: Callable, small: Tensor, alpha: list[float], sigma: list[float]) -> Tensor:
    """Each frame of small [batch, frames, c, h, w] made larger: [batch, frames, c, height, width].

    network(x, k, pictures) predicts the noise eps in x [n, c, height, width] at time number k, and is shown the n small
    pictures [n, c, h, w]; it knows no films. draw(k, n) gives n pictures of noise for time number k, each of its own
    and always the same ones. alpha, sigma [steps + 1]: the shares of picture and noise at each time, from noise (alpha
    > 0, though small) to picture (sigma 0).

    It begins with the noise for time 0, as it is drawn. In a step x_0 follows from x and eps, and x at the next time
    has x_0 and the noise that is drawn for that time, not eps, in their shares. Film i has the i-th picture of a draw.
    """
    raise NotImplementedError


def solution(network: Callable, draw: Callable, small: Tensor, alpha: list[float], sigma: list[float]) -> Tensor:
    """Each frame of small [batch, frames, c, h, w] made larger: [batch, frames, c, height, width]."""
    batch, frames = small.shape[:2]
    pictures = small.flatten(0, 1)
    x = draw(0, batch).repeat_interleave(frames, 0)
    for k in range(len(alpha) - 1):
        x0 = (x - sigma[k] * network(x, k, pictures)) / alpha[k]
        x = alpha[k + 1] * x0 + sigma[k + 1] * draw(k + 1, batch).repeat_interleave(frames, 0)
    return x.unflatten(0, (batch, frames))


def _parts(c: int, dtype) -> tuple[Callable, Callable]:
    """A network that doubles the sides, and its noise: each picture of a draw has a seed of its own."""
    mix, seed, sides = torch.randn(c, c, dtype=torch.float64), int(torch.randint(10**6, ())), (4, 2)

    def draw(k: int, n: int) -> Tensor:
        """n pictures of noise for time k."""
        seeds = [seed + 1000 * int(k) + j for j in range(n)]
        return torch.stack([torch.randn(c, *sides, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
                            for s in seeds]).to(dtype)  # fmt: skip

    def network(x: Tensor, k: int, pictures: Tensor) -> Tensor:
        """A fixed network of pictures, which listens to all that it is given."""
        shown = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return torch.tanh(torch.einsum("dc,nchw->ndhw", mix.to(x), x) + 0.7 * shown + 0.2 * k)

    return network, draw


def _case(batch: int, frames: int, c: int, steps: int, dtype=torch.float32) -> tuple:
    angle = torch.linspace(1.4, 0, steps + 1, dtype=torch.float64)
    alpha, sigma = angle.cos().tolist(), [*angle.sin().tolist()[:-1], 0.0]
    return *_parts(c, dtype), torch.randn(batch, frames, c, 2, 1, dtype=dtype), alpha, sigma


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 1, 1), "one picture, one step")
    yield Case(_case(1, 3, 1, 1), "three frames, one step")
    yield Case(_case(1, 3, 2, 2), "three frames, two steps")
    yield Case(_case(2, 3, 1, 1), "two films, one step")
    network, draw, small, *shares = _case(2, 3, 2, 3)
    yield Case((network, draw, small[:, :1].expand_as(small).contiguous(), *shares), "two films that stand still")
    yield Case(_case(3, 2, 2, 4), "three films, four steps")
    yield Case(_case(2, 2, 2, 5, torch.float64), "float64")
    yield Case(_case(2, 1, 3, 3), "films of one frame")


def _walk(network, draw, small, alpha, sigma, start=None, later=None, step=None):
    """The solution with another start, other noise later (k, batch, frames) or another step (x0, eps, noise, k)."""
    batch, frames = small.shape[:2]
    shared = lambda k, batch, frames: draw(k, batch).repeat_interleave(frames, 0)  # noqa: E731
    x = (start or shared)(0, batch, frames)
    for k in range(len(alpha) - 1):
        eps = network(x, k, small.flatten(0, 1))
        x0, noise = (x - sigma[k] * eps) / alpha[k], (later or shared)(k + 1, batch, frames)
        x = step(x0, eps, noise, k) if step else alpha[k + 1] * x0 + sigma[k + 1] * noise
    return x.unflatten(0, (batch, frames))


def each_frame_its_own(network, draw, small, alpha, sigma):
    own = lambda k, batch, frames: draw(k, batch * frames)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, own, own)


def start_alone_shared(network, draw, small, alpha, sigma):
    return _walk(network, draw, small, alpha, sigma, later=lambda k, batch, frames: draw(k, batch * frames))


def start_not_shared(network, draw, small, alpha, sigma):
    return _walk(network, draw, small, alpha, sigma, start=lambda k, batch, frames: draw(k, batch * frames))


def one_for_all_films(network, draw, small, alpha, sigma):
    one = lambda k, batch, frames: draw(k, 1).expand(batch * frames, -1, -1, -1)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, one, one)


def one_for_each_moment(network, draw, small, alpha, sigma):
    moment = lambda k, batch, frames: draw(k, frames).repeat(batch, 1, 1, 1)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, moment, moment)


def dealt_out(network, draw, small, alpha, sigma):
    dealt = lambda k, batch, frames: draw(k, batch).repeat(frames, 1, 1, 1)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, dealt, dealt)


def averaged(network, draw, small, alpha, sigma):
    def mean(k, batch, frames):
        return draw(k, batch * frames).unflatten(0, (batch, frames)).mean(1).repeat_interleave(frames, 0)

    return _walk(network, draw, small, alpha, sigma, mean, mean)


def first_of_many(network, draw, small, alpha, sigma):
    first = lambda k, batch, frames: draw(k, batch * frames)[::frames].repeat_interleave(frames, 0)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, first, first)


def same_at_all_times(network, draw, small, alpha, sigma):
    always = lambda k, batch, frames: draw(0, batch).repeat_interleave(frames, 0)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, later=always)


def drawn_for_the_time_before(network, draw, small, alpha, sigma):
    before = lambda k, batch, frames: draw(k - 1, batch).repeat_interleave(frames, 0)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, later=before)


def nothing_fresh(network, draw, small, alpha, sigma):
    step = lambda x0, eps, noise, k: alpha[k + 1] * x0 + sigma[k + 1] * eps  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, step=step)


def fresh_on_top(network, draw, small, alpha, sigma):
    step = lambda x0, eps, noise, k: alpha[k + 1] * x0 + sigma[k + 1] * (eps + noise)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, step=step)


def shares_of_the_time_before(network, draw, small, alpha, sigma):
    step = lambda x0, eps, noise, k: alpha[k] * x0 + sigma[k] * noise  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, step=step)


def sigma_forgotten(network, draw, small, alpha, sigma):
    def step(x0, eps, noise, k):
        off = x0 - (1 - sigma[k]) * eps / alpha[k]  # (x - eps) / alpha
        return alpha[k + 1] * off + sigma[k + 1] * noise

    return _walk(network, draw, small, alpha, sigma, step=step)


def start_in_its_share(network, draw, small, alpha, sigma):
    share = lambda k, batch, frames: sigma[0] * draw(k, batch).repeat_interleave(frames, 0)  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, start=share)


def no_noise_on_the_way(network, draw, small, alpha, sigma):
    return _walk(network, draw, small, alpha, sigma, step=lambda x0, eps, noise, k: alpha[k + 1] * x0)


def eps_for_x0(network, draw, small, alpha, sigma):
    step = lambda x0, eps, noise, k: alpha[k + 1] * eps + sigma[k + 1] * noise  # noqa: E731
    return _walk(network, draw, small, alpha, sigma, step=step)


EXERCISE = Exercise(
    name="make_a_video.enlarged",
    title="One noise for all frames",
    difficulty=3,
    minutes=20,
    statement="""
        The last network makes each frame larger alone, since a film in full size fits into no memory. What it adds, it
        adds out of noise, and other noise gives other details: nine frames, nine opinions, and the film flickers. So
        all frames of a film have the same noise (section 3.2). With DDIM it would be enough to share the first one.
        Here fresh noise comes in at each step, as it does in DDPM: write that sampler. Two films still have nothing in
        common.
        """,
    hints=(
        "How many pictures of noise does a step need for two films of nine frames? Who gets which?",
        "draw(k, batch), one for each film, and each of them repeated for its frames. The frames of a film lie one "
        "after the other in the flattened batch: repeat, or repeat_interleave?",
        "x = draw(0, batch).repeat_interleave(frames, 0); in each step x_0 = (x - sigma eps) / alpha, then the next "
        "shares of x_0 and of draw(k + 1, batch), repeated in the same way.",
    ),
    compare="Compare: a thing moves, and its noise stands still. What could you see on the thing's surface, and what "
            "would noise have to do instead?",
    stub=stub,
    gradients=False,  # it samples; nothing is trained through it
    solution=solution,
    cases=cases,
    mistakes={
        "each_frame_its_own": Mistake(each_frame_its_own, "every frame of yours has noise of its own, and would get "
                                      "details of its own: that is the flicker."),
        "start_alone_shared": Mistake(start_alone_shared, "you share the noise at the start, and draw it anew for each "
                                      "frame in the steps. Whatever comes in later must be shared too."),
        "start_not_shared": Mistake(start_not_shared, "the fresh noise of each step is shared; the one that you begin "
                                    "with is not."),
        "one_for_all_films": Mistake(one_for_all_films, "all films have one noise. It is shared by the frames of a "
                                     "film; two films have nothing in common."),
        "one_for_each_moment": Mistake(one_for_each_moment, "you share noise between films, frame by frame: all first "
                                       "frames have one. It is the frames of one film that share it."),
        "dealt_out": Mistake(dealt_out, "you repeat the whole draw, so that one film's frames get the noise of one "
                             "film after the other. In the flattened batch a film's frames lie together: "
                             "repeat_interleave."),
        "averaged": Mistake(averaged, "you draw noise for each frame and take the mean. A mean of nine has a third of "
                            "the strength, and the network was never shown such weak noise."),
        "first_of_many": Mistake(first_of_many, "you draw noise for every frame and keep that of each film's first. "
                                 "It is shared as it should be; but film i has the i-th picture of a draw."),
        "same_at_all_times": Mistake(same_at_all_times, "the noise of the start comes back at every step. Fresh noise "
                                     "is drawn for each time: draw(k + 1, ...)."),
        "drawn_for_the_time_before": Mistake(drawn_for_the_time_before, "in each step you take the noise that was "
                                             "drawn for the time before; the first step gets the start's again."),
        "nothing_fresh": Mistake(nothing_fresh, "you go on with eps, as DDIM does. In this sampler the noise at the "
                                 "next time is a fresh one."),
        "fresh_on_top": Mistake(fresh_on_top, "you add fresh noise to eps: together they are stronger than their "
                                "share. The fresh one comes in its place."),
        "shares_of_the_time_before": Mistake(shares_of_the_time_before, "you mix x_0 and noise in the shares of the "
                                             "time that you come from. They are those of the next one, k + 1."),
        "sigma_forgotten": Mistake(sigma_forgotten, "you take all of eps from x. There is sigma of it in x: x_0 = (x - "
                                   "sigma eps) / alpha."),
        "start_in_its_share": Mistake(start_in_its_share, "you begin with sigma times the noise. It begins with the "
                                      "noise itself, as it is drawn."),
        "no_noise_on_the_way": Mistake(no_noise_on_the_way, "on the way no noise comes in. At each next time there is "
                                       "sigma of a fresh one beside x_0."),
        "eps_for_x0": Mistake(eps_for_x0, "you take the network's answer for the picture. It is the noise: solve x = "
                              "alpha x_0 + sigma eps for x_0."),
    },
)  # fmt: skip
