"""Positions for a larger picture: section 3.2."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on the grid `old`, stretched to the grid `new`.

    positions [1 + rows * columns, dim], row 0 the class token's; old, new (rows, columns). Returns the same for `new`:
    linear between neighbours, and the four corners of the new grid on the corners of the old one.
    """
    raise NotImplementedError


def solution(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on the grid `old`, stretched to the grid `new`: [1 + rows * columns, dim]."""
    grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
    grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
    return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])


def cases() -> Iterator[Case]:
    for old, new, note in (((4, 4), (4, 4), "the same grid"), ((2, 2), (3, 3), "a new cell between any two"),
                           ((3, 5), (6, 7), "grids that are not square"), ((6, 4), (3, 2), "a smaller picture"),
                           ((1, 4), (1, 7), "a single row")):
        yield Case((torch.randn(1 + old[0] * old[1], 6), old, new), note)
    for _ in range(4):
        rows, columns, height, width = (int(torch.randint(2, 8, ())) for _ in range(4))
        positions = 3 * torch.randn(1 + rows * columns, int(torch.randint(1, 9, ()))) - 5
        yield Case((positions, (rows, columns), (height, width)), f"from {rows} x {columns} to {height} x {width}")
    yield Case((torch.randn(1 + 6, 3, dtype=torch.float64), (2, 3), (5, 4)), "float64")


def _stretched(positions: Tensor, old: tuple[int, int], new: tuple[int, int], **options) -> Tensor:
    grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
    grid = F.interpolate(grid, new, **options)
    return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])


def _with(**options) -> Callable:
    return lambda positions, old, new: _stretched(positions, old, new, **options)


def one_line(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    line = F.interpolate(positions[1:].T[None], new[0] * new[1], mode="linear", align_corners=True)
    return torch.cat([positions[:1], line[0].T])


def class_token_too(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    line = F.interpolate(positions.T[None], 1 + new[0] * new[1], mode="linear", align_corners=True)
    return line[0].T


def class_token_lost(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return solution(positions, old, new)[1:]


def class_token_last(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return solution(positions, old, new).roll(-1, 0)


def wide_is_high(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return torch.cat([positions[:1], solution(positions, old[::-1], new[::-1])[1:]])


def unchanged(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return positions


EXERCISE = Exercise(
    name="vit.interpolate_positions",
    title="Positions for a larger picture",
    difficulty=2,
    minutes=15,
    statement="""
        Section 3.2: a model that learned on small pictures is to read larger ones. The patch stays, so the grid grows,
        and with it the number of positions needed. The paper interpolates the learned ones in two dimensions. Besides
        cutting into patches, this is the only place where the ViT is told by hand that a picture has two dimensions.
        """,
    hints=(
        "Which row must not be stretched at all? And what shape do the others have, seen as a map?",
        "F.interpolate wants [batch, channel, height, width]: make the width D the channels. Mind align_corners.",
        'Set positions[:1] aside; rearrange the rest to "1 dim rows columns"; F.interpolate(grid, new, '
        'mode="bilinear", align_corners=True); back to rows; torch.cat.',
    ),
    compare="Compare: how does the course's own say which corners lie on which?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "class_token_lost": Mistake(class_token_lost, "the patches' positions are right, and one row is missing: the "
                                    "class token has a position too. It comes first, and is kept as it is."),
        "class_token_last": Mistake(class_token_last, "the class token's position stands at the end. It is row 0, "
                                    "before and after."),
        "class_token_too": Mistake(class_token_too, "the class token was stretched along with the patches. It stands "
                                   "nowhere in the picture: set row 0 aside, and put it back."),
        "one_line": Mistake(one_line, "you stretch the sequence as one line. It was a grid: the end of a row is no "
                            "neighbour of the next row's start."),
        "corners_off": Mistake(_with(mode="bilinear", align_corners=False), "the corners have moved: without "
                               "align_corners=True the cells are areas, and the borders of the two grids are laid on "
                               "one another. Here they are points, and the corner points are."),
        "nearest": Mistake(_with(mode="nearest"), "you repeat the nearest position. Between two positions the new one "
                           "lies between them."),
        "bicubic": Mistake(_with(mode="bicubic", align_corners=True), "that is the bicubic curve, as torchvision "
                           "draws it. The official code, and this exercise, are linear."),
        "wide_is_high": Mistake(wide_is_high, "rows and columns are exchanged: it goes unnoticed as long as the "
                                "grids are square."),
        "unchanged": Mistake(unchanged, "you return the old positions. The new grid has another number of places."),
    },
)  # fmt: skip
