"""Chapter 03's exercises: patches in order, positions for another size, how far a head looks, what a ViT holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from soralab.exercises import Exercise, WrongAnswer
from soralab.exercises.vit_inside import COUNT, DISTANCE, numbers, same

# --------------------------------------------------------------------------------------------- patches in their order


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


EMBED = Exercise(
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

# ------------------------------------------------------------------------------------------ positions for another size


def _stretch_stub(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on the grid `old`, stretched to the grid `new`.

    positions [1 + rows * columns, dim], row 0 the class token's; old, new (rows, columns). Returns the same for `new`:
    linear between neighbours, and the four corners of the new grid on the corners of the old one.
    """
    raise NotImplementedError


def _stretch(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on the grid `old`, stretched to the grid `new`: [1 + rows * columns, dim]."""
    grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
    grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
    return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])


def _stretch_with(**options) -> Callable:
    def wrong(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
        grid = F.interpolate(grid, new, **options)
        return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])

    return wrong


_corners_off = _stretch_with(mode="bilinear", align_corners=False)
_nearest = _stretch_with(mode="nearest")
_bicubic = _stretch_with(mode="bicubic", align_corners=True)


def _one_line(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    line = F.interpolate(positions[1:].T[None], new[0] * new[1], mode="linear", align_corners=True)
    return torch.cat([positions[:1], line[0].T])


def _class_token_too(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    line = F.interpolate(positions.T[None], 1 + new[0] * new[1], mode="linear", align_corners=True)
    return line[0].T


def _class_token_lost(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return _stretch(positions, old, new)[1:]


def _class_token_last(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return _stretch(positions, old, new).roll(-1, 0)


def _wide_is_high(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    return torch.cat([positions[:1], _stretch(positions, old[::-1], new[::-1])[1:]])


STRETCH_MISTAKES = (
    (_class_token_last, "the class token's position stands at the end. It is row 0, before and after."),
    (_class_token_too, "the class token was stretched along with the patches. It stands nowhere in the picture: set "
     "row 0 aside, and put it back."),
    (_one_line, "you stretch the sequence as one line. It was a grid: the end of a row is no neighbour of the next "
     "row's start."),
    (_corners_off, "the corners have moved: without align_corners=True the cells are areas, and the borders of the two "
     "grids are laid on one another. Here they are points, and the corner points are."),
    (_nearest, "you repeat the nearest position. Between two positions the new one lies between them."),
    (_bicubic, "that is the bicubic curve, as torchvision draws it. The official code, and this exercise, are linear."),
    (_wide_is_high, "rows and columns are exchanged: it goes unnoticed as long as the grids are square."),
)  # fmt: skip


def _stretch_check(fn: Callable) -> Iterator[tuple[bool, str]]:
    for old, new in (((4, 4), (6, 6)), ((3, 5), (6, 7)), ((2, 6), (4, 3)), ((4, 4), (4, 4))):
        positions = numbers(1 + old[0] * old[1], 8, seed=3)
        got, want = fn(positions, old, new), _stretch(positions, old, new)
        case = f"From {old[0]} x {old[1]} to {new[0]} x {new[1]}"
        yield isinstance(got, Tensor), f"{case}: the result is no tensor."
        yield (
            tuple(got.shape) != (new[0] * new[1], 8),
            f"{case}: one row is missing. The class token has a position too; it comes first.",
        )
        yield got.shape == want.shape, f"{case}: the result is {list(got.shape)}; it takes {list(want.shape)}."
        for mistake, says in STRETCH_MISTAKES:
            other = mistake(positions, old, new)
            yield same(got, want) or not same(got, other), f"{case}: {says}"
        yield torch.allclose(got[0], want[0]), f"{case}: row 0, the class token's, has changed. It is kept as it is."
        yield same(got, want), f"{case}: the numbers differ from the linear ones between the old grid's corners."


STRETCH = Exercise(
    name="vit.interpolate_positions",
    title="Positions for a larger picture",
    difficulty=2,
    minutes=15,
    statement="""
        Section 3.2: a model that learned on small pictures is to read larger ones. The patch stays, so the grid grows,
        and with it the number of positions needed. The paper interpolates the learned ones in two dimensions. Besides
        cutting into patches, this is the only place where the ViT is told by hand that a picture has two dimensions.
        """,
    hints=(
        "Which row must not be stretched at all? And what shape do the others have, seen as a map?",
        "F.interpolate wants [batch, channel, height, width]: make the width D the channels. Mind align_corners.",
        'Set positions[:1] aside; rearrange the rest to "1 dim rows columns"; F.interpolate(grid, new, '
        'mode="bilinear", align_corners=True); back to rows; torch.cat.',
    ),
    stub=_stretch_stub,
    solution=_stretch,
    check=_stretch_check,
    wrong={
        "class_token_lost": WrongAnswer(_class_token_lost, "one row is missing"),
        "class_token_last": WrongAnswer(_class_token_last, "stands at the end"),
        "class_token_stretched": WrongAnswer(_class_token_too, "set row 0 aside"),
        "one_line": WrongAnswer(_one_line, "as one line"),
        "corners_off": WrongAnswer(_corners_off, "the corners have moved"),
        "nearest": WrongAnswer(_nearest, "repeat the nearest"),
        "bicubic": WrongAnswer(_bicubic, "as torchvision draws it"),
        "rows_for_columns": WrongAnswer(_wide_is_high, "rows and columns are exchanged"),
    },
)

EXERCISES = (EMBED, STRETCH, DISTANCE, COUNT)
