"""Three ways to lose less by chapter 11's windows: data/experiments/walt_windows.json.

At equal seconds the chapter's network in windows has a higher loss than one whose tokens see the whole film. Here are
the two again, in shorter trainings with three seeds, and between them: windows that are shifted in every second round,
as in Swin (Liu et al. 2021, 2103.14030, section 3.2) but without its mask; wider windows, half of the film instead of a
quarter; and a last block without windows. All have at most six tenths of full attention's operations.
`python -m soralab.experiments.walt_windows` trains and measures what is missing, about forty minutes of one core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from einops import rearrange
from torch import Tensor

from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.walt_ablations import attention_flops, step_seconds
from soralab.experiments.walt_scores import loss
from soralab.files.atomic import kept
from soralab.kernels import attention
from soralab.recipes import RUNS
from soralab.recipes.walt import LARGE, TRAINING, Latents, Run, fit, load_autoencoder
from soralab.training.profiles import by_profile, device, hardware
from soralab.walt import InWindows, Size, Walt, WaltConfig

FILE = EXPERIMENTS / "walt_windows.json"
FOLDER = RUNS / "walt_windows"
SEEDS, STEPS, FILMS = (1, 2, 3), 600, 256  # steps of the network in windows; films of a loss


@dataclass(frozen=True)
class Window:
    """What a block's tokens see: `size` tokens, and by how many the film is rolled before it is cut."""

    size: Size
    shift: Size = (0, 0, 0)


FRAME, QUARTER = Window((1, 6, 6)), Window((3, 3, 3))
FULL = None
WAYS: dict[str, tuple[Window | None, ...]] = {  # of the blocks in turn
    "windows": (FRAME, QUARTER),
    "shifted windows": (FRAME, QUARTER, FRAME, replace(QUARTER, shift=(0, 1, 1))),
    "wider windows": (FRAME, Window((3, 6, 3)), FRAME, Window((3, 3, 6))),
    "the last block full": (FRAME, QUARTER, FRAME, FULL),
    "full": (FULL,),
}


@dataclass(frozen=True)
class Shifted:
    """Attention in windows of a film that is rolled first, and back afterwards: q, k, v [batch, heads, tokens, dim].

    What leaves at one side comes in at the other, and is seen there.
    """

    within: InWindows
    shift: Size

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns the shape of q."""
        seen = self.within(*(self._rolled(x, [-by for by in self.shift]) for x in (q, k, v)))
        return self._rolled(seen, list(self.shift))

    def _rolled(self, x: Tensor, by: list[int]) -> Tensor:
        t, h, w = self.within.size
        box = rearrange(x, "b n (t h w) d -> b n t h w d", t=t, h=h, w=w)
        return torch.roll(box, by, dims=(2, 3, 4)).flatten(2, 4)


class InTurns(Walt):
    """Chapter 11's transformer with other windows. As there, a picture's tokens see themselves alone in every second
    block that has windows."""

    def __init__(self, turns: tuple[Window | None, ...], config: WaltConfig):
        super().__init__(config, "torch")
        self.turns = turns

    def attend(self, size: Size, block: int):
        """As Walt's: a function (q, k, v) -> output."""
        turn = self.turns[block % len(self.turns)]
        if turn is None:
            return partial(attention, backend=self.backend)
        if block % 2 and size[0] == 1:
            return InWindows(size, (1, 1, 1), self.backend)
        within = InWindows(size, turn.size, self.backend)
        return Shifted(within, turn.shift) if any(turn.shift) else within


def run_of(way: str, seed: int = SEEDS[0], steps: int = STEPS) -> Run:
    """The training of a way."""
    return Run(LARGE, replace(TRAINING, seed=seed, steps=steps, ema=0.99), build=partial(InTurns, WAYS[way]))


def measured(folder: Path = FOLDER) -> dict:
    """{"ways": {way: {"step seconds", "steps" that fill equal seconds, "attention": its share of full attention's
    operations, "losses": one for each seed}}, "films": of each loss}. What is done lies in `folder`."""
    steps, films, seeds, scenes = by_profile(smoke=(2, 4, SEEDS[:2], 8), laptop=(STEPS, FILMS, SEEDS, 4000),
                                             gpu=(STEPS, FILMS, SEEDS, 4000))  # fmt: skip
    autoencoder = load_autoencoder().to(device())
    batches = cache(lambda: Latents(autoencoder, replace(run_of("full"), scenes=scenes)))

    def timed() -> dict[str, float]:
        return dict(zip(WAYS, step_seconds([run_of(way) for way in WAYS], batches()), strict=True))

    seconds = kept(folder / "step_seconds.json", timed)
    equal = {way: max(1, round(steps * seconds["windows"] / seconds[way])) for way in WAYS}
    flops = {way: attention_flops(run_of(way)) for way in WAYS}

    def trained(way: str, seed: int) -> float:
        model, _ = fit(run_of(way, seed, equal[way]), batches(), folder / f"{_named(way)}_{seed}")
        return loss(model.to(device()), autoencoder, films)

    losses: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed, way in product(seeds, WAYS):
        losses[way].append(kept(folder / f"{_named(way)}_{seed}.json", partial(trained, way, seed)))
        print(f"{way}, seed {seed}: {losses[way][-1]:.4f}", flush=True)
    ways = {way: {"step seconds": seconds[way], "steps": equal[way], "attention": flops[way] / flops["full"],
                  "losses": losses[way]} for way in WAYS}  # fmt: skip
    return {"ways": ways, "films": films}


def _named(way: str) -> str:
    return way.replace(" ", "_")


def table(found: Mapping[str, Mapping]) -> str:
    """The page's table: a line a way; the last column is the mean of the seeds' losses beside full attention's."""
    lines = [f"{'':22s}{'steps':>7s}{'attention':>11s}   {'loss by seed':24s}{'mean':>8s}{'to full':>9s}"]
    for way, row in found.items():
        losses, full = row["losses"], mean(found["full"]["losses"])
        each = "  ".join(f"{one:.4f}" for one in losses)
        lines.append(f"{way:22s}{row['steps']:7,}{row['attention']:11.0%}   {each:24s}{mean(losses):8.4f}"
                     f"{100 * (mean(losses) / full - 1):+8.1f}%")  # fmt: skip
    return "\n".join(lines)


def load_experiment(path: Path = FILE) -> dict:
    """What the course ships: the "ways" of `measured`; without the file nothing."""
    return json.loads(path.read_text(encoding="utf-8"))["ways"] if path.exists() else {}


def main() -> None:
    """Measure what is missing and write the file."""
    for_the_course(FILE)
    torch.set_num_threads(1)
    found = measured(FOLDER)
    write(FILE, found | {"hardware": hardware()})
    print(table(found["ways"]))


if __name__ == "__main__":
    main()
