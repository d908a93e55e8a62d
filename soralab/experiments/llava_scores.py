"""How chapter 13's model is judged: answers that are the truth word by word, by kind of question.

The teacher knows the one right answer to each of its questions, so nobody has to judge as GPT-4 does in the paper. A
yes/no question is right by chance in one of two cases, and other kinds have habits of their own: that is why a model
that sees nothing stands beside each number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

import torch
from torch import Tensor, nn

from soralab import world
from soralab.datasets import stills
from soralab.datasets.instructions import Symbols, Turn, conversation, description, options, symbols
from soralab.datasets.stories import places
from soralab.experiments.clip_scores import swapped
from soralab.llava import Answer, Assistant, LLaVA, grid, template
from soralab.recipes.llava import SEED, ids_of, scene_of, seen
from soralab.training.data import beside

GROUPS = ("one thing", "two things", "relations", "reasoning", "description", "films")
_OWN = {"relation": "relations", "beside": "relations", "reasoning": "reasoning", "description": "description"}
TWINS = ("colour", "shape", "relation")  # kinds of question that a picture and its twin may answer otherwise


@dataclass(frozen=True)
class Exam:
    """Questions about unseen scenes: what the tower sees of each scene, and (scene, group, turn) for each question."""

    scenes: list[world.Scene]
    told: list[Symbols]
    Z: Tensor  # [scenes, pictures, tokens, width]
    asked: list[tuple[int, str, Turn]]

    @classmethod
    def of(cls, tower: nn.Module, show: str, count: int, split: str = "test") -> Exam:
        """One question of each kind about each of `count` scenes of a split."""
        scenes = [scene_of(show, SEED, k, split) for k in range(count)]
        rng, told, asked = Random(f"exam/{show}/{split}"), [symbols(scene, show) for scene in scenes], []
        for k, each in enumerate(told):
            asked += [(k, group(each, t.kind), t) for t in (*conversation(each, rng), description(each, rng))]
        return cls(scenes, told, seen(partial(grid, tower), scenes, show), asked)

    def answers(self, assistant: Assistant, sight: Callable[[Tensor], Tensor] | None = None) -> list[str]:
        """What a model says to each question; sight: what it is shown in place of Z."""
        Z = sight(self.Z) if sight else self.Z
        return assistant.answers(Z[[k for k, *_ in self.asked]], [turn.question for *_, turn in self.asked])


def group(told: Symbols, kind: str) -> str:
    """Which of GROUPS a question belongs to."""
    things = "one thing" if len(told.boxes) == 1 else "two things"
    return "films" if told.show == "film" else _OWN.get(kind, things)


def counted(exams: Sequence[Exam], said: Sequence[list[str]]) -> dict[str, dict[str, dict[str, int]]]:
    """{group: {kind: {"right", "of"}, ..., "all": {...}}} of answers to the questions of exams."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for exam, answers in zip(exams, said, strict=True):
        for (_, where, turn), answer in zip(exam.asked, answers, strict=True):
            for kind in (turn.kind, "all"):
                row = table.setdefault(where, {}).setdefault(kind, {"right": 0, "of": 0})
                row["right"] += answer == turn.answer
                row["of"] += 1
    last = partial(sorted, key=lambda kind: kind[0] == "all")
    return {name: dict(last(table[name].items())) for name in GROUPS if name in table}


def measure(assistant: Assistant, exams: Sequence[Exam], sight: Callable[[Tensor], Tensor] | None = None) -> dict:
    """`counted`, of a model's answers; sight: what it is shown in place of Z, such as torch.zeros_like."""
    return counted(exams, [exam.answers(assistant, sight) for exam in exams])


@torch.no_grad()
def told_in_words(model: LLaVA, count: int) -> dict[str, dict[str, int]]:
    """{kind: {"right", "of"}}: what a model answers about unseen pictures of two things that it is told in words, the
    caption and where each thing is; colours are asked for by shape, and of a kind one question a picture."""
    rng, table = Random("told"), {}
    for k in range(count):
        scene = symbols(stills.sample(SEED, k, "test", 2))
        said = [scene.caption, *places(scene)]
        text = ids_of(" ".join(rng.sample(said, len(said))))
        for kind in ("shape", "size", "colour", "place", "relation"):
            asked = [pair for pair in options(scene, kind)
                     if kind != "colour" or set(world.SHAPES) & set(pair[0].rstrip("?").split())]  # fmt: skip
            if asked:
                question, answer = map(ids_of, rng.choice(asked))
                ids = torch.tensor([template([([*text, *question], answer)], 0)], device=model.embedding.weight.device)
                n = len(answer) + 1  # and the stop; all words likeliest behind the true ones: written so too
                row = table.setdefault(kind, {"right": 0, "of": 0})
                row["right"] += torch.equal(model(ids)[0, -n - 1 : -1].argmax(-1), ids[0, -n:])
                row["of"] += 1
    return table


def totals(table: dict[str, dict]) -> dict[str, dict[str, int]]:
    """{group: {"right", "of"}}: of a table the counts of all kinds together."""
    return {name: rows["all"] for name, rows in table.items()}


def mistakes(assistant: Assistant, exams: Sequence[Exam], each: int = 2) -> list[tuple[str, str, str]]:
    """The first questions that were answered wrong, `each` of a group: (question, truth, answer)."""
    found: dict[str, list] = {}
    for exam in exams:
        for (_, where, turn), answer in zip(exam.asked, exam.answers(assistant), strict=True):
            if answer != turn.answer and len(found.setdefault(where, [])) < each:
                found[where].append((turn.question, turn.answer, answer))
    return sum(found.values(), [])


def twins(count: int) -> list[tuple[world.Scene, world.Scene, str, str, str]]:
    """Pictures of two things and their twins, in which the things' colours are exchanged: (scene, twin, a question, its
    answer, and the answer of the twin, which is another)."""
    found, index, rng = [], 0, Random("twins")
    while len(found) < count:
        scene, index = stills.sample(SEED, index, "test", 2), index + 1
        twin = swapped(scene)
        if twin.held_out:
            continue
        here, there = (dict(pair for kind in TWINS for pair in options(symbols(s), kind)) for s in (scene, twin))
        both = [question for question in here if question in there and here[question] != there[question]]
        if both:
            question = both[int(rng.random() * len(both))]
            found.append((scene, twin, question, here[question], there[question]))
    return found


def exchanged(assistant: Assistant, count: int, sight: Callable[[Tensor], Tensor] | None = None) -> int:
    """In how many of `count` pairs of twins both pictures get their own answer to the same question."""
    pairs, right = twins(count), 0
    Z = [seen(partial(grid, assistant.tower), [pair[k] for pair in pairs], "picture") for k in (0, 1)]
    Z = [sight(z) for z in Z] if sight else Z
    said = [assistant.answers(z, [pair[2] for pair in pairs]) for z in Z]
    for (*_, one, other), *answers in zip(pairs, *said, strict=True):
        right += answers == [one, other]
    return right


Labelled = tuple[list[Symbols], Tensor]  # pictures, and features of them [n, numbers]


def probe(shown: Labelled, unseen: Labelled) -> dict[str, float]:
    """Shares of unseen pictures of one thing whose shape, colour, size and place a linear map reads off features; the
    map is ridge regression on those that are shown."""
    found = {}
    for kind in ("shape", "colour", "size", "place"):
        (x, y), (x_new, y_new) = (_labelled(*pictures, kind) for pictures in (shown, unseen))
        names = sorted(set(y))
        mean, deviation = x.mean(0), x.std(0) + 1e-3
        x, x_new = ((part - mean) / deviation for part in (x, x_new))
        wanted = torch.tensor([[float(value == name) for name in names] for value in y])
        gram = x.T @ x + 0.01 * len(x) * torch.eye(x.shape[1])
        W = torch.linalg.solve(gram, x.T @ (wanted - wanted.mean(0)))
        best = (x_new @ W + wanted.mean(0)).argmax(1).tolist()
        found[kind] = round(sum(names[k] == value for k, value in zip(best, y_new, strict=True)) / len(y_new), 4)
    return found


def _labelled(told: list[Symbols], Z: Tensor, kind: str) -> tuple[Tensor, list[str]]:
    """Features of the pictures of one thing, and what a kind of question asks about it."""
    pairs = [(k, options(each, kind)) for k, each in enumerate(told) if len(each.boxes) == 1]
    which = [(k, asked[0][1]) for k, asked in pairs if asked]
    return Z[[k for k, _ in which]].float(), [value for _, value in which]


@torch.no_grad()
def speed(assistant: Assistant, words: int = 24, rounds: int = 3) -> dict[str, float]:
    """Milliseconds of the processor for each word of an answer about a film: cached, and all read anew each time."""
    model, film = assistant.model, torch.zeros(1, 4, *assistant.see(torch.zeros(1, 3, 32, 32)).shape[1:])
    ids, Z = beside(model, (torch.tensor([template([(assistant.ids("What does the film show?"), None)], 4)]), film))
    said = ids[:, -3:-2].expand(-1, words)  # any word

    def cached() -> None:
        answer = model.begin(ids, Z)
        for k in range(words):
            answer.next(said[:, k])

    def anew() -> None:
        for k in range(words):
            model.read(model.embed(torch.cat([ids, said[:, : k + 1]], 1), Z), Answer(model))

    found = {}
    for name, write in (("cached", cached), ("anew", anew)):
        write()
        began = time.process_time()
        for _ in range(rounds):
            write()
        found[name] = round(1000 * (time.process_time() - began) / rounds / words, 2)
    return found
