"""Chapter 02 beside `torch.nn.Transformer`: one training step at the same sizes; and what the kept keys are worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rows import Case, Work, parameters, training
from soralab.transformer import START, Transformer, TransformerConfig, beam_search, causal_mask, label_smoothing_loss

SIZES = {  # name: (sizes, sentences, words of source and of target)
    "small": (TransformerConfig.small(200), 64, 24),
    "base": (TransformerConfig.base(8000), 2, 24),
}
SENTENCES, LENGTH, BEAM = 25, 16, 4  # of beam search


class Theirs(nn.Module):
    """torch's transformer between our embedding and our logits. Its attention has biases, and each stack ends in a
    norm."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        c, self.ours = config, Transformer(replace(config, N=0))  # our embedding
        self.body = nn.Transformer(c.d_model, c.h, c.N, c.N, c.d_ff, c.P_drop, norm_first=False, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits, as ours."""
        hidden = self.body(
            self.ours.embed(source), self.ours.embed(target), tgt_mask=~causal_mask(target.shape[1]),
            src_key_padding_mask=source == 0, memory_key_padding_mask=source == 0,
        )  # fmt: skip
        return hidden @ self.ours.embedding.weight.T


def cases() -> Iterator[Case]:
    """The rows."""
    for name, (config, batch, length) in SIZES.items():
        ours, theirs = (partial(step, kind, config, batch, length) for kind in (Transformer, Theirs))
        yield Case(f"Transformer, {name}, {batch} sentences", ours, "torch nn.Transformer", theirs)
    yield Case(f"beam search, {SENTENCES} sentences", beams, "ours, no kept keys", again)


def step(kind: type[nn.Module], config: TransformerConfig, batch: int, length: int) -> Work:
    """Forward, loss and backward."""
    source, target = (torch.randint(3, config.vocabulary, (batch, length)) for _ in range(2))
    source[: batch // 2, length * 3 // 4 :] = 0
    loss = partial(label_smoothing_loss, target=target)
    return training(kind(config).train(), source, target, loss=loss)


def small() -> tuple[Transformer, Tensor]:
    """A model and sentences to translate."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.small(200)).eval()
    return model, torch.randint(3, 200, (SENTENCES, LENGTH))


def beams() -> Work:
    """Beam search as chapter 02 has it, with kept keys and values."""
    model, source = small()
    return Work(lambda: beam_search(model, source, BEAM, max_length=LENGTH), parameters(model))


def again() -> Work:
    """As many rows and steps, and everything read again at each."""
    model, source = small()

    @torch.no_grad()
    def run() -> None:
        rows = source.repeat_interleave(BEAM, 0)
        written = torch.full((len(rows), 1), START)
        for _ in range(LENGTH + 1):
            word = model(rows, written)[:, -1].argmax(-1)
            written = F.pad(written, (0, 1))
            written[:, -1] = word

    return Work(run, parameters(model))
