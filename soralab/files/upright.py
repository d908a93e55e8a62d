"""Pictures and frames as they are to be shown: upright, and of square pixels, whatever the camera wrote."""

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
