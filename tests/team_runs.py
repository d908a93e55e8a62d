"""What tests/test_distributed.py has two processes do, which torchrun starts; and the same trainings for one process.

    torchrun --standalone --nproc-per-node 2 tests/team_runs.py FOLDER STEP

Each process writes what it saw to FOLDER/RANK.json. At last process 1 kills itself in step STEP of a training.
"""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from soralab.training.distributed import team
from soralab.training.loop import TrainConfig, train
from soralab.training.muon import muon_groups

CONFIG = TrainConfig(steps=24, lr=0.02, warmup=3, log_every=5, save_every=6, precision="float32", ema=0.9)


def build() -> nn.Sequential:
    """A model with dropout, a frozen layer, one that a loss may leave out, and a matrix for Muon."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1),
                              nn.Linear(16, 1))  # fmt: skip
    model[0].requires_grad_(False)
    return model


def batch_fn(step, size=12):
    x = torch.randn(size, 8, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True), "step": step}


def loss_fn(model, batch, generator):
    """Not by model(x): any of its parts may be called. Every third step has a second head."""
    x = model[0](batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator))
    found = model[4](hidden := model[3](model[2](model[1](x))))
    loss = (found - batch["y"]).square().mean()
    if batch["step"] % 3 == 0:
        loss = loss + 0.1 * model[5](hidden).square().mean()
    return loss, {"twice": 2 * loss, "rows": len(x)}


def at(step, rank, act):
    """`loss_fn`, but process `rank` does `act` in step `step` (from 1), and what it returns is its factor."""

    def loss(model, batch, generator):
        here = batch["step"] + 1 == step and int(os.environ.get("RANK", 0)) == rank
        value, reported = loss_fn(model, batch, generator)
        return value * (act() if here else 1.0), reported

    return loss


def run(folder, loss=loss_fn, config=CONFIG, model=None, batches=batch_fn):
    """Train in a folder: the model."""
    model = model or build()
    train(model, loss, batches, config, folder, parameters=muon_groups(model, inside="1.weight", scale=0.5))
    return model


def normed() -> nn.Sequential:
    """A model whose buffers move."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))


def normed_loss(model, batch, generator):
    return (model(batch["x"]) - batch["y"]).square().mean()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, step: int) -> None:
    seen = {}
    with team() as mine:
        run(folder / "whole")
        seen["prepared"] = (folder / "prepared").exists()  # process 0 comes here first
        if mine.leads:
            time.sleep(0.3)
            (folder / "prepared").touch()
        model = normed()
        train(model, normed_loss, batch_fn, replace(CONFIG, steps=1), folder / "normed")
        save_file(model.state_dict(), folder / f"normed_{mine.rank}.safetensors")
        run(folder / "gone_on")  # which one process began, in two parts
        run(folder / "lengthened")  # and this in one part
        for name, act, error in (("stopped", lambda: signal.raise_signal(signal.SIGTERM) or 1.0, SystemExit),
                                 ("not_finite", lambda: float("nan"), FloatingPointError)):  # fmt: skip
            try:
                run(folder / name, at(5, 1, act))
            except error as found:
                seen[name] = str(found)
            mine.wait()  # as at the end of a training that ends well
        (folder / f"{mine.rank}.json").write_text(json.dumps(seen))
        run(folder / "killed", at(step, 1, kill))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
