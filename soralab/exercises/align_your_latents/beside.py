"""A layer over time beside a layer of pictures, and alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(z: Tensor, layer: Callable, alpha: Tensor, frames: int) -> Tensor:
    """alpha z + (1 - alpha) z', of z's shape; z' is what `layer` makes of z along time.

    z [batch * frames, dim, height, width]: the frames of a film lie one after the other in the batch, film after film.
    layer takes sequences [n, frames, dim] and gives as many of the same shape; a sequence is one place of one film in
    all its frames. It is called once, with all of them: the first film's places, row by row, then the next film's.
    alpha: a scalar tensor from 0 to 1. At alpha = 1 the result is z itself, bit for bit, whatever finite numbers
    `layer` gives.
    """
    raise NotImplementedError


def solution(z: Tensor, layer: Callable, alpha: Tensor, frames: int) -> Tensor:
    """alpha z + (1 - alpha) z', of z's shape; z' is what `layer` makes of z along time."""
    height, width = z.shape[2:]
    new = layer(rearrange(z, "(b t) c h w -> (b h w) t c", t=frames))
    new = rearrange(new, "(b h w) t c -> (b t) c h w", h=height, w=width)
    return alpha * z + (1 - alpha) * new


def _layer(dim: int, strength: float = 1.0) -> Callable:
    mix = torch.randn(dim, dim, dtype=torch.float64) / dim**0.5

    def layer(x: Tensor) -> Tensor:
        """A layer that hears each frame and what came before it, in order, and which place it is at."""
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        place = 0.02 * torch.arange(len(x))[:, None, None]
        return strength * torch.tanh(x @ mix.to(x) + 0.5 * before + 0.1 * x.mean(1, keepdim=True) + place)

    return layer


def _case(batch: int, frames: int, dim: int, height: int, width: int, alpha: float, dtype=torch.float32) -> tuple:
    z = torch.randn(batch * frames, dim, height, width, dtype=dtype)
    return z, _layer(dim), torch.tensor(alpha, dtype=dtype), frames


def cases() -> Iterator[Case]:
    yield Case(_case(1, 3, 2, 1, 1, 0.5), "one film of one place")
    yield Case(_case(2, 3, 2, 1, 1, 0.5), "two films")
    yield Case(_case(1, 4, 3, 2, 3, 0.3), "places that are not as many as columns")
    yield Case(_case(3, 1, 2, 2, 2, 0.7), "films of one frame")
    yield Case(_case(2, 3, 4, 3, 2, 0.0), "alpha at 0: the new layer alone")
    yield Case(_case(2, 3, 4, 3, 2, 1.0), "alpha at 1: the painter")
    yield Case(_case(2, 2, 2, 2, 2, 0.4), "all sides alike")
    yield Case(_case(2, 5, 4, 2, 3, 0.9, torch.float64), "float64")
    for _ in range(3):
        sides = torch.randint(2, 6, (5,)).tolist()
        yield Case(_case(*sides, round(float(torch.rand(())), 2)))


def check(fn) -> Iterator[tuple[bool, str]]:
    for scale in (1e3, 1e8):
        z, _, alpha, frames = _case(2, 3, 4, 2, 3, 1.0)
        yield torch.equal(fn(z, _layer(4, scale), alpha, frames), z), (
            "at alpha = 1 the result is not z bit for bit where the new layer's numbers are large. z' + alpha (z - z') "
            "is equal on paper, but z - z' has lost z's last digits before z' is added again: weigh both, and add."
        )
    z, layer, alpha, frames = _case(2, 3, 4, 2, 3, 0.0)
    result = fn(z.requires_grad_(), layer, alpha, frames).square().sum()
    reached = result.requires_grad and torch.autograd.grad(result, z)[0].any()
    yield reached, (
        "no gradient comes back through the new layer: it is what is trained, so nothing on the way to it and from it "
        "may be detached."
    )
    z, layer, _, frames = _case(2, 3, 4, 2, 3, 0.0)
    alpha = torch.tensor(0.5, requires_grad=True)
    result = fn(z, layer, alpha, frames).square().sum()
    yield result.requires_grad and bool(torch.autograd.grad(result, alpha)[0] != 0), (
        "no gradient reaches alpha, and it is learned: weigh with the tensor itself, not with its number."
    )


def _moved(z: Tensor, layer: Callable, alpha: Tensor, there: str, back: str, **sides: int) -> Tensor:
    height, width = z.shape[2:]
    new = layer(rearrange(z, there, h=height, w=width, **sides))
    return alpha * z + (1 - alpha) * rearrange(new, back, h=height, w=width, **sides)


def frames_first(z, layer, alpha, frames):
    return _moved(z, layer, alpha, "(t b) c h w -> (b h w) t c", "(b h w) t c -> (t b) c h w", t=frames)


def read_as_it_lies(z, layer, alpha, frames):
    new = layer(z.reshape(-1, frames, z.shape[1]))
    return alpha * z + (1 - alpha) * new.reshape(z.shape)


def not_back_again(z, layer, alpha, frames):
    new = layer(rearrange(z, "(b t) c h w -> (b h w) t c", t=frames))
    return alpha * z + (1 - alpha) * new.reshape(z.shape)


def back_in_another_order(z, layer, alpha, frames):
    height, width = z.shape[2:]
    new = layer(rearrange(z, "(b t) c h w -> (b h w) t c", t=frames))
    return alpha * z + (1 - alpha) * rearrange(new, "(b h w) t c -> (t b) c h w", h=height, w=width)


def columns_first(z, layer, alpha, frames):
    return _moved(z, layer, alpha, "(b t) c h w -> (b w h) t c", "(b w h) t c -> (b t) c h w", t=frames)


def places_outermost(z, layer, alpha, frames):
    return _moved(z, layer, alpha, "(b t) c h w -> (h w b) t c", "(h w b) t c -> (b t) c h w", t=frames)


def _called_on(z: Tensor, alpha: Tensor, frames: int, each: Callable) -> Tensor:
    """each: what is made of all sequences [films, places, frames, dim]."""
    new = each(rearrange(z, "(b t) c h w -> b (h w) t c", t=frames))
    return alpha * z + (1 - alpha) * rearrange(new, "b (h w) t c -> (b t) c h w", h=z.shape[2])


def a_call_a_film(z, layer, alpha, frames):
    return _called_on(z, alpha, frames, lambda x: torch.stack([layer(film) for film in x]))


def a_call_a_place(z, layer, alpha, frames):
    return _called_on(z, alpha, frames, lambda x: torch.stack([layer(place) for place in x.unbind(1)], 1))


def a_call_a_sequence(z, layer, alpha, frames):
    each = lambda x: torch.stack([layer(one[None])[0] for one in x.flatten(0, 1)]).view_as(x)  # noqa: E731
    return _called_on(z, alpha, frames, each)


def along_places(z, layer, alpha, frames):
    return _moved(z, layer, alpha, "n c h w -> n (h w) c", "n (h w) c -> n c h w")


def films_together(z, layer, alpha, frames):
    return _moved(z, layer, alpha, "n c h w -> (h w) n c", "(h w) n c -> n c h w")


def shares_exchanged(z, layer, alpha, frames):
    return solution(z, layer, 1 - alpha, frames)


def added(z, layer, alpha, frames):
    return z + (1 - alpha) * solution(z, layer, torch.zeros_like(alpha), frames)


def from_the_new(z, layer, alpha, frames):
    new = solution(z, layer, torch.zeros_like(alpha), frames)
    return new + alpha * (z - new)


def cut_off(z, layer, alpha, frames):
    return solution(z, lambda x: layer(x).detach(), alpha, frames)


def a_number_for_alpha(z, layer, alpha, frames):
    return solution(z, layer, alpha.item(), frames)


EXERCISE = Exercise(
    name="align_your_latents.beside",
    title="Beside a frozen layer",
    difficulty=1,
    minutes=10,
    statement="""
        A painter's layer sees frames as pictures of a batch. What stands behind it is to see time: each place of the
        film as a sequence of its frames. So the axes are folded, the layer runs, the axes are folded back, and both
        answers are mixed by $\\alpha$. A wrong fold has the right shape, trains, and mixes what is not of one film.
        And at $\\alpha = 1$ the painter must be there again, to the last bit: that is the promise of section 3.1.
        """,
    hints=(
        "Which of the two is the outer one in the batch, the film or the frame? In einops: (b t), or (t b)?",
        "Places go into the batch: (b t) c h w -> (b h w) t c, with t=frames; then the same way back. einops must be "
        "told h and w on the way back.",
        'new = layer(rearrange(z, "(b t) c h w -> (b h w) t c", t=frames)), then rearrange back with h and w; each of '
        "the two weighed by its share, and added.",
    ),
    compare="Compare: what would happen to films of a batch if (b t) were read as (t b), and would the loss tell you?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={
        "from_the_new": WrongAnswer(from_the_new, "is not z bit for bit"),
        "cut_off": WrongAnswer(cut_off, "no gradient comes back through the new layer"),
        "a_number_for_alpha": WrongAnswer(a_number_for_alpha, "no gradient reaches alpha"),
    },
    mistakes={
        "frames_first": Mistake(frames_first, "you take the batch for (t b): frame after frame. It is film after film, "
                                "so your sequences jump from one film to another."),
        "read_as_it_lies": Mistake(read_as_it_lies, "you reshape z as it lies in memory. The channels lie before the "
                                   "places there, so your sequences are made of pieces of pictures: move the axes."),
        "not_back_again": Mistake(not_back_again, "the way there is right. On the way back you reshape as it lies in "
                                  "memory, and values come down at other places: move the axes back."),
        "back_in_another_order": Mistake(back_in_another_order, "the way there is right. On the way back you lay the "
                                         "frames of other films beside one another: it takes (b t), as it was."),
        "columns_first": Mistake(columns_first, "you hand the places over column by column: they are asked for row by "
                                 "row, as they lie in a frame."),
        "places_outermost": Mistake(places_outermost, "you hand a place over for all films before the next place: "
                                    "(h w b). The first film's places come first, (b h w)."),
        "a_call_a_film": Mistake(a_call_a_film, "you call the layer once for each film. It is called once, with the "
                                 "sequences of all films behind one another."),
        "a_call_a_place": Mistake(a_call_a_place, "you call the layer once for each place. It is called once: "
                                  "the places go into the batch, beside the films."),
        "a_call_a_sequence": Mistake(a_call_a_sequence, "you call the layer with one sequence at a time. It is called "
                                     "once, with all of them in its batch."),
        "along_places": Mistake(along_places, "your sequences are the places of one frame. That layer the painter has "
                                "already: over time, a sequence is one place in all frames."),
        "films_together": Mistake(films_together, "your sequences run through all films of the batch. A film must not "
                                  "hear of the others: the films go into the batch, beside the places."),
        "shares_exchanged": Mistake(shares_exchanged, "the shares are exchanged: alpha is the painter's."),
        "added": Mistake(added, "you add the new answer to z. Its share is taken from z: alpha z + (1 - alpha) z'."),
    },
)  # fmt: skip
