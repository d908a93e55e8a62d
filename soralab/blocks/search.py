"""Writing a sequence word by word: greedily, or by beam search with a length penalty (1609.08144, section 7)."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor


class Writer(Protocol):
    """A model in the middle of writing `rows` sequences; it remembers what each row has written so far."""

    def next(self, words: Tensor) -> Tensor:
        """Write words [rows]; returns log P [rows, vocabulary] of the word after them, -inf for what may not come."""

    def select(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has written."""


class Hypothesis(NamedTuple):
    """One sequence: its ids without start and end, and log P / length_penalty."""

    ids: list[int]
    score: float


def length_penalty(length: int, alpha: float = 0.6) -> float:
    """((5 + length) / 6)^alpha, by which log P is divided (1609.08144, Eq. 14); length counts the end."""
    return ((5 + length) / 6) ** alpha


def greedy(writer: Writer, start: Tensor, end: int, max_length: int) -> list[list[int]]:
    """The likeliest word at each step: for start [rows] as many lists of at most max_length ids."""
    words, written = start, []
    open_rows = torch.ones_like(start, dtype=torch.bool)
    while open_rows.any() and len(written) < max_length:
        words = writer.next(words).argmax(-1)
        open_rows &= words != end
        written.append(words)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in start]
    return [row[: row.index(end)] if end in row else row for row in rows]


def beam_search(
    writer: Writer, start: Tensor, end: int, max_length: int, beam: int = 4, alpha: float = 0.6
) -> list[Hypothesis]:
    """The best sequence that a beam finds for each sentence; `writer` has `beam` rows a sentence, one after another.

    start [sentences]. At each step the `beam` likeliest beginnings are kept. One that ends while it is among them is
    put aside; a sentence is done with `beam` of these, if none still being written is likelier than all of them,
    or after max_length words, where the end is forced. Raises ValueError where the writer never lets a sentence end.
    """
    if beam < 1:
        raise ValueError(f"beam is {beam}; it takes a whole number from 1")
    if max_length < 0:
        raise ValueError(f"max_length is {max_length}; it takes a whole number from 0")
    count, device = len(start), start.device
    if not count:
        return []
    words = start.repeat_interleave(beam)
    written = words.new_zeros(len(words), 0)
    log_p = torch.full((count, beam), -math.inf, device=device)
    log_p[:, 0] = 0.0  # at first all beginnings of a sentence are the same one
    ended: list[list[Hypothesis]] = [[] for _ in range(count)]
    likeliest, done = [-math.inf] * count, [False] * count  # log P of the likeliest that has ended
    for length in range(1, max_length + 2):
        after = writer.next(words)
        if length > max_length:
            after = after.masked_fill(torch.arange(after.shape[1], device=device) != end, -math.inf)
        total = rearrange(log_p.reshape(-1, 1) + after, "(s beam) v -> s (beam v)", s=count)
        best, place = total.topk(min(2 * beam, total.shape[1]))  # twice as many: up to half of them may end here
        row, word = place // after.shape[1], place % after.shape[1]
        for i, j in ((word == end) & (best > -math.inf))[:, :beam].nonzero().tolist():
            if not done[i]:
                ids = written[i * beam + row[i, j]].tolist()
                ended[i].append(Hypothesis(ids, best[i, j].item() / length_penalty(length, alpha)))
                likeliest[i] = max(likeliest[i], best[i, j].item())
        log_p, keep = best.masked_fill(word == end, -math.inf).topk(beam)
        rows = (row.gather(1, keep) + beam * torch.arange(count, device=device)[:, None]).flatten()
        words = word.gather(1, keep).flatten()
        written = torch.cat([written[rows], words[:, None]], dim=1)
        writer.select(rows)
        # Unlikely ones may end early; as long as a likelier one is being written, the search goes on.
        done = [d or (len(found) >= beam and ended_p >= alive) for d, found, ended_p, alive in
                zip(done, ended, likeliest, log_p[:, 0].tolist(), strict=True)]
        if all(done):
            break
    if not all(ended):
        raise ValueError(f"writer gives the end, {end}, no chance in sentence {ended.index([])}; it takes one that may")
    return [max(found, key=lambda hypothesis: hypothesis.score) for found in ended]
