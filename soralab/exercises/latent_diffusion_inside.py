"""Chapter 06's exercises about the two networks: how words reach a picture, and how hard the adversary may pull."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer
from soralab.exercises.vit_inside import numbers, same

# ---------------------------------------------------------------------------------------------------- cross-attention


def _attend_stub(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    """Cross-attention with one head: what each place of a picture reads in a prompt, [batch, places, d].

    z [batch, places, dim], words [batch, m, context]; W_Q [d, dim], W_K and W_V [d, context] are applied as
    x @ W.T. mask [batch, m] is True where there is a word; padding is not read.
    """
    raise NotImplementedError


def _attend(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    """Cross-attention with one head: what each place of a picture reads in a prompt, [batch, places, d]."""
    Q, K, V = z @ W_Q.T, words @ W_K.T, words @ W_V.T
    scores = Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5  # [batch, places, m]
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    return weights @ V


def _scores(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor) -> Tensor:
    return (z @ W_Q.T) @ (words @ W_K.T).transpose(1, 2) / len(W_Q) ** 0.5


def _not_scaled(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q * len(W_Q) ** 0.5, W_K, W_V, mask)


def _scaled_by_d(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q / len(W_Q) ** 0.5, W_K, W_V, mask)


def _over_places(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    weights = _scores(z, words, W_Q, W_K).softmax(1) * mask[:, None]
    return weights @ (words @ W_V.T)


def _mask_ignored(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q, W_K, W_V, torch.ones_like(mask))


def _mask_upside_down(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    scores = _scores(z, words, W_Q, W_K).masked_fill(mask[:, None], -1e9)
    return scores.softmax(-1) @ (words @ W_V.T)


def _masked_after(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _scores(z, words, W_Q, W_K).softmax(-1) * mask[:, None] @ (words @ W_V.T)


def _masked_by_zero(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return (_scores(z, words, W_Q, W_K) * mask[:, None]).softmax(-1) @ (words @ W_V.T)


def _keys_are_values(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return _attend(z, words, W_Q, W_K, W_K, mask)


def _words_ask(z: Tensor, words: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, mask: Tensor) -> Tensor:
    return ((words @ W_K.T) @ (z @ W_Q.T).transpose(1, 2) / len(W_Q) ** 0.5).softmax(-1) @ (z @ W_Q.T)


ATTEND_MISTAKES = (  # in the order in which they are asked for
    (_not_scaled, "the scores are not divided by sqrt(d): with a wide head one word takes everything."),
    (_scaled_by_d, "the scores are divided by d. The deviation of a sum of d products is sqrt(d)."),
    (_over_places, "your softmax runs over the places of the picture. Each place shares out its attention among the "
     "words: over the last axis the weights sum to 1."),
    (_mask_ignored, "padding is read: the mask is not used. A prompt would mean another thing in a longer batch."),
    (_mask_upside_down, "the mask is upside down: True means that there is a word to read."),
    (_masked_after, "you strike out the padding after the softmax, so the weights no longer sum to 1. Before it, with "
     "-inf."),
    (_masked_by_zero, "you set the scores of padding to 0. The softmax makes exp(0) = 1 of that: use -inf."),
    (_keys_are_values, "the values come out of W_K. What a word is found by and what it says are two things."),
)  # fmt: skip


def _attend_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for places, m, d in ((6, 4, 8), (4, 4, 4), (5, 3, 2)):
        z, words = numbers(2, places, 5), numbers(2, m, 7, seed=1)
        matrices = numbers(d, 5, seed=2), numbers(d, 7, seed=3), numbers(d, 7, seed=4)
        mask = torch.arange(m)[None] < torch.tensor([[m], [m - 2]])
        given = z, words, *matrices, mask
        got, want, case = fn(*given), _attend(*given), f"{places} places, {m} words, d = {d}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        wrong_way = got.shape == (2, m, d) and (m != places or same(got, _words_ask(*given)))
        yield not wrong_way or got.shape == want.shape and same(got, want), (
            f"{case}: the words ask and the picture answers. Q comes from the picture: one row of the result a place.")
        yield got.shape == want.shape, f"{case}: the result is {[*got.shape]}; it takes {[*want.shape]}."
        yield bool(got.isfinite().all()), f"{case}: there are values that are not finite in the result."
        for mistake, says in ATTEND_MISTAKES:
            yield same(got, want) or not same(got, mistake(*given)), f"{case}: {says}"
        yield same(got, want), f"{case}: the numbers differ from softmax(Q K^T / sqrt(d)) V."


ATTEND = Exercise(
    name="latent_diffusion.cross_attention",
    title="How words reach a picture",
    difficulty=2,
    minutes=15,
    statement="""
        Section 3.3. The places of the picture ask, the words of the prompt answer: Q comes from the U-Net, K and V come
        from the encoded prompt. One head, no biases. Prompts differ in length, so they come with a mask.
        """,
    hints=(
        "How many rows must the result have: one for each word, or one for each place?",
        "softmax(Q K^T / sqrt(d)) V, the softmax over the words. Padding must get a weight of exactly 0, and the "
        "others must still sum to 1.",
        "Q = z @ W_Q.T, K = words @ W_K.T, V = words @ W_V.T; scores [batch, places, m]; "
        "masked_fill(~mask[:, None], -inf) before the softmax; then times V.",
    ),
    stub=_attend_stub,
    solution=_attend,
    check=_attend_check,
    wrong={
        "words_ask": WrongAnswer(_words_ask, "the words ask and the picture answers"),
        "not_scaled": WrongAnswer(_not_scaled, "not divided by sqrt(d)"),
        "scaled_by_d": WrongAnswer(_scaled_by_d, "are divided by d"),
        "softmax_over_places": WrongAnswer(_over_places, "over the places of the picture"),
        "mask_ignored": WrongAnswer(_mask_ignored, "padding is read"),
        "mask_upside_down": WrongAnswer(_mask_upside_down, "upside down"),
        "masked_after": WrongAnswer(_masked_after, "no longer sum to 1"),
        "masked_by_zero": WrongAnswer(_masked_by_zero, "exp(0) = 1"),
        "keys_are_values": WrongAnswer(_keys_are_values, "two things"),
    },
)

# ----------------------------------------------------------------------------------------- the weight of the adversary


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


WEIGHT = Exercise(
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
