"""What each of the four models costs, by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(model: int, n_t: int, n_s: int, dim: int, layers: int, temporal: int) -> int:
    """How many multiply-adds the layers of a model (1 to 4, as in the paper) take for one film.

    n_t tubelets over time at each of n_s places, width dim, no class tokens. layers: how many the model has; model 2's
    spatial encoder has so many, and its temporal one `temporal` more, on one vector for each of the n_t, the mean of
    its tokens. The MLP is 4 dim wide. Counted are the products with matrices alone: the projections to queries, keys,
    values and to attention's output, the two products of attention, the MLP. Not counted: embedding, norms, biases,
    softmax, means, head.
    """
    raise NotImplementedError


def solution(model: int, n_t: int, n_s: int, dim: int, layers: int, temporal: int) -> int:
    """How many multiply-adds the layers of a model (1 to 4, as in the paper) take for one film."""

    def layer(tokens: int, keys: int, attentions: int = 1) -> int:
        """A layer on so many tokens, each of which asks so many keys."""
        return tokens * (4 * attentions + 8) * dim**2 + 2 * tokens * keys * dim

    n = n_t * n_s
    if model == 1:
        return layers * layer(n, n)
    if model == 2:
        return layers * layer(n, n_s) + temporal * layer(n_t, n_t)
    if model == 3:
        return layers * layer(n, n_s + n_t, attentions=2)
    return layers * layer(n, n_s + n_t) - layers * n * (n_s + n_t) * dim  # each key is asked by half of the heads


def cases() -> Iterator[Case]:
    for model in (1, 2, 3, 4):
        yield Case((model, 1, 1, 1, 1, 1), "one of everything")
        yield Case((model, 2, 3, 4, 1, 1), "one layer")
        yield Case((model, 16, 196, 768, 12, 4), "the paper's B/16x2")
    for k in range(16):
        sizes = [int(torch.randint(2, 12, ())) for _ in range(5)]
        yield Case((1 + k % 4, *sizes))


def _layer(tokens, keys, dim, attention=4, products=2, mlp=8):
    """A layer's multiply-adds; dim, attention and mlp as in 4 and 8 dim^2 a token, products as in Q K^T and times V."""
    return tokens * (attention + mlp) * dim**2 + products * tokens * keys * dim


def _all(**changes) -> Callable:
    """All four models, counted with another layer."""
    def count(model, n_t, n_s, dim, layers, temporal):
        n, c = n_t * n_s, {"attention": 4, "products": 2, "mlp": 8, **changes}
        if model == 1:
            return layers * _layer(n, n, dim, **c)
        if model == 2:
            return layers * _layer(n, n_s, dim, **c) + temporal * _layer(n_t, n_t, dim, **c)
        if model == 3:
            return layers * _layer(n, n_s + n_t, dim, **{**c, "attention": 2 * c["attention"]})
        return layers * (_layer(n, 0, dim, **c) + c["products"] * n * (n_s + n_t) * dim // 2)

    return count


def _for(number: int, otherwise: Callable) -> Callable:
    """The solution, but for one model: otherwise(n_t, n_s, dim, layers, temporal)."""
    return lambda model, *sizes: otherwise(*sizes) if model == number else solution(model, *sizes)


def flops(model, n_t, n_s, dim, layers, temporal):
    return 2 * solution(model, n_t, n_s, dim, layers, temporal)


def orders_alone(model, n_t, n_s, dim, layers, temporal):
    """The paper's O((n_h n_w)^2 + n_t^2) taken at its word: one frame, one place."""
    n = n_t * n_s
    if model == 1:
        return solution(1, n_t, n_s, dim, layers, temporal)
    if model == 2:
        return layers * (12 * n * dim**2 + 2 * n_s**2 * dim) + temporal * _layer(n_t, n_t, dim)
    share = 2 if model == 3 else 1
    return layers * (n * (16 if model == 3 else 12) * dim**2 + share * (n_s**2 + n_t**2) * dim)


MISTAKES = {
    "flops": (flops, "that is exactly twice as much: you count a multiplication and an addition as two. The paper's "
              "GFLOPs, and the question, are of multiply-adds."),
    "no_values": (_all(products=1), "one of attention's two products is missing: queries times keys, and what comes "
                  "of it times values."),
    "no_products": (_all(products=0), "attention's own two products are missing: n queries times their keys, and the "
                    "weights times as many values. They are what the four models differ in."),
    "no_projections": (_all(attention=0), "attention's four projections are missing: to queries, keys, values, and to "
                       "its output, dim x dim each, for each token."),
    "no_output_projection": (_all(attention=3), "one projection of attention is missing: beside queries, keys and "
                             "values there is the one to its output (W_O)."),
    "no_mlp": (_all(mlp=0), "the MLP is missing: two matrices of dim x 4 dim, for each token."),
    "narrow_mlp": (_all(mlp=2), "your MLP is as wide as the tokens. Between its two matrices it is 4 dim wide."),
    "half_an_mlp": (_all(mlp=4), "one of the MLP's two matrices is missing: dim x 4 dim, and 4 dim x dim."),
    "orders_alone": (orders_alone, "you take the paper's O((n_h n_w)^2 + n_t^2) at its word. Attention over space is "
                     "done in each of the n_t frames, and attention over time at each of the n_s places."),
    "one_projection_for_two": (_for(3, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, n_s + n_t, d)), "the four "
                               "projections of model 3 are counted once a layer. Its attention over time has its own: "
                               "that is why it has more parameters than model 1."),
    "two_mlps": (_for(3, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, n_s + n_t, d, attention=8, mlp=16)), "your "
                 "model 3 has an MLP behind each of its attentions. There is one for both (Eq. 6)."),
    "one_projection": (_all(attention=1), "three of attention's four projections are missing: to queries, keys, "
                       "values, and to its output."),
    "model_3_as_joint": (_for(3, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, 2 * n_t * n_s, d, attention=8)),
                         "in your model 3 every token asks all tokens, twice. Over space it asks the n_s of its frame, "
                         "over time the n_t of its place."),
    "every_head_asks_both": (_for(4, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, n_s + n_t, d)), "in your model 4 "
                             "every head asks over space and over time. Half of them do the one, half the other, and "
                             "each head is dim / heads wide."),
    "model_4_projects_twice": (_for(4, lambda n_t, n_s, d, k, m: k * (16 * n_t * n_s * d**2 + n_t * n_s * (n_s + n_t)
                                                                      * d)), "your model 4 has eight projections. Its "
                               "heads are of two kinds, but there is one attention, with four projections as model "
                               "1's: so it has as many parameters."),
    "time_over_all_tokens": (_for(2, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, n_s, d)
                                  + m * _layer(n_t * n_s, n_t, d)), "your temporal encoder works on every token. It "
                             "gets one vector for each of the n_t, and so costs next to nothing."),
    "no_temporal_encoder": (_for(2, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, n_s, d)), "model 2's temporal "
                            "encoder is missing: `temporal` layers on n_t vectors."),
    "space_in_one_frame": (_for(2, lambda n_t, n_s, d, k, m: k * _layer(n_s, n_s, d) + m * _layer(n_t, n_t, d)),
                           "model 2's spatial encoder reads one frame in your count. It reads each of the n_t."),
    "joint_in_space": (_for(2, lambda n_t, n_s, d, k, m: k * _layer(n_t * n_s, n_t * n_s, d) + m * _layer(n_t, n_t, d)),
                       "in your model 2's spatial encoder every token asks all tokens of the film. It asks the n_s of "
                       "its own frame."),
}  # fmt: skip

EXERCISE = Exercise(
    name="vivit.multiply_adds",
    title="What four models cost",
    difficulty=2,
    minutes=15,
    statement="""
        The paper's table 2 says 455 billion multiply-adds for model 1, and 284, 372 and 277 for the other three. Why
        does model 3, whose attention grows as model 4's does, save so little? And why is model 2 hardly dearer than
        no reading of time at all? Write the count down, from the sizes alone, and the answers stand in its terms. The
        number of heads does not come in (why not?).
        """,
    hints=(
        "Take one token of one layer. Through which matrices does it go? How many keys does it ask, and what does "
        "asking one cost?",
        "A token: 4 dim^2 for each attention's projections, 8 dim^2 for the MLP, and 2 dim for each key that it asks "
        "(once for the key, once for the value). How many keys are n_t n_s, n_s, n_s + n_t?",
        "With n = n_t n_s tokens: model 1 asks n keys; model 2's encoders n_s (of n tokens) and n_t (of n_t tokens); "
        "model 3 n_s + n_t, with 8 dim^2 of projections; model 4 half as many as that, with 4 dim^2.",
    ),
    compare="Compare: at which number of tokens do attention's products cost model 1 as much as all its matrices? "
            "Below that, what is there to save?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={name: Mistake(fn, says) for name, (fn, says) in MISTAKES.items()},
)
