"""The first steps of chapter 16's training, short enough to be run in the notebook, and the band of our own runs.

`python -m soralab.recipes.reference_runs` makes the band again: three of these runs, which differ in their seed alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from soralab.figures import read_log
from soralab.recipes import sora
from soralab.recipes.bands import write_band
from soralab.sora import Sora, load_autoencoder
from soralab.training import loop

STEPS, FILMS = 80, 5200


def short_run(seed: int, steps: int = STEPS, folder: str | Path | None = None) -> dict:
    """Train the recipe's model for its first `steps` steps; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, so that the band holds on any machine; a constant learning rate after the warm-up.
    """
    recipe = sora.RECIPES["sora"]
    torch.manual_seed(seed)
    model = Sora(recipe.config)
    config = replace(
        recipe.training, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps,
        precision="float32",
    )  # fmt: skip
    films = min(FILMS, 4 * steps * sora.BATCH)  # a quarter of them is used
    batches = sora.LatentBatches(load_autoencoder(recipe.autoencoder), films)
    with TemporaryDirectory() as temporary:
        result = loop.train(
            model, sora.make_loss(recipe), batches, config, folder or temporary, parameters=sora.parameters(model)
        )
        return read_log(result.log)


if __name__ == "__main__":
    print("wrote", write_band("sora", short_run).name)
