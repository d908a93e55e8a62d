"""Crop and concatenate: the grey arrows of figure 1."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(skip: Tensor, x: Tensor) -> Tensor:
    """The middle of skip [batch, c, H, W], as large as x [batch, d, h, w], and after it x: [batch, c + d, h, w]."""
    raise NotImplementedError


def solution(skip: Tensor, x: Tensor) -> Tensor:
    """The middle of skip [batch, c, H, W], as large as x [batch, d, h, w], and after it x: [batch, c + d, h, w]."""
    h, w = x.shape[-2:]
    top, left = (skip.shape[-2] - h) // 2, (skip.shape[-1] - w) // 2
    return torch.cat([skip[..., top : top + h, left : left + w], x], dim=1)


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1)), "one pixel")
    yield Case((torch.randn(1, 2, 2, 3), torch.randn(1, 1, 2, 3)), "as large as each other")
    for _ in range(4):
        batch, c, d, h, w, down, right = (int(torch.randint(1, 6, ())) for _ in range(7))
        even = torch.randn(batch, c, h + 2 * down, w + 2 * right)
        yield Case((even, torch.randn(batch, d, h, w)), "even differences")
        odd = torch.randn(batch, c, h + 2 * down - 1, w + 2 * right + 1)
        yield Case((odd, torch.randn(batch, d, h, w)), "odd differences: the crop rounds down")
    yield Case((torch.randn(2, 3, 9, 6, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)), "float64")


def the_corner(skip: Tensor, x: Tensor) -> Tensor:
    return torch.cat([skip[..., : x.shape[-2], : x.shape[-1]], x], 1)


def rounded_up(skip: Tensor, x: Tensor) -> Tensor:
    h, w = x.shape[-2:]
    top, left = (skip.shape[-2] - h + 1) // 2, (skip.shape[-1] - w + 1) // 2
    return torch.cat([skip[..., top : top + h, left : left + w], x], 1)


def resized(skip: Tensor, x: Tensor) -> Tensor:
    return torch.cat([F.interpolate(skip, x.shape[-2:], mode="bilinear", align_corners=False), x], 1)


def x_is_padded(skip: Tensor, x: Tensor) -> Tensor:
    down, right = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
    return torch.cat([skip, F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))], 1)


def the_other_order(skip: Tensor, x: Tensor) -> Tensor:
    return solution(skip, x).roll(x.shape[1], 1)


def along_the_batch(skip: Tensor, x: Tensor) -> Tensor:
    return torch.cat(solution(skip, x).split([skip.shape[1], x.shape[1]], 1), 0)


EXERCISE = Exercise(
    name="unet.crop_and_concat",
    title="Crop and concatenate",
    difficulty=1,
    minutes=10,
    statement="""
        The grey arrows of figure 1. On the way down the network keeps a copy of each level; on the way up the copy is
        laid beside what comes from below, as further channels. What comes from below has lost more of its border, so
        the copy is **cropped to its middle** first. Where the two differ by an odd number the crop rounds down.
        """,
    hints=(
        "Which pixel of the copy lies over the first pixel of x? Both are centred on the same spot of the picture.",
        "Half of the difference is cut on each side: top = (H - h) // 2. Then torch.cat along the channels.",
        "torch.cat([skip[..., top : top + h, left : left + w], x], dim=1)",
    ),
    compare="Compare: does your crop need to know whether the difference is odd? The course's own does not.",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "the_corner": Mistake(the_corner, "you keep the upper left corner of the copy. What comes up from below lost "
                              "as much on the left as on the right, so it lies over the middle."),
        "rounded_up": Mistake(rounded_up, "right for even differences alone: of an odd one you cut the larger half "
                              "above and on the left. The crop rounds down."),
        "resized": Mistake(resized, "you scale the copy. It is cut, not scaled: a resized copy would lie beside other "
                           "pixels than those it shows."),
        "x_is_padded": Mistake(x_is_padded, "you pad x to the copy's size. Here the copy gives way: at x's border "
                               "there is nothing that was seen, and padding would invent it."),
        "the_other_order": Mistake(the_other_order, "the right pixels, in the other order. The copy comes first; a "
                                   "trained network's weights count on it."),
        "along_the_batch": Mistake(along_the_batch, "you lay the two behind each other as further pictures. They are "
                                   "channels of the same picture: dimension 1."),
    },
)  # fmt: skip
