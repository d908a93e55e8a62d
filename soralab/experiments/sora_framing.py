"""What squares do to the framing: data/experiments/sora_framing.json, for chapter 16.

The Sora report (section "Improved framing and composition") shows films of a model that was trained on square crops:
their subject is at times cut off at the border. Here are two small models, equal in all else, of pictures that are half
as wide again as they are high, or half as high again as they are wide. One learns them as they are, both sizes packed
into one row; the other learns the square in the middle of each, told by the same words.
`python -m soralab.experiments.sora_framing` trains and measures what is missing, about twelve minutes of one core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soralab import world
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.sora_full_scores import CHUNK, NOISE
from soralab.figures.curves import wilson
from soralab.files.atomic import kept
from soralab.latent_diffusion import word_ids
from soralab.recipes import RUNS
from soralab.recipes.sora import wordings
from soralab.recipes.sora_full import AUTOENCODER, TRAINING, Batches, Kind, encode, make_loss, parameters, still
from soralab.sora_full import FullConfig, FullFilmmaker, FullSora
from soralab.training import loop
from soralab.training.profiles import by_profile, device, hardware
from soralab.walt import CausalAutoencoder, load_autoencoder
from soralab.world import referee
from soralab.world.language import short_caption
from soralab.world.reader import read_caption
from soralab.world.scene import WALL

FILE = EXPERIMENTS / "sora_framing.json"
FOLDER = RUNS / "sora_framing"
SHORT, LONG, SEED = 32, 48, 16
SIZES = ((SHORT, LONG), (LONG, SHORT))  # height, width
SQUARE = (SHORT, SHORT)
SEEDS = (1, 2)
PICTURES, ASKED, BATCH, STEPS = 6000, 200, 64, 600
SMALL = FullConfig(dim=128, depth=4, heads=4, rank=8)
EDGE = SHORT // 8  # pixels of one border: a thing that covers as many is cut off
KINDS = {
    "native sizes": tuple(Kind((1,), *size, PICTURES, 0.5) for size in SIZES),
    "square crops": (Kind((1,), *SQUARE, 2 * PICTURES, 1.0),),
}


@dataclass(frozen=True)
class Run:
    """One training: on which pictures, and from which seed."""

    pictures: str  # a key of KINDS
    seed: int

    @property
    def name(self) -> str:
        """Such as "native_sizes_1"."""
        return f"{self.pictures.replace(' ', '_')}_{self.seed}"


# -------------------------------------------------------------------------------------------------------- the pictures


def scenes(size: tuple[int, int], split: str) -> Iterator[world.Scene]:
    """Scenes of one thing for pictures of a size, without end: all of it is inside the frame. No walls."""
    drawn = (world.sample_scene(SEED, k, "simple", split, size[1] / size[0]) for k in count())
    return (scene for scene in drawn if scene.objects[0].motion != WALL)


def pictures(some: list[world.Scene], size: tuple[int, int]) -> Tensor:
    """A picture of each scene: [scenes, 1, 3, height, width]."""
    return world.to_film(world.render(some, 1, *size))


def middle(shown: Tensor) -> Tensor:
    """The largest square in the middle: [..., height, width] to [..., side, side]."""
    height, width = shown.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return shown[..., top : top + side, left : left + side]


def libraries(autoencoder: CausalAutoencoder, which: str, films: int) -> list[dict[str, Tensor]]:
    """What a model learns from, a library for each of KINDS[which]. Both hold the same pictures, whole or cropped."""
    found = []
    for size in SIZES:
        some = list(islice(scenes(size, "train"), films))
        parts = [pictures(some[k : k + 100], size) for k in range(0, films, 100)]
        parts = [encode(autoencoder, middle(part) if which == "square crops" else part, (1,)) for part in parts]
        ids = torch.stack([word_ids(wordings(still(scene)), FullConfig.words) for scene in some])
        found.append({"latents": torch.cat(parts).cpu(), "ids": ids})
    if which == "square crops":
        return [{name: torch.cat([library[name] for library in found]) for name in found[0]}]
    return found


# -------------------------------------------------------------------------------------------------------- what is seen


def framed(picture: Tensor, text: str) -> str:
    """Where the thing of the prompt's colour is in a picture [1, 3, height, width]: "cut off" where it covers EDGE
    pixels or more of one border, else "whole"; "not there" if there is no such thing."""
    colour = read_caption(text)[0]["colour"]
    sight = referee.look(referee.to_pixels(picture.expand(4, -1, -1, -1)))  # which takes films of four frames and more
    masks = [track.mask[0] > 0.5 for track in sight.tracks if track.colour == colour]
    if not masks:
        return "not there"
    mask = max(masks, key=np.sum)
    covered = max(border.sum() for border in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return "cut off" if covered >= EDGE else "whole"


def counted(shown: Tensor, texts: list[str]) -> dict[str, int]:
    """How many pictures [batch, 1, 3, height, width] are framed how, and in how many the referee finds what is told."""
    found = dict.fromkeys(("whole", "cut off", "not there", "right"), 0)
    for picture, text in zip(shown.cpu(), texts, strict=True):
        found[framed(picture, text)] += 1
        report = referee.read(picture.expand(4, -1, -1, -1))
        asked = [{**thing, "motion": "stays still", "speed": None, "turn": None} for thing in read_caption(text)]
        found["right"] += bool(referee.score_caption(report, asked)["all"])
    return found


def asked(size: tuple[int, int], films: int) -> tuple[list[str], list[world.Scene]]:
    """The first prompts of unseen scenes of a size, and the scenes."""
    some = list(islice(scenes(size, "test"), films))
    return [short_caption(still(scene)) for scene in some], some


def true_pictures(films: int) -> dict[str, dict[str, int]]:
    """True pictures and their squares: how often a thing is cut off where nobody filmed."""
    found = {}
    for size in SIZES:
        texts, some = asked(size, films)
        shown = pictures(some, size)
        found[_named(size)] = counted(shown, texts)
        found[f"the square of {_named(size)}"] = counted(middle(shown), texts)
    return found


def _named(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


# --------------------------------------------------------------------------------------------------------- a training


def amounts() -> dict[str, int]:
    """How many pictures of each size a model learns from, how many a step, in how many steps, and how many it films."""
    full = {"films": PICTURES, "batch": BATCH, "steps": STEPS, "asked": ASKED}
    return by_profile(smoke={"films": 8, "batch": 4, "steps": 2, "asked": 2}, laptop=full, gpu=full)


def measured(run: Run, folder: Path) -> dict[str, dict[str, int]]:
    """Train a model and count what it films at each size: {size: counted}."""
    autoencoder = load_autoencoder(AUTOENCODER).to(device())
    many = amounts()
    kinds = KINDS[run.pictures]
    torch.manual_seed(run.seed)
    model = FullSora(SMALL)
    training = replace(TRAINING, steps=many["steps"], warmup=50, ema=0.99, seed=run.seed)
    batches = Batches(libraries(autoencoder, run.pictures, many["films"]), many["batch"], kinds)
    result = loop.train(model, make_loss(kinds), batches, training, folder, parameters=parameters(model))
    result.ema.copy_to(model)
    maker = FullFilmmaker(model.to(device()).eval(), autoencoder)
    return {_named(size): kept(folder / f"{_named(size)}.json", partial(filmed, maker, size, many["asked"]))
            for size in (*SIZES, SQUARE)}  # fmt: skip


def filmed(maker: FullFilmmaker, size: tuple[int, int], films: int) -> dict[str, int]:
    """`counted` of what a model films at a size."""
    texts, _ = asked(size, films)
    starts = range(0, len(texts), CHUNK)
    return counted(torch.cat([maker.film(texts[k : k + CHUNK], NOISE + k, (1, *size)) for k in starts]), texts)


def totals(seeds: list[Mapping], size: str) -> dict[str, int]:
    """All seeds' counts together; "there" are the pictures in which there is such a thing."""
    found = {name: sum(row[size][name] for row in seeds) for name in seeds[0][size]}
    return {**found, "there": found["whole"] + found["cut off"]}


def cut_off(found: Mapping) -> dict[str, dict[str, tuple[int, int]]]:
    """{what: {size: (cut off, there)}}, for `figures.bars_with_intervals`."""
    return {what: {size: (row["cut off"], max(1, row["there"])) for size in seeds[0] if (row := totals(seeds, size))}
            for what, seeds in found.items()}  # fmt: skip


def table(found: Mapping) -> str:
    """The page's table, in percent, all seeds together: of what is there what is cut off, with 95 % Wilson intervals,
    and the same for each seed; of all pictures, those without the thing and those that are as told."""
    lines = [f"{'':38s}{'cut off':>12s}{'by seed':>10s}{'not there':>11s}{'as told':>9s}"]
    for what, sizes in cut_off(found).items():
        for size, (cut, there) in sizes.items():
            total = totals(found[what], size)
            films = total["there"] + total["not there"]
            low, high = wilson(cut, there)
            alone = [next(iter(cut_off({"": [row]}).values()))[size] for row in found[what]]
            each = ", ".join(f"{100 * some / of:.0f}" for some, of in alone)
            share = f"{100 * cut / there:.0f} ({100 * low:.0f}\u2013{100 * high:.0f})"
            lines.append(f"{f'{what}, {size}':38s}{share:>12s}{each:>10s}{100 * total['not there'] / films:11.0f}"
                         f"{100 * total['right'] / films:9.0f}")  # fmt: skip
    return "\n".join(lines)


def load_experiment(path: Path = FILE) -> dict:
    """What the course ships: {what: a row for each seed}; without the file a table without rows."""
    return json.loads(path.read_text(encoding="utf-8"))["framed"] if path.exists() else {}


def main() -> None:
    """Measure what is missing and write the file."""
    for_the_course(FILE)
    torch.set_num_threads(1)
    many, seeds = amounts(), by_profile(smoke=SEEDS[:1], laptop=SEEDS, gpu=SEEDS)
    true = kept(FOLDER / "true.json", partial(true_pictures, many["asked"]))
    found = {"true pictures": [true], **{of: [] for of in KINDS}}
    for seed in seeds:
        for of in KINDS:
            run = Run(of, seed)
            where = FOLDER / run.name
            found[of].append(kept(where.with_suffix(".json"), partial(measured, run, where)))
            print(run.name, found[of][-1], flush=True)
    made = {"pictures": 2 * many["films"], "steps": many["steps"], "batch": many["batch"], "seeds": seeds}
    write(FILE, {"framed": found, **made, "hardware": hardware()})
    print(table(found))


if __name__ == "__main__":
    main()
