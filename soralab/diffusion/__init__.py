"""Noise processes, samplers and guidance: what every diffusion chapter of the course shares.

Time runs over [0, 1]: t = 0 is data, t = 1 is noise. A network is any callable

    network(x_t [batch, ...], t [batch], **condition) -> [batch, ...]

that predicts the noise ("eps"), the velocity ("v") or the clean data ("x"). A film from noise takes three
lines:

    process = RectifiedFlow()
    denoise = process.denoiser(guide(network, condition, null, scale=4.0), kind="v")
    film = SAMPLERS["heun"](denoise, torch.randn(shape), process, steps=20)
"""

from .guidance import guide
from .objective import diffusion_loss, sample_times
from .process import (
    PREDICTIONS,
    PROCESSES,
    Cosine,
    LinearBeta,
    Process,
    RectifiedFlow,
    ScaledLinearBeta,
    VariancePreserving,
    shift_times,
)
from .samplers import SAMPLERS, ddim, ddpm, dpm_solver_pp, euler, heun, invert, time_grid

__all__ = [
    "PREDICTIONS",
    "PROCESSES",
    "SAMPLERS",
    "Cosine",
    "LinearBeta",
    "Process",
    "RectifiedFlow",
    "ScaledLinearBeta",
    "VariancePreserving",
    "ddim",
    "ddpm",
    "diffusion_loss",
    "dpm_solver_pp",
    "euler",
    "guide",
    "heun",
    "invert",
    "sample_times",
    "shift_times",
    "time_grid",
]
