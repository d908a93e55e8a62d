"""What chapter 16 measures of DiT: data/experiments/dit.json, which its notebook shows.

`python -m soralab.experiments.dit` trains what is missing, one after the other, measures it and writes the file; it
goes on where it was stopped. `python -m soralab.experiments.dit conditioning` trains one part of it alone, and `sizes`
the other, so that two cores can share the work. It is about one core: it computes in one thread.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from soralab.diffusion.process import noise_like
from soralab.dit import CONDITIONINGS, PROCESS, DiT, bits, reverse
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.figures.curves import read_log
from soralab.files.atomic import kept
from soralab.recipes import RUNS
from soralab.recipes.dit import BATCH, SIZES, STEPS, Run, data, fit
from soralab.training.data import beside, model_flops
from soralab.training.profiles import by_profile, device, hardware

FILE = EXPERIMENTS / "dit.json"
FOLDER = RUNS / "dit"
SEEDS = (1, 2, 3)
COMPARED, COMPARED_STEPS = "3 x 96", 1024  # of the four ways of telling


def multiply_adds(model: DiT) -> float:
    """Of one pass, for one film."""
    x = torch.zeros(1, model.config.size[0], model.config.channels, *model.config.size[1:])
    return model_flops(model, *beside(model, (x, torch.ones(1), torch.zeros(1, dtype=torch.long)))) / 2


@torch.no_grad()
def code_length(model: DiT, held: Mapping[str, Tensor], steps: Sequence[int] = range(1, PROCESS.steps + 1)) -> dict:
    """L_vlb without L_T in bits a number, with the variance that the model learnt and with the ends of its range.

    Every step is measured on one film, the next step on the next. Below 0, for the last step's is a density's.
    """
    total = dict.fromkeys(("learned", "least", "largest"), 0.0)
    generator = torch.Generator().manual_seed(0)
    for part in torch.tensor(steps).split(50):
        film = part % len(held["x0"])
        x0, y = held["x0"][film.to(held["x0"].device)], held["y"][film.to(held["x0"].device)]
        t, s = part.double() / PROCESS.steps, (part - 1).double() / PROCESS.steps
        x_t = PROCESS.add_noise(x0, noise_like(x0, generator), t)
        answer = model(x_t, t.float().to(x0.device), y)
        noise, place = answer.chunk(2, dim=2)
        ends = {"learned": place, "least": torch.full_like(place, -1), "largest": torch.ones_like(place)}
        for name, end in ends.items():
            believed = reverse(torch.cat([noise, end], dim=2), x_t, t, s)
            total[name] += float(bits(believed, x0, x_t, t, s).sum())
    return {name: round(value * PROCESS.steps / len(steps), 4) for name, value in total.items()}


def measured(run: Run, folder: Path, films) -> dict:
    """A run's row: its cost, its losses on unseen films on the way, and its code length.

    flops: of the whole training, three passes for each example, two operations a multiply-add.
    """
    batches, held = films()
    model, result = fit(run, batches, held, folder)
    log, macs = read_log(result.log), multiply_adds(model)
    marks = [k for k, value in enumerate(log["held"]) if not math.isnan(value)]
    model = model.to(device())
    steps = by_profile(smoke=range(1, 1001, 50), laptop=range(1, 1001), gpu=range(1, 1001))
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "multiply-adds": macs, "steps": result.steps,
        "batch": BATCH, "seconds": round(result.seconds, 1), "bits": code_length(model, held, steps),
        "marks": [{"step": int(log["step"][k]), "flops": 6 * macs * BATCH * log["step"][k],
                   **{name: round(float(log[name][k]), 6) for name in ("held", "pairing")}} for k in marks],
    }  # fmt: skip


def conditioning(films, folder: Path = FOLDER) -> dict[str, list[dict]]:
    """The four ways of telling, each with every seed, at equal steps: {way: rows}."""
    table = {way: [] for way in CONDITIONINGS}
    for seed in SEEDS[: by_profile(smoke=1, laptop=None, gpu=None)]:
        for way in CONDITIONINGS:
            run, where = Run.of(COMPARED, COMPARED_STEPS, seed, conditioning=way), folder / f"{way}_{seed}"
            table[way].append(kept(where.with_suffix(".json"), partial(measured, run, where, films)))
    return table


def sizes(films, folder: Path = FOLDER) -> dict[str, dict]:
    """One training of each of SIZES: {size: row}."""
    table = {}
    for size in SIZES:
        run, where = Run.of(size, STEPS[size], SEEDS[0]), folder / size.replace(" ", "")
        table[size] = kept(where.with_suffix(".json"), partial(measured, run, where, films))
    return table


def load_experiment(path: Path = FILE) -> dict:
    """What the course ships: the file; where there is none yet, tables without rows."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"conditioning": {}, "sizes": {}}


def over_seeds(rows: Sequence[Mapping], column: str) -> str:
    """A column of the last marks: its mean over the seeds, with the least and the most: "0.123 (0.121–0.125)"."""
    values = [row["marks"][-1][column] for row in rows]
    return f"{mean(values):.4f} ({min(values):.4f}–{max(values):.4f})"


def table(found: Mapping) -> str:
    """The page's table of the four ways."""
    lines = [f"{'':16s}{'million multiply-adds':>23s}{'thousand weights':>18s}{'loss on unseen films':>28s}"
             f"{'pairing':>9s}"]  # fmt: skip
    for way, rows in found["conditioning"].items():
        heard = mean(row["marks"][-1]["pairing"] for row in rows)
        lines.append(f"{way:16s}{rows[0]['multiply-adds'] / 1e6:23.1f}{rows[0]['parameters'] / 1e3:18.0f}"
                     f"{over_seeds(rows, 'held'):>28s}{heard:9.1f}")  # fmt: skip
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """One part, or both and the file."""
    parts, films = {"conditioning": conditioning, "sizes": sizes}, cache(data)
    if arguments and (len(arguments) > 1 or arguments[0] not in parts):
        raise SystemExit(f"PART is {' '.join(arguments)!r}; it takes one of {', '.join(parts)}")
    for_the_course(FILE)
    torch.set_num_threads(1)
    found = {name: part(films) for name, part in parts.items() if not arguments or name in arguments}
    if not arguments:
        write(FILE, found | {"hardware": hardware()})
        print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
