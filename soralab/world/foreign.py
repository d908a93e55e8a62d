"""Whether a picture is of this world at all. A model that has seen nothing else answers about a photograph too.

Nearly every pixel of a world's picture has one of a dozen colours: the ground's, a thing's, the wall's. Edges,
enlarging and lossy files mix some of them, but few. A photograph, a gradient or noise has many others, a page or a
drawing on paper has a ground that is not dark, and a dark page or screen has nothing in a thing's colour. So the share
of pixels near these colours decides, without a model. tests/test_foreign.py measures how often it errs.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from soralab.world.render import BACKDROPS, PALETTE, WALL_COLOUR

NEAR = 32  # levels of 255, Euclidean: a pixel is of the ground. Pure black is of the black one, 30 levels away
ALIKE = 45  # ... and of a thing, where any will do
KNOWN, GROUND = 0.8, 0.4  # least shares of a picture that have the world's colours, and that show the ground
THING = 0.001  # least share, in one picture at least, that has a thing's or the wall's: one pixel of 32 x 32
_GROUNDS = [np.array(pair, np.float32) for pair in dict.fromkeys(BACKDROPS.values())]
_THINGS = np.array([*PALETTE.values(), WALL_COLOUR], np.float32)


def shares(picture: np.ndarray) -> tuple[float, float, float]:
    """Of a picture [height, width, 3] in 0..255 the shares of pixels that have the world's colours, that show the
    ground which explains it best, and that have a thing's or the wall's colour."""
    picture = np.asarray(picture, np.float32)
    pixels = picture.reshape(-1, 3)
    blurred = ndimage.uniform_filter(picture, (3, 3, 1)).reshape(-1, 3)  # a GIF of few colours is a ground in dots
    away = np.linalg.norm(pixels[:, None] - _THINGS, axis=2).min(1)
    grounds = [np.minimum(_from_line(pixels, *ends), _from_line(blurred, *ends)) < NEAR for ends in _GROUNDS]
    ground = max(grounds, key=lambda mask: (mask | (away < NEAR)).mean())
    known, thing = ground | (away < NEAR), ~ground & (away < ALIKE)
    return float(known.mean()), float(ground.mean()), float(thing.mean())


def is_foreign(film) -> bool:
    """Whether pictures [time, 3, height, width] in [-1, 1], torch or numpy, do not look like this world's as a whole.

    They are small, 32 pixels a side or so. An empty ground is foreign too: in this world something is seen.
    """
    film = film.detach().cpu().float().numpy() if hasattr(film, "detach") else np.asarray(film, np.float32)
    found = np.array([shares((picture + 1) * 127.5) for picture in film.transpose(0, 2, 3, 1)])
    known, ground, _ = found.mean(0)
    return bool(known < KNOWN or ground < GROUND or found[:, 2].max() < THING)


def _from_line(pixels: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Distances [n] of pixels [n, 3] from a ground of one colour, or from what a pattern's two are mixed to."""
    line = light - dark
    share = np.clip((pixels - dark) @ line / max(float(line @ line), 1.0), 0, 1)
    return np.linalg.norm(pixels - dark - share[:, None] * line, axis=1)
