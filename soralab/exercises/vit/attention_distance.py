"""How far does a head look? Figure 7, right."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake


def stub(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The mean attention distance of each head, in pixels: weights [batch, heads, tokens, tokens] to [heads].

    Token 0 is the class token, then come the patches of the grid (rows, columns), row after row, `patch` pixels apart.
    weights[b, h, q, k] is how much query q attends to key k; over k it sums to 1.
    """
    raise NotImplementedError


def solution(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The mean attention distance of each head, in pixels: weights [batch, heads, tokens, tokens] to [heads]."""
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    places = patch * torch.cartesian_prod(rows, columns).to(weights.dtype)  # [patches, 2]
    apart = torch.cdist(places, places)
    among = weights[:, :, 1:, 1:]  # the class token stands nowhere
    among = among / among.sum(-1, keepdim=True)
    return (among * apart).sum(-1).mean((0, 2))


def cases() -> Iterator[Case]:
    yield Case((torch.randn(1, 1, 3, 3).softmax(-1), (1, 2), 5), "two patches, one head")
    for spread, note in ((0.0, "attention that is the same everywhere"), (1.0, ""), (2.0, ""), (4.0, ""),
                         (8.0, "attention that is sharp")):
        batch, heads, rows, columns = (int(torch.randint(2, 5, ())) for _ in range(4))
        columns += columns == rows  # square grids hide exchanged rows and columns
        tokens, patch = 1 + rows * columns, int(torch.randint(2, 17, ()))
        scores = spread * torch.randn(batch, heads, tokens, tokens)
        scores[..., 0].clamp_(max=0)  # 1 minus the class token's weight keeps its digits, too
        yield Case((scores.softmax(-1), (rows, columns), patch), note)
    scores = torch.randn(2, 2, 13, 13)
    scores[..., 0] += 5
    yield Case((scores.softmax(-1), (4, 3), 8), "nearly everything goes to the class token")
    yield Case((torch.randn(1, 3, 7, 7, dtype=torch.float64).softmax(-1), (2, 3), 4), "float64")


def _apart(grid: tuple[int, int], patch: int, p: float = 2.0) -> Tensor:
    places = patch * torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
    return torch.cdist(places, places, p=p)


def _among(weights: Tensor) -> Tensor:
    return weights[:, :, 1:, 1:] / weights[:, :, 1:, 1:].sum(-1, keepdim=True)


def not_made_to_sum_to_1(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return (weights[:, :, 1:, 1:] * _apart(grid, patch)).sum(-1).mean((0, 2))


def in_patches(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return solution(weights, grid, 1)


def to_the_largest(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    most = weights[:, :, 1:, 1:].argmax(-1)
    return _apart(grid, patch).expand(*most.shape, -1).gather(-1, most[..., None])[..., 0].mean((0, 2))


def along_the_streets(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return (_among(weights) * _apart(grid, patch, p=1.0)).sum(-1).mean((0, 2))


def off_by_one(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    among = weights[:, :, :-1, :-1]
    return (among / among.sum(-1, keepdim=True) * _apart(grid, patch)).sum(-1).mean((0, 2))


def one_number(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return solution(weights, grid, patch).mean()


def mean_over_keys(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return (_among(weights) * _apart(grid, patch)).mean((0, 2, 3))


def keys_ask(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return solution(weights.mT, grid, patch)


EXERCISE = Exercise(
    name="vit.attention_distance",
    title="How far does a head look?",
    difficulty=3,
    minutes=20,
    statement="""
        Figure 7, right. A convolution sees its neighbours and no more; an attention head may look anywhere. How far it
        does look can be measured: the distance from a query's patch to each key's, averaged with the attention weights,
        then over queries and pictures. The class token has no place in the picture, so it is left out as a query, and
        as a key; what remains of each row is made to sum to 1 again.
        """,
    hints=(
        "Write down where each patch stands, in pixels: a table [patches, 2] in the order of the tokens.",
        "torch.cdist gives all distances at once. Which slice of the weights fits it? Its rows no longer sum to 1.",
        "among = weights[:, :, 1:, 1:]; among = among / among.sum(-1, keepdim=True); (among * cdist).sum(-1), then the "
        "mean over batch and queries.",
    ),
    compare="Compare: what would a head look like that attends to the class token alone, without the second line?",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "in_patches": Mistake(in_patches, "that is the distance in patches. Two neighbours are `patch` pixels apart."),
        "class_token_counts_as_near": Mistake(not_made_to_sum_to_1, "what goes to the class token is counted as "
                                              "distance 0. Leave it out, and let the rest of the row sum to 1 again."),
        "off_by_one": Mistake(off_by_one, "everything is one token off: row and column 0 are the class token's, the "
                              "patches begin at 1."),
        "mean_over_keys": Mistake(mean_over_keys, "over the keys you take the mean. The weights do the averaging: "
                                  "their products with the distances are added up."),
        "along_the_streets": Mistake(along_the_streets, "you count the way along rows and columns. The distance is "
                                     "the straight line's."),
        "to_the_largest": Mistake(to_the_largest, "you measure to the key with the largest weight. A head that spreads "
                                  "its attention looks far on average, whichever patch comes first."),
        "one_number": Mistake(one_number, "one number for all heads. Heads differ, and that they do is what figure 7 "
                              "shows."),
        "keys_ask": Mistake(keys_ask, "queries and keys are exchanged: you average over who looks at a patch, not over "
                            "whom the patch looks at."),
    },
)  # fmt: skip
