"""What the mask leaves to do."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(first: int, last: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many key tiles, from the left, the queries first .. last (both counted) visit: (whole, touched).

    Query i of `queries` may attend key j of `keys` iff j <= i + keys - queries. Key tile t is the keys from t * block
    up to, not including, (t + 1) * block. whole: the tiles of `block` keys (a shorter last one is none) in which each
    of these queries may attend each key. touched: the tiles in which at least one of them may attend at least one.
    """
    raise NotImplementedError


def solution(first: int, last: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many key tiles, from the left, the queries first .. last (both counted) visit: (whole, touched)."""
    shift = keys - queries
    all_see = max(0, first + 1 + shift)
    any_sees = max(0, last + 1 + shift)
    return all_see // block, -(-any_sees // block)


def cases() -> Iterator[Case]:
    yield Case((0, 0, 1, 1, 1), "one pair")
    yield Case((0, 3, 8, 8, 4), "the tile on the diagonal")
    yield Case((4, 7, 8, 8, 4), "the last tile of queries")
    yield Case((0, 2, 3, 0, 4), "no keys")
    yield Case((0, 2, 9, 5, 4), "queries that may attend nothing")
    yield Case((0, 1, 2, 21, 4), "many more keys than queries")
    yield Case((8, 8, 9, 9, 4), "the last query, and keys that end inside a tile")
    yield Case((5, 5, 9, 9, 16), "tiles larger than all there is")
    for _ in range(30):
        queries, keys, block = (int(torch.randint(1, most, ())) for most in (40, 40, 9))
        first = int(torch.randint(0, queries, ()))
        yield Case((first, int(torch.randint(first, queries, ())), queries, keys, block))


def no_shift(first, last, queries, keys, block):
    return solution(first, last, queries, queries, block)


def shift_backwards(first, last, queries, keys, block):
    return solution(first, last, keys, queries, block)


def last_for_whole(first, last, queries, keys, block):
    return solution(last, last, queries, keys, block)[0], solution(first, last, queries, keys, block)[1]


def first_for_touched(first, last, queries, keys, block):
    return solution(first, first, queries, keys, block)


def rounded_down(first, last, queries, keys, block):
    return solution(first, last, queries, keys, block)[0], max(0, last + 1 + keys - queries) // block


def rounded_up(first, last, queries, keys, block):
    return -(-max(0, first + 1 + keys - queries) // block), solution(first, last, queries, keys, block)[1]


def cut_tile_whole(first, last, queries, keys, block):
    whole, touched = solution(first, last, queries, keys, block)
    return touched if first + 1 == queries else whole, touched


def not_itself(first, last, queries, keys, block):
    return solution(first - 1, last - 1, queries, keys, block)


def below_zero(first, last, queries, keys, block):
    return (first + 1 + keys - queries) // block, -(-(last + 1 + keys - queries) // block)


def only_the_cut(first, last, queries, keys, block):
    whole, touched = solution(first, last, queries, keys, block)
    return whole, touched - whole


EXERCISE = Exercise(
    name="triton_attention.visits",
    title="What the mask leaves to do",
    difficulty=2,
    minutes=15,
    statement="""
        A kernel does not compute a mask and throw the masked half away. It does not go there. For a tile of queries
        say how many tiles of keys lie wholly under the diagonal (no compare is needed) and how many are touched at all.
        The table of `soralab.kernels` holds these two numbers for every program.
        """,
    hints=(
        "How many keys does the first query see, and how many the last?",
        "Whole tiles fit into what the first one sees. Touched tiles cover what the last one sees.",
        "Query i sees max(0, i + 1 + keys - queries) keys. Divide and round down for the first, up for the last.",
    ),
    compare="Compare: the course's own rounds up by -(-a // b). Why not by ceil(a / b)?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "no_shift": Mistake(no_shift, "you take query i to see the keys up to i. With other lengths it is "
                            "i + keys - queries: the last query sees the last key."),
        "shift_backwards": Mistake(shift_backwards, "your shift has the wrong sign. With more keys than queries the "
                                   "first query sees more than one: the last query sees the last key."),
        "last_for_whole": Mistake(last_for_whole, "whole tiles are counted for the last query. The first one sees "
                                  "least, and a tile is whole only if it may attend all of it."),
        "first_for_touched": Mistake(first_for_touched, "touched tiles are counted for the first query. The last one "
                                     "sees most, and where it sees anything the program must go."),
        "rounded_down": Mistake(rounded_down, "the tile on the diagonal is left out: a tile with a single visible key "
                                "must be visited. Round up."),
        "rounded_up": Mistake(rounded_up, "a tile that the first query sees in part is counted as whole. Without a "
                              "compare it would see the future: round down."),
        "cut_tile_whole": Mistake(cut_tile_whole, "a last tile that is not full is counted as whole, where the first "
                                  "query sees all of its keys. Without a compare it would read past them: round down."),
        "not_itself": Mistake(not_itself, "query i sees i + 1 keys where the lengths are equal, its own among them; "
                              "you count i."),
        "below_zero": Mistake(below_zero, "a negative number of tiles. With more queries than keys the first ones may "
                              "attend nothing."),
        "only_the_cut": Mistake(only_the_cut, "your second number is of the cut tiles alone. Touched are all that must "
                                "be visited, the whole ones among them."),
    },
)  # fmt: skip
