"""Chapter 01 on the paper's own data: the slices of ISBI-2012, where the reader has them (`soralab.datasets.isbi`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from soralab.datasets import isbi
from soralab.experiments.unet_scores import components, mean, otsu, scores
from soralab.recipes.unet import CONFIG, SEED, fit
from soralab.training.data import beside
from soralab.unet import UNet, UNetConfig, centre_crop, elastic_deformation, overlap_tile, weight_map

ISBI_TILE, ISBI_BATCH, ISBI_STEPS = 188, 4, 600  # 100 pixels come out
ISBI_NET = UNetConfig.small(levels=4)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Slices:
    """Batches of bent, turned and mirrored tiles of labelled slices: images [n, 512, 512], truth bool [n, 512, 512]."""

    def __init__(self, images: np.ndarray, truth: np.ndarray, config: UNetConfig = ISBI_NET, tile: int = ISBI_TILE):
        self.images, self.truth, self.tile, self.out = images, truth, tile, config.output_size(tile)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """{"x": [ISBI_BATCH, 1, tile, tile], "target", "weights": [ISBI_BATCH, out, out]}; pure in the step."""
        rows = [self.tile_of(np.random.default_rng((SEED, step, k))) for k in range(ISBI_BATCH)]
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def tile_of(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One tile, its target and its weights (Eq. 2, the pieces of the truth taken for the cells)."""
        side = self.images.shape[1]
        n, top, left = rng.integers(len(self.images)), *rng.integers(0, side - self.tile + 1, 2)
        window = np.s_[n, top : top + self.tile, left : left + self.tile]
        turns, flip = rng.integers(4), rng.choice((-1, 1))
        image, truth = (np.rot90(each[window], turns)[:, ::flip] for each in (self.images, self.truth))
        picture = torch.from_numpy(np.ascontiguousarray(image))[None]
        picture, bent = elastic_deformation(picture, truth.astype(np.int32), rng)
        bent = centre_crop(torch.from_numpy(bent), self.out, self.out).numpy()
        return {"x": picture, "target": torch.from_numpy(bent.astype(np.int64)),
                "weights": weight_map(components(bent > 0))}  # fmt: skip


def at_threshold(probabilities: list[np.ndarray], truth: np.ndarray, threshold: float) -> dict[str, float]:
    """Both errors, {"pixel_error", "rand_error"}, with every pixel above `threshold` taken for a cell's."""
    rows = [scores(p > threshold, t) for p, t in zip(probabilities, truth, strict=True)]
    return {key: mean(rows)[key] for key in ("pixel_error", "rand_error")}


def isbi_runs(folder: Path, steps: int = ISBI_STEPS) -> dict[str, dict]:
    """24 slices to learn from, 6 to be judged on: the U-Net, the same without skips, and Otsu's threshold.

    Each error is taken at the threshold where it was least on four of the slices learnt from (the challenge takes the
    best on the very slices that it judges). Otsu parts a slice that was smoothed over two pixels, which serves it well.
    Raises FileNotFoundError where there are no slices.
    """
    images, truth = isbi.load()
    train, test = list(isbi.TRAIN), list(isbi.TEST)
    smooth = [ndimage.gaussian_filter(image, 2.0) for image in images[test]]
    rows = [scores(image > otsu(image), cell) for image, cell in zip(smooth, truth[test], strict=True)]
    table = {"Otsu": {key: mean(rows)[key] for key in ("pixel_error", "rand_error")}}
    for name, config in (("no skips", replace(ISBI_NET, skips=False)), ("U-Net", ISBI_NET)):
        training = replace(CONFIG, steps=steps)
        model, result = fit(config, training, Slices(images[train], truth[train]), folder / name.replace(" ", "_"))
        seen, unseen = ([probability(model, images[n]) for n in group] for group in (train[::6], test))
        tried = {level: at_threshold(seen, truth[train[::6]], level) for level in THRESHOLDS}
        best = {key: min(THRESHOLDS, key=lambda level, key=key: tried[level][key]) for key in table["Otsu"]}
        table[name] = {
            **{key: at_threshold(unseen, truth[test], level)[key] for key, level in best.items()},
            "thresholds": best,
            "seconds": round(result.seconds),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
    return table


def probability(model: UNet, image: np.ndarray, tile: int = 348) -> np.ndarray:
    """How likely each pixel of image [h, w] is a cell's: [h, w] in [0, 1]."""
    logits = overlap_tile(model, beside(model, torch.from_numpy(image)[None, None]), tile)
    return logits.softmax(1)[0, 1].cpu().numpy()
