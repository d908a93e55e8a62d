"""Chapter 02 beside `torch.nn.Transformer`: one training step at the same sizes; and what the kept keys are worth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.spine import seconds, side_by_side
from soralab.transformer import START, Transformer, TransformerConfig, beam_search, causal_mask, label_smoothing_loss

SIZES = {  # name: (sizes, sentences, words of source and of target)
    "small": (TransformerConfig.small(200), 64, 24),
    "base": (TransformerConfig.base(8000), 8, 24),
}


class Theirs(nn.Module):
    """torch's transformer between our embedding and our logits."""

    def __init__(self, ours: Transformer):
        super().__init__()
        c, self.ours = ours.config, ours
        self.body = nn.Transformer(c.d_model, c.h, c.N, c.N, c.d_ff, c.P_drop, norm_first=False, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits, as ours."""
        hidden = self.body(
            self.ours.embed(source), self.ours.embed(target), tgt_mask=~causal_mask(target.shape[1]),
            src_key_padding_mask=source == 0, memory_key_padding_mask=source == 0,
        )  # fmt: skip
        return hidden @ self.ours.embedding.weight.T


def run() -> Iterator[str]:
    """The benchmark's lines, as they are measured."""
    for name, (config, batch, length) in SIZES.items():
        yield training_step(name, config, batch, length)
    yield beams()


def training_step(name: str, config: TransformerConfig, batch: int, length: int) -> str:
    """Forward, loss and backward of ours and torch's."""
    ours = Transformer(config)
    source, target = (torch.randint(3, config.vocabulary, (batch, length)) for _ in range(2))
    source[: batch // 2, length * 3 // 4 :] = 0

    def step(model: nn.Module) -> None:
        label_smoothing_loss(model(source, target), target).backward()

    mine, theirs = side_by_side(partial(step, ours), partial(step, Theirs(ours)))
    return (f"transformer, {name:6s}{1e3 * mine:8.0f} ms a training step; nn.Transformer {1e3 * theirs:.0f} ms: "
            f"ours takes {mine / theirs:.2f} of it")


def beams(sentences: int = 50, length: int = 24, beam: int = 4) -> str:
    """Beam search with the kept keys and values, beside one that reads everything again at each step."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.small(200)).eval()
    source = torch.randint(3, 200, (sentences, length))
    kept = seconds(lambda: beam_search(model, source, beam, max_length=length), 2)

    @torch.no_grad()
    def again() -> None:
        rows = source.repeat_interleave(beam, 0)
        written = torch.full((len(rows), 1), START)
        for _ in range(length + 1):
            word = model(rows, written)[:, -1].argmax(-1)
            written = F.pad(written, (0, 1))
            written[:, -1] = word

    anew = seconds(again, 1)
    rate = f"{sentences / kept:8.0f} sentences a second"
    return f"beam search         {rate}; {anew / kept:.1f} times as many as without kept keys"
