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


# --------------------------------------------------------- slips as readers write them, and what each of them is told


def places_outermost(z, layer, alpha, frames):
    films, dim, height, width = z.shape[0] // frames, *z.shape[1:]
    x = z.view(films, frames, dim, height, width).permute(3, 4, 0, 1, 2)
    new = layer(x.reshape(-1, frames, dim)).view(x.shape).permute(2, 3, 4, 0, 1)
    return alpha * z + (1 - alpha) * new.reshape(z.shape)


def a_call_a_film(z, layer, alpha, frames):
    films = []
    for film in z.split(frames):
        new = layer(film.flatten(2).permute(2, 0, 1))
        films.append(new.permute(1, 2, 0).reshape(film.shape))
    return alpha * z + (1 - alpha) * torch.cat(films)


def a_call_a_place(z, layer, alpha, frames):
    new = torch.empty_like(z)
    for i in range(z.shape[2]):
        for j in range(z.shape[3]):
            new[:, :, i, j] = layer(z[:, :, i, j].unflatten(0, (-1, frames))).flatten(0, 1)
    return alpha * z + (1 - alpha) * new


def a_call_a_sequence(z, layer, alpha, frames):
    new = torch.empty_like(z)
    for k in range(0, len(z), frames):
        for i in range(z.shape[2]):
            for j in range(z.shape[3]):
                new[k : k + frames, :, i, j] = layer(z[None, k : k + frames, :, i, j])[0]
    return alpha * z + (1 - alpha) * new


def whole_film(keys, new):
    return [(k / (new + 1), k % (new + 1) == 0) for k in range((keys - 1) * (new + 1) + 1)]


def told_apart(parts):
    return [([moment for moment, _ in part], [given for _, given in part]) for part in parts]


def windows_of_so_many_frames(keys, new, window):
    whole = whole_film(keys, new)
    return told_apart(whole[k : k + window] for k in range(0, len(whole) - 1, window - 1))


def windows_of_so_many_steps(keys, new, window):
    whole = whole_film(keys, new)
    return told_apart(whole[k : k + window + 1] for k in range(0, len(whole) - 1, window))


def windows_of_so_many_keys(keys, new, window):
    whole, size = whole_film(keys, new), (window - 1) * (new + 1)
    return told_apart(whole[k : k + size + 1] for k in range(0, len(whole) - 1, size))


def windows_that_deal_out_keys(keys, new, window):
    parts = [list(range(keys))[k : k + window] for k in range(0, keys, window)]
    return told_apart([one for one in whole_film(keys, new) if part[0] <= one[0] <= part[-1]] for part in parts)


def windows_from_key_one(keys, new, window):
    whole, size = whole_film(keys, new), window * (new + 1)
    return told_apart(whole[k : k + size + 1] for k in range(new + 1, len(whole) - 1, size))


def windows_from_moment_one(keys, new, window):
    whole, size = [(moment + 1, given) for moment, given in whole_film(keys, new)], window * (new + 1)
    return told_apart(whole[k : k + size + 1] for k in range(0, len(whole) - 1, size))


def windows_without_their_ends(keys, new, window):
    whole, size = whole_film(keys, new)[:-1], window * (new + 1)
    return told_apart(whole[k : k + size] for k in range(0, len(whole), size))


def windows_without_the_film_s_end(keys, new, window):
    whole, size = whole_film(keys, new)[:-1], window * (new + 1)
    return told_apart(whole[k : k + size + 1] for k in range(0, len(whole), size))


def windows_of_one_length_pulled_back(keys, new, window):
    whole, size = whole_film(keys, new), window * (new + 1)
    return told_apart(whole[k : k + size + 1] if k + size < len(whole) else whole[-size - 1 :]
                      for k in range(0, len(whole) - 1, size))  # fmt: skip


def windows_of_one_length(keys, new, window):
    whole, size = whole_film(keys + window, new), window * (new + 1)
    return told_apart(whole[k : k + size + 1] for k in range(0, (keys - 1) * (new + 1), size))


def sampler(prepare=None, guess=None, nothing=None, guided=lambda alone, told, s: alone + s * (told - alone)):
    """A sampler by assignments, with one thing done otherwise: before each step, to x_0, to c_S of nothing, to eps."""

    def fill(network, z, given, noise, alpha, sigma, scale):
        known, x = told_by_assignment(z, given), noise.clone()
        for k in range(len(sigma) - 1):
            if prepare:
                x[given] = prepare(z[given], noise[given], alpha[k], sigma[k])
            alone = network(x, k, nothing(known.clone()) if nothing else known * 0)
            eps = guided(alone, network(x, k, known), scale)
            x0 = (x - sigma[k] * eps) / alpha[k]
            if guess:
                x0[given] = z[given]
            x = alpha[k + 1] * x0 + sigma[k + 1] * eps
        x[given] = z[given]
        return x

    return fill


def latents_forgotten(known):
    known[:, :, :-1] = 0
    return known


@pytest.mark.parametrize("name, mistake, answer", [
    ("beside", "places_outermost", places_outermost), ("beside", "a_call_a_film", a_call_a_film),
    ("beside", "a_call_a_place", a_call_a_place), ("beside", "a_call_a_sequence", a_call_a_sequence),
    ("windows", "counted_in_frames", windows_of_so_many_frames),
    ("windows", "counted_in_steps", windows_of_so_many_steps),
    ("windows", "counted_in_keys", windows_of_so_many_keys), ("windows", "keys_shared_out", windows_that_deal_out_keys),
    ("windows", "first_gap_left_out", windows_from_key_one), ("windows", "counted_from_one", windows_from_moment_one),
    ("windows", "ends_left_off", windows_without_their_ends),
    ("windows", "last_frame_left_off", windows_without_the_film_s_end),
    ("windows", "pulled_back", windows_of_one_length_pulled_back), ("windows", "always_full", windows_of_one_length),
    ("filled", "noised_before_each_step", sampler(prepare=lambda z, noise, a, s: a * z + s * noise)),
    ("filled", "put_into_each_guess", sampler(guess=True)),
    ("filled", "mask_left_at_one", sampler(nothing=latents_forgotten)),
    ("filled", "guided_from_the_told", sampler(guided=lambda alone, told, s: told + s * (alone - told))),
    ("filled", "guided_away", sampler(guided=lambda alone, told, s: alone - s * (told - alone))),
])  # fmt: skip
def test_a_slip_is_told_by_its_own_sentence(name, mistake, answer):
    task = exercise(f"align_your_latents.{name}")
    says = task.mistakes[mistake].says
    assert task.judge(answer).message == says and [one.says for one in task.mistakes.values()].count(says) == 1


def test_a_sampler_by_assignments_is_right():
    assert str(exercise("align_your_latents.filled").judge(sampler())) == "✓ right"


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
