"""Weights, moments and averages cut into shards, one a process (ZeRO, 1910.02054), by PyTorch's FSDP2.

Every process keeps some rows of each tensor. FSDP brings a block's weights together for its forward and its backward
pass (of a model without `blocks`, all weights), and hands each process the gradient of its own rows. So a process holds
1/N of the weights, of the average and of the optimizer's moments, where with DDP it holds all of them. AdamW and the
average go value by value: they work on the rows as they are. Muon needs whole matrices, which are gathered for its
step. Single numbers stay whole, in every process.

What is saved is whole too, one file for any number of processes, with or without shards. The model is whole again when
its training has ended.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from soralab.training.distributed import Team
from soralab.training.ema import EMA
from soralab.training.muon import MuonAdamW


class Sharded:
    """A model whose weights are cut, with its optimizer and average; `module` is its loss, wrapped.

    It begins with all of them whole, as a fresh or a restored run has them, and cuts them in place.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, optimizer: MuonAdamW, ema: EMA, team: Team):
        self.model, self.module, self.optimizer, self.ema = model, loss, optimizer, ema
        self.rank, self.world = team.rank, team.world
        self.kept = [(m, type(m), {k: copy.copy(v) if isinstance(v, dict) else v for k, v in vars(m).items()})
                     for m in loss.modules()]  # fmt: skip
        self.whole = dict(model.named_parameters())
        self.numbers = [p for p in self.whole.values() if p.ndim == 0]  # FSDP takes no single number
        self.shapes = {name: p.shape for name, p in self.whole.items()}
        self._wrap()
        self.cut = {name: p for name, p in model.named_parameters() if p is not self.whole[name]}
        self.rows = {name: nn.Parameter(p.to_local().detach(), p.requires_grad) for name, p in self.cut.items()}
        names = {id(p): name for name, p in self.whole.items()}
        for group in optimizer.param_groups:
            group["params"] = [self._moved(p, names.get(id(p))) for p in group["params"]]
        ema.shadow = {name: self.mine(value) if name in self.rows else value for name, value in ema.shadow.items()}
        self.names = {id(p): name for name, p in self.rows.items()}
        optimizer.cut = self
        for name in self.rows:  # they live on as rows
            self.whole[name].data = self.whole[name].new_empty(0)

    def _wrap(self) -> None:
        """Hand the model to FSDP2: each of its `blocks` by itself, the rest with the loss.

        What is called otherwise than by its forward must not be a part of its own: parts of chapter 02's layers are.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        device = next(iter(self.whole.values())).device.type
        options = {"mesh": init_device_mesh(device, (self.world,))}
        if self.numbers:
            options["ignored_params"] = set(self.numbers)
        for blocks in [m.blocks for m in self.model.modules() if isinstance(getattr(m, "blocks", None), nn.ModuleList)]:
            for block in blocks:
                fully_shard(block, **options)
        fully_shard(self.module, **options)

    def _moved(self, p: nn.Parameter, name: str | None) -> nn.Parameter:
        """The rows in a parameter's place, its moments cut too."""
        if name not in self.rows:
            return p
        state = self.optimizer.state.pop(p, None)
        if state is not None:
            self.optimizer.state[self.rows[name]] = {k: self.mine(v) if v.ndim else v for k, v in state.items()}
        return self.rows[name]

    # What Muon asks: the shape of a whole matrix, the whole matrices of a stack of rows, and the rows of these again.

    def shape(self, p: nn.Parameter) -> torch.Size:
        """Of the whole weight that p has some rows of."""
        return self.shapes[self.names[id(p)]]

    def matrices(self, stack: Tensor, p: nn.Parameter) -> Tensor:
        """[n, its rows, ...] of each process, of weights that are like p, to [n, rows, ...]."""
        return self._gathered(stack, self.shape(p)[0])

    def rows_of(self, stack: Tensor) -> Tensor:
        """[n, rows, ...] to [n, this process's rows, ...]."""
        return self._chunk(stack, 1)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What this process has of each weight: its rows, or the number. What an average is taken of."""
        for name, p in self.whole.items():
            yield name, self.rows.get(name, p)

    def _chunk(self, t: Tensor, dim: int) -> Tensor:
        chunks = t.chunk(self.world, dim)  # as FSDP cuts: the last processes may have fewer rows, or none
        return chunks[self.rank] if self.rank < len(chunks) else t.narrow(dim, 0, 0)

    def mine(self, t: Tensor) -> Tensor:
        """This process's rows of a whole tensor, in memory of their own."""
        return self._chunk(t, 0).clone()

    def _gathered(self, stack: Tensor, rows: int) -> Tensor:
        """[n, its rows, ...] of each process to [n, rows, ...]."""
        each = -(-rows // self.world)
        padded = stack.new_zeros(stack.shape[0], each, *stack.shape[2:])
        padded[:, : stack.shape[1]] = stack
        found = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(found, padded)
        return torch.cat(found, 1)[:, :rows]

    def together(self, name: str, rows: Tensor) -> Tensor:
        """The whole tensor of what each process has of the weight `name`, or of its average or moment."""
        return self._gathered(rows.detach()[None], self.shapes[name][0])[0] if name in self.rows else rows

    def take_gradients(self) -> None:
        """Lay the gradients that FSDP left beside the rows; those of single numbers are averaged here."""
        for name, p in self.cut.items():
            self.rows[name].data = p.to_local().detach()  # some releases lay them elsewhere in the first step
            self.rows[name].grad = None if p.grad is None else p.grad.to_local()
            p.grad = None
        for p in self.numbers:
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= self.world

    def clip_grad_norm_(self, _: list[Tensor], most: float) -> Tensor:
        """As torch's, of what is trained, over all processes: the norm of the whole gradient."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        alone = {id(p) for p in self.numbers}
        squares = torch.stack([p.grad.float().square().sum() / (self.world if id(p) in alone else 1) for p in trained])
        total = squares.sum()
        dist.all_reduce(total)
        norm = total.sqrt()
        for p in trained:
            p.grad *= (most / (norm + 1e-6)).clamp(max=1.0)
        return norm

    def collected(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `state.gather` found, whole. Every process has to ask.

        They gather by name: an optimizer that was restored has its moments in the order in which its process read
        them, which is not the others'.
        """
        order = [self.names.get(id(p), "") for group in self.optimizer.param_groups for p in group["params"]]
        found = {}
        for key, value in sorted(tensors.items()):
            part, _, rest = key.partition("/")
            name = order[int(rest.partition("/")[0])] if part == "optimizer" else rest
            if part == "model" and name in self.rows:
                value = self.rows[name]
            found[key] = self.together(name, value) if value.ndim else value
        return found

    def end(self) -> None:
        """Make model and average whole again, the model as if FSDP had never been."""
        self.ema.shadow = {name: self.together(name, value) for name, value in self.ema.shadow.items()}
        values = {name: self.together(name, rows) for name, rows in self.rows.items()}
        become(self.kept)
        for name, value in values.items():
            self.whole[name].data = value

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[None]:
        """Inside, the model is whole, to be looked at. Every process has to ask."""
        values = {name: self.together(name, rows) for name, rows in self.rows.items()}
        cut = [(module, type(module), dict(vars(module))) for module, *_ in self.kept]
        become(self.kept)
        try:
            for name, value in values.items():
                self.whole[name].data = value
            yield
        finally:
            become(cut)
            for name in values:
                self.whole[name].data = self.whole[name].new_empty(0)


def become(states: list[tuple[nn.Module, type, dict]]) -> None:
    """Give each module a class and contents that it has had."""
    for module, kind, contents in states:
        module.__class__ = kind
        vars(module).clear()
        vars(module).update(contents)
