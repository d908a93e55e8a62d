"""How each shipped checkpoint is trained, one file a chapter.

A recipe's `train(name, steps)` returns a `Trained` model and writes its progress to runs/NAME, so that it goes on where
it was stopped. What is measured with the model, and the checkpoint with its card, are made by `soralab.experiments`.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from soralab.training.loop import TrainResult

RECIPES = {  # checkpoint: the chapter's file, here and in `soralab.experiments`
    "sora": "sora",
    "sora_pixels": "sora",
    "sora_autoencoder": "sora_autoencoder",
    "sora_full": "sora_full",
    "sora_full_autoencoder": "sora_full_autoencoder",
    "sora_full_decoder": "sora_full_decoder",
    "transformer": "transformer",
    "unet": "unet",
    "unet_denoiser": "unet",
    "vit": "vit",
    "navit": "navit",
    "vivit": "vivit",
    "clip": "clip",
    "vqvae": "vqvae",
    "vqvae_films": "vqvae",
    "vqvae_prior": "vqvae",
    "latent_autoencoder": "latent_diffusion",
    "latent_diffusion": "latent_diffusion",
    "walt_autoencoder": "walt_autoencoder",
    "walt": "walt",
    "imagen_base": "imagen_video",
    "imagen_time": "imagen_video",
    "imagen_space": "imagen_video",
    "imagen_student": "imagen_video",
    "film_autoencoder": "film_painter",
    "film_painter": "film_painter",
    "temporal_decoder": "align_your_latents",
    "align_your_latents": "align_your_latents",
    "recaptioning": "recaptioning",
    "recaptioning_expander": "recaptioning",
    "recaptioning_painter": "recaptioning",
    "llava": "llava",
    "make_a_video_prior": "make_a_video",
    "make_a_video_space": "make_a_video",
    "make_a_video": "make_a_video",
}
RUNS = Path("runs")  # where a reader's own trainings lie


@dataclass(frozen=True)
class Trained:
    """What a recipe hands on: the model, what its card says of the training, and the log's file."""

    model: nn.Module
    card: dict[str, Any]
    log: Path

    @classmethod
    def of(cls, model: nn.Module, config: Any, result: TrainResult, **entries: Any) -> Trained:
        """A model of these sizes (a dataclass), ready to be measured; `entries` stand on its card."""
        card = {"config": asdict(config), **entries, "steps": result.steps, "seconds": round(result.seconds)}
        return cls(model.eval(), card, result.log)


def recipe(name: str):
    """The module of a recipe. Raises ValueError for a name that there is none of."""
    if name not in RECIPES:
        raise ValueError(f"NAME is {name!r}; it takes one of {', '.join(RECIPES)}")
    return importlib.import_module(f"soralab.recipes.{RECIPES[name]}")
