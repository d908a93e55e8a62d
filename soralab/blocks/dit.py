"""The block of a diffusion transformer, DiT's (2212.09748, figure 3) with words, as chapters 11 and 16 stack it; how
its weights are drawn, and how its tokens are read out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from soralab.blocks.attention import Attention, FeedForward
from soralab.blocks.modulation import modulate


class Block(nn.Module):
    """A DiT block with adaLN-Zero, and cross-attention to the words in its middle (`cross` False: none).

    The six modulations are made from c by `modulation`, DiT's layer by default; `initialise` sets it to zero, so that
    the block starts as the identity. `gelu` as for FeedForward.
    """

    def __init__(
        self, dim: int, heads: int, qk_norm: bool = False, cross: bool = True, modulation: nn.Module | None = None,
        gelu: str = "none",
    ):  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(dim, heads, qk_norm=qk_norm)
        self.norm_words = nn.LayerNorm(dim) if cross else None
        self.cross = Attention(dim, heads, qk_norm=qk_norm) if cross else None
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = FeedForward(dim, gelu=gelu)
        self.modulation = nn.Linear(dim, 6 * dim) if modulation is None else modulation

    def forward(
        self, x: Tensor, c: Tensor, words: Tensor | None, word_mask: Tensor | None, mask: Tensor | None = None,
        angles: Tensor | None = None, attend: Callable | None = None, attend_words: Callable | None = None,
        base: Tensor | float = 0.0, told: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x [b, n, dim], c [b, dim], words [b, m, dim], word_mask [b, 1, 1, m]; mask [b, 1, n, n] and angles
        [n, dim / heads / 2] of the self-attention, or None. `attend` and `attend_words`: functions (q, k, v) -> output
        that take the place of the one mask and of the other. base [b, 6 dim] is added to the modulations; `told`
        [b, 6 dim] takes the place of all of them, and of c."""
        told = base + self.modulation(c) if told is None else told
        shift1, scale1, gate1, shift2, scale2, gate2 = told.chunk(6, dim=-1)
        seen = self.attention(modulate(self.norm1(x), shift1, scale1), None, mask, angles, attend)
        x = torch.addcmul(x, gate1[:, None], seen)
        if self.cross is not None:
            x = x + self.cross(self.norm_words(x), words, word_mask, attend=attend_words)
        return torch.addcmul(x, gate2[:, None], self.mlp(modulate(self.norm2(x), shift2, scale2)))


def read_out(model: nn.Module, tokens: Tensor, c: Tensor) -> Tensor:
    """DiT's final layer: the tokens [b, n, dim] under `model.norm`, modulated by `model.modulation` of c [b, dim], and
    through `model.head`."""
    shift, scale = model.modulation(c).chunk(2, dim=-1)
    return model.head(modulate(model.norm(tokens), shift, scale))


def initialise(model: nn.Module, zero: Iterable[nn.Linear]) -> None:
    """DiT's: Xavier for every linear layer, zero for the weights of `zero`: gates, the head, cross-attention's output.

    `model.time`, a TimestepEmbedding, is drawn with deviation 0.02; `model.text` stays as chapter 04 draws it.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("text."):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for layer in (model.time.mlp[0], model.time.mlp[2]):
        nn.init.normal_(layer.weight, std=0.02)
    for layer in zero:
        nn.init.zeros_(layer.weight)
