"""How hard may the adversary pull?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _weight_stub(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The adaptive weight lambda of the adversarial loss: a scalar without a path for gradients.

    reconstruction, adversarial: scalar losses of the same forward pass, still with their graphs, which are needed
    again afterwards. last: the weights of the decoder's last layer.
    """
    raise NotImplementedError


def _weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The adaptive weight lambda of the adversarial loss: a scalar without a path for gradients."""
    of_reconstruction = torch.autograd.grad(reconstruction, last, retain_graph=True)[0]
    of_adversarial = torch.autograd.grad(adversarial, last, retain_graph=True)[0]
    return (of_reconstruction.norm() / (of_adversarial.norm() + 1e-4)).detach()


def _pulls(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> list[Tensor]:
    return [torch.autograd.grad(v, last, retain_graph=True)[0] for v in (reconstruction, adversarial)]


def _of_losses(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    return (reconstruction.abs() / (adversarial.abs() + 1e-4)).detach()


def _upside_down(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    return _weight(adversarial, reconstruction, last)


def _squares(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.square().sum() / (b.square().sum() + 1e-4)


def _sums(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.sum() / (b.sum() + 1e-4)


def _nothing_added(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.norm() / b.norm()


def _graph_lost(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a = torch.autograd.grad(reconstruction, last, retain_graph=True)[0]
    b = torch.autograd.grad(adversarial, last)[0]
    return a.norm() / (b.norm() + 1e-4)


def _with_path(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = (torch.autograd.grad(v, last, create_graph=True)[0] for v in (reconstruction, adversarial))
    return a.norm() / (b.norm() + 1e-4)


def _left_behind(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    sizes = []
    for loss in (reconstruction, adversarial):
        last.grad = None
        loss.backward(retain_graph=True)
        sizes.append(last.grad.norm())
    return (sizes[0] / (sizes[1] + 1e-4)).detach()


WEIGHT_MISTAKES = (
    (_of_losses, "that is the ratio of the losses. A loss can be large and flat: what pulls is its gradient."),
    (_upside_down, "the ratio is upside down: the stronger the adversary pulls, the *smaller* its weight must be."),
    (_squares, "these are squared lengths. Weighted so, the adversary's pull is not the reconstruction's, but its "
     "square over it."),
    (_sums, "you add up the gradients' entries, which cancel. The size of a gradient is its length (norm)."),
)  # fmt: skip


def _scene(seed: int, strength: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(reconstruction, adversarial, last, hidden): a decoder's last layer, and a judge behind it."""
    last = torch.nn.Parameter(numbers(3, 5, seed=seed))
    hidden = numbers(8, 5, seed=seed + 1).requires_grad_()
    copy, truth, judge = torch.tanh(hidden) @ last.T, numbers(8, 3, seed=seed + 2), numbers(3, seed=seed + 3)
    return (copy - truth).abs().mean(), -strength * torch.tanh(copy @ judge).mean(), last, hidden


def _weight_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for seed, strength in ((0, 1.0), (10, 30.0), (20, 0.01)):
        reconstruction, adversarial, last, hidden = _scene(seed, strength)
        got, case = fn(reconstruction, adversarial, last), f"An adversary of strength {strength:g}"
        yield isinstance(got, Tensor) and got.ndim == 0, f"{case}: lambda is one number, a tensor without axes."
        yield last.grad is None and hidden.grad is None, (
            f"{case}: your function leaves gradients behind in the weights, which the next optimizer step would take. "
            "torch.autograd.grad gives a gradient without storing it.")  # fmt: skip
        try:
            torch.autograd.grad(reconstruction + adversarial, hidden, retain_graph=True)
            kept = True
        except RuntimeError:
            kept = False
        yield kept, f"{case}: the graphs are gone, and the training step still needs them: retain_graph=True."
        yield not got.requires_grad, (f"{case}: gradients flow through lambda, so the autoencoder could change the "
                                      "weight instead of the picture. detach() it.")  # fmt: skip
        want = _weight(reconstruction, adversarial, last)
        for mistake, says in WEIGHT_MISTAKES:
            yield same(got, want) or not same(got, mistake(reconstruction, adversarial, last)), f"{case}: {says}"
    reconstruction, _, last, _ = _scene(30, 1.0)
    got, want = fn(reconstruction, 0.0 * last.sum(), last), _weight(reconstruction, 0.0 * last.sum(), last)
    yield bool(got.isfinite()), ("an adversary that does not pull at all gives a division by zero: 1e-4 is added to "
                                 "the length below.")  # fmt: skip
    yield same(got / want, torch.ones(())), "the small number that is added to the length below is 1e-4."
    for seed, strength in ((0, 1.0), (10, 30.0)):
        reconstruction, adversarial, last, _ = _scene(seed, strength)
        got, want = fn(reconstruction, adversarial, last), _weight(reconstruction, adversarial, last)
        yield same(got, want), f"lambda is {float(got):.4f} where it is {float(want):.4f}."


EXERCISE = Exercise(
    name="latent_diffusion.adaptive_weight",
    title="How hard may the adversary pull?",
    difficulty=3,
    minutes=20,
    statement="""
        The first stage is trained by two masters: one wants the copy to be like the picture, the other wants it to look
        real. VQGAN, from which the paper takes its first stage, lets both pull equally hard at the decoder's last
        layer. lambda is a fraction: above stands the length of the first loss's gradient there; below, the length of
        the second's, to which 1e-4 is added.
        """,
    hints=(
        "Which question does lambda answer: how large the losses are, or how strongly they move the last layer?",
        "torch.autograd.grad(loss, last) gives a gradient and stores nothing. The graph is needed once more later on.",
        "Two calls with retain_graph=True, [0].norm() of each, the ratio with + 1e-4 below; detach().",
    ),
    stub=_weight_stub,
    solution=_weight,
    check=_weight_check,
    wrong={
        "ratio_of_losses": WrongAnswer(_of_losses, "the ratio of the losses"),
        "upside_down": WrongAnswer(_upside_down, "the *smaller* its weight"),
        "squares": WrongAnswer(_squares, "squared lengths"),
        "sums": WrongAnswer(_sums, "which cancel"),
        "nothing_added": WrongAnswer(_nothing_added, "division by zero"),
        "graph_lost": WrongAnswer(_graph_lost, "retain_graph=True"),
        "path_for_gradients": WrongAnswer(_with_path, "gradients flow through lambda"),
        "gradients_left_behind": WrongAnswer(_left_behind, "leaves gradients behind"),
    },
)
