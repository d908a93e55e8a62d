"""Numbered pieces of a picture, painted for the eye."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import to_rgb
from scipy import ndimage
from torch import Tensor

from soralab.figures.style import CYCLE

BESIDE = 4  # pixels: pieces as near as this are painted in different colours


def paint_labels(labels: np.ndarray) -> Tensor:
    """labels [h, w] as a picture [3, h, w] in [-1, 1]: each piece in a colour that none beside it has, 0 black."""
    colours = torch.tensor([(0.0, 0.0, 0.0), *(to_rgb(colour) for colour in CYCLE[:6])])
    chosen = np.zeros(labels.max() + 1, np.int64)
    for name, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        near = tuple(slice(max(0, side.start - BESIDE), side.stop + BESIDE) for side in box)
        grown = ndimage.binary_dilation(labels[near] == name, iterations=BESIDE)
        taken = set(chosen[np.unique(labels[near][grown])])
        free = [k for k in range(1, len(colours)) if k not in taken] or [1]
        chosen[name] = free[name % len(free)]
    return colours[torch.from_numpy(chosen[labels])].permute(2, 0, 1) * 2 - 1
