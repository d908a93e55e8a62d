"""Chapters on real data, by one switch: `SORALAB_DATASET=mnist soralab train vit`, and then `soralab evaluate vit`.

The same networks and trainings as on the world, on a set of `soralab.datasets.registry` that the reader has; what comes
of it stands in a table under what the shipped card found on the world. It is kept in runs/NAME_on_SET/found.json; where
nothing was trained yet, `evaluate` shows what came of the set when the course was made, if anything did (SHIPPED): on
the card, or in data/experiments/NAME_on_SET.json, which is such a found.json.
The columns mean the same in both parts of a table; how far two numbers can be compared, each chapter's page says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from soralab.datasets import by_kind
from soralab.datasets.photo_words import TOLD_BY_FIVE
from soralab.datasets.registry import SWITCH, DataSet
from soralab.experiments import real_captions, real_talk, tune_a_video
from soralab.experiments.clip_scores import POOL
from soralab.experiments.clip_trainings import SHORT, photos
from soralab.experiments.latent_diffusion_digits import MNIST_TRAINING, mnist_digits
from soralab.experiments.real_films import DIRECTIONS, TRAINING, arrow_of_time, copied_films
from soralab.experiments.real_navit import PETS, breeds
from soralab.experiments.real_tune import tuned_on_films, world_films
from soralab.experiments.real_vqvae import copies
from soralab.experiments.shipped import EXPERIMENTS, write
from soralab.experiments.transformer import load_experiment
from soralab.experiments.transformer_multi30k import MULTI30K, train_multi30k
from soralab.experiments.unet_isbi import ISBI_STEPS, isbi_runs
from soralab.experiments.vit_crossing import MNIST_STEPS, mnist_crossing
from soralab.files.atomic import make_folder
from soralab.files.checkpoints import read_card
from soralab.recipes import RUNS
from soralab.recipes.sora_autoencoder import CONFIG as CODEC
from soralab.recipes.tune_a_video import TUNING
from soralab.recipes.vqvae import TRAINING as COPYING
from soralab.training.profiles import by_profile
from soralab.world import LEVELS

Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Chapter:
    """A chapter that real sets can be put into: `run(set, folder, steps)` trains and judges, and `world(metrics)` finds
    the same columns on the card; both give {row: {column: number}}. `digits` of a number behind the point. `measured`
    gives the world's measures of a chapter that ships no card."""

    sets: tuple[str, ...]
    steps: int
    run: Callable[[str, Path, int], Rows]
    world: Callable[[dict], Rows]
    digits: int = 3
    measured: Callable[[], dict] | None = None


def _errors(found: dict) -> Rows:
    return {name: {"pixel error": row["pixel_error"], "rand error": row["rand_error"]} for name, row in found.items()}


def _crossing(found: dict) -> Rows:
    return {arm: {f"{int(size):,} pictures": mean(runs) for size, runs in row.items()} for arm, row in found.items()}


def _found(found: dict) -> Rows:
    return {name: {**found[name], "among": found["pool"]} for name in ("learned from", "new")}


def _on_demand(found: dict) -> Rows:
    return {name: {"read right": share} for name, share in found.items()}


def _pictures(name: str, folder: Path, steps: int) -> Rows:
    """The crossing with `steps` at the most pictures, and the less the fewer pictures there are."""
    most = max(MNIST_STEPS.values())
    plan = {size: max(1, steps * each // most) for size, each in MNIST_STEPS.items()}
    small = by_profile(smoke={"count": 50}, laptop={}, gpu={})
    return _crossing(mnist_crossing(folder, plan, name=name, **small))


def _sentences(name: str, folder: Path, steps: int) -> Rows:
    found = train_multi30k(steps, folder, name)
    return {"the same network": {"BLEU": found["BLEU"], "word for word": found["exact"]}}


def _photographs(name: str, folder: Path, steps: int) -> Rows:
    small = by_profile(smoke={"merges": 20}, laptop={}, gpu={})
    return _found(photos(folder, steps, name=name, **small))


def _painted(name: str, folder: Path, steps: int) -> Rows:
    small = by_profile(smoke={"count": 4}, laptop={}, gpu={})
    return _on_demand(mnist_digits(folder, steps, name=name, **small))


def _world_painted(card: dict) -> Rows:
    return {"one thing, new": {"read right": card["scores"]["test, 1"]["all"]},
            "two things, new": {"read right": card["scores"]["test, 2"]["all"]}}  # fmt: skip


def _world_found(card: dict) -> Rows:
    found = {way: card["test"][f"recall, {way}"] for way in ("text of picture", "picture of text")}
    return {"new": {**found, "among": POOL}}


def _world_films(card: dict) -> Rows:
    rows = {**card["models"], "bag of frames": card["bag"]}
    return {name: {column: row["test"][column] for column in DIRECTIONS} for name, row in rows.items()}


def _world_pictures(card: dict) -> Rows:
    squares = card["by aspect"]["chapter 03's ViT"].values()
    pictures = sum(row["pictures"] for row in squares)
    right = sum(row["pictures"] * row["right"] for row in squares) / pictures
    return {"NaViT": {"right": card["test"]["what and where"], "pictures": card["test"]["pictures"]},
            "chapter 03's ViT, in squares": {"right": right, "pictures": pictures}}  # fmt: skip


def _world_captions(card: dict) -> Rows:
    voices = {voice: card["voices"][voice] for voice in ("web", "base", "short", "descriptive")}
    return {voice: {**{column: row[column] for column in ("precision", "recall", "words")}, "pictures": row["texts"]}
            for voice, row in voices.items()}  # fmt: skip


def _kept(name: str) -> Rows:
    """What was found on a set when the course was made, as data/experiments has it."""
    path = EXPERIMENTS / f"{name}_on_{SHIPPED[name][0]}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


CHAPTERS = {  # by the checkpoint that the card is of
    "unet": Chapter(("isbi2012",), ISBI_STEPS, lambda name, folder, steps: _errors(isbi_runs(folder, steps)),
                    lambda card: _errors({"U-Net": card["test"]})),
    "transformer": Chapter(tuple(by_kind.PAIRED), MULTI30K.steps, _sentences,
                           lambda card: {"captions": {"word for word": card["test"]}}),
    "vit": Chapter(tuple(by_kind.LABELLED), max(MNIST_STEPS.values()), _pictures,
                   lambda card: _crossing(card["crossing"])),
    "clip": Chapter(tuple(by_kind.CAPTIONED), SHORT.steps, _photographs, _world_found),
    "vqvae": Chapter(tuple(by_kind.LABELLED), COPYING.steps, copies,
                     lambda card: {"copies": {key: card["test"][key] for key in ("bits", "psnr", "codes used")}}, 1),
    "latent_diffusion": Chapter(("mnist", "fashionmnist"), MNIST_TRAINING.steps, _painted, _world_painted),
    "navit": Chapter(("oxford_pets",), PETS.steps, lambda name, folder, steps: breeds(folder, steps), _world_pictures),
    "vivit": Chapter(by_kind.FILMED, TRAINING.steps, arrow_of_time, _world_films),
    "recaptioning": Chapter(TOLD_BY_FIVE, real_captions.STEPS, real_captions.captions, _world_captions),
    "llava": Chapter(TOLD_BY_FIVE, real_talk.STEPS, real_talk.talks, real_talk.world_pictures),
    "tune_a_video": Chapter(by_kind.FILMED, TUNING.steps, tuned_on_films, world_films,
                            measured=tune_a_video.load_experiment),
    "sora_autoencoder": Chapter(by_kind.FILMED, CODEC.steps, copied_films,
                                lambda card: {level: {"psnr": card[f"psnr_{level}"]} for level in LEVELS}, 1),
}  # fmt: skip
SHIPPED: dict[str, tuple[str, Callable[[dict], Rows]]] = {  # what was found when the course was made: on which set
    "unet": ("isbi2012", lambda card: _errors(card["isbi"])),
    "transformer": ("multi30k", lambda card: {"the same network": {"BLEU": load_experiment("multi30k")["BLEU"]}}),
    "vit": ("mnist", lambda card: _crossing(card["mnist"])),
    "clip": ("flickr8k", lambda card: _found(card["flickr8k"])),
    "latent_diffusion": ("mnist", lambda card: _on_demand(card["mnist"])),
    "navit": ("oxford_pets", lambda card: _kept("navit")),
    "recaptioning": ("flickr8k", lambda card: _kept("recaptioning")),
    "llava": ("flickr8k", lambda card: _kept("llava")),
    "tune_a_video": ("ucf101", lambda card: _kept("tune_a_video")),
}


def chapter(name: str, chosen: DataSet) -> Chapter:
    """The chapter of a checkpoint. Raises ValueError where it does not run on real data, or not on this set."""
    if name not in CHAPTERS:
        raise ValueError(f"NAME is {name!r}, and {SWITCH} {chosen.name!r}: those that run on real data are "
                         f"{', '.join(CHAPTERS)}; unset {SWITCH} for the others")  # fmt: skip
    if chosen.name not in CHAPTERS[name].sets:
        raise ValueError(f"{SWITCH} is {chosen.name!r}; for {name} it takes one of {', '.join(CHAPTERS[name].sets)}")
    return CHAPTERS[name]


def make(name: str, chosen: DataSet, folder: Path | None = None, steps: int | None = None) -> str:
    """Train a chapter's networks on a set, or go on with them, judge them, keep what was found; returns the table.

    Raises as `chapter` does, and FileNotFoundError that says how to get a set that is not there.
    """
    on = chapter(name, chosen)
    folder = make_folder(folder or place(name, chosen))
    full = by_profile(smoke=2, laptop=on.steps, gpu=on.steps)
    found = {"steps": steps or full, "rows": on.run(chosen.name, folder / f"{steps or full}_steps", steps or full)}
    write(folder / "found.json", found)
    return table(name, chosen, found)


def place(name: str, chosen: DataSet) -> Path:
    """Where a chapter's runs on a set lie."""
    return RUNS / f"{name}_on_{chosen.name}"


def evaluate(name: str, chosen: DataSet) -> str:
    """The table of what the last training on a set found, or SHIPPED. Raises FileNotFoundError where neither is."""
    chapter(name, chosen)
    path = place(name, chosen) / "found.json"
    if not path.is_file():
        if SHIPPED.get(name, ("",))[0] == chosen.name:
            return table(name, chosen, {"steps": None, "rows": shipped(name)})
        raise FileNotFoundError(f"{name} was not yet trained on {chosen.name}: `{SWITCH}={chosen.name} soralab train "
                                f"{name}` does it")  # fmt: skip
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return table(name, chosen, {"steps": found["steps"], "rows": dict(found["rows"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): remove it, and `{SWITCH}={chosen.name} soralab "
                         f"train {name}` makes it again") from error  # fmt: skip


def shipped(name: str) -> Rows:
    """A real set's rows as they were found when the course was made."""
    return SHIPPED[name][1](_measured(name))


def _measured(name: str) -> dict:
    """What a chapter measured on the world: on its card, or where CHAPTERS says."""
    found = CHAPTERS[name].measured
    return found() if found else read_card(name)["metrics"]


def beside(name: str, chosen: str, found: Rows) -> Rows:
    """The world's rows, from what is shipped, and below them a set's."""
    rows = {f"the world, {key}": row for key, row in CHAPTERS[name].world(_measured(name)).items()}
    return rows | {f"{chosen}, {key}": row for key, row in found.items()}


def card_lines() -> list[str]:
    """The table of the data card: each row of SHIPPED with the world's before it, a line each."""
    return [
        f"| `{name}` | {key} | " + "; ".join(f"{column} {_number(value, CHAPTERS[name].digits)}"
                                             for column, value in row.items()) + " |"
        for name, (chosen, _) in SHIPPED.items() for key, row in beside(name, chosen, shipped(name)).items()
    ]  # fmt: skip


def table(name: str, chosen: DataSet, found: dict) -> str:
    """What was found on a set, beside the world's, as text."""
    on, rows = CHAPTERS[name], beside(name, chosen.name, found["rows"])
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    how = f"{found['steps']} steps" if found["steps"] else "as it was found when the course was made"
    width, head = max(map(len, rows)) + 2, f"{name} on {chosen.name}, {how}"
    lines = [head, " " * width + "".join(f"{column:>{len(column) + 3}s}" for column in columns)]
    for key, row in rows.items():
        cells = (_number(row.get(column), on.digits).rjust(len(column) + 3) for column in columns)
        lines.append(f"{key:{width}s}" + "".join(cells))
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"
