"""Readers of chapters 08 and 13 beside the strict referee, on films of chapter 16's whole model and on true ones.

Chapter 13's assistant is asked what colour, size and shape a thing has, chapter 08's reader which way it goes. Both
have learnt from true films, and must say something; the referee has learnt nothing, and refuses what no rule explains.
`python -m soralab.experiments.sora_full_readers` films and reads, and writes data/experiments/sora_full_readers.json,
in some six minutes of one core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from soralab.datasets import order
from soralab.experiments.shipped import EXPERIMENTS, for_the_course, write
from soralab.experiments.sora_full_scores import asked, films_of, marks, true_films
from soralab.experiments.sora_full_sizes import who
from soralab.experiments.vivit_scores import logits
from soralab.experiments.vivit_sora import finds
from soralab.files.atomic import kept
from soralab.llava import Assistant, pick_frames
from soralab.recipes import RUNS
from soralab.recipes.sora_full import NAME
from soralab.recipes.vivit import load as load_reader
from soralab.sora_full import FullFilmmaker
from soralab.training.profiles import by_profile, device
from soralab.vivit import ViViT
from soralab.world.questions import ask
from soralab.world.scene import WALL, Scene

FILE = EXPERIMENTS / "sora_full_readers.json"
KIND, FILMS = "simple", 200
LOOKS = ("colour", "size", "shape")  # what the assistant is asked
PARTS = (*LOOKS, "motion")
WHO = ("both", "reader", "referee", "neither")  # finds in a film what its prompt asks for
WHOSE = ("true films", "the whole model's")


def looks(assistant: Assistant, films: Tensor, scenes: Sequence[Scene]) -> list[dict[str, list[str]]]:
    """Of each film [9, 3, 32, 32]: {what: [the prompt's, the assistant's]}, as far as a film shows it: what grows or
    shrinks has no one size."""
    Z = assistant.see(torch.stack([pick_frames(film) for film in films]))
    put = [(k, what, *ask(scene, what)[0]) for k, scene in enumerate(scenes) for what in LOOKS if ask(scene, what)]
    said = assistant.answers(Z[[k for k, *_ in put]], [question for *_, question, _ in put])
    found: list[dict[str, list[str]]] = [{} for _ in scenes]
    for (k, what, _, answer), word in zip(put, said, strict=True):
        found[k][what] = [answer, word]
    return found


def motions(reader: ViViT, films: Tensor, scenes: Sequence[Scene]) -> list[dict[str, list[str]]]:
    """Of each film: {"motion": [the prompt's, the reader's]} where the prompt names one of the reader's classes. It
    sees the first eight frames."""
    said = [order.NAMES[k] for k in logits(reader, films[:, : order.FRAMES]).argmax(-1).tolist()]
    things = [scene.objects[0] for scene in scenes]
    return [
        {"motion": [WALL if thing.motion == WALL else name, word]}
        if (name := order.name_of(thing.motion, thing.turn)) in order.NAMES else {}
        for thing, word in zip(things, said, strict=True)
    ]  # fmt: skip


def opinions(assistant: Assistant, reader: ViViT, films: Tensor, kind: str = KIND) -> list[dict]:
    """Of films of a kind's first prompts, for each: {"prompt": its number, "text", what: [asked, said by the chapters'
    reader, whether the referee finds it right]}."""
    texts, scenes = asked(kind, len(films))
    said = zip(looks(assistant, films, scenes), motions(reader, films, scenes), strict=True)
    rows = []
    for k, (text, film, (look, way)) in enumerate(zip(texts, films, said, strict=True)):
        right = marks(film, text)
        pairs = {what: [*pair, bool(right[what])] for what, pair in (look | way).items()}
        rows.append({"prompt": k, "text": text} | pairs)
    return rows


def found_by(wanted: str, said: str, referee: bool) -> str:
    """Which of WHO finds what was asked for."""
    return WHO[2 * (not finds(said, wanted)) + (not referee)]


def counts(rows: Sequence[Mapping]) -> dict[str, dict[str, int]]:
    """{what: how many films are in each of WHO}, for each of PARTS and for all of them that a film was asked."""
    table = {what: dict.fromkeys(WHO, 0) for what in (*PARTS, "all")}
    for row in rows:
        found = {what: found_by(*row[what]) for what in PARTS if what in row}
        missed = set(found.values()) - {"both"}
        reader, judge = (bool(missed & {"neither", other}) for other in ("referee", "reader"))  # who misses something
        for what, finder in (*found.items(), ("all", WHO[2 * reader + judge])):
            table[what][finder] += 1
    return table


def differ(rows: Sequence[Mapping], what: str) -> list[dict]:
    """The films in which reader and referee find otherwise: {"prompt", "text", "reader": what it says}."""
    return [
        {"prompt": row["prompt"], "text": row["text"], "reader": row[what][1]}
        for row in rows
        if what in row and found_by(*row[what]) in ("reader", "referee")
    ]


def load_experiment() -> dict:
    """What the course holds: {"films": count, "tables": {of WHOSE: `counts`}, "differ": {of WHOSE: {of PARTS:
    `differ`}}}."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def table(tables: Mapping[str, Mapping]) -> str:
    """A line for each thing asked, and in how many films of each kind who finds it."""
    wide = 36
    head = " " * 8 + "".join(whose.ljust(wide) for whose in tables)
    names = " " * 8 + "".join("".join(f"{name:>8s}" for name in WHO).ljust(wide) for _ in tables)
    lines = [head.rstrip(), names.rstrip()]
    for what in tables[next(iter(tables))]:
        cells = ("".join(f"{each[what][name]:8d}" for name in WHO).ljust(wide) for each in tables.values())
        lines.append(f"{what:8s}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Film, read, and write what was found; the opinions are kept in runs/."""
    for_the_course(FILE)
    count = by_profile(smoke=2, laptop=FILMS, gpu=FILMS)
    assistant, reader = Assistant.load(device=device()), load_reader().to(device())
    films = {WHOSE[0]: lambda: true_films(KIND, count)[0],
             WHOSE[1]: lambda: films_of(FullFilmmaker.load(NAME, device()), KIND, count)[0].cpu()}  # fmt: skip
    folder = RUNS / "sora_full_readers" / f"{who()}_{count}"
    rows = {whose: kept(folder / f"{number}.json", lambda whose=whose: opinions(assistant, reader, films[whose]()))
            for number, whose in enumerate(WHOSE)}  # fmt: skip
    tables = {whose: counts(each) for whose, each in rows.items()}
    other = {whose: {what: differ(each, what) for what in PARTS} for whose, each in rows.items()}
    write(FILE, {"films": count, "tables": tables, "differ": other})
    print(table(tables))


if __name__ == "__main__":
    main()
