"""86 million, by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from soralab.workbook.task import Exercise, WrongAnswer


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


EXERCISE = Exercise(
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
