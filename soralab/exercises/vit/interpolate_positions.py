"""Positions for a larger picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _stretch_stub(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on the grid `old`, stretched to the grid `new`.

    positions [1 + rows * columns, dim], row 0 the class token's; old, new (rows, columns). Returns the same for `new`:
    linear between neighbours, and the four corners of the new grid on the corners of the old one.
    """
    raise NotImplementedError


def _stretch(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on the grid `old`, stretched to the grid `new`: [1 + rows * columns, dim]."""
    grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
    grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
    return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])


def _stretch_with(**options) -> Callable:
    def wrong(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
        grid = F.interpolate(grid, new, **options)
        return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])

    return wrong


_corners_off = _stretch_with(mode="bilinear", align_corners=False)


_nearest = _stretch_with(mode="nearest")


_bicubic = _stretch_with(mode="bicubic", align_corners=True)


def _one_line(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    line = F.interpolate(positions[1:].T[None], new[0] * new[1], mode="linear", align_corners=True)
    return torch.cat([positions[:1], line[0].T])


def _class_token_too(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    line = F.interpolate(positions.T[None], 1 + new[0] * new[1], mode="linear", align_corners=True)
    return line[0].T


def _class_token_lost(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return _stretch(positions, old, new)[1:]


def _class_token_last(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return _stretch(positions, old, new).roll(-1, 0)


def _wide_is_high(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return torch.cat([positions[:1], _stretch(positions, old[::-1], new[::-1])[1:]])


STRETCH_MISTAKES = (
    (_class_token_last, "the class token's position stands at the end. It is row 0, before and after."),
    (_class_token_too, "the class token was stretched along with the patches. It stands nowhere in the picture: set "
     "row 0 aside, and put it back."),
    (_one_line, "you stretch the sequence as one line. It was a grid: the end of a row is no neighbour of the next "
     "row's start."),
    (_corners_off, "the corners have moved: without align_corners=True the cells are areas, and the borders of the two "
     "grids are laid on one another. Here they are points, and the corner points are."),
    (_nearest, "you repeat the nearest position. Between two positions the new one lies between them."),
    (_bicubic, "that is the bicubic curve, as torchvision draws it. The official code, and this exercise, are linear."),
    (_wide_is_high, "rows and columns are exchanged: it goes unnoticed as long as the grids are square."),
)  # fmt: skip


def _stretch_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for old, new in (((4, 4), (6, 6)), ((3, 5), (6, 7)), ((2, 6), (4, 3)), ((4, 4), (4, 4))):
        positions = numbers(1 + old[0] * old[1], 8, seed=3)
        got, want = fn(positions, old, new), _stretch(positions, old, new)
        case = f"From {old[0]} x {old[1]} to {new[0]} x {new[1]}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        yield (
            tuple(got.shape) != (new[0] * new[1], 8),
            f"{case}: one row is missing. The class token has a position too; it comes first.",
        )
        yield got.shape == want.shape, f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}."
        for mistake, says in STRETCH_MISTAKES:
            other = mistake(positions, old, new)
            yield same(got, want) or not same(got, other), f"{case}: {says}"
        yield torch.allclose(got[0], want[0]), f"{case}: row 0, the class token's, has changed. It is kept as it is."
        yield same(got, want), f"{case}: the numbers differ from the linear ones between the old grid's corners."


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
    stub=_stretch_stub,
    solution=_stretch,
    check=_stretch_check,
    wrong={
        "class_token_lost": WrongAnswer(_class_token_lost, "one row is missing"),
        "class_token_last": WrongAnswer(_class_token_last, "stands at the end"),
        "class_token_stretched": WrongAnswer(_class_token_too, "set row 0 aside"),
        "one_line": WrongAnswer(_one_line, "as one line"),
        "corners_off": WrongAnswer(_corners_off, "the corners have moved"),
        "nearest": WrongAnswer(_nearest, "repeat the nearest"),
        "bicubic": WrongAnswer(_bicubic, "as torchvision draws it"),
        "rows_for_columns": WrongAnswer(_wide_is_high, "rows and columns are exchanged"),
    },
)
