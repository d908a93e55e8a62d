"""A tile with mirrored edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Exercise, WrongAnswer


def _tile_stub(image: Tensor, top: int, left: int, size: int) -> Tensor:
    """The tile of image [c, h, w] whose first pixel is (top, left), mirrored beyond the edges: [c, size, size]."""
    raise NotImplementedError


def _tile(image: Tensor, top: int, left: int, size: int) -> Tensor:
    """The tile of image [c, h, w] whose first pixel is (top, left), mirrored beyond the edges: [c, size, size]."""
    for dim, start in ((1, top), (2, left)):
        last = image.shape[dim] - 1
        index = torch.arange(start, start + size) % (2 * last)  # there and back again: 0, 1, ..., last, ..., 1
        image = image.index_select(dim, last - (index - last).abs())
    return image


def _tile_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    image = torch.arange(1.0, 2 * 9 * 12 + 1).reshape(2, 9, 12)
    inside = fn(image, 2, 3, 5)
    yield (
        isinstance(inside, Tensor) and inside.shape == (2, 5, 5),
        "A tile of 5 from a picture [2, 9, 12] is not [2, 5, 5].",
    )
    yield (
        torch.equal(inside, image[:, 2:7, 3:8]),
        "A tile that lies inside the picture is not cut where it should be: its first pixel is (top, left).",
    )
    corner = fn(image, -3, -2, 6)
    yield (
        corner.shape == (2, 6, 6),
        f"The tile at (-3, -2) is {list(corner.shape)}. Python counts negative indices from the end; here they mean "
        "beyond the edge.",
    )
    row = corner[0, 3]  # of the picture's first row: columns 2, 1, 0, 1, 2, 3
    yield (
        not (corner[:, :3] == 0).all(),
        "Beyond the edge your tile is zero. Zeros are a picture too, one that the network never saw: it would find a "
        "membrane there.",
    )
    yield (
        row.tolist() != image[0, 0, [1, 0, 0, 1, 2, 3]].tolist(),
        "Your mirror repeats the edge: 1 0 | 0 1 2. The mirror stands on the edge pixel, so that it comes "
        "once: 2 1 | 0 1 2.",
    )
    yield (
        row.tolist() != image[0, 0, [0, 0, 0, 1, 2, 3]].tolist(),
        "Beyond the edge you repeat the last pixel. Mirrored, a texture goes on; smeared, it turns to stripes.",
    )
    yield (
        row.tolist() != image[0, 0, [10, 11, 0, 1, 2, 3]].tolist(),
        "Beyond the left edge your tile shows the right side of the picture: that is a torus, not a mirror.",
    )
    yield (
        torch.equal(corner, _tile(image, -3, -2, 6)),
        "The tile at (-3, -2) is not the picture mirrored at both edges.",
    )
    other = fn(image, 5, 9, 7)
    yield (
        torch.equal(other, _tile(image, 5, 9, 7)),
        "The upper left edge is right, the lower right is not: there are four edges, and the last index is h - 1.",
    )
    yield (
        torch.equal(fn(image[:, :, :9], -20, -11, 40), _tile(image[:, :, :9], -20, -11, 40)),
        "A tile much larger than the picture is not right: where the reflection ends, it is reflected again.",
    )


def _zeros(image: Tensor, top: int, left: int, size: int) -> Tensor:
    h, w = image.shape[1:]
    big = F.pad(image, (size, size, size, size))
    top, left = min(max(top, -size), h), min(max(left, -size), w)
    return big[:, top + size : top + 2 * size, left + size : left + 2 * size]


def _indexed(image: Tensor, top: int, left: int, size: int, index: Callable) -> Tensor:
    for dim, start in ((1, top), (2, left)):
        image = image.index_select(dim, index(torch.arange(start, start + size), image.shape[dim]))
    return image


def _edge_twice(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return _indexed(image, top, left, size, _symmetric)


def _symmetric(i: Tensor, n: int) -> Tensor:
    i = i % (2 * n)
    return torch.where(i < n, i, 2 * n - 1 - i)


def _smeared(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return _indexed(image, top, left, size, lambda i, n: i.clamp(0, n - 1))


def _torus(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return _indexed(image, top, left, size, lambda i, n: i % n)


def _one_corner(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return _indexed(image, top, left, size, lambda i, n: i.abs().clamp(max=n - 1))


def _once(image: Tensor, top: int, left: int, size: int) -> Tensor:
    return _indexed(image, top, left, size, lambda i, n: (n - 1 - (n - 1 - i.abs()).abs()).clamp(0, n - 1))


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
    stub=_tile_stub,
    solution=_tile,
    check=_tile_check,
    wrong={
        "zeros": WrongAnswer(_zeros, "your tile is zero"),
        "the_edge_twice": WrongAnswer(_edge_twice, "repeats the edge"),
        "smeared": WrongAnswer(_smeared, "you repeat the last pixel"),
        "a_torus": WrongAnswer(_torus, "a torus, not a mirror"),
        "one_corner_alone": WrongAnswer(_one_corner, "the lower right is not"),
        "reflected_once": WrongAnswer(_once, "it is reflected again"),
    },
)
