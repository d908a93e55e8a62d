"""Crop and concatenate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.task import Exercise, WrongAnswer


def _crop_stub(skip: Tensor, x: Tensor) -> Tensor:
    """The middle of skip [batch, c, H, W], as large as x [batch, d, h, w], and after it x: [batch, c + d, h, w]."""
    raise NotImplementedError


def _crop(skip: Tensor, x: Tensor) -> Tensor:
    """The middle of skip [batch, c, H, W], as large as x [batch, d, h, w], and after it x: [batch, c + d, h, w]."""
    h, w = x.shape[-2:]
    top, left = (skip.shape[-2] - h) // 2, (skip.shape[-1] - w) // 2
    return torch.cat([skip[..., top : top + h, left : left + w], x], dim=1)


def _crop_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for (H, W), (h, w) in (((12, 12), (8, 8)), ((14, 20), (10, 8)), ((9, 9), (9, 9))):
        skip = torch.arange(2 * 2 * H * W, dtype=torch.float32).reshape(2, 2, H, W)
        x = -torch.arange(2 * 3 * h * w, dtype=torch.float32).reshape(2, 3, h, w)
        got, right = fn(skip, x), _crop(skip, x)
        case = f"skip {H}x{W}, x {h}x{w}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        shape = tuple(got.shape)
        yield (
            shape != (2, 5, H, W) or (H, W) == (h, w),
            f"{case}: what comes back is as large as the copy. Here the copy gives way: at x's border there is nothing "
            "that was seen, and padding would invent it.",
        )
        yield (
            len(shape) != 4 or shape[0] == 2 and shape[2:] == (h, w),
            f"{case}: the result is {list(shape)}. Channels are laid beside each other, along dimension 1; the others "
            "stay.",
        )
        yield shape == (2, 5, h, w), f"{case}: the result is {list(shape)}, it should be {[2, 5, h, w]}."
        corner = torch.cat([skip[..., :h, :w], x], 1)
        yield (
            torch.equal(got, right) or not torch.equal(got, corner),
            f"{case}: you keep the upper left corner of the copy. What comes up from below lost as much on the left as "
            "on the right, so it lies over the middle.",
        )
        yield (
            torch.equal(got, right) or not torch.equal(got, torch.cat([x, right[:, :2]], 1)),
            f"{case}: the right pixels, in the other order. The copy comes first; a trained network's weights "
            "count on it.",
        )
        mine = got[:, :2]
        yield (
            bool(torch.isin(mine, skip).all()),
            f"{case}: your copy holds values that are not in it. It is cut, not scaled: a resized copy would lie "
            "beside other pixels than those it shows.",
        )
        yield torch.equal(got, right), f"{case}: the copy's middle, or x behind it, is not what it should be."


def _corner(skip: Tensor, x: Tensor) -> Tensor:
    return torch.cat([skip[..., : x.shape[-2], : x.shape[-1]], x], 1)


def _resized(skip: Tensor, x: Tensor) -> Tensor:
    return torch.cat([F.interpolate(skip, x.shape[-2:], mode="bilinear", align_corners=False), x], 1)


def _padded(skip: Tensor, x: Tensor) -> Tensor:
    down, right = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
    return torch.cat([skip, F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))], 1)


def _other_order(skip: Tensor, x: Tensor) -> Tensor:
    both = _crop(skip, x)
    return torch.cat([both[:, skip.shape[1] :], both[:, : skip.shape[1]]], 1)


def _in_the_batch(skip: Tensor, x: Tensor) -> Tensor:
    both = _crop(skip, x)
    copy, rest = both[:, : skip.shape[1]], both[:, skip.shape[1] :]
    return torch.cat([copy, rest[:, : copy.shape[1]]], 0)


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
    stub=_crop_stub,
    solution=_crop,
    check=_crop_check,
    wrong={
        "the_corner": WrongAnswer(_corner, "upper left corner"),
        "resized": WrongAnswer(_resized, "It is cut, not scaled"),
        "x_is_padded": WrongAnswer(_padded, "padding would invent it"),
        "the_other_order": WrongAnswer(_other_order, "in the other order"),
        "along_the_batch": WrongAnswer(_in_the_batch, "along dimension 1"),
    },
)
