"""Who may see whom."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def _stub(queries: int, keys: int) -> Tensor:
    """[queries, keys], bool: True where a query may attend to a key. The queries are the last words of the keys."""
    raise NotImplementedError


def _mask(queries: int, keys: int) -> Tensor:
    """[queries, keys], bool: True where a query may attend to a key. The queries are the last words of the keys."""
    place = torch.arange(keys - queries, keys)  # of the queries in the sentence
    return torch.arange(keys)[None, :] <= place[:, None]


def _cases() -> Iterator[Case | tuple]:
    yield Case((1, 1), "the first word of all")
    yield Case((1, 3), "one new word, as in writing")
    yield (2, 5)
    yield Case((4, 4), "all words at once, as in training")
    for keys in torch.randint(6, 30, (5,)).tolist():
        yield (int(torch.randint(2, keys, ())), keys)


def _ones(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool)


EXERCISE = Exercise(
    name="transformer.causal_mask",
    title="Who may see whom",
    difficulty=1,
    minutes=10,
    statement="""
        The decoder's mask (section 3.2.3). When a translation is written word by word, keys and values of the earlier
        words are kept, and only the newest words ask. So the mask need not be square: with 5 keys and 2 queries, the
        queries are words 3 and 4 of a sentence whose words are numbered 0 to 4. A word may see itself and those before
        it.
        """,
    hints=(
        "Draw the square mask of five words first. Which of its rows are the last two queries'?",
        "Give each query its place in the sentence, each key its own, and compare: key's place <= query's place.",
        "torch.arange(keys)[None, :] <= torch.arange(keys - queries, keys)[:, None]",
    ),
    stub=_stub,
    solution=_mask,
    cases=_cases,
    mistakes={
        "inverted": Mistake(lambda queries, keys: ~_mask(queries, keys),
                            "it is inverted. True means may attend, and a word may attend to those before it."),
        "off_by_one": Mistake(lambda queries, keys: _ones(queries, keys).tril(keys - queries - 1),
                              "off by one diagonal: a word does not see itself, so the first sees nothing at all. Its "
                              "input is the word before the one that is to be said: looking at it gives nothing away."),
        "one_too_far": Mistake(lambda queries, keys: _ones(queries, keys).tril(keys - queries + 1),
                               "off by one diagonal: a word also sees the one after it, the very word that it is to "
                               "say."),
        "transposed": Mistake(lambda queries, keys: _ones(queries, keys).triu(keys - queries),
                              "words see themselves and those *after* them. Rows are the queries, columns the keys."),
        "square_only": Mistake(lambda queries, keys: _ones(queries, keys).tril(),
                               "right for as many queries as keys only. The queries are the last words of the "
                               "sentence, so the first of them stands at place keys − queries, not at place 0."),
        "all_see_all": Mistake(_ones, "every query sees every key: also those that stand after it."),
        "for_the_logits": Mistake(
            lambda queries, keys: torch.zeros(queries, keys).masked_fill(~_mask(queries, keys), -torch.inf),
            "numbers to be added to the logits, 0 and −∞, are another convention. The course's masks are bool."),
    },
    compare="Compare the row of a single query: does it need a mask at all?",
)  # fmt: skip
