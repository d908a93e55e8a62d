"""Which place reads which word."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(
    z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """Cross-attention: what each place reads [batch, places, heads * d], and with which weights [batch, heads, places,
    m].

    z [batch, places, dim], words [batch, m, context]; W_Q [heads * d, dim], W_K and W_V [heads * d, context] are
    applied as x @ W.T, and the first d rows of each are the first head's. mask [batch, m] is True where there is a
    word, at least one a prompt; what is padding gets the weight 0.
    """
    raise NotImplementedError


def solution(
    z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """What each place reads [batch, places, heads * d], and with which weights [batch, heads, places, m]."""
    Q, K, V = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (z @ W_Q.T, words @ W_K.T, words @ W_V.T))
    scores = Q @ K.transpose(-1, -2) / Q.shape[-1] ** 0.5  # [batch, heads, places, m]
    weights = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
    return rearrange(weights @ V, "b h n d -> b n (h d)"), weights


def _draw(batch: int, places: int, m: int, heads: int, d: int, dim: int, context: int, factor: float = 1.0,
          dtype: torch.dtype = torch.float32) -> tuple:
    mask = torch.rand(batch, m) < 0.6
    mask[torch.arange(batch), torch.randint(m, (batch,))] = True
    matrices = factor * torch.randn(heads * d, dim, dtype=dtype), *torch.randn(2, heads * d, context, dtype=dtype)
    return torch.randn(batch, places, dim, dtype=dtype), torch.randn(batch, m, context, dtype=dtype), *matrices, mask, \
        heads


def cases() -> Iterator[Case]:
    yield Case(_draw(1, 1, 1, 1, 1, 1, 1), "one place, one word")
    z, words, W_Q, W_K, W_V, _, heads = _draw(1, 2, 3, 1, 4, 2, 2)
    yield Case((z, words, W_Q, W_K, W_V, torch.ones(1, 3, dtype=torch.bool), heads), "one head, no padding")
    yield Case((z, words, W_Q, W_K, W_V, torch.tensor([[False, True, True]]), heads), "padding in front")
    yield Case(_draw(2, 4, 4, 4, 4, 4, 4), "all sides alike")
    for _ in range(4):
        yield Case(_draw(*torch.randint(2, 7, (7,)).tolist()), "any sides, any padding")
    yield Case(_draw(2, 3, 5, 2, 4, 6, 6, 60.0), "scores in the hundreds")
    yield Case(_draw(2, 5, 3, 2, 3, 4, 6, dtype=torch.float64), "float64")


def _weights(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, heads: int) -> Tensor:
    Q, K = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (z @ W_Q.T, words @ W_K.T))
    return Q @ K.transpose(-1, -2) / Q.shape[-1] ** 0.5


def _read(weights: Tensor, words: Tensor, W_V: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    V = rearrange(words @ W_V.T, "b m (h d) -> b h m d", h=heads)
    return rearrange(weights @ V, "b h n d -> b n (h d)"), weights


def not_scaled(z, words, W_Q, W_K, W_V, mask, heads):
    return solution(z, words, W_Q * (len(W_Q) / heads) ** 0.5, W_K, W_V, mask, heads)


def scaled_by_d(z, words, W_Q, W_K, W_V, mask, heads):
    return solution(z, words, W_Q / (len(W_Q) / heads) ** 0.5, W_K, W_V, mask, heads)


def scaled_by_all(z, words, W_Q, W_K, W_V, mask, heads):
    return solution(z, words, W_Q / heads**0.5, W_K, W_V, mask, heads)


def one_head(z, words, W_Q, W_K, W_V, mask, heads):
    read, weights = solution(z, words, W_Q, W_K, W_V, mask, 1)
    return read, weights.expand(-1, heads, -1, -1)


def heads_of_places(z, words, W_Q, W_K, W_V, mask, heads):
    def cut(x: Tensor) -> Tensor:
        return x.reshape(len(x), heads, x.shape[1], -1)

    scores = cut(z @ W_Q.T) @ cut(words @ W_K.T).transpose(-1, -2) / (len(W_Q) / heads) ** 0.5
    weights = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
    return (weights @ cut(words @ W_V.T)).reshape(*z.shape[:2], -1), weights


def heads_interleaved(z, words, W_Q, W_K, W_V, mask, heads):
    order = torch.arange(len(W_Q)).reshape(-1, heads).T.reshape(-1)
    read, weights = solution(z, words, W_Q[order], W_K[order], W_V[order], mask, heads)
    return read[..., order.argsort()], weights


def not_put_back(z, words, W_Q, W_K, W_V, mask, heads):
    read, weights = solution(z, words, W_Q, W_K, W_V, mask, heads)
    return rearrange(read, "b n (h d) -> b h n d", h=heads).reshape(read.shape), weights


def over_places(z, words, W_Q, W_K, W_V, mask, heads):
    weights = _weights(z, words, W_Q, W_K, heads).softmax(-2) * mask[:, None, None]
    return _read(weights, words, W_V, heads)


def mask_ignored(z, words, W_Q, W_K, W_V, mask, heads):
    return solution(z, words, W_Q, W_K, W_V, torch.ones_like(mask), heads)


def mask_upside_down(z, words, W_Q, W_K, W_V, mask, heads):
    return solution(z, words, W_Q, W_K, W_V, ~mask, heads)


def mask_upside_down_finite(z, words, W_Q, W_K, W_V, mask, heads):
    scores = _weights(z, words, W_Q, W_K, heads).masked_fill(mask[:, None, None], -1e9)
    return _read(scores.softmax(-1), words, W_V, heads)


def masked_after(z, words, W_Q, W_K, W_V, mask, heads):
    return _read(_weights(z, words, W_Q, W_K, heads).softmax(-1) * mask[:, None, None], words, W_V, heads)


def masked_by_zero(z, words, W_Q, W_K, W_V, mask, heads):
    return _read((_weights(z, words, W_Q, W_K, heads) * mask[:, None, None]).softmax(-1), words, W_V, heads)


def keys_are_values(z, words, W_Q, W_K, W_V, mask, heads):
    return solution(z, words, W_Q, W_K, W_K, mask, heads)


def naive(z, words, W_Q, W_K, W_V, mask, heads):
    grown = _weights(z, words, W_Q, W_K, heads).float().exp() * mask[:, None, None]  # in float32, as the reader's are
    return _read((grown / grown.sum(-1, keepdim=True)).to(z.dtype), words, W_V, heads)


UPSIDE_DOWN = "the mask is upside down: True means that there is a word to read."
EXERCISE = Exercise(
    name="latent_diffusion.cross_attention",
    title="Which place reads which word",
    difficulty=2,
    minutes=15,
    statement="""
        The page's formula has one head and no padding; the painter has four, and prompts differ in length. The places
        ask, the words answer, and each head does so on its own d channels. Return what is read *and* the weights: with
        them the next cell shows where in the picture each word is read, by the painter itself, which paints with your
        function.
        """,
    hints=(
        "Which channels belong to the first head, and how does the axis of heads come to stand beside the batch "
        "without a place's channels being mixed with another's?",
        "Split the last axis into (heads, d), then move heads in front of places. Afterwards the way back. The softmax "
        "runs over the words; padding is at minus infinity before it.",
        'rearrange(x, "b n (h d) -> b h n d", h=heads) of Q, K and V; the mask as mask[:, None, None]; divide by the '
        "root of one head's d.",
    ),
    compare="Compare: how would yours and the course's own answer to a prompt of padding alone?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "one_head": Mistake(one_head, "all channels are compared as one head. Every head has d of them, and weights of "
                            "its own."),
        "heads_of_places": Mistake(heads_of_places, "a reshape straight to [batch, heads, n, d] cuts up the rows of "
                                   "places, not their channels. Split the last axis into (heads, d), then transpose."),
        "heads_interleaved": Mistake(heads_interleaved, "your heads take every heads-th channel. The first d channels "
                                     "are the first head's: the trained weights count on it."),
        "not_put_back": Mistake(not_put_back, "right weights, but before the heads are laid side by side again their "
                                "axis must move back behind the places: transpose, then reshape."),
        "not_scaled": Mistake(not_scaled, "the scores are not divided by sqrt(d): with a wide head one word takes "
                              "everything."),
        "scaled_by_d": Mistake(scaled_by_d, "the scores are divided by d. The deviation of a sum of d products is "
                               "sqrt(d)."),
        "scaled_by_all": Mistake(scaled_by_all, "you divide by the root of all channels. A score is a sum over those "
                                 "of one head: sqrt(d)."),
        "over_places": Mistake(over_places, "your softmax runs over the places. Each place shares out its attention "
                               "among the words: over the last axis the weights sum to 1."),
        "mask_ignored": Mistake(mask_ignored, "padding is read: the mask changes nothing. A prompt would mean another "
                                "thing in a longer batch."),
        "mask_upside_down": Mistake(mask_upside_down, UPSIDE_DOWN),
        "mask_upside_down_finite": Mistake(mask_upside_down_finite, UPSIDE_DOWN),
        "masked_after": Mistake(masked_after, "you strike out the padding after the softmax, so the weights no longer "
                                "sum to 1. Before it, with minus infinity."),
        "masked_by_zero": Mistake(masked_by_zero, "you set the scores of padding to 0. The softmax makes exp(0) = 1 of "
                                  "that; minus infinity gives 0."),
        "keys_are_values": Mistake(keys_are_values, "the values come out of W_K. What a word is found by and what it "
                                   "says are two things."),
        "naive": Mistake(naive, "right as long as scores are small: in float32 exp(100) is infinite. Subtract each "
                         "row's largest first, as torch's softmax does."),
    },
)  # fmt: skip
