"""A tile with mirrored edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(image: Tensor, top: int, left: int, size: int) -> Tensor:
    """The tile of image [c, h, w] whose first pixel is (top, left), mirrored beyond the edges: [c, size, size]."""
    raise NotImplementedError


def solution(image: Tensor, top: int, left: int, size: int) -> Tensor:
    """The tile of image [c, h, w] whose first pixel is (top, left), mirrored beyond the edges: [c, size, size]."""
    for dim, start in ((1, top), (2, left)):
        last = image.shape[dim] - 1
        index = torch.arange(start, start + size) % (2 * last)  # there and back again: 0, 1, ..., last, ..., 1
        image = image.index_select(dim, last - (index - last).abs())
    return image


def cases() -> Iterator[Case]:
    picture = torch.arange(1.0, 21).reshape(1, 4, 5)
    yield Case((picture, 1, 2, 3), "inside the picture")
    yield Case((picture, -2, -1, 4), "beyond the upper left corner")
    yield Case((picture, 2, 3, 3), "beyond the lower right corner")
    yield Case((picture, -1, 3, 5), "beyond the upper and the right edge")
    yield Case((picture, -9, -11, 20), "much larger than the picture: the reflection is reflected again")
    yield Case((picture, 13, 17, 2), "far outside")
    yield Case((torch.randn(3, 2, 2), -3, -3, 8), "the smallest picture that has a mirror")
    for _ in range(6):
        c, h, w, size = (int(torch.randint(low, 12, ())) for low in (1, 3, 3, 1))
        top, left = int(torch.randint(-h, h, ())), int(torch.randint(-w, w, ()))
        yield Case((torch.randn(c, h, w, dtype=torch.float64), top, left, size), "float64, at random")


def zeros(image: Tensor, top: int, left: int, size: int) -> Tensor:
    h, w = image.shape[1:]
    far = size + max(abs(top), abs(left), h, w)
    return F.pad(image, (far, far, far, far))[:, top + far : top + far + size, left + far : left + far + size]


def indexed(image: Tensor, top: int, left: int, size: int, index: Callable) -> Tensor:
    """The tile whose rows and columns are those that `index(places, n)` names, of n."""
    for dim, start in ((1, top), (2, left)):
        image = image.index_select(dim, index(torch.arange(start, start + size), image.shape[dim]))
    return image


def the_edge_twice(image: Tensor, top: int, left: int, size: int) -> Tensor:
    def index(i: Tensor, n: int) -> Tensor:
        i = i % (2 * n)
        return torch.where(i < n, i, 2 * n - 1 - i)

    return indexed(image, top, left, size, index)


def smeared(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return indexed(image, top, left, size, lambda i, n: i.clamp(0, n - 1))


def a_torus(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return indexed(image, top, left, size, lambda i, n: i % n)


def one_corner(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return indexed(image, top, left, size, lambda i, n: i.abs().clamp(max=n - 1))


def reflected_once(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return indexed(image, top, left, size, lambda i, n: (n - 1 - (n - 1 - i.abs()).abs()).clamp(0, n - 1))


def rows_and_columns_swapped(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return solution(image, left, top, size)


EXERCISE = Exercise(
    name="unet.mirror_tile",
    title="A tile with mirrored edges",
    difficulty=3,
    minutes=20,
    statement="""
        To label the pixels at a picture's edge the network wants to see what lies beyond it. Figure 2's answer: the
        picture, mirrored. Cut a tile of `size` x `size` pixels whose first pixel is (`top`, `left`); both may be
        negative, and the tile may reach beyond the other edges too. The edge pixel is not repeated:
        `... 2 1 | 0 1 2 ...`. Where the reflection ends, it is reflected again.
        """,
    hints=(
        "Forget the picture and think of one row of n pixels. Which of them lies at place -1? At -2? At n?",
        "Walking outwards from the mirror you go 0, 1, ..., n - 1, n - 2, ..., 1, 0, 1, ...: a zigzag with a period "
        "of 2 (n - 1).",
        "index = torch.arange(start, start + size) % (2 * last); index = last - (index - last).abs(); then "
        "image.index_select(dim, index), for both dims.",
    ),
    compare="Compare: F.pad(mode='reflect') mirrors once and refuses more. The zigzag's period does it for any place.",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "zeros": Mistake(zeros, "beyond the edge your tile is zero. Zeros are a picture too, a flat one such as "
                         "the network never saw, and near them it errs most."),
        "the_edge_twice": Mistake(the_edge_twice, "your mirror repeats the edge: 1 0 | 0 1 2. The mirror stands on the "
                                  "edge pixel, so that it comes once: 2 1 | 0 1 2."),
        "smeared": Mistake(smeared, "beyond the edge you repeat the last pixel. Mirrored, a texture goes on; smeared, "
                           "it turns to stripes."),
        "a_torus": Mistake(a_torus, "beyond the left edge your tile shows the right side of the picture: that is a "
                           "torus, not a mirror."),
        "one_corner_alone": Mistake(one_corner, "the upper left edge is right, the lower right is not: there are four "
                                    "edges, and the last index is h - 1."),
        "reflected_once": Mistake(reflected_once, "a tile much larger than the picture is not right: where the "
                                  "reflection ends, it is reflected again."),
        "rows_and_columns_swapped": Mistake(rows_and_columns_swapped, "top and left have changed places: rows are "
                                            "dimension 1 of [c, h, w], columns dimension 2."),
    },
)  # fmt: skip
