"""The whole way: the world's films, chapter 16's training step, films from prompts, and how soon a command answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.pixel_unet import PACKAGE, PixelUNet
from benchmarks.rows import Case, Work, parameters, training
from soralab import world
from soralab.recipes import sora as recipe
from soralab.sora import AutoencoderConfig, Filmmaker, Sora, SoraConfig, SpacetimeAutoencoder
from soralab.training.data import model_flops

CLIPS, BATCH = 128, 16  # films
PEER = "video-diffusion-pytorch"
FILMS, STEPS = 2, 2  # of a row of sampling
FILM = "from soralab.command import main; main(['film', 'a red circle', '-o', 'runs/benchmark.gif'])"
PROMPT = "a red circle slides right"


def cases() -> Iterator[Case]:
    """The rows."""
    for level in world.LEVELS:
        yield Case(f"world, {level}, {CLIPS} films of 8x32x32", partial(rendering, level))
    latents, pixels = (recipe.RECIPES[name].config for name in ("sora", "sora_pixels"))
    theirs = partial(step, PixelUNet, pixels, torch.float32, 2)
    yield Case("Sora, latents of 2 films", partial(step, Sora, latents, torch.float32, 2), PEER, theirs, (PACKAGE,))
    for name, config in (("latents", latents), ("pixels", pixels)):
        ours, theirs = (partial(step, Sora, config, dtype) for dtype in (torch.bfloat16, torch.float32))
        yield Case(f"Sora, {name}, {BATCH} films, bfloat16", ours, "ours, float32", theirs)
    what = f"{FILMS} films from prompts, {STEPS} steps"
    yield Case(what, partial(filming, False), PEER, partial(filming, True), (PACKAGE,))
    yield Case("python, import soralab", partial(command, "import soralab"), memory=False)
    yield Case("soralab film, start-up included", partial(command, FILM), memory=False)


def rendering(level: str) -> Work:
    """Films of the world as tensors, with their scenes."""
    return Work(lambda: world.clips(0, range(CLIPS), level=level))


def step(kind: type[nn.Module], config: SoraConfig, dtype: torch.dtype, films: int = BATCH) -> Work:
    """A training step on so many films, its products in this type."""
    model = InType(kind(config), dtype)
    x = torch.randn(films, config.size[0], config.channels, *config.size[1:])
    return training(model, x, torch.rand(films), torch.randint(1, 100, (films, 18)))


class InType(nn.Module):
    """A model whose products are computed in this type."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, *given: Tensor) -> Tensor:
        """The model's answer in float32."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            return self.model(*given).float()


def filming(pixels: bool) -> Work:
    """Films of 9x32x32 with guidance: by our transformer and decoder, or by the U-Net in pixels with our sampler."""
    config = recipe.RECIPES["sora_pixels" if pixels else "sora"].config
    model = (PixelUNet if pixels else Sora)(config).eval()
    decoder = None if pixels else SpacetimeAutoencoder(AutoencoderConfig()).eval()
    maker = Filmmaker(model, decoder)
    films = partial(maker.film, [PROMPT] * FILMS, steps=STEPS)

    def flops() -> float:
        x = torch.randn(2 * FILMS, config.size[0], config.channels, *config.size[1:])
        once = model_flops(model, x, torch.rand(len(x)), torch.ones(len(x), 5, dtype=torch.long))
        return STEPS * once + model_flops(decoder.decode, x[:FILMS])

    return Work(films, parameters(model), None if pixels else flops)


def command(code: str) -> Work:
    """A fresh Python that runs `code`."""
    return Work(lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True))
