"""Who may see whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import is_tensor
from soralab.workbook.task import Exercise, WrongAnswer


def _mask_stub(queries: int, keys: int) -> Tensor:
    """[queries, keys], bool: True where a query may attend to a key. The queries are the last words of the keys."""
    raise NotImplementedError


def _mask(queries: int, keys: int) -> Tensor:
    """[queries, keys], bool: True where a query may attend to a key. The queries are the last words of the keys."""
    place = torch.arange(keys - queries, keys)  # of the queries in the sentence
    return torch.arange(keys)[None, :] <= place[:, None]


def _mask_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for queries, keys in ((4, 4), (2, 5), (1, 3), (1, 1)):
        case = f"{queries} queries, {keys} keys"
        got, right = fn(queries, keys), _mask(queries, keys)
        yield from is_tensor(got, (queries, keys), case)
        yield (
            got.dtype == torch.bool,
            f"{case}: the mask holds {str(got.dtype).removeprefix('torch.')}. The course's masks are bool; numbers to "
            "be added to the logits, 0 and -inf, are another convention.",
        )
        yield (
            torch.equal(got, right) or not torch.equal(got, ~right),
            f"{case}: it is inverted. True means may attend, and a word may attend to those before it.",
        )
        strict = right & (torch.arange(keys)[None, :] < torch.arange(keys - queries, keys)[:, None])
        yield (
            torch.equal(got, right) or not torch.equal(got, strict),
            f"{case}: off by one diagonal: a word does not see itself, so the first sees nothing at all. Its input is "
            "the word before the one that is to be said: looking at it gives nothing away.",
        )
        yield (
            torch.equal(got, right) or not torch.equal(got, torch.ones(queries, keys, dtype=torch.bool).triu()),
            f"{case}: it is transposed: words see those after them. Rows are the queries, columns the keys.",
        )
        yield (
            torch.equal(got, right) or not torch.equal(got, torch.ones(queries, keys, dtype=torch.bool).tril()),
            f"{case}: right for as many queries as keys only. Here the queries are the last words of the sentence, so "
            f"the first of them stands at place {keys - queries}, not at place 0.",
        )
        yield torch.equal(got, right), f"{case}: got {got.int().tolist()}, it should be {right.int().tolist()}."


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
    stub=_mask_stub,
    solution=_mask,
    check=_mask_check,
    wrong={
        "inverted": WrongAnswer(lambda queries, keys: ~_mask(queries, keys), "it is inverted"),
        "off_by_one": WrongAnswer(
            lambda queries, keys: torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - 1),
            "off by one diagonal",
        ),
        "transposed": WrongAnswer(
            lambda queries, keys: torch.ones(queries, keys, dtype=torch.bool).triu(), "it is transposed"
        ),
        "square_only": WrongAnswer(
            lambda queries, keys: torch.ones(queries, keys, dtype=torch.bool).tril(), "the last words of the sentence"
        ),
        "for_the_logits": WrongAnswer(
            lambda queries, keys: torch.zeros(queries, keys).masked_fill(~_mask(queries, keys), -torch.inf),
            "another convention",
        ),
    },
)
