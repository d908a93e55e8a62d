"""Fractional positions: the place in the picture, not the number of the patch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(table: Tensor, side: int) -> Tensor:
    """The positions of `side` patches along one axis, [side, dim], read from a learned table [length, dim].

    Patch p has its middle at (p + 1/2) / side of the way; entry j of the table stands at (j + 1/2) / length. Between
    two entries a position is linear; beyond the first and the last entry it is that entry.
    """
    raise NotImplementedError


def solution(table: Tensor, side: int) -> Tensor:
    """The positions of `side` patches along one axis, [side, dim], read from a learned table [length, dim]."""
    where = (torch.arange(side) + 0.5) / side * len(table) - 0.5  # counted in entries
    where = where.clamp(0, len(table) - 1)
    low = where.long()
    high = (low + 1).clamp(max=len(table) - 1)
    share = (where - low)[:, None].to(table)
    return (1 - share) * table[low] + share * table[high]


def cases() -> Iterator[Case]:
    for length, side, note in ((4, 4, "a side as long as the table"), (4, 8, "twice as many patches"),
                               (6, 3, "half as many"), (5, 1, "a single patch"), (1, 3, "a table of one entry"),
                               (8, 7, ""), (3, 11, "")):  # fmt: skip
        yield Case((torch.randn(length, 5), side), note)
    for _ in range(4):
        length, side, dim = (int(torch.randint(2, 12, ())) for _ in range(3))
        yield Case((3 * torch.randn(length, dim) - 4, side), f"{side} patches from {length} entries")
    yield Case((torch.randn(6, 3, dtype=torch.float64), 9), "float64")


def _resampled(table: Tensor, side: int, **options) -> Tensor:
    return F.interpolate(table.T[None], side, **options)[0].T


def corners_on_corners(table, side):
    return _resampled(table, side, mode="linear", align_corners=True)


def nearest(table, side):
    return table[((torch.arange(side) + 0.5) / side * len(table)).long()]


def absolute(table, side):
    return table[torch.arange(side).clamp(max=len(table) - 1)]


def of_the_patch_s_start(table, side):
    where = (torch.arange(side) / side * len(table)).clamp(max=len(table) - 1)
    low = where.long()
    share = (where - low)[:, None].to(table)
    return (1 - share) * table[low] + share * table[(low + 1).clamp(max=len(table) - 1)]


def half_an_entry_late(table, side):
    where = ((torch.arange(side) + 0.5) / side * len(table)).clamp(max=len(table) - 1)
    low = where.long()
    share = (where - low)[:, None].to(table)
    return (1 - share) * table[low] + share * table[(low + 1).clamp(max=len(table) - 1)]


def shares_exchanged(table, side):
    where = ((torch.arange(side) + 0.5) / side * len(table) - 0.5).clamp(0, len(table) - 1)
    low = where.long()
    share = (where - low)[:, None].to(table)
    return share * table[low] + (1 - share) * table[(low + 1).clamp(max=len(table) - 1)]


def goes_on_beyond_the_ends(table, side):
    if len(table) == 1:
        return table.expand(side, -1)
    where = (torch.arange(side) + 0.5) / side * len(table) - 0.5
    low = where.floor().long().clamp(0, len(table) - 2)
    share = (where - low)[:, None].to(table)
    return (1 - share) * table[low] + share * table[low + 1]


EXERCISE = Exercise(
    name="navit.fractional",
    title="Half-way is half-way",
    difficulty=2,
    minutes=15,
    statement="""
        An absolute position says "the seventh patch". In a picture of eight that is the right-hand edge, in one of
        twenty not yet the middle. Section 2.1's fractional position says how far along the side a patch lies, so that
        half-way is half-way in every picture. The learned table is stretched over the side. Write it for one axis,
        without F.interpolate; rows and columns are then the same function, twice.
        """,
    hints=(
        "At which entry of the table does the middle of patch p lie, counted from 0, with fractions?",
        "(p + 1/2) / side * length - 1/2 entries. Cut it off at both ends, split it into a whole number and a rest.",
        "where.clamp(0, length - 1); low = where.long(); high is one more, but not beyond the last; (1 - rest) of one "
        "and rest of the other.",
    ),
    compare="Compare: what comes out where side is the table's length, and what is it that absolute positions give?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "corners_on_corners": Mistake(corners_on_corners, "you lay the first patch on the first entry and the last on "
                                      "the last. Then a middle is not a middle: patch p lies at (p + 1/2) / side."),
        "nearest": Mistake(nearest, "you take the nearest entry. Between two entries the position is between them."),
        "absolute": Mistake(absolute, "that is the absolute scheme: patch p has entry p, however long the side is."),
        "of_the_patch_s_start": Mistake(of_the_patch_s_start, "you measure to the start of patch and entry, not to the "
                                        "middles. A mirrored picture then has other positions than the mirrored ones."),
        "half_an_entry_late": Mistake(half_an_entry_late, "everything lies half an entry too late: entry j stands at "
                                      "(j + 1/2) / length, not at j / length."),
        "shares_exchanged": Mistake(shares_exchanged, "the two shares are exchanged: the nearer entry weighs more."),
        "goes_on_beyond_the_ends": Mistake(goes_on_beyond_the_ends, "beyond the first and the last entry you go on in "
                                           "a straight line. There the position is that of the entry."),
    },
)  # fmt: skip
