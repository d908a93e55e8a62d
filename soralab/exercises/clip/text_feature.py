"""Where a text has been read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _feature_stub(states: Tensor, ids: Tensor, end: int) -> Tensor:
    """The feature of each text: states [batch, tokens, dim] and ids [batch, tokens] to [batch, dim].

    Attention was causal. A text is: start, its pieces, `end`, and then zeros; but zero is also the id of "!".
    """
    raise NotImplementedError


def _feature(states: Tensor, ids: Tensor, end: int) -> Tensor:
    """The feature of each text: states [batch, tokens, dim] and ids [batch, tokens] to [batch, dim]."""
    first = (ids == end).int().argmax(dim=1)  # argmax gives the first of equals
    return states[torch.arange(len(ids)), first]


def _last_of_all(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[:, -1]


def _first_token(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[:, 0]


def _mean_of_all(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states.mean(1)


def _mean_of_text(states: Tensor, ids: Tensor, end: int) -> Tensor:
    inside = torch.arange(ids.shape[1]) <= (ids == end).int().argmax(1, keepdim=True)
    return (states * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)


def _by_counting(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[torch.arange(len(ids)), (ids != 0).sum(1) - 1]


def _before_the_end(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[torch.arange(len(ids)), (ids == end).int().argmax(1) - 1]


def _first_rows(states: Tensor, ids: Tensor, end: int) -> Tensor:
    return states[0, (ids == end).int().argmax(1)]


FEATURE_MISTAKES = (
    (_last_of_all, "you take the last place, which is padding for all but the longest texts. Take the place of `end`."),
    (_first_token, "you take the first place, as a ViT does. Attention is causal here: the first token has seen "
     "nothing but itself, and is the same for all texts."),
    (_mean_of_all, "you average over all places, the padding too. A text would change with what stands behind it."),
    (_mean_of_text, "you average over the text. CLIP reads one place: `end`, the only one that has seen all of it."),
    (_by_counting, "you count the ids that are not zero. Zero is a piece as well (\"!\"): find `end` itself."),
    (_before_the_end, "you are one place early: the state at `end` itself is the feature."),
    (_first_rows, "every text reads from the first row of the batch. Index both axes: states[torch.arange(n), place]."),
)  # fmt: skip


def _feature_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    end = 30
    ids = torch.tensor(
        [[29, 4, 5, 30, 0, 0, 0], [29, 7, 0, 8, 9, 30, 0], [29, 0, 0, 30, 0, 0, 0], [29, 30, 0, 0, 0, 0, 0]]
    )
    states = numbers(4, 7, 6, seed=5)
    got, want = fn(states, ids, end), _feature(states, ids, end)
    yield isinstance(got, Tensor), "the result is no tensor."
    yield got.shape == want.shape, f"the result is {list(got.shape)}; it takes {list(want.shape)}, one row a text."
    for mistake, says in FEATURE_MISTAKES:
        yield same(got, want) or not same(got, mistake(states, ids, end)), says
    yield same(got, want), "the numbers are not those of the state at each text's `end`."


EXERCISE = Exercise(
    name="clip.text_feature",
    title="Where a text has been read",
    difficulty=1,
    minutes=10,
    statement="""
        A ViT reads its answer at the class token, which stands in front and sees all patches. CLIP's text tower is
        causal, so a token in front sees nothing. The token at the end has seen everything: its state is the feature.
        The texts of a batch end at different places.
        """,
    hints=(
        "Which single place has seen the whole text, and nothing behind it?",
        "(ids == end) is True there. argmax of a row of zeros and ones gives the first one's place; torch cannot take "
        "the argmax of booleans.",
        "first = (ids == end).int().argmax(dim=1), and then one index for the row, one for the place: "
        "torch.arange(len(ids)) and first.",
    ),
    stub=_feature_stub,
    solution=_feature,
    check=_feature_check,
    wrong={
        "last_place": WrongAnswer(_last_of_all, "the last place"),
        "first_place": WrongAnswer(_first_token, "as a ViT does"),
        "mean_of_all": WrongAnswer(_mean_of_all, "the padding too"),
        "mean_of_text": WrongAnswer(_mean_of_text, "CLIP reads one place"),
        "by_counting": WrongAnswer(_by_counting, "Zero is a piece as well"),
        "one_early": WrongAnswer(_before_the_end, "one place early"),
        "first_row": WrongAnswer(_first_rows, "the first row of the batch"),
    },
)
