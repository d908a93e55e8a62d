"""Several ways to say a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _ensemble_stub(T_f: Tensor) -> Tensor:
    """A classifier made of texts: T_f [classes, templates, embed], not yet of length 1, to unit rows [classes, embed].

    Section 3.1.4: the templates of a class are averaged in the space of embeddings, as unit vectors.
    """
    raise NotImplementedError


def _ensemble(T_f: Tensor) -> Tensor:
    """A classifier made of texts: T_f [classes, templates, embed], not yet of length 1, to unit rows."""
    T_e = F.normalize(T_f, dim=-1)
    return F.normalize(T_e.mean(dim=1), dim=-1)


def _mean_left_short(T_f: Tensor) -> Tensor:
    return F.normalize(T_f, dim=-1).mean(1)


def _long_ones_count_more(T_f: Tensor) -> Tensor:
    return F.normalize(T_f.mean(1), dim=-1)


def _first_template(T_f: Tensor) -> Tensor:
    return F.normalize(T_f[:, 0], dim=-1)


def _over_classes(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=-1).mean(0), dim=-1)


def _largest(T_f: Tensor) -> Tensor:
    return F.normalize(F.normalize(T_f, dim=-1).amax(1), dim=-1)


ENSEMBLE_MISTAKES = (
    (_mean_left_short, "the means are shorter than 1, and not equally: a class whose texts agree would win more often. "
     "Normalise once more at the end."),
    (_long_ones_count_more, "you average first: a text whose vector is long counts more. Unit vectors first."),
    (_first_template, "you use the first template alone."),
    (_over_classes, "you average over the classes, the first axis. Templates are the second."),
    (_largest, "you take the largest value of each channel. An ensemble here is a mean."),
)  # fmt: skip


def _ensemble_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for classes, templates, embed in ((4, 4, 6), (3, 5, 8), (2, 1, 3)):
        lengths = 0.2 + 3 * numbers(classes, templates, 1, seed=7).abs()
        T_f = numbers(classes, templates, embed, seed=classes) * lengths
        got, want = fn(T_f), _ensemble(T_f)
        case = f"{classes} classes, {templates} template{'s' * (templates > 1)}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        for mistake, says in ENSEMBLE_MISTAKES:
            yield same(got, want) or not same(got, mistake(T_f)), f"{case}: {says}"
        yield got.shape == want.shape, f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}."
        yield same(got, want), f"{case}: the rows are not the unit means of unit vectors."


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
    stub=_ensemble_stub,
    solution=_ensemble,
    check=_ensemble_check,
    wrong={
        "mean_left_short": WrongAnswer(_mean_left_short, "Normalise once more"),
        "long_ones_count_more": WrongAnswer(_long_ones_count_more, "Unit vectors first"),
        "first_template": WrongAnswer(_first_template, "the first template alone"),
        "over_classes": WrongAnswer(_over_classes, "Templates are the second"),
        "largest": WrongAnswer(_largest, "is a mean"),
    },
)
