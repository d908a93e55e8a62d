"""Chapter 14's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def kernel_by_matrices(space, time):
    product = time.permute(2, 0, 1) @ space.flatten(1)  # [taps, out, the rest]
    return product.transpose(0, 1).unflatten(2, space.shape[1:]).transpose(1, 2)


def kernel_by_impulses(space, time):
    """What both do to a 1 in each channel, at the middle of a film; a kernel is met back to front."""
    taps, rows, columns = time.shape[2], *space.shape[2:]
    dim = space.shape[1]
    film = torch.zeros(dim, dim, 2 * taps - 1, 2 * rows - 1, 2 * columns - 1, dtype=space.dtype)
    film[range(dim), range(dim), taps - 1, rows - 1, columns - 1] = 1
    seen = F.conv3d(F.conv3d(film, space[:, :, None]), time[..., None, None])
    return seen.flip(2, 3, 4).transpose(0, 1)


def kernel_by_loops(space, time):
    return torch.stack([
        torch.stack([(time[:, m, t, None, None, None] * space[m]) for m in range(len(space))]).sum(0)
        for t in range(time.shape[2])
    ], 2)  # fmt: skip


def rate_by_fractions(length, fps, rate, count, start):
    step = Fraction(fps) / Fraction(rate)
    numbers = [start + math.floor(k * step + Fraction(1, 2)) for k in range(count)]
    return numbers if rate <= fps and numbers[-1] <= length - 1 else []


def rate_by_moments(length, fps, rate, count, start):
    """Looks for the nearest of all frames, from the last one down."""
    if rate > fps:
        return []
    numbers = []
    for k in range(count):
        moment = start + k * fps / rate
        numbers.append(min(range(length, -1, -1), key=lambda n: abs(n - moment)))
    return numbers if max(numbers) < length else []


def longer_by_a_list(film, z, keep, window, total):
    frames = list(z.unbind(1))
    given = torch.zeros(len(z), window, dtype=torch.bool)
    given[:, :keep] = True
    for _ in range(math.ceil((total - len(frames)) / (window - keep))):
        known = torch.stack(frames[-keep:] + [torch.zeros_like(z[:, 0])] * (window - keep), 1)
        frames += film(known, given).unbind(1)[keep:]
    return torch.stack(frames[:total], 1)


def longer_in_its_place(film, z, keep, window, total):
    n = z.shape[1]
    out = z.new_zeros(len(z), total + window, *z.shape[2:])
    out[:, :n] = z
    while n < total:
        known, given = z.new_zeros(len(z), window, *z.shape[2:]), torch.zeros(len(z), window).bool()
        known[:, :keep], given[:, :keep] = out[:, n - keep : n], True
        out[:, n - keep : n - keep + window] = film(known, given)
        n += window - keep
    return out[:, :total]


def enlarged_film_by_film(network, draw, small, alpha, sigma):
    films = []
    for i, film in enumerate(small):
        x = draw(0, len(small))[i].expand(len(film), -1, -1, -1)
        for k in range(len(alpha) - 1):
            x0 = (x - sigma[k] * network(x, k, film)) / alpha[k]
            x = alpha[k + 1] * x0 + sigma[k + 1] * draw(k + 1, len(small))[i]
        films.append(x)
    return torch.stack(films)


def enlarged_by_broadcasting(network, draw, small, alpha, sigma):
    x, last = draw(0, len(small))[:, None].expand(-1, small.shape[1], -1, -1, -1), len(alpha) - 1
    for k in range(last):
        eps = network(x.flatten(0, 1), k, small.flatten(0, 1)).view(x.shape)
        x = (x - sigma[k] * eps) / alpha[k] * alpha[k + 1]
        if k + 1 < last:
            x = x + sigma[k + 1] * draw(k + 1, len(small))[:, None]
    return x


@pytest.mark.parametrize("name, answer", [
    ("one_kernel", kernel_by_matrices), ("one_kernel", kernel_by_impulses), ("one_kernel", kernel_by_loops),
    ("at_rate", rate_by_fractions), ("at_rate", rate_by_moments),
    ("longer", longer_by_a_list), ("longer", longer_in_its_place),
    ("enlarged", enlarged_film_by_film), ("enlarged", enlarged_by_broadcasting),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"make_a_video.{name}").judge(answer)) == "✓ right"


def test_one_kernel_does_what_both_do():
    torch.manual_seed(0)
    space, time, film = torch.randn(5, 3, 3, 3), torch.randn(4, 5, 3), torch.randn(2, 3, 6, 5, 4)
    both = F.conv3d(F.conv3d(film, space[:, :, None], padding=(0, 1, 1)), time[..., None, None], padding=(1, 0, 0))
    one = exercise("make_a_video.one_kernel").solution(space, time)
    torch.testing.assert_close(F.conv3d(film, one, padding=1), both, atol=1e-4, rtol=1e-4)


# --------------------------------------------------------- slips as readers write them, and what each of them is told


def kernel_of_each_channel(space, time):
    return torch.stack([time[k, k, :, None, None] * space[k, :, None] for k in range(max(len(space), len(time)))])


def kernel_of_summed_taps(space, time):
    return torch.stack([space * taps[:, None, None, None] for taps in time.sum(1).unbind(1)], 2)


def kernel_of_sums(space, time):
    return (time[:, :, None, :, None, None] * space[:, :, None].sum(0)).sum(1)


def kernel_frames_last(space, time):
    return (time[:, :, None, None, None] * space[..., None]).sum(1)


def rate_as_a_slice(length, fps, rate, count, start):
    numbers = list(range(start, 10**4, math.floor(fps / rate + 0.5)))[:count] if rate <= fps else []
    return numbers if numbers and numbers[-1] < length else []


def rate_as_a_slice_cut(length, fps, rate, count, start):
    numbers = [start + k * int(fps // rate) for k in range(count)] if rate <= fps else [length]
    return numbers if numbers[-1] < length else []


def rate_by_linspace(length, fps, rate, count, start):
    if rate > fps:
        return []
    moments = torch.linspace(0, count / rate, count, dtype=torch.float64) if count > 1 else torch.zeros(1)
    numbers = [start + int(moment * fps + 0.5) for moment in moments]
    return numbers if numbers[-1] < length else []


def rate_by_torch(length, fps, rate, count, start):
    numbers = (start + (torch.arange(count, dtype=torch.float64) * fps / rate).round().long()).tolist()
    return [] if rate > fps or numbers[-1] >= length else numbers


def rate_clamped(length, fps, rate, count, start):
    if rate > fps:
        return []
    places = torch.arange(count, dtype=torch.float64) * fps / rate
    return (start + (places + 0.5).floor().long()).clamp(max=length - 1).tolist()


def longer_with(z_of, film, z, keep, window, total, more=0):
    """A list of frames, of which each window is given what `z_of` picks out."""
    frames, n = list(z.unbind(1)), z.shape[1]
    while len(frames) < total + more:
        told = z_of(frames, n)
        known = torch.stack(told + [torch.zeros_like(told[0])] * (window - len(told)), 1)
        given = torch.zeros(len(z), window).bool()
        given[:, : len(told)] = True
        frames += film(known, given).unbind(1)[len(told) :]
    return torch.stack(frames[: total + more], 1)


def longer_from_the_first(film, z, keep, window, total):
    return longer_with(lambda frames, n: frames[:keep], film, z, keep, window, total)


def longer_from_z(film, z, keep, window, total):
    return longer_with(lambda frames, n: frames[n - keep : n], film, z, keep, window, total)


def longer_backwards(film, z, keep, window, total):
    return longer_with(lambda frames, n: frames[: -keep - 1 : -1], film, z, keep, window, total)


def longer_from_all(film, z, keep, window, total):
    return longer_with(lambda frames, n: frames[-(window - 1) :], film, z, keep, window, total)


def longer_by_total(film, z, keep, window, total):
    return longer_with(lambda frames, n: frames[-keep:], film, z, keep, window, total, more=z.shape[1])


def longer_joined_whole(film, z, keep, window, total):
    parts, last, given = [z], z, (torch.arange(window) < keep).repeat(len(z), 1)
    while sum(part.shape[1] for part in parts) < total:
        known = torch.zeros(len(z), window, *z.shape[2:], dtype=z.dtype)
        known[:, :keep] = last[:, -keep:]
        last = film(known, given)
        parts.append(last)
    return torch.cat(parts, 1)[:, :total]


def noises(choose, later=None):
    """A sampler in a film's five axes; choose(draw, k, batch, frames) lays the noise [batch, frames, ...]."""

    def enlarge(network, draw, small, alpha, sigma):
        batch, frames = small.shape[:2]
        x = choose(draw, 0, batch, frames)
        for k in range(len(alpha) - 1):
            eps = network(x.flatten(0, 1), k, small.flatten(0, 1)).unflatten(0, (batch, frames))
            x0 = (x - sigma[k] * eps) / alpha[k]
            x = alpha[k + 1] * x0 + sigma[k + 1] * (later or choose)(draw, k + 1, batch, frames)
        return x

    return enlarge


def own(draw, k, batch, frames):
    return draw(k, batch * frames).unflatten(0, (batch, frames))


def shared(draw, k, batch, frames):
    return torch.stack([draw(k, batch)] * frames, 1)


def of_the_first_film(draw, k, batch, frames):
    return draw(k, 1)[None].repeat(batch, frames, 1, 1, 1)


def of_each_moment(draw, k, batch, frames):
    return draw(k, frames)[None].repeat(batch, 1, 1, 1, 1)


def stacked_and_read_otherwise(draw, k, batch, frames):
    return torch.stack([draw(k, batch)] * frames).flatten(0, 1).unflatten(0, (batch, frames))


@pytest.mark.parametrize("name, mistake, answer", [
    ("one_kernel", "sums_before_products", kernel_of_summed_taps), ("one_kernel", "sums_of_both", kernel_of_sums),
    ("one_kernel", "frames_last", kernel_frames_last),
    ("at_rate", "step_rounded", rate_as_a_slice), ("at_rate", "step_cut", rate_as_a_slice_cut),
    ("at_rate", "one_gap_too_many", rate_by_linspace), ("at_rate", "half_to_even", rate_by_torch),
    ("at_rate", "last_frame_repeated", rate_clamped),
    ("longer", "first_ones_again", longer_from_the_first), ("longer", "always_z", longer_from_z),
    ("longer", "in_reverse", longer_backwards), ("longer", "all_that_there_is", longer_from_all),
    ("longer", "so_many_more", longer_by_total), ("longer", "shown_twice", longer_joined_whole),
    ("enlarged", "each_frame_its_own", noises(own)), ("enlarged", "start_alone_shared", noises(shared, own)),
    ("enlarged", "start_not_shared", noises(own, shared)), ("enlarged", "one_for_all_films", noises(of_the_first_film)),
    ("enlarged", "one_for_each_moment", noises(of_each_moment)),
    ("enlarged", "dealt_out", noises(stacked_and_read_otherwise)),
])  # fmt: skip
def test_a_slip_is_told_by_its_own_sentence(name, mistake, answer):
    task = exercise(f"make_a_video.{name}")
    says = task.mistakes[mistake].says
    assert task.judge(answer).message == says and [one.says for one in task.mistakes.values()].count(says) == 1


def test_a_sampler_in_five_axes_is_right():
    assert str(exercise("make_a_video.enlarged").judge(noises(shared))) == "✓ right"


def kernel_doubled(space, time):
    return 2 * exercise("make_a_video.one_kernel").solution(space, time)


def rate_one_late(length, fps, rate, count, start):
    return [number + 1 for number in exercise("make_a_video.at_rate").solution(length, fps, rate, count, start)]


def longer_by_the_mean(film, z, keep, window, total):
    return exercise("make_a_video.longer").solution(film, z.mean(1, keepdim=True).expand_as(z), keep, window, total)


def enlarged_a_step_short(network, draw, small, alpha, sigma):
    return exercise("make_a_video.enlarged").solution(network, draw, small, alpha[:-1], sigma[:-1])


@pytest.mark.parametrize("name, answer", [
    ("one_kernel", kernel_doubled), ("one_kernel", kernel_of_each_channel), ("at_rate", rate_one_late),
    ("longer", longer_by_the_mean), ("enlarged", enlarged_a_step_short),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    task = exercise(f"make_a_video.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def test_a_kernel_that_cannot_be_trained_through_is_refused():
    verdict = exercise("make_a_video.one_kernel").judge(lambda space, time: kernel_by_matrices(space.detach(), time))
    assert verdict.state == "wrong" and "gradient" in verdict.message
