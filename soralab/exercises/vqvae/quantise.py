"""Three terms and two stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _loss_stub(z_e: Tensor, e: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(z_q, loss) for the encoder's vectors z_e [n, D] and their nearest codes e [n, D], both with gradients.

    z_q has the value of e, and hands the decoder's gradient on to z_e. loss: the second and third term of Eq. (3), the
    squares averaged over all n * D numbers.
    """
    raise NotImplementedError


def _loss(z_e: Tensor, e: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(z_q, loss): straight through, and the codebook's and the commitment's term of Eq. (3)."""
    z_q = z_e + (e - z_e).detach()
    codebook = (z_e.detach() - e).square().mean()
    commitment = (z_e - e.detach()).square().mean()
    return z_q, codebook + beta * commitment


def _loss_of(z_q: Callable, loss: Callable) -> Callable:
    def wrong(z_e: Tensor, e: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        code, commit = (z_e.detach() - e).square().mean(), (z_e - e.detach()).square().mean()
        return z_q(z_e, e), loss(z_e, e, beta, code, commit)

    return wrong


def _right_z(z_e: Tensor, e: Tensor) -> Tensor:
    return z_e + (e - z_e).detach()


def _right_loss(z_e: Tensor, e: Tensor, beta: float, code: Tensor, commit: Tensor) -> Tensor:
    return code + beta * commit


LOSS_WRONG = {
    "beta_on_the_codebook": (_loss_of(_right_z, lambda z, e, b, code, commit: b * code + commit),
                             "beta stands on the codebook's side"),
    "beta_on_both": (_loss_of(_right_z, lambda z, e, b, code, commit: b * (code + commit)), "beta weighs both terms"),
    "no_stops": (_loss_of(_right_z, lambda z, e, b, code, commit: (1 + b) * (z - e).square().mean()),
                 "without a stop"),
    "commitment_forgotten": (_loss_of(_right_z, lambda z, e, b, code, commit: code),
                             "the encoder gets no gradient from"),
    "codebook_forgotten": (_loss_of(_right_z, lambda z, e, b, code, commit: b * commit), "the codes get no gradient"),
    "no_straight_through": (_loss_of(lambda z, e: e.detach(), _right_loss), "the encoder learns nothing from"),
    "plain_codes": (_loss_of(lambda z, e: e, _right_loss), "the decoder's gradient goes to the codes"),
    "stop_round_all": (_loss_of(lambda z, e: z + e - z, _right_loss), "the decoder's gradient goes to the codes"),
    "value_of_z_e": (_loss_of(lambda z, e: e + (z - e).detach(), _right_loss), "z_q has the value of z_e"),
    "sums_over_d": (_loss_of(_right_z, lambda z, e, b, code, commit: (code + b * commit) * z.shape[1]),
                    "summed over D"),
    "sums": (_loss_of(_right_z, lambda z, e, b, code, commit: (code + b * commit) * z.numel()),
             "all squares are summed"),
}  # fmt: skip


def _loss_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for n, dim, beta in ((5, 3, 0.25), (4, 2, 2.0)):
        z, e, weight = (numbers(n, dim, seed=k) for k in (1, 2, 3))
        # Parameters reach the reader's function as they are, not as copies, so that gradients can be asked for.
        z_e, codes = torch.nn.Parameter(z.clone()), torch.nn.Parameter(e.clone())
        back = fn(z_e, codes, beta)
        two = isinstance(back, tuple | list) and len(back) == 2 and all(isinstance(part, Tensor) for part in back)
        yield two, "hand back two tensors: z_q and the loss."
        z_q, loss = back
        yield (
            z_q.shape == z.shape and loss.ndim == 0,
            f"z_q is {list(z_q.shape)} and the loss {list(loss.shape)}; they take {list(z.shape)} and [].",
        )
        yield not same(z_q, z), "z_q has the value of z_e. The decoder must see the code itself."
        yield same(z_q, e), "z_q has not the value of the codes."
        to_z, to_e = (
            torch.autograd.grad((z_q * weight).sum(), t, allow_unused=True, retain_graph=True)[0]
            if z_q.requires_grad else None for t in (z_e, codes)
        )  # fmt: skip
        yield to_e is None or not to_e.any(), "the decoder's gradient goes to the codes. It should go to z_e."
        yield (
            to_z is not None and bool(to_z.any()),
            "the encoder learns nothing from the decoder: z_q hands no gradient on to z_e.",
        )
        yield same(to_z, weight), "the gradient reaches z_e changed. Straight through means: as it is."
        yield from _loss_probes(loss, z_e, codes, beta)


def _loss_probes(loss: Tensor, z_e: Tensor, codes: Tensor, beta: float) -> Iterator[tuple[bool, str]]:
    square = (z_e - codes).detach().square().mean()
    pull = 2 * (z_e - codes).detach() / z_e.numel()  # of the encoder, if beta were 1
    yield loss.requires_grad, "the loss moves nobody: each of its terms has one stop, not two."
    got = [torch.autograd.grad(loss, t, allow_unused=True, retain_graph=True)[0] for t in (z_e, codes)]
    to_z, to_e = (torch.zeros_like(pull) if g is None else g for g in got)
    yield bool(to_e.any()), "the codes get no gradient: the second term, with the stop on z_e, is missing."
    yield bool(to_z.any()), "the encoder gets no gradient from this loss: the commitment, its stop on e, is missing."
    for mistake, says in (
        ((beta * z_e.numel(), z_e.numel()), "all squares are summed; take their mean."),
        ((beta * z_e.shape[1], z_e.shape[1]), "the squares are summed over D, as Eq. (3) writes them. Here they are "
         "averaged over all n * D numbers, as in the official code."),
        ((1 + beta, 1 + beta), "without a stop each term pulls both: z_e and e. detach says which stands still."),
        ((1, beta), "beta stands on the codebook's side. The value of the loss is the same, the gradients are not: the "
         "encoder is pulled 1 / beta times too hard. (A well-known library shipped this.)"),
        ((beta, beta), "beta weighs both terms; it belongs to the commitment alone."),
    ):
        yield not (same(to_z, mistake[0] * pull) and same(to_e, -mistake[1] * pull)), says
    yield same(to_z, beta * pull) and same(to_e, -pull), "the gradients are not Eq. (3)'s."
    yield same(loss.detach(), (1 + beta) * square), "the gradients are right, the value is not."


EXERCISE = Exercise(
    name="vqvae.quantise",
    title="Three terms and two stops",
    difficulty=2,
    minutes=15,
    statement="""
        The argmin has no gradient. The paper puts two things in its place: the decoder's gradient is copied from z_q to
        z_e, and two squares pull the code and the encoder's vector towards each other, each with its own weight. Write
        both. The check looks at gradients: five of its wrong answers have the right values.
        """,
    hints=(
        "Write down for each of z_e and e which terms may move it, and with which weight. `detach` is sg.",
        "A sum has the gradients of its parts: z_e plus something that has the right value and no gradient.",
        "z_q = z_e + (e - z_e).detach(). One square has z_e.detach(), weight 1; the other e.detach(), weight beta.",
    ),
    stub=_loss_stub,
    solution=_loss,
    check=_loss_check,
    wrong={name: WrongAnswer(fn, says) for name, (fn, says) in LOSS_WRONG.items()},
)
