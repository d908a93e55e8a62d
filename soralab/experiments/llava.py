"""What chapter 13 measures: `soralab evaluate llava`, and the card's metrics."""

from __future__ import annotations

from functools import partial

import torch

from soralab.experiments.llava_arms import READ, SIGHTS, arms, blind, nothing
from soralab.experiments.llava_scores import Exam, exchanged, measure, mistakes, speed, totals
from soralab.experiments.tune_a_video_scores import interval
from soralab.files.atomic import kept
from soralab.llava import Assistant
from soralab.recipes import RUNS, Trained
from soralab.recipes.llava import TOKENS, library, taught, tower
from soralab.training.profiles import by_profile, device


def sizes() -> dict[str, int]:
    """How many scenes are asked about, by the profile: pictures, films, pictures that are held out, pairs of twins."""
    names = ("pictures", "films", "held_out", "twins")
    counts = by_profile(smoke=(8, 5, 4, 2), laptop=(600, 500, 300, 300), gpu=(1000, 1000, 1000, 500))
    return dict(zip(names, counts, strict=True))


def exams() -> list[Exam]:
    """Questions about unseen pictures and films."""
    count = sizes()
    return [Exam.of(tower(), "picture", count["pictures"]), Exam.of(tower(), "film", count["films"])]


def metrics(name: str, trained: Trained) -> dict:
    """The card's tables; each count is {"right", "of"}.

    What was measured already lies in runs/NAME_experiments, and is not measured again.
    """
    own, count, asked = RUNS / name, sizes(), exams()
    folder = RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    assistant = Assistant(trained.model, tower(), TOKENS)

    def first_stage() -> dict:
        model, _ = taught(library(), own, upto="stage_1")
        return measure(Assistant(model.to(device()), tower(), TOKENS), asked)

    def unsighted() -> dict:
        steps, model = blind(folder, own, asked)
        return {"steps": steps, "twins": exchanged(model, count["twins"], nothing)}

    measures = {
        "test": lambda: measure(assistant, asked),
        "held_out": lambda: measure(assistant, [Exam.of(tower(), "picture", count["held_out"], "held_out")]),
        "zeroed": lambda: measure(assistant, asked, torch.zeros_like),
        "stage 1": first_stage,
        "blind": unsighted,
        "swapped": lambda: {"pairs": count["twins"], "both right": exchanged(assistant, count["twins"])},
        "examples": lambda: mistakes(assistant, asked),
        "speed": lambda: speed(assistant),
        "arms": partial(arms, folder / "arms", own, count["pictures"]),
    }
    found = {of: kept(folder / f"{of.replace(' ', '_')}.json", measure_it) for of, measure_it in measures.items()}
    found["swapped"]["blind"] = found["blind"]["twins"]
    unseeing, short = found["blind"]["steps"], found["arms"]
    begun = {"without stage 1": "penultimate layer", "after stage 1": "after stage 1"}
    return found | {
        "blind": last(unseeing),
        "blind steps": {steps: totals(table) for steps, table in unseeing.items()},
        "arms": {name: last(short[name]["steps"]) for name in SIGHTS},
        "probe": {name: short[name]["probe"] for name in SIGHTS},
        "vectors": {name: short[name]["vectors"] for name in SIGHTS},
        "begun": {name: short[arm]["steps"] for name, arm in begun.items()},
        "read": {name: {"told": short[name]["told"], "shown": short[name]["kinds"]} for name in READ},
    }


def last(steps: dict[str, dict]) -> dict:
    """What was found after all steps of a training."""
    return steps[max(steps, key=int)]


def evaluate(name: str = "llava", checkpoint: str | None = None) -> str:
    """The shipped model's answers about scenes that training never saw, measured now, with 95 % intervals."""
    table = measure(Assistant.load(checkpoint or name, device()), exams())
    lines = [f"{'':28s}{'exact':>20s}{'of':>8s}"]
    for group, rows in table.items():
        for kind, row in rows.items():
            lines.append(f"{group:14s}{kind:14s}{interval(row['right'], row['of']):>20s}{row['of']:8d}")
    return "\n".join(lines)
