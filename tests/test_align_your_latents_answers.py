"""Chapter 10's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def beside_by_views(z, layer, alpha, frames):
    films, dim, height, width = z.shape[0] // frames, *z.shape[1:]
    x = z.view(films, frames, dim, height, width).permute(0, 3, 4, 1, 2).reshape(-1, frames, dim)
    x = layer(x).view(films, height, width, frames, dim).permute(0, 3, 4, 1, 2).reshape(z.shape)
    return x * (1 - alpha) + z * alpha


def beside_by_lerp(z, layer, alpha, frames):
    places = z.unflatten(0, (-1, frames)).flatten(3).transpose(1, 3)  # [films, places, dim, frames]
    new = layer(places.flatten(0, 1).mT).mT.unflatten(0, places.shape[:2])
    return torch.lerp(new.transpose(1, 3).reshape(z.shape), z, alpha)


def beside_by_stacking(z, layer, alpha, frames):
    films = z.split(frames)
    rows = [film[:, :, i, j] for film in films for i in range(z.shape[2]) for j in range(z.shape[3])]
    new = layer(torch.stack(rows)).split(z.shape[2] * z.shape[3])
    new = [places.permute(1, 2, 0).reshape(film.shape) for places, film in zip(new, films, strict=True)]
    return alpha * z + (1 - alpha) * torch.cat(new)


def told_by_assignment(z, given):
    known = z.new_zeros(*z.shape[:2], z.shape[2] + 1, *z.shape[3:])
    known[:, :, :-1][given] = z[given]
    known[:, :, -1][given] = 1
    return known


def told_by_a_padded_film(z, given):
    whole = F.pad(z, (0, 0, 0, 0, 0, 1), value=1.0)
    return whole.masked_fill(~given[:, :, None, None, None], 0.0)


def windows_by_a_grid(keys, new, window):
    whole = [(k + j / (new + 1), j == 0) for k in range(keys) for j in range(new + 1)][: (keys - 1) * (new + 1) + 1]
    size = window * (new + 1)
    parts = [whole[first : first + size + 1] for first in range(0, len(whole) - 1, size)]
    return [([moment for moment, _ in part], [given for _, given in part]) for part in parts]


def windows_by_torch(keys, new, window):
    plan, start = [], 0
    while start < keys - 1:
        end = min(start + window, keys - 1)
        moments = torch.linspace(start, end, (end - start) * (new + 1) + 1, dtype=torch.float64)
        plan.append((moments.tolist(), [k % (new + 1) == 0 for k in range(len(moments))]))
        start = end
    return plan


def filled_by_formulas(network, z, given, noise, alpha, sigma, scale):
    known = told_by_assignment(z, given)
    x = noise.clone()
    for a, s, a_next, s_next, k in zip(alpha, sigma, alpha[1:], sigma[1:], range(len(alpha)), strict=False):
        eps = (1 - scale) * network(x, k, known * 0) + scale * network(x, k, known)
        x = a_next / a * x + (s_next - a_next * s / a) * eps
    x[given] = z[given]
    return x


@pytest.mark.parametrize("name, answer", [
    ("beside", beside_by_views), ("beside", beside_by_lerp), ("beside", beside_by_stacking),
    ("told", told_by_assignment), ("told", told_by_a_padded_film),
    ("windows", windows_by_a_grid), ("windows", windows_by_torch), ("filled", filled_by_formulas),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"align_your_latents.{name}").judge(answer)) == "✓ right"


def one_layer_for_all(z, layer, alpha, frames):
    """The mean over places instead of each place by itself."""
    x = z.unflatten(0, (-1, frames)).mean((3, 4))
    return alpha * z + (1 - alpha) * layer(x).flatten(0, 1)[:, :, None, None].expand_as(z)


def backwards(z, layer, alpha, frames):
    solution = exercise("align_your_latents.beside").solution
    return solution(z, lambda x: layer(x.flip(1)).flip(1), alpha, frames)


def mask_of_2(z, given):
    return exercise("align_your_latents.told").solution(z, given) * 2


def windows_from_the_end(keys, new, window):
    return exercise("align_your_latents.windows").solution(keys, new, window)[::-1]


def one_step_too_few(network, z, given, noise, alpha, sigma, scale):
    return exercise("align_your_latents.filled").solution(network, z, given, noise, alpha[:-1], sigma[:-1], scale)


@pytest.mark.parametrize("name, answer", [
    ("beside", one_layer_for_all), ("beside", backwards), ("told", mask_of_2), ("windows", windows_from_the_end),
    ("filled", one_step_too_few),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    task = exercise(f"align_your_latents.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def beside_cut(z, layer, alpha, frames):
    return beside_by_views(z, lambda x: layer(x).detach(), alpha, frames)


def told_cut(z, given):
    return told_by_assignment(z.detach(), given)


@pytest.mark.parametrize("name, answer", [("beside", beside_cut), ("told", told_cut)])
def test_what_cannot_be_trained_through_is_refused(name, answer):
    verdict = exercise(f"align_your_latents.{name}").judge(answer)
    assert verdict.state == "wrong" and "gradient" in verdict.message
