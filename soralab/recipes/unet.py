"""How chapter 01's networks are trained and measured: `soralab train unet`, `soralab train unet_denoiser`.

`unet` labels touching cells. Its card also holds two experiments that the notebook shows: what the weight map of
Eq. (2) does (ARMS, three seeds each), and the slices of ISBI-2012 where the reader has them (soralab.datasets.isbi).
`unet_denoiser` is the same network with padding and a time, trained on frames of the world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from soralab import world
from soralab.datasets import cells, isbi
from soralab.diffusion import RectifiedFlow, diffusion_loss
from soralab.experiments.unet_scores import components, mean, otsu, scores
from soralab.figures import read_log
from soralab.recipes import RUNS, publish
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.unet import (
    UNet,
    UNetConfig,
    centre_crop,
    elastic_deformation,
    load_unet,
    mirror,
    overlap_tile,
    separate,
    weight_map,
    weighted_cross_entropy,
)

SEED = 1
TILE, BATCH, PICTURES = 100, 4, 400  # pixels of a side in (60 come out), pictures a step, and in all
CONFIG = TrainConfig(steps=3000, lr=2e-3, warmup=50, cooldown=0.3, ema=0.99, seed=SEED, log_every=20)
TEST_SEED, TEST_SIDE, TEST_TILE = 10**6, 160, 144
PROCESS = RectifiedFlow()

# ------------------------------------------------------------------------------------------------- touching cells

ARMS = {  # what the loss weighs: w0 of Eq. (2), or no map at all
    "no map": None,
    "w_c alone": 0.0,
    "Eq. (2)": 10.0,
}
ARM_STEPS, ARM_SEEDS = 800, (1, 2, 3)


class Dish:
    """Batches of touching cells: PICTURES pictures, drawn and weighed once, turned and mirrored anew in each batch.

    w0: the weight of the gaps in Eq. (2); None: no map at all.
    """

    def __init__(self, seed: int = SEED, w0: float | None = 10.0, pictures: int | None = None):
        self.seed, out = seed, UNetConfig.small().output_size(TILE)
        drawn = [cells.draw(seed, index, TILE) for index in range(pictures or PICTURES)]
        self.x = torch.stack([picture for picture, _ in drawn])
        labels = [separate(each) for _, each in drawn]
        self.target = torch.from_numpy(centre_crop(np.stack(labels), out, out) > 0).long()
        weights = [torch.ones(TILE, TILE) if w0 is None else weight_map(each, w0) for each in labels]
        self.weights = centre_crop(torch.stack(weights), out, out)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """{"x": [BATCH, 1, 100, 100], "target", "weights": [BATCH, 60, 60]}; pure in the step."""
        rng = np.random.default_rng((self.seed, step))
        chosen, turns, flip = rng.integers(len(self.x), size=BATCH), int(rng.integers(4)), rng.random() < 0.5
        batch = {"x": self.x[chosen], "target": self.target[chosen], "weights": self.weights[chosen]}
        batch = {key: value.rot90(turns, (-2, -1)) for key, value in batch.items()}
        return {key: (value.flip(-1) if flip else value).contiguous() for key, value in batch.items()}


def loss(model: UNet, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Eq. (1) of one batch."""
    return weighted_cross_entropy(model(batch["x"]).float(), batch["target"], batch["weights"])


def fit(
    config: UNetConfig, training: TrainConfig, batch_fn: Callable, folder: Path, loss_fn: Callable = loss
) -> tuple[UNet, loop.TrainResult]:
    """Train a network from its seed, or go on where a run in `folder` stopped: the averaged network and the result."""
    torch.manual_seed(training.seed)
    model = UNet(config)
    result = loop.train(model, loss_fn, batch_fn, training, folder)
    result.ema.copy_to(model)
    return model.eval(), result


def short_run(seed: int, steps: int = 120, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped network's training; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(CONFIG, steps=steps, seed=seed, cooldown=0.0, log_every=2, save_every=steps, precision="float32")
    with TemporaryDirectory() as temporary:
        where = Path(folder or temporary)
        _, result = fit(UNetConfig.small(), training, Dish(seed, pictures=min(PICTURES, steps * BATCH)), where)
        return read_log(result.log)


def unseen_picture(index: int, side: int | None = None) -> tuple[Tensor, np.ndarray]:
    """A picture [1, side, side] that no training saw, and its truth bool [side, side], touching cells apart."""
    picture, labels = cells.draw(TEST_SEED, index, side or TEST_SIDE)
    return picture, separate(labels) > 0


def predict(model: UNet, picture: Tensor, tile: int | None = None) -> np.ndarray:
    """Where the network sees cells: bool [h, w] for a picture [1, h, w]."""
    return (overlap_tile(model, picture[None], tile or TEST_TILE)[0].argmax(0) == 1).numpy()


def measure(model: UNet, count: int = 40) -> dict[str, float]:
    """The mean scores on the first `count` test pictures."""
    rows = []
    for index in range(count):
        picture, truth = unseen_picture(index)
        rows.append(scores(predict(model, picture), truth))
    return mean(rows)


@torch.no_grad()
def at_the_border(model: UNet, count: int = 6) -> dict[str, np.ndarray]:
    """The share of wrong pixels by their distance from the edge, [60] each, when beyond the edge lies:

    "what was there", the picture itself, of which the window was cut; "its mirror image", as overlap-tile has it;
    "zeros", as padding has it. From `count` windows of 120 pixels a side.
    """
    margin = model.config.shrink // 2
    side = 120
    near = np.minimum(np.arange(side), np.arange(side)[::-1])
    edge = np.minimum(near[:, None], near)  # pixels to the nearest side
    wrong = {name: np.zeros(side // 2) for name in ("what was there", "its mirror image", "zeros")}
    for index in range(count):
        picture, truth = unseen_picture(index, side + 2 * margin)
        truth = truth[margin:-margin, margin:-margin]
        window = picture[None, :, margin:-margin, margin:-margin]
        views = (picture[None], mirror(window, *[margin] * 4), F.pad(window, [margin] * 4))
        for errors, view in zip(wrong.values(), views, strict=True):
            guess = model(view)[0].argmax(0).numpy() == 1
            errors += np.bincount(edge[guess != truth], minlength=side // 2) / np.bincount(edge.ravel()) / count
    return wrong


def weight_map_runs(
    folder: Path, steps: int = ARM_STEPS, seeds: tuple[int, ...] = ARM_SEEDS, count: int = 40
) -> dict[str, list[dict]]:
    """The experiment: every arm of ARMS with every seed, the same pictures and steps; the test scores of each run."""
    table = {}
    for arm, w0 in ARMS.items():
        for seed in seeds:
            training = replace(CONFIG, steps=steps, seed=seed)
            where = folder / f"{arm.replace(' ', '_').replace('(', '').replace(')', '')}_{seed}"
            model, _ = fit(UNetConfig.small(), training, Dish(seed, w0), where)
            table.setdefault(arm, []).append({"seed": seed, **measure(model, count)})
    return table


# -------------------------------------------------------------------------------------------------------- ISBI 2012

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
    logits = overlap_tile(model, torch.from_numpy(image)[None, None], tile)
    return logits.softmax(1)[0, 1].numpy()


# ----------------------------------------------------------------------------------------------------- the denoiser

DENOISER_BATCH = 32
DENOISER = TrainConfig(steps=1500, lr=1e-3, warmup=100, cooldown=0.3, ema=0.995, seed=SEED, log_every=20)


def frame_batch(step: int) -> Tensor:
    """Frames of the simple world, [DENOISER_BATCH, 3, 32, 32]: the first of films that move."""
    films, _ = world.clips(SEED, range(step * DENOISER_BATCH, (step + 1) * DENOISER_BATCH), frames=1, level="simple")
    return films[:, 0]


def denoising_loss(model: UNet, frames: Tensor, generator: torch.Generator) -> Tensor:
    """The velocity's squared error, at uniform times (chapter 06)."""
    return diffusion_loss(PROCESS, model, frames, "v", generator=generator).mean()


# ------------------------------------------------------------------------------------------------ train and evaluate


def train(name: str = "unet", folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) `unet` or `unet_denoiser` in runs/, measure it, save it as folder/NAME; returns its path.

    `unet` also runs the experiments of its card; each run that is done already is not done again.
    """
    denoises = name == "unet_denoiser"
    config = UNetConfig.denoiser() if denoises else UNetConfig.small()
    training = DENOISER if denoises else CONFIG
    training = replace(training, steps=steps or by_profile(smoke=2, laptop=training.steps, gpu=4 * training.steps))
    batch_fn, loss_fn = (frame_batch, denoising_loss) if denoises else (Dish(), loss)
    model, result = fit(config, training, batch_fn, RUNS / name, loss_fn)
    count = by_profile(smoke=2, laptop=100, gpu=100)
    metrics = denoiser_error(model) if denoises else {"test": measure(model, count),
                                                      **experiments(RUNS / f"{name}_experiments")}  # fmt: skip
    card = {
        "config": asdict(config), "data_seed": SEED, "steps": result.steps,
        "batch": DENOISER_BATCH if denoises else BATCH, "seconds": round(result.seconds),
        "command": f"soralab train {name}", "metrics": metrics,
    }  # fmt: skip
    return publish((folder or RUNS / name) / name, model.state_dict(), card)


def experiments(folder: Path) -> dict:
    """{"weight_map": its table, "isbi": its table, or None where there are no slices}."""
    few = by_profile(smoke=True, laptop=False, gpu=False)
    runs = weight_map_runs(folder, 2, (1,), 2) if few else weight_map_runs(folder)
    return {"weight_map": runs, "isbi": isbi_runs(folder, 2 if few else ISBI_STEPS) if isbi.available() else None}


@torch.no_grad()
def denoiser_error(model: UNet, count: int = 64) -> dict[str, float]:
    """The velocity's mean squared error on frames that training never saw, at five times: {"t=0.1": ...}."""
    frames = world.clips(SEED, range(count), frames=1, level="simple", split="test")[0][:, 0]
    errors = {}
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        generator = torch.Generator().manual_seed(0)
        times = torch.full((count,), t)
        errors[f"t={t}"] = diffusion_loss(PROCESS, model, frames, "v", t=times, generator=generator).mean().item()
    return {key: round(value, 4) for key, value in errors.items()}


def evaluate(name: str = "unet", checkpoint: str | None = None) -> str:
    """The scores of a shipped network, measured now."""
    model = load_unet(checkpoint or name)
    few = by_profile(smoke=2, laptop=100, gpu=100)
    metrics = denoiser_error(model) if name == "unet_denoiser" else measure(model, few)
    return "\n".join(f"{key:20s} {value:8.4f}" for key, value in metrics.items())
