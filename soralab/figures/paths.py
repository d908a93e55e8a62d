"""Why marginal paths bend: each noise goes straight to its film, and yet the walk that a network learns does not.

The rectified flow (2209.03003) joins a film x_0 and a noise eps by a line, z_t = (1 - t) x_0 + t eps, of velocity
eps - x_0. Many lines go through one z, and a network that sees z and t alone can only learn their mean,

    v(z, t) = E[eps - x_0 | z_t = z] = (z - E[x_0 | z_t = z]) / t.                                  (1)

If the films are a few points on an axis, the mean is exact: by Bayes' rule point k has the share

    w_k p(z | x_k) / sum_j w_j p(z | x_j)  with  z | x_k ~ N((1 - t) x_k, t^2).                     (2)
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import matplotlib
import numpy as np

from soralab.figures import style
from soralab.figures.pictures import Picture, picture

POINTS = (-1.0, 1.0)  # the films of the picture, each as likely as the other
STEPS, LAST = 400, 0.002  # of a path; where it stops, short of t = 0, where (1) divides by 0


def posterior(z, t: float, points: Sequence[float], weights: Sequence[float] | None = None) -> np.ndarray:
    """Equation (2): how likely each point is to lie behind z [...] at time t in (0, 1]: [..., points].

    weights: how often each point is drawn, in any unit; by default all alike. Raises ValueError for a t outside.
    """
    if not 0 < t <= 1:
        raise ValueError(f"t is {t}; it takes a number above 0 and up to 1")
    points = np.asarray(points, float)
    weights = np.ones_like(points) if weights is None else np.asarray(weights, float)
    log = np.log(weights) - (np.asarray(z, float)[..., None] - (1 - t) * points) ** 2 / (2 * t * t)
    share = np.exp(log - log.max(-1, keepdims=True))
    return share / share.sum(-1, keepdims=True)


def marginal_velocity(z, t: float, points: Sequence[float], weights: Sequence[float] | None = None) -> np.ndarray:
    """Equation (1): the mean velocity of all lines through z [...] at time t in (0, 1], of z's shape."""
    guess = posterior(z, t, points, weights) @ np.asarray(points, float)
    return (np.asarray(z, float) - guess) / t


def marginal_path(starts, points: Sequence[float], weights: Sequence[float] | None = None, steps: int = STEPS):
    """Walk from noises [n] at t = 1 along the marginal velocity: (times [steps + 1], z [steps + 1, n]), by Heun's rule.

    Steps are short where t is small, for there the paths turn fast.
    """
    times = np.geomspace(1, LAST, steps + 1)
    way = [np.asarray(starts, float)]
    for t, s in zip(times[:-1], times[1:], strict=True):
        z = way[-1]
        v = marginal_velocity(z, t, points, weights)
        way.append(z + (s - t) * (v + marginal_velocity(z + (s - t) * v, s, points, weights)) / 2)
    return times, np.stack(way)


def marginal_paths(alt: str | None = None) -> Picture:
    """Straight lines between noises and two films, and the paths that their mean velocity makes of them."""
    starts = np.array([NormalDist().inv_cdf((k + 0.5) / 12) for k in range(12)])
    times, way = marginal_path(starts, POINTS)
    if alt is None:
        near = starts[6]
        turn = way[:, 6].argmin()
        alt = (
            f"Two panels over time, noise at the left and films at the right. Left: 12 noises, each joined by straight "
            f"lines to both films, {POINTS[0]} and {POINTS[1]}; the lines cross. Right: the paths from the same noises "
            f"along the mean velocity. None crosses another, the upper half ends at {POINTS[1]} and the lower at "
            f"{POINTS[0]}, and they bend: that from {near:.2f} first sinks to {way[turn, 6]:.2f}, at t = "
            f"{times[turn]:.2f}, and then rises. One step from any noise would end at 0, where there is no film."
        )
    return picture(_draw(starts, times, way), alt, colours=32)


@matplotlib.rc_context(style.STYLE)
def _draw(starts: np.ndarray, times: np.ndarray, way: np.ndarray):
    fig, (lines, paths) = style.figure(8.2, 3.6, 1, 2, sharey=True)
    looks = {point: (colour, dashes) for point, colour, dashes in
             zip(POINTS, (style.VERMILLION, style.BLUE), ("--", "-"), strict=True)}  # fmt: skip
    for start in starts:
        for point, (colour, dashes) in looks.items():
            lines.plot([1, 0], [start, point], dashes, color=colour, linewidth=1.1, alpha=0.8)
    for path in way.T:
        colour, dashes = looks[min(POINTS, key=lambda point: abs(point - path[-1]))]
        paths.plot(times, path, dashes, color=colour, linewidth=1.5)
    last = starts[-1]
    paths.plot([1, 0], [last, np.mean(POINTS)], ":", color=style.INK, linewidth=1.8)
    paths.text(0.02, np.mean(POINTS) - 0.05, "in one step", ha="right", va="top", fontsize=9)
    for axes, title in ((lines, "what is trained on: straight lines"), (paths, "what is learnt: their mean")):
        axes.plot([0, 0], POINTS, "o", color=style.INK, markersize=6, clip_on=False, zorder=5)
        axes.set(title=title, xlim=(1, 0), xlabel="time t (1: noise, 0: film)")
    lines.set_ylabel("z")
    return fig
