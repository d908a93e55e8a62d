"""Which text, which picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _loss_stub(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    """Figure 3's loss of n pairs: I_f, T_f [n, embed], not yet of length 1, and the learned t; returns a scalar.

    Row k of I_f and row k of T_f belong together. The cosines are multiplied by exp(t).
    """
    raise NotImplementedError


def _loss(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    """Figure 3's loss of n pairs: I_f, T_f [n, embed], not yet of length 1, and the learned t; returns a scalar."""
    I_e, T_e = F.normalize(I_f, dim=-1), F.normalize(T_f, dim=-1)
    logits = I_e @ T_e.T * t.exp()
    pairs = torch.arange(len(logits))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _logits(I_f: Tensor, T_f: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return F.normalize(I_f, dim=-1) @ F.normalize(T_f, dim=-1).T * t.exp(), torch.arange(len(I_f))


def _lengths_kept(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    logits, pairs = I_f @ T_f.T * t.exp(), torch.arange(len(I_f))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _over_the_batch(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _lengths_kept(F.normalize(I_f, dim=0), F.normalize(T_f, dim=0), t)


def _t_itself(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _loss(I_f, T_f, t.log())


def _divided(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _loss(I_f, T_f, -t)


def _pictures_only(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(*_logits(I_f, T_f, t))


def _texts_only(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(*_logits(T_f, I_f, t))


def _not_halved(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return 2 * _loss(I_f, T_f, t)


def _yes_or_no(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    logits, _ = _logits(I_f, T_f, t)
    return F.binary_cross_entropy_with_logits(logits, torch.eye(len(logits), dtype=logits.dtype))


def _t_held_fixed(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _loss(I_f, T_f, t.detach())


def _lengths_held_fixed(I_f: Tensor, T_f: Tensor, t: Tensor) -> Tensor:
    return _lengths_kept(I_f / I_f.norm(dim=-1, keepdim=True).detach(), F.normalize(T_f, dim=-1), t)


LOSS_MISTAKES = (
    (_lengths_kept, "the features keep their lengths. Only cosines are compared: a long vector would be near to all."),
    (_over_the_batch, "each channel is made length 1 over the batch. It is each vector, over its channels: dim=-1."),
    (_t_itself, "the cosines are multiplied by t. It is exp(t): learned as a logarithm, it stays positive."),
    (_divided, "the cosines are divided by exp(t). It is the temperature's inverse: it multiplies."),
    (_pictures_only, "only the pictures choose among texts. The texts choose among pictures too: the columns."),
    (_texts_only, "only the texts choose among pictures. The pictures choose among texts too: the rows."),
    (_not_halved, "you add up both directions. The loss is their mean."),
    (_yes_or_no, "you ask of every cell alone whether it is a pair (that is SigLIP, 2023). Here each row is one "
     "question with n answers, and so is each column: softmax, not sigmoid."),
)  # fmt: skip


def _loss_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for n, embed, t in ((5, 4, 1.2), (3, 8, 2.0)):
        args = 3 * numbers(n, embed, seed=n), numbers(n, embed, seed=n + 1) + 0.5, torch.tensor(t)
        got, want = fn(*args), _loss(*args)
        yield isinstance(got, Tensor) and got.ndim == 0, f"{n} pairs: the result is not one number in a tensor."
        for mistake, says in LOSS_MISTAKES:
            yield same(got, want) or not same(got, mistake(*args)), f"{n} pairs: {says}"
        yield same(got, want), f"{n} pairs: the loss is {got.item():.4f}; it takes {want.item():.4f}."
    inputs = [numbers(4, 4, seed=9), numbers(4, 4, seed=8), torch.tensor(1.0)]
    got, want = fn(*(x.requires_grad_() for x in inputs)), torch.autograd.grad(_loss(*inputs), inputs)
    yield got.requires_grad, "no gradient leaves the loss: no .item(), no no_grad on its way."
    try:
        grads = torch.autograd.grad(got, inputs, allow_unused=True)
    except RuntimeError:
        grads = None
    yield grads is not None, (
        "the loss is right, but cannot be learned from: x /= y and other changes in place overwrite what the backward "
        "pass needs. Write x = x / y."
    )
    for name, a, b in zip(("I_f", "T_f", "t"), grads, want, strict=True):
        yield a is not None, f"no gradient reaches {name}. It is learned from: no .item(), no float(), no .detach()."
        yield same(a, b), f"the loss is right, the gradient of {name} is not: something on its way is held fixed."


EXERCISE = Exercise(
    name="clip.symmetric_loss",
    title="Which text, which picture",
    difficulty=1,
    minutes=10,
    statement="""
        Figure 3 of the paper in five lines: make all features unit vectors, multiply each picture with each text, and
        ask two questions of the table. Each row: which text belongs to this picture? Each column: which picture
        belongs to this text? The right answers stand on the diagonal.
        """,
    hints=(
        "A table [n, n] of cosines. What class is row k's right answer?",
        "F.normalize(x, dim=-1) makes unit vectors; F.cross_entropy(logits, torch.arange(n)) asks the rows. For the "
        "columns, turn the table.",
        "logits = normalised I_f @ normalised T_f.T * t.exp(); the mean of cross_entropy(logits, pairs) and "
        "cross_entropy(logits.T, pairs).",
    ),
    stub=_loss_stub,
    solution=_loss,
    check=_loss_check,
    wrong={
        "lengths_kept": WrongAnswer(_lengths_kept, "keep their lengths"),
        "over_the_batch": WrongAnswer(_over_the_batch, "It is each vector"),
        "t_itself": WrongAnswer(_t_itself, "It is exp(t)"),
        "divided": WrongAnswer(_divided, "it multiplies"),
        "pictures_only": WrongAnswer(_pictures_only, "only the pictures choose"),
        "texts_only": WrongAnswer(_texts_only, "only the texts choose"),
        "not_halved": WrongAnswer(_not_halved, "The loss is their mean"),
        "sigmoid": WrongAnswer(_yes_or_no, "softmax, not sigmoid"),
        "t_held_fixed": WrongAnswer(_t_held_fixed, "no gradient reaches t"),
        "lengths_held_fixed": WrongAnswer(_lengths_held_fixed, "the gradient of I_f is not"),
    },
)
