"""How hard may the adversary pull?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from soralab.workbook.probes import numbers
from soralab.workbook.task import Exercise, WrongAnswer


def stub(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The adaptive weight lambda of the adversarial loss: a scalar without a path for gradients.

    reconstruction, adversarial: scalar losses of the same forward pass, still with their graphs, which are needed
    again afterwards. last: the weights of the decoder's last layer.
    """
    raise NotImplementedError


def solution(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The adaptive weight lambda of the adversarial loss: a scalar without a path for gradients."""
    of_reconstruction = torch.autograd.grad(reconstruction, last, retain_graph=True)[0]
    of_adversarial = torch.autograd.grad(adversarial, last, retain_graph=True)[0]
    return (of_reconstruction.norm() / (of_adversarial.norm() + 1e-4)).detach()


# --------------------------------------------------------------------------------------------------- what is asked with


@dataclass(frozen=True)
class Scene:
    """A decoder's last layer with a judge behind it, who is `strength` loud; 0: who does not pull at all."""

    seed: int
    strength: float
    shape: tuple[int, ...] = (3, 5)  # of the last layer's weights
    dtype: torch.dtype = torch.float32

    def losses(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(reconstruction, adversarial, last, hidden), the same at every call."""
        draw = [numbers(*shape, seed=self.seed + k).to(self.dtype) for k, shape in
                enumerate((self.shape, (8, self.shape[1]), (8, self.shape[0]), (self.shape[0],)))]  # fmt: skip
        last, hidden = torch.nn.Parameter(draw[0]), draw[1].requires_grad_()
        copy = torch.tanh(hidden) @ last.flatten(2).sum(-1).T if last.ndim > 2 else torch.tanh(hidden) @ last.T
        return (copy - draw[2]).abs().mean(), -self.strength * torch.tanh(copy @ draw[3]).mean(), last, hidden

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"With an adversary of strength {self.strength:g} and {size} weights in the last layer"


SCENES = (Scene(0, 1.0), Scene(10, 30.0), Scene(20, 0.01, (1, 1)), Scene(30, 1e-4, (4, 2)), Scene(40, 0.0),
          Scene(50, 2.0, (3, 4, 3, 3)), Scene(60, 500.0, (2, 7)), Scene(70, 3.0, (3, 6), torch.float64))  # fmt: skip


def _pulls(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> list[Tensor]:
    return [torch.autograd.grad(v, last, retain_graph=True)[0] for v in (reconstruction, adversarial)]


def _near(got: Tensor, want: Tensor) -> bool:
    return bool(got == want) or bool((got - want).abs() <= 1e-4 * want.abs())


# ------------------------------------------------------------------------------------------------------- wrong answers


def of_losses(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    return (reconstruction.abs() / (adversarial.abs() + 1e-4)).detach()


def upside_down(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    return solution(adversarial, reconstruction, last)


def squares(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.square().sum() / (b.square().sum() + 1e-4)


def sums(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.sum() / (b.sum() + 1e-4)


def absolute(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.abs().sum() / (b.abs().sum() + 1e-4)


def largest(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.abs().max() / (b.abs().max() + 1e-4)


def inside_the_root(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.norm() / (b.square().sum() + 1e-4).sqrt()


def nothing_added(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.norm() / b.norm()


def another_constant(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = _pulls(reconstruction, adversarial, last)
    return a.norm() / (b.norm() + 1e-6)


def graph_lost(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a = torch.autograd.grad(reconstruction, last, retain_graph=True)[0]
    b = torch.autograd.grad(adversarial, last)[0]
    return a.norm() / (b.norm() + 1e-4)


def with_path(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    a, b = (torch.autograd.grad(v, last, create_graph=True)[0] for v in (reconstruction, adversarial))
    return a.norm() / (b.norm() + 1e-4)


def left_behind(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    sizes = []
    for loss in (reconstruction, adversarial):
        last.grad = None
        loss.backward(retain_graph=True)
        sizes.append(last.grad.norm())
    return (sizes[0] / (sizes[1] + 1e-4)).detach()


MISTAKES = (  # told only to an answer that equals the mistake in all scenes
    (of_losses, "That is the ratio of the losses. A loss can be large and flat: what pulls is its gradient."),
    (upside_down, "The ratio is upside down: the stronger the adversary pulls, the *smaller* its weight must be."),
    (squares, "These are squared lengths. Weighted so, the adversary's pull is not the reconstruction's, but its "
     "square over it."),
    (sums, "You add up the gradients' entries, which cancel. The size of a gradient is its length (norm)."),
    (absolute, "You add up the entries' absolute values. The length is the root of the sum of squares (norm)."),
    (largest, "You take each gradient's largest entry. Its length (norm) counts them all."),
    (inside_the_root, "You add 1e-4 under the root, where it weighs as a length of 0.01. It is added to the length."),
    (nothing_added, "An adversary that does not pull at all makes this a division by zero: 1e-4 is added to the "
     "length below."),
)  # fmt: skip


def check(fn: Callable) -> Iterator[tuple[bool, str]]:
    asked = [(scene, *_asked(fn, scene)) for scene in SCENES]
    for scene, got, *_ in asked:
        yield isinstance(got, Tensor) and got.ndim == 0, f"{scene}: lambda is one number, a tensor without axes."
    wrong = [(scene, got) for scene, got, *_ in asked if not _near(got, solution(*scene.losses()[:3]))]
    if wrong:
        for mistake, says in MISTAKES:
            yield any(not _near(got, mistake(*scene.losses()[:3])) for scene, got, *_ in asked), says
        constant = _constant(asked)
        yield constant is None, f"Right but for the small number that is added below: yours is {constant}, not 1e-4."
        scene, got = max(wrong, key=_apart)
        want = solution(*scene.losses()[:3])
        yield False, f"{scene} lambda is {float(got):.4g} where it is to be {float(want):.4g}."
    for scene, got, stored, kept in asked:
        yield not stored, (f"{scene}: your function leaves gradients behind in the weights, which the next optimizer "
                           "step would take. torch.autograd.grad gives a gradient without storing it.")  # fmt: skip
        yield kept, f"{scene}: the graphs are gone, and the training step still needs them: retain_graph=True."
        yield not got.requires_grad, (f"{scene}: gradients flow through lambda, so the autoencoder could change the "
                                      "weight instead of the picture. detach() it.")  # fmt: skip


def _asked(fn: Callable, scene: Scene) -> tuple[Tensor, bool, bool]:
    """(what it returns, whether gradients were left behind, whether the graphs are still there)."""
    reconstruction, adversarial, last, hidden = scene.losses()
    got = fn(reconstruction, adversarial, last)
    stored = last.grad is not None or hidden.grad is not None
    try:
        torch.autograd.grad(reconstruction + adversarial, hidden)
    except RuntimeError:
        return got, stored, False
    return got, stored, True


def _apart(answer: tuple[Scene, Tensor]) -> float:
    """By which share of lambda an answer misses it; what is no number misses it most."""
    scene, got = answer
    return float((got / solution(*scene.losses()[:3]) - 1).abs().nan_to_num(float("inf")))


def _constant(asked: list) -> str | None:
    """The number that is added below, if all answers are right but for it; read off where nobody pulls."""
    got, lengths = zip(*[(float(got), [float(pull.norm()) for pull in _pulls(*scene.losses()[:3])])
                         for scene, got, *_ in asked], strict=True)  # fmt: skip
    silent = next(k for k, (scene, *_) in enumerate(asked) if not scene.strength)
    if not 0 < got[silent] < float("inf"):
        return None
    added = lengths[silent][0] / got[silent]
    same = all(abs(value * (b + added) - a) <= 1e-4 * a for value, (a, b) in zip(got, lengths, strict=True))
    return f"{added:.2g}" if same else None


EXERCISE = Exercise(
    name="latent_diffusion.adaptive_weight",
    title="How hard may the adversary pull?",
    difficulty=3,
    minutes=20,
    statement="""
        The first stage is trained by two masters: one wants the copy to be like the picture, the other wants it to look
        real. VQGAN, from which the paper takes its first stage, lets both pull equally hard at the decoder's last
        layer. lambda is a fraction: above stands the length of the first loss's gradient there; below, the length of
        the second's, to which 1e-4 is added. In the next cell your weight tames an adversary that shouts.
        """,
    hints=(
        "Which question does lambda answer: how large the losses are, or how strongly they move the last layer?",
        "torch.autograd.grad(loss, last) gives a gradient and stores nothing. The graph is needed once more later on.",
        "Two calls with retain_graph=True, [0].norm() of each, the ratio with + 1e-4 below; detach().",
    ),
    compare="Compare: the package's version also holds the weight to at most 10,000. What would happen without?",
    stub=stub,
    solution=solution,
    check=check,
    wrong={
        **{mistake.__name__: WrongAnswer(mistake, says) for mistake, says in MISTAKES},
        "another_constant": WrongAnswer(another_constant, "yours is 1e-06, not 1e-4"),
        "graph_lost": WrongAnswer(graph_lost, "retain_graph=True"),
        "with_path": WrongAnswer(with_path, "gradients flow through lambda"),
        "left_behind": WrongAnswer(left_behind, "leaves gradients behind"),
    },
)  # fmt: skip
