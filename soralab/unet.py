"""U-Net: a network that labels every pixel, learnt from a few pictures.

Paper: Ronneberger, Fischer & Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (1505.04597).
A contracting path says what is there, an expanding path says where, and what was seen on the way down is laid beside
what is drawn on the way up. No convolution pads, so a tile comes out smaller, and says nothing that it did not see:

    572 -> 568 --pool--> 284 -> 280 -> 140 -> 136 -> 68 -> 64 -> 32 -> 28          channels 64, 128, 256, 512, 1024
    388 <- 392 <--up---- 196 <- 200 <- 100 <- 104 <- 52 <- 56 <--------'

With `UNetConfig.denoiser()` the same network pads and is told a time: the diffusion models' U-Net (chapter 06).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from soralab.blocks import TimestepEmbedding
from soralab.files.checkpoints import load_model

# ----------------------------------------------------------------------------------------------------- the network


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net; the defaults are the paper's (figure 1). `time` > 0 makes it a denoiser."""

    channels: int = 1  # of the picture
    classes: int = 2  # channels that come out: one for each class, or those of a prediction
    width: int = 64  # feature channels of the first level; each level has twice those of the one above
    levels: int = 5
    skips: bool = True  # False: the same net without its copies, a plain encoder and decoder
    same: bool = False  # True: convolutions pad with zeros, and what comes out is as large as what went in
    time: int = 0  # channels of the time's embedding; 0: the network is not told a time
    dropout: float = 0.5  # in the two deepest levels: "at the end of the contracting path" (section 3.1)

    def __post_init__(self) -> None:
        for name, low in (("channels", 1), ("classes", 1), ("width", 1), ("levels", 1), ("time", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it takes a whole number from {low}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; it takes a number from 0 up to but not 1")

    @classmethod
    def paper(cls) -> UNetConfig:
        """The network of figure 1: 23 convolutions, 31,030,658 parameters, a tile of 572 becomes 388."""
        return cls()

    @classmethod
    def small(cls, **changes) -> UNetConfig:
        """A quarter of its width and two levels fewer, for two processor cores: a tile of 100 becomes 60."""
        return cls(**{"width": 16, "levels": 3, "dropout": 0.1, **changes})

    @classmethod
    def denoiser(cls, **changes) -> UNetConfig:
        """The bridge to diffusion: pictures of 3 channels and a time in, a prediction of the same shape out."""
        return cls(**{"channels": 3, "classes": 3, "width": 24, "levels": 3, "same": True, "time": 128,
                      "dropout": 0.0, **changes})  # fmt: skip

    @property
    def stride(self) -> int:
        """Pixels of the picture to one of the deepest level: 16 in the paper."""
        return 2 ** (self.levels - 1)

    @property
    def shrink(self) -> int:
        """Pixels that height and width lose: 184 in the paper. Each level's two convolutions take 4 pixels of its own
        size, on the way down and on the way up; the deepest does so once."""
        return 0 if self.same else 4 * (3 * self.stride - 2)

    @property
    def smallest(self) -> int:
        """The smallest side of which at least one pixel comes out: 188 in the paper."""
        return self.shrink + 1 + (self._offset - self.shrink - 1) % self.stride

    @property
    def _offset(self) -> int:
        """Sides are `stride` k plus this, so that every pooling finds an even number of pixels: 60, that is 12."""
        return 0 if self.same else 4 * (self.stride - 1)

    def valid_sizes(self, near: int) -> tuple[int, int]:
        """The largest side up to `near` and the smallest from `near` on that the network takes."""
        below = max(near - (near - self._offset) % self.stride, self.smallest)
        return below, below if below >= near else below + self.stride

    def output_size(self, size: int, name: str = "size") -> int:
        """The side that comes out of a side of `size`. Raises ValueError that names the nearest valid ones."""
        below, above = self.valid_sizes(size)
        if size not in (below, above):
            rest = self._offset % self.stride
            rule = f"{self.stride}k{f' + {rest}' if rest else ''} from {self.smallest} on"
            nearest = f"{below}" if below == above else f"{below} and {above}"
            raise ValueError(f"{name} is {size}; it takes {rule}: the nearest {nearest}")
        return size - self.shrink


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each followed by a ReLU; between them, where there is one, the time is added."""

    def __init__(self, dim_in: int, dim_out: int, config: UNetConfig):
        super().__init__()
        self.first = nn.Conv2d(dim_in, dim_out, 3, padding=int(config.same))
        self.second = nn.Conv2d(dim_out, dim_out, 3, padding=int(config.same))
        self.time = nn.Linear(config.time, dim_out) if config.time else None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """x [batch, dim_in, h, w], c [batch, time] or None; returns [batch, dim_out, h - 4, w - 4]."""
        x = self.first(x)
        if self.time is not None:
            x = x + self.time(c)[:, :, None, None]
        return F.relu_(self.second(F.relu_(x)))  # in place: a convolution's gradient does not need what it gave


def centre_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle of x [..., h, w]: [..., height, width]. Raises ValueError if there is not so much of it."""
    top, left = x.shape[-2] - height, x.shape[-1] - width
    if top < 0 or left < 0:
        raise ValueError(f"height, width: got {height}x{width}; it takes at most x's {x.shape[-2]}x{x.shape[-1]}")
    return x[..., top // 2 : top // 2 + height, left // 2 : left // 2 + width]


def crop_and_concat(skip: Tensor, x: Tensor) -> Tensor:
    """The middle of skip [b, c, H, W] and, after it, x [b, d, h, w]: [b, c + d, h, w] (figure 1's grey arrows)."""
    return torch.cat([centre_crop(skip, *x.shape[-2:]), x], dim=1)


class UNet(nn.Module):
    """The network of figure 1. `UNet()` is the paper's; smaller ones and the denoiser are other `UNetConfig`s."""

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__()
        self.config = config
        dims = [config.width * 2**level for level in range(config.levels)]
        pairs = list(zip(dims, dims[1:], strict=False))[::-1]  # (512, 1024), (256, 512), ...
        self.time = TimestepEmbedding(config.time) if config.time else None
        self.down = nn.ModuleList(
            DoubleConv(a, b, config) for a, b in zip([config.channels, *dims], dims, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(DoubleConv(b if config.skips else a, a, config) for a, b in pairs)
        self.head = nn.Conv2d(config.width, config.classes, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """He's: normal, deviation sqrt(2 / N), N the numbers that one output is made of (section 3); bias zero.

        The 2 makes up for the half that a ReLU takes away. After an up-convolution and after the last layer there is
        none, and theirs is sqrt(1 / N). The four taps of an up-convolution make four pixels: its N is its channels.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                relu = module.kernel_size == (3, 3)
                taps = 9 if relu else 1
                nn.init.normal_(module.weight, std=math.sqrt((2 if relu else 1) / (module.in_channels * taps)))
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """x [batch, channels, h, w] to logits [batch, classes, h - shrink, w - shrink].

        t [batch] in [0, 1], diffusion time, for a network that is told one. Raises ValueError for another number of
        channels, for sides that `config.output_size` does not take, and for a time too many or too few.
        """
        self.check(x, t)
        c = None if self.time is None else F.silu(self.time(t))
        kept = []
        for level, conv in enumerate(self.down):
            x = conv(F.max_pool2d(x, 2) if level else x, c)
            if level >= self.config.levels - 2:
                x = self.dropout(x)
            kept.append(x)
        x = kept.pop()
        for up, conv in zip(self.up, self.merge, strict=True):
            x, skip = up(x), kept.pop()
            x = conv(crop_and_concat(skip, x) if self.config.skips else x, c)
        return self.head(x)

    def check(self, x: Tensor, t: Tensor | None) -> None:
        """Raise ValueError if x or t is not what this network takes."""
        if x.ndim != 4 or x.shape[1] != self.config.channels:
            raise ValueError(f"x is {list(x.shape)}; it takes [batch, {self.config.channels}, height, width]")
        self.config.output_size(x.shape[2], "the height of x")
        self.config.output_size(x.shape[3], "the width of x")
        if (t is None) != (self.time is None):
            raise ValueError("t is missing; it takes [batch], in [0, 1]" if t is None else
                             "t: this network is told no time; it takes None")  # fmt: skip
        if t is not None and t.shape != x.shape[:1]:
            raise ValueError(f"t is {list(t.shape)}; it takes one time for each of the {len(x)} pictures")


def load_unet(name: str = "unet") -> UNet:
    """A shipped network, verified, ready to be used. Raises CheckpointError."""
    return load_model(name, lambda sizes: UNet(UNetConfig(**sizes)), "U-Net")[0].requires_grad_(False)


# ------------------------------------------------------------------------------------- the loss, and where it weighs


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Eq. (1), its sign turned and divided by the number of pixels: the mean of -w(x) log p_l(x)(x), a scalar.

    logits [batch, classes, h, w], target [batch, h, w] whole numbers (the true class l), weights [batch, h, w] (None:
    all 1). p is the softmax over the classes of one pixel.
    """
    for name, value in (("target", target), ("weights", weights)):
        if value is not None and value.shape != (logits.shape[0], *logits.shape[2:]):
            raise ValueError(f"{name} is {list(value.shape)}; it takes "
                             f"{[logits.shape[0], *logits.shape[2:]]}: crop it to what comes out")  # fmt: skip
    losses = F.cross_entropy(logits, target, reduction="none")
    return (losses if weights is None else losses * weights).mean()


def separate(labels: np.ndarray) -> np.ndarray:
    """labels [h, w] (0 background, 1, 2, ... cells) with a ridge of background wherever two cells touch (section 3)."""
    far = np.iinfo(np.int32).max
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, far).astype(np.int32), 3)
    return np.where((labels > 0) & (highest != lowest), 0, labels)


def weight_map(
    labels: np.ndarray, w0: float = 10.0, sigma: float = 5.0, class_weights: tuple[float, float] | None = None
) -> Tensor:
    """Eq. (2): w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)), float32 [h, w].

    labels: whole numbers [h, w], 0 background, one number a cell. d1, d2: pixels to the nearest and to the second
    nearest cell. The second term is for the background alone, as in figure 3d: it is large in the narrow gap between
    two cells. class_weights: w_c of (background, cells); by default each class weighs half of this picture in all.
    Raises ValueError for labels of another shape or type, and sigma that is not above 0.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ValueError(f"labels is {labels.dtype} {list(labels.shape)}; it takes whole numbers [height, width]")
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}; it takes pixels, above 0")
    cells = labels > 0
    if class_weights is None:
        share = cells.mean()
        class_weights = (0.5 / (1 - share), 0.5 / share) if 0 < share < 1 else (1.0, 1.0)
    weights = np.where(cells, class_weights[1], class_weights[0]).astype(np.float32)
    names = np.unique(labels[cells])
    if len(names) > 1:
        d1, d2 = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
        for name in names:
            distance = ndimage.distance_transform_edt(labels != name)
            d1, d2 = np.minimum(d1, distance), np.minimum(d2, np.maximum(d1, distance))
        weights += np.where(cells, 0, w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))).astype(np.float32)
    return torch.from_numpy(weights)


# --------------------------------------------------------------------------------------------- pictures, bent and cut


def elastic_deformation(
    image: Tensor, labels: np.ndarray, rng: np.random.Generator, std: float = 10.0, grid: int = 3
) -> tuple[Tensor, np.ndarray]:
    """Bend a picture [channels, h, w] and its labels [h, w] alike (section 3.1); returns both, of the same shapes.

    A coarse grid of grid x grid points is displaced by normal numbers of `std` pixels; cubic splines say how far the
    pixels between them move. The picture is read between its pixels, labels are never mixed; beyond the edge it is
    mirrored. Raises ValueError unless labels are as large as the picture.
    """
    if image.ndim != 3 or image.shape[1:] != labels.shape:
        raise ValueError(f"labels is {list(labels.shape)}; it takes the height and width of image {list(image.shape)}")
    h, w = labels.shape
    where = np.mgrid[:h, :w].astype(np.float64)
    on_grid = where * (grid - 1) / np.array([max(h - 1, 1), max(w - 1, 1)])[:, None, None]
    moves = rng.normal(0.0, std, (2, grid, grid))
    where += np.stack([ndimage.map_coordinates(move, on_grid, order=3, mode="nearest") for move in moves])
    bent = [ndimage.map_coordinates(channel, where, order=1, mode="mirror") for channel in image.numpy()]
    return torch.from_numpy(np.stack(bent)), ndimage.map_coordinates(labels, where, order=0, mode="mirror")


def mirror(image: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """image [..., h, w] with so many pixels more on each side, mirrored; the edge itself is not repeated.

    However many are asked for: where the picture ends, its reflection is reflected again.
    """
    for axis, before, after in ((-2, top, bottom), (-1, left, right)):
        last = image.shape[axis] - 1
        index = torch.arange(-before, last + 1 + after, device=image.device)
        index = last - (index % max(2 * last, 1) - last).abs()
        image = image.index_select(axis, index)
    return image


def mirror_for(config: UNetConfig, image: Tensor, tile: int) -> Tensor:
    """image [b, c, h, w] mirrored outwards so far that tiles of `tile` pixels cover all of it (figure 2).

    Its sides are again some that the network takes. Raises ValueError for a tile that is none, or that is so small
    that no step is left.
    """
    out = config.output_size(tile, "tile")
    if out < config.stride or config.same:
        why = "a network that does not pad" if config.same else f"a side from {config.shrink + config.stride} on"
        raise ValueError(f"tile is {tile}, of which {out} pixels come out; overlap-tile takes {why}")
    step = out // config.stride * config.stride
    margin = config.shrink // 2
    ends = [math.ceil(side / step) * step - step + tile - side - margin for side in image.shape[-2:]]
    return mirror(image, margin, ends[0], margin, ends[1])


@torch.no_grad()
def overlap_tile(model: UNet, image: Tensor, tile: int) -> Tensor:
    """Label a picture of any size with tiles of `tile` pixels (figure 2): logits [b, classes, h, w] for [b, c, h, w].

    Tiles overlap by what the network takes off, so the seams do not show: the result is that of the whole picture at
    once. For this tiles must also fall alike on the grid of the poolings: they follow each other in steps of a whole
    multiple of `stride`, 384 of the 388 pixels that come out. Raises ValueError for a tile that the network does not
    take, and names the nearest that it does.
    """
    padded = mirror_for(model.config, image, tile)
    step = model.config.output_size(tile) // model.config.stride * model.config.stride
    height, width = image.shape[-2:]
    was_training = model.training
    model.eval()
    rows = []
    try:
        for top in range(0, height, step):
            row = [model(padded[..., top : top + tile, left : left + tile]) for left in range(0, width, step)]
            rows.append(torch.cat([piece[..., :step, :step] for piece in row], dim=-1))
    finally:
        model.train(was_training)
    return torch.cat(rows, dim=-2)[..., :height, :width]
