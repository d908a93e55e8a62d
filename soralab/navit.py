"""NaViT: pictures of any size, several in one row, and no token spent on a frame that is not there.

Paper: Dehghani et al. 2023, "Patch n' Pack: NaViT, a Vision Transformer for any Aspect Ratio and Resolution"
(2307.06304). This file is its section 2, top to bottom. A picture of h x w patches x_1 ... x_n is as long a sentence as
it is large. Some of its patches may be dropped; `pack` then writes several pictures into a row of fixed length, and

    z_0  = x_i E + phi_row(i) + phi_column(i)                      factorised positions, section 2.1
    z'_l = z + A(LN(z)),  A = softmax(LN(q) LN(k)^T / sqrt(d)) v   over the tokens of one's own picture
    z_l  = z' + MLP(LN(z'))
    y    = MAP(LN(z_L))                                            one query asks the tokens of one picture

stand for every picture at once. A batch is a dict: `patches` [rows, length, values], `ids` [rows, length], the number
of the picture that a token is of and PAD behind the last, `places` [rows, length, axes] and `sizes` [pictures, axes] in
patches. Not here: the mixture of patch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from random import Random

import torch
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import Attention, FeedForward, grid_positions, patchify
from soralab.kernels import PAD, Packed, segments

POSITIONS = ("absolute", "fractional")


@dataclass(frozen=True)
class NaViTConfig:
    """Sizes of a NaViT; the defaults are the course's small one."""

    patch: int = 4  # P, side of a patch, pixels
    channels: int = 3
    dim: int = 64  # D
    depth: int = 4  # L
    heads: int = 4
    classes: int = 10
    grid: tuple[int, int] = (24, 24)  # lengths of the two tables of positions, patches
    positions: str = "fractional"

    @classmethod
    def b16(cls, **changes) -> NaViTConfig:
        """NaViT-B/16; `changes` are fields of the config (L/16: dim=1024, depth=24, heads=16)."""
        return cls(**{"patch": 16, "dim": 768, "depth": 12, "heads": 12, "classes": 1000, "grid": (64, 64), **changes})


# ------------------------------------------------------------------------------------------------ packing, appendix A.3


def pack(sizes: Sequence[int | Sequence[int]], length: int) -> list[list[int]]:
    """Which examples go into which row: each into the first row that has room for it (the paper's greedy way).

    sizes: of each example, (h, w) or (t, h, w) in patches, or how many of its tokens are left; length: of a row.
    Returns rows of indices into sizes. Raises ValueError for no example, one that no row can hold, and broken sides.
    """
    if not len(sizes):
        raise ValueError("sizes is empty; it takes at least one example")
    sizes, counts = sizes.tolist() if hasattr(sizes, "tolist") else sizes, []
    for k, size in enumerate(sizes):
        sides = tuple(size) if hasattr(size, "__len__") else (size,)
        counts.append(math.prod(sides))
        if not (sides and all(isinstance(side, Integral) and side >= 1 for side in sides) and counts[k] <= length):
            got = f"{size}, {counts[k]} tokens"
            raise ValueError(f"sizes[{k}] is {got}; it takes 1 to length, which is {length}, of whole sides from 1")
    rows: list[list[int]] = []
    room: dict[int, int] = {}  # tokens free in each row that is still open
    smallest = min(counts)
    for k, count in enumerate(counts):
        row = next((r for r, free in room.items() if count <= free), len(rows))
        if row == len(rows):
            rows.append([])
            room[row] = length
        rows[row].append(k)
        room[row] -= count
        if room[row] < smallest:
            del room[row]
    return rows


def cut(picture: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Patches [n, patch * patch * channel] of a picture [channel, height, width], and their places [n, 2] in patches.

    Raises ValueError for another number of axes, and if the patch does not divide a side.
    """
    if picture.ndim != 3:
        raise ValueError(f"picture is {list(picture.shape)}; it takes [channel, height, width]")
    height, width = picture.shape[-2:]
    return patchify(picture[None, None], (1, patch, patch))[0], grid_positions((height // patch, width // patch))


def collate(
    pictures: Sequence[Tensor], patch: int, length: int, kept: Sequence[Tensor] | None = None
) -> dict[str, Tensor]:
    """Pictures [channel, height, width], each of its own size, as a batch of packed rows: see the top of this file.

    length: of a row, tokens; kept: for each picture the indices of the patches that stay, as `keep` draws them; what
    is dropped takes no room. Raises ValueError for no picture, for pictures of several types or numbers of channels,
    for indices that no patch has or that stand twice, and as `cut` and `pack`.
    """
    if not len(pictures):
        raise ValueError("pictures is empty; it takes at least one")
    pieces = [cut(picture, patch) for picture in pictures]
    kinds = {f"{picture.dtype} of {len(picture)} channels" for picture in pictures}
    if len(kinds) > 1:
        raise ValueError(f"pictures are {', '.join(sorted(kinds))}; it takes one type and one number of channels")
    if kept is not None:
        if len(kept) != len(pictures):
            raise ValueError(f"kept has indices for {len(kept)} pictures; there are {len(pictures)}")
        for k, stay in enumerate(torch.as_tensor(stay).tolist() for stay in kept):
            if not len({*stay} & {*range(n := len(pieces[k][0]))}) == len(stay) > 0:
                raise ValueError(f"kept[{k}] is {stay}; it takes indices from 0 to {n - 1}, each once")
        pieces = [(patches[stay], places[stay]) for (patches, places), stay in zip(pieces, kept, strict=True)]
    counts = torch.tensor([len(patches) for patches, _ in pieces])
    rows = pack(counts.tolist(), length)
    batch = {
        "patches": pieces[0][0].new_zeros(len(rows), length, pieces[0][0].shape[1]),
        "ids": torch.full((len(rows), length), PAD),
        "places": torch.zeros(len(rows), length, 2, dtype=torch.long),
        "sizes": torch.tensor([[side // patch for side in picture.shape[-2:]] for picture in pictures]),
    }
    for row, members in enumerate(rows):
        patches, places = (torch.cat(column) for column in zip(*(pieces[k] for k in members), strict=True))
        ids = torch.tensor(members).repeat_interleave(counts[members])
        for name, values in (("patches", patches), ("places", places), ("ids", ids)):
            batch[name][row, : len(values)] = values
    return batch


# ------------------------------------------------------------------------------------------- the network, section 2.1


class FactorisedPositions(nn.Module):
    """One learned table for each axis; a token's position is the sum of what it finds in them (section 2.1).

    "absolute": phi(p), p counted in patches. "fractional": phi(r), r the relative distance along the side, so that the
    table is stretched over the picture, linear between its entries; r is the patch's middle, (p + 1/2) / side, which
    makes a mirrored picture's positions the mirrored ones. With `axes` of three it serves films.
    """

    def __init__(self, lengths: Sequence[int], dim: int, kind: str = "absolute"):
        super().__init__()
        if kind not in POSITIONS:
            raise ValueError(f"kind is {kind!r}; it takes one of {', '.join(POSITIONS)}")
        self.kind = kind
        self.tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(length, dim)) for length in lengths)

    def forward(self, places: Tensor, sizes: Tensor) -> Tensor:
        """places [..., axes], each from 0, of pictures or films of sizes [..., axes], both in patches: [..., dim].

        Raises ValueError for another number of axes, for a place outside its picture, and for an absolute one beyond
        its table.
        """
        for name, given in (("places", places), ("sizes", sizes)):
            if given.shape[-1] != len(self.tables):
                raise ValueError(f"{name} have {given.shape[-1]} axes; there are tables for {len(self.tables)}")
        if outside := ((places < 0) | (places >= sizes)).sum().item():
            raise ValueError(f"places: {outside} lie outside their pictures; they take 0 to the side of sizes, less 1")
        columns = enumerate(zip(self.tables, places.unbind(-1), sizes.unbind(-1), strict=True))
        return sum(self.look_up(table, place, side, axis) for axis, (table, place, side) in columns)

    def look_up(self, table: Tensor, place: Tensor, side: Tensor, axis: int) -> Tensor:
        """What a table [length, dim] says of places [...] on sides [...]: [..., dim]."""
        if self.kind == "absolute":
            if place.numel() and place.max() >= len(table):
                raise ValueError(f"places reach {int(place.max())} on axis {axis}; absolute positions take 0 to "
                                 f"{len(table) - 1} (fractional ones know no largest picture)")  # fmt: skip
            return table[place]
        where = ((place + 0.5) / side * len(table) - 0.5).clamp(0, len(table) - 1).to(table.dtype)
        low = where.floor().long()
        return torch.lerp(table[low], table[(low + 1).clamp(max=len(table) - 1)], (where - low)[..., None])


class Block(nn.Module):
    """A layer of the encoder, pre-norm; queries and keys are normalised, and norms, q, k and v have no biases."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.attention = Attention(dim, heads, qk_norm=True, bias=False)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.mlp = FeedForward(dim)

    def forward(self, z: Tensor, attend: Packed) -> Tensor:
        """z [tokens, 1, dim] to the same; `attend` knows which tokens are of one picture."""
        z = z + self.attention(self.norm1(z), attend=attend)
        return z + self.mlp(self.norm2(z))


class AttentionPool(nn.Module):
    """One vector for each picture, MAP (Zhai et al. 2022, 2106.04560): a learned query asks the picture's tokens."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.query = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.attention = Attention(dim, heads, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.mlp = FeedForward(dim)

    def forward(self, z: Tensor, attend: Packed, pictures: int) -> Tensor:
        """z [tokens, 1, dim] to [pictures, dim], in the rows' order; `attend` meets one query with one picture."""
        y = self.attention(self.query.expand(pictures, 1, -1), context=z, attend=attend)
        return (y + self.mlp(self.norm(y)))[:, 0]


class NaViT(nn.Module):
    """A batch of packed rows in, one number for each class and picture out. Its head starts at zero."""

    def __init__(self, config: NaViTConfig = NaViTConfig()):
        super().__init__()
        self.config = config
        dim = config.dim
        self.embed = nn.Linear(config.patch**2 * config.channels, dim)  # E
        self.positions = FactorisedPositions(config.grid, dim, config.positions)
        self.blocks = nn.ModuleList(Block(dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.pool = AttentionPool(dim, config.heads)
        self.head = nn.Linear(dim, config.classes)
        self.initialise()

    def initialise(self) -> None:
        """As chapter 03's: Xavier in the blocks, LeCun for E, zero for the head."""
        for name, value in self.named_parameters():
            if name.endswith("bias") or name.startswith("head"):
                nn.init.zeros_(value)
            elif "attention.to_" in name or "mlp" in name:
                for matrix in value.chunk(2 if "to_kv" in name else 1):  # keys and values lie in one
                    nn.init.xavier_uniform_(matrix)
        nn.init.trunc_normal_(self.embed.weight, std=self.embed.in_features**-0.5)

    def features(self, patches: Tensor, ids: Tensor, places: Tensor, sizes: Tensor, backend: str = "auto") -> Tensor:
        """One vector for each picture of a batch (see `collate`): [pictures, dim]. backend: soralab.kernels'.

        Raises ValueError for no picture, patches or places of another shape, and ids that do not fit (`segments`).
        """
        axes = len(self.positions.tables)
        for name, given, width in (("patches", patches, self.embed.in_features), ("places", places, axes)):
            if given.shape != (want := (*ids.shape, width)):
                raise ValueError(f"{name} is {list(given.shape)}; with ids {list(ids.shape)} it takes {list(want)}")
        if sizes.ndim != 2 or not len(sizes):
            raise ValueError(f"sizes is {list(sizes.shape)}; it takes [pictures, {axes}], at least one picture")
        if not patches.is_floating_point():
            raise ValueError(f"patches is {patches.dtype}; it takes floats, of about -1 to 1")
        tokens, queries, order = segments(ids, len(sizes))
        z = self.embed(patches.to(self.embed.weight.dtype)) + self.positions(places, sizes[ids.clamp(min=0)])
        z = rearrange(z, "row place dim -> (row place) 1 dim")
        own = Packed(tokens, backend=backend)
        for block in self.blocks:
            z = block(z, own)
        return self.pool(self.norm(z), Packed(queries, tokens, backend=backend), len(sizes))[order]

    def forward(self, patches: Tensor, ids: Tensor, places: Tensor, sizes: Tensor, backend: str = "auto") -> Tensor:
        """Logits [pictures, classes] of a batch, as `features`."""
        return self.head(self.features(patches, ids, places, sizes, backend))


# -------------------------------------------------------------------- dropping tokens, and choosing sizes, section 2.2


def beta_rate(rng: Random, mean: float, largest: float = 1.0) -> float:
    """A picture's rate of dropping, drawn for each: largest * B, B from a Beta distribution of mean u = mean / largest.

    B's variance is 0.3 u (1 - u), as in the paper. Raises ValueError unless 0 < mean < largest <= 1.
    """
    if not 0 < mean < largest <= 1:
        raise ValueError(f"mean, largest: got {mean}, {largest}; takes 0 < mean < largest <= 1")
    u, both = mean / largest, 1 / 0.3 - 1  # a + b of a Beta whose variance is 0.3 of the largest that its mean allows
    return largest * rng.betavariate(both * u, both * (1 - u))


def rate_by_size(rng: Random, tokens: int, most: int, low: float, high: float, std: float = 0.02) -> float:
    """A rate that grows with the picture: normal about a mean on the line from `low` at no token to `high` at `most`.

    Cut off at 0 and 1. Raises ValueError for more tokens than `most` and rates outside [0, 1).
    """
    if not 1 <= tokens <= most:
        raise ValueError(f"tokens is {tokens}; it takes 1 to most, which is {most}")
    if not (0 <= low < 1 and 0 <= high < 1):
        raise ValueError(f"low, high: got {low}, {high}; takes rates from 0 to below 1")
    return truncated_normal(rng, low + (high - low) * tokens / most, std, 0.0, 1.0)


def rate_by_time(seen: float, first: float, last: float, middle: float = 0.5, width: float = 0.1) -> float:
    """The rate of dropping when a share `seen` of training's pictures has been seen: a sigmoid from `first` to `last`.

    The paper's schedule (section 3.3): it falls where first > last, which the paper finds the better way round; half
    of the way is at `middle`, and `width` is the sigmoid's. Raises ValueError for rates outside [0, 1] and no width.
    """
    if not (0 <= first <= 1 and 0 <= last <= 1 and width > 0):
        raise ValueError(f"first, last, width: got {first}, {last}, {width}; takes rates from 0 to 1, a width above 0")
    return first + (last - first) * (1 + math.tanh((seen - middle) / (2 * width))) / 2


def left(tokens: int, rate: float) -> int:
    """How many of so many tokens stay at this rate of dropping: at least one."""
    if tokens < 1 or not 0 <= rate <= 1:
        raise ValueError(f"tokens, rate: got {tokens}, {rate}; takes tokens from 1 and a rate from 0 to 1")
    return max(1, round(tokens * (1 - rate)))


def keep(tokens: int, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Which of a picture's tokens stay: `left` many indices, in their old order. The packer is told their number."""
    stay = left(tokens, rate)  # first, for it refuses
    return torch.randperm(tokens, generator=generator)[:stay].sort().values


def truncated_normal(rng: Random, mean: float, std: float, low: float, high: float) -> float:
    """A normal number, drawn again until it lies in [low, high]. Raises ValueError where 100,000 draws all miss it."""
    for _ in range(100_000):
        if low <= (value := rng.gauss(mean, std)) <= high:
            return value
    raise ValueError(f"mean, std, low, high: got {mean}, {std}, {low}, {high}; a normal number hardly ever lies there")


def sample_side(rng: Random, low: int = 64, high: int = 384) -> float:
    """A resolution for a picture: the side of a square as large as it is to be, pixels.

    u from a normal of mean -0.5 and deviation 1, cut off at -1 and 1, is laid on [low, high]: small is frequent.
    Raises ValueError unless 0 < low <= high.
    """
    if not 0 < low <= high < math.inf:
        raise ValueError(f"low, high: got {low}, {high}; takes 0 < low <= high")
    return low + (truncated_normal(rng, -0.5, 1.0, -1.0, 1.0) + 1) / 2 * (high - low)


def resized(size: tuple[int, int], side: float, patch: int) -> tuple[int, int]:
    """(height, width) in pixels of a picture of `size` at the resolution `side`: side^2 pixels in the same proportions.

    Both are rounded to multiples of the patch, at least one. Raises ValueError unless all of them are above 0.
    """
    if not (min(*size, patch) > 0 and 0 < side < math.inf):
        raise ValueError(f"size, side, patch: got {size}, {side}, {patch}; takes numbers above 0")
    stretch = math.sqrt(size[0] / size[1])
    return tuple(patch * max(1, round(length / patch)) for length in (side * stretch, side / stretch))
