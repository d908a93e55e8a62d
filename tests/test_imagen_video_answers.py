"""Chapter 09's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import math

import pytest
import torch

from soralab.exercises import exercise


def solution(name):
    return exercise(f"imagen_video.{name}").solution


def bounded_by_loops(z, v, alpha, sigma, share):
    films, noises = [], []
    for one, answer in zip(z, v, strict=True):
        x = alpha * one - sigma * answer
        q = torch.clamp(torch.quantile(x.abs().flatten(), share), min=1.0)
        films.append(torch.maximum(torch.minimum(x, q), -q) / q)
        noises.append((one - alpha * films[-1]) / sigma)
    return torch.stack(films), torch.stack(noises)


def bounded_by_ratio(z, v, alpha, sigma, share):
    x = z * alpha - v * sigma
    q = torch.quantile(x.abs().flatten(1), share, dim=1).maximum(torch.ones(len(x), dtype=x.dtype))
    x = (x / q.reshape(-1, 1, 1, 1, 1)).clamp(-1, 1)
    return [x, z / sigma - x * (alpha / sigma)]


def given_by_a_mask(low, eps, level):
    n, frames = low.shape[1], eps.shape[1]
    place = torch.arange(frames) * (n - 1) // max(frames - 1, 1)
    held = torch.stack([low[:, int(k)] for k in place], 1)
    return torch.einsum("b...,b->b...", held, (math.pi / 2 * level).cos()) + torch.einsum(
        "b...,b->b...", eps, (math.pi / 2 * level).sin())


def given_film_by_film(low, eps, level):
    n, frames = low.shape[1], eps.shape[1]
    rows = []
    for film, noise, s in zip(low, eps, level, strict=True):
        shown = [film[max(j for j in range(n) if j * max(frames - 1, 1) <= k * max(n - 1, 1))] if n > 1 else film[0]
                 for k in range(frames)]
        rows.append(torch.stack(shown) * torch.cos(s * math.pi / 2) + noise * torch.sin(s * math.pi / 2))
    return torch.stack(rows)


def pictures_by_index(x, layer, alone):
    frames = len(x) // len(alone)
    rows = x.unflatten(0, (-1, frames))
    made = layer(rows.flatten(3).transpose(1, 2)).transpose(1, 2).reshape(rows.shape)
    out = rows.clone()
    out[~alone] = made[~alone]
    return out.flatten(0, 1)


def pictures_by_stacking(x, layer, alone):
    frames = len(x) // len(alone)
    rows = torch.stack(x.split(frames))
    made = layer(rows.permute(0, 2, 1, 3, 4).flatten(3)).unflatten(3, x.shape[2:]).permute(0, 2, 1, 3, 4)
    return torch.cat([row if still else new for row, new, still in zip(rows, made, alone, strict=True)])


def one_by_eps(teacher, z, alpha, sigma):
    """Solved for eps first; for the last step, where that is 0 / 0, by x_0."""
    there = z
    for k in (0, 1):
        v = teacher(there, k)
        there = alpha[k + 1] * (alpha[k] * there - sigma[k] * v) + sigma[k + 1] * (sigma[k] * there + alpha[k] * v)
    cross = alpha[2] * sigma[0] - alpha[0] * sigma[2]
    x0, eps = (sigma[0] * there - sigma[2] * z) / cross, (alpha[2] * z - alpha[0] * there) / cross
    return alpha[0] * eps - sigma[0] * x0


def one_by_turning(teacher, z, alpha, sigma):
    """A DDIM step turns z and v by the angle between two times."""
    angles = [math.atan2(s, a) for s, a in zip(sigma, alpha, strict=True)]
    there = z
    for k in (0, 1):
        turn = angles[k] - angles[k + 1]
        there = math.cos(turn) * there - math.sin(turn) * teacher(there, k)
    turn = angles[0] - angles[2]
    return (math.cos(turn) * z - there) / math.sin(turn)


@pytest.mark.parametrize("name, answer", [
    ("bounded", bounded_by_loops), ("bounded", bounded_by_ratio), ("given", given_by_a_mask),
    ("given", given_film_by_film), ("pictures", pictures_by_index), ("pictures", pictures_by_stacking),
    ("one_for_two", one_by_eps), ("one_for_two", one_by_turning),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"imagen_video.{name}").judge(answer)) == "✓ right"


def the_other_way_round(z, v, alpha, sigma, share):
    return solution("bounded")(z, v, alpha, sigma, share)[::-1]


def always_loud(z, v, alpha, sigma, share):
    x = alpha * z - sigma * v
    x = x / x.flatten(1).abs().amax(1).clamp(min=1)[:, None, None, None, None]
    return x, (z - alpha * x) / sigma


def noise_before_frames(low, eps, level):
    return solution("given")(low, eps.flip(1), level)


def whole_turn(low, eps, level):
    return solution("given")(low, eps, 2 * level)


def neighbours_seen(x, layer, alone):
    made = solution("pictures")(x, layer, alone)
    return torch.where(alone.repeat_interleave(len(x) // len(alone))[:, None, None, None], x.roll(1, 0), made)


def halved(teacher, z, alpha, sigma):
    return solution("one_for_two")(teacher, z, alpha, sigma) / 2


@pytest.mark.parametrize("name, answer", [
    ("bounded", the_other_way_round), ("bounded", always_loud), ("given", noise_before_frames), ("given", whole_turn),
    ("pictures", neighbours_seen), ("one_for_two", halved),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    task = exercise(f"imagen_video.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def test_the_student_s_place_is_the_teacher_s():
    """The exercise's v leads where two steps lead, as the package's `two_steps` has it."""
    from soralab.imagen_video import PROCESS, two_steps

    z, t = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    times = torch.tensor([0.5, 0.375, 0.25])
    alpha, sigma = PROCESS.alpha(times).tolist(), PROCESS.sigma(times).tolist()
    v = solution("one_for_two")(lambda x, k: (x + k).tanh(), z, alpha, sigma)
    asked = iter((0, 1))
    x0 = two_steps(lambda x, t: (x + next(asked)).tanh(), z, t, 4)
    torch.testing.assert_close(v, (alpha[0] * z - x0) / sigma[0], rtol=1e-4, atol=1e-5)


def pictures_cut(x, layer, alone):
    return solution("pictures")(x, lambda rows: layer(rows).detach(), alone)


def test_what_cannot_be_trained_through_is_refused():
    verdict = exercise("imagen_video.pictures").judge(pictures_cut)
    assert verdict.state == "wrong" and "gradient" in verdict.message


def film_by_film(z, v, alpha, sigma, share):
    """As a sampler may: without gradients, one film after the other."""
    with torch.no_grad():
        x0, found = alpha * z - sigma * v, []
        for film in x0:
            q = max(1.0, film.abs().flatten().quantile(share).item())
            found.append(film.clamp(-q, q) / q)
        clipped = torch.stack(found)
        return clipped, (z - alpha * clipped) / sigma


def test_a_sampler_s_step_need_not_be_trained_through():
    assert exercise("imagen_video.bounded").judge(film_by_film).state == "right"
