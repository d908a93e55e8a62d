"""The weight map."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from soralab.workbook.task import Exercise, WrongAnswer


def _map_stub(labels: np.ndarray, w_c: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Eq. (2) for labels [h, w] (0 background, 1, 2, ... cells) and class weights w_c [h, w]: weights [h, w]."""
    raise NotImplementedError


def _map(labels: np.ndarray, w_c: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Eq. (2) for labels [h, w] (0 background, 1, 2, ... cells) and class weights w_c [h, w]: weights [h, w]."""
    names = np.unique(labels[labels > 0])
    if len(names) < 2:
        return w_c  # there is no second nearest cell
    distances = np.sort([ndimage.distance_transform_edt(labels != name) for name in names], axis=0)
    gap = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return w_c + np.where(labels == 0, gap, 0)


def _map_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    gap = np.zeros((9, 30), np.int64)
    gap[:, :10], gap[:, 14:20] = 1, 2  # four pixels of background between two cells; at the right nothing
    ones = np.ones(gap.shape)
    got, right = np.asarray(fn(gap, ones)), _map(gap, ones)
    yield got.shape == gap.shape, f"The map is {list(got.shape)}; it is as large as labels, {list(gap.shape)}."
    yield bool(np.isfinite(got).all()), "The map holds numbers that are not finite."
    middle, far = got[4, 11], got[4, 29]
    yield (
        not middle < far,
        "Your map is largest far from the cells: d1 + d2 stands in the exponent without its minus sign.",
    )
    yield (
        not np.allclose(got, right - 1),
        "The narrow gap is right, but w_c is missing: Eq. (2) adds the gap's weight to the class's.",
    )
    in_cells = gap > 0
    yield (
        np.allclose(got[in_cells], 1) or not np.allclose(got[~in_cells], right[~in_cells]),
        "The background is right, but inside the cells the map is more than w_c. The gap's weight is for "
        "background alone.",
    )
    yield (
        not np.isclose(middle, 1 + 10 * np.exp(-5 / 50)),
        "In the middle of a gap of four pixels d1 + d2 is 5, and its square 25. You have divided 5 by 2 sigma^2: the "
        "square is missing.",
    )
    yield (
        not np.isclose(middle, 1 + 10 * np.exp(-13 / 50)),
        "You add the squares, d1^2 + d2^2. The equation squares the sum: (d1 + d2)^2. Only so is the weight the same "
        "all across the gap.",
    )
    yield (
        not np.isclose(middle, 1 + 10 * np.exp(-16 / 50)) and not np.isclose(middle, 1 + 10 * np.exp(-4 / 50)),
        "Your second distance is the first once more. d2 is the distance to the second nearest *cell*, not to the "
        "second nearest pixel: each cell needs a distance map of its own.",
    )
    yield np.allclose(got, right, atol=1e-4), "Between two cells the map is not what Eq. (2) says."
    yield from _map_of_one_and_of_three(fn, np.where(gap == 1, 1, 0))


def _map_of_one_and_of_three(fn: Callable, lonely: np.ndarray) -> Iterator[tuple[bool, str]]:
    alone = np.asarray(fn(lonely, np.ones(lonely.shape)))
    yield (
        np.allclose(alone, 1),
        "A cell alone has no second nearest: nothing can be merged with it, so its surroundings weigh w_c and no more.",
    )
    three = np.zeros((20, 20), np.int64)
    three[:8, :8], three[:8, 11:], three[12:, 4:15] = 4, 2, 9
    weights = np.where(three > 0, 2.0, 0.5)
    for w0, sigma in ((10.0, 5.0), (4.0, 2.0)):
        got = np.asarray(fn(three, weights, w0, sigma))
        yield (
            np.allclose(got, _map(three, weights, w0, sigma), atol=1e-4),
            f"With three cells, numbered 2, 4 and 9, w0 = {w0:g} and sigma = {sigma:g}, the map is not what "
            "Eq. (2) says.",
        )


def _gap(labels: np.ndarray, w_c: np.ndarray, of: Callable, everywhere: bool = False) -> np.ndarray:
    names = np.unique(labels[labels > 0])
    if len(names) < 2:
        return w_c
    d = np.sort([ndimage.distance_transform_edt(labels != name) for name in names], axis=0)
    return w_c + (of(d[0], d[1]) if everywhere else np.where(labels == 0, of(d[0], d[1]), 0))


def _no_square(labels, w_c, w0=10.0, sigma=5.0):
    return _gap(labels, w_c, lambda d1, d2: w0 * np.exp(-(d1 + d2) / (2 * sigma**2)))


def _no_minus(labels, w_c, w0=10.0, sigma=5.0):
    return _gap(labels, w_c, lambda d1, d2: w0 * np.exp((d1 + d2) ** 2 / (2 * sigma**2)))


def _squares(labels, w_c, w0=10.0, sigma=5.0):
    return _gap(labels, w_c, lambda d1, d2: w0 * np.exp(-(d1**2 + d2**2) / (2 * sigma**2)))


def _same_twice(labels, w_c, w0=10.0, sigma=5.0):
    return _gap(labels, w_c, lambda d1, d2: w0 * np.exp(-((2 * d1) ** 2) / (2 * sigma**2)))


def _no_class_weight(labels, w_c, w0=10.0, sigma=5.0):
    return _map(labels, 0 * w_c, w0, sigma)


def _in_cells_too(labels, w_c, w0=10.0, sigma=5.0):
    return _gap(labels, w_c, lambda d1, d2: w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)), everywhere=True)


def _glow(labels, w_c, w0=10.0, sigma=5.0):
    if len(np.unique(labels[labels > 0])) > 1:
        return _map(labels, w_c, w0, sigma)
    d1 = ndimage.distance_transform_edt(labels == 0)
    return w_c + np.where(labels == 0, w0 * np.exp(-(d1**2) / (2 * sigma**2)), 0)


EXERCISE = Exercise(
    name="unet.weight_map",
    title="The weight map",
    difficulty=2,
    minutes=15,
    statement=r"""
        Two cells touch, and a line of background two pixels wide is all that says so. Among ten thousand pixels a
        network can afford to get it wrong. So the paper's loss weighs it:

        $$w(x) = w_c(x) + w_0 \exp\left(-\frac{(d_1(x) + d_2(x))^2}{2\sigma^2}\right) \qquad \text{Eq. (2)}$$

        with $d_1$ and $d_2$ the distances of pixel $x$ to the nearest and to the second nearest cell. Add the second
        term on background pixels alone. `scipy.ndimage.distance_transform_edt(a)` gives each true pixel of `a` its
        distance to the nearest false one.
        """,
    hints=(
        "One distance map for each cell: how far is every pixel from *this* cell?",
        "Stack the distance maps of all cells, sort them along the first axis: the first two are d1 and d2.",
        "d = np.sort([distance_transform_edt(labels != n) for n in names], axis=0); then "
        "w0 * np.exp(-(d[0] + d[1]) ** 2 / (2 * sigma ** 2)) where labels is 0. With fewer than two cells, w_c alone.",
    ),
    stub=_map_stub,
    solution=_map,
    check=_map_check,
    wrong={
        "forgot_the_square": WrongAnswer(_no_square, "the square is missing"),
        "forgot_the_minus": WrongAnswer(_no_minus, "without its minus sign"),
        "sum_of_squares": WrongAnswer(_squares, "The equation squares the sum"),
        "the_nearest_twice": WrongAnswer(_same_twice, "the second nearest *cell*"),
        "forgot_w_c": WrongAnswer(_no_class_weight, "w_c is missing"),
        "inside_the_cells": WrongAnswer(_in_cells_too, "for background alone"),
        "a_lonely_cell_glows": WrongAnswer(_glow, "has no second nearest"),
    },
)
