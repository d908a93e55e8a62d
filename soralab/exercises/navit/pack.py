"""Pictures into rows: appendix A.3."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(sizes: list[tuple[int, ...]], length: int) -> list[list[int]]:
    """Which pictures go into which row of `length` tokens, the paper's greedy way.

    sizes: of each picture (height, width), of a film (time, height, width), in patches; each fits into a row. Taken as
    they come, each goes into the first row that still has room for it, or else into a new one. Returns the rows, each
    the indices of its pictures in the order in which they came.
    """
    raise NotImplementedError


def solution(sizes: list[tuple[int, ...]], length: int) -> list[list[int]]:
    """Which pictures go into which row of `length` tokens: each into the first row that has room."""
    rows, room = [], []
    for k, size in enumerate(sizes):
        tokens = math.prod(size)
        row = next((r for r, free in enumerate(room) if tokens <= free), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(k)
        room[row] -= tokens
    return rows


def cases() -> Iterator[Case]:
    yield Case(([(2, 3), (5, 1), (1, 3), (2, 1), (2, 2)], 8), "room left in an earlier row")
    yield Case(([(2, 2), (2, 3), (1, 2)], 8), "two rows with room")
    yield Case(([(2, 4), (1, 8), (1, 1)], 8), "rows filled to the brim")
    yield Case(([(3, 3)], 9), "one picture, one row")
    yield Case(([(2, 2, 2), (1, 5), (3, 1, 1)], 11), "a film among pictures")
    yield Case(([(1, 1), (1, 7), (3, 2), (1, 2)], 8), "small ones first")
    for _ in range(6):
        count, length = int(torch.randint(5, 25, ())), int(torch.randint(12, 40, ()))
        yield Case(([tuple(torch.randint(1, 4, (2,)).tolist()) for _ in range(count)], length))
    yield Case(([], 8), "no picture")


def next_row_only(sizes, length):
    rows, free = [], 0
    for k, size in enumerate(sizes):
        if math.prod(size) > free:
            rows.append([])
            free = length
        rows[-1].append(k)
        free -= math.prod(size)
    return rows


def best_fit(sizes, length):
    rows, room = [], []
    for k, size in enumerate(sizes):
        tokens = math.prod(size)
        fitting = [r for r, free in enumerate(room) if tokens <= free]
        row = min(fitting, key=lambda r: room[r]) if fitting else len(rows)
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(k)
        room[row] -= tokens
    return rows


def last_row_with_room(sizes, length):
    rows, room = [], []
    for k, size in enumerate(sizes):
        tokens = math.prod(size)
        fitting = [r for r, free in enumerate(room) if tokens <= free]
        row = fitting[-1] if fitting else len(rows)
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(k)
        room[row] -= tokens
    return rows


def largest_first(sizes, length):
    order = sorted(range(len(sizes)), key=lambda k: -math.prod(sizes[k]))
    return [[order[place] for place in row] for row in solution([sizes[k] for k in order], length)]


def never_full(sizes, length):
    return solution(sizes, max([length - 1, *(math.prod(size) for size in sizes)]))


def sides_added(sizes, length):
    return solution([(sum(size),) for size in sizes], length)


def two_sides(sizes, length):
    return solution([size[-2:] for size in sizes], length)


def tokens_for_indices(sizes, length):
    return [[math.prod(sizes[k]) for k in row] for row in solution(sizes, length)]


EXERCISE = Exercise(
    name="navit.pack",
    title="The packer",
    difficulty=1,
    minutes=10,
    statement="""
        Appendix A.3 packs in one sentence: examples are added to the first sequence with enough room for them. Nothing
        is sorted, nothing is tried twice. Write that sentence. What is left free at the end of a row becomes padding,
        and the paper keeps that under 2 %. How it does so with a packer as simple as this one, the cells after the
        check will show you.
        """,
    hints=(
        "How many tokens is a picture? And what must you remember of a row, besides who is in it?",
        "Keep the free room of every row in a second list. For each picture walk through it from the start.",
        "next((r for r, free in enumerate(room) if tokens <= free), len(rows)) is the row; if it is len(rows), append "
        "an empty row, and its room.",
    ),
    compare="Compare: how often does yours look at a row that has been full for long?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "next_row_only": Mistake(next_row_only, "you look at the last row only. A small picture that comes late may "
                                 "still fit into an earlier one: the first with room."),
        "best_fit": Mistake(best_fit, "you choose the row that is filled best. That packs a little tighter, and is "
                            "not the paper's way: the first row with room."),
        "last_row_with_room": Mistake(last_row_with_room, "you take the last row with room. It is the first one."),
        "largest_first": Mistake(largest_first, "you sort the pictures by size. They are taken as they come, as from "
                                 "a stream whose end nobody knows."),
        "never_full": Mistake(never_full, "a row is not filled to the brim: a picture whose tokens are exactly the "
                              "room left fits."),
        "sides_added": Mistake(sides_added, "a picture of 2 x 3 patches is 6 tokens: its sides are multiplied."),
        "two_sides": Mistake(two_sides, "a film's frames are not counted: (2, 3, 4) is 24 tokens."),
        "tokens_for_indices": Mistake(tokens_for_indices, "your rows hold numbers of tokens. They are to hold the "
                                      "pictures' indices."),
    },
)  # fmt: skip
