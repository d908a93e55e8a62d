"""How chapter 03's ViT is trained and measured: `soralab train vit`, `soralab evaluate vit`.

The task is `what_and_where`. The card also holds four experiments that the notebook shows: the crossing with a small
ResNet of as many FLOPs as data grows (figure 4), the same on MNIST where the reader has it and on `vit_look_up`, and
fine-tuning at a higher resolution (section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.datasets import mnist
from soralab.datasets.what_and_where import CELLS, CLASSES, Batches, frames, to_pixels
from soralab.figures import read_log
from soralab.files.checkpoints import load_model
from soralab.recipes import RUNS, publish
from soralab.training import loop
from soralab.training.data import model_flops
from soralab.training.loop import TrainConfig
from soralab.training.profiles import by_profile
from soralab.vit import ViT, ViTConfig

SEED, BATCH = 3, 32
CONFIG = ViTConfig(classes=CLASSES, hidden=64)
FRAMES = 60_000  # of the shipped model's training
TRAINING = TrainConfig(
    steps=12_000, lr=1e-3, warmup=200, cooldown=0.4, weight_decay=0.05, ema=0.998, seed=SEED, log_every=50,
    save_every=1000,
)  # fmt: skip
TEST_FRAMES = 2000

# --------------------------------------------------------------------------------------------- one training, one test


def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator):
    """Cross-entropy of a batch, and the share that is right."""
    logits = model(batch["pixels"]).float()
    right = (logits.detach().argmax(-1) == batch["label"]).float().mean()
    return F.cross_entropy(logits, batch["label"]), {"right": right}


def fit(
    build: Callable[[], nn.Module], training: TrainConfig, batches: Callable, folder: Path
) -> tuple[nn.Module, loop.TrainResult]:
    """Train what `build` makes from the training's seed, or go on with it: the averaged model and the result."""
    torch.manual_seed(training.seed)
    model = build()
    result = loop.train(model, loss, batches, training, folder)
    result.ema.copy_to(model)
    return model.eval(), result


@torch.no_grad()
def predict(model: nn.Module, pictures: Tensor, chunk: int = 250) -> Tensor:
    """The likeliest class of each picture: [n]."""
    return torch.cat([model(to_pixels(part)).argmax(-1) for part in pictures.split(chunk)])


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The share of pictures whose class is found, 0 to 1."""
    return round((predict(model, pictures) == labels).float().mean().item(), 4)


def measure(model: nn.Module, split: str = "test", count: int = TEST_FRAMES) -> dict[str, float]:
    """On frames that training never saw: {"frames", "what and where", "what", "where"}, shares from 0 to 1.

    split: "test", or "held_out", where every thing has a colour that its shape never had in training.
    """
    pictures, labels = frames(SEED, range(count), CONFIG.image, split)
    found = predict(model, pictures)
    right = {"what and where": found == labels, "what": found // CELLS**2 == labels // CELLS**2,
             "where": found % CELLS**2 == labels % CELLS**2}  # fmt: skip
    return {"frames": count, **{key: round(hits.float().mean().item(), 4) for key, hits in right.items()}}


# ------------------------------------------------------------------------------------------------------ the crossing


class Residual(nn.Module):
    """norm, ReLU, 3 x 3 convolution, twice, plus the input (He et al. 2016, 1603.05027), with GroupNorm as in BiT."""

    def __init__(self, dim_in: int, dim_out: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, dim_in), nn.GroupNorm(8, dim_out)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(dim_in, dim_out, 1, stride, bias=False) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, dim_in, height, width] to [batch, dim_out, height / stride, width / stride]."""
        h = F.relu(self.norm1(x))
        return (self.skip(h) if self.skip else x) + self.conv2(F.relu(self.norm2(self.conv1(h))))


class ResNet(nn.Module):
    """A small residual network with as many FLOPs as the small ViT, and about as many parameters."""

    def __init__(self, channels: int = 3, classes: int = CLASSES, widths: tuple[int, ...] = (32, 64, 96)):
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, stride=2, padding=1, bias=False)
        dims = (widths[0], *widths)
        self.blocks = nn.Sequential(
            Residual(widths[0], widths[0], 1),
            *(Residual(a, b, 1 if k == 0 else 2) for k, (a, b) in enumerate(zip(dims, widths, strict=False))),
        )
        self.norm, self.head = nn.GroupNorm(8, widths[-1]), nn.Linear(widths[-1], classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, channel, height, width] in [-1, 1] to [batch, classes]; the mean over all places is read."""
        return self.head(F.relu(self.norm(self.blocks(self.stem(pixels)))).mean((2, 3)))


def shuffled(pictures: Tensor, patch: int = CONFIG.patch) -> Tensor:
    """Pictures [n, channel, height, width] with their patches in another order, the same one for all of them.

    A ViT cannot tell: it would learn the positions in that order. What a convolution takes for granted, that near
    pixels belong together, no longer holds across the patches' edges.
    """
    rows = pictures.shape[2] // patch
    patches = rearrange(pictures, "n c (r p) (s q) -> n (r s) c p q", p=patch, q=patch)
    order = torch.randperm(patches.shape[1], generator=torch.Generator().manual_seed(SEED))
    return rearrange(patches[:, order], "n (r s) c p q -> n c (r p) (s q)", r=rows)


ARMS = ("ViT", "ResNet", "ResNet, patches shuffled")
SEEDS = (1, 2, 3)
WORLD_STEPS = {300: 1000, 1000: 1500, 3000: 2000, 10_000: 3000, 30_000: 6000}  # of training, by number of pictures
MNIST_STEPS = {300: 600, 3000: 1000, 60_000: 2000}
ARM_TRAINING = replace(TRAINING, warmup=100, ema=0.99)


def builder(arm: str, channels: int = 3, image: int = 32, classes: int = CLASSES) -> Callable[[], nn.Module]:
    """What makes a fresh network of an arm."""
    if arm == "ViT":
        return partial(ViT, replace(CONFIG, channels=channels, image=image, classes=classes, hidden=0))
    return partial(ResNet, channels, classes)


def costs() -> dict[str, dict[str, int]]:
    """Parameters and multiply-accumulates of one frame, of both networks."""
    table = {}
    for arm in ARMS[:2]:
        model = builder(arm)()
        pixels = torch.zeros(1, 3, CONFIG.image, CONFIG.image)
        table[arm] = {"parameters": sum(p.numel() for p in model.parameters()), "macs": model_flops(model, pixels) // 2}
    return table


def crossing(
    folder: Path, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, steps: dict[int, int]
) -> dict[str, dict[str, list[float]]]:
    """Test accuracies {arm: {number of training pictures: [one for each seed]}}.

    train, test: (pictures, labels). steps: of training, by number of pictures, the same for all arms. The first and the
    last size run with SEEDS, those between with the first seed alone; another seed also draws other pictures.
    """
    table = {arm: {} for arm in ARMS}
    channels, image = train[0].shape[1], train[0].shape[2]
    for arm in ARMS:
        change = shuffled if "shuffled" in arm else lambda pictures: pictures
        for size in steps:
            for seed in SEEDS if size in (min(steps), max(steps)) else SEEDS[:1]:
                order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))[:size]
                batches = Batches(change(train[0][order]), train[1][order], BATCH, seed)
                where = folder / f"{arm.replace(', ', '_').replace(' ', '_')}_{size}_{seed}"
                training = replace(ARM_TRAINING, steps=steps[size], seed=seed, save_every=steps[size])
                model, _ = fit(builder(arm, channels, image, classes), training, batches, where)
                table[arm].setdefault(str(size), []).append(accuracy(model, change(test[0]), test[1]))
    return table


def world_crossing(folder: Path, steps: dict[int, int] = WORLD_STEPS, count: int = TEST_FRAMES) -> dict:
    """The crossing on the world's frames, tested on the first `count` of the split "test"."""
    pool = frames(SEED + 1, range(max(steps)))
    return crossing(folder, pool, frames(SEED, range(count), split="test"), CLASSES, steps)


def mnist_crossing(folder: Path, steps: dict[int, int] = MNIST_STEPS, count: int = 10_000) -> dict:
    """The same on MNIST and `count` of its test digits. Raises FileNotFoundError where there are none."""
    digits, labels = mnist.load("test")
    return crossing(folder, mnist.load("train"), (digits[:count], labels[:count]), mnist.CLASSES, steps)


# ------------------------------------------------------------------------------------------------ higher resolution

LARGER, TUNING_FRAMES = 48, 2000
TUNING = replace(TRAINING, steps=300, lr=3e-4, warmup=20, cooldown=0.5, ema=0.98)
STARTS = ("interpolated positions", "positions drawn anew", "from scratch")


def start(model: ViT, kind: str) -> ViT:
    """The network for frames of LARGER x LARGER that one of STARTS begins with, its head at zero."""
    tuned = model.finetune(image=LARGER)
    if kind == "positions drawn anew":
        nn.init.normal_(tuned.positions[1:].data, std=0.02)
    return ViT(tuned.config) if kind == "from scratch" else tuned


def larger_frames(
    folder: Path, model: ViT, steps: int = TUNING.steps, seeds: tuple[int, ...] = SEEDS, count: int = TEST_FRAMES // 2
) -> dict[str, list[float]]:
    """Fine-tuning on TUNING_FRAMES frames of 48 x 48: {start: [test accuracy for each seed]}."""
    train, test = frames(SEED + 2, range(TUNING_FRAMES), LARGER), frames(SEED, range(count), LARGER, "test")
    table = {}
    for kind in STARTS:
        for seed in seeds:
            training = replace(TUNING, steps=steps, seed=seed, save_every=steps)
            where = folder / f"{kind.replace(' ', '_')}_{seed}"
            tuned, _ = fit(partial(start, model, kind), training, Batches(*train, BATCH, seed), where)
            table.setdefault(kind, []).append(accuracy(tuned, *test))
    return table


# ------------------------------------------------------------------------------------------------ train and evaluate


def load(name: str = "vit") -> ViT:
    """The shipped ViT, verified, in float32. Raises CheckpointError."""
    return load_model(name, lambda sizes: ViT(ViTConfig(**sizes)), "ViT")[0]


def short_run(seed: int, steps: int = 400, folder: str | Path | None = None) -> dict:
    """The first steps of the shipped model's training; returns the log as columns {"step", "loss", ...}.

    Float32 on any machine, and a constant learning rate after the warm-up, so that the band holds for every reader.
    """
    training = replace(
        TRAINING, steps=steps, seed=seed, warmup=50, cooldown=0.0, log_every=2, save_every=steps, precision="float32"
    )
    batches = Batches(*frames(SEED, range(steps * BATCH)), BATCH, seed)
    with TemporaryDirectory() as temporary:
        _, result = fit(partial(ViT, CONFIG), training, batches, Path(folder or temporary))
        return read_log(result.log)


def experiments(folder: Path, model: ViT) -> dict:
    """The card's tables: what each network costs, the crossing, MNIST's (None without it), higher resolution, and the
    crossing where a colour is to be looked up."""
    from soralab.experiments import vit_look_up as look_up

    small = by_profile(smoke={"steps": {32: 2, 64: 2}, "count": 50}, laptop={}, gpu={})
    few = by_profile(smoke={"steps": 2, "seeds": (1,), "count": 50}, laptop={}, gpu={})
    boards = by_profile(smoke={"sizes": (128,), "second": (128,), "steps": 2, "count": 50}, laptop={}, gpu={})
    return {
        "costs": costs(),
        "crossing": world_crossing(folder / "world", **small),
        "mnist": mnist_crossing(folder / "mnist", **small) if mnist.available() else None,
        "larger frames": larger_frames(folder / "larger", model, **few),
        "look up": look_up.tables(folder / "look_up", **boards),
    }


def train(name: str = "vit", folder: Path | None = None, steps: int | None = None) -> Path:
    """Train (or go on with) the ViT in runs/NAME, run the experiments, save it as folder/NAME; returns its path.

    Experiments that were run already are not run again.
    """
    full = TRAINING.steps
    training = replace(TRAINING, steps=steps or by_profile(smoke=2, laptop=full, gpu=4 * full))
    count = by_profile(smoke=100, laptop=FRAMES, gpu=4 * FRAMES)
    batches = Batches(*frames(SEED, range(count)), BATCH, SEED)
    model, result = fit(partial(ViT, CONFIG), training, batches, RUNS / name)
    count = by_profile(smoke=20, laptop=TEST_FRAMES, gpu=TEST_FRAMES)
    card = {
        "config": asdict(CONFIG), "data_seed": SEED, "frames": len(batches.pictures), "steps": result.steps,
        "batch": BATCH, "seconds": round(result.seconds), "command": f"soralab train {name}",
        "metrics": {
            **{split: measure(model, split, count) for split in ("test", "held_out")},
            **experiments(RUNS / f"{name}_experiments", model),
        },
    }  # fmt: skip
    return publish((folder or RUNS / name) / name, model.state_dict(), card)


def evaluate(name: str = "vit", checkpoint: str | None = None) -> str:
    """The shares of unseen frames that the shipped ViT gets right, measured now, on both splits."""
    model = load(checkpoint or name)
    count = by_profile(smoke=20, laptop=TEST_FRAMES, gpu=TEST_FRAMES)
    rows = {split: measure(model, split, count) for split in ("test", "held_out")}
    return "\n".join(
        f"{split:10s}" + "".join(f"{key} {value:8.2%}   " for key, value in row.items() if key != "frames")
        for split, row in rows.items()
    )
