"""What a ViT holds: 86 million, by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(image: int, patch: int, channels: int, dim: int, depth: int, classes: int) -> int:
    """The number of a ViT's parameters, from its sizes alone. The MLP is 4 dim wide, the head one linear layer."""
    raise NotImplementedError


def solution(image: int, patch: int, channels: int, dim: int, depth: int, classes: int) -> int:
    """The number of a ViT's parameters, from its sizes alone. The MLP is 4 dim wide, the head one linear layer."""
    embed = (patch * patch * channels + 1) * dim
    tokens = 1 + (image // patch) ** 2
    norm = 2 * dim  # a scale and a shift
    attention = 4 * (dim + 1) * dim  # queries, keys, values, and what mixes the heads' results
    mlp = (dim + 1) * 4 * dim + (4 * dim + 1) * dim
    head = (dim + 1) * classes
    return embed + dim + tokens * dim + depth * (2 * norm + attention + mlp) + norm + head


def cases() -> Iterator[Case]:
    yield Case((4, 4, 1, 2, 1, 2), "one patch, one layer")
    yield Case((224, 16, 3, 768, 12, 1000), "B/16")
    yield Case((384, 16, 3, 768, 12, 1000), "B/16 at 384")
    yield Case((224, 14, 3, 1280, 32, 1000), "H/14")
    for _ in range(4):
        patch, side, channels, eighth, depth, classes = (int(torch.randint(2, 9, ())) for _ in range(6))
        yield Case((patch * side, patch, channels, 8 * eighth, depth, classes))


def _off_by(error: Callable) -> Callable:
    return lambda *sizes: solution(*sizes) + error(*sizes)


MISTAKES = {
    "no_positions": (lambda i, p, c, d, n, k: -(1 + (i // p) ** 2) * d, "the positions are missing. They are learned "
                     "too: one vector of width D for each token."),
    "d_numbers_missing": (lambda i, p, c, d, n, k: -d, "D numbers are missing. Three things have D of them: the class "
                          "token, its own position (there are N + 1) and the bias of E. Which did you forget?"),
    "2_d_numbers_missing": (lambda i, p, c, d, n, k: -2 * d, "2 D numbers are missing. Eq. (4) has a norm of its own, "
                            "behind the last layer; the class token with its position has as many. Which is it?"),
    "grey": (lambda i, p, c, d, n, k: -(c - 1) * p * p * d, "E is too small: a patch has colours, P * P * C numbers."),
    "no_output_projection": (lambda i, p, c, d, n, k: -n * (d + 1) * d, "one matrix a layer is missing: after queries, "
                             "keys and values attention has a fourth, which mixes what the heads have gathered."),
    "no_biases": (lambda i, p, c, d, n, k: -(d + 9 * n * d + k), "all biases are missing: E has one, the head, each of "
                  "attention's four matrices and both of the MLP's."),
    "4_d_numbers_a_layer_missing": (lambda i, p, c, d, n, k: -n * 4 * d, "4 D numbers a layer are missing. The biases "
                                    "of attention's four matrices are as many, so are the two norms of a layer, and so "
                                    "is the bias of the MLP's first matrix. Which is it?"),
    "no_biases_in_the_mlp": (lambda i, p, c, d, n, k: -n * 5 * d, "5 D numbers a layer are missing: the MLP's biases, "
                             "4 D of the first matrix and D of the second."),
    "scales_alone": (lambda i, p, c, d, n, k: -(2 * n + 1) * d, "the norms have half their numbers: each has D scales "
                     "and D shifts."),
    "no_norms": (lambda i, p, c, d, n, k: -(2 * n + 1) * 2 * d, "the norms are missing, two a layer and the last one: "
                 "each has a scale and a shift, 2 D numbers."),
    "one_norm_a_layer": (lambda i, p, c, d, n, k: -n * 2 * d, "2 D numbers a layer are missing: a layer has two norms, "
                         "one before each half, and each has a scale and a shift."),
    "narrow_mlp": (lambda i, p, c, d, n, k: -n * (6 * d * d + 3 * d), "the MLP is as wide as the tokens. Between its "
                   "two matrices it is four times as wide."),
    "no_head": (lambda i, p, c, d, n, k: -(d + 1) * k, "the head is missing: D + 1 numbers a class."),
    "no_bias_in_the_head": (lambda i, p, c, d, n, k: -k, "one number a class is missing: the head has a bias."),
    "tanh_layer_too": (lambda i, p, c, d, n, k: (d + 1) * d, "the tanh layer of pre-training is counted too. The head "
                       "here is one linear layer."),
    "for_each_head": (lambda i, p, c, d, n, k: n * 11 * 3 * (d + 1) * d, "queries, keys and values are counted once "
                      "for each of 12 heads. The heads share them: each has D / heads of their rows."),
}  # fmt: skip

EXERCISE = Exercise(
    name="vit.count_parameters",
    title="86 million, by hand",
    difficulty=2,
    minutes=15,
    statement="""
        B/16 with a head for 1,000 classes has 86,567,656 parameters. (Table 1's 86 million are of the model with its
        tanh layer and without that head.) Account for every one of them, from Eqs. (1) to (4). Every linear layer has
        a bias, which the equations leave out, E and attention's four included; a LayerNorm has a scale and a shift. The
        sizes come in as numbers; the number of heads does not (why not?).
        """,
    hints=(
        "Go through the equations from left to right and write down each thing that is learned, with its shape.",
        "A linear layer from a to b has (a + 1) b numbers, a LayerNorm 2 D. Four linear layers make attention, two the "
        "MLP. Do not forget what has no equation of its own: biases, the class token, the last norm.",
        "embed (P P C + 1) D; class token D; positions (N + 1) D; each layer 2 * 2 D + 4 (D + 1) D + (D + 1) 4 D + "
        "(4 D + 1) D; last norm 2 D; head (D + 1) K.",
    ),
    compare="Compare: which of your terms grows with the picture, and which with the patch?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={name: Mistake(_off_by(error), says) for name, (error, says) in MISTAKES.items()},
)
