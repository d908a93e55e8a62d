"""Chapter 11: W.A.L.T's block beside diffusers' Cosmos block, its attention beside torch's with a mask of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rows import Case, Work, training
from soralab.blocks import grid_positions, rotary_angles
from soralab.blocks.dit import Block
from soralab.walt import InWindows, LowRank

COSMOS = "diffusers.models.transformers.transformer_cosmos"
SIZES = ((3, 8, 8), (5, 16, 16))  # films in tokens: the shipped model's, the paper's
BATCH, HEADS, DIM, RANK, WORDS = 4, 4, 32, 2, 16


def cases() -> Iterator[Case]:
    """The rows."""
    for size in SIZES:
        t, h, w = size
        window = (t, h // 2, w // 2)
        shape, cut = ("x".join(map(str, of)) for of in (size, window))
        ours, theirs = partial(block, size, window), partial(of_cosmos, size, window)
        yield Case(f"W.A.L.T block, {shape} in {cut}", ours, "diffusers Cosmos, a mask", theirs, (COSMOS,))
        ours = partial(attention, size, window, False)
        for peer, way in (("torch, a mask", True), ("torch, every token", None)):
            yield Case(f"its attention, {shape} in {cut}", ours, peer, partial(attention, size, window, way))


def mask_of(size: tuple[int, int, int], window: tuple[int, int, int]) -> Tensor:
    """[tokens, tokens], True where two tokens are of one window."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in size)) // torch.tensor(window)
    return (places[:, None] == places[None]).all(-1)


class Attend(nn.Module):
    """A function of q, k and v as a model without weights."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.forward = attend


def attention(size: tuple[int, int, int], window: tuple[int, int, int], masked: bool | None) -> Work:
    """Forwards and backwards: by packed rows, by a mask of blocks, or (None) over all tokens."""
    ways = {False: InWindows(size, window), None: F.scaled_dot_product_attention}
    if masked:
        ways[masked] = partial(F.scaled_dot_product_attention, attn_mask=mask_of(size, window))
    q, k, v = (torch.randn(BATCH, HEADS, math.prod(size), DIM, requires_grad=True) for _ in range(3))
    return training(Attend(ways[masked]), q, k, v, loss=Tensor.sum)


def inputs(size: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Tokens, what the block is told of the time, words, and what all blocks share of the modulations."""
    dim = HEADS * DIM
    x, words = torch.randn(BATCH, math.prod(size), dim, requires_grad=True), torch.randn(BATCH, WORDS, dim)
    return x, torch.randn(BATCH, dim), words, torch.randn(BATCH, 6 * dim)


class InFilm(nn.Module):
    """Our block on films of this size."""

    def __init__(self, size: tuple[int, int, int], window: tuple[int, int, int]):
        super().__init__()
        dim, third = HEADS * DIM, DIM // 2 // 3
        self.block = Block(dim, HEADS, True, True, LowRank(dim, RANK))
        self.angles = rotary_angles(grid_positions(size), (DIM // 2 - 2 * third, third, third), 100.0)
        self.attend = InWindows(size, window)

    def forward(self, x: Tensor, told: Tensor, words: Tensor, base: Tensor) -> Tensor:
        """x [batch, tokens, dim], told [batch, dim], words [batch, words, dim], base [batch, 6 dim] to x's shape."""
        return self.block(x, F.silu(told), words, None, None, self.angles, self.attend, base=base)


class Cosmos(nn.Module):
    """diffusers' block of these sizes with AdaLN-LoRA, rotary positions and words; attention in windows by a mask. It
    modulates the words' attention too, and normalises by RMS."""

    def __init__(self, size: tuple[int, int, int], window: tuple[int, int, int]):
        super().__init__()
        from diffusers.models.transformers.transformer_cosmos import CosmosTransformerBlock

        self.block = CosmosTransformerBlock(HEADS, DIM, HEADS * DIM, adaln_lora_dim=RANK, out_bias=True)
        self.block.attn1.set_processor(Masked(self.block.attn1.processor, mask_of(size, window)))
        third = DIM // 2 // 3
        angles = rotary_angles(grid_positions(size), (DIM // 2 - 2 * third, third, third), 100.0)
        self.rotary = (angles.cos().repeat(1, 2), angles.sin().repeat(1, 2))

    def forward(self, x: Tensor, told: Tensor, words: Tensor, base: Tensor) -> Tensor:
        """As ours."""
        return self.block(x, words, told, base[:, : 3 * HEADS * DIM], self.rotary)


class Masked:
    """How their layer attends, with a mask."""

    def __init__(self, processor: Callable, mask: Tensor):
        self.processor, self.mask = processor, mask

    def __call__(
        self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: None = None, attention_mask: None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """As theirs, which asks for these names."""
        return self.processor(attn, hidden_states, None, self.mask, image_rotary_emb)


def block(size: tuple[int, int, int], window: tuple[int, int, int]) -> Work:
    """A training step of our block."""
    return training(InFilm(size, window), *inputs(size))


def of_cosmos(size: tuple[int, int, int], window: tuple[int, int, int]) -> Work:
    """A training step of theirs."""
    return training(Cosmos(size, window), *inputs(size))
