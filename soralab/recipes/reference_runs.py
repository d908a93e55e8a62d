"""The first steps of chapter 16's training, short enough to be run in the notebook, and the band of our own runs.

`python -m soralab.recipes.reference_runs` makes the band again: RUNS of these runs, which differ in their seed alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from soralab.figures import read_log
from soralab.files.atomic import atomic_write
from soralab.recipes import sora
from soralab.sora import Sora, load_autoencoder
from soralab.training import loop

BAND = Path(__file__).resolve().parents[2] / "data" / "bands" / "sora.json"
RUNS, STEPS, FILMS = 5, 100, 1600


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
    films = min(FILMS, max(sora.BATCH, steps * sora.BATCH) // 100 * 100 or 100)
    batches = sora.LatentBatches(load_autoencoder(recipe.autoencoder), films)
    with TemporaryDirectory() as temporary:
        result = loop.train(
            model, sora.make_loss(recipe), batches, config, folder or temporary, parameters=sora.parameters(model)
        )
        return read_log(result.log)


def load_band() -> list[dict]:
    """The logs of our own runs, each as columns {"step", "loss"}."""
    return json.loads(BAND.read_text(encoding="utf-8"))


def main() -> None:
    """Make the band again and write it to data/bands/sora.json."""
    logs = [short_run(seed) for seed in range(1, RUNS + 1)]
    columns = [{key: [round(float(v), 5) for v in log[key]] for key in ("step", "loss")} for log in logs]
    BAND.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(BAND) as path:
        path.write_text(json.dumps(columns) + "\n", encoding="utf-8")
    print(f"wrote {BAND.name}: {RUNS} runs of {STEPS} steps")


if __name__ == "__main__":
    main()
