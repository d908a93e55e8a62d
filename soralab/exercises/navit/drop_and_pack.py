"""Dropping before packing, with one throw of the dice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import torch

from soralab.navit import pack
from soralab.workbook.task import Case, Exercise, Mistake


def stub(sizes: list[tuple[int, int]], length: int, seed: int) -> list[list[tuple[int, int]]]:
    """Rows of `length` tokens from pictures some of whose tokens are dropped: [(picture, tokens that stay), ...] each.

    sizes: (height, width) of each picture in patches. For each picture, in order, the generator Random(seed) is asked
    by its .random() for the rate of dropping; round(tokens * (1 - rate)) of the tokens stay, and at least one.
    `pack(counts, length)` of soralab.navit packs numbers of tokens as well as sizes.
    """
    raise NotImplementedError


def solution(sizes: list[tuple[int, int]], length: int, seed: int) -> list[list[tuple[int, int]]]:
    """Rows of `length` tokens from pictures some of whose tokens are dropped: [(picture, tokens that stay), ...]."""
    rng = Random(seed)
    stay = [max(1, round(math.prod(size) * (1 - rng.random()))) for size in sizes]
    return [[(k, stay[k]) for k in row] for row in pack(stay, length)]


def cases() -> Iterator[Case]:
    yield Case(([(2, 3), (3, 3), (2, 2), (4, 2)], 10, 1))
    yield Case(([(3, 4), (3, 4), (3, 4)], 13, 2), "a row that only one whole picture fits into")
    yield Case(([(1, 1), (1, 2), (1, 1), (2, 1), (1, 1)], 4, 3), "pictures of one token and two")
    for seed in range(4, 10):
        count = int(torch.randint(4, 20, ()))
        sizes = [tuple(torch.randint(1, 6, (2,)).tolist()) for _ in range(count)]
        yield Case((sizes, int(torch.randint(25, 50, ())), seed))


def _stays(sizes, rng, least=1, keep=lambda rate: 1 - rate):
    return [max(least, round(math.prod(size) * keep(rng.random()))) for size in sizes]


def after_packing(sizes, length, seed):
    stay = _stays(sizes, Random(seed))
    return [[(k, stay[k]) for k in row] for row in pack(sizes, length)]


def drawn_twice(sizes, length, seed):
    rng = Random(seed)
    rows = pack(_stays(sizes, rng), length)
    again = _stays(sizes, rng)
    return [[(k, again[k]) for k in row] for row in rows]


def one_rate_for_all(sizes, length, seed):
    rate = Random(seed).random()
    stay = [max(1, round(math.prod(size) * (1 - rate))) for size in sizes]
    return [[(k, stay[k]) for k in row] for row in pack(stay, length)]


def kept_for_dropped(sizes, length, seed):
    stay = _stays(sizes, Random(seed), keep=lambda rate: rate)
    return [[(k, stay[k]) for k in row] for row in pack(stay, length)]


def none_may_stay(sizes, length, seed):
    stay = _stays(sizes, Random(seed), least=0)
    there = [k for k, count in enumerate(stay) if count]
    rows = pack([stay[k] for k in there], length) if there else []
    return [[(there[k], stay[there[k]]) for k in row] for row in rows]


def rounded_down(sizes, length, seed):
    rng = Random(seed)
    stay = [max(1, math.floor(math.prod(size) * (1 - rng.random()))) for size in sizes]
    return [[(k, stay[k]) for k in row] for row in pack(stay, length)]


def whole_pictures(sizes, length, seed):
    stay = _stays(sizes, Random(seed))
    return [[(k, math.prod(sizes[k])) for k in row] for row in pack(stay, length)]


def asked_for_each_token(sizes, length, seed):
    rng = Random(seed)
    stay = [max(1, sum(rng.random() < 0.5 for _ in range(math.prod(size)))) for size in sizes]
    return [[(k, stay[k]) for k in row] for row in pack(stay, length)]


EXERCISE = Exercise(
    name="navit.drop_and_pack",
    title="Drop, then pack",
    difficulty=2,
    minutes=15,
    statement="""
        Every picture gets a rate of its own at which its tokens are dropped. The packer has to know how many are left,
        or the room that dropping makes stays empty. And whoever later throws the tokens out has to throw out just as
        many as the packer was told. Return both at once: the rows, and how many tokens of each picture stay. (The
        paper's rates come from a Beta distribution. Here they are even, so that a check can follow them.)
        """,
    hints=(
        "How often may the generator be asked, all in all?",
        "First one number for each picture, in a list; everything else reads that list.",
        "stay = [...] with max(1, round(tokens * (1 - rng.random()))); then pack(stay, length), and (k, stay[k]) for "
        "each k of each row.",
    ),
    compare="Compare: where would the row of a picture be decided if the rate were asked for again later?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "after_packing": Mistake(after_packing, "you pack whole pictures and drop afterwards. The rows are then as "
                                 "many as without dropping, and half empty: the packer must be told what stays."),
        "drawn_twice": Mistake(drawn_twice, "you ask for the rates twice, once to pack and once to drop. A row that "
                               "was packed by the first throw may overflow by the second."),
        "one_rate_for_all": Mistake(one_rate_for_all, "all pictures have the same rate. Each has its own: ask the "
                                    "generator once for each."),
        "kept_for_dropped": Mistake(kept_for_dropped, "rate is the share that goes, and you keep that share. 1 - rate "
                                    "stays."),
        "none_may_stay": Mistake(none_may_stay, "a picture of which nothing stays is lost from the batch, and its "
                                 "label with it. At least one token stays."),
        "rounded_down": Mistake(rounded_down, "you round down. round(...) goes to the nearest."),
        "whole_pictures": Mistake(whole_pictures, "the rows are right, and the numbers beside the pictures are of the "
                                  "whole pictures. What stays is to be told."),
        "asked_for_each_token": Mistake(asked_for_each_token, "you throw a coin for each token, so every picture keeps "
                                        "about half. The rate is drawn once for a picture: one keeps nearly all, "
                                        "another nearly nothing."),
    },
)  # fmt: skip
