"""How a segmentation is judged, and the baseline that learns nothing. Cells are True, background or membrane False."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SMALLEST = 12  # pixels; what is smaller is dirt and no cell


def components(cells: np.ndarray, smallest: int = SMALLEST) -> np.ndarray:
    """The connected pieces of cells [h, w], numbered 1, 2, ...; 0 elsewhere, and where one is below `smallest` pixels.

    Pixels are connected through their sides, not their corners.
    """
    labels, _ = ndimage.label(cells)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= smallest
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[labels]


def count_error(predicted: np.ndarray, truth: np.ndarray, smallest: int = SMALLEST) -> int:
    """How many cells too many or too few, by the number of connected pieces: 0 is right."""
    return abs(int(components(predicted, smallest).max()) - int(components(truth, smallest).max()))


def pixel_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The share of pixels on the wrong side: the squared distance of two pictures of zeros and ones."""
    return float((predicted != truth).mean())


def rand_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """1 - the foreground-restricted Rand F-score of the pieces (Arganda-Carreras et al. 2015), borders not warped.

    Only pixels that are cell in truth [h, w] count. Two of them, drawn at random, belong together in truth, in the
    prediction, in both: with n_ij pixels in true piece i and predicted piece j, precision is
    sum n_ij^2 / sum n_.j^2, recall sum n_ij^2 / sum n_i.^2, and F their harmonic mean,
    2 sum n_ij^2 / (sum n_i.^2 + sum n_.j^2). A cell's pixel that was called background is a piece of its own. One leak
    between two cells makes them one piece, and costs much; a border that lies a pixel aside costs next to nothing.
    """
    true, guess = components(truth, 1), components(predicted, 1)
    inside = true > 0
    true, guess = true[inside], guess[inside]
    if not len(true):
        return 0.0
    alone = int((guess == 0).sum())  # each of them meets itself: 1^2
    both = np.unique(true[guess > 0].astype(np.int64) * (guess.max() + 1) + guess[guess > 0], return_counts=True)[1]
    together = (both.astype(float) ** 2).sum() + alone
    in_truth = (np.bincount(true).astype(float) ** 2).sum()
    in_guess = (np.bincount(guess[guess > 0]).astype(float) ** 2).sum() + alone
    return float(1 - 2 * together / (in_truth + in_guess))


def overlap(predicted: np.ndarray, truth: np.ndarray, smallest: int = SMALLEST) -> float:
    """The paper's measure in table 2: the mean over true cells of intersection over union, 0 to 1.

    A true cell is held against the predicted piece that covers more than half of it, and counts 0 where none does.
    """
    true, guess = components(truth, smallest), components(predicted, smallest)
    both = np.zeros((true.max() + 1, guess.max() + 1))
    np.add.at(both, (true, guess), 1)
    sizes, guessed = both.sum(1)[1:], both.sum(0)[1:]
    both = both[1:, 1:]
    found = np.where(both > sizes[:, None] / 2, both / (sizes[:, None] + guessed - both), 0)
    return float(found.sum() / max(len(sizes), 1))


def scores(predicted: np.ndarray, truth: np.ndarray, smallest: int = SMALLEST) -> dict[str, float]:
    """All four of one picture: {"count_error", "overlap", "pixel_error", "rand_error"}."""
    return {
        "count_error": count_error(predicted, truth, smallest), "overlap": overlap(predicted, truth, smallest),
        "pixel_error": pixel_error(predicted, truth), "rand_error": rand_error(predicted, truth),
    }  # fmt: skip


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each column, rounded to four places."""
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def otsu(image: np.ndarray, bins: int = 256) -> float:
    """Otsu's threshold (1979): the grey level that parts a picture into two classes as far apart as can be.

    It maximises w_0 w_1 (m_0 - m_1)^2, shares times squared distance of the means, over the levels of a histogram.
    """
    counts, edges = np.histogram(image, bins)
    middle = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts)[:-1], counts.sum()
    sums = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = below * (total - below) * (sums[:-1] / below - (sums[-1] - sums[:-1]) / (total - below)) ** 2
    return float(edges[1 + int(np.nanargmax(apart))]) if np.isfinite(apart).any() else float(middle[0])
