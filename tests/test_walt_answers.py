"""Chapter 11's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import numpy as np
import pytest
import torch

from soralab.exercises import exercise


def kernel_by_padding(kernel, taps):
    return torch.nn.functional.pad(kernel.unsqueeze(2), (0, 0, 0, 0, taps - 1, 0))


def kernel_slot_by_slot(kernel, taps):
    film = kernel.new_zeros(kernel.shape[0], kernel.shape[1], taps, *kernel.shape[2:])
    film[:, :, -1] = kernel
    return film


def order_by_sorting(size, window):
    """Each token's window and place, and a stable sort by them."""
    places = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, 3).numpy()
    cells = places // np.array(window)
    return torch.from_numpy(np.lexsort((*places.T[::-1], *cells.T[::-1])))


def order_by_loops(size, window):
    tokens = []
    for t in range(0, size[0], window[0]):
        for y in range(0, size[1], window[1]):
            for x in range(0, size[2], window[2]):
                tokens += [(a * size[1] + b) * size[2] + c for a in range(t, t + window[0])
                           for b in range(y, y + window[1]) for c in range(x, x + window[2])]  # fmt: skip
    return torch.tensor(tokens)


def bent_by_a_line(alpha_bar):
    """A line through (last, 0) and (first, first), of the shares."""
    share = alpha_bar.sqrt()
    slope = share[0] / (share[0] - share[-1])
    return (slope * share - slope * share[-1]) ** 2


def sampler_by_angles(network, x, alpha, sigma):
    """DDIM as a turn in the plane of x and v, whose coordinates at each time are angles."""
    angles = [np.arctan2(s, a) for a, s in zip(alpha, sigma, strict=True)]
    previous = 0 * x
    for k, (here, there) in enumerate(zip(angles, angles[1:], strict=False)):
        v = network(x, k, previous)
        previous = float(np.cos(here)) * x - float(np.sin(here)) * v
        x = float(np.cos(here - there)) * x - float(np.sin(here - there)) * v
    return x


@pytest.mark.parametrize("name, answer", [
    ("walt.inflate_kernel", kernel_by_padding), ("walt.inflate_kernel", kernel_slot_by_slot),
    ("walt.window_order", order_by_sorting), ("walt.window_order", order_by_loops),
    ("walt.no_film_left", bent_by_a_line), ("walt.with_memory", sampler_by_angles),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(name).judge(answer)) == "✓ right"


def linear_to_zero(alpha_bar):
    """Right at both ends, straight between."""
    return torch.linspace(1, 0, len(alpha_bar), dtype=alpha_bar.dtype) * alpha_bar[0]


def one_step_too_few(network, x, alpha, sigma):
    return exercise("walt.with_memory").solution(network, x, alpha[:-1], sigma[:-1])


def windows_backwards(size, window):
    return exercise("walt.window_order").solution(size, window).flip(0)


@pytest.mark.parametrize("name, answer", [
    ("walt.inflate_kernel", lambda kernel, taps: 2 * kernel_by_padding(kernel, taps)),
    ("walt.window_order", windows_backwards), ("walt.no_film_left", linear_to_zero),
    ("walt.with_memory", one_step_too_few),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    verdict = exercise(name).judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in exercise(name).mistakes.values()}
