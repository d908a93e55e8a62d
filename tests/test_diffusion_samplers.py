"""Diffusion: the samplers, on Gaussian data whose exact answer is known."""

import functools
import math

import pytest
import torch
from diffusion_checks import (
    ALL,
    INNER,
    SPREAD,
    check_ancestral,
    check_second_order,
    error,
    ideal,
    numbers,
    order,
    spread_after,
    transported,
)

from soralab.diffusion import (
    PREDICTIONS,
    SAMPLERS,
    Cosine,
    LinearBeta,
    RectifiedFlow,
    ScaledLinearBeta,
    ddim,
    ddpm,
    dpm_solver_pp,
    euler,
    heun,
    invert,
    shift_times,
    time_grid,
)

DETERMINISTIC = [ddim, euler, heun, dpm_solver_pp]
each_process = pytest.mark.parametrize("process", ALL, ids=repr)


@each_process
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_noise_becomes_the_data_distribution(sampler, process):
    # By latent diffusion's schedule sigma is 0.16 after a sixtieth of the time, by DDPM's 0.065: a longer last step.
    limit = 0.042 if isinstance(process, ScaledLinearBeta) else 0.035
    if sampler is not euler or process != LinearBeta(
        zero_terminal_snr=True
    ):  # whose slope is infinite at t = 1
        assert error(sampler, process, 60) < limit
    assert error(sampler, process, 60, t_start=0.4) < 0.02, "SDEdit: from the middle of the road"


@each_process
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_the_kind_of_prediction_makes_no_difference(sampler, process):
    results = [transported(sampler, process, 5, kind=kind, t_start=0.9) for kind in PREDICTIONS]
    for result in results[1:]:
        assert result == pytest.approx(results[0], abs=1e-9)


@pytest.mark.parametrize("sampler", [ddim, euler])
@pytest.mark.parametrize("process", [*ALL[:3], RectifiedFlow()], ids=repr)
def test_first_order(sampler, process):
    assert order(sampler, process, 60) == pytest.approx(1, abs=0.1)


def test_ddim_is_nearly_first_order_by_latent_diffusions_schedule():
    """Near the data sigma rises like the root of t, so beside 1 / steps stands a logarithm: the order comes from below.

    Euler's method takes equal steps in t and does not see it.
    """
    orders = [order(ddim, ScaledLinearBeta(), steps) for steps in (60, 240)]
    assert 0.8 < orders[0] < orders[1] < 1
    assert order(euler, ScaledLinearBeta(), 60) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("sampler", [heun, dpm_solver_pp])
def test_second_order(sampler):
    check_second_order(sampler)


@pytest.mark.parametrize("process", [Cosine(s=0.0), RectifiedFlow()], ids=repr)
def test_heun_is_cleanly_second_order_where_sigma_rises_like_t(process):
    for shift in (1.0, 2.0):
        assert order(heun, process, 80, shift=shift) == pytest.approx(2, abs=0.05)


def test_ddim_and_euler_agree_exactly_on_the_flow_and_in_the_limit_on_vp():
    def gap(process, steps):
        pairs = [transported(sampler, process, steps) for sampler in (ddim, euler)]
        return math.dist(*pairs)

    assert gap(RectifiedFlow(), 10) < 1e-12
    assert gap(Cosine(), 20) > 0.01
    assert gap(Cosine(), 40) / gap(Cosine(), 80) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_samplers_with_fresh_noise_have_the_variance_they_must(eta):
    check_ancestral(functools.partial(ddim, eta=eta), eta)
    gaps = [SPREAD - spread_after(Cosine(), steps, eta) for steps in (200, 400)]
    assert 0 < gaps[0] < 0.015 and gaps[0] / gaps[1] == pytest.approx(2, abs=0.2), "and tend to the data's"


def test_ddpm_has_the_variance_it_must():
    check_ancestral(ddpm)


@each_process
def test_ddim_with_eta_1_is_ddpm(process):
    denoise, x = process.denoiser(ideal(process, "v"), "v"), numbers(6, 2)
    first, second = (
        sampler(denoise, x, process, 10, generator=torch.Generator().manual_seed(3), **options)
        for sampler, options in ((ddpm, {}), (ddim, {"eta": 1.0}))
    )
    torch.testing.assert_close(first, second)


def test_large_variance_is_exact_for_standard_normal_data():
    # Only the last step, which adds no noise, is missing: the spread left is alpha there.
    process, steps = LinearBeta(), 10
    x = numbers(40_000, 1)
    out = {
        choice: ddpm(
            lambda x, t: (process.alpha(t) * x, process.sigma(t) * x),
            x,
            process,
            steps,
            variance=choice,
            generator=torch.Generator().manual_seed(5),
        ).std()
        for choice in ("large", "small")
    }
    assert float(out["large"]) == pytest.approx(float(process.alpha(1 / steps)), abs=0.01)
    assert out["small"] < out["large"] - 0.1


def test_inversion_then_sampling_is_the_identity():
    x = numbers(4, 2)
    for process in ALL:
        denoise = process.denoiser(
            ideal(process, "x"), "x"
        )  # "x" has no answer at t = 0: it must not be asked there
        noise = invert(denoise, x, process, 16, iterations=16)
        torch.testing.assert_close(ddim(denoise, noise, process, 16), x, rtol=0, atol=1e-5)

    def gap(steps):
        denoise = RectifiedFlow().denoiser(ideal(RectifiedFlow(), "v"), "v")
        noise = invert(denoise, x, RectifiedFlow(), steps, t_start=0.8, shift=2.0)
        return (ddim(denoise, noise, RectifiedFlow(), steps, t_start=0.8, shift=2.0) - x).abs().max().item()

    assert gap(40) / gap(80) == pytest.approx(2, abs=0.2), "one look: first order"


def test_inversion_with_a_constant_noise_prediction():
    process, x, eps = LinearBeta(), numbers(3, 2), numbers(3, 2, seed=4)
    denoise = process.denoiser(lambda x, t: eps, "eps")
    noise = invert(denoise, x, process, 25, iterations=30)
    torch.testing.assert_close(
        noise, process.add_noise(x, eps, 1.0)
    )  # then x_t is a straight mix, known at once
    torch.testing.assert_close(ddim(denoise, noise, process, 25), x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_generator_decides_everything(name):
    process, x = RectifiedFlow(), numbers(3, 2, dtype=torch.float32)
    denoise = process.denoiser(ideal(process, "v"), "v")
    options = {"eta": 0.7} if name == "ddim" else {}
    state = torch.get_rng_state()
    a, b, c = (
        SAMPLERS[name](denoise, x, process, 6, generator=torch.Generator().manual_seed(seed), **options)
        for seed in (1, 1, 2)
    )
    assert torch.equal(a, b) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a, c) == (name not in ("ddpm", "ddim"))


@pytest.mark.parametrize("name", SAMPLERS)
def test_callback_calls_and_network_calls(name):
    process, x, seen, calls = RectifiedFlow(), numbers(2, 2), [], []
    denoise = process.denoiser(lambda x, t: calls.append(float(t[0])) or 0.1 * x, "v")
    out = SAMPLERS[name](
        denoise, x, process, 4, t_start=0.8, shift=2.0, callback=lambda n, t, x, x0: seen.append((n, t, x))
    )
    assert [n for n, _, _ in seen] == [1, 2, 3, 4] and torch.equal(seen[-1][2], out)
    assert [t for _, t, _ in seen] == time_grid(4, 0.8, 2.0)[1:].tolist()
    assert len(calls) == (7 if name == "heun" else 4) and min(calls) > 0, "never asked at t = 0"
    known = torch.full_like(x, 5.0)
    assert torch.equal(SAMPLERS[name](denoise, x, process, 4, callback=lambda *_: known), known)


@pytest.mark.parametrize("name", [*SAMPLERS, "invert"])
def test_a_callback_is_told_what_the_network_believed(name):
    """x0 is the estimate that the step was made with: `denoise`'s at its beginning, of `heun` the mean of its two."""
    process, x, asked, told = RectifiedFlow(), numbers(2, 2), [], []

    def denoise(x, t):
        asked.append(process.denoiser(ideal(process, "v"), "v")(x, t))
        return asked[-1]

    sampler = invert if name == "invert" else SAMPLERS[name]
    sampler(denoise, x, process, 4, t_start=0.8, callback=lambda n, t, x, x0: told.append(x0))
    want = [x0 for x0, _ in asked]
    if name == "heun":
        want = [(a + b) / 2 for a, b in zip(want[:6:2], want[1:6:2], strict=True)] + want[6:]
    assert len(told) == 4 and all(torch.equal(a, b) for a, b in zip(told, want, strict=True))
    assert not any(torch.allclose(a, b) for a, b in zip(told, told[1:], strict=False))


def test_time_grid_and_shift():
    assert time_grid(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert time_grid(2, t_start=0.6).tolist() == pytest.approx([0.6, 0.3, 0])
    assert time_grid(2, t_start=0.6, shift=3.0).tolist() == pytest.approx([0.6, 0.45, 0]), "begins at t_start"
    for shift in (0.1, 0.7, 3.0, 7.0):
        t = torch.linspace(0, 1, 11, dtype=torch.float64)
        moved = shift_times(t, shift)
        assert moved[0] == 0 and moved[-1] == 1 and (moved.diff() > 0).all()
        torch.testing.assert_close(moved, shift * t / (1 + (shift - 1) * t))
        torch.testing.assert_close(shift_times(moved, 2.0), shift_times(t, 2 * shift))
        change = RectifiedFlow().log_snr(shift_times(INNER, shift)) - RectifiedFlow().log_snr(INNER)
        torch.testing.assert_close(change, torch.full_like(INNER, -2 * math.log(shift)))


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_one_step_ends_at_what_the_network_believes_at_the_start(sampler):
    process, x = RectifiedFlow(), numbers(6, 2)
    believed = x - ideal(process, "v")(x, torch.ones(6, dtype=x.dtype))
    torch.testing.assert_close(sampler(process.denoiser(ideal(process, "v"), "v"), x, process, 1), believed)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps: got 0"),
        ({"steps": 2.5}, "steps: got 2.5"),
        ({"steps": True}, "steps: got True"),
        ({"t_start": 0.0}, "t_start: got 0.0"),
        ({"t_start": 1.2}, "t_start: got 1.2"),
        ({"shift": -1.0}, "shift: got -1.0"),
        ({"shift": math.inf}, "shift: got inf"),
        ({"eta": 2.0}, "eta: got 2.0"),
        ({"eta": -1.0}, "eta: got -1.0"),
    ],
)
def test_bad_sampler_arguments_are_named(options, message):
    process = RectifiedFlow()
    with pytest.raises(ValueError, match=message):
        ddim(process.denoiser(ideal(process, "v"), "v"), numbers(1, 1), process, **{"steps": 2, **options})


def test_other_bad_choices_are_named():
    x, zero = numbers(1, 1), LinearBeta(zero_terminal_snr=True)
    denoise = zero.denoiser(ideal(zero, "v"), "v")
    with pytest.raises(ValueError, match="infinite slope at t = 1"):
        euler(denoise, x, zero, 3)
    with pytest.raises(ValueError, match="variance: got 'tiny'"):
        ddpm(denoise, x, zero, 3, variance="tiny")
    with pytest.raises(ValueError, match="iterations: got 0"):
        invert(denoise, x, zero, 3, iterations=0)
