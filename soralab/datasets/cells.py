"""Touching cells drawn by code, in the manner of the paper's DIC-HeLa pictures (figure 4c), with every cell numbered.

In differential interference contrast a microscope shows slopes, not brightness: each cell is a relief lit from one
side, with a bright flank and a dark one, and where two cells press on each other along the light there is hardly a line
between them. A picture is a pure function of (seed, index): the same in any process, any order.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = (7.0, 11.5)  # pixels, of the cells
CROWD = 0.0022  # cells for each pixel of the picture, at most


def draw(seed: int, index: int, side: int = 100) -> tuple[Tensor, np.ndarray]:
    """One picture [1, side, side] in [-1, 1] and its labels [side, side], int32: 0 background, 1, 2, ... cells.

    Cells touch without a gap in the labels; `soralab.unet.separate` makes one. A picture is a window of an endless
    dish: cells at its edge are cut.
    """
    rng = np.random.default_rng((seed, index))
    centres, radii = _places(rng, side)
    pixels = np.mgrid[:side, :side].astype(np.float32)
    bent = pixels + 2.0 * _noise(rng, 2, side, 16)  # one bend for all: cells press on each other and are no discs
    angle, squeeze = rng.uniform(0, np.pi, len(radii)), rng.uniform(1.0, 1.35, len(radii))
    away = bent[None] - centres[:, :, None, None]
    along, across = (  # in the axes of each cell's ellipse
        np.cos(angle)[:, None, None] * away[:, 0] + np.sin(angle)[:, None, None] * away[:, 1],
        np.cos(angle)[:, None, None] * away[:, 1] - np.sin(angle)[:, None, None] * away[:, 0],
    )
    stretch = squeeze[:, None, None]
    reach = np.sqrt((along / stretch) ** 2 + (across * stretch) ** 2) / radii[:, None, None]  # 1 at a cell's edge
    nearest, owner = reach.min(0), reach.argmin(0)
    inside = nearest < 1
    labels = np.where(inside, owner + 1, 0).astype(np.int32)
    return _light(rng, nearest, inside, radii[owner]), _renumbered(labels)


def _places(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [n, 2] and radii [n] of the cells: most of them grow beside one that is there already, and touch it."""
    rim = RADIUS[1]
    area = (side + 2 * rim) ** 2
    count = int(area * CROWD * rng.uniform(0.55, 1.0))
    centres, radii = [rng.uniform(-rim, side + rim, 2)], [rng.uniform(*RADIUS)]
    for _ in range(6 * count):
        if len(radii) == count:
            break
        radius = rng.uniform(*RADIUS)
        if rng.random() < 0.8:
            host, angle = rng.integers(len(radii)), rng.uniform(0, 2 * np.pi)
            push = (radius + radii[host]) * rng.uniform(0.8, 0.95)
            centre = centres[host] + push * np.array([np.sin(angle), np.cos(angle)])
        else:
            centre = rng.uniform(-rim, side + rim, 2)
        if not ((centre > -rim) & (centre < side + rim)).all():
            continue
        gaps = np.linalg.norm(np.array(centres) - centre, axis=1) / (np.array(radii) + radius)
        if gaps.min() > 0.78:  # else one would swallow the other
            centres.append(centre)
            radii.append(radius)
    return np.array(centres), np.array(radii)


def _light(rng: np.random.Generator, nearest: np.ndarray, inside: np.ndarray, radius: np.ndarray) -> Tensor:
    """The picture of domes lit from one side: the slope of their height towards the light, and grain."""
    side = len(nearest)
    dome = np.where(inside, np.sqrt(np.clip(1 - nearest**2, 0, None)), 0) * radius * 0.4
    nucleus = np.exp(-((nearest / 0.38) ** 2) * 2) * 0.9
    grain = _noise(rng, 1, side, 4)[0] + 0.6 * _noise(rng, 1, side, 2)[0]
    height = dome + nucleus + np.where(inside, 0.4, 0.12) * grain
    light = rng.uniform(0, 2 * np.pi)
    down, right = np.gradient(height)
    slope = np.cos(light) * down + np.sin(light) * right
    grey = 0.75 * slope + 0.18 * _noise(rng, 1, side, 50)[0] + 0.07 * rng.standard_normal((side, side))
    return torch.from_numpy(np.tanh(grey).astype(np.float32))[None]


def _noise(rng: np.random.Generator, channels: int, side: int, size: int) -> np.ndarray:
    """Smooth noise of deviation about 1, [channels, side, side], with blobs of about `size` pixels."""
    coarse = torch.from_numpy(rng.standard_normal((1, channels, side // size + 3, side // size + 3), np.float32))
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)[0].numpy() * 1.4


def _renumbered(labels: np.ndarray) -> np.ndarray:
    """The same cells numbered 1, 2, ... without a gap: some lie outside the window."""
    names = np.unique(labels[labels > 0])
    return np.where(labels > 0, np.searchsorted(names, labels) + 1, 0).astype(np.int32)
