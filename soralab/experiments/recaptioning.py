"""What chapter 12 measures: `soralab evaluate recaptioning` and its like, and the cards' metrics.

The captioner's card: its captions held against the world's truth, beside the web's, the base's and the short one's, and
short trainings of what a captioner needs. The expander's: what its prompts keep. The painter's: the report's table in
small, longer prompts, and why relations were not heard.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from soralab.datasets import recaptions, stills
from soralab.experiments import recaptioning_painters as painting
from soralab.experiments import recaptioning_relation as relation
from soralab.experiments.align_your_latents import interval
from soralab.experiments.recaptioning_scores import (
    alt,
    claims,
    drawn,
    of_films,
    of_pictures,
    of_the_web,
    scores,
    unseen,
)
from soralab.files.atomic import kept
from soralab.latent_diffusion import Painter, load_autoencoder
from soralab.recaptioning import Captioner, Expander, Recaptioner
from soralab.recipes import RUNS, Trained
from soralab.recipes.latent_diffusion import SIDE
from soralab.recipes.recaptioning import (
    BASE_TRAINING,
    EXPANDER,
    NAME,
    PAINTER,
    PAINTER_TRAINING,
    PICTURES_PAINTER,
    SHORT,
    SHORT_TRAINING,
    TRAINING,
    base,
    fresh,
    steps_of,
    tuned,
)
from soralab.recipes.recaptioning import painter as taught
from soralab.training.profiles import by_profile, device

TRIAL = replace(TRAINING, steps=300, warmup=50, ema=0.98)
SETS = {"100 captions": 100, "1,000 captions": 1000, "no end of captions": None}


def sizes() -> dict[str, int]:
    """How many pictures are judged, by the profile: captions, prompts, and pictures of each short training."""
    return by_profile(
        smoke={"captions": 6, "prompts": 6, "few": 3}, laptop={"captions": 500, "prompts": 400, "few": 100},
        gpu={"captions": 1000, "prompts": 800, "few": 200},
    )  # fmt: skip


def short_captioner() -> tuple[Captioner, float]:
    """The captioner of main subjects, tuned from the base, and the seconds that it took; on the device."""
    start, _ = base(steps_of(BASE_TRAINING))
    model, result = tuned(start, recaptions.short, steps_of(SHORT_TRAINING), RUNS / SHORT)
    return model.to(device()), result.seconds


def voices(model: Captioner, count: int) -> dict:
    """What the web, the base, the short and the descriptive captioner call the same pictures, and how right they are.

    {"examples": {voice: six texts}, voice: `claims` of pictures of one and two things}
    """
    start, _ = base(steps_of(BASE_TRAINING))
    short, seconds = short_captioner()
    scenes = [scene for pair in zip(unseen("test", 1, count), unseen("test", 2, count), strict=True) for scene in pair]
    shown = stills.pictures(scenes)
    said = {"web": [alt(k, scene) for k, scene in enumerate(scenes)], "base": Recaptioner(start.to(device()))(shown),
            "short": Recaptioner(short)(shown), "descriptive": Recaptioner(model)(shown)}  # fmt: skip
    table = {voice: claims(found, scenes) for voice, found in said.items()}
    return {"examples": {voice: found[:6] for voice, found in said.items()}, "seconds of the short one": round(seconds),
            **table}  # fmt: skip


def trials(folder: Path, count: int, steps: int | None = None) -> dict:
    """Short trainings to describe pictures, of one difference each: {arm: `claims`}.

    From chapter 04's tower: its places, or CLIP's one vector. From the base: so many captions, again and again.
    """
    training = steps_of(TRIAL, steps)
    start, _ = base(steps_of(BASE_TRAINING))

    def one(where: str, model: Captioner, number: int | None = None) -> dict:
        found, _ = tuned(model, recaptions.descriptive, training, folder / where, count=number)
        scenes = unseen("test", 2, count)
        return claims(Recaptioner(found.to(device()))(stills.pictures(scenes)), scenes)

    table = {}
    for name, places in (("places", True), ("one vector", False)):
        torch.manual_seed(training.seed)
        table[name] = kept(folder / f"{name}.json", partial(one, name, fresh(places)))
    for name, number in SETS.items():
        table[name] = kept(folder / f"{name}.json", partial(one, name, start, number))
    return table


def metrics(name: str, trained: Trained) -> dict:
    """The card's. What was measured already lies in runs/NAME_experiments, and is not measured again."""
    count, short = sizes(), by_profile(smoke={"steps": 2}, laptop={}, gpu={})
    folder = RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    if name == NAME:
        write = Recaptioner(trained.model)
        measures = {
            "pictures": partial(of_pictures, write, count["captions"]),
            "films": partial(of_films, write, count["captions"]),
            "web": partial(of_the_web, count["captions"]),
            "voices": partial(voices, trained.model, count["captions"] // 2),
            "trials": partial(trials, folder / "trials", count["captions"] // 2, **short),
        }
    elif name == EXPANDER:
        asked, _ = drawn(count["prompts"])
        measures = {"lengthened": partial(painting.lengthened, Expander(trained.model), asked)}
    else:
        measures = painters(Painter(trained.model, load_autoencoder(trained.card["autoencoder"]).to(device()), SIDE),
                            folder, count["few"], short)  # fmt: skip
    return {of: kept(folder / f"{of}.json", measure) for of, measure in measures.items()} | {"counts": count}


def painters(painter: Painter, folder: Path, few: int, short: dict) -> dict:
    """The painter's measures, each to be called: its scores, longer prompts, the report's table, relations."""
    start = Painter.load(PICTURES_PAINTER, device())
    writers = {"short": Recaptioner(short_captioner()[0]), "descriptive": Recaptioner.load(NAME, device())}
    both = {"chapter 06": start, "descriptions": painter}
    some = {} if not short else {"count": 40}
    options = {"count": few, **short}

    def shelf() -> painting.Shelf:
        return painting.shelf(start, writers, folder, **some)

    def table() -> dict:
        seeds = by_profile(smoke=(1,), laptop=painting.SEEDS, gpu=painting.SEEDS)
        return painting.arms(shelf(), folder / "arms", seeds, **options)

    def sooner() -> dict:
        third = steps_of(replace(PAINTER_TRAINING, steps=PAINTER_TRAINING.steps // 3), short.get("steps"))
        model, result, _ = taught(third, folder / "sooner", *some.values())
        return {"steps": result.steps} | scores(Painter(model.to(device()), start.autoencoder, SIDE), 2 * few)

    return {
        "scores": partial(scores, painter, 2 * few),
        "sooner": sooner,
        "expansion": partial(painting.expansion, both, Expander.load(EXPANDER, device()), 2 * few),
        "arms": table,
        "examples": lambda: painting.examples(shelf(), folder / "arms", **short),
        "ears": lambda: {told: relation.heard(painter, say, min(2 * few, 128)) for told, say in
                         (("descriptions", relation.PLACES), ("without places", relation.plain))},
        "relation": partial(relation.rows, start, folder / "relation", **options | {"count": 2 * few}),
    }


def evaluate(name: str = NAME, checkpoint: str | None = None) -> str:
    """A shipped model's scores, measured now."""
    count = sizes()
    if name == EXPANDER:
        asked, _ = drawn(count["few"])
        found = painting.lengthened(Expander.load(checkpoint or name, device()), asked)
        return "\n".join(f"{key:10s}{found[key]:8.1%}" for key in ("kept", "various", "placed"))
    if name == PAINTER:
        found = scores(Painter.load(checkpoint or name, device()), count["few"])
        columns = ("shows", *stills.COLUMNS, "placed")
        lines = [" " * 18 + "".join(f"{column:>10s}" for column in columns)]
        lines += [f"{row:18s}" + "".join(f"{values[c]:10.1%}" for c in columns) for row, values in found.items()]
        return "\n".join(lines)
    write = Recaptioner.load(checkpoint or name, device())
    lines = [" " * 16 + "".join(f"{column:>20s}" for column in ("precision", "recall"))]
    table = of_pictures(write, count["captions"]) | {f"films, {split}": row for split, row in
                                                     of_films(write, count["captions"]).items()}  # fmt: skip
    for row, values in table.items():
        told = sum(n for kind in values["kinds"].values() for fate, n in kind.items() if fate != "missed")
        true = sum(kind["right"] + kind["missed"] for kind in values["kinds"].values())
        cells = interval(values["precision"], told) if told else "no claim", interval(values["recall"], true)
        lines.append(f"{row:16s}" + "".join(f"{cell:>20s}" for cell in cells))
    return "\n".join(lines)
