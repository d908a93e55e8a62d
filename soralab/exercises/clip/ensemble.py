"""Several ways to say a class."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(T_f: Tensor) -> Tensor:
    """A classifier made of texts: T_f [classes, templates, embed], not yet of length 1, to unit rows [classes, embed].

    Section 3.1.4: the templates of a class are averaged in the space of embeddings, as unit vectors.
    """
    raise NotImplementedError


def solution(T_f: Tensor) -> Tensor:
    """A classifier made of texts: T_f [classes, templates, embed], not yet of length 1, to unit rows."""
    T_e = F.normalize(T_f, dim=-1)
    return F.normalize(T_e.mean(dim=1), dim=-1)


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 1, 3),), "one class, one text")
    yield Case((torch.randn(4, 4, 4) * 3,), "three axes of one size")
    for _ in range(6):
        classes, templates, embed = (int(torch.randint(2, 9, ())) for _ in range(3))
        lengths = 0.01 + 30 * torch.rand(classes, templates, 1)
        yield Case((F.normalize(torch.randn(classes, templates, embed) - 1, dim=-1) * lengths,), "texts of all lengths")
    yield Case((1e-3 * torch.randn(3, 5, 6, dtype=torch.float64),), "short vectors, float64")


def mean_left_short(T_f: Tensor) -> Tensor:
    return F.normalize(T_f, dim=-1).mean(1)


def long_ones_count_more(T_f: Tensor) -> Tensor:
    return F.normalize(T_f.mean(1), dim=-1)


def nobody_normalised(T_f: Tensor) -> Tensor:
    return T_f.mean(1)


def first_template(T_f: Tensor) -> Tensor:
    return F.normalize(T_f[:, 0], dim=-1)


def over_classes(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=-1).mean(0), dim=-1)


def along_the_templates(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=1).mean(1), dim=-1)


def largest(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=-1).amax(1), dim=-1)


EXERCISE = Exercise(
    name="clip.ensemble",
    title="Several ways to say a class",
    difficulty=2,
    minutes=10,
    statement="""
        "a photo of a red circle", "a drawing of a red circle", and so on: several texts name one class. The paper makes
        one vector of them, once and for all, so that an ensemble of eighty costs no more than a single text when
        pictures come. Two normalisations are in it, and both are needed.
        """,
    hints=(
        "Which vectors are compared by their direction alone, and at which moment does a length come in again?",
        "The mean of unit vectors is shorter than 1: the more they disagree, the shorter.",
        "Normalise over the last axis, take the mean over the templates (axis 1), normalise over the last axis.",
    ),
    compare="Compare: which classes would win more often without the second normalisation?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "mean_left_short": Mistake(mean_left_short, "the means are shorter than 1, and not equally: a class whose "
                                   "texts agree would win more often. Normalise once more at the end."),
        "long_ones_count_more": Mistake(long_ones_count_more, "you average first: a text whose vector is long counts "
                                        "more. Unit vectors first."),
        "nobody_normalised": Mistake(nobody_normalised, "no vector is brought to length 1, neither a text's before the "
                                     "mean nor a class's after it."),
        "first_template": Mistake(first_template, "you use the first template alone."),
        "over_classes": Mistake(over_classes, "you average over the classes, the first axis. Templates are the "
                                "second."),
        "along_the_templates": Mistake(along_the_templates, "the first normalisation runs over the templates, axis 1, "
                                       "which is what F.normalize takes if nobody says. The length of a text's vector "
                                       "is along the last axis."),
        "largest": Mistake(largest, "you take the largest value of each channel. An ensemble here is a mean."),
    },
)  # fmt: skip
