"""What chapter 09 measures: `soralab evaluate imagen_student` and its like, and the cards' metrics.

The cards of the three stages hold their own held-out loss. What the cascade makes is on the student's, which is trained
last.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from soralab.experiments.align_your_latents import interval
from soralab.experiments.imagen_video_ablations import joint, twins
from soralab.experiments.imagen_video_scores import (
    base_films,
    by_stage,
    ceilings,
    costs,
    exposure,
    guidance,
    held_loss,
    larger_films,
    more_films,
    prompts,
    shares,
    space_steps,
    stochastic_films,
    without_words,
)
from soralab.experiments.sora_scores import COLUMNS
from soralab.experiments.walt_ablations import kept
from soralab.imagen_video import Cascade, Stage
from soralab.recipes import RUNS, Trained
from soralab.recipes.imagen_video import BASE, HALVINGS, SPACE, STUDENT, TIME, load_stage, students
from soralab.training.profiles import by_profile, device

STEPS = (32, 16, 8, 4)  # of the teacher


def sizes() -> dict[str, int]:
    """How many films are judged, by the profile: of the whole cascade and its student, and of all else."""
    return by_profile(smoke={"many": 2, "few": 2}, laptop={"many": 200, "few": 60}, gpu={"many": 400, "few": 200})


def distilled(cascade: Cascade, rounds: dict[str, Stage], texts: list[str]) -> dict[str, dict]:
    """Films of the cascade whose base is the teacher, by its steps, or the student of a round: {"teacher": {steps:
    shares}, "student": ..., "stochastic": ...}; the other stages are the same for all."""
    def whole(few) -> dict[str, float]:
        return shares(larger_films(cascade, more_films(cascade, few, texts), texts), texts)

    table: dict[str, dict] = {"teacher": {}, "student": {}, "stochastic": {}}
    for steps in STEPS:
        table["teacher"][str(steps)] = whole(base_films(cascade, texts, steps=steps))
    for name, student in rounds.items():
        steps = STEPS[0] if name == "guided" else int(name)
        table["student"][str(steps)] = whole(base_films(Cascade(student, student=steps), texts))
    for steps in HALVINGS[1:]:
        table["stochastic"][str(steps)] = whole(stochastic_films(rounds[str(steps)], texts, steps))
    return table


def pair(cascade: Cascade, student: Cascade, count: int) -> dict[str, dict]:
    """The teacher's 32 steps and the student's few, by stage, on the same prompts and noise."""
    texts = prompts("test", count)[0]
    return {"teacher": by_stage(cascade, texts)[0], "student": by_stage(student, texts)[0]}


def loss_of(stage: Stage, name: str) -> float:
    """A stage's held-out loss, on as many films as the profile says."""
    return held_loss(stage, name, by_profile(smoke=4, laptop=128, gpu=128))


def metrics(name: str, trained: Trained) -> dict:
    """The card's: a stage's loss, or everything that is measured of the cascade with the student's.

    What was measured already lies in runs/NAME_experiments, and is not measured again.
    """
    if name != STUDENT:
        return {"loss": loss_of(trained.model, name)}
    cascade = Cascade(*(load_stage(stage).to(device()) for stage in (BASE, TIME, SPACE)))
    student = Cascade(trained.model, cascade.time, cascade.space, student=HALVINGS[-1])
    count = sizes()
    texts = prompts("test", count["few"])[0]
    folder = RUNS / f"{name}_experiments" / f"{trained.card['steps']}_steps"
    short = by_profile(smoke={"steps": 2}, laptop={}, gpu={})
    made = more_films(cascade, base_films(cascade, texts), texts)
    rounds = {key: stage.to(device()) for key, stage in students(trained).items()}
    measures = {
        "true": partial(ceilings, count["few"]),
        "pair": partial(pair, cascade, student, count["many"]),
        "exposure": partial(exposure, cascade, made, texts),
        "words": partial(without_words, cascade, texts),
        "distilled": partial(distilled, cascade, rounds, texts),
        "seconds": partial(costs, cascade, student),
        "guidance": partial(guidance, cascade.base, texts),
        "space steps": partial(space_steps, cascade, texts),
        "twins": partial(twins, cascade, made, texts, folder / "twins", **short),
        "joint": partial(joint, folder / "joint", **short),
    }
    found = {of: kept(Path(folder) / f"{of.replace(' ', '_')}.json", measure) for of, measure in measures.items()}
    return {"films": count["many"], "few": count["few"], **found}


def evaluate(name: str = STUDENT, checkpoint: str | None = None) -> str:
    """The shipped cascade's scores after each stage, with the teacher and with the student, measured now; of another
    checkpoint than the student's, the stage's held-out loss."""
    if name != STUDENT:
        return f"held-out loss {loss_of(load_stage(checkpoint or name).to(device()), name):.4f}"
    count = sizes()["few"]
    cascade = Cascade(*(load_stage(stage).to(device()) for stage in (BASE, TIME, SPACE)))
    student = Cascade(load_stage(checkpoint or name).to(device()), cascade.time, cascade.space, student=HALVINGS[-1])
    lines = [" " * 16 + "".join(f"{column:>18s}" for column in COLUMNS)]
    for title, table in pair(cascade, student, count).items():
        for stage, row in table.items():
            cells = "".join(f"{interval(row[column], count):>18s}" for column in COLUMNS)
            lines.append(f"{title + ', ' + stage:16s}{cells}")
    return "\n".join(lines)
