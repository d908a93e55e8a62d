"""A long film's tokens shared by processes: context parallelism, for a transformer whose `blocks` are DiT's.

Each process takes the same film and, inside the blocks, some consecutive tokens of it. All that a block does with
tokens one by one is done for these alone; for self-attention the keys and values of all processes are brought together,
queries stay (as Movie Gen does, 2410.13720, section 3.1.6). So the memory for activations and the work of a block are
divided by the number of processes; keys and values of one block at a time are whole. Behind the last block the tokens
come together again, and every process has the same output.

    with team() as mine, mine.together(), shared_tokens(model, mine):
        loss = ...                    # of the same film and noise in each process
        loss.backward()               # then the gradients' mean over the processes is the gradient

PyTorch's own `context_parallel` reroutes the attention kernels of GPUs alone (2.14), and cannot be tested without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from soralab.blocks.attention import attention
from soralab.training.distributed import Team


class Gather(torch.autograd.Function):
    """What all processes have, one after the other along `dim`; the gradient of each part is the sum over them."""

    @staticmethod
    def forward(ctx, mine: Tensor, dim: int, rank: int, world: int) -> Tensor:
        """mine: of one shape in all processes."""
        ctx.dim, ctx.rank, ctx.world = dim, rank, world
        found = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(world)]
        dist.all_gather(found, mine.contiguous())
        return torch.cat(found, dim)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        """Of this process's part."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(ctx.world, ctx.dim)[ctx.rank], None, None, None


@contextlib.contextmanager
def shared_tokens(model: nn.Module, team: Team) -> Iterator[None]:
    """Inside, the blocks of `model` (soralab.blocks.dit.Block) run on this process's tokens alone.

    Raises ValueError where the processes cannot share the tokens evenly, and for a mask, as packed films have it.
    """

    def gather(t: Tensor, dim: int) -> Tensor:
        return Gather.apply(t, dim, team.rank, team.world)

    def mine(t: Tensor, dim: int) -> Tensor:
        if t.shape[dim] % team.world:
            raise ValueError(f"tokens are {t.shape[dim]}, which {team.world} processes cannot share evenly")
        return t.chunk(team.world, dim)[team.rank]

    def attending(plain: Callable | None) -> Callable:
        inner = plain or attention
        return lambda q, k, v: inner(q, gather(k, 2), gather(v, 2))

    def enter(block: nn.Module, given: tuple) -> tuple:
        x, c, words, word_mask, mask, angles, attend, *rest = given
        if mask is not None:
            raise ValueError("mask keeps packed films apart; shared tokens are of one film")
        x = mine(x, 1) if block is model.blocks[0] else x
        return (x, c, words, word_mask, None, None if angles is None else mine(angles, 0), attending(attend), *rest)

    hooks = [block.register_forward_pre_hook(enter) for block in model.blocks]
    hooks.append(model.blocks[-1].register_forward_hook(lambda block, given, x: gather(x, 1)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
