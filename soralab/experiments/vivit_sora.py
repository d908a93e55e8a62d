"""Chapter 08's reader beside the code referee, on films that chapter 16 made of prompts, and on the true ones.

The reader has seen the world's films alone; the referee knows the world's laws. Where they differ one of them is wrong,
or the film is neither of what they say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from soralab import world
from soralab.datasets import order
from soralab.experiments.sora_scores import NOISE, prompts
from soralab.experiments.vivit_scores import logits
from soralab.sora import Filmmaker
from soralab.training.profiles import device
from soralab.training.progress import progress
from soralab.vivit import ViViT
from soralab.world import referee
from soralab.world.scene import WALL

COLUMNS = ("both", "reader alone", "referee alone", "neither, the same", "neither, apart")


def moving(count: int) -> tuple[list[int], list[str], list[world.Scene]]:
    """The first `count` of chapter 16's test prompts that name a motion of the reader's: their numbers, the prompts,
    and the scenes that these were taken from."""
    texts, scenes = prompts("test", 2 * count + 20)
    named = [order.name_of(scene.objects[0].motion, scene.objects[0].turn) for scene in scenes]
    numbers = [k for k, name in enumerate(named) if name in order.NAMES][:count]
    return numbers, [texts[k] for k in numbers], [scenes[k] for k in numbers]


def filmed(maker: Filmmaker, numbers: Sequence[int], texts: Sequence[str]) -> Tensor:
    """Chapter 16's films of these prompts: [n, 9, 3, 32, 32] in [-1, 1], the very ones that its card is about."""
    made = (maker.film([text], seed=NOISE + k) for k, text in zip(numbers, texts, strict=True))
    return torch.cat([film.cpu() for film in progress(made, total=len(texts), desc="filming", unit="film")])


def by_referee(film: Tensor) -> str | None:
    """What the referee says of a film: the motion of its largest thing, as `order` names it; None if no law of the
    world explains it, or nothing is there."""
    seen = referee.read(film).objects
    return order.name_of(seen[0].motion, seen[0].turn) if seen and seen[0].motion else None


def made_again(numbers: Sequence[int]) -> Tensor:
    """The films of chapter 16's test prompts of these numbers, as `filmed` makes them, on the CPU."""
    texts = prompts("test", max(numbers) + 1)[0]
    return filmed(Filmmaker.load("sora", device()), numbers, [texts[k] for k in numbers])


def compare(model: ViViT, films: Tensor, asked: Sequence[str]) -> list[dict]:
    """Of each film [9, 3, 32, 32]: {"asked", "referee", "reader", "sure": the reader's probability}."""
    chances = logits(model, films[:, : order.FRAMES]).softmax(-1)
    sure, said = chances.max(-1)
    return [
        {"asked": name, "referee": by_referee(film), "reader": order.NAMES[k], "sure": round(p, 3)}
        for name, film, k, p in zip(asked, films, said.tolist(), sure.tolist(), strict=True)
    ]


def finds(said: str | None, asked: str) -> bool:
    """Whether this is what was asked for. "passes behind a wall" asks for no side: either is right."""
    return said == asked or asked == WALL and (said or "").startswith(WALL)


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """How many films are in each of COLUMNS: who finds what was asked for."""
    table = dict.fromkeys(COLUMNS, 0)
    for row in rows:
        reader, judge = (finds(row[who], row["asked"]) for who in ("reader", "referee"))
        if reader or judge:
            table["both" if reader and judge else "reader alone" if reader else "referee alone"] += 1
        else:
            table["neither, the same" if row["reader"] == row["referee"] else "neither, apart"] += 1
    return table


def beside_the_referee(model: ViViT, count: int) -> dict:
    """The card's: {"prompts", "made": counts on chapter 16's films, "true": counts on the true films of these prompts,
    "differ": the films of chapter 16 on which the two differ, each with its prompt and the prompt's number}."""
    numbers, texts, scenes = moving(count)
    asked = [order.NAMES[order.label(scene)] for scene in scenes]
    true = compare(model, world.to_film(world.render(scenes, order.CLIP, 32, 32)), asked)
    said = [WALL if scene.objects[0].motion == WALL else name for name, scene in zip(asked, scenes, strict=True)]
    made = compare(model, filmed(Filmmaker.load("sora", device()), numbers, texts), said)
    differ = [
        {"prompt": k, "text": text, **row}
        for k, text, row in zip(numbers, texts, made, strict=True)
        if row["reader"] != row["referee"]
    ]
    return {"prompts": count, "made": counts(made), "true": counts(true), "differ": differ}
