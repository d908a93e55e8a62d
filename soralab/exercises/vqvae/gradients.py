"""Who moves in Eq. (3): its gradients by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer

DIFFERENTIATION = {("torch", "autograd", "__init__.py"), ("torch", "_functorch", "eager_transforms.py")}


def stub(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(by z_e [n, D], by codebook [K, D]): the gradients of Eq. (3), whose squares are means over all n * D numbers.

    z_e [n, D] are the encoder's vectors, indices [n] the codes of codebook [K, D] that they chose, and g [n, D] is the
    gradient of the first term by z_q, as it comes back from the decoder.
    """
    raise NotImplementedError


def solution(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(by z_e [n, D], by codebook [K, D]): the gradients of Eq. (3)."""
    pull = 2 * (z_e - codebook[indices]) / z_e.numel()
    by_codebook = torch.zeros_like(codebook).index_add(0, indices, -pull)  # a code that several chose gets their sum
    return g + beta * pull, by_codebook


def _call(n: int, dim: int, codes: int, beta: float, chosen: int | None = None, **kind) -> tuple:
    g, z_e, codebook = (torch.randn(size, dim, **kind) for size in (n, n, codes))
    return g, z_e, codebook, torch.randint(chosen or codes, (n,)), beta


def cases() -> Iterator[Case]:
    yield Case((torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([0]), 0.25),
               "one number")
    yield Case(_call(3, 2, 3, 0.25)[:3] + (torch.tensor([2, 0, 1]), 0.25), "every code chosen once")
    yield Case(_call(6, 2, 4, 0.25, chosen=1), "all chose the same code")
    yield Case(_call(4, 3, 30, 2.0), "more codes than vectors")
    yield Case(_call(5, 3, 4, 0.0), "beta 0: no commitment")
    for _ in range(4):
        n, dim, codes = (int(torch.randint(low, 12, ())) for low in (6, 2, 3))
        yield Case(_call(n, dim, codes, 0.05 + 3 * torch.rand(()).item()), "some codes chosen several times")
    yield Case(_call(7, 4, 3, 0.25, dtype=torch.float64), "float64")


def _with(by_z: Callable, by_e: Callable, total: Callable = lambda z, e, i, d: e.index_add(0, i, d)) -> Callable:
    """A wrong answer: `by_z(g, pull, beta)`, and for each vector `by_e(g, pull, beta)`, put together by `total`."""

    def wrong(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        pull = 2 * (z_e - codebook[indices]) / z_e.numel()
        return by_z(g, pull, beta), total(z_e, torch.zeros_like(codebook), indices, by_e(g, pull, beta))

    return wrong


def _commit(g: Tensor, pull: Tensor, beta: float) -> Tensor:
    return g + beta * pull


def _to_code(g: Tensor, pull: Tensor, beta: float) -> Tensor:
    return -pull


def _last_wins(z_e: Tensor, empty: Tensor, indices: Tensor, by_e: Tensor) -> Tensor:
    for k, row in zip(indices.tolist(), by_e, strict=True):
        empty[k] = row
    return empty


def _mean(z_e: Tensor, empty: Tensor, indices: Tensor, by_e: Tensor) -> Tensor:
    count = torch.bincount(indices, minlength=len(empty)).clamp(min=1)
    return empty.index_add(0, indices, by_e) / count[:, None]


last_one_wins = _with(_commit, _to_code, _last_wins)
mean_of_its_vectors = _with(_commit, _to_code, _mean)
beta_on_the_codebook = _with(lambda g, p, b: g + p, lambda g, p, b: -b * p)
beta_on_both = _with(_commit, lambda g, p, b: -b * p)
no_stops = _with(lambda g, p, b: g + (1 + b) * p, lambda g, p, b: -(1 + b) * p)
commitment_forgotten = _with(lambda g, p, b: g, _to_code)
decoder_forgotten = _with(lambda g, p, b: b * p, _to_code)
not_straight_through = _with(lambda g, p, b: b * p, lambda g, p, b: g - p)
decoder_moves_codes_too = _with(_commit, lambda g, p, b: g - p)
two_forgotten = _with(lambda g, p, b: g + b * p / 2, lambda g, p, b: -p / 2)
codes_flee = _with(_commit, lambda g, p, b: p)
all_flee = _with(lambda g, p, b: g - b * p, lambda g, p, b: p)


def summed(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    by_z, by_e = solution(0 * g, z_e, codebook, indices, beta)
    return g + by_z * z_e.numel(), by_e * z_e.numel()


def summed_over_d(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    by_z, by_e = solution(0 * g, z_e, codebook, indices, beta)
    return g + by_z * z_e.shape[1], by_e * z_e.shape[1]


def a_row_for_each_vector(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple:
    pull = 2 * (z_e - codebook[indices]) / z_e.numel()
    return g + beta * pull, -pull


def differentiates(fn: Callable, *args) -> bool:
    """Whether torch's differentiation runs while `fn(*args)` does; False where somebody else's profiler is on."""
    found = []

    def look(frame, event, _):
        path = Path(frame.f_code.co_filename)
        found.extend([path] * (event == "call" and path.parts[-3:] in DIFFERENTIATION))

    if sys.getprofile() is not None:
        return False
    sys.setprofile(look)
    try:
        fn(*args)
    finally:
        sys.setprofile(None)
    return bool(found)


def check(fn: Callable) -> Iterator[tuple[bool, str]]:
    yield not differentiates(fn, *_call(5, 3, 4, 0.25)), (
        "the numbers are right, and autograd has made them. Derive them by hand: that is the exercise."
    )


def by_autograd(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    z_e, codebook = z_e.detach().requires_grad_(), codebook.detach().requires_grad_()
    e = codebook[indices]
    loss = (z_e.detach() - e).square().mean() + beta * (z_e - e.detach()).square().mean()
    return torch.autograd.grad((g * z_e).sum() + loss, (z_e, codebook))


def by_vjp(g: Tensor, z_e: Tensor, codebook: Tensor, indices: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    def loss(z: Tensor, c: Tensor) -> Tensor:
        return (z * g).sum() + (c[indices] - z_e).square().mean() + beta * (z - codebook[indices]).square().mean()

    return torch.func.vjp(loss, z_e, codebook)[1](torch.ones((), dtype=g.dtype))


EXERCISE = Exercise(
    name="vqvae.gradients",
    title="Who moves, by hand",
    difficulty=2,
    minutes=15,
    statement="""
        `detach` has said who stands still. Now say who moves, and by how much: derive what the three terms of Eq. (3)
        send to the encoder's vectors and to the codebook, and write it down without autograd. A code that several
        vectors chose is pulled by all of them. The first term's gradient by $z_q$ is given.
        """,
    hints=(
        "Take one term after the other, and write beside it which of z_e and e it may move. Each square moves one.",
        "The derivative of a mean of squares has a 2 and divides by how many numbers there are. By the codebook, each "
        "row adds up what its own vectors send; rows that nobody chose stay at zero.",
        "pull = 2 * (z_e - e) / (n * D); z_e gets g + beta * pull; zeros [K, D] and index_add(0, indices, -pull).",
    ),
    compare="Compare: `table[indices] += rows` writes only one of several rows to the same place. index_add adds all.",
    stub=stub,
    solution=solution,
    cases=cases,
    gradients=False,
    mistakes={
        "last_one_wins": Mistake(last_one_wins, "of several vectors that chose the same code only the last one's "
                                 "pull arrives: `table[indices] = rows` and `+=` write over each other. Add them up."),
        "mean_of_its_vectors": Mistake(mean_of_its_vectors, "you average over the vectors of a code. The loss is a "
                                       "mean over all n * D numbers: a code that many chose is pulled by their sum."),
        "beta_on_the_codebook": Mistake(beta_on_the_codebook, "beta stands on the codebook's side: the loss would have "
                                        "the same value, but the wrong one moves."),
        "beta_on_both": Mistake(beta_on_both, "beta weighs both squares; it belongs to the commitment alone."),
        "no_stops": Mistake(no_stops, "both squares move both, as if sg were not there. Each moves one alone."),
        "commitment_forgotten": Mistake(commitment_forgotten, "z_e gets the decoder's gradient alone; the commitment, "
                                        "beta times the square with sg on e, is missing."),
        "decoder_forgotten": Mistake(decoder_forgotten, "the decoder's gradient g is missing: it is copied from z_q to "
                                     "z_e, unchanged."),
        "not_straight_through": Mistake(not_straight_through, "the decoder's gradient goes to the codes. z_q is e in "
                                        "value, but its gradient is copied to z_e instead."),
        "decoder_moves_codes_too": Mistake(decoder_moves_codes_too, "the decoder's gradient goes to z_e and to the "
                                           "codes. The first term does not move the codes."),
        "two_forgotten": Mistake(two_forgotten, "the derivative of a square is twice what was squared: the 2 is "
                                 "missing."),
        "codes_flee": Mistake(codes_flee, "the sign of the codebook's gradient is turned: a step down along yours "
                              "takes a code away from its vectors."),
        "all_flee": Mistake(all_flee, "both signs are turned: with a step down, z_e and e flee from each other."),
        "summed": Mistake(summed, "all squares are summed. They are averaged: divide by n * D."),
        "summed_over_d": Mistake(summed_over_d, "you divide by n alone. The mean is over all n * D numbers."),
        "a_row_for_each_vector": Mistake(a_row_for_each_vector, "by the codebook there is one row a code, [K, D], and "
                                         "yours has one a vector. What several vectors send to one code adds up."),
    },
    check=check,
    wrong={
        "by_autograd": WrongAnswer(by_autograd, "autograd has made them"),
        "by_vjp": WrongAnswer(by_vjp, "autograd has made them"),
    },
)  # fmt: skip
