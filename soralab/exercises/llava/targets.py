"""What of a conversation is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer

Turns = list[tuple[list[int], list[int]]]


def stub(talks: list[list[tuple[list[int], list[int]]]], stop: int) -> tuple[Tensor, Tensor]:
    """ids and targets [batch, longest], int64: what the decoder reads, and what it is to say next at each place.

    A talk is a list of turns, (ids of a question, ids of its answer). Its row: question, answer, `stop`, the next
    question, and so on; rows are filled up on the right with 0. 0 may be a word as well, and it may be `stop`.
    targets[i, k] is ids[i, k + 1] where that is a word of an answer or the stop behind it; everywhere else, in the
    last column too, -100.
    """
    raise NotImplementedError


def solution(talks: list[list[tuple[list[int], list[int]]]], stop: int) -> tuple[Tensor, Tensor]:
    """ids and targets [batch, longest], int64: what the decoder reads, and what it is to say next at each place."""
    rows = [[id for question, answer in talk for id in (*question, *answer, stop)] for talk in talks]
    said = [[said for question, answer in talk for said in [False] * len(question) + [True] * (len(answer) + 1)]
            for talk in talks]  # fmt: skip
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    targets = torch.full_like(ids, -100)
    for i, (row, learnt) in enumerate(zip(rows, said, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        for k in range(len(row) - 1):
            if learnt[k + 1]:
                targets[i, k] = row[k + 1]
    return ids, targets


def _talk(*lengths: tuple[int, int], lowest: int = 1, words: int = 40) -> Turns:
    draw = lambda n: torch.randint(lowest, words, (n,)).tolist()  # noqa: E731
    return [(draw(question), draw(answer)) for question, answer in lengths]


def cases() -> Iterator[Case]:
    yield Case(([_talk((3, 2))], 50), "one turn")
    yield Case(([_talk((3, 2), (2, 1))], 50), "two turns")
    yield Case(([_talk((2, 1)), _talk((4, 3))], 50), "two talks of different lengths")
    yield Case(([_talk((3, 1), (1, 2), (2, 2)), _talk((2, 1))], 50), "three turns beside one")
    yield Case(([_talk((3, 2), (2, 2)), _talk((1, 1))], 0), "the stop is 0, as the padding")
    yield Case(([_talk((3, 2), lowest=0, words=2), _talk((2, 1), lowest=0, words=2)], 9), "0 is a word")
    yield Case(([_talk((2, 0)), _talk((2, 3))], 50), "an empty answer: the stop alone")
    yield Case(([_talk((0, 2), (1, 1)), _talk((2, 2))], 50), "an empty first question: nothing says its first word")
    yield Case(([_talk((3, 1), (0, 2))], 50), "an empty second question")
    for stop in (0, 41, 7):
        talks = [_talk(*((int(torch.randint(1, 6, ())), int(torch.randint(0, 4, ()))) for _ in range(turns)), lowest=0)
                 for turns in torch.randint(1, 4, (4,)).tolist()]  # fmt: skip
        yield Case((talks, stop))


def check(fn) -> Iterator[tuple[bool, str]]:
    kinds = [found.dtype for found in fn([_talk((3, 2))], 50)]
    yield kinds == [torch.int64] * 2, f"ids and targets are int64; yours are {kinds[0]} and {kinds[1]}."


def _marked(talks: list[Turns], stop: int, mark: Callable[[int, int, Turns], list[bool]]) -> tuple[Tensor, Tensor]:
    """Targets where `mark(number of the turn, how many turns, its turn)` says so for question, answer and stop."""
    ids = solution(talks, stop)[0]
    targets = torch.full_like(ids, -100)
    for i, talk in enumerate(talks):
        learnt = [one for number, turn in enumerate(talk) for one in mark(number, len(talk), turn)]
        for k in range(len(learnt) - 1):
            if learnt[k + 1]:
                targets[i, k] = ids[i, k + 1]
    return ids, targets


def questions_too(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [True] * (len(turn[0]) + len(turn[1]) + 1))


def stop_left_out(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [False] * len(turn[0]) + [True] * len(turn[1]) + [False])


def stops_by_their_id(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [id == stop for id in turn[0]] + [True] * (len(turn[1]) + 1))


def last_answer_alone(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [False] * len(turn[0]) + [k == n - 1] * (len(turn[1]) + 1))


def first_answer_alone(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [False] * len(turn[0]) + [k == 0] * (len(turn[1]) + 1))


def from_the_first_answer_on(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [k > 0] * len(turn[0]) + [True] * (len(turn[1]) + 1))


def first_word_left_out(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [False] * (len(turn[0]) + 1) + [True] * len(turn[1]))


def questions_alone(talks, stop):
    return _marked(talks, stop, lambda k, n, turn: [True] * len(turn[0]) + [False] * (len(turn[1]) + 1))


def padding_too(talks, stop):
    ids, targets = solution(talks, stop)
    for row, learnt, talk in zip(ids, targets, talks, strict=True):
        length = sum(len(question) + len(answer) + 1 for question, answer in talk)
        learnt[length - 1 : -1] = row[length:]
    return ids, targets


def zeros_taken_for_padding(talks, stop):
    ids, targets = solution(talks, stop)
    return ids, targets.masked_fill(targets == 0, -100)


def at_their_own_place(talks, stop):
    ids, targets = solution(talks, stop)
    return ids, _own_place(talks, ids)


def _own_place(talks: list[Turns], ids: Tensor) -> Tensor:
    targets = torch.full_like(ids, -100)
    for row, learnt, talk in zip(ids, targets, talks, strict=True):
        k = 0
        for question, answer in talk:
            start, k = k + len(question), k + len(question) + len(answer) + 1
            learnt[start:k] = row[start:k]
    return targets


def moved_the_other_way(talks, stop):
    ids = solution(talks, stop)[0]
    targets = torch.full_like(ids, -100)
    targets[:, 1:] = _own_place(talks, ids)[:, :-1]
    return ids, targets


def moved_round(talks, stop):
    ids = solution(talks, stop)[0]
    return ids, _own_place(talks, ids).roll(-1, 1)


def mask_not_moved(talks, stop):
    ids = solution(talks, stop)[0]
    own, following = _own_place(talks, ids), torch.full_like(ids, -100)
    following[:, :-1] = ids[:, 1:]
    return ids, torch.where(own != -100, following, -100)


def zeros_for_none(talks, stop):
    ids, targets = solution(talks, stop)
    return ids, targets.masked_fill(targets == -100, 0)


def one_stop_a_talk(talks, stop):
    rows = [[part for turn in talk for part in turn] for talk in talks]
    flat = [[id for part in row for id in part] + [stop] for row in rows]
    learnt = [[bool(k % 2) for k, part in enumerate(row) for _ in part] + [True] for row in rows]
    return _filled(flat, learnt)


def a_stop_behind_questions_too(talks, stop):
    flat = [[id for question, answer in talk for id in (*question, stop, *answer, stop)] for talk in talks]
    learnt = [[one for question, answer in talk for one in [False] * (len(question) + 1) + [True] * (len(answer) + 1)]
              for talk in talks]  # fmt: skip
    return _filled(flat, learnt)


def filled_on_the_left(talks, stop):
    ids, targets = solution(talks, stop)
    for k, talk in enumerate(talks):
        length = sum(len(question) + len(answer) + 1 for question, answer in talk)
        ids[k], targets[k] = ids[k].roll(-length), targets[k].roll(-length)
    return ids, targets


def _filled(rows: list[list[int]], learnt: list[list[bool]]) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    targets = torch.full_like(ids, -100)
    for i, (row, marks) in enumerate(zip(rows, learnt, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        for k in range(len(row) - 1):
            if marks[k + 1]:
                targets[i, k] = row[k + 1]
    return ids, targets


def in_32_bits(talks, stop):
    ids, targets = solution(talks, stop)
    return ids.int(), targets.int()


EXERCISE = Exercise(
    name="llava.targets",
    title="Only what it says",
    difficulty=2,
    minutes=15,
    statement="""
        Table 2 of the paper prints in green what counts in the loss: the answers, and the stop behind each. The
        questions are read and not learnt, the padding neither. −100 is what PyTorch's cross-entropy leaves out. Three
        things meet here, and each is right alone: which ids are learnt, that a place says the *next* id, and that 0
        may be a word. (The picture's place is an id of the question; exercise 13.2 fills it.)
        """,
    hints=(
        "Write one talk of two turns on paper, mark each id as said or not; then at which place is each marked one "
        "to be said?",
        "Build two lists side by side, the ids and whether each is said: no for a question, yes for an answer and its "
        "stop. The target of place k is id k + 1 if *that* one is said.",
        "row = [id for q, a in talk for id in (*q, *a, stop)]; said = [s for q, a in talk for s in [False] * len(q) + "
        "[True] * (len(a) + 1)]; fill zeros with rows and -100 with row[k + 1] where said[k + 1].",
    ),
    compare="Compare: who says an answer's first word, and who its stop? Where would a model end that learnt no stop?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={"in_32_bits": WrongAnswer(in_32_bits, "are int64")},
    mistakes={
        "questions_too": Mistake(questions_too, "the questions are learnt too. Nobody will ask the model to ask: only "
                                 "answers and their stops are."),
        "stop_left_out": Mistake(stop_left_out, "no stop is learnt. The model would say the answer and never end: the "
                                 "stop behind an answer is a target too."),
        "stops_by_their_id": Mistake(stops_by_their_id, "you find stops by their id, so a question's word that has the "
                                     "same one is learnt. What is a stop is told by where it stands."),
        "last_answer_alone": Mistake(last_answer_alone, "only the last turn's answer is learnt. Every answer of a talk "
                                     "is."),
        "first_answer_alone": Mistake(first_answer_alone, "only the first turn's answer is learnt. Every answer of a "
                                      "talk is."),
        "from_the_first_answer_on": Mistake(from_the_first_answer_on, "from the first answer on everything is learnt, "
                                            "later questions too. Each question is left out."),
        "first_word_left_out": Mistake(first_word_left_out, "the first word of each answer is not learnt. It is said "
                                       "at the question's last place: that place has a target."),
        "questions_alone": Mistake(questions_alone, "you learn the questions and leave the answers out: the other way "
                                   "round."),
        "padding_too": Mistake(padding_too, "the padding is learnt: behind the last stop your targets go on with 0. "
                               "They are -100 there."),
        "zeros_taken_for_padding": Mistake(zeros_taken_for_padding, "wherever an id is 0 you leave it out. It may be a "
                                           "word, or the stop: what is padding is told by the row's length."),
        "at_their_own_place": Mistake(at_their_own_place, "each id is the target of its own place. There the decoder "
                                      "has read it already: the place before says it."),
        "moved_the_other_way": Mistake(moved_the_other_way, "your targets are moved to the right: each place says the "
                                       "id before it. It says the one behind it."),
        "moved_round": Mistake(moved_round, "moving by roll brings the first column round to the last: an answer's "
                               "first word with no question before it is said by nobody. The last column is -100."),
        "mask_not_moved": Mistake(mask_not_moved, "you ask whether the id *at* a place is said, and then take the next "
                                  "one: so the first word is lost, and what follows a stop is learnt. Ask it of the "
                                  "next id."),
        "zeros_for_none": Mistake(zeros_for_none, "where nothing is to be learnt you write 0. That is an id; -100 is "
                                  "what cross-entropy leaves out."),
        "one_stop_a_talk": Mistake(one_stop_a_talk, "you set one stop at the end of a talk. One stands behind each "
                                   "answer."),
        "a_stop_behind_questions_too": Mistake(a_stop_behind_questions_too, "you set a stop behind the questions too. "
                                               "It stands behind answers alone."),
        "filled_on_the_left": Mistake(filled_on_the_left, "your rows are filled up on the left; here they are filled "
                                      "up on the right."),
    },
)  # fmt: skip
