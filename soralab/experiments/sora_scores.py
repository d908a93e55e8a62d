"""Judging a film model by the prompts of films that it never saw: it films them, and the referee reads what it made.

Beside every score stands what the referee makes of the true films of the same prompts, and of their copies by the
autoencoder: a model cannot be expected to do better than these.

`python -m soralab.experiments.sora_scores` draws the films that README.md shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soralab import figures, world
from soralab.figures.curves import wilson
from soralab.files.checkpoints import CHECKPOINTS, read_card
from soralab.sora import Filmmaker
from soralab.training.data import beside
from soralab.training.profiles import device
from soralab.training.progress import progress
from soralab.world import referee
from soralab.world.language import short_caption
from soralab.world.reader import read_caption
from soralab.world.scene import SLIDES

SEED, FRAMES = 400, 9  # of the prompts: the streams of the splits "test" and "held_out" are not training's
COLUMNS = ("colour", "motion", "shape", "count", "all")
CHUNK = 50  # films made at once
LABEL, CELL = 23, 19  # columns of text for a row's name and for "100.0 (99.1–100.0)": together 118
NOISE = 10_000  # film k is made from the noise of seed NOISE + k


def prompts(split: str, count: int, seed: int = SEED) -> tuple[list[str], list[world.Scene]]:
    """`count` short captions of a split, and the scenes that they were taken from."""
    scenes = [world.sample_scene(seed, k, "simple", split) for k in range(count)]
    return [short_caption(scene) for scene in scenes], scenes


def evaluate(maker: Filmmaker, split: str, count: int = 400, prompt_seed: int = SEED, **options) -> dict[str, float]:
    """The share of films that show what their prompt says, for each of COLUMNS. `options` go to `maker.film`.

    Settings such as the guidance are chosen with another `prompt_seed` than the one that the tables use.
    """
    return judge(*made(maker, split, count, prompt_seed, **options))


def measure(maker: Filmmaker, split: str, count: int = 400) -> dict:
    """What the card says of a split: {"films": count, a share for each of COLUMNS, "motions": as `by_motion`, "wrong":
    the numbers of the prompts whose films are not right in everything}."""
    films, texts = made(maker, split, count)
    marks = _marks(films, texts)
    wrong = [k for k, mark in enumerate(marks) if not mark["all"]]
    return {"films": count, **_shares(marks), "motions": by_motion(marks, texts), "wrong": wrong}


def made(maker: Filmmaker, split: str, count: int, prompt_seed: int = SEED, **options) -> tuple[Tensor, list[str]]:
    """The model's films of a split's first `count` prompts, and these prompts."""
    texts, _ = prompts(split, count, prompt_seed)
    films = [
        maker.film(texts[start : start + CHUNK], seed=NOISE + start, **options)
        for start in progress(range(0, count, CHUNK), desc=f"filming {split}", unit="batch")
    ]
    return torch.cat(films), texts


def refused(maker: Filmmaker, split: str, count: int, name: str = "sora") -> list[tuple[Tensor, str]]:
    """The first `count` films of a split that the card of `name` calls wrong, made again, each with its prompt."""
    wrong = read_card(name)["metrics"][split]["wrong"][:count]
    texts, _ = prompts(split, max(wrong, default=-1) + 1)
    return [(maker.film([texts[k]], seed=NOISE + k)[0], texts[k]) for k in wrong]


def first_films(name: str = "sora", count: int = 8):
    """Films of the first test prompts, none left out, as README.md shows them; its `strip`: frame by frame."""
    films, texts = made(Filmmaker.load(name), "test", count)
    return figures.show_films(films, texts, columns=4)


def judge(films: Tensor, texts: list[str]) -> dict[str, float]:
    """What share of films [n, time, 3, height, width] the referee finds to be what their texts say."""
    return _shares(_marks(films, texts))


def by_motion(marks: list[dict[str, bool]], texts: list[str]) -> dict[str, list[int]]:
    """{motion: [films in which everything is right, films]}; the eight slides are one."""
    table: dict[str, list[int]] = {}
    for mark, text in zip(marks, texts, strict=True):
        motion = read_caption(text)[0]["motion"]
        row = table.setdefault("slides" if motion in SLIDES else motion, [0, 0])
        row[0] += bool(mark["all"])
        row[1] += 1
    return dict(sorted(table.items()))


def _marks(films: Tensor, texts: list[str]) -> list[dict[str, bool]]:
    reports = [referee.read(film) for film in progress(films, desc="judging", unit="film")]
    return [referee.score_caption(report, read_caption(text)) for report, text in zip(reports, texts, strict=True)]


def _shares(marks: list[dict[str, bool]]) -> dict[str, float]:
    return {column: sum(mark[column] for mark in marks) / len(marks) for column in COLUMNS}


def ceilings(autoencoder, split: str, count: int = 400) -> dict[str, dict[str, float]]:
    """The same scores of the true films of the same prompts, and of the autoencoder's copies of them."""
    texts, scenes = prompts(split, count)
    films = world.to_film(world.render(scenes, FRAMES))
    with torch.no_grad():
        parts = [beside(autoencoder, part) for part in films.split(CHUNK)]
        copies = torch.cat([autoencoder.decode(autoencoder.encode(part)).clamp(-1, 1) for part in parts])
    return {"true films": judge(films, texts), "autoencoder's copies": judge(copies, texts)}


def card_counts(name: str, split: str) -> dict[str, tuple[int, int]]:
    """The card's own scores as (films that are right, films) for each of COLUMNS."""
    metrics = read_card(name)["metrics"][split]
    return {column: (round(metrics[column] * metrics["films"]), metrics["films"]) for column in COLUMNS}


def card_motions(name: str = "sora", split: str = "test") -> str:
    """What is right by motion, from the card, the worst first: "spins 5 of 25, orbits 9 of 27, ..."."""
    motions = read_card(name)["metrics"][split]["motions"]
    worst_first = sorted(motions.items(), key=lambda row: row[1][0] / row[1][1])
    return ", ".join(f"{motion} {right} of {films}" for motion, (right, films) in worst_first)


def card_right(name: str, split: str, *words: str) -> tuple[int, int]:
    """By the card: (films in which everything is right, films) of the prompts that have all of these words."""
    metrics = read_card(name)["metrics"][split]
    texts, _ = prompts(split, metrics["films"])
    those = {k for k, text in enumerate(texts) if set(words) <= set(text.split())}
    return len(those - set(metrics["wrong"])), len(those)


def card_table(names: tuple[str, ...] = ("sora", "sora_pixels")) -> str:
    """The cards' own scores as a Markdown table, percentages with 95 % Wilson intervals: what README.md shows."""
    lines = ["| model | prompts | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for split, title in (("test", "like training's"), ("held_out", "held-out combinations")):
        for name in names:
            row = card_counts(name, split)
            cells = [_interval(right / films, films) for right, films in row.values()]
            lines.append(f"| {name} | {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(name: str, baseline: str | None, count: int = 400) -> str:
    """The chapter's table as text: percentages with 95 % Wilson intervals, on both splits.

    The baseline's rows are its card's: its tensors are not shipped.
    """
    lines = []
    maker = Filmmaker.load(name, device())
    for split in ("test", "held_out"):
        title = "prompts like training's" if split == "test" else "combinations that training never saw"
        lines += ["", f"{title} ({count})", " " * LABEL + "".join(f"{column:>{CELL}s}" for column in COLUMNS)]
        rows = ceilings(maker.autoencoder, split, count) if maker.autoencoder else {}
        rows[name] = evaluate(maker, split, count)
        told = {label: {column: (round(share * count), count) for column, share in row.items()}
                for label, row in rows.items()}  # fmt: skip
        if baseline:
            told[f"{baseline}, its card"] = card_counts(baseline, split)
        for label, row in told.items():
            cells = [_interval(right / films, films) for right, films in (row[column] for column in COLUMNS)]
            lines.append(f"{label:{LABEL}s}" + "".join(f"{cell:>{CELL}s}" for cell in cells))
    return "\n".join(lines[1:])


def _interval(share: float, count: int) -> str:
    low, high = wilson(round(share * count), count)
    return f"{100 * share:.1f} ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    films = first_films()
    films.save(CHECKPOINTS.parent / "films.png")
    films.strip.save(CHECKPOINTS.parent / "films_frames.png")  # for who cannot play it
