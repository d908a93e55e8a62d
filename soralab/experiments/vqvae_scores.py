"""How chapter 05's models are judged: bits, PSNR, codes in use, and what the referee reads in copies and samples."""

from __future__ import annotations

from math import log2

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from soralab import world
from soralab.datasets.what_and_where import CELLS, frames, sample, to_pixels
from soralab.recipes.vqvae import FILM_FRAMES, SEED, SIDE, encoded
from soralab.training.data import beside
from soralab.training.profiles import by_profile
from soralab.vqvae import VQVAE, PixelCNN, perplexity
from soralab.world import referee

TEST_FRAMES, TEST_FILMS, READ = 2000, 100, 200  # READ: frames that are shown to the referee


def psnr(x: Tensor, copy: Tensor) -> float:
    """Peak signal-to-noise ratio of all of x together, dB; the peak is 2, from -1 to 1."""
    return round((10 * torch.log10(4 / (x - copy).square().mean())).item(), 2)


def seen(pictures: Tensor) -> list[tuple[str, str] | None]:
    """What the referee sees in each picture [n, 3, h, w] in [-1, 1]: (shape, colour) if it is one thing, else None."""
    reports = referee.read_all(pictures.clamp(-1, 1)[:, None].expand(-1, 4, -1, -1, -1))  # it reads films of 4 or more
    return [(r.objects[0].shape, r.objects[0].colour) if len(r.objects) == 1 else None for r in reports]


@torch.no_grad()
def measure(model: VQVAE, split: str = "test", count: int = TEST_FRAMES, read: int = READ) -> dict[str, float]:
    """On frames that training never saw: bits of a map, PSNR in dB, codes in use, and what the referee reads.

    "read right": the share of `read` copies in which it sees the thing with its shape and its colour; "originals": the
    same of the frames themselves. split: "test" or "held_out", where no shape has a colour that it had in training.
    """
    x = to_pixels(beside(model, frames(SEED, range(count), SIDE, split)[0]))
    maps = encoded(model, x)
    copies = torch.cat([model.decode(part) for part in maps.split(250)])
    things = [sample(SEED, index, split).objects[0] for index in range(min(read, count))]
    true = [(thing.shape, thing.colour) for thing in things]
    right = {name: sum(a == b for a, b in zip(seen(shown[: len(true)]), true, strict=True)) / len(true)
             for name, shown in (("read right", copies), ("originals", x))}  # fmt: skip
    return {"frames": count, "bits": round(model.config.bits(SIDE, SIDE), 1), "psnr": psnr(x, copies),
            "perplexity": round(perplexity(maps, model.config.codes).item(), 1),
            "codes used": len(maps.unique()), **right}  # fmt: skip


@torch.no_grad()
def measure_films(model: VQVAE, count: int = TEST_FILMS) -> dict[str, float]:
    """The same for films: their bits, PSNR, and the share in which the referee reads everything right, motion too."""
    films, scenes = world.clips(SEED, range(count), FILM_FRAMES, SIDE, SIDE, "simple", "test")
    films = beside(model, films)
    maps = torch.cat([model.encode(part) for part in films.split(20)])
    copies = torch.cat([model.decode(part) for part in maps.split(20)])
    right = {}
    for name, shown in (("read right", copies.clamp(-1, 1)), ("originals", films)):
        scores = [referee.score(r, s)["all"] for r, s in zip(referee.read_all(shown), scenes, strict=True)]
        right[name] = sum(scores) / count
    return {"films": count, "bits": round(model.config.bits(SIDE, SIDE, FILM_FRAMES), 1), "psnr": psnr(films, copies),
            "perplexity": round(perplexity(maps, model.config.codes).item(), 1), **right}  # fmt: skip


@torch.no_grad()
def measure_prior(prior: PixelCNN, model: VQVAE, count: int = 1000, samples: int = 20) -> dict[str, float]:
    """Bits for one code of test maps: by the prior, by how often each code stands at each place, by nothing at all.

    "samples": how many were drawn, `samples` for each shape; "one thing": the share in which the referee sees one thing
    and names its shape; "right shape": that shape is the one that was asked for.
    """
    pictures, labels = frames(SEED, range(count), SIDE, "test")
    maps, shapes = encoded(model, pictures), beside(model, labels // CELLS**2)
    parts = zip(maps.split(250), shapes.split(250), strict=True)
    bits = sum(prior.bits(z, shape).item() * len(z) for z, shape in parts) / count
    wanted = torch.arange(prior.config.classes).repeat(samples)
    rng = torch.Generator().manual_seed(SEED)
    drawn = seen(model.decode(prior.sample(beside(model, wanted), maps.shape[1:], rng)))
    found = [thing and thing[0] for thing in drawn]
    asked = [world.SHAPES[k] for k in wanted.tolist()]
    return {"bits": round(bits, 3), "bits by place": round(by_place(model, maps), 3),
            "bits of nothing": log2(model.config.codes), "samples": len(asked),
            "one thing": sum(shape is not None for shape in found) / len(asked),
            "right shape": sum(a == b for a, b in zip(found, asked, strict=True)) / len(asked)}  # fmt: skip


def by_place(model: VQVAE, maps: Tensor, count: int = 10_000) -> float:
    """Bits for one code of `maps` if all that one knows is how often each code stands at each place in training."""
    count = by_profile(smoke=200, laptop=count, gpu=count)
    known = encoded(model, frames(SEED, range(count))[0]).flatten(1).cpu()
    table = torch.ones(known.shape[1], model.config.codes)  # one more of each: none is impossible
    table.scatter_add_(1, known.T, torch.ones(known.T.shape))
    share = table / table.sum(1, keepdim=True)
    return -share.gather(1, maps.flatten(1).T.cpu()).log2().mean().item()


@torch.no_grad()
def around_codes(model: VQVAE, x: Tensor, reach: int = 2) -> Tensor:
    """What each code stands for: the mean of the pixels around the places where it was chosen, [codes, 3, side, side].

    x [n, 3, h, w] in [-1, 1]. A place covers `step` pixels a side; `reach` more are shown on each side, at the edge of
    a frame its last pixels again. A code that was never chosen is grey.
    """
    maps = encoded(model, x).cpu()
    step = x.shape[-1] // maps.shape[-1]
    wide = F.pad(x, (reach,) * 4, mode="replicate").unfold(2, step + 2 * reach, step).unfold(3, step + 2 * reach, step)
    pieces = rearrange(wide, "n c rows columns h w -> (n rows columns) c h w")
    count = torch.bincount(maps.flatten(), minlength=model.config.codes)
    total = torch.zeros(len(count), *pieces.shape[1:]).index_add_(0, maps.flatten(), pieces)
    return total / count.clamp(min=1)[:, None, None, None]
