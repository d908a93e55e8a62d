"""E as a convolution: how published weights store it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(weight: Tensor, patch: int) -> Tensor:
    """E [dim, patch * patch * channel] as the kernel of a convolution: [dim, channel, patch, patch].

    In weight a patch is read row by row, and of each pixel its colours: (row, column, channel).
    """
    raise NotImplementedError


def solution(weight: Tensor, patch: int) -> Tensor:
    """E [dim, patch * patch * channel] as the kernel of a convolution: [dim, channel, patch, patch]."""
    return rearrange(weight, "dim (row column channel) -> dim channel row column", row=patch, column=patch)


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 1), 1), "one pixel of one colour")
    yield Case((torch.randn(3, 4), 2), "one colour")
    yield Case((torch.randn(2, 5), 1), "patches of one pixel")
    for _ in range(4):
        dim, channels, patch = (int(torch.randint(2, 7, ())) for _ in range(3))
        yield Case((torch.randn(dim, patch * patch * channels), patch), f"{channels} channels, patches of {patch}")
    yield Case((torch.randn(4, 27, dtype=torch.float64), 3), "float64")


def _read_as(pattern: str) -> Callable:
    return lambda weight, patch: rearrange(weight, pattern, row=patch, column=patch)


colour_planes = _read_as("dim (channel row column) -> dim channel row column")
mirrored_at_the_diagonal = _read_as("dim (row column channel) -> dim channel column row")
colours_last = _read_as("dim (row column channel) -> dim row column channel")
inputs_first = _read_as("dim (row column channel) -> channel dim row column")


def turned_round(weight: Tensor, patch: int) -> Tensor:
    return solution(weight, patch).flip(2, 3)


EXERCISE = Exercise(
    name="vit.as_convolution",
    title="E is a convolution",
    difficulty=1,
    minutes=10,
    statement="""
        Cutting into patches and multiplying each by one matrix is what a convolution does that steps by a whole patch:
        its kernel is as large as a patch, so no pixel is seen twice. Published weights store E in that form. Make the
        kernel of E, so that `F.conv2d(pixels, kernel, bias, stride=patch)` gives each patch the vector that E gives it.
        A test of shapes sees none of the ways to get this wrong.
        """,
    hints=(
        "Name the axes of both before you move one: which of a patch's numbers lie side by side in a row of E?",
        "In E the channel is the fast one; in a kernel the column is. So split E's row into three axes, then move one.",
        'rearrange(weight, "dim (row column channel) -> dim channel row column", row=patch, column=patch)',
    ),
    compare="Compare: `reshape` and `permute` do it too, and say less of what they do.",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "colour_planes": Mistake(colour_planes, "you read a row of E as colour plane after colour plane, as a reshape "
                                 "to the wanted shape does. In E the three colours of one pixel lie side by side."),
        "mirrored": Mistake(mirrored_at_the_diagonal, "rows and columns are exchanged: every kernel is mirrored at "
                            "its diagonal."),
        "colours_last": Mistake(colours_last, "the channel comes last. PyTorch's kernels have it second: [out, in, "
                                "row, column]."),
        "inputs_first": Mistake(inputs_first, "the channel comes first. PyTorch's kernels begin with what comes out: "
                                "[out, in, row, column]."),
        "turned_round": Mistake(turned_round, "you turned the kernel round, as the textbook's convolution wants it. "
                                "PyTorch's slides the kernel as it stands."),
    },
)  # fmt: skip
