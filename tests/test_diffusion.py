"""Diffusion: processes, training loss and guidance, every equation against an independent route."""

import math

import pytest
import torch
from diffusion_checks import (
    ALL,
    INNER,
    MEAN,
    SPREAD,
    VP,
    check_guidance,
    check_posterior,
    check_round_trip,
    check_unit_variance,
    check_velocity,
    ideal,
    numbers,
    toy,
)

from soralab.diffusion import (
    PREDICTIONS,
    PROCESSES,
    Cosine,
    LinearBeta,
    RectifiedFlow,
    ScaledLinearBeta,
    diffusion_loss,
    guide,
    heun,
    sample_times,
    shift_times,
)

each_process = pytest.mark.parametrize("process", ALL, ids=repr)
each_vp = pytest.mark.parametrize("process", VP, ids=repr)


# ---- processes


@each_vp
def test_variance_is_preserved(process):
    check_unit_variance(process)


@each_process
def test_conversions_round_trip(process):
    check_round_trip(process)


@each_process
def test_v_is_the_derivative_of_x_t(process):
    check_velocity(process)


@each_process
def test_posterior_is_gaussian_conditioning(process):
    check_posterior(process)


@each_process
def test_rates_are_the_derivatives(process):
    h = 1e-5
    for f, rate in zip((process.alpha, process.sigma), process.rates(INNER), strict=True):
        torch.testing.assert_close(rate, (f(INNER + h) - f(INNER - h)) / (2 * h), rtol=1e-6, atol=1e-6)


@each_process
def test_ends_and_log_snr(process):
    assert float(process.alpha(0.0)) == 1 and float(process.sigma(0.0)) == 0
    left = 8e-5 if isinstance(process, ScaledLinearBeta) else 3e-5  # its last alpha is 0.012, that of DDPM 0.0063
    assert float(process.sigma(1.0)) == pytest.approx(1, abs=left)
    snr = process.log_snr(INNER)
    assert (snr.diff() < 0).all()
    torch.testing.assert_close(snr.exp(), (process.alpha(INNER) / process.sigma(INNER)) ** 2)


@each_process
def test_float32_is_as_good_as_float64(process):
    t = torch.tensor([0.001, 0.003, 0.5, 0.99, 0.999, 1.0], dtype=torch.float64)
    for f in (process.alpha, process.sigma):
        torch.testing.assert_close(f(t.float()).double(), f(t), rtol=3e-4, atol=1e-7)
        assert f(t.float()).dtype == torch.float32 and (f(t.float()) >= 0).all()


def test_cosine_is_the_papers():
    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0.0, 0.1, 0.5, 0.9):
        assert float(Cosine().alpha(t)) ** 2 == pytest.approx(f(t) / f(0), rel=1e-12)
    for dtype in (torch.float32, torch.float64):
        assert Cosine().alpha(torch.ones(1, dtype=dtype)).item() == 0, "zero terminal SNR, in any float type"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_of_the_cosine_near_the_data(dtype):
    """Of the quarter circle, whose sigma rises like t, and of the paper's, whose sigma is vertical at 0."""
    t, h = torch.tensor([0.0, 1e-6, 1e-4, 0.5, 1.0], dtype=dtype), math.pi / 2
    rates = Cosine(s=0.0).rates(t)
    assert rates[0].dtype == rates[1].dtype == dtype
    for rate, want in zip(rates, (lambda a: -h * math.sin(a), lambda a: h * math.cos(a)), strict=True):
        torch.testing.assert_close(rate, torch.tensor([want(h * at) for at in t.tolist()], dtype=dtype))
    assert rates[0][0] == 0 and float(rates[1][0]) == pytest.approx(h, rel=1e-7)
    slope, rise = Cosine().rates(t)
    h, s = math.pi / 2 / 1.008, 0.008
    want = [-h * math.sin(h * (at + s)) / math.cos(h * s) for at in t.tolist()]
    torch.testing.assert_close(slope, torch.tensor(want, dtype=dtype))
    assert rise[0] == math.inf and rise[1:].isfinite().all() and (rise[1:-1] > 0).all() and abs(rise[-1]) < 1e-5


def test_linear_beta_is_the_papers():
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    product, process = 1.0, LinearBeta()
    for k, beta in enumerate(betas, start=1):
        before, product = product, product * (1 - beta)
        if k in (1, 2, 137, 999, 1000):
            t, s = k / 1000, (k - 1) / 1000
            assert float(process.alpha(t)) ** 2 == pytest.approx(product, rel=1e-10)
            on_x0, on_x, variance = (float(v) for v in process.posterior(t, s))  # eqs. 6 and 7
            assert variance == pytest.approx((1 - before) / (1 - product) * beta, rel=1e-9, abs=1e-15)
            assert on_x0 == pytest.approx(math.sqrt(before) * beta / (1 - product), rel=1e-9)
            assert on_x == pytest.approx(
                math.sqrt(1 - beta) * (1 - before) / (1 - product), rel=1e-9, abs=1e-15
            )
            assert float(process.transition(t, s)[1]) == pytest.approx(beta, rel=1e-9)
    middle = (float(process.alpha(0.5)) ** 2 + float(process.alpha(0.501)) ** 2) / 2
    assert float(process.alpha(0.5005)) ** 2 == pytest.approx(middle, rel=1e-12)


def test_zero_terminal_snr_moves_only_the_end():
    plain, zero = LinearBeta(), LinearBeta(zero_terminal_snr=True)
    assert float(zero.alpha(1.0)) == 0 and float(plain.alpha(1.0)) == pytest.approx(0.00635, abs=1e-5)
    assert float(zero.alpha(0.001)) == pytest.approx(float(plain.alpha(0.001)), rel=1e-12)


@each_process
def test_two_transitions_make_one(process):
    (a, va), (b, vb), (c, vc) = (process.transition(*pair) for pair in ((0.4, 0.2), (0.7, 0.4), (0.7, 0.2)))
    torch.testing.assert_close(torch.stack([a * b, b**2 * va + vb]), torch.stack([c, vc]))


def test_the_ends_where_a_prediction_says_nothing():
    x = numbers(2, 3)
    for process in (Cosine(), LinearBeta(zero_terminal_snr=True), RectifiedFlow()):
        with pytest.raises(ValueError, match="alpha of .* is 0; .*t_start"):
            process.to_x0_eps(x, x, torch.ones(2), "eps")
        with pytest.raises(ValueError, match="no noise at t = 0"):
            process.to_x0_eps(x, x, torch.zeros(2), "x")
        x0, eps = numbers(2, 3, seed=1), x  # at t = 1 x_t is the noise itself
        for kind in ("v", "x"):
            back = process.to_x0_eps(process.target(x0, eps, torch.ones(2), kind), eps, torch.ones(2), kind)
            torch.testing.assert_close(torch.stack(back), torch.stack([x0, eps]))


def test_denoiser_threshold_keeps_the_pair_consistent():
    process, x = Cosine(), 3 * numbers(4, 2)
    x0, eps = process.denoiser(ideal(process, "v"), "v", threshold=lambda x: x.clamp(-1, 1))(x, 0.3)
    assert x0.abs().max() == 1
    torch.testing.assert_close(process.add_noise(x0, eps, 0.3), x)
    network = lambda x, t: x.cos()  # noqa: E731
    at_the_data = process.denoiser(network, "v", threshold=lambda x: 0.5 * x)(x, 0.0)[1]
    own = process.denoiser(network, "v")(x, 0.0)[1]  # x_t holds no noise to tell it from
    assert torch.equal(at_the_data, own) and not torch.equal(own, x)


def test_half_precision_data_get_float32_times():
    seen = []
    process = RectifiedFlow()
    denoise = process.denoiser(lambda x, t: seen.append(t) or torch.zeros_like(x), "v")
    out = heun(denoise, torch.zeros(2, 3, dtype=torch.bfloat16), process, 1000)
    assert out.dtype == torch.bfloat16 and len({float(t[0]) for t in seen}) == 1000


def test_bad_times_and_kinds_are_named():
    process, x = Cosine(), torch.zeros(1, 2)
    for t, message in ((torch.tensor([999]), "t: got torch.int64"), (999.0, "t: got times from 999"),
                       (torch.tensor([0.5, 1.5]), "t: got times from 0.5 to 1.5"),
                       (torch.tensor([-0.1, 0.2]), "t: got times from -0.1")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            process.add_noise(x, x, t)
    with pytest.raises(ValueError, match="kind: got 'epsilon', takes one of eps, v, x"):
        process.denoiser(toy, "epsilon")
    for argument, kinds in (("kind", {"kind": "epsilon"}), ("space", {"kind": "v", "space": "epsilon"})):
        with pytest.raises(ValueError, match=f"^{argument}: got 'epsilon', takes one of eps, v, x"):
            diffusion_loss(process, toy, x, **kinds)
    with pytest.raises(ValueError, match="kind: got 'epsilon', takes one of eps, v, x"):
        process.target(x, x, torch.ones(1), "epsilon")
    with pytest.raises(ValueError, match="first, last"):
        LinearBeta(first=0.5, last=0.1)
    with pytest.raises(ValueError, match="steps: got 1, takes a whole number of at least 2"):
        LinearBeta(steps=1)


# ---- training


@each_process
def test_loss_in_another_space_is_the_loss_after_conversion(process):
    x0, eps, n = numbers(len(INNER), 2, 2), numbers(len(INNER), 2, 2, seed=1), len(INNER)

    def network(x, t):
        return 0.3 * x + t.reshape(n, 1, 1)

    x_t = process.add_noise(x0, eps, INNER)
    for kind in PREDICTIONS:
        guess = process.to_x0_eps(network(x_t, INNER), x_t, INNER, kind)
        for space in PREDICTIONS:
            gap = process.target(*guess, INNER, space) - process.target(x0, eps, INNER, space)
            loss = diffusion_loss(process, network, x0, kind, space=space, t=INNER, eps=eps, floor=1e-9)
            torch.testing.assert_close(loss, gap.square().mean((1, 2)))


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_loss_is_finite_everywhere_and_least_for_the_best_network(kind):
    process, x0 = RectifiedFlow(), MEAN + SPREAD * numbers(20_000, 1)

    def mean_loss(change):
        best = ideal(process, kind)
        generator = torch.Generator().manual_seed(7)
        losses = diffusion_loss(
            process, lambda x, t: best(x, t) + change(x), x0, kind, space="v", generator=generator
        )
        assert losses.shape == (20_000,)
        return losses.mean().item()

    changes = (lambda x: 0.1, lambda x: -0.1, lambda x: 0.1 * x, lambda x: -0.1 * x)
    assert all(mean_loss(change) > mean_loss(lambda x: 0) for change in changes)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for space in PREDICTIONS:
        assert (
            diffusion_loss(process, ideal(process, kind), x0[:2], kind, space=space, t=ends).isfinite().all()
        )


def test_loss_draws_weighs_passes_and_differentiates():
    process, x0, c = Cosine(), numbers(4, 3), numbers(4, 1, seed=2).requires_grad_()

    def run(seed, **options):
        return diffusion_loss(
            process,
            toy,
            x0,
            "v",
            generator=torch.Generator().manual_seed(seed),
            condition={"c": c},
            **options,
        )

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    torch.testing.assert_close(run(1, weight=lambda t: 1 + 2 * t.sign()), 3 * run(1))
    (slope,) = torch.autograd.grad(run(1)[0], c)
    assert slope[0] != 0 and (slope[1:] == 0).all(), "each example's loss is its own"
    with pytest.raises(ValueError, match="network: gave .4, 1., takes the shape of x0, .4, 3."):
        diffusion_loss(process, lambda x, t: x[:, :1], x0, "v")


def test_what_would_be_broadcast_is_refused_and_one_number_serves_all():
    process, x0, t = Cosine(), numbers(4, 3), torch.linspace(0.1, 0.9, 4, dtype=torch.float64)

    def loss(**given):
        return diffusion_loss(process, lambda x, t: torch.tanh(x), x0, "v", **{"eps": x0.cos(), "t": t, **given})

    for wrong, says in (
        ({"eps": numbers(1, 3)}, r"eps: got \(1, 3\), takes the shape of x0, \(4, 3\)"),
        ({"eps": numbers(3)}, r"eps: got \(3,\), takes the shape of x0"),
        ({"t": t[:, None]}, r"t: got \(4, 1\), takes \(4,\), a number for each example"),
        ({"t": t[:1]}, r"t: got \(1,\), takes \(4,\)"),
        ({"weight": lambda t: t[:, None]}, r"weight: got \(4, 1\), takes \(4,\)"),
        ({"weight": lambda t: t[:1]}, r"weight: got \(1,\), takes \(4,\)"),
    ):
        with pytest.raises(ValueError, match=says):
            loss(**wrong)
    torch.testing.assert_close(loss(t=t[1]), loss(t=t[1].expand(4)))
    for weight in (lambda t: 2.0, lambda t: t.new_tensor(2.0)):
        torch.testing.assert_close(loss(weight=weight), 2 * loss())


def test_training_times():
    def draw(*args, **options):
        return sample_times(20_000, torch.Generator().manual_seed(1), *args, **options)

    even = draw().sort().values
    torch.testing.assert_close(even, torch.linspace(0, 1, 20_000), rtol=0, atol=0.015)
    logit = draw("logit_normal", mean=-0.5, std=0.8).logit()
    assert [float(logit.mean()), float(logit.std())] == pytest.approx([-0.5, 0.8], abs=0.02)
    torch.testing.assert_close(draw("logit_normal", shift=3.0), shift_times(draw("logit_normal"), 3.0))
    with pytest.raises(ValueError, match="distribution: got 'cosmap'"):
        draw("cosmap")


# ---- guidance


def test_guidance_identities():
    check_guidance(guide)


@pytest.mark.parametrize(
    "scale, batched, calls", [(1, False, 1), (0, False, 1), (1, True, 1), (3, False, 2), (3, True, 1)]
)
def test_guidance_makes_no_call_that_it_does_not_need(scale, batched, calls):
    sizes = []

    def network(x, t, c):
        sizes.append(len(x))
        return toy(x, t, c)

    guided = guide(network, {"c": torch.ones(4, 1)}, {"c": torch.zeros(1, 1)}, scale, batched=batched)
    guided(torch.ones(4, 2), torch.ones(4))
    assert len(sizes) == calls and sizes[0] == (8 if batched and scale == 3 else 4)


@each_process
def test_guidance_means_the_same_in_every_prediction(process):
    x, t = numbers(len(INNER), 3), INNER
    pair = {"c": numbers(len(INNER), 1, seed=1)}, {"c": torch.zeros(1, 1, dtype=torch.float64)}

    def in_kind(kind):
        return lambda x, t, c: process.target(*process.to_x0_eps(toy(x, t, c), x, t, "v"), t, kind)

    results = [process.denoiser(guide(in_kind(kind), *pair, 4.0), kind)(x, t)[0] for kind in PREDICTIONS]
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


def test_guidance_interval_and_rescale():
    x, t = numbers(5, 3), torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)
    pair = {"c": numbers(5, 1, seed=1)}, {"c": torch.zeros(1, 1, dtype=torch.float64)}
    plain, full = (guide(toy, *pair, scale)(x, t) for scale in (1, 6.0))
    part = guide(toy, *pair, 6.0, interval=(0.2, 0.5))(x, t)
    assert torch.equal(part[[0, 3, 4]], plain[[0, 3, 4]]) and torch.equal(part[[1, 2]], full[[1, 2]])
    without, part = (guide(toy, *pair, 0.0, interval=inside)(x, t) for inside in ((0.0, 1.0), (0.2, 0.5)))
    assert torch.equal(part[[0, 3, 4]], plain[[0, 3, 4]]) and torch.equal(part[[1, 2]], without[[1, 2]])
    assert (without - plain).abs().amin() > 1e-6, "scale 0 forgets the condition, inside its interval alone"
    torch.testing.assert_close(guide(toy, *pair, 6.0, rescale=1.0)(x, t).std(1), plain.std(1))
    half = guide(toy, *pair, 6.0, rescale=0.5)(x, t)
    torch.testing.assert_close(half, (full + full * (plain.std(1) / full.std(1))[:, None]) / 2)
    pair = pair[0], {"c": torch.full((1, 1), 0.5, dtype=torch.float64)}
    without, scaled = (guide(toy, *pair, 0.0, rescale=phi)(x, t) for phi in (0.0, 1.0))  # all of the batch inside
    torch.testing.assert_close(scaled, without * (plain.std(1) / without.std(1))[:, None])
    part = guide(toy, *pair, 0.0, rescale=1.0, interval=(0.2, 0.5))(x, t)
    assert torch.equal(part[[1, 2]], scaled[[1, 2]]) and not torch.allclose(scaled, without)
    silent = guide(lambda x, t, c: torch.zeros_like(x), *pair, 6.0, rescale=1.0)(x, t)
    assert (silent == 0).all(), "an untrained network that answers 0 gives 0, not NaN"


def test_bad_guidance_is_named():
    c, x, t = {"c": torch.ones(2, 3)}, torch.ones(2, 2), torch.ones(2)
    for options, message in (
        ({"interval": (0.5, 0.1)}, "interval: got"),
        ({"interval": (-0.1, 1.0)}, "interval: got"),
        ({"interval": (0.0, 1.5)}, "interval: got"),
        ({"rescale": 2.0}, "rescale: got 2.0"),
        ({"rescale": -1.0}, "rescale: got -1.0"),
        ({"null": {}}, r"null: got keywords \[\]"),
    ):
        with pytest.raises(ValueError, match=message):
            guide(toy, c, **{"null": c, "scale": 2.0, **options})
    with pytest.raises(ValueError, match="batched: c is"):
        guide(toy, c, {"c": torch.ones(2, 4)}, 2.0, batched=True)(x, t)
    one = {"c": torch.ones(2, 1)}
    with pytest.raises(ValueError, match=r"rescale: got examples of shape \(1,\), takes two numbers or"):
        guide(toy, one, one, 2.0, rescale=0.5)(x[:, :1], t)
    assert guide(toy, one, one, 2.0)(x[:, :1], t).isfinite().all()


def test_every_name_is_a_process():
    assert [type(make()) for make in PROCESSES.values()] == [Cosine, LinearBeta, ScaledLinearBeta, RectifiedFlow]
