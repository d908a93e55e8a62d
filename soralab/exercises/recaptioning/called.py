"""What each picture is called this time: nothing, the captioner's text, or the web's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(truth: list[str], synthetic: list[str], ratio: float, null: float, lots: Tensor) -> list[str]:
    """What each picture is called: "" by the chance null; of the others a share `ratio` is called by its synthetic
    text, and the rest by its truth.

    lots [pictures]: one number each, uniform from 0 to below 1. The lowest are called nothing, the next ones by their
    synthetic texts, the highest by their truths.
    """
    raise NotImplementedError


def solution(truth: list[str], synthetic: list[str], ratio: float, null: float, lots: Tensor) -> list[str]:
    """What each picture is called: "" by the chance null, else its synthetic text by the chance ratio, or its truth."""
    upto = null + (1 - null) * ratio
    return ["" if lot < null else ours if lot < upto else web
            for web, ours, lot in zip(truth, synthetic, lots.tolist(), strict=True)]  # fmt: skip


def _texts(count: int) -> tuple[list[str], list[str]]:
    return [f"web {k}" for k in range(count)], [f"ours {k}" for k in range(count)]


def _case(count: int, ratio: float, null: float, lots: list[float] | None = None) -> tuple:
    drawn = torch.rand(count) if lots is None else torch.tensor(lots)
    return (*_texts(count), ratio, null, drawn)


def cases() -> Iterator[Case]:
    yield Case(_case(3, 0.5, 0.2, [0.1, 0.5, 0.9]), "one lot of each kind")
    yield Case(_case(4, 0.5, 0.0, [0.0, 0.49, 0.51, 0.99]), "no picture is to be called nothing")
    yield Case(_case(2, 0.5, 0.25, [0.25, 0.625]), "a lot that is just where the next kind begins")
    yield Case(_case(4, 0.95, 0.1, [0.92, 0.953, 0.957, 0.99]), "the last few lots, of 95 % and a tenth of nothing")
    yield Case(_case(4, 0.0, 0.3, [0.1, 0.29, 0.31, 0.8]), "no synthetic text at all")
    yield Case(_case(6, 1.0, 0.1, [0.05, 0.2, 0.6, 0.95, 0.99, 0.12]), "synthetic texts alone")
    yield Case(_case(5, 0.3, 0.0, [0.29, 0.31, 0.69, 0.71, 0.9]), "less than half are synthetic")
    yield Case(_case(0, 0.5, 0.1), "no picture")
    yield Case((["web"] * 2, ["ours"] * 2, 0.65, 0.1, torch.tensor([0.68, 0.69], dtype=torch.float64)), "65 %, float64")
    for _ in range(3):
        yield Case(_case(200, float(torch.rand(())), 0.5 * float(torch.rand(()))), "200 pictures")


def _by(lots, truth, synthetic, null, upto) -> list[str]:
    return ["" if lot < null else ours if lot < upto else web
            for web, ours, lot in zip(truth, synthetic, lots.tolist(), strict=True)]  # fmt: skip


def ratio_of_all(truth, synthetic, ratio, null, lots):
    return _by(lots, truth, synthetic, null, ratio)


def null_forgotten(truth, synthetic, ratio, null, lots):
    return _by(lots, truth, synthetic, null, (1 - null) * ratio)


def added(truth, synthetic, ratio, null, lots):
    return _by(lots, truth, synthetic, null, null + ratio)


def the_other_share(truth, synthetic, ratio, null, lots):
    return _by(lots, truth, synthetic, null, null + (1 - null) * (1 - ratio))


def texts_exchanged(truth, synthetic, ratio, null, lots):
    return solution(synthetic, truth, ratio, null, lots)


def truths_first(truth, synthetic, ratio, null, lots):
    return _by(lots, synthetic, truth, null, null + (1 - null) * (1 - ratio))


def one_lot_for_all(truth, synthetic, ratio, null, lots):
    return solution(truth, synthetic, ratio, null, lots[:1].expand(len(lots)))


def nothing_of_the_web_alone(truth, synthetic, ratio, null, lots):
    return ["" if lot < null and lot >= ratio else ours if lot < ratio else web
            for web, ours, lot in zip(truth, synthetic, lots.tolist(), strict=True)]  # fmt: skip


def never_nothing(truth, synthetic, ratio, null, lots):
    return _by(lots, truth, synthetic, -1.0, ratio)


def highest_are_nothing(truth, synthetic, ratio, null, lots):
    return ["" if lot >= 1 - null else ours if lot < (1 - null) * ratio else web
            for web, ours, lot in zip(truth, synthetic, lots.tolist(), strict=True)]  # fmt: skip


def nothing_within(truth, synthetic, ratio, null, lots):
    return _by(lots, truth, synthetic, null * ratio, null + (1 - null) * ratio)


def by_the_majority(truth, synthetic, ratio, null, lots):
    return ["" if lot < null else ours if ratio >= 0.5 else web
            for web, ours, lot in zip(truth, synthetic, lots.tolist(), strict=True)]  # fmt: skip


EXERCISE = Exercise(
    name="recaptioning.called",
    title="One lot for two questions",
    difficulty=1,
    minutes=10,
    statement="""
        In a painter's batch two things are drawn by lot: whether a picture is called anything at all (a share `null`
        is not, for guidance without a classifier), and if it is, by which of its two texts. The draw is made anew
        every time a picture comes up. Here both questions are answered by **one** number for each picture, so think
        about which stretch of the numbers from 0 to 1 belongs to what.
        """,
    hints=(
        "Draw the line from 0 to 1 and cut it into three pieces. How long is each?",
        "The first piece is null long. The rest, 1 - null, is cut at the share `ratio` of itself.",
        "Synthetic texts end at null + (1 - null) * ratio. With a ratio of 95 % and a null of 10 % that is 0.955.",
    ),
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "ratio_of_all": Mistake(ratio_of_all, "you compare the lot with the ratio itself. The lots below null are gone "
                                "already, so of the pictures that are called anything fewer are synthetic than asked."),
        "null_forgotten": Mistake(null_forgotten, "(1 - null) * ratio is how many are synthetic, not where they end: "
                                  "they begin at null."),
        "added": Mistake(added, "you add ratio to null. The ratio is a share of the pictures that are called anything, "
                         "and these are 1 - null of all."),
        "the_other_share": Mistake(the_other_share, "your share of synthetic texts is 1 - ratio."),
        "texts_exchanged": Mistake(texts_exchanged, "the web's texts come where the captioner's should: ratio is the "
                                   "share of synthetic ones."),
        "truths_first": Mistake(truths_first, "the shares are right, the order is not: above those that are called "
                                "nothing come the synthetic texts, then the truths."),
        "one_lot_for_all": Mistake(one_lot_for_all, "one lot decides for the whole batch. Each picture has its own; "
                                   "else a batch has captions of one kind alone."),
        "nothing_of_the_web_alone": Mistake(nothing_of_the_web_alone, "only pictures that would be called by their "
                                            "truths are ever called nothing. Both kinds are, alike."),
        "never_nothing": Mistake(never_nothing, "no picture is called nothing. Without the empty prompt there is "
                                 "nothing to guide away from."),
        "highest_are_nothing": Mistake(highest_are_nothing, "the shares are right, but the pictures with the highest "
                                       "lots are called nothing; the lowest should be."),
        "nothing_within": Mistake(nothing_within, "fewer pictures are called nothing than asked: you multiply null by "
                                  "the ratio."),
        "by_the_majority": Mistake(by_the_majority, "all pictures that are called anything get the more frequent kind "
                                   "of text. The ratio is a chance for each."),
    },
    compare="Compare what a second lot for the second question would change, and what one lot for a whole epoch would.",
)  # fmt: skip
