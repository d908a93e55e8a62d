"""The abilities of the Sora report in numbers: films extended, joined, looped, edited, and pictures brought to life.

A seam is a pair of neighbouring frames of which one was given and one was filmed. It is called smooth if the picture
changes there by no more than at 95 % of all pairs of neighbours in true films of the same scenes.
"""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import torch
from torch import Tensor

from soralab import world
from soralab.experiments.sora_full_scores import CHUNK, NOISE, marks
from soralab.sora_full import EDGE, FullFilmmaker
from soralab.training.progress import progress
from soralab.world.language import short_caption
from soralab.world.scene import COLOURS, WALL, Scene, held_out

SEED, LONG, SHORT = 401, 18, 9  # frames of a true film, and of the half that is given
KEPT = ("shape", "colour", "count")  # what makes a thing the same thing


def scenes(number: int, level: str = "simple") -> list[Scene]:
    """The first `number` unseen scenes; none with a wall, behind which a thing may be hidden at the seam."""
    drawn = (world.sample_scene(SEED, k, level, "test") for k in count())
    return list(islice((s for s in drawn if all(o.motion != WALL for o in s.objects)), number))


def changes(films: Tensor) -> Tensor:
    """How much the picture changes between neighbouring frames: [batch, frames - 1], mean absolute."""
    return (films[:, 1:] - films[:, :-1]).abs().mean((2, 3, 4))


def smooth(films: Tensor, seams: list[int], true: Tensor) -> list[bool]:
    """For each film whether it is smooth at all of `seams` (frames that follow one)."""
    most = float(np.quantile(changes(true).numpy(), 0.95))
    return (changes(films)[:, [k - 1 for k in seams]] <= most).all(1).tolist()


def same(films: Tensor, texts: list[str]) -> list[bool]:
    """For each film whether its things are from the first frame to the last those of its prompt."""
    return [all(marks(film, text)[key] for key in KEPT) for film, text in zip(films, texts, strict=True)]


def extended(maker: FullFilmmaker, number: int, backwards: bool, **options) -> dict[str, list[int]]:
    """True films of 18 frames of which one half is given: identity kept, seam smooth, all right."""
    told = scenes(number)
    texts, true = [short_caption(s) for s in told], world.to_film(world.render(told, LONG))
    given = true[:, SHORT:] if backwards else true[:, :SHORT]
    films = _in_parts(
        lambda a, b: maker.extend(given[a:b], SHORT, texts[a:b], NOISE + a, backwards, rate=LONG, **options), number
    )
    return _table(films, texts, [SHORT], true)


def animated(maker: FullFilmmaker, number: int, **options) -> dict[str, list[int]]:
    """The first frames of true films, brought to life."""
    told = scenes(number)
    texts, true = [short_caption(s) for s in told], world.to_film(world.render(told, SHORT))
    films = _in_parts(lambda a, b: maker.animate(true[a:b, 0], texts[a:b], SHORT, NOISE + a, **options), number)
    return _table(films, texts, [1], true)


def looped(maker: FullFilmmaker, number: int, **options) -> dict[str, list[int]]:
    """True films led from their end back to their beginning: both seams."""
    told = scenes(number)
    texts, true = [short_caption(s) for s in told], world.to_film(world.render(told, SHORT))
    films = _in_parts(lambda a, b: maker.loop(true[a:b], SHORT, texts[a:b], NOISE + a, **options), number)
    closed = torch.cat([films, films[:, :1]], dim=1)
    return _table(closed, texts, [SHORT, 2 * SHORT], true)


def joined(maker: FullFilmmaker, number: int, **options) -> dict[str, list[int]]:
    """True films of which the first and the last EDGE frames are given, and between them SHORT are filmed: both seams.

    The two ends are of one film, so that there is a true one that joins them.
    """
    frames, told = 2 * EDGE + SHORT, scenes(number)
    texts, true = [short_caption(s) for s in told], world.to_film(world.render(told, frames))
    films = _in_parts(
        lambda a, b: maker.join(
            true[a:b, :EDGE], true[a:b, -EDGE:], SHORT, texts[a:b], NOISE + a, rate=frames, **options
        ),
        number,
    )
    return _table(films, texts, [EDGE, EDGE + SHORT], true)


def recoloured(scene: Scene) -> str:
    """A scene's caption with another colour: the third after the thing's own, in the world's order, or the next one
    whose combination with its shape was not kept from training."""
    (thing,) = scene.objects
    own = COLOURS.index(thing.colour)
    others = (COLOURS[(own + 3 + k) % len(COLOURS)] for k in range(len(COLOURS) - 3))
    colour = next(other for other in others if not held_out(thing.shape, other))
    return short_caption(scene).replace(thing.colour, colour, 1)


def edited(maker: FullFilmmaker, number: int, strength: float, inverted: bool = False, **options) -> dict:
    """Films whose thing is to have another colour: the new colour there, the motion kept, both."""
    told = [s for s in scenes(number)]
    true = world.to_film(world.render(told, SHORT))
    texts = [short_caption(s) for s in told]
    new = [recoloured(s) for s in told]
    films = _in_parts(
        lambda a, b: maker.edit(
            true[a:b], new[a:b], strength, NOISE + a, told=texts[a:b] if inverted else None, rate=SHORT, **options
        ),
        number,
    )
    found = [marks(film, text) for film, text in zip(films, new, strict=True)]
    rows = {"colour": [m["colour"] for m in found], "motion": [m["motion"] for m in found],
            "shape": [m["shape"] for m in found],
            "both": [m["colour"] and m["motion"] for m in found]}  # fmt: skip
    return {what: [sum(map(bool, row)), number] for what, row in rows.items()}


def _in_parts(film, number: int) -> Tensor:
    starts = progress(range(0, number, CHUNK), desc="filming", unit="batch")
    return torch.cat([film(a, min(a + CHUNK, number)).cpu() for a in starts])


def _table(films: Tensor, texts: list[str], seams: list[int], true: Tensor) -> dict[str, list[int]]:
    rows = {"identity": same(films, texts), "seam": smooth(films, seams, true),
            "all": [marks(film, text)["all"] for film, text in zip(films, texts, strict=True)]}  # fmt: skip
    return {what: [sum(map(bool, row)), len(films)] for what, row in rows.items()}
