"""In which order tokens stand, if they stand window by window."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    """Which token stands at each place, if the tokens of a film stand window by window: int64 [time * rows * columns].

    size: the film's (time, rows, columns) in tokens, which are numbered over time, then rows, then columns; window: the
    same of a window, which divides the film. Windows, and the tokens in a window, run in that order too.
    """
    raise NotImplementedError


def solution(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    """Which token stands at each place, if the tokens of a film stand window by window."""
    (t, h, w), (a, b, c) = size, window
    tokens = torch.arange(t * h * w).reshape(t // a, a, h // b, b, w // c, c)
    return tokens.permute(0, 2, 4, 1, 3, 5).reshape(-1)


def cases() -> Iterator[Case]:
    yield Case(((1, 1, 1), (1, 1, 1)), "one token")
    yield Case(((3, 4, 4), (1, 4, 4)), "windows of one frame: the tokens stand as they were")
    yield Case(((3, 4, 4), (3, 2, 2)), "windows over all of time and half of each side")
    yield Case(((3, 2, 2), (1, 1, 1)), "each token a window: the identity")
    yield Case(((2, 2, 6), (1, 2, 2)), "windows in a row")
    for _ in range(5):
        counts, window = torch.randint(1, 4, (3,)).tolist(), torch.randint(1, 5, (3,)).tolist()
        size = tuple(n * side for n, side in zip(counts, window, strict=True))
        yield Case((size, tuple(window)), "sides that differ")
    yield Case(((4, 6, 9), (2, 2, 3)), "several windows along each axis")


def the_other_way(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return solution(size, window).argsort()


def _ordered(size: tuple, window: tuple, order: str, inside: str = "(T a) (H b) (W c)") -> Tensor:
    (t, h, w), (a, b, c) = size, window
    tokens = torch.arange(t * h * w).reshape(t, h, w)
    return rearrange(tokens, f"{inside} -> {order}", T=t // a, H=h // b, W=w // c).reshape(-1)


def columns_before_rows(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(T W H) (a b c)")


def columns_before_rows_inside(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(T H W) (a c b)")


def every_second(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(T H W) (a b c)", "(a T) (b H) (c W)")


def sides_for_counts(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return solution(size, tuple(side // of for side, of in zip(size, window, strict=True)))


def places_before_windows(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(a b c) (T H W)")


def as_they_were(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return torch.arange(size[0] * size[1] * size[2])


def frame_by_frame(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(T a) (H W) (b c)")


def time_last(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(H W T) (a b c)")


def time_last_inside(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(T H W) (b c a)")


def time_last_in_both(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    return _ordered(size, window, "(H W T) (b c a)")


EXERCISE = Exercise(
    name="walt.window_order",
    title="The order of the windows",
    difficulty=2,
    minutes=15,
    statement="""
        The kernels of chapter 17 attend within runs of tokens that stand side by side. The tokens of a window do not:
        in memory a film's tokens run over time, then rows, then columns, and a window's lie scattered. So the kernel
        is told in which order to visit them. Write that order: at the first places the tokens of the first window,
        then those of the second.
        """,
    hints=(
        "A token has six coordinates: which window along each axis, and where in it along each axis.",
        "Number the tokens, shape the numbers as [t/a, a, h/b, b, w/c, c]; then the three axes of windows come first.",
        "torch.arange(t*h*w).reshape(t//a, a, h//b, b, w//c, c).permute(0, 2, 4, 1, 3, 5).reshape(-1)",
    ),
    compare="Compare: `windows` in soralab/kernels/tables.py does this for a batch of films and adds where each window "
            "begins.",
    stub=stub,
    gradients=False,
    solution=solution,
    cases=cases,
    mistakes={
        "the_other_way": Mistake(the_other_way, "you say to which place each token goes. Asked is which token stands "
                                 "at each place: the inverse, which is the same only for some sizes."),
        "columns_before_rows": Mistake(columns_before_rows, "your windows run down the columns first. They run over "
                                       "time, then rows, then columns, as tokens do."),
        "columns_before_rows_inside": Mistake(columns_before_rows_inside, "the windows are right; within one you run "
                                              "down its columns first."),
        "every_second": Mistake(every_second, "you take every n-th token, so that a window's tokens are spread over "
                                "the whole film (a dilated window). A window is a box of neighbours: in the reshape "
                                "the count of windows comes before the side of one."),
        "sides_for_counts": Mistake(sides_for_counts, "you cut each axis into as many windows as a window is long. "
                                    "`window` says how long one is; there are t // a of them along time."),
        "places_before_windows": Mistake(places_before_windows, "you begin with the first token of every window, then "
                                         "take all second ones. A window's tokens stand side by side: which window "
                                         "comes before where in it."),
        "as_they_were": Mistake(as_they_were, "that is the order in memory. Cut into runs, it gives each window a part "
                                "of a row."),
        "frame_by_frame": Mistake(frame_by_frame, "you go through the windows of one frame, then of the next. A window "
                                  "that spans frames has all of them in one run."),
        "time_last": Mistake(time_last, "your windows run over rows and columns first and over time last; time comes "
                             "first."),
        "time_last_inside": Mistake(time_last_inside, "the windows are right; within one you run over rows and columns "
                                    "first and over time last."),
        "time_last_in_both": Mistake(time_last_in_both, "time runs last in your order, over windows and within one; "
                                     "it comes first in both."),
    },
)  # fmt: skip
