"""A picture becomes a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from soralab.workbook.probes import numbers, same
from soralab.workbook.task import Exercise, WrongAnswer


def _embed_stub(pixels: Tensor, weight: Tensor, bias: Tensor, patch: int) -> Tensor:
    """Cut pixels [batch, channel, height, width] into patches and project them: [batch, N, dim].

    Patches run over the rows of the picture, each row from left to right. A patch is read row by row, and of each
    pixel its colours: (row, column, channel). weight [dim, patch * patch * channel], bias [dim].
    """
    raise NotImplementedError


def _embed(pixels: Tensor, weight: Tensor, bias: Tensor, patch: int) -> Tensor:
    """Cut pixels [batch, channel, height, width] into patches and project them: [batch, N, dim]."""
    patches = rearrange(pixels, "b c (rows p) (columns q) -> b (rows columns) (p q c)", p=patch, q=patch)
    return patches @ weight.T + bias


def _embed_as(pattern: str) -> Callable:
    def wrong(pixels: Tensor, weight: Tensor, bias: Tensor, patch: int) -> Tensor:
        return rearrange(pixels, pattern, p=patch, q=patch) @ weight.T + bias

    return wrong


_columns_first = _embed_as("b c (rows p) (columns q) -> b (columns rows) (p q c)")


_channels_first = _embed_as("b c (rows p) (columns q) -> b (rows columns) (c p q)")


_patch_transposed = _embed_as("b c (rows p) (columns q) -> b (rows columns) (q p c)")


_strided = _embed_as("b c (p rows) (q columns) -> b (rows columns) (p q c)")


def _only_reshaped(pixels: Tensor, weight: Tensor, bias: Tensor, patch: int) -> Tensor:
    return pixels.reshape(len(pixels), -1, weight.shape[1]) @ weight.T + bias


def _without_bias(pixels: Tensor, weight: Tensor, bias: Tensor, patch: int) -> Tensor:
    return _embed(pixels, weight, torch.zeros_like(bias), patch)


EMBED_MISTAKES = (  # in the order in which they are asked for
    (_without_bias, "the bias is missing: E comes with one, as every linear layer here does."),
    (_columns_first, "your patches run down the columns. They are read as a page is: along a row, then the next."),
    (_channels_first, "inside a patch you read colour plane after colour plane. Here each pixel's colours stay "
     "together: (row, column, channel)."),
    (_patch_transposed, "inside a patch rows and columns are exchanged: every patch is mirrored at its diagonal."),
    (_strided, "your patches gather pixels from all over the picture. In (rows p) the left factor is the slow one: "
     "which patch; the right one says where in it."),
    (_only_reshaped, "you reshape without moving an axis: the numbers are taken as they lie in memory, so a patch is a "
     "strip of one colour, not a square."),
)  # fmt: skip


def _embed_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for height, width, channels, patch in ((8, 12, 3, 4), (6, 6, 1, 2), (4, 4, 2, 4)):
        values = patch * patch * channels
        pixels, weight = numbers(2, channels, height, width), numbers(5, values, seed=1)
        bias = numbers(5, seed=2)
        got, want = fn(pixels, weight, bias, patch), _embed(pixels, weight, bias, patch)
        case = f"A picture of {height} x {width} with {channels} colours, patches of {patch}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        yield (
            got.shape == want.shape,
            f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}, one row a patch.",
        )
        for mistake, says in EMBED_MISTAKES:
            other = mistake(pixels, weight, bias, patch)
            yield same(got, want) or not same(got, other), f"{case}: {says}"
        yield same(got, want), f"{case}: the numbers differ. Try a picture that counts its pixels, and E = identity."


EXERCISE = Exercise(
    name="vit.patch_embed",
    title="A picture becomes a sentence",
    difficulty=1,
    minutes=10,
    statement="""
        Eq. (1) without its class token and positions: cut a picture into N patches, lay each one out as a row of
        numbers, multiply by E. Two orders must be right at once: that of the patches, and that of the numbers inside a
        patch. A test of shapes sees neither.
        """,
    hints=(
        "Name every axis before you move one: which row of patches, where in it, which column of patches, where in it.",
        "einops splits an axis with brackets, '(rows p)': the left factor is the slow one. Bring the two that say "
        "which patch together, and the two that say where in it, with the channel last.",
        'rearrange(pixels, "b c (rows p) (columns q) -> b (rows columns) (p q c)", p=patch, q=patch) @ weight.T + bias',
    ),
    stub=_embed_stub,
    solution=_embed,
    check=_embed_check,
    wrong={
        "no_bias": WrongAnswer(_without_bias, "the bias is missing"),
        "columns_first": WrongAnswer(_columns_first, "run down the columns"),
        "channels_first": WrongAnswer(_channels_first, "colour plane after colour plane"),
        "patch_transposed": WrongAnswer(_patch_transposed, "mirrored at its diagonal"),
        "every_nth_pixel": WrongAnswer(_strided, "which patch; the right one says where in it"),
        "only_reshaped": WrongAnswer(_only_reshaped, "as they lie in memory"),
    },
)
