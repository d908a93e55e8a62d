"""Chapter 03's exercises about what is inside a ViT: how far its heads look, and how many numbers it has learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer


def same(got: Tensor, want: Tensor) -> bool:
    """Whether two tensors agree, whatever their precision."""
    return got.shape == want.shape and torch.allclose(got.double(), want.double(), rtol=1e-4, atol=1e-4)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ how far a head looks


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


DISTANCE = Exercise(
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

# --------------------------------------------------------------------------------------------------- what a ViT holds


def _count_stub(image: int, patch: int, channels: int, dim: int, depth: int, classes: int) -> int:
    """The number of a ViT's parameters, from its sizes alone. The MLP is 4 dim wide, the head one linear layer."""
    raise NotImplementedError


def _count(image: int, patch: int, channels: int, dim: int, depth: int, classes: int) -> int:
    """The number of a ViT's parameters, from its sizes alone. The MLP is 4 dim wide, the head one linear layer."""
    embed = (patch * patch * channels + 1) * dim
    tokens = 1 + (image // patch) ** 2
    norm = 2 * dim  # a scale and a shift
    attention = 4 * (dim + 1) * dim  # queries, keys, values, and what mixes the heads' results
    mlp = (dim + 1) * 4 * dim + (4 * dim + 1) * dim
    head = (dim + 1) * classes
    return embed + dim + tokens * dim + depth * (2 * norm + attention + mlp) + norm + head


COUNT_MISTAKES: dict[str, tuple[Callable, str]] = {  # by how much the answer is off, and what that looks like
    "no_positions": (
        lambda i, p, c, d, n, k: -(1 + (i // p) ** 2) * d,
        "the positions are missing. They are learned too: one vector of width D for each token.",
    ),
    "no_class_token": (
        lambda i, p, c, d, n, k: -d,
        "D numbers are missing. Three things have D of them: the class token, its own position (there are N + 1) and "
        "the bias of E. Which did you forget?",
    ),
    "grey": (
        lambda i, p, c, d, n, k: -(c - 1) * p * p * d,
        "E is too small: a patch has colours, P * P * C numbers.",
    ),
    "no_output_projection": (
        lambda i, p, c, d, n, k: -n * (d + 1) * d,
        "one matrix a layer is missing: after queries, keys and values attention has a fourth, which mixes what the "
        "heads have gathered.",
    ),
    "no_biases_in_attention": (
        lambda i, p, c, d, n, k: -n * 4 * d,
        "the biases of attention's four matrices are missing.",
    ),
    "narrow_mlp": (
        lambda i, p, c, d, n, k: -n * (6 * d * d + 3 * d),
        "the MLP is as wide as the tokens. Between its two matrices it is four times as wide.",
    ),
    "one_norm_a_layer": (
        lambda i, p, c, d, n, k: -n * 2 * d,
        "a layer has two norms, one before each half.",
    ),
    "no_last_norm": (
        lambda i, p, c, d, n, k: -2 * d,
        "Eq. (4) has a norm of its own, behind the last layer.",
    ),
    "no_head": (
        lambda i, p, c, d, n, k: -(d + 1) * k,
        "the head is missing: D + 1 numbers a class.",
    ),
}


def _off(name: str) -> Callable:
    def wrong(image: int, patch: int, channels: int, dim: int, depth: int, classes: int) -> int:
        sizes = (image, patch, channels, dim, depth, classes)
        return _count(*sizes) + COUNT_MISTAKES[name][0](*sizes)

    return wrong


def _per_head(image: int, patch: int, channels: int, dim: int, depth: int, classes: int) -> int:
    return _count(image, patch, channels, dim, depth, classes) + depth * 11 * 3 * (dim + 1) * dim  # 12 heads


def _count_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    cases = {"B/16": (224, 16, 3, 768, 12, 1000), "a small ViT": (24, 4, 3, 40, 3, 7)}
    for name, sizes in cases.items():
        got, want = fn(*sizes), _count(*sizes)
        yield got is not None and int(got) == got, f"{name}: {got} is no whole number."
        for error, says in COUNT_MISTAKES.values():
            yield got == want or got - want != error(*sizes), f"{name}: {says}"
        yield (
            got < 2 * want,
            f"{name}: {int(got):,} is more than twice too many. Do you count attention's matrices once for each head? "
            "The heads share them: each has D / heads of their rows.",
        )
        yield got == want, f"{name}: {int(got):,}, and the model has {want:,}: a difference of {int(got) - want:,}."


COUNT = Exercise(
    name="vit.count_parameters",
    title="86 million, by hand",
    difficulty=2,
    minutes=15,
    statement="""
        Table 1 says that ViT-Base has 86 million parameters; B/16 with a head for 1,000 classes has 86,567,656. Account
        for every one of them, from Eqs. (1) to (4). Every linear layer has a bias, which the equations leave out, E and
        attention's four included; a LayerNorm has a scale and a shift. The sizes come in as numbers; the number of
        heads does not (why not?).
        """,
    hints=(
        "Go through the equations from left to right and write down each thing that is learned, with its shape.",
        "A linear layer from a to b has (a + 1) b numbers, a LayerNorm 2 D. Four linear layers make attention, two the "
        "MLP. Do not forget what has no equation of its own: biases, the class token, the last norm.",
        "embed (P P C + 1) D; class token D; positions (N + 1) D; each layer 2 * 2 D + 4 (D + 1) D + (D + 1) 4 D + "
        "(4 D + 1) D; last norm 2 D; head (D + 1) K.",
    ),
    stub=_count_stub,
    solution=_count,
    check=_count_check,
    wrong={
        **{name: WrongAnswer(_off(name), says) for name, (_, says) in COUNT_MISTAKES.items()},
        "matrices_for_each_head": WrongAnswer(_per_head, "The heads share them"),
    },
)
