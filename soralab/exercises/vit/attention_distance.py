"""How far does a head look?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _distance_stub(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The mean attention distance of each head, in pixels: weights [batch, heads, tokens, tokens] to [heads].

    Token 0 is the class token, then come the patches of the grid (rows, columns), row after row, `patch` pixels apart.
    weights[b, h, q, k] is how much query q attends to key k; over k it sums to 1.
    """
    raise NotImplementedError


def _distance(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The mean attention distance of each head, in pixels: weights [batch, heads, tokens, tokens] to [heads]."""
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    places = patch * torch.cartesian_prod(rows, columns).to(weights.dtype)  # [patches, 2]
    apart = torch.cdist(places, places)
    among = weights[:, :, 1:, 1:]  # the class token stands nowhere
    among = among / among.sum(-1, keepdim=True)
    return (among * apart).sum(-1).mean((0, 2))


def _apart(grid: tuple[int, int], patch: int, p: float = 2.0) -> Tensor:
    places = patch * torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    return torch.cdist(places, places, p=p)


def _not_made_to_sum_to_1(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return (weights[:, :, 1:, 1:] * _apart(grid, patch)).sum(-1).mean((0, 2))


def _in_patches(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return _distance(weights, grid, 1)


def _where_it_looks_most(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    most = weights[:, :, 1:, 1:].argmax(-1)
    return _apart(grid, patch).expand(*most.shape, -1).gather(-1, most[..., None])[..., 0].mean((0, 2))


def _by_the_streets(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    among = weights[:, :, 1:, 1:] / weights[:, :, 1:, 1:].sum(-1, keepdim=True)
    return (among * _apart(grid, patch, p=1.0)).sum(-1).mean((0, 2))


def _off_by_one(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    among = weights[:, :, :-1, :-1]
    return (among / among.sum(-1, keepdim=True) * _apart(grid, patch)).sum(-1).mean((0, 2))


def _one_number(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    return _distance(weights, grid, patch).mean()


def _summed_over_keys_and_averaged(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    among = weights[:, :, 1:, 1:] / weights[:, :, 1:, 1:].sum(-1, keepdim=True)
    return (among * _apart(grid, patch)).mean((0, 2, 3))


DISTANCE_MISTAKES = (
    (_in_patches, "that is the distance in patches. Two neighbours are `patch` pixels apart."),
    (_not_made_to_sum_to_1, "what goes to the class token is counted as distance 0. Leave it out, and let the rest of "
     "the row sum to 1 again."),
    (_off_by_one, "everything is one token off: row and column 0 are the class token's, the patches begin at 1."),
    (_summed_over_keys_and_averaged, "over the keys you take the mean. The weights do the averaging: their products "
     "with the distances are added up."),
    (_by_the_streets, "you count the way along rows and columns. The distance is the straight line's."),
    (_where_it_looks_most, "you measure to the key with the largest weight. A head that spreads its attention looks "
     "far on average, whichever patch comes first."),
)  # fmt: skip


def _distance_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for batch, heads, grid, patch in ((2, 3, (3, 3), 4), (1, 2, (2, 5), 16)):
        tokens = 1 + grid[0] * grid[1]
        weights = (2 * numbers(batch, heads, tokens, tokens, seed=4)).softmax(-1)
        got, want = fn(weights, grid, patch), _distance(weights, grid, patch)
        case = f"A grid of {grid[0]} x {grid[1]}, {heads} heads"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        yield got.ndim > 0, f"{case}: one number for all heads. Heads differ, and that they do is what figure 7 shows."
        yield got.shape == want.shape, f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}."
        for mistake, says in DISTANCE_MISTAKES:
            other = mistake(weights, grid, patch)
            yield same(got, want) or not same(got, other), f"{case}: {says}"
        yield same(got, want), f"{case}: the distances are {got.tolist()}; it takes {want.tolist()}."


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
    stub=_distance_stub,
    solution=_distance,
    check=_distance_check,
    wrong={
        "in_patches": WrongAnswer(_in_patches, "distance in patches"),
        "class_token_counts_as_near": WrongAnswer(_not_made_to_sum_to_1, "counted as distance 0"),
        "off_by_one": WrongAnswer(_off_by_one, "one token off"),
        "mean_over_keys": WrongAnswer(_summed_over_keys_and_averaged, "The weights do the averaging"),
        "along_the_streets": WrongAnswer(_by_the_streets, "The distance is the straight line's"),
        "to_the_largest": WrongAnswer(_where_it_looks_most, "the largest weight"),
        "one_number": WrongAnswer(_one_number, "one number for all heads"),
    },
)
