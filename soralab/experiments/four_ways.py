"""Four ways from pictures to films at equal minutes: data/experiments/four_ways.json, of which chapter 15's page tells.

`python -m soralab.experiments.four_ways WAY SEED` trains one way (soralab.experiments.four_ways_trainings) and measures
it, or goes on where it was stopped; what is done lies in runs/four_ways. Two ways may be made side by side, but not two
seeds of one way before its plan is made. Without arguments it makes what is missing, one after the other, each in a
process of its own, whose memory is then the way's; measures the painter by itself, with which some of them begin; and
writes the file. It is about one core: it computes on the processor, in one thread.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from soralab.align_your_latents import VideoLDM
from soralab.experiments import tune_a_video
from soralab.experiments.align_your_latents_scores import (
    copied,
    flicker,
    marks,
    painter_alone,
    shares,
    single_frames,
    still_texts,
    true_films,
)
from soralab.experiments.four_ways_trainings import DDIM, WAYS, count, planned, trained
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.sora_scores import CHUNK, NOISE, made
from soralab.files.atomic import kept
from soralab.files.checkpoints import read_card
from soralab.latent_diffusion import Painter, load_autoencoder
from soralab.recipes import RUNS
from soralab.recipes.align_your_latents import FIRST, PAINTER, animator, load, picture_decoder
from soralab.training.profiles import by_profile, device, hardware

FILE = EXPERIMENTS / "four_ways.json"
FOLDER = RUNS / "four_ways"
MINUTES, SEEDS = 12, (1, 2, 3)
FILMS, STILL = 60, 30  # filmed from the first test prompts; and from prompts of things that stay still
APART = 1.25  # the most by which one row's minutes may be more than another's
NAMES = {
    "align_your_latents": "10 Align your Latents", "make_a_video": "14 Make-A-Video",
    "imagen_video": "09 Imagen Video", "sora": "16 a transformer",
}  # fmt: skip

# --------------------------------------------------------------------------------------------------------- one row


@dataclass
class Listening:
    """A maker that keeps what it was asked for, which the rows of a table must have in common."""

    maker: Any
    options: dict[str, Any] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    def film(self, prompts: list[str], seed: int) -> Tensor:
        """As the maker's own."""
        self.heard += prompts
        return self.maker.film(prompts, seed=seed, **self.options)


def stood(maker: Listening, texts: list[str]) -> dict[str, Any]:
    """Films of things that are told to stay still: the `flicker` of them all, how many the referee finds to stay still,
    and the flicker of these, None if there are none."""
    films = torch.cat([maker.film(texts[k : k + CHUNK], NOISE + k) for k in range(0, len(texts), CHUNK)])
    calm = torch.tensor([mark["motion"] for mark in marks(films, texts)])
    return {"flicker": flicker(films), "still": int(calm.sum()),
            "flicker of the still": flicker(films[calm]) if calm.any() else None}  # fmt: skip


def judged(maker: Any, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What comes from words: {"films", COLUMNS, "frames", and as `stood`; "asked": a digest of all prompts}."""
    heard = Listening(maker, dict(options or {}))
    films, texts = made(heard, "test", count(FILMS))
    row = {"films": len(films), **shares(marks(films, texts)), "frames": single_frames(films, texts)}
    row |= stood(heard, still_texts(count(STILL)))
    return row | {"asked": hashlib.sha256("\n".join(heard.heard).encode()).hexdigest()}


def digest(models: Mapping[str, nn.Module]) -> str:
    """One of all weights."""
    found = hashlib.sha256()
    for model in models.values():
        for value in model.state_dict().values():
            found.update(value.cpu().numpy().tobytes())
    return found.hexdigest()


def budget() -> float:
    """Minutes of one core for each training."""
    return by_profile(smoke=0.001, laptop=MINUTES, gpu=MINUTES)


def measured(way: str, seed: int, folder: Path) -> dict[str, Any]:
    """A way's row: `judged`, and what its training cost; of a training that was stopped, the rest is done.

    How many steps fill the minutes is measured once for a way, before its first step, and kept: no restart changes it.
    "minutes": of the processor, spent; "planned": by the pace before; "clock": minutes that went by; "prepared":
    seconds of the processor that drew and encoded the films.
    """
    began = time.process_time()
    this = WAYS[way](seed)
    prepared = time.process_time() - began
    plan = kept(folder / way / "plan.json", partial(planned, this.parts, budget()))
    models, costs = trained(this, plan, seed, folder / way / f"seed_{seed}")
    spent = {
        "seed": seed, "minutes": round(sum(cost["core"] for cost in costs.values()) / 60, 2),
        "planned": round(sum(row["steps"] * row["pace"] for row in plan.values()) / 60, 2),
        "clock": round(sum(cost["clock"] for cost in costs.values()) / 60, 2), "prepared": round(prepared, 1),
        "gb": max(cost["gb"] for cost in costs.values()), "trained": sum(cost["trained"] for cost in costs.values()),
        "steps": {name: cost["steps"] for name, cost in costs.items()}, "weights": digest(models),
        "begins with": {name: read_card(name)["seconds"] for name in this.begins_with},
    }  # fmt: skip
    return spent | judged(this.maker(models), this.options)


def row(way: str, seed: int, folder: Path) -> dict[str, Any]:
    """A way's row of the table, made once. Raises ValueError for a way or a seed that there is none of."""
    if way not in WAYS:
        raise ValueError(f"WAY is {way!r}; it takes one of {', '.join(WAYS)}")
    if seed not in SEEDS:
        raise ValueError(f"SEED is {seed!r}; it takes one of {', '.join(map(str, SEEDS))}")
    if device().type != "cpu":
        raise ValueError(f"the device is {device()}; minutes of one core are compared: set SORALAB_DEVICE=cpu")
    return kept(path_of(way, seed, folder), partial(measured, way, seed, folder))


def path_of(way: str, seed: int, folder: Path) -> Path:
    """Where a row is kept."""
    return folder / way / f"seed_{seed}.json"


# ---------------------------------------------------------------------------------------------------- what is beside


def painter_row() -> dict[str, Any]:
    """The painter that two of the ways begin with, frame by frame, with no training at all."""
    model = VideoLDM(Painter.load(PAINTER).model, load().model.phi)
    maker = painter_alone(animator(model, picture_decoder(load_autoencoder(FIRST))))
    return judged(maker, {"steps": count(DDIM)})


def copies_row() -> dict[str, Any]:
    """The true films of the same prompts, as the painter's first stage copies them; flicker where they stand still."""
    films, texts = true_films(count(FILMS))
    copy = copied(load_autoencoder(FIRST), films).clamp(-1, 1)
    return {"films": len(copy), **shares(marks(copy, texts)), "frames": single_frames(copy, texts),
            "flicker": flicker(copy, films)}  # fmt: skip


def one_film() -> dict[str, Any]:
    """What of Tune-A-Video can stand beside the others: no film comes from words alone, but an edit of a given one.

    From its own experiment: of how many edits the motion is kept, what is new is there, and both; seconds of the
    processor for tuning on a film; and weights that are trained.
    """
    found = tune_a_video.load_experiment()
    model = tune_a_video.inflate(Painter.load(PAINTER).model, true_films(1)[0].shape[1])
    edits = {column: found["arms"]["tuned"]["together"][column] for column in ("edits", "motion", "changed", "both")}
    return {**edits, "seconds": round(mean(found["seconds"]), 1),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad)}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- the file


def check(ways: Mapping[str, Sequence[dict]], alone: Mapping | None) -> None:
    """Raise ValueError for rows that cannot be compared: other prompts, other minutes, a seed that is none of its own,
    or no painter beside them. ways: the rows of each."""
    if not alone:
        raise ValueError("alone is None; it takes the painter's row, beside which the ways are read")
    for way, rows in ways.items():
        if sorted(one["seed"] for one in rows) != list(SEEDS):
            raise ValueError(f"seeds of {way} are {[one['seed'] for one in rows]}; it takes {list(SEEDS)}")
        if len({one["weights"] for one in rows}) < len(rows):
            raise ValueError(f"weights of {way} are the same for two seeds; it takes another training for each")
        for one in rows:
            if (one["asked"], one["films"]) != (alone["asked"], alone["films"]):
                raise ValueError(f"prompts of {way}, seed {one['seed']}, are not the painter's; it takes the same")
    minutes = {f"{way}, seed {one['seed']}": one["minutes"] for way, rows in ways.items() for one in rows}
    least, most = min(minutes, key=minutes.get), max(minutes, key=minutes.get)
    if minutes[most] > by_profile(smoke=math.inf, laptop=APART, gpu=APART) * minutes[least]:
        raise ValueError(f"minutes are {minutes[least]} ({least}) and {minutes[most]} ({most}); it takes equal ones: "
                         "measure again on a quiet machine")  # fmt: skip


def gathered(folder: Path) -> dict[str, Any]:
    """What the file holds, of all rows that there are."""
    alone, copy = kept(folder / "painter.json", painter_row), kept(folder / "copies.json", copies_row)
    ways = {way: [row(way, seed, folder) for seed in SEEDS] for way in WAYS}
    check(ways, alone)
    return {
        "minutes": budget(), "films": alone["films"], "ways": ways, "painter alone": alone, "true films, copied": copy,
        "one film": one_film(), "hardware": hardware(),
    }  # fmt: skip


def load_experiment(path: Path = FILE) -> dict[str, Any]:
    """What the course ships: the file; where there is none yet, a table without rows."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"ways": {}}


def missing(found: Mapping) -> list[str]:
    """Those of the ways that are not in the table yet."""
    return [name for way, name in NAMES.items() if way not in found["ways"]]


def over_seeds(rows: Sequence[Mapping], column: str, unit: float = 1.0) -> str:
    """A column's mean over the seeds, with the least and the most: "62 (58–67)"."""
    values = [unit * one[column] for one in rows]
    least, most = (f"{value:.0f}" for value in (min(values), max(values)))
    return f"{mean(values):.0f} ({least}–{most})" if least != most else least


HEADS = {"all right": 13, "motion": 13, "frames": 13, "flicker": 9, "when still": 12, "minutes": 9, "before": 8,
         "trained": 9, "memory": 8}  # and how wide each is


def table(found: Mapping) -> str:
    """The table of the page: means over the seeds, and of the shares, in per cent, the least and the most of them."""
    rows = {name: [found[name]] for name in ("painter alone", "true films, copied") if name in found}
    rows |= {name: found["ways"][way] for way, name in NAMES.items() if way in found["ways"]}
    last = rows.pop("true films, copied", None)
    lines = {"": list(HEADS), **{name: cells(some) for name, some in rows.items()}}
    lines |= {"true films, copied": cells(last)} if last else {}
    return "\n".join(
        f"{name:22s}" + "".join(f"{cell:>{wide}s}" for cell, wide in zip(line, HEADS.values(), strict=False))
        for name, line in lines.items()
    )


def cells(rows: Sequence[Mapping]) -> list[str]:
    """A line of the table; what is not trained for it has no minutes."""
    found = [over_seeds(rows, column, 100) for column in ("all", "motion", "frames")]
    for column in ("flicker", "flicker of the still"):
        known = [one.get(column) for one in rows]
        found.append("–" if None in known else f"{mean(known):.1f}")
    if "minutes" not in rows[0]:
        return found
    before = sum(rows[0]["begins with"].values()) / 60
    return found + [f"{mean(one['minutes'] for one in rows):.1f}", f"{before:.0f}", f"{rows[0]['trained'] / 1e6:.2f} M",
                    f"{max(one['gb'] for one in rows):.1f} GB"]  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """One row, or everything that is missing and the file."""
    for_the_course(FILE)
    torch.set_num_threads(1)
    if arguments:
        way, seed = arguments
        print(json.dumps(row(way, int(seed), FOLDER), indent=1))
        return
    for seed in SEEDS:
        for way in WAYS:
            if not path_of(way, seed, FOLDER).exists():
                subprocess.run([sys.executable, "-m", "soralab.experiments.four_ways", way, str(seed)], check=True)
    found = gathered(FOLDER)
    write(FILE, found)
    print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
