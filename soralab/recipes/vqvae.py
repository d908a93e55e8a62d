"""How chapter 05's models are trained and measured: `soralab train vqvae`, then `vqvae_prior`; and `vqvae_films`.

`vqvae` sees single frames (`what_and_where`), `vqvae_films` whole films of 9 frames, and `vqvae_prior` the maps that
`vqvae` makes of its frames, with the shape of the thing as the class. The experiments in `vqvae`'s card are in
`soralab.experiments`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from math import log2
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from soralab import world
from soralab.datasets.what_and_where import CELLS, Batches, frames, sample, to_pixels
from soralab.figures import read_log
from soralab.recipes import RUNS, publish
from soralab.training import loop
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.vqvae import VQVAE, PixelCNN, PriorConfig, VQVAEConfig, load, perplexity, vqvae_loss
from soralab.world import referee

SEED, BATCH, FILM_BATCH = 5, 32, 8
FRAMES = 40_000  # of the shipped model's training, and of its prior's
FILM_FRAMES, SIDE = 9, 32
VARIANCE = 0.15  # of the values of a frame: the unit of an error's square, as in the official code
TEST_FRAMES, TEST_FILMS, READ = 2000, 100, 200  # READ: frames that are shown to the referee

CONFIG = VQVAEConfig(revive=0.5)
FILMS = VQVAEConfig(films=True, codes=256, revive=0.5)
PRIOR = PriorConfig(codes=CONFIG.codes, classes=len(world.SHAPES))
# ema=0: the codebook follows the encoder as it is, so an average of the encoder would not fit it.
TRAINING = TrainConfig(steps=5000, lr=2e-3, warmup=100, cooldown=0.3, ema=0.0, seed=SEED, log_every=50, save_every=1000)
FILM_TRAINING = replace(TRAINING, steps=2000)
PRIOR_TRAINING = replace(TRAINING, steps=2500, lr=1e-3, ema=0.995)


def loss(model: VQVAE, batch: dict[str, Tensor], generator: torch.Generator):
    """Eq. (3) of a batch of pictures or films."""
    return vqvae_loss(model, batch["pixels"], VARIANCE)


def prior_loss(model: PixelCNN, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Bits for one code of a batch of maps."""
    return model.bits(batch["indices"], batch["label"])


def fit(
    model: nn.Module, loss_fn: Callable, training: TrainConfig, batches: Callable, folder: Path
) -> tuple[nn.Module, loop.TrainResult]:
    """Train a model, or go on with it: the (averaged) model and the result."""
    result = loop.train(model, loss_fn, batches, training, folder)
    result.ema.copy_to(model)
    return model.eval(), result


def build(config: VQVAEConfig | PriorConfig, seed: int = SEED) -> nn.Module:
    """A fresh model, its weights drawn from the seed."""
    torch.manual_seed(seed)
    return PixelCNN(config) if isinstance(config, PriorConfig) else VQVAE(config)


# ---------------------------------------------------------------------------------------------------------------- data


def film_batch(step: int) -> dict[str, Tensor]:
    """Batch `step` of films of one thing, never twice the same: {"pixels": [8, 9, 3, 32, 32]}."""
    indices = range(step * FILM_BATCH, (step + 1) * FILM_BATCH)
    return {"pixels": world.clips(SEED, indices, FILM_FRAMES, SIDE, SIDE, "simple")[0]}


@torch.no_grad()
def encoded(model: VQVAE, pictures: Tensor, chunk: int = 250) -> Tensor:
    """The maps of pictures uint8 [n, 3, height, width]: int64 [n, rows, columns]."""
    return torch.cat([model.encode(to_pixels(part)) for part in pictures.split(chunk)])


class Maps:
    """Batches of the maps that `model` makes of the training frames, with the shape of each frame's thing."""

    def __init__(self, model: VQVAE, count: int):
        pictures, labels = frames(SEED, range(count))
        self.batches = Batches(encoded(model, pictures), labels // CELLS**2, BATCH, SEED)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Batch `step`: {"indices": [batch, rows, columns], "label": [batch]}."""
        batch = self.batches(step)
        return {"indices": batch["pixels"], "label": batch["label"]}


# ------------------------------------------------------------------------------------------------------------ measures


def psnr(x: Tensor, copy: Tensor) -> float:
    """Peak signal-to-noise ratio of all of x together, dB; the peak is 2, from -1 to 1."""
    return round((10 * torch.log10(4 / (x - copy).square().mean())).item(), 2)


def seen(pictures: Tensor) -> list[tuple[str, str] | None]:
    """What the referee sees in each picture [n, 3, h, w] in [-1, 1]: (shape, colour) if it is one thing, else None."""
    reports = referee.read_all(pictures.clamp(-1, 1)[:, None].expand(-1, 4, -1, -1, -1))  # it reads films of 4 or more
    return [(r.objects[0].shape, r.objects[0].colour) if len(r.objects) == 1 else None for r in reports]


@torch.no_grad()
def measure(model: VQVAE, split: str = "test", count: int = TEST_FRAMES, read: int = READ) -> dict[str, float]:
    """On frames that training never saw: bits of a map, PSNR in dB, codes in use, and what the referee reads.

    "read right": the share of `read` copies in which it sees the thing with its shape and its colour; "originals": the
    same of the frames themselves. split: "test" or "held_out", where no shape has a colour that it had in training.
    """
    x = to_pixels(frames(SEED, range(count), SIDE, split)[0])
    maps = encoded(model, x)
    copies = torch.cat([model.decode(part) for part in maps.split(250)])
    things = [sample(SEED, index, split).objects[0] for index in range(min(read, count))]
    true = [(thing.shape, thing.colour) for thing in things]
    right = {name: sum(a == b for a, b in zip(seen(shown[: len(true)]), true, strict=True)) / len(true)
             for name, shown in (("read right", copies), ("originals", x))}  # fmt: skip
    return {"frames": count, "bits": round(model.config.bits(SIDE, SIDE), 1), "psnr": psnr(x, copies),
            "perplexity": round(perplexity(maps, model.config.codes).item(), 1),
            "codes used": len(maps.unique()), **right}  # fmt: skip


@torch.no_grad()
def measure_films(model: VQVAE, count: int = TEST_FILMS) -> dict[str, float]:
    """The same for films: their bits, PSNR, and the share in which the referee reads everything right, motion too."""
    films, scenes = world.clips(SEED, range(count), FILM_FRAMES, SIDE, SIDE, "simple", "test")
    maps = torch.cat([model.encode(part) for part in films.split(20)])
    copies = torch.cat([model.decode(part) for part in maps.split(20)])
    right = {}
    for name, shown in (("read right", copies.clamp(-1, 1)), ("originals", films)):
        scores = [referee.score(r, s)["all"] for r, s in zip(referee.read_all(shown), scenes, strict=True)]
        right[name] = sum(scores) / count
    return {"films": count, "bits": round(model.config.bits(SIDE, SIDE, FILM_FRAMES), 1), "psnr": psnr(films, copies),
            "perplexity": round(perplexity(maps, model.config.codes).item(), 1), **right}  # fmt: skip


@torch.no_grad()
def measure_prior(prior: PixelCNN, model: VQVAE, count: int = 1000, samples: int = 20) -> dict[str, float]:
    """Bits for one code of test maps: by the prior, by how often each code stands at each place, by nothing at all.

    "samples": how many were drawn, `samples` for each shape; "one thing": the share in which the referee sees one thing
    and names its shape; "right shape": that shape is the one that was asked for.
    """
    pictures, labels = frames(SEED, range(count), SIDE, "test")
    maps, shapes = encoded(model, pictures), labels // CELLS**2
    parts = zip(maps.split(250), shapes.split(250), strict=True)
    bits = sum(prior.bits(z, shape).item() * len(z) for z, shape in parts) / count
    wanted = torch.arange(prior.config.classes).repeat(samples)
    drawn = seen(model.decode(prior.sample(wanted, maps.shape[1:], torch.Generator().manual_seed(SEED))))
    found = [thing and thing[0] for thing in drawn]
    asked = [world.SHAPES[k] for k in wanted.tolist()]
    return {"bits": round(bits, 3), "bits by place": round(by_place(model, maps), 3),
            "bits of nothing": log2(model.config.codes), "samples": len(asked),
            "one thing": sum(shape is not None for shape in found) / len(asked),
            "right shape": sum(a == b for a, b in zip(found, asked, strict=True)) / len(asked)}  # fmt: skip


def by_place(model: VQVAE, maps: Tensor, count: int = 10_000) -> float:
    """Bits for one code of `maps` if all that one knows is how often each code stands at each place in training."""
    count = by_profile(smoke=200, laptop=count, gpu=count)
    known = encoded(model, frames(SEED, range(count))[0]).flatten(1)
    table = torch.ones(known.shape[1], model.config.codes)  # one more of each: none is impossible
    table.scatter_add_(1, known.T, torch.ones(known.T.shape))
    share = table / table.sum(1, keepdim=True)
    return -share.gather(1, maps.flatten(1).T).log2().mean().item()


# -------------------------------------------------------------------------------------------------- train and evaluate


def short_run(seed: int, steps: int = 300, folder: str | Path | None = None) -> dict:
    """The first steps of `vqvae`'s training; returns the log as columns {"step", "loss", "psnr", "perplexity", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    batches = Batches(*frames(SEED, range(max(BATCH, steps * BATCH))), BATCH, seed)
    with TemporaryDirectory() as temporary:
        _, result = fit(build(CONFIG, seed), loss, training, batches, Path(folder or temporary))
        return read_log(result.log)


def train(name: str = "vqvae", folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) a model in runs/NAME, run its experiments, save it as folder/NAME; returns its path.

    `vqvae_prior` needs the checkpoint `vqvae`. Experiments that were run already are not run again.
    """
    from soralab.experiments.vqvae_rate_distortion import experiments  # which takes its data and its loss from here

    config, training, loss_fn = {
        "vqvae": (CONFIG, TRAINING, loss), "vqvae_films": (FILMS, FILM_TRAINING, loss),
        "vqvae_prior": (PRIOR, PRIOR_TRAINING, prior_loss),
    }[name]  # fmt: skip
    full = training.steps
    training = replace(training, steps=steps or by_profile(smoke=2, laptop=full, gpu=4 * full))
    count = by_profile(smoke=100, laptop=FRAMES, gpu=FRAMES)
    if name == "vqvae":
        batches = Batches(*frames(SEED, range(count)), BATCH, SEED)
    else:
        batches = film_batch if name == "vqvae_films" else Maps(load("vqvae"), count)
    model, result = fit(build(config), loss_fn, training, batches, RUNS / name)
    more = experiments(RUNS / "vqvae_experiments") if name == "vqvae" else {}
    card = {
        "config": asdict(config), "data_seed": SEED, "steps": result.steps,
        "batch": FILM_BATCH if name == "vqvae_films" else BATCH, "seconds": round(result.seconds),
        "command": f"soralab train {name}", "metrics": {**scores(name, model), **more},
    }  # fmt: skip
    return publish((folder or RUNS / name) / name, model.state_dict(), card)


def scores(name: str, model: nn.Module) -> dict[str, dict[str, float]]:
    """The rows of a model's table."""
    if name == "vqvae_films":
        return {"test": measure_films(model, by_profile(smoke=4, laptop=TEST_FILMS, gpu=TEST_FILMS))}
    small = by_profile(smoke={"count": 20}, laptop={}, gpu={})
    if name == "vqvae_prior":
        return {"test": measure_prior(model, load("vqvae"), **small, samples=by_profile(smoke=1, laptop=20, gpu=20))}
    return {split: measure(model, split, **small) for split in ("test", "held_out")}


def evaluate(name: str = "vqvae", checkpoint: str | None = None) -> str:
    """The table of a shipped model, measured now."""
    rows = scores(name, load(checkpoint or name))
    return "\n".join(f"{split:10s}" + "".join(f"{key} {value:g}   " for key, value in row.items())
                     for split, row in rows.items())
