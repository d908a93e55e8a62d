"""What tests/test_distributed.py has two processes do, which torchrun starts; and the same trainings for one process.

    torchrun --standalone --nproc-per-node 2 tests/team_runs.py FOLDER STEP

Each process writes what it saw to FOLDER/RANK.json. At last process 1 kills itself in step STEP of a training.
"""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from soralab.files.lock import alone
from soralab.sora import Sora, SoraConfig
from soralab.training import loop, muon
from soralab.training.context import shared_tokens
from soralab.training.distributed import TEAM, team
from soralab.training.loop import TrainConfig, train
from soralab.training.muon import muon_groups, orthogonal
from soralab.training.sharded import Sharded

CONFIG = TrainConfig(steps=24, lr=0.02, warmup=3, log_every=5, save_every=6, precision="float32", ema=0.9)


def build() -> nn.Sequential:
    """A model with dropout, a frozen layer, one that a loss may leave out, and three matrices for Muon."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1),
                              nn.Linear(16, 1), nn.Linear(16, 16), nn.Linear(16, 16))  # fmt: skip
    model[0].requires_grad_(False)
    return model


def batch_fn(step, size=12):
    x = torch.randn(size, 8, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True), "step": step}


def loss_fn(model, batch, generator):
    """Not by model(x): any of its parts may be called. Every third step has a second head."""
    x = model[0](batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator))
    found = model[4](hidden := model[3](model[2](model[7](model[6](model[1](x))))))
    loss = (found - batch["y"]).square().mean()
    if batch["step"] % 3 == 0:
        loss = loss + 0.1 * model[5](hidden).square().mean()
    return loss, {"twice": 2 * loss, "rows": len(x)}


def at(step, rank, act):
    """`loss_fn`, but process `rank` has `act` make another loss of its own in step `step` (from 1)."""

    def loss(model, batch, generator):
        here = batch["step"] + 1 == step and int(os.environ.get("RANK", 0)) == rank
        value, reported = loss_fn(model, batch, generator)
        return act(value) if here else value, reported

    return loss


def run(folder, loss=loss_fn, config=CONFIG, model=None, batches=batch_fn):
    """Train in a folder: the model."""
    model = model or build()
    train(model, loss, batches, config, folder, parameters=muon_groups(model, ".weight", ("4.", "5."), scale=0.5))
    return model


def normed() -> nn.Sequential:
    """A model whose buffers move."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))


def normed_loss(model, batch, generator):
    return (model(batch["x"]) - batch["y"]).square().mean()


class Stack(nn.Module):
    """What FSDP cuts: blocks, rows that two processes cannot share evenly, a single number, a buffer, and in a list a
    layer that is not called by its forward."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 7)])
        self.head, self.gain = nn.Linear(7, 1), nn.Parameter(torch.tensor(1.5))
        self.layers = nn.ModuleList([nn.Linear(7, 7)])
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        for block in self.blocks:
            x = block(x).tanh()
        return self.gain * self.head(x + x @ self.layers[0].weight)


def stack(folder, steps=CONFIG.steps, looks=None, loss=normed_loss, seed=0):
    """A Stack, trained in a folder, and the result; looks: a list that gets the model's state at each line of the log;
    seed: of its first weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Stack()
    parameters = muon_groups(model, inside="blocks", scale=0.5)

    def look(record):
        if looks is not None:
            looks.append({name: value.clone() for name, value in model.state_dict().items()})

    config = replace(CONFIG, steps=steps, cooldown=0.0)
    return model, train(model, loss, batch_fn, config, folder, on_log=look, parameters=parameters)


def kill(_):
    """By the system, at once. On Windows os.kill does so with any number but Ctrl-C's."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def stop(value):
    signal.raise_signal(signal.SIGTERM)
    return value


def steep(value):
    """As large, but its gradient is NaN."""
    return value + (0 * value).sqrt()


def caught(seen, name, work):
    """Do what ends in an error, in seen[name], and go on as after a training that ended well."""
    try:
        work()
    except (FloatingPointError, OSError, SystemExit) as found:
        seen[name] = str(found)
    TEAM.get().wait()


def film_of_two(mine, height: int = 8, width: int = 8) -> dict:
    """What Sora makes of a film whose tokens two processes share, held against the same by one: the largest
    differences of output and gradients, as shares of the largest value, and how many tokens a process had."""
    torch.manual_seed(3)
    model = Sora(SoraConfig(dim=24, depth=2, heads=2, rotary=True)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    x, t = torch.randn(2, 5, 8, height, width, dtype=torch.double), torch.rand(2, dtype=torch.double)
    ids, seen = torch.randint(1, 40, (2, 6)), []

    def result(shared):
        model.zero_grad()
        with shared_tokens(model, mine) if shared else nullcontext():
            hook = model.blocks[1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
            out = model(x, t, ids)
            out.square().mean().backward()
            hook.remove()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        for gradient in gradients.values() if shared else ():
            dist.all_reduce(gradient)
            gradient /= mine.world
        return {"out": out.detach(), **gradients}

    whole, shared = result(False), result(True)
    assert whole.keys() == shared.keys()
    apart = max(float((shared[k] - v).abs().max() / v.abs().max().clamp(min=1e-12)) for k, v in whole.items())
    return {"apart": apart, "tokens": seen, "tensors": len(whole)}


def divided(mine) -> list[dict]:
    """Of stacks of one to five matrices: how many this process took, and whether all came out as by one process."""
    found = []
    for count in range(1, 6):
        for dtype in (torch.float32, torch.bfloat16):
            stack = torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(count)).to(dtype)
            took = []
            out = mine.divided(lambda x, took=took: (took.append(len(x)), orthogonal(x))[1], stack)
            found.append({"count": count, "took": sum(took), "same": torch.equal(out, orthogonal(stack))})
    return found


@contextmanager
def other(mine, seen, **changes):
    """Inside, trainings go by another team: seen["rows"] tells of which shapes its shards are."""
    begin = Sharded.__init__

    def noted(self, *given):
        begin(self, *given)
        seen["rows"] = {name: list(p.shape) for name, p in self.named_parameters()}

    Sharded.__init__, token = noted, TEAM.set(replace(mine, **changes))
    try:
        yield
    finally:
        TEAM.reset(token)
        Sharded.__init__ = begin


def read_in_order_of(rank):
    """Inside, a run's saved tensors come by name, in odd processes from the last to the first: safetensors gives them
    in any order, another in each process."""
    load = loop.load_checkpoint

    def ordered(*given, **named):
        tensors, card = load(*given, **named)
        return dict(sorted(tensors.items(), reverse=rank % 2 == 1)), card

    return patch.object(loop, "load_checkpoint", ordered)


def main(folder: Path, step: int) -> None:
    seen = {}
    with team() as mine:
        with patch.object(muon, "orthogonal", lambda x: (seen.setdefault("took", []).append(len(x)), orthogonal(x))[1]):
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
        for name, act in (("stopped", stop), ("not_finite", lambda value: value * float("nan")), ("steep", steep)):
            caught(seen, name, lambda name=name, act=act: run(folder / name, at(5, 1, act)))
        with alone(folder / "whole", "training") if mine.leads else nullcontext():
            caught(seen, "refused", lambda: run(folder / "whole"))
        with mine.together():
            seen["divided"] = divided(mine)
            seen["film"] = film_of_two(mine)
            try:
                film_of_two(mine, 2, 6)  # five times three tokens
            except ValueError as error:
                seen["uneven"] = str(error)
        with other(mine, seen, accumulate=2):
            stack(folder / "in_four_parts", steps=12)
        with other(mine, seen, accumulate=2, shard=True):
            stack(folder / "sharded_in_four_parts", steps=12)
        with other(mine, {}, shard=True):
            loss = normed_loss if mine.leads else lambda *given: steep(normed_loss(*given))
            caught(seen, "steep_in_shards", lambda: stack(folder / "steep_in_shards", loss=loss))
        with other(mine, {}, shard=True):
            stack(folder / "unlike", steps=2, seed=mine.rank)
            with read_in_order_of(mine.rank):
                stack(folder / "begun", steps=12)  # by one process, without shards
        with other(mine, seen, shard=True):
            looks = []
            model, result = stack(folder / "sharded", steps=12, looks=looks)
        if looks:  # in the first process alone
            save_file(looks[-1], folder / "looked.safetensors")
        seen["kinds"] = [type(m).__name__ for m in model.modules()]
        save_file(model.state_dict(), folder / f"sharded_{mine.rank}.safetensors")
        save_file(result.ema.shadow, folder / f"average_{mine.rank}.safetensors")
        (folder / f"{mine.rank}.json").write_text(json.dumps(seen))
        run(folder / "killed", at(step, 1, kill))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
