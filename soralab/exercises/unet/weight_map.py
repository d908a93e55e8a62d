"""The weight map of Eq. (2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from soralab.workbook.task import Case, Exercise, Mistake


def stub(labels: np.ndarray, w_c: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Eq. (2) for labels [h, w] (0 background, 1, 2, ... cells) and class weights w_c [h, w]: weights [h, w]."""
    raise NotImplementedError


def solution(labels: np.ndarray, w_c: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Eq. (2) for labels [h, w] (0 background, 1, 2, ... cells) and class weights w_c [h, w]: weights [h, w]."""
    names = np.unique(labels[labels > 0])
    if len(names) < 2:
        return w_c  # there is no second nearest cell
    distances = np.sort([ndimage.distance_transform_edt(labels != name) for name in names], axis=0)
    gap = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return w_c + np.where(labels == 0, gap, 0)


def cells(height: int, width: int, names: list[int]) -> np.ndarray:
    """Labels with a rectangle for each name, in places drawn at random; a later one may cover an earlier."""
    labels = np.zeros((height, width), np.int64)
    for name in names:
        top, left = np.random.randint(height - 2), np.random.randint(width - 2)
        labels[top : top + np.random.randint(2, 6), left : left + np.random.randint(2, 6)] = name
    return labels


def cases() -> Iterator[Case]:
    gap = np.zeros((9, 30), np.int64)
    gap[:, :10], gap[:, 14:20] = 1, 2
    yield Case((gap, np.ones(gap.shape)), "four pixels of background between two cells, and nothing on the right")
    yield Case((np.where(gap == 1, 1, 0), np.ones(gap.shape)), "a cell alone, which has no second nearest")
    yield Case((np.zeros((4, 6), np.int64), np.full((4, 6), 0.5)), "no cell at all")
    yield Case((np.array([[3, 0, 1]]), np.array([[2.0, 0.5, 2.0]])), "two cells of one pixel, 1 and 3: there is no 2")
    for size, names in ((12, [1, 2]), (17, [4, 2, 9]), (20, [1, 2, 3, 5]), (25, [7, 30])):
        labels = cells(size, size + np.random.randint(6), names)
        weights = np.where(labels > 0, 2.0, np.random.uniform(0.2, 1.0, labels.shape))
        yield Case((labels, weights), f"cells numbered {', '.join(map(str, np.unique(labels[labels > 0])))}")
        w0, sigma = float(np.random.randint(1, 20)), float(np.random.randint(1, 8))
        yield Case((labels.astype(np.int32), weights.astype(np.float32), w0, sigma), "another w0 and sigma")


def from_distances(labels: np.ndarray, w_c: np.ndarray, term: Callable, inside: bool = False) -> np.ndarray:
    """w_c and `term` of the sorted distances [cells, h, w], on the background or everywhere."""
    names = np.unique(labels[labels > 0])
    if len(names) < 2:
        return w_c
    d = np.sort([ndimage.distance_transform_edt(labels != name) for name in names], axis=0)
    return w_c + (term(d) if inside else np.where(labels == 0, term(d), 0))


def no_square(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp(-(d[0] + d[1]) / (2 * sigma**2)))


def no_minus(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp((d[0] + d[1]) ** 2 / (2 * sigma**2)))


def sum_of_squares(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp(-(d[0] ** 2 + d[1] ** 2) / (2 * sigma**2)))


def sigma_not_squared(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma)))


def the_nearest_twice(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp(-((2 * d[0]) ** 2) / (2 * sigma**2)))


def the_farthest(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp(-((d[0] + d[-1]) ** 2) / (2 * sigma**2)))


def no_class_weight(labels, w_c, w0=10.0, sigma=5.0):
    return solution(labels, 0 * w_c, w0, sigma)


def inside_the_cells(labels, w_c, w0=10.0, sigma=5.0):
    return from_distances(labels, w_c, lambda d: w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2)), inside=True)


def a_lonely_cell_glows(labels, w_c, w0=10.0, sigma=5.0):
    if len(np.unique(labels[labels > 0])) != 1:
        return solution(labels, w_c, w0, sigma)
    d1 = ndimage.distance_transform_edt(labels == 0)
    return w_c + np.where(labels == 0, w0 * np.exp(-(d1**2) / (2 * sigma**2)), 0)


def numbers_up_to_the_largest(labels, w_c, w0=10.0, sigma=5.0):
    """A cell that does not occur is as far as the numbers of scipy go: to a corner that is not there."""
    if labels.max() < 2:
        return w_c
    d = np.sort([ndimage.distance_transform_edt(labels != name) for name in range(1, labels.max() + 1)], axis=0)
    return w_c + np.where(labels == 0, w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2)), 0)


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
    compare="Compare: the course's own makes one distance map a cell. What would 500 cells cost?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "forgot_the_square": Mistake(no_square, "the square is missing: you divide d1 + d2 itself by 2 sigma^2."),
        "forgot_the_minus": Mistake(no_minus, "your map is largest far from the cells: (d1 + d2)^2 stands in the "
                                    "exponent without its minus sign."),
        "sum_of_squares": Mistake(sum_of_squares, "you add the squares, d1^2 + d2^2. The equation squares the sum: "
                                  "(d1 + d2)^2. Only so is the weight the same all across the gap."),
        "sigma_not_squared": Mistake(sigma_not_squared, "you divide by 2 sigma, and the equation by 2 sigma^2: a "
                                     "distance is measured in sigmas before it is squared."),
        "the_nearest_twice": Mistake(the_nearest_twice, "your second distance is the first once more. d2 is the "
                                     "distance to the second nearest *cell*: each cell needs a distance map of its "
                                     "own."),
        "the_farthest": Mistake(the_farthest, "you take the nearest and the farthest cell. With two cells that is the "
                                "same; with more, d2 is the second in order."),
        "forgot_w_c": Mistake(no_class_weight, "the gap's weight is right, but w_c is missing: Eq. (2) adds one to "
                              "the other."),
        "inside_the_cells": Mistake(inside_the_cells, "the background is right, but inside the cells the map is more "
                                    "than w_c. The gap's weight is for background alone."),
        "a_lonely_cell_glows": Mistake(a_lonely_cell_glows, "a cell alone has no second nearest: nothing can be merged "
                                       "with it, so its surroundings weigh w_c and no more."),
        "numbers_up_to_the_largest": Mistake(numbers_up_to_the_largest, "you measure the distance to every number up "
                                             "to the largest label. Cells that do not occur have no distance: "
                                             "np.unique names those that do."),
    },
)  # fmt: skip
