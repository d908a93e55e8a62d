"""The words that a draw may take."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(log_p: Tensor, p: float) -> Tensor:
    """log P of the nucleus [rows, vocabulary], the type of log_p: -inf for the words outside, the others' chances
    summing to 1 again.

    log_p [rows, vocabulary]: log chances, -inf for words that may not come. The nucleus of a row is the smallest set of
    its likeliest words whose chances sum to p or more; p above 0, up to 1.
    """
    raise NotImplementedError


def solution(log_p: Tensor, p: float) -> Tensor:
    """log P of the nucleus [rows, vocabulary]: -inf for the words outside, the others' chances summing to 1 again."""
    best, order = log_p.sort(dim=-1, descending=True)
    chances = best.double().exp()
    before = chances.cumsum(-1) - chances  # of the likelier words
    outside = (before >= p).scatter(-1, order, before >= p)  # from their order back to the vocabulary's
    return log_p.masked_fill(outside, -math.inf).log_softmax(-1)


def _log_p(rows: int, vocabulary: int, spread: float = 2.0, dtype=torch.float32) -> Tensor:
    return (spread * torch.randn(rows, vocabulary, dtype=dtype)).log_softmax(-1)


def cases() -> Iterator[Case]:
    some = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    yield Case((some, 0.6), "two words of four: 0.5 is too little, 0.75 is enough")
    yield Case((some, 0.3), "the likeliest word alone is more than p")
    yield Case((some, 0.8), "three words of four")
    yield Case((some, 0.95), "only all words reach p")
    yield Case((torch.tensor([[0.0, 0.7, 0.3, 0.0]]).log(), 0.5), "words that may not come")
    yield Case((torch.tensor([[0.9, 0.06, 0.04], [0.2, 0.35, 0.45]]).log(), 0.7), "a sure row and an unsure one")
    yield Case((_log_p(1, 1), 0.5), "a vocabulary of one word")
    yield Case((_log_p(4, 6, 20.0), 0.9), "rows that are nearly sure")
    yield Case((_log_p(3, 9, 1.0, torch.float64), 0.75), "float64")
    yield Case((_log_p(2, 200, 0.1), 0.5), "200 words of nearly the same chance")
    for _ in range(3):
        rows, vocabulary = torch.randint(2, 9, (2,)).tolist()
        yield Case((_log_p(rows, vocabulary), 0.1 + 0.8 * float(torch.rand(()))))


def _kept(log_p: Tensor, outside: Tensor) -> Tensor:
    return log_p.masked_fill(outside, -math.inf).log_softmax(-1)


def _sorted(log_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    best, order = log_p.sort(dim=-1, descending=True)
    return best, best.double().exp(), order


def _back(flags: Tensor, order: Tensor) -> Tensor:
    return flags.scatter(-1, order, flags)


def without_the_last(log_p, p):
    _, chances, order = _sorted(log_p)
    outside = chances.cumsum(-1) >= p
    outside[:, 0] = False  # one stays, or nothing could be drawn
    return _kept(log_p, _back(outside, order))


def divided_by_p(log_p, p):
    _, chances, order = _sorted(log_p)
    return log_p.masked_fill(_back(chances.cumsum(-1) - chances >= p, order), -math.inf) - math.log(p)


def one_too_many(log_p, p):
    _, chances, order = _sorted(log_p)
    outside = chances.cumsum(-1) - chances >= p
    outside = torch.cat([torch.zeros_like(outside[:, :1]), outside[:, :-1]], dim=-1)
    return _kept(log_p, _back(outside, order))


def each_by_itself(log_p, p):
    outside = log_p.exp() < p
    best = log_p.argmax(-1, keepdim=True)
    return _kept(log_p, outside.scatter(-1, best, torch.zeros_like(best, dtype=torch.bool)))


def share_of_the_best(log_p, p):
    return _kept(log_p, log_p.exp() < p * log_p.exp().amax(-1, keepdim=True))


def the_unlikely_ones(log_p, p):
    best, order = log_p.sort(dim=-1)
    chances = best.double().exp()
    return _kept(log_p, _back(chances.cumsum(-1) - chances >= p, order))


def order_not_undone(log_p, p):
    _, chances, _ = _sorted(log_p)
    outside = chances.cumsum(-1) - chances >= p
    return _kept(log_p, outside)


def order_applied_twice(log_p, p):
    _, chances, order = _sorted(log_p)
    outside = chances.cumsum(-1) - chances >= p
    return _kept(log_p, outside.gather(-1, order))


def still_sorted(log_p, p):
    best, chances, _ = _sorted(log_p)
    return _kept(best, chances.cumsum(-1) - chances >= p)


def not_to_one_again(log_p, p):
    best, chances, order = _sorted(log_p)
    return log_p.masked_fill(_back(chances.cumsum(-1) - chances >= p, order), -math.inf)


def chances_returned(log_p, p):
    return solution(log_p, p).exp()


def share_of_the_words(log_p, p):
    count = math.ceil(p * log_p.shape[-1])
    least = log_p.topk(count, dim=-1).values[:, -1:]
    return _kept(log_p, log_p < least)


def one_nucleus_for_all_rows(log_p, p):
    mean = log_p.double().exp().mean(0, keepdim=True).log()
    _, chances, order = _sorted(mean)
    outside = _back(chances.cumsum(-1) - chances >= p, order)
    return _kept(log_p, outside.expand_as(log_p))


EXERCISE = Exercise(
    name="recaptioning.nucleus",
    title="Which words may be drawn",
    difficulty=3,
    minutes=20,
    statement="""
        A draw from all words now and then takes one that nobody would say, and the rest of the text must live with it.
        Cutting at a fixed number of words does not help: after "a small red" there are six shapes to choose from, after
        "on a black" there is one word. The *nucleus* (Holtzman et al. 2020, 1904.09751) cuts by chance instead: the
        smallest set of likeliest words that holds a share `p` of it.
        """,
    hints=(
        "Sort the words by chance. How much do the likelier words hold **before** this one? When is it still needed?",
        "A word is outside if the likelier ones hold p already. Find that out in sorted order, then bring the flags "
        "back to the words' own places, and make the rest sum to 1.",
        "best, order = log_p.sort(-1, descending=True); before = cumsum of the chances, less each one's own; "
        "flags.scatter(-1, order, flags) undoes the order.",
    ),
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,  # it chooses; nobody trains through a draw
    mistakes={
        "without_the_last": Mistake(without_the_last, "the word with which the sum reaches p is left out. Without it "
                                    "the set holds less than p."),
        "divided_by_p": Mistake(divided_by_p, "you divide by p. The words that are kept sum to p or more: divide by "
                                "their sum."),
        "one_too_many": Mistake(one_too_many, "you keep one word more than is needed: the smallest set ends with the "
                                "word that reaches p."),
        "each_by_itself": Mistake(each_by_itself, "you compare each word's chance with p. It is the sum over the "
                                  "likeliest words that has to reach it."),
        "share_of_the_best": Mistake(share_of_the_best, "you keep words that are at least p times as likely as the "
                                     "best. That is another rule (min-p); here the sum counts."),
        "the_unlikely_ones": Mistake(the_unlikely_ones, "you sum from the least likely word upwards: the nucleus "
                                     "begins with the likeliest."),
        "order_not_undone": Mistake(order_not_undone, "the flags are in the order of the chances and are laid on words "
                                    "in the vocabulary's order: bring them back first."),
        "order_applied_twice": Mistake(order_applied_twice, "you gather by the order once more instead of undoing it: "
                                       "scatter writes each flag where its word stands."),
        "still_sorted": Mistake(still_sorted, "you return the chances in sorted order. Each is to stay at its word."),
        "not_to_one_again": Mistake(not_to_one_again, "the chances that are left sum to less than 1: normalise again."),
        "chances_returned": Mistake(chances_returned, "you return chances. Asked are their logs."),
        "share_of_the_words": Mistake(share_of_the_words, "you keep a share p of the words. It is a share of the "
                                      "chance, and a sure row needs one word."),
        "one_nucleus_for_all_rows": Mistake(one_nucleus_for_all_rows, "all rows share one nucleus. Each has its own."),
    },
    compare="Compare what happens at p = 1, and at a p so small that one word is left: which search is that?",
)  # fmt: skip
