"""How likely a caption is to be said of a picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake

PAD, END = 0, 2


def stub(logits: Tensor, target: Tensor) -> Tensor:
    """log P(t | i) of each caption, Eq. (2): [batch].

    logits [batch, words, vocabulary]: those at place j are for target[:, j], given all words before it and the picture.
    target [batch, words]: each row ends with id 2, the end, which is said as any word is; behind it there is padding,
    id 0, which is not.
    """
    raise NotImplementedError


def solution(logits: Tensor, target: Tensor) -> Tensor:
    """log P(t | i) of each caption: [batch]."""
    said = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
    return said.masked_fill(target == 0, 0.0).sum(-1)


def _captions(lengths: list[int], vocabulary: int) -> Tensor:
    """Random captions of these lengths, END not counted, with padding behind."""
    target = torch.zeros(len(lengths), max(lengths) + 1, dtype=torch.long)
    for row, length in zip(target, lengths, strict=True):
        row[:length] = torch.randint(3, vocabulary, (length,))
        row[length] = END
    return target


def _case(lengths: list[int], vocabulary: int, scale: float = 2.0, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    target = _captions(lengths, vocabulary)
    return scale * torch.randn(*target.shape, vocabulary, dtype=dtype), target


def cases() -> Iterator[Case]:
    yield Case(_case([1], 5), "one word and the end")
    yield Case(_case([3, 3], 6), "two captions of one length")
    yield Case(_case([2, 5, 1], 8), "captions of different lengths")
    yield Case(_case([0, 2], 5), "a caption of no words, only the end")
    yield Case(_case([5], 5), "as many words as the vocabulary has")
    yield Case(_case([4, 6], 7, 40.0), "large logits, a very unlikely caption")
    yield Case(_case([60, 60], 30), "long captions, whose P is less than float32 can hold")
    logits, target = _case([3, 2], 6)
    yield Case((logits + 100, target), "logits that are all far above zero")
    yield Case(_case([2, 3], 9, 2.0, torch.float64), "float64")
    yield Case(_case(torch.randint(0, 9, (5,)).tolist(), 11))


def _words(logits: Tensor, target: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, target[..., None])[..., 0].masked_fill(target == PAD, 0.0)


def mean_of_words(logits, target):
    return _words(logits, target).sum(-1) / (target != PAD).sum(-1)


def with_padding(logits, target):
    return logits.log_softmax(-1).gather(-1, target[..., None])[..., 0].sum(-1)


def without_the_end(logits, target):
    return _words(logits, target).masked_fill(target == END, 0.0).sum(-1)


def of_the_batch(logits, target):
    return _words(logits, target).sum().expand(len(target))


def mean_of_the_batch(logits, target):
    return _words(logits, target).sum(-1).mean().expand(len(target))


def turned_round(logits, target):
    return -_words(logits, target).sum(-1)


def not_normalised(logits, target):
    return logits.gather(-1, target[..., None])[..., 0].masked_fill(target == PAD, 0.0).sum(-1)


def over_the_places(logits, target):
    said = logits.log_softmax(1).gather(-1, target[..., None])[..., 0]
    return said.masked_fill(target == PAD, 0.0).sum(-1)


def probabilities_multiplied(logits, target):
    p = logits.float().softmax(-1).gather(-1, target[..., None])[..., 0]  # in float32, as the reader's are
    return p.masked_fill(target == PAD, 1.0).prod(-1).log()


def probabilities_added(logits, target):
    p = logits.softmax(-1).gather(-1, target[..., None])[..., 0]
    return p.masked_fill(target == PAD, 0.0).sum(-1).log()


def shifted_again(logits, target):
    said = logits[:, :-1].log_softmax(-1).gather(-1, target[:, 1:, None])[..., 0]
    return said.masked_fill(target[:, 1:] == PAD, 0.0).sum(-1)


def likeliest_words(logits, target):
    return logits.log_softmax(-1).amax(-1).masked_fill(target == PAD, 0.0).sum(-1)


def first_word_left_out(logits, target):
    return _words(logits, target)[:, 1:].sum(-1)


EXERCISE = Exercise(
    name="recaptioning.log_p",
    title="How likely is this caption?",
    difficulty=2,
    minutes=15,
    statement="""
        A captioner does not only write. It says of **any** text how likely it is for a picture: Eq. (2), the sum of
        what it foretells, word by word. So it can be asked which of two captions is the better one, and that is a
        question at which CLIP failed in chapter 04. The training loss will not do: it is a mean over a whole batch.
        """,
    hints=(
        "How many numbers of the table [words, vocabulary] does one caption look up? And which of its ids are words?",
        "log_softmax over the vocabulary, then gather the target's ids. The end is one of the words: a caption that "
        "stops too early must pay for it. Padding is none.",
        "said = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]; what belongs to padding becomes 0 before "
        "the sum over places.",
    ),
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "mean_of_words": Mistake(mean_of_words, "you take the mean over words. log P of a text is the sum; the mean "
                                 "would call a long caption as likely as a short one of equal words."),
        "with_padding": Mistake(with_padding, "padding is counted. What stands behind the end was never said; a short "
                                "caption would pay for its neighbour's length."),
        "without_the_end": Mistake(without_the_end, "the end is left out. It is said as any word is; without it a "
                                   "caption may stop anywhere for nothing."),
        "of_the_batch": Mistake(of_the_batch, "you sum over all captions. Each has a log P of its own: [batch]."),
        "mean_of_the_batch": Mistake(mean_of_the_batch, "you give the batch's mean to all of them. Each has a log P of "
                                     "its own: [batch]."),
        "turned_round": Mistake(turned_round, "the sign is the loss's: log P is below zero, and likelier is larger."),
        "not_normalised": Mistake(not_normalised, "you add logits. They are log P up to a constant that differs from "
                                  "place to place: log_softmax first."),
        "over_the_places": Mistake(over_the_places, "the softmax runs over the places of the text. At each place it is "
                                   "the words of the vocabulary that compete: the last dimension."),
        "probabilities_multiplied": Mistake(probabilities_multiplied, "right for short captions. The product of many "
                                            "probabilities is less than float32 can hold: add their logs."),
        "probabilities_added": Mistake(probabilities_added, "you add probabilities. That all of the words come is the "
                                       "product, and its log the sum of logs."),
        "shifted_again": Mistake(shifted_again, "you shift once more. The decoder has read START and all words but the "
                                 "last, so the logits at place j are for target[:, j] already."),
        "likeliest_words": Mistake(likeliest_words, "you look up the likeliest word at each place, and not the "
                                   "caption's."),
        "first_word_left_out": Mistake(first_word_left_out, "the first word is left out: it is foretold too, from the "
                                       "start and the picture."),
    },
    compare="Compare what the picture adds: log P(t | i) less log P of t for a picture of anything else.",
)  # fmt: skip
