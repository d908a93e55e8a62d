"""What the diffusion tests share: Gaussian data, and checks that wrong versions can go through too.

With data N(MEAN, SPREAD^2) the best possible denoiser and the ODE's answer are known in closed form, so a
sampler has nothing to hide behind. All in float64.
"""

import math

import torch

from soralab.diffusion import PREDICTIONS, Cosine, LinearBeta, RectifiedFlow, ScaledLinearBeta, time_grid

MEAN, SPREAD = 0.7, 0.5
VP = [Cosine(), Cosine(s=0.0), LinearBeta(), LinearBeta(zero_terminal_snr=True), ScaledLinearBeta()]
ALL = [*VP, RectifiedFlow()]
INNER = torch.linspace(0.05, 0.95, 19, dtype=torch.float64) + 0.0003  # between steps of a discrete schedule


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ideal(process, kind, spread=SPREAD):
    """The best network for data N(MEAN, spread^2), written from Bayes' rule."""

    def network(x_t, t):
        a, s = (f(t).reshape(-1, *[1] * (x_t.ndim - 1)) for f in (process.alpha, process.sigma))
        z = (x_t - a * MEAN) / (a**2 * spread**2 + s**2)
        return process.target(MEAN + a * spread**2 * z, s * z, t, kind)

    return network


def transported(sampler, process, steps, kind="v", t_start=1.0, **options):
    """Mean and spread of what a deterministic sampler makes of the exact x_t, without any drawing of lots.

    With Gaussian data it is an affine map, so two points tell all.
    """
    a, s = float(process.alpha(t_start)), float(process.sigma(t_start))
    z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x = a * MEAN + math.sqrt(a**2 * SPREAD**2 + s**2) * z
    denoise = process.denoiser(ideal(process, kind), kind)
    out = sampler(denoise, x, process, steps, t_start=t_start, **options)[:, 0].tolist()
    return out[0], out[1] - out[0]


def error(sampler, process, steps, **options):
    mean, spread = transported(sampler, process, steps, **options)
    return math.hypot(mean - MEAN, spread - SPREAD)


def order(sampler, process, steps, **options):
    """Log2 of how much the error falls when the steps are doubled."""
    return math.log2(
        error(sampler, process, steps, **options) / error(sampler, process, 2 * steps, **options)
    )


def check_unit_variance(process):
    x0, eps = torch.tensor(
        [[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=torch.float64
    )  # uncorrelated, variance 1
    for t in torch.linspace(0, 1, 101, dtype=torch.float64):
        assert abs(process.add_noise(x0, eps, t).var(correction=0).item() - 1) < 1e-12, f"Var[x_t] at {t}"


def check_round_trip(process):
    x0, eps = numbers(len(INNER), 3), numbers(len(INNER), 3, seed=1)
    x_t = process.add_noise(x0, eps, INNER)
    for kind in PREDICTIONS:
        back = process.to_x0_eps(process.target(x0, eps, INNER, kind), x_t, INNER, kind)
        torch.testing.assert_close(torch.stack(back), torch.stack([x0, eps]), rtol=0, atol=1e-10)


def check_velocity(process):
    """v is the derivative of x_t: along t for the flow, along the angle arctan(sigma / alpha) for VP."""
    x0, eps, h = numbers(len(INNER), 3), numbers(len(INNER), 3, seed=1), 1e-4
    early, late = INNER - h, INNER + h
    turn = [torch.atan2(process.sigma(t), process.alpha(t)) for t in (early, late)]
    along = turn[1] - turn[0] if not isinstance(process, RectifiedFlow) else late - early
    slope = (process.add_noise(x0, eps, late) - process.add_noise(x0, eps, early)) / along[:, None]
    torch.testing.assert_close(process.target(x0, eps, INNER, "v"), slope, rtol=0, atol=1e-5)


def check_posterior(process):
    """q(x_s | x_t, x_0) by conditioning the joint Gaussian of (x_s, x_t): precisions add."""
    t, s = INNER[1:], INNER[:-1]
    scale = process.alpha(t) / process.alpha(s)
    prior = process.sigma(s) ** 2
    noise = process.sigma(t) ** 2 - scale**2 * prior
    precision = 1 / prior + scale**2 / noise
    on_x0, on_x, variance = process.posterior(t, s)
    expected = torch.stack([process.alpha(s) / prior / precision, scale / noise / precision, 1 / precision])
    torch.testing.assert_close(torch.stack([on_x0, on_x, variance]), expected, rtol=1e-9, atol=1e-12)


def check_second_order(sampler):
    """2M has a log N beside its N^-2, so its slope comes near 2 from below."""
    assert error(sampler, RectifiedFlow(), 80) < 3e-3 and order(sampler, RectifiedFlow(), 160) > 1.65


def spread_after(process, steps, eta=1.0):
    """The spread that a sampler with fresh noise must have after its steps, variance by variance."""
    grid, variance = time_grid(steps).tolist(), 1.0
    for t, s in zip(grid[:-2], grid[1:-1], strict=True):
        (a, b), (c, d) = ((float(process.alpha(u)), float(process.sigma(u))) for u in (t, s))
        fresh = eta**2 * d**2 * (1 - (a * d / (c * b)) ** 2)
        on_x0, on_eps = a * SPREAD**2 / (a**2 * SPREAD**2 + b**2), b / (a**2 * SPREAD**2 + b**2)
        variance = (c * on_x0 + math.sqrt(d**2 - fresh) * on_eps) ** 2 * variance + fresh
    return math.sqrt(variance) * c * SPREAD**2 / (c**2 * SPREAD**2 + d**2)  # the last step keeps x_0 alone


def check_ancestral(sampler, eta=1.0):
    process, generator = Cosine(), torch.Generator().manual_seed(1)
    denoise = process.denoiser(ideal(process, "v"), "v")
    x = sampler(denoise, numbers(40_000, 1), process, 40, generator=generator)
    assert abs(x.mean().item() - MEAN) < 0.02 and abs(x.std().item() - spread_after(process, 40, eta)) < 0.01


def check_transport(sampler):
    assert error(sampler, Cosine(), 100) < 0.01


def toy(x, t, c):
    """A network whose answer depends on all that it is given; c is [batch, 1]."""
    return torch.tanh(x * c) + t[:, None]


def check_guidance(guide):
    x, t = numbers(5, 3), torch.linspace(0, 1, 5, dtype=torch.float64)
    c, null = {"c": numbers(5, 1, seed=2)}, {"c": torch.zeros(1, 1, dtype=torch.float64)}
    with_c, without = toy(x, t, **c), toy(x, t, torch.zeros(5, 1, dtype=torch.float64))
    answers = {1: with_c, 0: without, 3: 3 * with_c - 2 * without, -1: 2 * without - with_c}
    for batched in (False, True):
        for scale, expected in answers.items():
            torch.testing.assert_close(guide(toy, c, null, scale, batched=batched)(x, t), expected)
