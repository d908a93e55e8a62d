"""Chapter 06's exercises: a step of DDIM, guidance, cross-attention, and the weight of the adversary."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer
from soralab.exercises.latent_diffusion_inside import ATTEND, WEIGHT
from soralab.exercises.vit_inside import numbers, same

# ------------------------------------------------------------------------------------------------------ a step of DDIM


def _step_stub(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    """One deterministic step of DDIM from time t down to s < t: x_s, of the shape of x_t.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, and eps is what the network takes the noise for.
    alpha_bar falls from 1 (data) towards 0 (noise).
    """
    raise NotImplementedError


def _step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    """One deterministic step of DDIM from time t down to s < t: x_s, of the shape of x_t."""
    x_0 = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5
    return alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s) ** 0.5 * eps


def _no_roots(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0 = (x_t - (1 - alpha_bar_t) * eps) / alpha_bar_t
    return alpha_bar_s * x_0 + (1 - alpha_bar_s) * eps


def _only_x_0(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5


def _not_divided(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0 = x_t - (1 - alpha_bar_t) ** 0.5 * eps
    return alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s) ** 0.5 * eps


def _old_noise_level(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    return alpha_bar_s**0.5 * _only_x_0(x_t, eps, alpha_bar_t, alpha_bar_s) + (1 - alpha_bar_t) ** 0.5 * eps


def _fresh_noise(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0 = _only_x_0(x_t, eps, alpha_bar_t, alpha_bar_s)
    return alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s) ** 0.5 * torch.randn_like(eps)


def _posterior_mean(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    x_0, alpha = _only_x_0(x_t, eps, alpha_bar_t, alpha_bar_s), alpha_bar_t / alpha_bar_s
    on_x = alpha**0.5 * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return alpha_bar_s**0.5 * (1 - alpha) / (1 - alpha_bar_t) * x_0 + on_x * x_t


def _exchanged(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_s: float) -> Tensor:
    return _step(x_t, eps, alpha_bar_s, alpha_bar_t)


STEP_MISTAKES = (  # in the order in which they are asked for
    (_no_roots, "alpha_bar is the share of the *variance* that is data. What x_0 and the noise are multiplied by are "
     "the roots of alpha_bar and of 1 - alpha_bar."),
    (_only_x_0, "you stop at the estimate of x_0. It is the goal, not the next step: noise it again, up to time s."),
    (_not_divided, "what is left without the noise is sqrt(alpha_bar_t) x_0, not x_0 yet: divide."),
    (_old_noise_level, "you put back the noise of time t. At time s there is less of it: sqrt(1 - alpha_bar_s)."),
    (_exchanged, "t and s are exchanged: you walk from the data into the noise. That is DDIM's inversion."),
    (_posterior_mean, "that is the mean of DDPM's posterior q(x_s | x_t, x_0), to which fresh noise belongs. DDIM "
     "re-uses the noise that it has just estimated."),
)  # fmt: skip


def _step_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for alpha_bar_t, alpha_bar_s in ((0.2, 0.5), (0.01, 0.04), (0.7, 1.0)):
        x_t, eps = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1)
        given = x_t, eps, alpha_bar_t, alpha_bar_s
        got, want, case = fn(*given), _step(*given), f"From alpha_bar {alpha_bar_t} to {alpha_bar_s}"
        yield isinstance(got, Tensor) and got.shape == want.shape, f"{case}: x_s has the shape of x_t, {[*x_t.shape]}."
        yield same(fn(*given), got), (f"{case}: asked twice, your step gives two answers. Nothing is drawn here: the "
                                      "noise that goes back in is eps.")  # fmt: skip
        for mistake, says in STEP_MISTAKES:
            yield same(got, want) or not same(got, mistake(*given)), f"{case}: {says}"
        yield same(got, want), (f"{case}: the numbers differ. Solve the first line of the docstring for x_0, with eps "
                                "as the noise; then write the same line for s.")  # fmt: skip


STEP = Exercise(
    name="latent_diffusion.ddim_step",
    title="One step of DDIM",
    difficulty=2,
    minutes=15,
    statement="""
        The sampler that the paper's pictures are made with, and the reason why 50 calls of the network do what took
        DDPM 1,000. One step: from x_t and the network's eps to x_s, at a lower noise level, with no lot drawn.
        """,
    hints=(
        "If eps were the true noise, which x_0 would x_t have been made from?",
        "Two lines: solve x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps for x_0; then add the same eps to it "
        "at the level of s.",
        "x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t); "
        "x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps",
    ),
    stub=_step_stub,
    solution=_step,
    check=_step_check,
    wrong={
        "no_roots": WrongAnswer(_no_roots, "the share of the *variance*"),
        "only_x_0": WrongAnswer(_only_x_0, "the goal, not the next step"),
        "not_divided": WrongAnswer(_not_divided, "not x_0 yet: divide"),
        "old_noise_level": WrongAnswer(_old_noise_level, "you put back the noise of time t"),
        "fresh_noise": WrongAnswer(_fresh_noise, "Nothing is drawn here"),
        "ddpms_mean": WrongAnswer(_posterior_mean, "the mean of DDPM's posterior"),
        "exchanged": WrongAnswer(_exchanged, "t and s are exchanged"),
    },
)

# ---------------------------------------------------------------------------------------------------------- guidance


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


GUIDE = Exercise(
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

EXERCISES = (GUIDE, STEP, ATTEND, WEIGHT)
