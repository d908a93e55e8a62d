"""The tiny encoder-decoder that chapter 02's tests share."""

import torch
from torch import nn

from soralab.transformer import Transformer, TransformerConfig

TINY = TransformerConfig(vocabulary=12, N=2, d_model=16, d_ff=24, h=2, d_k=5, d_v=4)


def tiny(seed=0, **changes):
    """A tiny model with random weights everywhere, norms and biases too, in evaluation mode."""
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(**{**TINY.__dict__, **changes}))
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return model.eval()


def some_ids(rows, length, seed=0, vocabulary=12):
    return torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
