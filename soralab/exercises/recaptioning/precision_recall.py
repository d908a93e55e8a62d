"""How right captions are, and how whole."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(told: list[dict[str, str]], true: list[dict[str, str]]) -> tuple[float, float]:
    """(precision, recall) of captions: of all that is claimed the share that is right; of all that is there the share
    that is claimed rightly.

    told[k] is what caption k claims of picture k, true[k] what the picture shows: {"colour of 1": "red", ...}. Where
    nothing is claimed in any caption precision is 1, where no picture shows anything recall is 1.
    """
    raise NotImplementedError


def solution(told: list[dict[str, str]], true: list[dict[str, str]]) -> tuple[float, float]:
    """(precision, recall): shares of all claims, and of all that is there, over all captions together."""
    right = sum(there.get(key) == value for claims, there in zip(told, true, strict=True)
                for key, value in claims.items())  # fmt: skip
    claimed, there = sum(map(len, told)), sum(map(len, true))
    return right / claimed if claimed else 1.0, right / there if there else 1.0


KEYS = tuple(f"{kind} of {k}" for k in (1, 2) for kind in ("shape", "colour", "size"))
VALUES = {"shape": ("ring", "moon", "cross"), "colour": ("red", "blue", "white"), "size": ("small", "large")}


def _drawn(count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Random captions of random pictures: three in five claims are right, some things are left out, some invented."""
    rng, told, true = Random(seed), [], []
    for _ in range(count):
        there = {key: rng.choice(VALUES[key.split()[0]]) for key in KEYS if rng.random() < 0.75}
        says = {}
        for key in KEYS:
            if rng.random() < 0.7:
                says[key] = there[key] if key in there and rng.random() < 0.7 else rng.choice(VALUES[key.split()[0]])
        told.append(says)
        true.append(there)
    return told, true


def cases() -> Iterator[Case]:
    red = {"shape of 1": "ring", "colour of 1": "red", "size of 1": "small"}
    both = red | {"shape of 2": "moon", "colour of 2": "blue", "size of 2": "large"}
    yield Case(([red], [red]), "all right")
    yield Case(([{"colour of 1": "red"}], [red]), "one right claim of three things to say")
    yield Case(([red | {"size of 1": "large"}], [red]), "a wrong claim")
    yield Case(([red | {"colour of 2": "blue"}], [red]), "a thing that is not there")
    yield Case(([both | {"colour of 1": "blue", "colour of 2": "red"}], [both]), "two colours exchanged")
    yield Case(([both, {"colour of 1": "blue"}], [both, red]), "a long right caption and a short wrong one")
    yield Case(([red, {}], [red, both]), "a caption that says nothing")
    yield Case(([{}], [red]), "no claim at all")
    yield Case(([red], [{}]), "a picture that shows nothing")
    yield Case(([], []), "no caption")
    for count in (2, 7, 30):
        yield Case(_drawn(count, int(torch.randint(10**6, ()))), f"{count} captions")


def _right(claims: dict, there: dict) -> int:
    return sum(there.get(key) == value for key, value in claims.items())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def mean_of_captions(told, true):
    if not told:
        return 1.0, 1.0
    pairs = [(_share(_right(a, b), len(a)), _share(_right(a, b), len(b))) for a, b in zip(told, true, strict=True)]
    return tuple(sum(column) / len(pairs) for column in zip(*pairs, strict=True))


def exchanged(told, true):
    return solution(told, true)[::-1]


def wrong_ones_not_missed(told, true):
    unsaid = sum(key not in claims for claims, there in zip(told, true, strict=True) for key in there)
    right = sum(map(_right, told, true))
    return solution(told, true)[0], _share(right, right + unsaid)


def wrong_ones_twice(told, true):
    right = sum(map(_right, told, true))
    wrong = sum(key in there and there[key] != value for claims, there in zip(told, true, strict=True)
                for key, value in claims.items())  # fmt: skip
    return solution(told, true)[0], _share(right, sum(map(len, true)) + wrong)


def things_mentioned(told, true):
    def of(keys):
        return {key.split()[-1] for key in keys}

    shown = sum(len(of(there)) for there in true)
    return solution(told, true)[0], _share(sum(len(of(a) & of(b)) for a, b in zip(told, true, strict=True)), shown)


def invented_ones_forgiven(told, true):
    right = sum(map(_right, told, true))
    possible = sum(key in there for claims, there in zip(told, true, strict=True) for key in claims)
    return _share(right, possible), solution(told, true)[1]


def silence_is_wrong(told, true):
    precision, recall = solution(told, true)
    return precision if any(told) else 0.0, recall if any(true) else 0.0


def keys_alone(told, true):
    hits = sum(len(claims.keys() & there.keys()) for claims, there in zip(told, true, strict=True))
    return _share(hits, sum(map(len, told))), _share(hits, sum(map(len, true)))


def bag_of_values(told, true):
    hits = 0
    for claims, there in zip(told, true, strict=True):
        left = list(there.values())
        for value in claims.values():
            if value in left:
                left.remove(value)
                hits += 1
    return _share(hits, sum(map(len, told))), _share(hits, sum(map(len, true)))


def of_the_union(told, true):
    right = sum(map(_right, told, true))
    union = sum(len(claims.keys() | there.keys()) for claims, there in zip(told, true, strict=True))
    return _share(right, union), _share(right, union)


def whole_captions(told, true):
    right = sum(a == b for a, b in zip(told, true, strict=True))
    return _share(right, len(told)), _share(right, len(true))


def no_wrong_claim(told, true):
    clean = sum(_right(a, b) == len(a) for a, b in zip(told, true, strict=True))
    whole = sum(_right(a, b) == len(b) for a, b in zip(told, true, strict=True))
    return _share(clean, len(told)), _share(whole, len(true))


EXERCISE = Exercise(
    name="recaptioning.precision_recall",
    title="How right, and how whole",
    difficulty=2,
    minutes=15,
    statement="""
        The world knows what is in a picture, so a caption can be held to it claim by claim. A claim may be right, or
        wrong, or of something that is not there. And what is there may be claimed rightly, claimed wrongly, or not at
        all. Count over all captions **together**: a claim weighs as much in a long caption as in a short one.
        """,
    hints=(
        "One count stands above both fraction bars. Which one? Then: what is below each?",
        "Claims that are right, by all claims; and by all that is there. A wrong colour costs both: it was claimed "
        "wrongly, and the true one was not claimed.",
        "A claim is right if the picture has its key, with its value: there.get(key) == value. Sum that over all "
        "captions, and mind the two empty sums.",
    ),
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,  # it counts
    mistakes={
        "mean_of_captions": Mistake(mean_of_captions, "you average over captions. Then a claim of a short caption "
                                    "weighs more than one of a long caption; count all claims together."),
        "exchanged": Mistake(exchanged, "precision and recall have changed places."),
        "wrong_ones_not_missed": Mistake(wrong_ones_not_missed, "your recall forgives what is claimed wrongly. Who "
                                         "calls a red ring blue has not told that it is red."),
        "wrong_ones_twice": Mistake(wrong_ones_twice, "a wrong claim costs your recall twice: what it should have said "
                                    "is counted among what is there already."),
        "things_mentioned": Mistake(things_mentioned, "your recall is of things that are mentioned. It is of all that "
                                    "is there to be told of them, shape, colour and size, each by itself."),
        "invented_ones_forgiven": Mistake(invented_ones_forgiven, "your precision leaves out claims about what is not "
                                          "there. They are claims, and not right ones."),
        "silence_is_wrong": Mistake(silence_is_wrong, "where there is no claim nothing was claimed wrongly: precision "
                                    "is 1 there, and recall is 1 where there is nothing to tell."),
        "keys_alone": Mistake(keys_alone, "you ask whether a thing of that kind was claimed, and not whether the "
                              "value is right: any colour passes."),
        "bag_of_values": Mistake(bag_of_values, "you compare values without asking whose they are. With two colours "
                                 "exchanged every word is there, and two claims are wrong."),
        "of_the_union": Mistake(of_the_union, "you divide by the claims and the truths together, which is neither "
                                "precision nor recall."),
        "whole_captions": Mistake(whole_captions, "you count captions that are right in everything. Count claims: one "
                                  "slip does not make the rest wrong."),
        "no_wrong_claim": Mistake(no_wrong_claim, "you count captions without a wrong claim, and captions that tell "
                                  "all. Count claims."),
    },
    compare="Compare what a captioner gains that says less, and what the base captioner does.",
)  # fmt: skip
