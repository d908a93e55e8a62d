"""The ResNet that CLIP's image tower is (2103.00020, section 2.4): He et al. 2016 with three changes.

A stem of three 3 x 3 convolutions and an average pool (ResNet-D, 1812.01187), an average pool before every convolution
with a stride (against aliasing, 1904.11486), and at the end attention in place of the average.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks.attention import attention


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolution, plus the input; the width is 4 * planes. All strides are average pools."""

    def __init__(self, inside: int, planes: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(inside, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        self.downsample = None
        if stride > 1 or inside != 4 * planes:
            self.downsample = nn.Sequential(nn.Conv2d(inside, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes))

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, inside, height, width] to [batch, 4 planes, height / stride, width / stride]."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self._pool(F.relu(self.bn2(self.conv2(h))))
        skip = self.downsample(self._pool(x)) if self.downsample else x
        return F.relu(skip + self.bn3(self.conv3(h)))

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """One layer of attention whose only query is the average of all places: the picture asks, its places answer."""

    def __init__(self, side: int, dim: int, heads: int, embed: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(1 + side**2, dim) * dim**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.c_proj = nn.Linear(dim, embed)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, dim, side, side] to [batch, embed]."""
        places = rearrange(x, "b d h w -> b (h w) d")
        tokens = torch.cat([places.mean(1, keepdim=True), places], dim=1) + self.positional_embedding
        heads = [self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens)]
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in heads)
        return self.c_proj(rearrange(attention(q, k, v), "b h 1 d -> b (h d)"))


class ModifiedResNet(nn.Module):
    """Pictures of `image` pixels a side to `embed` numbers: stem, stages of bottlenecks, attention pooling.

    layers: how many bottlenecks each stage has. width: of the stem's end; the last stage has 4 * 2^(stages - 1) times
    as many channels, 32 with CLIP's four.
    Raises ValueError for an image whose side cannot be halved by the stem, twice, and by every stage but the first.
    """

    def __init__(self, layers: tuple[int, ...], embed: int, heads: int, image: int, width: int):
        super().__init__()
        if image < 1 or image % 2 ** (len(layers) + 1):
            raise ValueError(f"image is {image}; it takes a multiple of {2 ** (len(layers) + 1)}")
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        inside = width
        for stage, blocks in enumerate(layers):
            planes = width * 2**stage
            first = Bottleneck(inside, planes, stride=1 if stage == 0 else 2)
            inside = 4 * planes
            rest = [Bottleneck(inside, planes) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.stages = len(layers)
        self.attnpool = AttentionPool(image // 2 ** (self.stages + 1), inside, heads, embed)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # at first every block passes its input on

    def states(self, pixels: Tensor) -> list[Tensor]:
        """What enters the first stage and what leaves each: stages + 1 maps [batch, channel, height, width]."""
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        found = [F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)]
        for stage in range(self.stages):
            found.append(getattr(self, f"layer{stage + 1}")(found[-1]))
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, 3, image, image] to [batch, embed], not normalised."""
        return self.attnpool(self.states(pixels)[-1])
