"""More of the prompt than it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _guide_stub(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: the noise that a guided network predicts, [batch, channel, height, width].

    network(z [batch, ...], t [batch], words [batch, n]) -> the noise; words of 0 alone are the null prompt.
    scale 0 is no prompt, 1 the prompt as it is, above 1 more of it than it asks for.
    """
    raise NotImplementedError


def _guide(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: the noise that a guided network predicts, [batch, channel, height, width]."""
    without = network(z, t, torch.zeros_like(words))
    return without + scale * (network(z, t, words) - without)


def _weight_w(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    return _guide(network, z, t, words, 1 + scale)


def _difference_alone(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    return scale * (network(z, t, words) - network(z, t, torch.zeros_like(words)))


def _away(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    with_words = network(z, t, words)
    return with_words + scale * (network(z, t, torch.zeros_like(words)) - with_words)


def _louder(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    return scale * network(z, t, words)


def _from_the_prompt(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    with_words = network(z, t, words)
    return with_words + (scale - 1) * (with_words - network(z, t, torch.ones_like(words)))


def _no_picture(network: Callable, z: Tensor, t: Tensor, words: Tensor, scale: float) -> Tensor:
    without = network(torch.zeros_like(z), t, torch.zeros_like(words))
    return without + scale * (network(z, t, words) - without)


GUIDE_MISTAKES = (
    (_weight_w, "your scale is one too large: at 0 it still obeys the prompt. Ho and Salimans write 1 + w; here, as in "
     "the paper's code, the scale is that sum."),
    (_difference_alone, "you return the difference alone. It is a direction; it has to start somewhere: at the "
     "prediction without the prompt."),
    (_away, "you walk the wrong way: scale 0 obeys the prompt and scale 1 forgets it."),
    (_louder, "you make the whole prediction larger. Guidance enlarges only what the prompt *changes*."),
    (_from_the_prompt, "your null prompt is not words of 0 alone: you walk away from another prompt, not from none."),
    (_no_picture, "without the prompt the network still sees the noisy picture. You took the picture away too."),
)  # fmt: skip


def _guide_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    z, t, words = numbers(2, 3, 4, 4), torch.tensor([0.3, 0.8]), torch.tensor([[3, 5, 0], [7, 0, 0]])
    mixing = numbers(3, 3, seed=2)

    def network(z: Tensor, t: Tensor, words: Tensor) -> Tensor:
        said = (words.float() * torch.tensor([1.0, 2.0, 3.0])).sum(1)[:, None, None, None]
        return torch.tanh(torch.einsum("dc,bchw->bdhw", mixing, z) + 0.2 * said + 0.4) * (1 + t)[:, None, None, None]

    for scale in (1.0, 3.0, 0.0, 7.5):
        given = network, z, t, words, scale
        got, want, case = fn(*given), _guide(*given), f"Scale {scale:g}"
        yield isinstance(got, Tensor) and got.shape == want.shape, f"{case}: the result has z's shape, {[*z.shape]}."
        for mistake, says in GUIDE_MISTAKES:
            yield same(got, want) or not same(got, mistake(*given)), f"{case}: {says}"
        yield same(got, want), f"{case}: the numbers differ. At 0 it is the null prompt's answer, at 1 the prompt's."


EXERCISE = Exercise(
    name="latent_diffusion.guided",
    title="More of the prompt than it asks for",
    difficulty=1,
    minutes=10,
    statement="""
        Classifier-free guidance (Ho & Salimans 2022), which the paper uses for its text-to-image model. The network has
        learned both to obey prompts and to go without one. Ask it both ways, and go further in the direction that the
        prompt makes.
        """,
    hints=(
        "What should come out at scale 0, and what at scale 1? Draw both answers as points, and the line through them.",
        "Start at the answer to the null prompt (words of 0, same z, same t) and walk `scale` times the difference.",
        "without + scale * (with - without), where `without` is the network's answer to torch.zeros_like(words).",
    ),
    stub=_guide_stub,
    solution=_guide,
    check=_guide_check,
    wrong={
        "w_for_scale": WrongAnswer(_weight_w, "one too large"),
        "difference_alone": WrongAnswer(_difference_alone, "It is a direction"),
        "wrong_way": WrongAnswer(_away, "the wrong way"),
        "louder": WrongAnswer(_louder, "only what the prompt *changes*"),
        "another_null_prompt": WrongAnswer(_from_the_prompt, "away from another prompt"),
        "no_picture": WrongAnswer(_no_picture, "still sees the noisy picture"),
    },
)
