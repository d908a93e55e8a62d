"""What tells a picture from its copy better than pixels do: a distance of features, and a patch discriminator.

The first stages of VQGAN (2012.09841) and latent diffusion (2112.10752, section 3.1) are trained by both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = Callable[[Tensor], Sequence[Tensor]]


def perceptual_distance(features: Features, x: Tensor, copy: Tensor) -> Tensor:
    """LPIPS (Zhang et al. 2018, 1801.03924, Eq. 1) with all weights 1, for each picture: [batch], from 0 to 4.

    features: pictures [batch, channel, height, width] to maps [batch, dim, rows, columns], one a layer. At each place
    the two vectors are made of length 1; their squared distance is averaged over places and layers.
    """
    distances = []
    for a, b in zip(features(x), features(copy), strict=True):
        a, b = (F.normalize(v.to(torch.promote_types(v.dtype, torch.float32)), dim=1) for v in (a, b))
        distances.append((a - b).square().sum(1).mean((1, 2)))
    return torch.stack(distances).mean(0)


class PatchDiscriminator(nn.Sequential):
    """Says of every patch of a picture whether it is real (Isola et al. 2017, 1611.07004): above 0 if it thinks so.

    [batch, channels, height, width] to [batch, 1, rows, columns]. `layers` convolutions halve the sides, two more do
    not. With 3 and a width of 64 a patch is 70 x 70 pixels, and 256 x 256 pixels give 30 x 30 answers.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3):
        dims = [width * min(2**n, 8) for n in range(layers + 1)]
        modules = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for n, (a, b) in enumerate(zip(dims, dims[1:], strict=False), 1):
            stride = 2 if n < layers else 1
            modules += [nn.Conv2d(a, b, 4, stride, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        super().__init__(*modules, nn.Conv2d(dims[-1], 1, 4, 1, 1))
        for module in self:
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                nn.init.normal_(module.weight, 0.0 if isinstance(module, nn.Conv2d) else 1.0, 0.02)


class FilmDiscriminator(nn.Sequential):
    """Says of every patch of a film whether it is real, by convolutions over time as well: above 0 if it thinks so."""

    def __init__(self, channels: int = 3, width: int = 24):
        super().__init__(
            nn.Conv3d(channels, width, (3, 4, 4), (1, 2, 2), 1), nn.LeakyReLU(0.2),
            nn.Conv3d(width, 2 * width, (3, 4, 4), (1, 2, 2), 1), nn.GroupNorm(1, 2 * width), nn.LeakyReLU(0.2),
            nn.Conv3d(2 * width, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, film: Tensor) -> Tensor:
        """film [batch, frames, channels, height, width] to [batch, 1, frames, rows, columns]."""
        return super().forward(film.transpose(1, 2))


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises: its answers to real pictures above 1, to copies below -1; a scalar."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def frozen(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module as a function of its input alone: gradients pass through it and leave its weights alone."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    return lambda x: torch.func.functional_call(module, weights, (x,))


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """lambda = |grad L_rec| / (|grad L_adv| + 1e-4), at the decoder's last layer (2012.09841, Eq. 7): a scalar.

    The two losses then pull equally hard there, whatever their units. Held to at most 10^4, and a number, not a path
    for gradients. The small constant is the official code's; the paper prints 1e-6.
    """
    size = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    return (size[0] / (size[1] + 1e-4)).clamp(0, 1e4).detach()
