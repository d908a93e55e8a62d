"""Which tiles meet: the tables that tell each program of the kernels what it owns and which tiles it visits.

A `Layout` describes a batch: its segments (which queries meet which keys), the order of its rows and what is built
from both. It is made once a batch and serves every layer and both directions. Nothing here needs Triton.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary

PAD = -1  # the id of a token of a packed row that is of no picture
COLUMNS = (
    "batch", "first", "end", "other_first", "other_end", "origin", "full_lo", "full_hi", "edge_lo", "edge_hi",
)  # fmt: skip


class Tiles(NamedTuple):
    """What a kernel is told: its table [programs, 10] of COLUMNS, and where the places of both sides lie in memory.

    A program owns the places [first, end) up to a tile's size. It visits those of the other side's [other_first,
    other_end) in tiles, of which every token exists and every pair may attend: tile t of [full_lo, full_hi) begins at
    origin + t * block. Where the segment ends or the diagonal passes it visits pieces: piece t of [edge_lo, edge_hi)
    begins at origin + t * piece(block). Maps are None where place and row are the same.
    """

    table: Tensor
    own_map: Tensor | None
    other_map: Tensor | None


def piece(block: int) -> int:
    """The size of the pieces in which a tile of so many tokens is visited where it is cut."""
    return min(block, 32)


class Layout:
    """Segments of queries, each with its segment of keys; a query may attend the keys of its own segment.

    batch, q_first, q_end, k_first, k_end: [segments] on the CPU; places in packed order, within one batch entry.
    causal: query i of a segment may attend key j iff j <= i + keys - queries, so the last query sees the last key.
    row_map: [tokens], where the token at each place lies in memory; None if there.
    family: which configurations the kernels take (soralab.kernels.configs).
    """

    def __init__(self, batch, q_first, q_end, k_first, k_end, causal: bool, row_map: Tensor | None, device, family=""):
        self.batch, self.q_first, self.q_end, self.k_first, self.k_end = batch, q_first, q_end, k_first, k_end
        self.causal, self.device = causal, device
        # A copy, dense whatever the map's stride is, and no view, which would keep its base alive.
        self.row_map = None if row_map is None else row_map.to(torch.int32, copy=True)
        self.family = family or ("windows" if row_map is not None else "causal" if causal else "packed")
        self.prepared = {}  # by the launcher
        self._tiles = {}

    def tiles(self, owner: str, block_q: int, block_k: int) -> Tiles:
        """The table and the maps for tiles of these sizes; owner: "queries" or "keys", whose tiles programs own.

        Programs with most to do come first, so that the last ones to end are short.
        """
        key = (owner, block_q, block_k)
        if key not in self._tiles:
            *columns, own_map, other_map = self.build(*key)
            table = torch.stack(torch.broadcast_tensors(*columns), 1)
            block = block_k if owner == "queries" else block_q
            work = (table[:, 7] - table[:, 6]) * block + (table[:, 9] - table[:, 8]) * piece(block)
            table = table[work.argsort(descending=True, stable=True)].to(torch.int32)
            self._tiles[key] = Tiles(table.to(self.device), own_map, other_map)
        return self._tiles[key]

    def build(self, owner: str, block_q: int, block_k: int) -> tuple[Tensor | None, ...]:
        """The columns of the table, in the order of the segments, and both maps."""
        return *self.columns(owner, block_q, block_k), self.row_map, self.row_map

    def columns(self, owner: str, block_q: int, block_k: int) -> tuple[Tensor, ...]:
        """Queries visit keys from the segment's first on, keys visit queries back from its last: so the diagonal and
        the cut tile are at the same end, and one range holds the edges."""
        queries, keys, zero = self.q_end - self.q_first, self.k_end - self.k_first, torch.tensor(0)
        if owner == "queries":
            s, first = split(self.q_first, self.q_end, block_q)
            last = torch.minimum(first + block_q, self.q_end[s]) - 1
            all_see = any_sees = keys[s]  # how many keys every query of the tile sees, and how many any
            if self.causal:
                seen = [i + 1 - self.q_end[s] + keys[s] for i in (first, last)]
                all_see, any_sees = (n.clamp(min=0) for n in seen)
            full, small = all_see // block_k, piece(block_k)
            ranges = [self.k_first[s], zero, full, full * block_k // small, ceil_div(any_sees, small)]
            return self.batch[s], first, self.q_end[s], self.k_first[s], self.k_end[s], *ranges
        s, first = split(self.k_first, self.k_end, block_k)
        last = torch.minimum(first + block_k, self.k_end[s]) - 1
        all_seen = any_seen = queries[s]  # by how many queries every key of the tile is seen, and by how many any
        if self.causal:
            seen = [self.k_end[s] - j for j in (last, first)]
            all_seen, any_seen = (torch.minimum(n, queries[s]) for n in seen)
        tiles, full, small = ceil_div(queries[s], block_q), all_seen // block_q, piece(block_q)
        pieces = block_q // small
        ranges = [tiles - full, tiles, tiles * pieces - ceil_div(any_seen, small), (tiles - full) * pieces]
        return (self.batch[s], first, self.k_end[s], self.q_first[s], self.q_end[s],
                self.q_end[s] - tiles * block_q, *ranges)  # fmt: skip


class SlidingTiles(Layout):
    """Tokens of a film in tiles; a query may attend the keys of the tiles around its own.

    Sliding-tile attention (Zhang et al. 2025, 2502.04507). size: (time, height, width) of the film in tokens; tile: of
    a tile; window: how many tiles of keys a query sees along each axis. At the film's border the window stops moving,
    so every query sees as many tiles.

    Tiles that see the same tiles are one segment, and the rows that they see are listed one after the other: the other
    side's map. So nothing has to be compared but the end of the list, and a tile that the film cuts is a short entry.
    """

    def __init__(self, size, tile, window, batch: int, device):
        check_sliding(size, tile, window)
        counts = [-(-n // t) for n, t in zip(size, tile, strict=True)]
        grid = torch.cartesian_prod(*(torch.arange(n) // t for n, t in zip(size, tile, strict=True))).reshape(-1, 3)
        self.tile_of = (grid[:, 0] * counts[1] + grid[:, 1]) * counts[2] + grid[:, 2]  # [tokens]: row to tile
        self.entries = batch
        axes = [window_of(n, w) for n, w in zip(counts, window, strict=True)]
        near = [a[:, None, None, :, None, None] & b[None, :, None, None, :, None] & c[None, None, :, None, None, :]
                for a, b, c in [axes]][0]  # fmt: skip
        self.near = near.reshape(math.prod(counts), math.prod(counts))  # [query tile, key tile]
        one, n = torch.zeros(1, dtype=torch.long), torch.tensor([math.prod(size)])
        super().__init__(one, one, n, one, n, False, self.tile_of.argsort(stable=True), device)
        alike = torch.unique(self.near, dim=0, return_inverse=True)[1][self.tile_of].bincount()
        wide = 128 * ceil_div(alike, 128).sum() <= 1.1 * len(self.tile_of)  # else a wide tile would be half empty
        self.family = "sliding, wide" if wide else "sliding"

    def mask(self) -> Tensor:
        """[tokens, tokens], True = may attend, in the order of memory: for the reference."""
        return self.near[self.tile_of[:, None], self.tile_of[None, :]].to(self.device)

    def build(self, owner: str, block_q: int, block_k: int) -> tuple[Tensor | None, ...]:
        """As Layout.build; the segments and what they see are those of the owner's side."""
        blind, group = torch.unique(~(self.near if owner == "queries" else self.near.T), dim=0, return_inverse=True)
        seen = ~blind  # sorted so, the groups that see the first tiles come first
        own_map = (group[self.tile_of] * len(group) + self.tile_of).argsort(stable=True)
        own_end = group[self.tile_of].bincount().cumsum(0)
        lengths, rows = self.tile_of.bincount(), self.row_map.long()
        begins = lengths.cumsum(0) - lengths
        segment, tile = torch.nonzero(seen).T
        n = lengths[tile]
        listed = rows[torch.arange(n.sum()) + (begins[tile] - n.cumsum(0) + n).repeat_interleave(n)]
        end = torch.zeros(len(seen), dtype=torch.long).index_add_(0, segment, n).cumsum(0)
        bounds = (torch.cat([torch.zeros(1, dtype=torch.long), x]) for x in (own_end, end))
        own, other = ((x[:-1], x[1:]) for x in bounds)
        q, k = (own, other) if owner == "queries" else (other, own)
        lists = Layout(torch.zeros_like(end), *q, *k, False, None, self.device)
        columns = torch.stack(torch.broadcast_tensors(*lists.columns(owner, block_q, block_k)))
        entry = torch.arange(self.entries).repeat_interleave(columns.shape[1])
        maps = (x.to(torch.int32).to(self.device) for x in (own_map, listed))
        return entry, *columns[1:].repeat(1, self.entries), *maps


def ceil_div(a: Tensor, b: int) -> Tensor:
    """a / b, rounded up."""
    return (a + b - 1) // b


def split(first: Tensor, end: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Cut segments [first, end) into tiles: which segment each tile is of, and its first place."""
    tiles = ceil_div(end - first, block)
    segment = torch.arange(len(first)).repeat_interleave(tiles)
    within = torch.arange(len(segment)) - (tiles.cumsum(0) - tiles)[segment]
    return segment, first[segment] + block * within


def window_of(tiles: int, window: int) -> Tensor:
    """[tiles, tiles] along one axis: a window that is centred on the tile, but does not leave the film."""
    window = min(window, tiles)
    begin = (torch.arange(tiles) - window // 2).clamp(0, tiles - window)[:, None]
    return (torch.arange(tiles) >= begin) & (torch.arange(tiles) < begin + window)


@lru_cache(maxsize=64)
def dense(batch: int, queries: int, keys: int, causal: bool, device: torch.device) -> Layout:
    """The layout of dense tensors: one segment a batch entry."""
    zero = torch.zeros(batch, dtype=torch.long)
    family = "causal" if causal else "dense"
    return Layout(torch.arange(batch), zero, zero + queries, zero, zero + keys, causal, None, device, family)


@lru_cache(maxsize=64)
def sliding(size, tile, window, batch: int, device: torch.device) -> SlidingTiles:
    """The layout of sliding tiles for a batch of films of one size."""
    return SlidingTiles(size, tile, window, batch, device)


REMEMBERED = 8  # layouts for one cu_seqlens_q: self- and cross-attention, causal or not
_PACKED = WeakIdKeyDictionary()  # cu_seqlens_q: {what else it depends on: (the others, layout)}


def packed(cu_q: Tensor, cu_k: Tensor | None, row_map: Tensor | None, queries: int, keys: int, causal: bool) -> Layout:
    """The layout of packed tensors of so many tokens, remembered as long as cu_seqlens_q lives and is not written to.

    Raises ValueError for bounds that are no bounds, and a row map that is no permutation. Reading them waits for the
    GPU once a batch.
    """
    given = [t for t in (cu_q, cu_k, row_map) if t is not None]
    key, kept = None, {}
    if not any(t.is_inference() for t in given):  # those do not count how often they were written to
        key = (*((id(t), t._version) for t in given), cu_k is None, row_map is None, queries, keys, causal)
        kept = _PACKED.setdefault(cu_q, {})
    others, layout = kept.get(key, ([], None))
    if layout and all(other() is t for other, t in zip(others, given[1:], strict=True)):  # not a new one of its id
        return layout
    q = check_bounds("cu_seqlens_q", cu_q, queries)
    k = q if cu_k is None else check_bounds("cu_seqlens_k", cu_k, keys)
    if len(q) != len(k):
        raise ValueError(f"cu_seqlens_k has {len(k)} bounds; it takes {len(q)}, as many as cu_seqlens_q")
    if cu_k is None and keys != queries:
        raise ValueError(f"cu_seqlens_k is None and k has {keys} tokens, q {queries}; it takes bounds of its own")
    if row_map is not None:
        check_permutation(row_map, queries)
    entry = torch.zeros(len(q) - 1, dtype=torch.long)
    layout = Layout(entry, q[:-1], q[1:], k[:-1], k[1:], causal, row_map, cu_q.device)
    while len(kept) >= REMEMBERED:  # bounds that are written to anew for every batch
        kept.pop(next(iter(kept)))
    kept[key] = ([TensorWeakRef(t) for t in given[1:]], layout)  # weakly: one may be cu_seqlens_q, or a view of it
    return layout


def check_bounds(name: str, bounds: Tensor, tokens: int) -> Tensor:
    """cu_seqlens as int64 on the CPU; raises ValueError unless it runs from 0 to `tokens` without going back."""
    if bounds.ndim != 1 or len(bounds) < 1 or bounds.dtype not in (torch.int32, torch.int64):
        kind = str(bounds.dtype).removeprefix("torch.")
        raise ValueError(f"{name} is {list(bounds.shape)} of {kind}; it takes [segments + 1] of int32 or int64")
    b = bounds.detach().cpu().long().clone()  # no view: it would keep the bounds alive, and what is remembered of them
    if b[0] != 0 or b[-1] != tokens:
        raise ValueError(f"{name} runs from {b[0]} to {b[-1]}; it takes 0 to the number of tokens, {tokens}")
    if (b.diff() < 0).any():
        k = int((b.diff() < 0).nonzero()[0])
        raise ValueError(f"{name} goes back from {b[k]} to {b[k + 1]} at {k + 1}; it takes bounds that do not fall")
    return b


def check_permutation(row_map: Tensor, tokens: int) -> None:
    """Raises ValueError unless row_map holds each of 0 .. tokens - 1 once."""
    if row_map.shape != (tokens,) or row_map.dtype not in (torch.int32, torch.int64):
        kind = str(row_map.dtype).removeprefix("torch.")
        raise ValueError(f"row_map is {list(row_map.shape)} of {kind}; it takes [{tokens}] of int32 or int64")
    if not torch.equal(row_map.cpu().long().sort().values, torch.arange(tokens)):
        raise ValueError(f"row_map is no permutation; it takes each of 0 to {tokens - 1} once (argsort makes one)")


def check_sizes(**sizes) -> None:
    """Raises ValueError, by name, for one that is not three whole numbers from 1."""
    for name, value in sizes.items():
        if len(value) != 3 or not all(isinstance(n, int) and n > 0 for n in value):
            raise ValueError(f"{name} is {value}; it takes three whole numbers from 1: time, height, width")


def check_sliding(size, tile, window) -> None:
    """Raises ValueError for sizes of sliding tiles that cannot be."""
    check_sizes(size=size, tile=tile, window=window)
    if not all(n % 2 for n in window):
        raise ValueError(f"window is {window}; it takes odd numbers, so that a tile has a middle")


def windows(size: tuple[int, int, int], window: tuple[int, int, int], films: int = 1) -> tuple[Tensor, Tensor]:
    """W.A.L.T's windows (2312.06662, section 4.2): (cu_seqlens [windows + 1], row_map [tokens]) for `attention`.

    Films of `size` (time, height, width) tokens, row by row in memory, are cut into blocks of `window` tokens that do
    not overlap; each block is a segment. A block that the film's border cuts is smaller. Raises ValueError that names
    the argument for sizes that are not whole numbers from 1.
    """
    check_sizes(size=size, window=window)
    if not isinstance(films, int) or films < 1:
        raise ValueError(f"films is {films}; it takes a whole number from 1")
    block = torch.zeros(size, dtype=torch.long)
    counts = [-(-n // w) for n, w in zip(size, window, strict=True)]
    for axis, (n, w, count) in enumerate(zip(size, window, counts, strict=True)):
        shape = [n if a == axis else 1 for a in range(3)]
        block = block * count + (torch.arange(n) // w).reshape(shape)
    block = torch.cat([block.flatten() + film * math.prod(counts) for film in range(films)])
    bounds = torch.cat([torch.zeros(1, dtype=torch.long), block.bincount().cumsum(0)])
    return bounds.to(torch.int32), block.argsort(stable=True).to(torch.int32)


class Segments(NamedTuple):
    """Where each picture lies in packed rows (chapter 07, NaViT).

    tokens, queries [segments + 1]: bounds of the runs of equal ids in the flattened rows, and of the one query that
    asks each picture (none asks padding); order [pictures]: which answer is picture k's.
    """

    tokens: Tensor
    queries: Tensor
    order: Tensor


def segments(ids: Tensor, pictures: int) -> Segments:
    """The runs of equal ids [rows, length]. Raises ValueError unless each of 0 .. pictures - 1 is one run of a row."""
    if ids.ndim != 2:
        raise ValueError(f"ids is {list(ids.shape)}; it takes [rows, length]")
    begins = torch.ones_like(ids, dtype=torch.bool)  # the first token of a row begins a run in any case
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    first = begins.flatten().nonzero()[:, 0]
    owner = ids.flatten()[first]
    real = owner != PAD
    found, order = owner[real].sort()
    if not torch.equal(found, torch.arange(pictures, device=ids.device)):
        raise ValueError(f"ids has runs of the pictures {found.tolist()[:12]}; it takes each of 0 to {pictures - 1} in "
                         f"one run, as many as sizes, and {PAD} for padding")  # fmt: skip
    return Segments(F.pad(first, (0, 1), value=ids.numel()).int(), F.pad(real.cumsum(0), (1, 0)).int(), order)
