"""Numbered pieces of a picture, painted for the eye."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import to_rgb
from torch import Tensor

from soralab.figures.style import CYCLE


def paint_labels(labels: np.ndarray) -> Tensor:
    """labels [h, w] as a picture [3, h, w] in [-1, 1]: each cell in a colour, the background black."""
    colours = torch.tensor([to_rgb(colour) for colour in CYCLE[:6]])
    index = torch.from_numpy(labels.astype(np.int64))
    painted = torch.where(index[..., None] > 0, colours[(index - 1) % len(colours)], torch.zeros(3))
    return painted.permute(2, 0, 1) * 2 - 1
