"""The referee's eye for form: which shape a mask shows, where its centre is, how large it is and how it is turned.

Every shape is drawn by the world's own renderer at the mask's area and centroid and laid over the mask; the overlap
is the soft intersection over union, sum(min) / sum(max), over the pixels that nothing else hides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soralab.world.fit import AREA, MOON_CENTROID, SYMMETRY, distances, from_moments, moments, starts
from soralab.world.render import coverage
from soralab.world.scene import SHAPES, SPIN

STEPS = {"square": 8, "triangle": 10, "cross": 8, "moon": 24}  # angles tried
# Pixels by which a frame's outline may lie from the shape: the larger of what noise does to a generated film and a
# share of the radius. Chosen between true films through an autoencoder (0.1 to 0.35) and what is no shape of the world:
# of its radius, a hexagon lies 0.036 from a circle, a pentagon 0.05, a star of four 0.077 from a square, an L 0.1 from
# a moon, a cross of five arms 0.13 from a cross.
NOISE = {"circle": 0.1, "square": 0.2, "triangle": 0.2, "cross": 0.25, "ring": 0.25, "moon": 0.25}
LOOSE = {"circle": 0.03, "square": 0.06, "triangle": 0.065, "cross": 0.07, "ring": 0.06, "moon": 0.075}
SOFTER, MOST = 2.5, 0.42  # pixels more for each unit of softness, and the most that noise may do
LEAD = 1.3  # times as far as the nearest shape, and a frame shows that one
HIDDEN = 0.1  # pixels more for a thing of which a part is hidden
CLEAR = 0.1  # nearer than this, and no other shape needs to be tried
UPRIGHT_ENOUGH = 0.9  # an overlap of an upright shape that leaves nothing for a turn to explain
_TURNED = [(s, SYMMETRY[s] * k / STEPS[s]) for s in SYMMETRY for k in range(STEPS[s])]
_PARTS = (0.75, 0.875, 1, 1.125, 1.25)  # of the world's rates: a generated film need not turn exactly as fast
_RATES = sorted({sign * rate * part for sign in (-1, 1) for rate in SPIN.values() for part in _PARTS})


@dataclass
class Outline:
    """What the masks of one thing show.

    `votes` [time] the best shape of each frame or None; `shape` the shape of the film, None if it changes or is none
    of the world's; `overlap` 0..1; `centre` [time, 2] and `radius` [time] in pixels, NaN where it cannot be measured;
    `spin` radians per clip, 0 if it does not turn; `wobble` how much better free angles fit than the steady ones.
    """

    votes: list[str | None]
    shape: str | None
    overlap: float
    centre: np.ndarray
    radius: np.ndarray
    spin: float = 0.0
    wobble: float = 0.0


def outline(mask: np.ndarray, open_to_view: np.ndarray, frames: np.ndarray, judged: np.ndarray) -> Outline:
    """The form behind masks [time, height, width], of which the pixels `open_to_view` (bool, same shape) can be seen.

    Only the frames with the indices `frames` are measured, and only where `judged` (bool, one a measured frame) is
    true do they say which shape it is.
    """
    time = len(mask)
    blank = Outline([None] * time, None, 0.0, np.full((time, 2), np.nan), np.full(time, np.nan))
    if not len(frames):
        return blank
    pieces, open_pieces, corner = _crop(mask[frames], open_to_view[frames])
    poses, upright = _fit_upright(pieces, open_pieces, cut=not open_to_view.all())
    choice = _Choice.upright(upright)
    if upright[:, judged].mean(1).max() < UPRIGHT_ENOUGH:
        choice = _turned(pieces, open_pieces, upright, frames / time, judged)
    best = max(SHAPES, key=lambda s: choice.overlap[s][judged].mean())
    errors, allowed = _measure(pieces, open_pieces, poses, best, judged)
    row, votes = int(errors[:, judged].mean(1).argmin()), blank.votes
    best, held, names = _verdict(errors, allowed, row)
    shape = best if held[judged].all() else None
    for k, name in zip(frames, names, strict=True):
        votes[k] = name
    mine = choice.overlap[best]
    size = pieces.shape[1]
    centre, radius = blank.centre, blank.radius
    pose = poses[row]
    if choice.angle[best] is not None:
        pose = from_moments(pieces, best, choice.angle[best])
    centre[frames] = (pose[:, :2] + 0.5) * size + corner
    radius[frames] = pose[:, 2] * size
    wobble = float((choice.free[best] - mine)[judged].mean())
    return Outline(votes, shape, float(mine[judged].mean()), centre, radius, choice.spin[best], wobble)


def _measure(pieces: np.ndarray, seen: np.ndarray, poses: np.ndarray, best: str, judged: np.ndarray):
    """Distances of the outlines from each shape and what is allowed, both [shapes, frames] in pixels."""
    errors, allowed = np.full((len(SHAPES), len(pieces)), np.inf), np.zeros((len(SHAPES), len(pieces)))
    for shape in (best, *(s for s in SHAPES if s != best)):
        k = SHAPES.index(shape)
        errors[k], softness, radius = distances(pieces, seen, shape, np.stack([poses[k], *starts(pieces, shape)]))
        allowed[k] = tolerance(shape, softness, radius, judged)
        if shape == best and errors[k].max() < CLEAR:
            break  # nothing else can be as near
    return errors, allowed


def tolerance(shape: str, softness: np.ndarray, radius: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Pixels [frames] by which each frame's outline may lie from the shape; `softness` and `radius` [frames]."""
    soft = np.maximum(softness, softness[judged].mean()).clip(0)
    noise = np.minimum(NOISE[shape] + SOFTER * soft, MOST)
    return np.maximum(noise, LOOSE[shape] * radius)


def _verdict(errors: np.ndarray, allowed: np.ndarray, row: int) -> tuple[str, np.ndarray, list[str | None]]:
    """(shape number `row`, the frames that show it, the shape that each frame shows or None)."""
    held = (errors[row] <= allowed[row]) & (errors[row] <= LEAD * errors.min(0))
    nearest, frames = errors.argmin(0), np.arange(errors.shape[1])
    fits = errors.min(0) <= allowed[nearest, frames]
    votes = [SHAPES[row] if h else SHAPES[k] if f else None for h, k, f in zip(held, nearest, fits, strict=True)]
    return SHAPES[row], held, votes


def recount(
    form: Outline, mask: np.ndarray, seen: np.ndarray, poses: np.ndarray, frames: np.ndarray, slack: float
) -> None:
    """Let some `frames` (bool [time]) of a thing that is partly hidden vote on its shape, in place.

    `mask`, `seen` (bool) [time, height, width]; `poses` [time, 4] are upright, in short sides, and may be off along x
    by `slack`. Every shape is drawn with the same radius and with the same area. Where one frame shows another shape,
    the film's becomes None.
    """
    if form.shape is None or not frames.any():
        return
    mask, seen, poses = mask[frames], seen[frames], poses[frames]
    errors, allowed = np.zeros((len(SHAPES), len(mask))), np.zeros((len(SHAPES), len(mask)))
    pixel = 1 / min(mask.shape[1:])
    for k, other in enumerate(SHAPES):
        tried = np.repeat(poses[None], 2, 0)
        tried[1, :, 2] *= np.sqrt(AREA[form.shape] / AREA[other])
        tried[..., 0] += MOON_CENTROID * (poses[:, 2] * (form.shape == "moon") - tried[..., 2] * (other == "moon"))
        reach = np.array([slack + 0.5 * pixel, 0.5 * pixel, 0.5 * pixel, 0])
        errors[k], softness, radius = distances(mask, seen, other, tried, reach)
        allowed[k] = tolerance(other, softness, radius, np.ones(len(mask), bool)) + HIDDEN
    _, held, votes = _verdict(errors, allowed, SHAPES.index(form.shape))
    for t, vote in zip(np.flatnonzero(frames), votes, strict=True):
        form.votes[t] = vote
    if not held.all():
        form.shape = None


@dataclass
class _Choice:
    """Per shape: `overlap` [frames] of the steady story, `free` [frames] with any angle, `angle` [frames] or None."""

    overlap: dict
    free: dict
    angle: dict
    spin: dict

    @classmethod
    def upright(cls, scores: np.ndarray) -> _Choice:
        scores = dict(zip(SHAPES, scores, strict=True))
        return cls(scores, dict(scores), dict.fromkeys(SHAPES), dict.fromkeys(SHAPES, 0.0))


def _crop(mask: np.ndarray, open_to_view: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Square windows [frames, size, size] around the centroids, whether each pixel is seen, and corners [frames, 2]."""
    area = mask.sum((1, 2)).clip(1e-6)
    across, down = mask.sum(1), mask.sum(2)
    x = (across @ (np.arange(mask.shape[2]) + 0.5)) / area
    y = (down @ (np.arange(mask.shape[1]) + 0.5)) / area
    half = int(np.ceil(min(np.sqrt(area.max() / AREA["moon"]) * 1.3 + 2.5, max(mask.shape[1:]))))
    pad = ((0, 0), (half, half), (half, half))
    mask, seen = np.pad(mask, pad), np.pad(open_to_view, pad)
    corner = np.stack([np.round(x), np.round(y)], 1).astype(int)  # of the window, in padded pixels
    windows = [(slice(j, j + 2 * half), slice(i, i + 2 * half)) for i, j in corner]
    pieces = np.stack([m[w] for m, w in zip(mask, windows, strict=True)])
    return pieces, np.stack([m[w] for m, w in zip(seen, windows, strict=True)]), corner - half


def _overlap(pieces: np.ndarray, covers: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Soft intersection over union of pieces [frames, size, size] with covers [..., frames, size, size]."""
    covers = covers * seen
    both = np.minimum(covers, pieces).sum((-2, -1))
    return both / (covers.sum((-2, -1)) + pieces.sum((-2, -1)) - both).clip(1e-6)


def _fit_upright(pieces: np.ndarray, seen: np.ndarray, cut: bool) -> tuple[np.ndarray, np.ndarray]:
    """Poses [shapes, frames, 4] with the pieces' visible area and centroid, and their overlaps [shapes, frames]."""
    size = pieces.shape[-1]
    area, x, y = moments(pieces)
    poses = np.zeros((len(SHAPES), len(pieces), 4))
    for k, shape in enumerate(SHAPES):
        poses[k] = from_moments(pieces, shape, 0.0)
    rounds, step = (8, 1.8) if cut else (1, 1.0)  # what is partly hidden takes longer to find
    for _ in range(rounds):
        drawn, at_x, at_y = moments(coverage(SHAPES, poses, size, size) * seen)
        poses[..., 0] += np.clip(step * (x - at_x), -0.1, 0.1)
        poses[..., 1] += np.clip(step * (y - at_y), -0.1, 0.1)
        poses[..., 2] *= np.clip((area / drawn) ** (step / 2), 0.8, 1.25)
    return poses, _overlap(pieces, coverage(SHAPES, poses, size, size), seen)


def _turned(
    pieces: np.ndarray, seen: np.ndarray, upright: np.ndarray, times: np.ndarray, judged: np.ndarray
) -> _Choice:
    """Compare upright, tilted and steadily turning shapes; the simpler story wins unless it is clearly worse."""
    size = pieces.shape[-1]
    poses = np.stack([from_moments(pieces, shape, angle) for shape, angle in _TURNED])
    scores = _overlap(pieces, coverage([s for s, _ in _TURNED], poses, size, size), seen)  # [angles, frames]
    choice = _Choice.upright(upright)
    first = 0
    for shape, steps in STEPS.items():
        table = scores[first : first + steps]
        first += steps
        straight = upright[SHAPES.index(shape)]
        choice.free[shape] = np.maximum(straight, table.max(0) - 0.01)
        rate, phase = _best_spin(table, times, SYMMETRY[shape], judged)
        stories = [
            (straight[judged].mean() + 0.03, straight, 0.0, None),
            *[(s[judged].mean(), s, w, phase[j] + w * times) for j, w, s in rate],
        ]
        _, choice.overlap[shape], choice.spin[shape], choice.angle[shape] = max(stories, key=lambda s: s[0])
    return choice


def _best_spin(table: np.ndarray, times: np.ndarray, symmetry: float, judged: np.ndarray):
    """The best tilt and the best steady turn of a table of overlaps [angles, frames]."""
    steps = len(table)
    phases = np.arange(2 * steps) * symmetry / (2 * steps)
    rates = np.array([0.0, *_RATES])
    angles = phases[:, None, None] + rates[:, None] * times  # [phases, rates, frames]
    place = angles / symmetry % 1 * steps
    low = np.floor(place).astype(int) % steps
    part, frame = place - np.floor(place), np.arange(len(times))
    score = (1 - part) * table[low, frame] + part * table[(low + 1) % steps, frame]
    mean = score[..., judged].mean(-1)
    tilt = int(mean[:, 0].argmax())
    j, k = np.unravel_index(mean[:, 1:].argmax(), mean[:, 1:].shape)
    chosen = [(tilt, 0.0, score[tilt, 0]), (int(j), rates[1 + k], score[j, 1 + k] - 0.02)]
    return chosen, phases
