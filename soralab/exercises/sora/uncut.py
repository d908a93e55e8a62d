"""From patches back to a film."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    """The film [batch, time, channel, height, width] that was cut into tokens [batch, n, pt * ph * pw * channel].

    patch is (pt, ph, pw), and size the film's (time, height, width), which the patch divides. Tokens run over time,
    then rows, then columns; so do the values in a token, each with all its channels.
    """
    raise NotImplementedError


def solution(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    """The film [batch, time, channel, height, width] that was cut into tokens [batch, n, pt * ph * pw * channel]."""
    (pt, ph, pw), (t, h, w) = patch, size
    boxes = tokens.reshape(len(tokens), t // pt, h // ph, w // pw, pt, ph, pw, -1)  # which box, where in it, channel
    boxes = boxes.permute(0, 1, 4, 7, 2, 5, 3, 6)  # batch, (which, where) of time, channel, of the row, of the column
    return boxes.reshape(len(tokens), t, -1, h, w)


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 1, 2), (1, 1, 1), (1, 1, 1)), "one patch of one pixel")
    yield Case((torch.randn(1, 6, 4), (1, 1, 2), (1, 3, 4)), "a picture, a film of one frame")
    yield Case((torch.randn(2, 20, 32), (1, 2, 2), (5, 4, 4)), "the model's own patch")
    for _ in range(4):
        batch, pt, ph, pw, c, t, h, w = (int(torch.randint(1, 5, ())) for _ in range(8))
        tokens = torch.randn(batch, t * h * w, pt * ph * pw * c)
        yield Case((tokens, (pt, ph, pw), (t * pt, h * ph, w * pw)), "sides that differ")
    tokens = torch.randn(2, 2 * 3 * 4, 3 * 2 * 5 * 2, dtype=torch.float64)
    yield Case((tokens, (3, 2, 5), (6, 6, 20)), "float64, all sides different")


def _boxes(tokens: Tensor, patch: tuple, size: tuple, inside: str, outside: str = "t h w") -> Tensor:
    (pt, ph, pw), (t, h, w) = patch, size
    return rearrange(tokens, f"b ({outside}) ({inside}) -> b (t pt) c (h ph) (w pw)",
                     t=t // pt, h=h // ph, w=w // pw, pt=pt, ph=ph, pw=pw)


def only_reshaped(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    t, h, w = size
    return tokens.reshape(len(tokens), t, -1, h, w)


def channels_first(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    return _boxes(tokens, patch, size, "c pt ph pw")


def time_last_inside(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    return _boxes(tokens, patch, size, "ph pw pt c")


def columns_before_rows_inside(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    return _boxes(tokens, patch, size, "pt pw ph c")


def columns_before_rows(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    return _boxes(tokens, patch, size, "pt ph pw c", "t w h")


def time_runs_fastest(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    return _boxes(tokens, patch, size, "pt ph pw c", "h w t")


def interleaved(tokens: Tensor, patch: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    (pt, ph, pw), (t, h, w) = patch, size
    return rearrange(tokens, "b (t h w) (pt ph pw c) -> b (pt t) c (ph h) (pw w)",
                     t=t // pt, h=h // ph, w=w // pw, pt=pt, ph=ph, pw=pw)


EXERCISE = Exercise(
    name="sora.uncut",
    title="From patches back to a film",
    difficulty=1,
    minutes=10,
    statement="""
        The transformer answers in tokens, and the sampler wants a film. `cut`, at the top of the chapter, went one way;
        write the way back. A wrong order of the axes raises no error, and a network trained with it would even learn:
        it would call other places neighbours.
        """,
    hints=(
        "Eight axes: batch; which box in time, row and column; where in the box in time, row and column; channel.",
        "First a reshape to these eight, in the order in which they lie in the tokens. Then a permute that puts "
        "'which' and 'where' of each side next to each other. Then a reshape that merges them.",
        "permute(0, 1, 4, 7, 2, 5, 3, 6): batch, time and time, channel, row and row, column and column.",
    ),
    compare="Compare: `unpatchify` in soralab/blocks/patches.py says the same in one line of einops.",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "only_reshaped": Mistake(only_reshaped, "a reshape alone gives the right shape and moves nothing: what lay in "
                                 "one token still lies in one row of memory. The axes must change places: permute."),
        "channels_first": Mistake(channels_first, "inside a token you read all pixels of the first channel, then of "
                                  "the second. Here each pixel's channels lie together: the channel runs fastest."),
        "time_last_inside": Mistake(time_last_inside, "inside a token you let time run faster than row and column. It "
                                    "runs slowest, in the token as among the tokens."),
        "columns_before_rows_inside": Mistake(columns_before_rows_inside, "inside a token you read down the columns "
                                              "first. A box is read as the film is: along a row, then the next."),
        "columns_before_rows": Mistake(columns_before_rows, "your tokens run down the columns first. They run as one "
                                       "reads: along a row, then the next row."),
        "time_runs_fastest": Mistake(time_runs_fastest, "you take neighbouring tokens for neighbours in time. Time "
                                     "runs slowest: first all boxes of the first frames."),
        "interleaved": Mistake(interleaved, "you merge 'where in the box' before 'which box': every box is scattered "
                               "over the whole film. Which box comes first, where in it second."),
    },
)  # fmt: skip
