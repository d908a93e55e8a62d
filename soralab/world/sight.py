"""The referee's eyes: which pixels of a film belong to the background, to the wall, and to things of which colour.

A pixel on the edge of a shape is a mixture p = B + a (F - B) of the background B and the thing's colour F. The palette
and the backgrounds are known, so for every colour the share a and the distance of p from that line are one projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from soralab.world.render import BACKDROPS, PALETTE, WALL_COLOUR, _backdrop, _stripes
from soralab.world.scene import CAMERAS, COLOURS, TEXTURE_PERIOD, Scene, pan

DEBRIS = 0.0035  # short sides squared: anything smaller is dirt. The smallest thing of the world has twice that
VISIBLE = 0.15  # share of the frames, and at least two, for which a thing must be seen to be counted ...
FLASH = 3  # ... or one frame, where a colour covers as many times the least: no frame may show another colour
_COLOURS = np.array([PALETTE[name] for name in COLOURS], np.float32)
_FRAME_WISE = np.zeros((3, 3, 3), bool)  # neighbours within a frame, not across frames
_FRAME_WISE[1] = True


@dataclass
class Track:
    """One thing followed through the film: `mask` float32 [time, height, width] share of each pixel that it covers."""

    colour: str
    mask: np.ndarray
    purity: float  # how well its pixels lie on the line to the colour, 1 = perfectly

    @property
    def area(self) -> np.ndarray:
        """[time] in pixels."""
        return self.mask.sum((1, 2))


@dataclass
class Sight:
    """What is seen, before it is understood. `wall` [time, 2] left and right edge in pixels, or None."""

    background: str
    camera: str
    wall: np.ndarray | None
    tracks: list[Track]
    height: int
    width: int

    def hidden(self) -> np.ndarray:
        """bool [time, 1, width]: where the wall stands, and the half-covered columns at its edges."""
        columns = np.arange(self.width)
        if self.wall is None:
            return np.zeros((1, 1, self.width), bool)
        left, right = self.wall[:, :1], self.wall[:, 1:]
        return ((columns > left - 1.05) & (columns < right + 0.05))[:, None]


def to_pixels(film) -> np.ndarray:
    """A film [time, 3, height, width] in [-1, 1] as float32 [time, height, width, 3] in 0..255.

    Short sides of 64 pixels and more are averaged down to 32 to 63: the referee needs no more. Raises ValueError for
    another shape, fewer than 4 frames, a side below 16 pixels or values that are not finite.
    """
    pixels = film.detach().cpu().float().numpy() if hasattr(film, "detach") else np.asarray(film, np.float32)
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[0] < 4 or min(pixels.shape[2:]) < 16:
        raise ValueError(
            f"film has shape {list(pixels.shape)}; it takes [time >= 4, 3, height >= 16, width >= 16]"
        )
    if not np.isfinite(pixels).all():
        raise ValueError("film has values that are not finite; it takes numbers in [-1, 1]")
    pixels = (np.clip(pixels.transpose(0, 2, 3, 1), -1, 1) + 1) * np.float32(127.5)
    pool = min(pixels.shape[1:3]) // 32
    if pool > 1:
        time, height, width = (pixels.shape[0], pixels.shape[1] // pool, pixels.shape[2] // pool)
        pixels = pixels[:, : height * pool, : width * pool]
        pixels = pixels.reshape(time, height, pool, width, pool, 3).mean((2, 4))
    return np.ascontiguousarray(pixels)


def look(pixels: np.ndarray) -> Sight:
    """Find background, camera, wall and the things in a film [time, height, width, 3] in 0..255."""
    time, height, width, _ = pixels.shape
    background, camera, backdrop = _find_background(pixels)
    wall = _find_wall(pixels)
    sight = Sight(background, camera, wall, [], height, width)
    wall_pixels = np.broadcast_to(sight.hidden(), (time, height, width))
    masks, purity = _unmix(pixels, backdrop, wall_pixels)
    for name, mask in masks.items():
        before = [mask for other, mask in masks.items() if other != name]  # what may cut a thing in two
        before += [wall_pixels.astype(np.float32)] if wall is not None else []
        others = sum(before) if before else None
        sight.tracks += [Track(name, m, purity[name]) for m in _follow(mask, others)]
    return sight


# --------------------------------------------------------------------------------------------------------- background


PHASES = TEXTURE_PERIOD * np.arange(64) / 64


@lru_cache(maxsize=16)
def _waves(time: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The stripes as waves between -1 and 1: across [cameras, phases, time, width] and down [phases, height]."""
    moved = np.array([pan(camera) for camera in CAMERAS])[:, None, None] * np.arange(time) / time
    across = _stripes(width, height, (moved + PHASES[:, None])[..., None])
    return 2 * across - 1, 2 * _stripes(height, width, PHASES[:, None]) - 1


def _find_background(pixels: np.ndarray) -> tuple[str, str, np.ndarray]:
    """(background, camera, the empty film, broadcastable to `pixels`) that explain the colourless, dark pixels best."""
    time, height, width, _ = pixels.shape
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    grey = (red + green + blue) / 3
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    weight = ((grey < 140) & (spread < 45)).astype(np.float32)
    total = max(float(weight.sum()), 1.0)
    errors = {}
    for name in ("black", "grey"):
        level = np.mean(BACKDROPS[name][0])
        errors[float((np.square(grey - level) * weight).sum() / total)] = (name, "still", 0.0)
    if min(errors) > 100:  # ten grey levels off: perhaps a pattern
        errors.update(_match_patterns(grey, weight, total))
    name, camera, phase = errors[min(errors)]
    if name in ("black", "grey"):
        backdrop = np.array(BACKDROPS[name][0], np.float32)
    else:
        scene = Scene((), name, camera, texture=phase, aspect=width / height)
        backdrop = _backdrop([scene], [k / time for k in range(time)], height, width)[0]
        backdrop = np.ascontiguousarray(backdrop.transpose(0, 2, 3, 1))
    off = (pixels - backdrop)[weight > 0][::5]  # a generated film may be a shade off
    return name, camera, backdrop + np.clip(np.median(off, 0), -25, 25) if len(off) else backdrop


def _match_patterns(grey: np.ndarray, weight: np.ndarray, total: float) -> dict:
    """{mean square error: (background, camera, phase)} of the best stripes and the best checks.

    With waves A across and C down, the grey level is M + H A for stripes and M - H A C for checks, so the errors of
    all phases are sums of products.
    """
    dark, light = (np.mean(level) for level in BACKDROPS["striped"])
    middle, half = (light + dark) / 2, (light - dark) / 2
    across, down = _waves(*grey.shape)
    off = (grey - middle) * weight
    constant = float((off * (grey - middle)).sum())
    errors = {}
    for name in ("striped", "checkered"):
        if name == "striped":
            first, second = off.sum(1), weight.sum(1)  # [time, width]
        else:
            first = -np.einsum("py,tyx->ptx", down, off, optimize=True)
            second = np.einsum("py,tyx->ptx", down**2, weight, optimize=True)
        misfit = (across * (half * half * across * second - 2 * half * first)).sum((2, 3)) + constant
        camera, phase = np.unravel_index(int(misfit.argmin()), misfit.shape)
        errors[float(misfit[camera, phase]) / total] = (name, CAMERAS[camera], float(PHASES[phase]))
    return errors


def _find_wall(pixels: np.ndarray) -> np.ndarray | None:
    """The wall's edges [time, 2] in pixels, if there is one in three frames of four: columns of its colour."""
    off = pixels - np.array(WALL_COLOUR, np.float32)
    alike = np.einsum("tyxc,tyxc->tyx", off, off) < 52**2
    full = alike.mean(1) > 0.7  # [time, width]
    runs, count = ndimage.label(full, np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]]))
    edges = np.full((len(pixels), 2), np.nan)
    for t, (run,) in enumerate(_slices_by_frame(runs, count, len(pixels))):
        if run is not None and run.stop - run.start >= 0.15 * min(pixels.shape[1:3]):
            edges[t] = run.start, run.stop
    seen = np.isfinite(edges[:, 0])
    if seen.mean() < 0.75:
        return None
    times = np.arange(len(edges))
    return np.stack([np.interp(times, times[seen], edges[seen, k]) for k in (0, 1)], 1)


def _slices_by_frame(labels: np.ndarray, count: int, time: int):
    """The longest labelled run of each frame, as a one-tuple with a slice or None."""
    longest: list[slice | None] = [None] * time
    for rows, run in ndimage.find_objects(labels, count) if count else []:
        held = longest[rows.start]
        if held is None or run.stop - run.start > held.stop - held.start:
            longest[rows.start] = run
    return ((run,) for run in longest)


# ------------------------------------------------------------------------------------------------------------ unmixing


def _project(pixels: np.ndarray, backdrop: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares a and distances [pixels, colours] of pixels [pixels, 3] from the lines backdrop -> colour."""
    off = pixels - backdrop
    dot = off @ colours.T - (off * backdrop).sum(1, keepdims=True)
    length = np.square(colours).sum(1) - 2 * backdrop @ colours.T + np.square(backdrop).sum(1, keepdims=True)
    share = np.clip(dot / length, 0, 1)
    distance = np.square(off).sum(1, keepdims=True) - 2 * share * dot + share * share * length
    return share, np.sqrt(np.maximum(distance, 0))


def _unmix(pixels: np.ndarray, backdrop: np.ndarray, wall: np.ndarray) -> tuple[dict, dict]:
    """Masks [time, height, width] of the colours that are there, and how pure each colour is."""
    shape = pixels.shape[:3]
    off = pixels - backdrop
    places = np.nonzero((np.einsum("tyxc,tyxc->tyx", off, off) > 14**2) & ~wall)
    points = pixels[places]
    if not len(points):
        return {}, {}
    behind = points - off[places]
    share, distance = _project(points, behind, _COLOURS)
    length = np.sqrt(np.square(points - behind).sum(1))
    core = distance.argmin(1)
    core[(share[np.arange(len(core)), core] < 0.45) | (length < 45)] = -1
    found = _present(points, behind, places, core, share, distance, shape)
    if not found:
        return {}, {}
    label = np.array(found)[distance[:, found].argmin(1)]
    every = np.zeros((len(COLOURS), *shape), np.float32)
    every[(label, *places)] = share[np.arange(len(label)), label]
    if len(found) > 1:
        _split_borders(every, found, points, places, distance, label)
    inside = share[np.arange(len(label)), label] > 0.6
    purity = {}
    for c in found:
        mine = inside & (label == c)
        purity[COLOURS[c]] = float(np.exp(-distance[mine, c].mean() / 40)) if mine.any() else 0.0
    return {COLOURS[c]: every[c] for c in found}, purity


def _present(points, behind, places, core, share, distance, shape) -> list[int]:
    """The colours that are really there, the strongest first. Mixtures of two of them make no third one."""
    least = DEBRIS * min(shape[1:]) ** 2 * 0.7  # cores are smaller than things
    needed = max(2, VISIBLE * shape[0])
    weight = np.where(core >= 0, share[np.arange(len(core)), core], 0)
    total = np.bincount(core[core >= 0], weight[core >= 0], len(COLOURS))
    found: list[int] = []
    near: dict[int, np.ndarray] = {}
    for c in np.argsort(-total):
        if total[c] < least * min(needed, FLASH):
            break
        mine = core == c
        for i, a in enumerate(found):
            mine &= ~(near[a] & (distance[:, a] < distance[:, c] + 15))  # a noisy edge of a
            for b in found[:i]:
                both = near[a] & near[b]
                mine &= ~(both & (_mixed(points, behind, a, b) < distance[:, c] + 30))
        where = tuple(p[mine] for p in places)
        area = np.zeros(shape, bool)
        area[where] = True
        labels, count = ndimage.label(area, _FRAME_WISE)
        sizes = np.bincount(labels[where], weight[mine], count + 1)
        big = sizes[labels[where]] > least
        if len(np.unique(where[0][big])) >= needed or sizes.max() > FLASH * least:
            found.append(int(c))
            near[int(c)] = ndimage.binary_dilation(area, _FRAME_WISE, iterations=2)[places]
    return found


def _between(points: np.ndarray, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of colour a, and distance, of points [pixels, 3] from the line b -> a."""
    line = _COLOURS[a] - _COLOURS[b]
    share = np.clip((points - _COLOURS[b]) @ line / (line @ line), 0, 1)
    return share, np.sqrt(np.square(points - _COLOURS[b] - share[:, None] * line).sum(1))


def _mixed(points: np.ndarray, behind: np.ndarray, a: int, b: int) -> np.ndarray:
    """Distance of points [pixels, 3] from what the colours a and b and the background can be mixed to."""
    to_a, to_b, off = _COLOURS[a] - behind, _COLOURS[b] - behind, points - behind
    aa, bb, ab = (to_a * to_a).sum(1), (to_b * to_b).sum(1), (to_a * to_b).sum(1)
    pa, pb, det = (off * to_a).sum(1), (off * to_b).sum(1), aa * bb - ab * ab
    part_a, part_b = (pa * bb - pb * ab) / det, (pb * aa - pa * ab) / det
    plane = np.sqrt(np.square(off - part_a[:, None] * to_a - part_b[:, None] * to_b).sum(1))
    outside = (part_a < -0.02) | (part_b < -0.02) | (part_a + part_b > 1.05)
    return np.minimum(np.where(outside, np.inf, plane), _between(points, a, b)[1])


def _split_borders(every, found, points, places, distance, label) -> None:
    """Where two things touch, their border pixels are mixtures of both colours: share them out, in place."""
    near = {c: ndimage.binary_dilation(every[c] > 0.5, _FRAME_WISE)[places] for c in found}
    for i, a in enumerate(found):
        for b in found[:i]:
            both = np.flatnonzero(near[a] & near[b])
            if not len(both):
                continue
            share, away = _between(points[both], a, b)
            better = away < distance[both, label[both]] - 2
            chosen, part = both[better], share[better]
            where = tuple(p[chosen] for p in places)
            for c in found:
                every[(c, *where)] = 0
            every[(a, *where)], every[(b, *where)] = part, 1 - part


# ------------------------------------------------------------------------------------------------------------ following


def _follow(mask: np.ndarray, others: np.ndarray | None) -> list[np.ndarray]:
    """The things of one colour, each as a mask of its own: pieces that another thing cuts apart count as one."""
    side = min(mask.shape[1:])
    solid = mask > 0.25
    joined = solid if others is None else solid | (others > 0.25)
    labels, count = ndimage.label(joined, _FRAME_WISE)
    if not count:
        return []
    places = np.nonzero(joined)
    at, weight = labels[places], np.where(solid, mask, 0)[places]
    sizes = np.bincount(at, weight, count + 1)[1:]
    frames = np.zeros(count + 1, int)
    frames[at] = places[0]
    frames = frames[1:]
    largest = np.zeros(len(mask))
    np.maximum.at(largest, frames, sizes)
    keep = sizes > np.maximum(DEBRIS * side * side, 0.3 * largest[frames])
    if keep.all() and len(np.unique(frames)) == count:
        return [mask]  # one piece in every frame, and no dirt
    per_frame = [[int(k) + 1 for k in np.flatnonzero(keep & (frames == t))] for t in range(len(mask))]
    needed = max(2, VISIBLE * len(mask))
    needed = min(needed, sum(bool(pieces) for pieces in per_frame))  # a flash
    most = range(1, 1 + max(map(len, per_frame)))
    number = max((n for n in most if sum(len(p) >= n for p in per_frame) >= max(needed, 1)), default=0)
    wide = ndimage.grey_dilation(labels, footprint=_FRAME_WISE)  # the faint edge belongs to its piece
    owner = np.where(labels > 0, labels, wide)
    centres = np.stack([np.bincount(at, weight * p, count + 1)[1:] / sizes.clip(1e-6) for p in places[1:]], 1)
    return [_collect(mask, owner, chain) for chain in _chains(per_frame, centres, sizes, number)]


def _chains(per_frame: list[list[int]], centres: np.ndarray, sizes: np.ndarray, number: int) -> list[list[int]]:
    """Link the pieces of each frame into `number` chains, by nearness. 0 where a chain has no piece."""
    chains: list[list[int]] = [[] for _ in range(number)]
    last = [None] * number
    for pieces in per_frame:
        pieces = sorted(pieces, key=lambda k: -sizes[k - 1])[: max(number, 1)]
        cost = np.array([[0.0 if at is None else np.hypot(*(centres[k - 1] - at)) for k in pieces] for at in last])
        taken = dict(zip(*linear_sum_assignment(cost), strict=True)) if pieces and number else {}
        for c in range(number):
            piece = pieces[taken[c]] if c in taken else 0
            chains[c].append(piece)
            last[c] = centres[piece - 1] if piece else last[c]
    return chains


def _collect(mask: np.ndarray, owner: np.ndarray, chain: list[int]) -> np.ndarray:
    mine = np.array(chain)[:, None, None]
    return np.where((owner == mine) & (mine > 0), mask, 0).astype(np.float32)
