"""One training by many processes, as `torchrun` starts them: what the loop asks about it, and where it cuts a batch.

A batch is cut into parts of consecutive examples; every process takes as many of them, one after the other, and the
gradients are averaged over all, each part by its share of the examples. What is drawn at random in a part follows from
(seed, step, part), whoever computes it. So a training in four parts is the same on one process, on two and on four, but
for the order in which a sum is rounded; without `team` there is one process and one part, and nothing changes.

    with team(accumulate=2) as mine: ...  # inside, `loop.train` shares its work with the other processes

Each process makes the whole batch and keeps its own part, so batch_fn need not know of the others. What the loss takes
over a whole batch it takes over a part: batch norm's statistics, and the wrong texts of a contrastive loss.
Buffers that move (batch norm's, a codebook's averages) are the mean over the processes after each step.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from soralab.files.counts import so_many
from soralab.training.data import batch_size, map_tensors

PATIENCE = timedelta(hours=24)  # of a process for the others: the first may encode films for hours


class Part(NamedTuple):
    """A part of a batch: its number, its share of the examples, and the examples."""

    number: int
    weight: float
    batch: Any


class Share(NamedTuple):
    """What a process takes of a batch of so many examples."""

    size: int
    parts: list[Part]


def cut(batch: Any, parts: int) -> list[Any]:
    """A batch in so many parts of consecutive examples, which differ by at most one; what is no tensor goes to all.

    Raises ValueError if its tensors are not all of as many examples, or if these are fewer than the parts.
    """
    lengths: set[int] = set()
    map_tensors(lambda t: (lengths.add(len(t)) if t.ndim else None, t)[1], batch)
    if len(lengths) > 1:
        raise ValueError(f"batch has tensors of {', '.join(map(str, sorted(lengths)))} examples, so it cannot be cut "
                         "into parts: give batch_fn a method cut(batch, parts), or train in one part")  # fmt: skip
    return sliced(batch, parts)


def sliced(batch: Any, parts: int) -> list[Any]:
    """`batch` in so many parts, every tensor cut along its own first axis. Raises ValueError if one is too short."""

    def some(t: Tensor, part: int) -> Tensor:
        if t.ndim == 0:
            return t
        if len(t) < parts:
            raise ValueError(f"batch has {so_many(len(t), 'example')}, too few for {parts} parts: take fewer "
                             "processes or parts")  # fmt: skip
        return t[len(t) * part // parts : len(t) * (part + 1) // parts]

    return [map_tensors(lambda t, part=part: some(t, part), batch) for part in range(parts)]


class Loss(nn.Module):
    """loss_fn as a module with the model inside: what is wrapped, so that a loss may call any method of the model."""

    def __init__(self, model: nn.Module, loss_fn: Callable):
        super().__init__()
        self.model, self.call = model, (loss_fn,)  # in a tuple: a loss with weights of its own is no part of this

    def forward(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """(loss, what it reports, without gradients)."""
        out = self.call[0](self.model, batch, generator)
        loss, extras = out if isinstance(out, tuple) else (out, {})
        return loss, {name: value.detach() if isinstance(value, Tensor) else value for name, value in extras.items()}


@dataclass
class Team:
    """This process among the others: its number and how many they are.

    accumulate: parts that each takes in turn, or None for as many as a run had when it was saved (one, if it is new).
    shard: each keeps a part of the weights and moments (see `soralab.training.sharded`), and not all of them.
    """

    rank: int = 0
    world: int = 1
    accumulate: int | None = None
    shard: bool = False
    ahead: bool = False  # whether the first process is, and the others wait for it

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the reader."""
        return self.rank == 0

    def parts(self, saved: int = 1) -> int:
        """Into how many parts a batch is cut; saved: how many they were when the run was saved.

        As many again, so that it goes on exactly; or the next number that the processes can share.
        """
        if self.accumulate is not None:
            return self.accumulate * self.world
        return -(-saved // self.world) * self.world

    def share(self, batch: Any, parts: int, batch_fn: Callable | None = None) -> Share:
        """This process's parts of a batch. A batch_fn whose batches have no common length cuts them itself (`cut`); one
        whose loss is no mean over examples says what a part counts for (`weigh`)."""
        if parts == 1:
            return Share(batch_size(batch), [Part(0, 1.0, batch)])
        pieces, each = getattr(batch_fn, "cut", cut)(batch, parts), parts // self.world
        counts = [getattr(batch_fn, "weigh", batch_size)(piece) for piece in pieces]
        return Share(batch_size(batch), [Part(number, counts[number] / sum(counts), pieces[number])
                                         for number in range(self.rank * each, (self.rank + 1) * each)])  # fmt: skip

    def wrap(self, model: nn.Module, loss_fn: Callable) -> nn.Module:
        """The loss as a module; with more processes it averages the gradients at the end of backward, and the models
        begin as the first one's."""
        loss, ddp = Loss(model, loss_fn), nn.parallel.DistributedDataParallel
        if self.world == 1:
            return loss
        for t in (*model.parameters(), *model.buffers()):
            dist.broadcast(t.data, 0)
        if self.shard:
            return loss
        new = "forward_sync_buffers" in inspect.signature(ddp).parameters  # in new releases of torch
        still = {"forward_sync_buffers" if new else "broadcast_buffers": False}  # see mean_of_moves
        return ddp(loss, find_unused_parameters=True, **still)

    @contextlib.contextmanager
    def syncing(self, module: nn.Module, last: bool) -> Iterator[None]:
        """Inside, gradients are averaged over the processes if the part is the last of a step, else only added up."""
        if self.shard:
            module.set_requires_gradient_sync(last)
        with contextlib.nullcontext() if last or self.world == 1 or self.shard else module.no_sync():
            yield

    def total(self, numbers: dict[str, float]) -> dict[str, float]:
        """Sums over the processes, rounded as one process rounds them."""
        if self.world == 1:
            return numbers
        names = sorted(numbers)
        found = torch.tensor([numbers[name] for name in names], dtype=torch.float32)
        dist.all_reduce(found)
        return dict(zip(names, found.tolist(), strict=True))

    def divided(self, work: Callable[[Tensor], Tensor], stack: Tensor) -> Tensor:
        """work(stack), which takes each matrix of [n, ...] alone: every process does some of them, and all get all."""
        if len(stack) < 2 or self.world == 1:
            return work(stack)
        each = -(-len(stack) // self.world)
        mine = stack[self.rank * each :][:each]
        done = torch.zeros_like(stack[:each])  # of the last processes some are padding
        if len(mine):
            done[: len(mine)] = work(mine)
        found = [torch.empty_like(done) for _ in range(self.world)]
        dist.all_gather([t.view(torch.uint8) for t in found], done.view(torch.uint8))  # gloo knows no bfloat16
        return torch.cat(found)[: len(stack)]

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.world == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    @contextlib.contextmanager
    def mean_of_moves(self, model: nn.Module, names: list[str]) -> Iterator[None]:
        """What the buffers of these names move by inside, in any process, all have moved by in the mean afterwards."""
        if self.world == 1 or not names:
            yield
            return
        before = torch.cat([model.get_buffer(name).detach().flatten() for name in names])
        yield
        moving = [model.get_buffer(name) for name in names]
        moves = torch.cat([b.detach().flatten() for b in moving]) - before
        dist.all_reduce(moves)
        after = (before + moves / self.world).split([b.numel() for b in moving])
        with torch.no_grad():
            for buffer, value in zip(moving, after, strict=True):
                buffer.copy_(value.view_as(buffer))

    # The first process goes ahead between trainings: what it prepares and keeps on the disk (encoded films) the others
    # then find there. They wait from the start, and from the end of each training, until it comes to the next. All say
    # where: `wait` where it goes ahead, `release` where it has come to what they share.

    def wait(self) -> None:
        """The first process goes ahead, the others stay here until it has come to a `release`.

        Raises SystemExit in these if it met an error on the way, which is its own to tell.
        """
        self.ahead = self.leads
        if not self.leads and self.most(0):
            raise SystemExit("the first process has stopped, so this one does")

    def release(self, failed: bool = False) -> None:
        """The first process lets the others follow, or lets them end."""
        if self.leads:
            self.ahead = False
            self.most(int(failed))  # which waits for all: a barrier would keep the GPUs spinning

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """An error of the first process inside, met while the others wait for it, ends them too."""
        try:
            yield
        except BaseException:
            if self.ahead and self.world > 1:
                with contextlib.suppress(RuntimeError):  # they have ended already
                    self.release(failed=True)
            raise

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The block is run by all processes side by side, as a training is; an error in one is left to torchrun."""
        self.release()
        yield
        self.wait()

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """The block is run by the first process, and then by the others, if it has met no error."""
        self.wait()
        with self.telling():
            yield
        self.release()


def processes() -> int:
    """How many torchrun has started; one without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


ALONE = Team()
TEAM: ContextVar[Team] = ContextVar("team", default=ALONE)


@contextlib.contextmanager
def team(accumulate: int | None = None, shard: bool = False) -> Iterator[Team]:
    """Inside, trainings are shared by the processes that `torchrun` started, each with a GPU of its own if there are.

    Without torchrun there is one process, which may still take its batches in parts. Raises ValueError if the machine
    has fewer GPUs than processes, and for shards of one process.
    """
    rank, world = int(os.environ.get("RANK", 0)), processes()
    mine = Team(rank, world, accumulate, shard)
    if shard and world == 1:
        raise ValueError("shard takes several processes: torchrun --nproc-per-node N -m soralab.training NAME --shard")
    if world > 1:
        _take_gpu()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        if not mine.leads:
            os.environ["TQDM_DISABLE"] = "1"  # one bar is enough
    token = TEAM.set(mine)
    try:
        mine.wait()
        with mine.telling():
            yield mine
        mine.release()
    finally:
        TEAM.reset(token)
    if world > 1:  # after an error it is left to torchrun, which ends the others
        dist.destroy_process_group()


def _take_gpu() -> None:
    """Have `profiles.device()` be the GPU that is this process's, unless the reader has chosen a device."""
    count, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", 0))
    if not count or os.environ.get("SORALAB_DEVICE"):
        return
    if local >= count:
        raise ValueError(f"nproc-per-node is {os.environ.get('LOCAL_WORLD_SIZE')}, but this machine has {count} GPUs: "
                         "give as many, or set SORALAB_DEVICE=cpu")  # fmt: skip
    os.environ["SORALAB_DEVICE"] = f"cuda:{local}"
    torch.cuda.set_device(local)
