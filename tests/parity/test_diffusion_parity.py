"""The samplers against diffusers' schedulers: the same network, the same noise, the same film to 1e-5.

diffusers counts timesteps k = 0 ... 999 where we say t = (k + 1) / 1000; its "trailing" spacing starts at
k = 999 as our grid starts at t = 1. The schedulers know no network: they are driven here step by step.
"""

import pytest
import torch

from soralab.diffusion import (
    Cosine,
    LinearBeta,
    RectifiedFlow,
    ddim,
    ddpm,
    dpm_solver_pp,
    euler,
    heun,
    time_grid,
)

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 3, 4, 5)
DISCRETE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def noise(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def network(x, t):
    """Depends on x, on the place in x and on t, and is not linear."""
    return torch.tanh(0.8 * x + x.roll(1, -1) * 0.3) * (0.5 + t.reshape(-1, 1, 1, 1))


def theirs(scheduler, steps, x, divide=1000, **options):
    scheduler.set_timesteps(steps)
    for k in scheduler.timesteps:
        t = ((k + 1) / divide).to(torch.float32).expand(len(x))
        x = scheduler.step(network(x, t), k, x, **options).prev_sample
    return x


def ours(sampler, process, steps, kind, **options):
    return sampler(process.denoiser(network, kind), noise(0), process, steps, **options)


def close(a, b, atol=1e-5):
    assert a.abs().max() > 0.2  # a film of zeros would agree with anything
    torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_adding_noise_and_velocity(zero_snr):
    scheduler = diffusers.DDPMScheduler(**DISCRETE, rescale_betas_zero_snr=zero_snr)
    process, x0, eps, k = LinearBeta(zero_terminal_snr=zero_snr), noise(1), noise(2), torch.tensor([3, 999])
    close(process.add_noise(x0, eps, (k + 1) / 1000), scheduler.add_noise(x0, eps, k))
    close(process.target(x0, eps, (k + 1) / 1000, "v"), scheduler.get_velocity(x0, eps, k))


@pytest.mark.parametrize("kind, theirs_kind", [("v", "v_prediction"), ("x", "sample"), ("eps", "epsilon")])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(kind, theirs_kind, eta):
    scheduler = diffusers.DDIMScheduler(
        **DISCRETE, clip_sample=False, timestep_spacing="trailing", prediction_type=theirs_kind
    )
    expected = theirs(scheduler, 50, noise(0), eta=eta, generator=torch.Generator().manual_seed(9))
    result = ours(ddim, LinearBeta(), 50, kind, eta=eta, generator=torch.Generator().manual_seed(9))
    # Predicting eps divides by alpha(1) = 0.006 and so multiplies everyone's float32 rounding by 150.
    close(result, expected, atol=1e-3 if kind == "eps" else 1e-5)


def test_ddim_with_zero_terminal_snr():
    scheduler = diffusers.DDIMScheduler(
        **DISCRETE,
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    result = ours(ddim, LinearBeta(zero_terminal_snr=True), 50, "v")
    close(result, theirs(scheduler, 50, noise(0)))


@pytest.mark.parametrize("variance, length", [("small", 1000), ("small", 50), ("large", 50)])
def test_ddpm(variance, length):
    # Where steps are skipped (1000 in 50), theirs adds noise in the last too: it asks for k > 0. The small
    # variance is nil there; the large one is not, so it is compared with every step taken.
    scheduler = diffusers.DDPMScheduler(
        **{**DISCRETE, "num_train_timesteps": length},
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        variance_type=f"fixed_{variance}",
    )
    options = {"generator": torch.Generator().manual_seed(9)}
    expected = theirs(scheduler, 50, noise(0), divide=length, **options)
    options = {"generator": torch.Generator().manual_seed(9), "variance": variance}
    close(ours(ddpm, LinearBeta(steps=length), 50, "v", **options), expected)


@pytest.mark.parametrize("steps", [10, 25])
def test_dpm_solver_pp(steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **DISCRETE, timestep_spacing="trailing", prediction_type="v_prediction", final_sigmas_type="zero"
    )
    close(ours(dpm_solver_pp, LinearBeta(), steps, "v"), theirs(scheduler, steps, noise(0)))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - i / 20 for i in range(20)])
    torch.testing.assert_close(scheduler.sigmas.double(), time_grid(20, shift=shift), rtol=0, atol=1e-6)
    x = noise(0)
    for k in scheduler.timesteps:
        x = scheduler.step(network(x, (k / 1000).expand(len(x))), k, x).prev_sample
    for sampler in (euler, ddim):
        close(ours(sampler, RectifiedFlow(), 20, "v", shift=shift), x)


def test_heun_on_the_flow():
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.sigma_min = 1 / 12  # their last time before 0; then their grid is ours
    scheduler.set_timesteps(12)
    x = noise(0)
    for k in scheduler.timesteps:
        x = scheduler.step(network(x, (k / 1000).expand(len(x))), k, x).prev_sample
    close(ours(heun, RectifiedFlow(), 12, "v"), x)


def test_cosine_against_discrete_cosine():
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    t = torch.arange(1, 999) / 1000  # the last beta is capped there at 0.999
    torch.testing.assert_close(Cosine().alpha(t) ** 2, scheduler.alphas_cumprod[:998], rtol=0, atol=1e-5)
