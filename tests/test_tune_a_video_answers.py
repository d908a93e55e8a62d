"""Chapter 15's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise
from soralab.tune_a_video import sparse_causal


def mask_by_loops(frames, places):
    mask = np.zeros((frames * places, frames * places), dtype=bool)
    for i in range(frames):
        for j in {0, max(i - 1, 0)}:
            mask[i * places : (i + 1) * places, j * places : (j + 1) * places] = True
    return torch.from_numpy(mask)


def mask_by_the_package(frames, places):
    """Which token lies where among those that the package gathers for each frame."""
    numbers = torch.arange(frames * places).reshape(1, frames, 1, places, 1)
    met = sparse_causal(numbers)[0, :, 0, :, 0]
    mask = torch.zeros(frames, frames * places, dtype=torch.bool).scatter(1, met, True)
    return mask.repeat_interleave(places, 0)


def mask_by_blocks(frames, places):
    of_frames = F.pad(torch.eye(frames, dtype=torch.bool)[:-1], (0, 0, 1, 0))
    of_frames[:, 0] = True
    return torch.kron(of_frames.int(), torch.ones(places, places, dtype=torch.int)).bool()


def trained_by_parts(names):
    found = []
    for name in names:
        parts = name.split(".")
        if "over_time" in parts or (parts[-2] == "to_q" and parts[-3] in ("among", "across")):
            found.append(name)
    return found


def over_time_place_by_place(q, k, v, frames):
    out = torch.empty_like(v)
    for film in range(len(q) // frames):
        here = slice(film * frames, (film + 1) * frames)
        for place in range(q.shape[1]):
            a, b, c = (x[here, place] for x in (q, k, v))
            out[here, place] = (a @ b.T / q.shape[2] ** 0.5).softmax(-1) @ c
    return out


def over_time_by_einsum(q, k, v, frames):
    q, k, v = (x.unflatten(0, (-1, frames)) for x in (q, k, v))
    weights = torch.einsum("fipc,fjpc->fpij", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("fpij,fjpc->fipc", weights, v).flatten(0, 1)


def inverted_by_x0(z, network, alpha, sigma):
    for k, (a, s, to_a, to_s) in enumerate(zip(alpha, sigma, alpha[1:], sigma[1:], strict=False), 1):
        e = network(z, k)
        x0 = (z - s * e) / a
        z = to_a * x0 + to_s * e
    return z


def inverted_by_ratios(z, network, alpha, sigma):
    """In z / alpha, where a step is straight: Song et al.'s equation 13."""
    y = z / alpha[0]
    for k in range(1, len(alpha)):
        y = y + (sigma[k] / alpha[k] - sigma[k - 1] / alpha[k - 1]) * network(y * alpha[k - 1], k)
    return y * alpha[-1]


@pytest.mark.parametrize("name, answer", [
    ("may_attend", mask_by_loops), ("may_attend", mask_by_the_package), ("may_attend", mask_by_blocks),
    ("trained", trained_by_parts), ("along_time", over_time_place_by_place), ("along_time", over_time_by_einsum),
    ("inverted", inverted_by_x0), ("inverted", inverted_by_ratios),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"tune_a_video.{name}").judge(answer)) == "✓ right"


def mask_of_numbers(frames, places):
    return exercise("tune_a_video.may_attend").solution(frames, places).float()


def over_time_without_gradients(q, k, v, frames):
    with torch.no_grad():
        return over_time_by_einsum(q, k, v, frames)


def over_time_in_place(q, k, v, frames):
    q /= q.shape[2] ** 0.5
    return over_time_by_einsum(q * q.shape[2] ** 0.5, k, v, frames)


def over_time_unsafe(q, k, v, frames):
    """A softmax that overflows where logits are large."""
    q, k, v = (x.unflatten(0, (-1, frames)) for x in (q, k, v))
    weights = torch.einsum("fipc,fjpc->fpij", q, k).div(q.shape[-1] ** 0.5).exp()
    return torch.einsum("fpij,fjpc->fipc", weights / weights.sum(-1, keepdim=True), v).flatten(0, 1)


@pytest.mark.parametrize("name, answer, says", [
    ("may_attend", mask_of_numbers, "float32"),
    ("may_attend", lambda frames, places: mask_by_loops(frames, places).roll(1, 0), ""),
    ("trained", lambda names: set(trained_by_parts(names)), ""),
    ("trained", lambda names: [name for name in names if name.endswith("to_q.weight")], ""),
    ("along_time", over_time_without_gradients, "gradient"), ("along_time", over_time_in_place, "`q`"),
    ("along_time", over_time_unsafe, "large logits"),
    ("along_time", lambda q, k, v, frames: over_time_by_einsum(k, q, v, frames), ""),
    ("inverted", lambda z, network, alpha, sigma: -inverted_by_x0(z, network, alpha, sigma), ""),
    ("inverted", lambda z, network, alpha, sigma: inverted_by_x0(z, lambda z, k: network(z, k - 1), alpha, sigma),
     "levels from 1 on"),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer, says):
    task = exercise(f"tune_a_video.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong" and says in verdict.message
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def test_the_way_back_is_exact_where_the_network_always_finds_the_same():
    """What the exercise asks to compare: DDIM from the answer gives the film again, and only there."""
    task = exercise("tune_a_video.inverted")
    for case in task.drawn():
        z, network, alpha, sigma = case.args
        x = task.solution(z.double(), network, alpha, sigma)
        for k in range(len(alpha) - 1, 0, -1):
            e = network(x, k)
            x = alpha[k - 1] * (x - sigma[k] * e) / alpha[k] + sigma[k - 1] * e
        gap = float((x - z).abs().max())
        assert gap < 1e-6 if network.bend == 0 or len(alpha) == 1 else gap > 1e-6
