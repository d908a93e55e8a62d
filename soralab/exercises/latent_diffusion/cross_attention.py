"""How words reach a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _attend_stub(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    """Cross-attention with one head: what each place of a picture reads in a prompt, [batch, places, d].

    z [batch, places, dim], words [batch, m, context]; W_Q [d, dim], W_K and W_V [d, context] are applied as
    x @ W.T. mask [batch, m] is True where there is a word; padding is not read.
    """
    raise NotImplementedError


def _attend(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    """Cross-attention with one head: what each place of a picture reads in a prompt, [batch, places, d]."""
    Q, K, V = z @ W_Q.T, words @ W_K.T, words @ W_V.T
    scores = Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5  # [batch, places, m]
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    return weights @ V


def _scores(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor) -> Tensor:
    return (z @ W_Q.T) @ (words @ W_K.T).transpose(1, 2) / len(W_Q) ** 0.5


def _not_scaled(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q * len(W_Q) ** 0.5, W_K, W_V, mask)


def _scaled_by_d(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q / len(W_Q) ** 0.5, W_K, W_V, mask)


def _over_places(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    weights = _scores(z, words, W_Q, W_K).softmax(1) * mask[:, None]
    return weights @ (words @ W_V.T)


def _mask_ignored(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q, W_K, W_V, torch.ones_like(mask))


def _mask_upside_down(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    scores = _scores(z, words, W_Q, W_K).masked_fill(mask[:, None], -1e9)
    return scores.softmax(-1) @ (words @ W_V.T)


def _masked_after(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _scores(z, words, W_Q, W_K).softmax(-1) * mask[:, None] @ (words @ W_V.T)


def _masked_by_zero(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return (_scores(z, words, W_Q, W_K) * mask[:, None]).softmax(-1) @ (words @ W_V.T)


def _keys_are_values(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q, W_K, W_K, mask)


def _words_ask(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return ((words @ W_K.T) @ (z @ W_Q.T).transpose(1, 2) / len(W_Q) ** 0.5).softmax(-1) @ (z @ W_Q.T)


ATTEND_MISTAKES = (  # in the order in which they are asked for
    (_not_scaled, "the scores are not divided by sqrt(d): with a wide head one word takes everything."),
    (_scaled_by_d, "the scores are divided by d. The deviation of a sum of d products is sqrt(d)."),
    (_over_places, "your softmax runs over the places of the picture. Each place shares out its attention among the "
     "words: over the last axis the weights sum to 1."),
    (_mask_ignored, "padding is read: the mask is not used. A prompt would mean another thing in a longer batch."),
    (_mask_upside_down, "the mask is upside down: True means that there is a word to read."),
    (_masked_after, "you strike out the padding after the softmax, so the weights no longer sum to 1. Before it, with "
     "-inf."),
    (_masked_by_zero, "you set the scores of padding to 0. The softmax makes exp(0) = 1 of that: use -inf."),
    (_keys_are_values, "the values come out of W_K. What a word is found by and what it says are two things."),
)  # fmt: skip


def _attend_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for places, m, d in ((6, 4, 8), (4, 4, 4), (5, 3, 2)):
        z, words = numbers(2, places, 5), numbers(2, m, 7, seed=1)
        matrices = numbers(d, 5, seed=2), numbers(d, 7, seed=3), numbers(d, 7, seed=4)
        mask = torch.arange(m)[None] < torch.tensor([[m], [m - 2]])
        given = z, words, *matrices, mask
        got, want, case = fn(*given), _attend(*given), f"{places} places, {m} words, d = {d}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        wrong_way = got.shape == (2, m, d) and (m != places or same(got, _words_ask(*given)))
        yield not wrong_way or got.shape == want.shape and same(got, want), (
            f"{case}: the words ask and the picture answers. Q comes from the picture: one row of the result a place.")
        yield got.shape == want.shape, f"{case}: the result is {[*got.shape]}; it takes {[*want.shape]}."
        yield bool(got.isfinite().all()), f"{case}: there are values that are not finite in the result."
        for mistake, says in ATTEND_MISTAKES:
            yield same(got, want) or not same(got, mistake(*given)), f"{case}: {says}"
        yield same(got, want), f"{case}: the numbers differ from softmax(Q K^T / sqrt(d)) V."


EXERCISE = Exercise(
    name="latent_diffusion.cross_attention",
    title="How words reach a picture",
    difficulty=2,
    minutes=15,
    statement="""
        Section 3.3. The places of the picture ask, the words of the prompt answer: Q comes from the U-Net, K and V come
        from the encoded prompt. One head, no biases. Prompts differ in length, so they come with a mask.
        """,
    hints=(
        "How many rows must the result have: one for each word, or one for each place?",
        "softmax(Q K^T / sqrt(d)) V, the softmax over the words. Padding must get a weight of exactly 0, and the "
        "others must still sum to 1.",
        "Q = z @ W_Q.T, K = words @ W_K.T, V = words @ W_V.T; scores [batch, places, m]; "
        "masked_fill(~mask[:, None], -inf) before the softmax; then times V.",
    ),
    stub=_attend_stub,
    solution=_attend,
    check=_attend_check,
    wrong={
        "words_ask": WrongAnswer(_words_ask, "the words ask and the picture answers"),
        "not_scaled": WrongAnswer(_not_scaled, "not divided by sqrt(d)"),
        "scaled_by_d": WrongAnswer(_scaled_by_d, "are divided by d"),
        "softmax_over_places": WrongAnswer(_over_places, "over the places of the picture"),
        "mask_ignored": WrongAnswer(_mask_ignored, "padding is read"),
        "mask_upside_down": WrongAnswer(_mask_upside_down, "upside down"),
        "masked_after": WrongAnswer(_masked_after, "no longer sum to 1"),
        "masked_by_zero": WrongAnswer(_masked_by_zero, "exp(0) = 1"),
        "keys_are_values": WrongAnswer(_keys_are_values, "two things"),
    },
)
