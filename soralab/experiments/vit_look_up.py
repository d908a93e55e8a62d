"""Chapter 03's second task, "look it up": do the lines of ViT and ResNet cross?

A board of 3 x 3 cells. The square in its first cell has the colour of one of the other things: which shape is that? The
answer lies somewhere else than the question, so a network has to carry a colour across the board. In a frame the board
begins up to `reach` pixels from the corner. At (0, 0) each cell is one patch of the ViT; the further it may move, the
more ways there are in which the patches cut through the things.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from soralab import world
from soralab.datasets.what_and_where import Batches
from soralab.experiments.vit_crossing import ARM_TRAINING, SEEDS, ResNet
from soralab.experiments.vit_scores import accuracy
from soralab.recipes import vit as chapter_03
from soralab.training.data import model_flops
from soralab.vit import ViT, ViTConfig

CELL, GRID, SIDE = 8, 3, 32  # pixels, cells, pixels
THINGS = 7  # besides the square that asks, at most
CLASSES = len(world.SHAPES)
DARK = 18  # of the board, as of the world's black background
CHUNK = 4000  # boards drawn at once, for the memory's sake


def boards(seed: int, count: int, reach: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """Boards uint8 [count, 3, 32, 32], and the shape that each asks for: its place in world.SHAPES, [count].

    reach: how many pixels a board may lie below and to the right of the frame's corner, each from 0 to 8.
    Raises ValueError for another reach.
    """
    room = SIDE - GRID * CELL
    if not all(0 <= most <= room for most in reach):
        raise ValueError(f"reach is {reach}; it takes two numbers of pixels from 0 to {room}")
    rng = np.random.default_rng(seed)
    parts = [_boards(rng, min(CHUNK, count - start), reach) for start in range(0, count, CHUNK)]
    return tuple(torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))


def _boards(rng: np.random.Generator, n: int, reach: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(n)
    place = rng.random((n, GRID**2 - 1)).argsort(1)[:, :THINGS] + 1
    shape = rng.integers(0, CLASSES, (n, THINGS))
    colour = rng.random((n, len(world.COLOURS))).argsort(1)[:, :THINGS]  # no two things have the same
    many = rng.integers(1, THINGS + 1, n)
    asked = rng.integers(0, many)
    place = np.insert(place, 0, 0, axis=1)  # the square that asks, in the first cell
    shape = np.insert(shape, 0, world.SHAPES.index("square"), axis=1)
    colour = np.insert(colour, 0, colour[rows, asked], axis=1)
    cover = _covers(rng, shape)
    cover[np.arange(THINGS + 1) > many[:, None]] = 0
    cover = cover[:, :, None]
    palette = np.array([world.PALETTE[name] for name in world.COLOURS], np.float32)
    tiles = np.full((n, GRID**2, 3, CELL, CELL), DARK, np.float32)
    tiles[rows[:, None], place] = DARK * (1 - cover) + cover * palette[colour][..., None, None]
    whole = rearrange(tiles + 0.5, "n (r s) c p q -> n c (r p) (s q)", r=GRID)
    frames = np.full((n, 3, SIDE, SIDE), DARK, np.uint8)
    top, left = (rng.integers(0, most + 1, n) for most in reach)
    for k in rows:
        frames[k, :, top[k] : top[k] + GRID * CELL, left[k] : left[k] + GRID * CELL] = whole[k]
    return frames, shape[rows, 1 + asked]


def _covers(rng: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    """How much of each pixel of its cell a thing covers, for shapes [n, things]: [n, things, CELL, CELL]."""
    poses = np.zeros((shape.size, 1, 4), np.float32)
    poses[:, 0, :2] = rng.uniform(-0.08, 0.08, (shape.size, 2))
    poses[:, 0, 2] = rng.uniform(0.38, 0.48, shape.size)
    cover = world.coverage([world.SHAPES[k] for k in shape.flatten()], poses, CELL, CELL)
    return cover.reshape(*shape.shape, CELL, CELL)


# -------------------------------------------------------------------------------------------------- is there a crossing

REACH = (2, 2)
SIZES = (1000, 2000, 4000, 16_000, 64_000)  # different boards
RATES = (2e-3, 3e-3, 6e-3)  # of learning, tried for both networks
BATCH, STEPS = 128, 800
FRESH, FRESH_SEEDS = 3003, tuple(range(21, 27))  # boards and seeds for a second look
BUILD = {
    "ViT": partial(ViT, ViTConfig(image=SIDE, patch=CELL, classes=CLASSES)),
    "ResNet": partial(ResNet, 3, CLASSES, (16, 32, 48)),
}


def costs() -> dict[str, dict[str, int]]:
    """Parameters and multiply-accumulates of one board, of both networks."""
    table = {}
    for arm, build in BUILD.items():
        model = build()
        macs = model_flops(model, torch.zeros(1, 3, SIDE, SIDE)) // 2
        table[arm] = {"parameters": sum(p.numel() for p in model.parameters()), "macs": macs}
    return table


def crossing(folder: Path, sizes: tuple[int, ...] = SIZES, steps: int = STEPS, count: int = 4000) -> dict[str, dict]:
    """Shares of `count` boards read right, all runs being of so many steps: {split: {rate: {arm: {size: [shares]}}}}.

    split: "validation", to choose a rate by, and "test". size: the number of training boards; shares: one for each of
    SEEDS. Another seed also draws other boards, of those of the largest size.
    """
    train = boards(chapter_03.SEED + 1, max(sizes), REACH)
    unseen = {"validation": boards(chapter_03.SEED + 2, count, REACH), "test": boards(chapter_03.SEED, count, REACH)}
    table = {split: {str(rate): {arm: {} for arm in BUILD} for rate in RATES} for split in unseen}
    for rate, arm, size, seed in product(RATES, BUILD, sizes, SEEDS):
        model = fit(arm, rate, size, seed, train, steps, folder)
        for split, (pictures, labels) in unseen.items():
            share = accuracy(model, pictures, labels)
            table[split][str(rate)][arm].setdefault(str(size), []).append(share)
    return table


def again(
    folder: Path, rates: dict[str, dict], sizes: tuple[int, ...], steps: int = STEPS, count: int = 4000
) -> dict[str, dict]:
    """The same at rates that are given, on boards and with seeds that nothing was chosen by: {arm: {size: [shares]}}.

    rates: {arm: {size: rate}}, as `at_best_rate` says.
    """
    train, (pictures, labels) = boards(FRESH + 1, max(sizes), REACH), boards(FRESH, count, REACH)
    table = {arm: {} for arm in BUILD}
    for arm, size, seed in product(BUILD, sizes, FRESH_SEEDS):
        model = fit(arm, rates[arm][str(size)], size, seed, train, steps, folder)
        table[arm].setdefault(str(size), []).append(accuracy(model, pictures, labels))
    return table


def fit(arm: str, rate: float, size: int, seed: int, train: tuple[Tensor, Tensor], steps: int, folder: Path):
    """A network of an arm, trained on `size` of the training boards."""
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(seed))[:size]
    batches = Batches(train[0][order], train[1][order], BATCH, seed)
    training = replace(ARM_TRAINING, steps=steps, lr=rate, seed=seed, save_every=steps)
    return chapter_03.fit(BUILD[arm], training, batches, folder / f"{arm}_{rate}_{size}_{seed}")[0]


def at_best_rate(table: dict[str, dict]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Of what `crossing` returns: the rate with the highest mean share of the validation boards, {arm: {size: rate}},
    and the shares of the test boards at that rate, {arm: {size: [shares]}}."""
    validation, test = table["validation"], table["test"]
    rates, shares = {arm: {} for arm in BUILD}, {arm: {} for arm in BUILD}
    for arm in BUILD:
        for size in validation[next(iter(validation))][arm]:
            right = {rate: sum(row[arm][size]) for rate, row in validation.items()}
            best = max(right, key=right.get)
            rates[arm][size], shares[arm][size] = float(best), test[best][arm][size]
    return rates, shares


def tables(
    folder: Path, sizes: tuple[int, ...] = SIZES, second: tuple[int, ...] = (4000, 64_000), **options
) -> dict[str, dict]:
    """What the card holds of this task: `costs`, the `crossing`, and a second look at some of its sizes (`again`)."""
    found = crossing(folder, sizes, **options)
    rates, _ = at_best_rate(found)
    return {"costs": costs(), "crossing": found, "again": again(folder / "again", rates, second, **options)}
