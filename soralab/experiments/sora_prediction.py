"""What the network predicts, times where its error is counted: data/experiments/sora_prediction.json, for chapter 16.

A network may predict the film x, the noise eps or the velocity v, and its error may be counted in x, eps or v: given
z_t each is the others, times a factor of t. Nine short trainings in pixels and nine in latents, equal in all else.
`python -m soralab.experiments.sora_prediction` trains and measures what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from soralab import world
from soralab.diffusion import RectifiedFlow, diffusion_loss, dpm_solver_pp, guide, sample_times
from soralab.diffusion.process import noise_like
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.sora_scores import COLUMNS, judge
from soralab.figures.curves import wilson
from soralab.files.atomic import kept
from soralab.recipes import RUNS
from soralab.recipes.sora import FRAMES, SIDE, parameters, used
from soralab.sora import Sora, SoraConfig, load_autoencoder, word_ids
from soralab.training import loop
from soralab.training.data import beside
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile, device
from soralab.world.language import short_caption

FILE = EXPERIMENTS / "sora_prediction.json"
FOLDER = RUNS / "sora_prediction"
KINDS = ("x", "eps", "v")
PLACES = ("latents", "pixels")
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
FILMS, HELD, ASKED, BATCH = 3000, 64, 32, 32
SMALL = {"dim": 96, "depth": 4, "heads": 3, "rotary": True}
TRAINING = TrainConfig(steps=400, lr=4e-3, warmup=50, cooldown=0.3, ema=0.99, seed=20, precision="float32")
PROCESS = RectifiedFlow()


@dataclass(frozen=True)
class Run:
    """One of the eighteen."""

    place: str  # "latents" or "pixels"
    kind: str  # what the network predicts
    space: str  # where the error is counted

    @property
    def name(self) -> str:
        """Such as "latents_v_in_x"."""
        return f"{self.place}_{self.kind}_in_{self.space}"

    def model(self) -> Sora:
        """The network, with the same weights for all runs of a place."""
        torch.manual_seed(TRAINING.seed)
        return Sora(replace(SoraConfig(), **SMALL) if self.place == "latents" else SoraConfig.pixels(**SMALL))


def library(place: str, first: int, films: int, split: str) -> dict[str, Tensor]:
    """Films of one thing and their captions: {"x0" [films, ...], "ids" [films, words]}."""
    scenes = list(islice(used(count(first), split), films))
    parts = []
    autoencoder = load_autoencoder().to(device()) if place == "latents" else None
    with torch.no_grad():
        for k in range(0, films, 100):
            film = world.to_film(world.render(scenes[k : k + 100], FRAMES, SIDE, SIDE))
            parts.append(autoencoder.encode(beside(autoencoder, film)).cpu() if autoencoder else film)
    return {"x0": torch.cat(parts), "ids": word_ids([short_caption(s) for s in scenes], SoraConfig.words)}


def train(run: Run, shown: dict[str, Tensor], folder: Path) -> Sora:
    """The trained network, its average."""

    def batch(step: int) -> dict[str, Tensor]:
        films = torch.Generator().manual_seed(loop.step_seed(TRAINING.seed, step))
        rows = torch.randint(len(shown["x0"]), (BATCH,), generator=films)
        ids = shown["ids"][rows].masked_fill(torch.rand(BATCH, 1, generator=films) < 0.1, 0)  # for the guidance
        return {"x0": shown["x0"][rows], "ids": ids}

    def loss(model: Sora, given: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        t = sample_times(len(given["x0"]), generator, "logit_normal", shift=2.0)
        return diffusion_loss(PROCESS, model, given["x0"], run.kind, space=run.space, t=t, generator=generator,
                              condition={"ids": given["ids"]}).mean()  # fmt: skip

    model = run.model()
    training = replace(TRAINING, steps=by_profile(smoke=2, laptop=TRAINING.steps, gpu=TRAINING.steps))
    result = loop.train(model, loss, batch, training, folder, parameters=parameters(model))
    result.ema.copy_to(model)
    return model.eval()


@torch.no_grad()
def errors(run: Run, model: Sora, held: dict[str, Tensor]) -> list[float]:
    """The mean squared error of the film that the network believes in, at each of TIMES."""
    found, generator = [], torch.Generator().manual_seed(0)
    for t in TIMES:
        times = torch.full((len(held["x0"]),), t)
        z = PROCESS.add_noise(held["x0"], noise_like(held["x0"], generator), times)
        believed = PROCESS.to_x0_eps(model(z, times, held["ids"]), z, times, run.kind)[0]
        found.append(round(float((believed - held["x0"]).square().mean()), 6))
    return found


@torch.no_grad()
def films(run: Run, model: Sora, texts: list[str]) -> Tensor:
    """A film of each text, from just below t = 1, where a guess of the noise says nothing of the film."""
    ids, size = word_ids(texts, SoraConfig.words), model.config.size
    noise = torch.randn(len(texts), size[0], model.config.channels, *size[1:],
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    network = guide(model, {"ids": ids}, {"ids": torch.zeros_like(ids)}, 3.0, batched=True)
    x = dpm_solver_pp(PROCESS.denoiser(network, run.kind), noise, PROCESS, 20, t_start=0.99, shift=2.0)
    return (load_autoencoder().decode(x) if run.place == "latents" else x).clamp(-1, 1)


def measured(run: Run, folder: Path) -> dict:
    """A run's row: its errors, and what share of its films have the colour and the motion that they were asked for."""
    held = library(run.place, 0, by_profile(smoke=4, laptop=HELD, gpu=HELD), "test")
    model = train(run, library(run.place, 0, by_profile(smoke=8, laptop=FILMS, gpu=FILMS), "train"), folder)
    asked = by_profile(smoke=2, laptop=ASKED, gpu=ASKED)
    texts = [short_caption(scene) for scene in islice(used(count(10**5), "test"), asked)]
    return {"errors": errors(run, model, held), "films": asked, **judge(films(run, model, texts), texts)}


def load_experiment(path: Path = FILE) -> dict:
    """What the course ships, for `figures.prediction_errors` and `table`; where there is no file yet, without runs."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"times": TIMES, "runs": {}}


def table(found: Mapping) -> str:
    """One line a run: what share of its films is as it was told, in percent, with 95 % Wilson intervals."""
    lines = [f"{'':22s}" + "".join(f"{column:>14s}" for column in COLUMNS)]
    for name, row in found["runs"].items():
        place, kind, _, space = name.split("_")
        cells = []
        for column in COLUMNS:
            low, high = wilson(round(row[column] * row["films"]), row["films"])
            cells.append(f"{100 * row[column]:.0f} ({100 * low:.0f}\u2013{100 * high:.0f})")
        lines.append(f"{place:9s}{kind:5s}in {space:5s}" + "".join(f"{cell:>14s}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and write the file."""
    for_the_course(FILE)
    torch.set_num_threads(1)
    rows = {}
    for place in PLACES:
        for kind in KINDS:
            for space in KINDS:
                run = Run(place, kind, space)
                where = FOLDER / run.name
                rows[run.name] = kept(where.with_suffix(".json"), partial(measured, run, where))
                print(run.name, rows[run.name], flush=True)
    write(FILE, {"times": TIMES, "runs": rows})


if __name__ == "__main__":
    main()
