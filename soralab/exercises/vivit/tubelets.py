"""A film cut into tubelets, and each made a token."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(film: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A film's tokens [batch, n_t * n_h * n_w, dim], over time, then rows, then columns.

    film [batch, time, channel, height, width]. kernel [dim, channel, t, h, w] and bias [dim] are those of a torch
    Conv3d: a token is the bias and the sum of a tubelet's t x h x w pixels, each times its number in the kernel. The
    first tubelet begins at the film's first frame, in its corner; the others lie side by side. n_t = floor(time / t),
    n_h and n_w alike, so what is left at an end is not read.
    """
    raise NotImplementedError


def solution(film: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A film's tokens [batch, n_t * n_h * n_w, dim], over time, then rows, then columns."""
    tokens = F.conv3d(film.transpose(1, 2), kernel, bias, stride=kernel.shape[2:])
    return rearrange(tokens, "b dim t h w -> b (t h w) dim")


def _case(batch: int, channels: int, dim: int, film: tuple, tubelet: tuple, dtype=torch.float32) -> tuple:
    time, height, width = film
    pixels = torch.randn(batch, time, channels, height, width, dtype=dtype)
    return pixels, torch.randn(dim, channels, *tubelet, dtype=dtype), torch.randn(dim, dtype=dtype)


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 1, (1, 1, 1), (1, 1, 1)), "one pixel")
    yield Case(_case(1, 1, 1, (2, 2, 2), (2, 2, 2)), "one tubelet")
    yield Case(_case(1, 2, 3, (4, 2, 2), (2, 2, 2)), "two tubelets, one after the other")
    yield Case(_case(2, 3, 4, (3, 4, 6), (1, 2, 2)), "tubelets of one frame")
    yield Case(_case(1, 3, 2, (4, 4, 6), (2, 2, 3)), "sides that differ")
    yield Case(_case(1, 2, 3, (5, 4, 4), (2, 2, 2)), "a frame left over")
    yield Case(_case(2, 3, 3, (3, 5, 7), (3, 2, 3)), "pixels left over")
    yield Case(_case(2, 3, 8, (8, 2, 2), (4, 2, 2)), "four frames a tubelet")
    yield Case(_case(2, 3, 4, (4, 4, 4), (2, 2, 2), torch.float64), "float64")
    for _ in range(4):
        batch, channels, dim, *tubelet = torch.randint(1, 5, (6,)).tolist()
        counts, left = torch.randint(1, 4, (3,)).tolist(), torch.rand(3)
        film = tuple(n * side + int(more * side) for n, side, more in zip(counts, tubelet, left.tolist(), strict=True))
        yield Case(_case(batch, channels, dim, film, tuple(tubelet)))


def _ordered(order: str):
    def tokens(film, kernel, bias):
        made = F.conv3d(film.transpose(1, 2), kernel, bias, stride=kernel.shape[2:])
        return rearrange(made, f"b dim t h w -> {order}")

    return tokens


def _cut(film: Tensor, kernel: Tensor, first: int = 0) -> Tensor:
    """A film without what is left over at its ends; first: 1 for the end kept and the beginning left out."""
    sides = (film.shape[1], *film.shape[3:])
    starts = [(side % p) * first for side, p in zip(sides, kernel.shape[2:], strict=True)]
    (a, la), (b, lb), (c, lc) = ((s, side // p * p) for s, side, p in zip(starts, sides, kernel.shape[2:], strict=True))
    return film[:, a : a + la, :, b : b + lb, c : c + lc]


def names_exchanged(film, kernel, bias):
    b, t, c, h, w = film.shape
    return solution(film.reshape(b, c, t, h, w).transpose(1, 2), kernel, bias)


def reshaped_at_the_end(film, kernel, bias):
    tokens = F.conv3d(film.transpose(1, 2), kernel, bias, stride=kernel.shape[2:])
    return tokens.reshape(len(film), -1, len(kernel))


def every_second_frame(film, kernel, bias):
    return solution(rearrange(_cut(film, kernel), "b (p t) ... -> b (t p) ...", p=kernel.shape[2]), kernel, bias)


def spread_in_space(film, kernel, bias):
    p, q = kernel.shape[3:]
    spread = rearrange(_cut(film, kernel), "b t c (p h) (q w) -> b t c (h p) (w q)", p=p, q=q)
    return solution(spread, kernel, bias)


def step_of_one(film, kernel, bias):
    return rearrange(F.conv3d(film.transpose(1, 2), kernel, bias), "b dim t h w -> b (t h w) dim")


def frame_by_frame(film, kernel, bias):
    tokens = F.conv3d(film.transpose(1, 2), kernel, bias, stride=(1, *kernel.shape[3:]))
    return rearrange(tokens, "b dim t h w -> b (t h w) dim")


def filled_with_zeros(film, kernel, bias):
    (t, h, w), (time, height, width) = kernel.shape[2:], (film.shape[1], *film.shape[3:])
    return solution(F.pad(film, (0, -width % w, 0, -height % h, 0, 0, 0, -time % t)), kernel, bias)


def from_the_end(film, kernel, bias):
    return solution(_cut(film, kernel, first=1), kernel, bias)


def without_bias(film, kernel, bias):
    return solution(film, kernel, torch.zeros_like(bias))


def turned_over(film, kernel, bias):
    return solution(film, kernel.flip(2, 3, 4), bias)


def played_backwards(film, kernel, bias):
    return solution(film, kernel.flip(2), bias)


def channels_last(film, kernel, bias):
    (t, h, w), cut = kernel.shape[2:], _cut(film, kernel)
    pixels = rearrange(cut, "b (p t) c (q h) (r w) -> b (p q r) (t h w c)", t=t, h=h, w=w)
    return pixels @ kernel.flatten(1).T + bias


def first_frame_alone(film, kernel, bias):
    return solution(_cut(film, kernel)[:, :: kernel.shape[2]], kernel[:, :, :1], bias)


EXERCISE = Exercise(
    name="vivit.tubelets",
    title="A film in tubelets",
    difficulty=1,
    minutes=10,
    statement="""
        Cut a film into boxes of t frames by h by w pixels, *tubelets*, and make each a token by one matrix (section
        3.2, figure 3). It is a convolution over time, rows and columns whose step is as long as its kernel, and the
        published weights are stored as such a kernel. Three things go wrong without a word: a film here has its time
        before its channels, a convolution wants them the other way round; tokens come out with `dim` in front; and the
        film need not be a whole number of tubelets long.
        """,
    hints=(
        "Which of the film's five axes does a Conv3d take for its channels? What tells you that yours is that one?",
        "F.conv3d of [batch, channel, time, height, width], with a stride of the kernel's own three sides. Its result "
        "has the axes [batch, dim, n_t, n_h, n_w]: what has to become of them?",
        "transpose(1, 2) before, stride=kernel.shape[2:], then flatten the last three axes and bring dim to the end by "
        "another transpose. A reshape in either's place gives the right shape and the wrong numbers.",
    ),
    compare="Compare: uniform frame sampling takes one frame of each t and cuts it as a picture is cut. Which kernel "
            "makes a tubelet of it? The next exercise starts from that one.",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "names_exchanged": Mistake(names_exchanged, "you hand the film's numbers to the convolution under other names: "
                                   "a reshape (or view) to [batch, channel, time, ...] leaves them where they lie, and "
                                   "so takes frames for colours. The axes have to change places: transpose."),
        "reshaped_at_the_end": Mistake(reshaped_at_the_end, "the tokens' numbers are right and belong to other tokens: "
                                       "a reshape of [batch, dim, ...] to [batch, tokens, dim] cuts them up anew. "
                                       "Flatten, then transpose."),
        "rows_before_time": Mistake(_ordered("b (h w t) dim"), "your tokens run over rows and columns first and over "
                                    "time last. They run over time, then rows, then columns."),
        "columns_before_rows": Mistake(_ordered("b (t w h) dim"), "your tokens run down the columns. They run over "
                                       "time, then rows, then columns."),
        "dim_in_front": Mistake(_ordered("b dim (t h w)"), "you return [batch, dim, tokens]: dim is the last axis."),
        "every_second_frame": Mistake(every_second_frame, "a tubelet of yours holds frames that do not follow one "
                                      "another: in the cut of the axis, which tubelet comes before which frame in it."),
        "spread_in_space": Mistake(spread_in_space, "a tubelet of yours holds pixels from all over the frame: in the "
                                   "cut of rows and columns, which tubelet comes before which pixel in it."),
        "step_of_one": Mistake(step_of_one, "your tubelets overlap, one begins at each pixel. The stride is as long as "
                               "the kernel, along all three axes."),
        "frame_by_frame": Mistake(frame_by_frame, "your tubelets overlap in time, one begins at each frame. The stride "
                                  "over time is t."),
        "filled_with_zeros": Mistake(filled_with_zeros, "you fill the film up to a whole number of tubelets. What is "
                                     "left at an end is not read: floor, not ceiling."),
        "from_the_end": Mistake(from_the_end, "you leave out what is too much at the film's beginning. The first "
                                "tubelet begins at the first frame, in its corner; the rest is left at the end."),
        "without_bias": Mistake(without_bias, "the bias is missing: each token has it added, once."),
        "turned_over": Mistake(turned_over, "you turn the kernel over. torch's convolutions do not; so a product with "
                               "the pixels as they lie is right."),
        "played_backwards": Mistake(played_backwards, "you turn the kernel over in time: each tubelet is read "
                                    "backwards."),
        "channels_last": Mistake(channels_last, "your pixels and the kernel's numbers are in different orders: a "
                                 "Conv3d's kernel has the channel first, `patchify` has it last."),
        "first_frame_alone": Mistake(first_frame_alone, "you read the first frame of each tubelet alone. All t of them "
                                     "count, each by its own numbers of the kernel."),
    },
)  # fmt: skip
