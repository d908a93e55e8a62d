"""The peer of chapter 16: video-diffusion-pytorch's 3-D U-Net, in pixels, as many weights as chapter 16's transformer.

It is told the prompt as that is, by a text tower of its own that it trains with; the package's own way is a BERT from
the network. Of the package the network is taken and nothing else: noise process, loss, sampler and films are the
course's, so that what differs is the network and that it works on pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soralab.clip import PromptEncoder
from soralab.sora import SoraConfig

PACKAGE = "video_diffusion_pytorch.video_diffusion_pytorch"
WIDTH, LEVELS = 40, (1, 2, 4)


class PixelUNet(nn.Module):
    """Called as `soralab.sora.Sora` is, and in its place in a `Filmmaker`."""

    def __init__(self, config: SoraConfig):
        super().__init__()
        from video_diffusion_pytorch import Unet3D

        self.config = config
        self.text = PromptEncoder(config.vocabulary, config.dim, config.words)
        self.body = Unet3D(WIDTH, cond_dim=config.dim, dim_mults=LEVELS, channels=config.channels)
        self.head = self.body.final_conv[-1]
        with torch.no_grad():  # a prompt of nothing tells the text tower that there is none; theirs is not asked for
            self.body.null_cond_emb.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """x [batch, time, channel, height, width] at times t [batch] in [0, 1], word ids [batch, words]: x's shape."""
        _, _, whole = self.text(ids)
        return self.body(x.transpose(1, 2), 1000 * t, cond=F.silu(whole)).transpose(1, 2)
