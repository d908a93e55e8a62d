"""How chapter 14's networks are judged: as painters, by films that go on, by their speed, between frames, by flicker.

Beside every score stands one that costs nothing: the painter, the last frame repeated, the mean of two neighbours,
pixels between pixels; and one that cannot be passed, the true films as the first stage copies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from soralab import world
from soralab.blocks.first_stage import Autoencoder
from soralab.clip import CLIP
from soralab.datasets import frames, stills
from soralab.datasets.frames import FRAMES
from soralab.experiments.align_your_latents_scores import copied, encoded, flicker, marks, psnr, shares, true_films
from soralab.experiments.sora_scores import by_motion, prompts
from soralab.latent_diffusion import Painter, UNet, noise
from soralab.make_a_video import Filmmaker, Prior, enlarge, same_noise
from soralab.recipes.make_a_video import EVERY, FINE, SIDE, STRIDES, WINDOW, PairBatches, embedded, looks
from soralab.training.data import beside
from soralab.world import referee
from soralab.world.reader import read_caption
from soralab.world.scene import SLIDES, WALL

NOISE = 30_000  # seed of all noise
CHUNK = 20  # films made at once
RATES = tuple(FINE // stride for stride in STRIDES[FRAMES])  # frames a clip that it was trained with
RATE = FINE // EVERY  # of the course's nine-frame films


@dataclass
class Studio:
    """All that the measures need, on one device."""

    maker: Filmmaker
    prior: Prior
    clip: CLIP
    autoencoder: Autoencoder
    painter: Painter

    def seen(self, films: Tensor) -> Tensor:
        """The looks of the first frames of films [n, time, 3, height, width]: [n, embed]."""
        with torch.no_grad():
            return self.clip.encode_image(beside(self.clip, films[:, 0]))

    def noise(self, count: int, time: int) -> Tensor:
        """Noise for so many films of so many frames: [count, time, c, height, width]."""
        shape = (time, self.autoencoder.config.latent, *[SIDE // self.autoencoder.config.f] * 2)
        return beside(self.maker.model, noise(NOISE, count, shape))

    def decode(self, z: Tensor) -> Tensor:
        """Latents as films in [-1, 1]."""
        with torch.no_grad():
            return self.maker.decode(z).clamp(-1, 1)


# ---------------------------------------------------------------------------------------------------- single frames


def right(films: Tensor, names: Sequence[str]) -> float:
    """The share of all frames of films that are, each by itself as a picture, what a name says."""
    scores = [stills.scores(films[:, k].cpu(), list(names))["all"] for k in range(films.shape[1])]
    return round(sum(scores) / len(scores), 4)


def single_frames(studio: Studio, count: int, **options) -> dict[str, float]:
    """Pictures from the words of test films, motion left out: {"pictures", who made them: `right`}; and the same of
    the prompts without a wall, "in sight", for behind it the thing may be hidden in a true frame as well.

    The painter, which was trained with words; and the decoder of films by three frames at a time, told a look: the
    prior's for the words, CLIP's embedding of the words themselves, or that of a true frame.
    """
    texts, scenes = prompts("test", count)
    names = [frames.still(text) for text in texts]
    middle = world.to_film(world.render(scenes, FRAMES, SIDE, SIDE))[:, FRAMES // 2 :]
    told = {
        "words": looks(names, studio.prior, NOISE), "no prior": embedded(names, studio.clip),
        "true look": studio.seen(middle),
    }  # fmt: skip
    painted = torch.cat([studio.painter.paint(names[k : k + CHUNK], NOISE + k, **options)
                         for k in range(0, count, CHUNK)])  # fmt: skip
    made = {"painter": painted[:, None]}
    for name, seen in told.items():
        start, parts = studio.noise(count, WINDOW), []
        for k in range(0, count, CHUNK):
            part = slice(k, k + CHUNK)
            parts.append(studio.decode(studio.maker.latents(seen[part], start[part], RATE, **options)))
        made[name] = torch.cat(parts)
    open_ = [k for k, scene in enumerate(scenes) if scene.objects[0].motion != WALL]
    in_sight = {name: right(films[open_], [names[k] for k in open_]) for name, films in made.items()}
    return {"pictures": count, **{name: right(films, names) for name, films in made.items()},
            "in sight": {"pictures": len(open_), **in_sight}}  # fmt: skip


def from_words(studio: Studio, count: int, **options) -> dict:
    """Films of nine frames from the words of test films, which say how things move, and from no frame: as `shares`."""
    texts = prompts("test", count)[0]
    seen = looks([frames.still(text) for text in texts], studio.prior, NOISE)
    start, parts = studio.noise(count, FRAMES), []
    for k in range(0, count, CHUNK):
        part = slice(k, k + CHUNK)
        parts.append(studio.decode(studio.maker.latents(seen[part], start[part], RATE, **options)))
    return {"films": count, **shares(marks(torch.cat(parts), texts))}


# ------------------------------------------------------------------------------------------------- films that go on


def judged(films: Tensor, true: Tensor, texts: Sequence[str], new: slice) -> dict:
    """A film's copy or guess: PSNR of the frames `new` in dB, as `shares`, which motions were right, and "way": how
    far things that slide go, as a share of what they should (the median)."""
    found = marks(films, texts)
    motions = by_motion([{"all": mark["motion"]} for mark in found], texts)
    slide = torch.tensor([read_caption(text)[0]["motion"] in SLIDES for text in texts])
    way = [gone / whole for gone, whole in zip(speeds(films[slide]), speeds(true[slide]), strict=True)]
    far = round(float(np.nanmedian(way)), 3) if np.isfinite(way).any() else None
    return {"psnr": psnr(true[:, new], films[:, new]), **shares(found), "motions": motions, "way": far}


def goes_on(studio: Studio, given: int, count: int, **options) -> dict:
    """Nine frames of which the first are given, as `judged`."""
    true, texts = true_films(count)
    z, seen, parts = encoded(studio.autoencoder, true), studio.seen(true), []
    for k in range(0, count, CHUNK):
        part = slice(k, k + CHUNK)
        told = {"seed": NOISE + k, "rate": RATE, "guidance": 1.0, **options}
        parts.append(studio.decode(studio.maker.go_on(z[part, :given], seen[part], FRAMES, **told)))
    return {"films": count, **judged(torch.cat(parts), true, texts, slice(given, None))}


def chance(studio: Studio, count: int) -> dict[str, dict]:
    """What costs nothing and what cannot be passed: the third of nine frames repeated, and the first stage's copies."""
    true, texts = true_films(count)
    copy, new = copied(studio.autoencoder, true), slice(3, None)
    rows = {"repeated": copy[:, [0, 1, 2, *[2] * (FRAMES - 3)]], "copied": copy}
    return {"films": count, **{name: judged(films, true, texts, new) for name, films in rows.items()}}


def longer(studio: Studio, count: int, **options) -> dict[str, dict]:
    """The second half of a clip from the first: nine frames given at twice the rate, nine filmed, in windows of nine
    that begin with the last three of what there is; beside the ninth frame repeated."""
    true, texts = true_films(count, 2 * FRAMES)
    z, seen = encoded(studio.autoencoder, true[:, :FRAMES]), studio.seen(true)
    while z.shape[1] < 2 * FRAMES:
        told = {"seed": NOISE + z.shape[1], "rate": 2 * RATE, "guidance": 1.0, **options}
        more = studio.maker.go_on(z[:, -3:], seen, FRAMES, **told)
        z = torch.cat([z, more[:, 3:]], dim=1)
    films = studio.decode(z[:, : 2 * FRAMES])
    still, new = films.clone(), slice(FRAMES, None)
    still[:, FRAMES:] = films[:, FRAMES - 1 : FRAMES]
    return {"films": count, **{name: judged(some, true, texts, new)
                               for name, some in (("filmed", films), ("repeated", still))}}  # fmt: skip


def between(studio: Studio, count: int, **options) -> dict[str, dict]:
    """From 9 frames to 17, in two windows: the eight new ones as `judged`; filmed, as the mean of the neighbours, and
    as the first stage copies the truth."""
    true, texts = true_films(count, 2 * FRAMES)
    true = true[:, :-1]
    z, seen = encoded(studio.autoencoder, true[:, ::2]), studio.seen(true)
    told = {"skip": 2, "rate": 2 * RATE, "guidance": 1.0, **options}
    halves = [studio.maker.between(part, seen, seed=NOISE + k, **told) for k, part in enumerate((z[:, :5], z[:, 4:]))]
    copy, new = copied(studio.autoencoder, true), slice(1, None, 2)
    mean = copy.clone()
    mean[:, new] = (copy[:, :-1:2] + copy[:, 2::2]) / 2
    filmed = studio.decode(torch.cat([halves[0], halves[1][:, 1:]], dim=1))
    rows = {"filmed": filmed, "mean": mean, "copied": copy}
    return {"films": count, **{name: judged(films, true, texts, new) for name, films in rows.items()}}


# ------------------------------------------------------------------------------------------------------------ speed


def sliding(count: int) -> list[world.Scene]:
    """The first test scenes whose thing slides."""
    found, index = [], 0
    while len(found) < count:
        scene = world.sample_scene(400, index, "simple", "test")
        found += [scene] if scene.objects[0].motion in SLIDES else []
        index += 1
    return found


def speeds(films: Tensor) -> list[float]:
    """How far the one thing of each film moves from frame to frame, in short sides, by the referee; NaN where it sees
    another number of things, or not all the way."""
    found = []
    for report in referee.read_all(films.cpu()):
        path = report.objects[0].trajectory if report.count == 1 else np.full((2, 2), np.nan)
        found.append(float(np.linalg.norm(path[-1] - path[0])) / (len(path) - 1))
    return found


def rates(studio: Studio, count: int, **options) -> list[dict]:
    """From the first frame of a thing that slides, at each of RATES: {"asked": frames a clip, "filmed", "true": short
    sides a frame, the median, "films": of how many}."""
    table = []
    for rate in RATES:
        true = world.to_film(world.render(sliding(count), rate, SIDE, SIDE))[:, :FRAMES]
        z, seen = encoded(studio.autoencoder, true[:, :1]), studio.seen(true)
        told = {"seed": NOISE, "rate": rate, "guidance": 1.0, **options}
        filmed = np.array(speeds(studio.decode(studio.maker.go_on(z, seen, FRAMES, **told))))
        read = int(np.isfinite(filmed).sum())
        middle = {"filmed": np.nanmedian(filmed) if read else 0.0, "true": np.nanmedian(speeds(true))}
        table.append({"asked": rate, **{key: round(float(value), 4) for key, value in middle.items()}, "films": read})
    return table


# ----------------------------------------------------------------------------------------- the prior, the enlarger


def cosines(prior: Prior, clip: CLIP, count: int) -> dict[str, float]:
    """Mean cosine of a true frame's embedding with the prior's guess, and with CLIP's embedding of its words."""
    pairs = PairBatches(clip, count, split="test")
    made = prior.sample(beside(prior, pairs.text), torch.Generator().manual_seed(NOISE)).cpu()
    cosine = {"prior": made, "text": pairs.text}
    return {"pairs": count} | {name: round((pairs.image * other).sum(1).mean().item(), 4)
                               for name, other in cosine.items()}  # fmt: skip


def enlarged(network: UNet, count: int, **options) -> dict[str, dict]:
    """True films of nine frames from 32 x 32 to 64 x 64: {how: {"psnr", "flicker"}}, with one noise for all frames of a
    film, with one a frame, and as pixels between pixels."""
    scenes = prompts("test", count)[1]
    large = world.to_film(world.render(scenes, FRAMES, 2 * SIDE, 2 * SIDE))
    small = F.avg_pool2d(large.flatten(0, 1), 2).unflatten(0, large.shape[:2])
    shape = large.shape[2:]
    own = noise(NOISE, count * FRAMES, tuple(shape)).unflatten(0, (count, FRAMES))

    def make(start: Tensor) -> Tensor:
        parts = zip(small.split(CHUNK), start.split(CHUNK), strict=True)
        return torch.cat([enlarge(network, *beside(network, part), **options).clamp(-1, 1).cpu() for part in parts])

    smooth = F.interpolate(small.flatten(0, 1), shape[1:], mode="bilinear").unflatten(0, large.shape[:2])
    ways = {"one noise": partial(make, same_noise(NOISE, count, FRAMES, shape)), "one a frame": partial(make, own),
            "bilinear": lambda: smooth}  # fmt: skip
    return {"films": count, **{name: {"psnr": psnr(large, films := way()), "flicker": flicker(films, large)}
                               for name, way in ways.items()}}  # fmt: skip
