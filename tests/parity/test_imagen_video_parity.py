"""Chapter 09's parts against diffusers': dynamic thresholding, v, and a step of DDIM with both."""

import pytest
import torch

from soralab.imagen_video import PROCESS, dynamic_threshold

diffusers = pytest.importorskip("diffusers")


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.9, 0.995])
def test_diffusers_dynamic_threshold_is_ours(share):
    theirs = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=share, sample_max_value=1000.0)
    x = torch.cat([3 * numbers(2, 3, 8, 8, seed=1), 0.1 * numbers(1, 3, 8, 8, seed=2)])
    torch.testing.assert_close(dynamic_threshold(x, share), theirs._threshold_sample(x), rtol=1e-6, atol=1e-6)


def test_diffusers_v_and_ddim_step_are_ours():
    """At the times of a discrete schedule, whose shares of film and noise both get."""
    theirs = diffusers.DDIMScheduler(1000, prediction_type="v_prediction", thresholding=True, clip_sample=False,
                                     dynamic_thresholding_ratio=0.9, sample_max_value=1000.0)  # fmt: skip
    theirs.set_timesteps(10)
    now, then = (int(t) for t in theirs.timesteps[3:5])
    alpha, sigma = theirs.alphas_cumprod[now] ** 0.5, (1 - theirs.alphas_cumprod[now]) ** 0.5
    x, eps, v = (k * numbers(2, 3, 8, 8, seed=s) for k, s in ((1, 1), (1, 2), (2, 3)))
    z = theirs.add_noise(x, eps, torch.tensor([now, now]))
    time = 2 / torch.pi * torch.atan2(sigma, alpha)  # of the quarter circle, where the shares are the same
    torch.testing.assert_close(PROCESS.add_noise(x, eps, time.expand(2)), z, rtol=1e-5, atol=1e-5)
    target = PROCESS.target(x, eps, time.expand(2), "v")
    torch.testing.assert_close(target, theirs.get_velocity(x, eps, torch.tensor([now, now])), rtol=1e-5, atol=1e-5)
    denoise = PROCESS.denoiser(lambda z, t: v, "v", lambda x: dynamic_threshold(x, 0.9))
    x0, noise = denoise(z, time)
    a, s = theirs.alphas_cumprod[then] ** 0.5, (1 - theirs.alphas_cumprod[then]) ** 0.5
    step = theirs.step(v, now, z, use_clipped_model_output=True)  # eps made to agree with the thresholded x_0
    torch.testing.assert_close(x0, step.pred_original_sample, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a * x0 + s * noise, step.prev_sample, rtol=1e-5, atol=1e-5)
