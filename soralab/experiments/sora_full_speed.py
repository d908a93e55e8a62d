"""What packing saves chapter 16's whole model: data/experiments/sora_full_speed.json.

Its training's own batches, of eleven kinds of films and pictures, go through it in three ways: packed into one row, as
the recipe does; padded to the longest film with a mask; and bucketed, one row of a kind after the other. All three
answer the same. `python -m soralab.experiments.sora_full_speed` measures them in turns, about three minutes of one
core, in the processor's own time, so that other work on the machine counts as little as may be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.blocks import patchify
from soralab.experiments.navit_speed import Padded
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.latent_diffusion import word_ids
from soralab.recipes.sora import wordings
from soralab.recipes.sora_full import KINDS, TRAINING, Batches, build, make_loss, scenes, still
from soralab.sora_full import Films, FullConfig, FullSora, latents
from soralab.training.config import autocast, autocast_dtype
from soralab.training.profiles import by_profile, hardware

FILE = EXPERIMENTS / "sora_full_speed.json"
SEED, TURNS, STEPS = 0, 3, (1, 2)  # batches that hold a film of the largest kind, as 24 of 25 do
PRECISIONS = (TRAINING.precision, "float32")  # the recipe's, and the other


class Way(nn.Module):
    """Another way through a whole model's weights."""

    def __init__(self, model: FullSora):
        super().__init__()
        self.model, self.config = model, model.config


class PaddedSora(Way):
    """One film a row, all rows as long as the longest film: the habit before packing."""

    def forward(self, films: Sequence[Films], ids: Tensor) -> list[Tensor]:
        """As FullSora's."""
        model, p = self.model, self.model.config.patch
        counts = [part.x[0, :, 0].numel() // p**2 for part in films]
        longest = max(counts)

        def row(tokens: Tensor) -> Tensor:
            """Of one kind [films, tokens, values], filled up with zeros: [films * longest, values]."""
            return F.pad(tokens, (0, 0, 0, longest - tokens.shape[1])).flatten(0, 1)

        rows, angles = [], []
        for part in films:
            added, turned = model.place(part)
            rows.append(row(model.embed(patchify(part.x, (1, p, p))) + added.to(part.x)))
            angles.append(row(turned.expand(len(part.x), -1, -1)))
        x, angles = torch.cat(rows)[:, None], torch.cat(angles)[:, None, None]
        words, mask, whole = model.text(ids)
        c, frames = F.silu(model.conditions(films, whole)), [part.times.shape for part in films]

        def spread(told: Tensor) -> Tensor:
            """From one row a latent frame to one row a token, or what fills up."""
            parts = zip(told.split([b * t for b, t in frames]), frames, counts, strict=True)
            return torch.cat([row(part.unflatten(0, (b, t)).repeat_interleave(n // t, 1)) for part, (b, t), n in parts])

        real = torch.cat([torch.arange(longest).expand(len(part.x), -1) < n
                          for part, n in zip(films, counts, strict=True)]).to(ids.device)  # fmt: skip
        base, words = model.base(c), words.flatten(0, 1)[:, None]
        for block in model.blocks:
            told = spread(base + block.modulation(c))
            x = block(x, None, words, None, None, angles, Padded(real), Padded(mask), told=told)
        shift, scale = spread(model.modulation(c)).chunk(2, dim=-1)
        out = model.head(torch.addcmul(shift, model.norm(x[:, 0]), 1 + scale)).unflatten(0, (-1, longest))
        parts = zip(films, counts, out.split([len(part.x) for part in films]), strict=True)
        return [model.film(part_out[:, :n].flatten(0, 1), part) for part, n, part_out in parts]


class BucketedSora(Way):
    """One call for each size: nothing is filled up, and the calls are short."""

    def forward(self, films: Sequence[Films], ids: Tensor) -> list[Tensor]:
        """As FullSora's."""
        told = ids.split([len(part.x) for part in films])
        return [self.model([part], some)[0] for part, some in zip(films, told, strict=True)]


WAYS = {"packed": lambda model: model, "padded": PaddedSora, "bucketed": BucketedSora}


def libraries(films: int) -> list[dict[str, Tensor]]:
    """In place of the recipe's: latents of noise, of the right sizes, and the words of true films."""
    generator, found = torch.Generator().manual_seed(SEED), []
    for number, kind in enumerate(KINDS):
        shape = (films, sum(map(latents, kind.clips)), FullConfig.channels, kind.height // 4, kind.width // 4)
        told = [still(scene) if kind.frames == 1 else scene for scene in islice(scenes(kind, number), films)]
        ids = torch.stack([word_ids(wordings(scene), FullConfig.words) for scene in told])
        found.append({"latents": torch.randn(shape, generator=generator), "ids": ids})
    return found


def lengths(batch: Mapping) -> list[int]:
    """How many tokens each film of a batch has."""
    return [x[0, :, 0].numel() // FullConfig.patch**2 for x in batch["x0"] for _ in x]


def in_turns(works: Sequence[Callable[[], object]], turns: int) -> list[list[float]]:
    """The processor's seconds of each work in each turn, one after the other; a turn before does not count."""
    found = [[] for _ in works]
    for turn in range(turns + 1):
        for work, times in zip(works, found, strict=True):
            began = time.process_time()
            work()
            if turn:
                times.append(time.process_time() - began)
    return found


def step(model: nn.Module, weights: FullSora, batch: Mapping, precision: str) -> None:
    """One forward and backward pass of the recipe's loss; no optimizer."""
    weights.zero_grad(set_to_none=True)
    device = next(weights.parameters()).device
    with autocast(autocast_dtype(precision, device), device):
        loss = make_loss()(model, batch, torch.Generator().manual_seed(SEED))
    loss.backward()


def measured(precision: str, turns: int = TURNS, steps: Sequence[int] = STEPS, films: int = 60) -> dict:
    """{"tokens": of all batches, "padded to": with what fills them up, "seconds": {way: one row of turns a batch}}."""
    model = build()
    batches = Batches(libraries(films), by_profile(smoke=12, laptop=48, gpu=48))
    row = {"tokens": 0, "padded to": 0, "seconds": {way: [] for way in WAYS}}
    for number in steps:
        batch = batches(number)
        row["tokens"] += sum(lengths(batch))
        row["padded to"] += max(lengths(batch)) * len(lengths(batch))
        works = [partial(step, make(model), model, batch, precision) for make in WAYS.values()]
        for way, times in zip(WAYS, in_turns(works, turns), strict=True):
            row["seconds"][way].append([round(took, 4) for took in times])
    return row


def ratios(row: Mapping, way: str) -> list[float]:
    """The packed step's time by another way's, turn by turn: all batches of a turn together."""
    seconds = ([sum(turn) for turn in zip(*row["seconds"][of], strict=True)] for of in ("packed", way))
    return [mine / other for mine, other in zip(*seconds, strict=True)]


def table(found: Mapping) -> str:
    """The page's table: of each way the time of a step, and packing's by it, the middle one and the least and most."""
    lines = [f"{'':22s}{'tokens':>8s}{'used':>7s}{'seconds a step':>16s}{'packed / this':>24s}"]
    for precision, row in found.items():
        for way, batches in row["seconds"].items():
            held = row["padded to"] if way == "padded" else row["tokens"]
            took = sum(median(turns) for turns in batches) / len(batches)
            each = ratios(row, way)
            said = f"{median(each):.2f} ({min(each):.2f}\u2013{max(each):.2f})" if way != "packed" else ""
            lines.append(f"{f'{way}, {precision}':22s}{held / len(batches):8.0f}{row['tokens'] / held:7.0%}{took:16.2f}"
                         f"{said:>24s}")  # fmt: skip
    return "\n".join(lines)


def load_experiment(path: Path = FILE) -> dict:
    """What the course ships: {precision: measured}; without the file a table without rows."""
    return json.loads(path.read_text(encoding="utf-8"))["measured"] if path.exists() else {}


def main() -> None:
    """Measure and write the file."""
    for_the_course(FILE)
    torch.set_num_threads(1)
    turns, steps, films = by_profile(smoke=(1, STEPS[:1], 8), laptop=(TURNS, STEPS, 60), gpu=(TURNS, STEPS, 60))
    found = {precision: measured(precision, turns, steps, films) for precision in dict.fromkeys(PRECISIONS)}
    write(FILE, {"measured": found, "hardware": hardware()})
    print(table(found))


if __name__ == "__main__":
    main()
