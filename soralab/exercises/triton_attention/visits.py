"""What the mask leaves to do."""

from __future__ import annotations

from collections.abc import Iterator

from soralab.workbook.task import Exercise, WrongAnswer


def _visits_stub(first: int, last: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many key tiles, from the left, the queries first .. last (both counted) visit: (whole, touched).

    Query i of `queries` may attend key j of `keys` iff j <= i + keys - queries. Key tile t is the keys from t * block
    up to, not including, (t + 1) * block. whole: the tiles in which each of these queries may attend each key.
    touched: the tiles in which at least one of them may attend at least one key.
    """
    raise NotImplementedError


def _visits(first: int, last: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many key tiles, from the left, the queries first .. last (both counted) visit: (whole, touched)."""
    shift = keys - queries
    all_see = max(0, first + 1 + shift)
    any_sees = max(0, last + 1 + shift)
    return all_see // block, -(-any_sees // block)


def _no_shift(first, last, queries, keys, block):
    return _visits(first, last, queries, queries, block)


def _last_for_whole(first, last, queries, keys, block):
    return _visits(last, last, queries, keys, block)[0], _visits(first, last, queries, keys, block)[1]


def _floored(first, last, queries, keys, block):
    return _visits(first, last, queries, keys, block)[0], max(0, last + 1 + keys - queries) // block


def _not_itself(first, last, queries, keys, block):
    return _visits(first - 1, last - 1, queries, keys, block)


def _below_zero(first, last, queries, keys, block):
    return (first + 1 + keys - queries) // block, -(-(last + 1 + keys - queries) // block)


VISITS_MISTAKES = (
    (_below_zero, "a negative number of tiles. With more queries than keys the first ones may attend nothing."),
    (_no_shift, "you take query i to see the keys up to i. With other lengths it is i + keys - queries: the last query "
     "sees the last key."),
    (_last_for_whole, "whole tiles are counted for the last query. The first one sees least, and a tile is whole only "
     "if it may attend all of it."),
    (_floored, "the tile on the diagonal is left out: a tile with a single visible key must be visited. Round up."),
    (_not_itself, "query i sees i + 1 keys where the lengths are equal, its own among them; you count i."),
)  # fmt: skip


def _visits_check(fn) -> Iterator[tuple[bool, str]]:
    cases = ((0, 3, 8, 8, 4), (3, 6, 8, 8, 4), (2, 4, 5, 12, 4), (0, 1, 9, 3, 2), (0, 3, 8, 5, 4), (6, 8, 9, 20, 4))
    for case in cases:
        got, want = fn(*case), _visits(*case)
        where = "Queries {} to {} of {}, {} keys, tiles of {}".format(*case)
        yield isinstance(got, (tuple, list)) and len(got) == 2, f"{where}: it takes two numbers, (whole, touched)."
        got = tuple(got)
        for mistake, says in VISITS_MISTAKES:
            yield got == want or got != mistake(*case), f"{where}: {says}"
        yield got == want, f"{where}: you say {got}, it is {want}. Draw the rows of the mask and the tiles' borders."


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
    stub=_visits_stub,
    solution=_visits,
    check=_visits_check,
    wrong={
        "no_shift": WrongAnswer(_no_shift, "i + keys - queries"),
        "last_for_whole": WrongAnswer(_last_for_whole, "counted for the last query"),
        "floored": WrongAnswer(_floored, "the diagonal is left out"),
        "not_itself": WrongAnswer(_not_itself, "its own among them"),
        "below_zero": WrongAnswer(_below_zero, "a negative number of tiles"),
    },
)
