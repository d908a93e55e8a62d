"""How each shipped checkpoint is trained and evaluated: `soralab train NAME`, `soralab evaluate NAME`.

A recipe is a module with `train(name, folder, steps)` and `evaluate(name, checkpoint)`; RECIPES names them.
"""

from __future__ import annotations

import importlib
from pathlib import Path

RECIPES = {
    "sora": "soralab.recipes.sora",
    "sora_pixels": "soralab.recipes.sora",
    "sora_autoencoder": "soralab.recipes.sora_autoencoder",
    "referee": "soralab.experiments.referee",
    "transformer": "soralab.recipes.transformer",
    "unet": "soralab.recipes.unet",
    "unet_denoiser": "soralab.recipes.unet",
    "vit": "soralab.recipes.vit",
    "clip": "soralab.recipes.clip",
    "vqvae": "soralab.recipes.vqvae",
    "vqvae_films": "soralab.recipes.vqvae",
    "vqvae_prior": "soralab.recipes.vqvae",
    "latent_autoencoder": "soralab.recipes.latent_diffusion",
    "latent_diffusion": "soralab.recipes.latent_diffusion",
}
RUNS = Path("runs")  # where a reader's own trainings lie


def recipe(name: str):
    """The module of a recipe. Raises ValueError for a name that there is none of."""
    if name not in RECIPES:
        raise ValueError(f"NAME is {name!r}; it takes one of {', '.join(RECIPES)}")
    return importlib.import_module(RECIPES[name])


def publish(path: str | Path, tensors: dict, card: dict) -> Path:
    """Save a trained model's weights, in half precision, with a card that says what it is and how it was made."""
    import torch

    from soralab.files.checkpoints import save_checkpoint
    from soralab.training.profiles import hardware

    small = {key: value.to(torch.float16) if value.is_floating_point() else value for key, value in tensors.items()}
    return save_checkpoint(path, small, {**card, "hardware": hardware()})
