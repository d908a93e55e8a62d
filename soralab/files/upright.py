"""Pictures and frames as they are to be shown: upright and of square pixels, whatever the camera wrote, and as large as
is asked."""

from fractions import Fraction

import numpy as np

ORIENTATION = 0x0112
"""The number of Exif's entry that says how the camera was held."""


def as_held(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The picture [height, width, 3] as the camera was held, by Exif's number: 1 as stored, 2 mirrored, 3 turned by a
    half, 4 upside down; 5 to 8: x and y changed, then as 1 to 4."""
    if orientation in (5, 6, 7, 8):
        picture, orientation = picture.transpose(1, 0, 2), orientation - 4
    return picture[:: -1 if orientation in (3, 4) else 1, :: -1 if orientation in (2, 3) else 1]


def square_pixels(frame, aspect: Fraction | None) -> tuple[int, int]:
    """(height, width) of the frame when each pixel, `aspect` times as wide as high, is stretched to a square."""
    if not aspect or aspect == 1:
        return frame.height, frame.width
    return (frame.height, round(frame.width * aspect)) if aspect > 1 else (round(frame.height / aspect), frame.width)


def upright(picture: np.ndarray, frame) -> np.ndarray:
    """The picture [height, width, 3] as it is to be shown: telephones store films lying down or mirrored.

    The matrix beside it, (a, b; c, d) in 16.16 fixed point, sends a pixel (x, y) to (a x + c y, b x + d y). Turns by
    quarters and mirrors are followed; nobody stores films at other angles.
    """
    import av

    try:
        matrix = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    except ValueError:  # beside it lies what this release of av does not know; it tells turns alone
        return np.rot90(picture, round(frame.rotation / 90))
    if matrix is None:
        return picture
    a, b, _, c, d = (int(round(value / 65536)) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(b) > abs(a):  # x and y change places
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def middle_part(h: int, w: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest part of a frame of h x w that has the shape of height x width."""
    return min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))


def resized(frame: np.ndarray, height: int | None, width: int | None):
    """uint8 [h, w, 3] -> float tensor [3, height, width] in [-1, 1], cut from the middle and averaged."""
    import torch
    from torch.nn import functional as F

    picture = torch.tensor(np.ascontiguousarray(frame)).permute(2, 0, 1).float() / 127.5 - 1
    h, w = picture.shape[-2:]
    if height is None and width is None:
        return picture
    height_, width_ = height or max(1, round(h * width / w)), width or max(1, round(w * height / h))
    if height is not None and width is not None:
        part_h, part_w = middle_part(h, w, height, width)
        y, x = (h - part_h) // 2, (w - part_w) // 2
        picture = picture[:, y : y + part_h, x : x + part_w]
    shrinks = picture.shape[-2] >= height_ and picture.shape[-1] >= width_
    # "area" is the mean over each output pixel's square: exact for whole factors, no aliasing for others
    mode = {"mode": "area"} if shrinks else {"mode": "bilinear", "antialias": True}
    return F.interpolate(picture[None], size=(height_, width_), **mode)[0]
