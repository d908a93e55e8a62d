"""VQ-VAE: a picture or a film becomes a small map of whole numbers, and a second model learns to write such maps.

Paper: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning" (1711.00937). This file is
its section 3 and appendix A.1, top to bottom. An encoder gives z_e(x), a vector of D numbers for each place of the map;
the codebook holds K codes e_1 ... e_K of D numbers:

    q(z = k | x) = 1 for k = argmin_j ||z_e(x) - e_j||, else 0                                   (1)
    z_q(x) = e_k                                                                                 (2)
    L = -log p(x | z_q(x)) + ||sg[z_e(x)] - e||^2 + beta ||z_e(x) - sg[e]||^2                    (3)

sg, "stop gradient", is `detach`. The argmin has no gradient, so the decoder's is copied from z_q to z_e as it stands
(straight-through). The squares are means over D here, and -log p is a squared error in units of `variance`. The prior
over the maps is a gated PixelCNN (van den Oord et al. 2016, 1606.05328, figure 2), trained afterwards.

    pictures  [b, 3, h, w]             --encode-->  z_e [b, h/4, w/4, D]            --nearest-->  [b, h/4, w/4]
    films     [b, 1 + 2k, 3, h, w]     --encode-->  z_e [b, 1 + k, h/4, w/4, D]     --nearest-->  [b, 1 + k, h/4, w/4]
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from soralab.blocks import CausalTime, ResBlock, Space
from soralab.files.checkpoints import load_model


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of a VQ-VAE; the defaults are the course's small one for pictures."""

    codes: int = 128  # K
    dim: int = 16  # D
    width: int = 64  # channels of every hidden layer
    channels: int = 3
    films: bool = False  # False: pictures, section 4.1's network; True: whole films, causal in time
    beta: float = 0.25  # of the commitment loss
    decay: float = 0.99  # gamma of appendix A.1's moving averages; 0: the codebook learns by Eq. (3)'s middle term
    revive: float = 0.0  # a code used less often than this in a batch, on average, is placed anew; 0: never

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it takes a number from 0 up to but not 1")
        if self.revive and not self.decay:
            raise ValueError(f"revive is {self.revive}; with decay 0 nobody counts how often a code is used: give 0")

    @classmethod
    def paper(cls, **changes) -> VQVAEConfig:
        """The paper's: 256 hidden units, K = 512, codebook by gradient. D = 64 is the official code's example."""
        return cls(**{"codes": 512, "dim": 64, "width": 256, "decay": 0.0, **changes})

    def map_size(self, height: int, width: int, frames: int = 1) -> tuple[int, ...]:
        """The shape of one map: (rows, columns) of a picture, (time, rows, columns) of a film."""
        if height % 4 or width % 4 or frames % 2 == 0 or (frames > 1 and not self.films):
            raise ValueError(f"size is {frames}x{height}x{width}; it takes sides that 4 divides, and "
                             + ("an odd number of frames" if self.films else "one frame"))
        return ((frames + 1) // 2,) * self.films + (height // 4, width // 4)

    def bits(self, height: int, width: int, frames: int = 1) -> float:
        """What one map costs when every code is as likely as any other: log2(K) for each place."""
        return torch.Size(self.map_size(height, width, frames)).numel() * log2(self.codes)


# ----------------------------------------------------------------------------------------------------- the codebook


class Quantised(NamedTuple):
    """What the codebook makes of z_e."""

    z_q: Tensor  # [..., dim], the codes in value and z_e in gradient
    indices: Tensor  # [...], which codes
    loss: Tensor  # the terms of Eq. (3) that are not the reconstruction
    perplexity: Tensor  # how many codes are in use, 1 to K


def perplexity(indices: Tensor, codes: int) -> Tensor:
    """2 to the entropy, in bits, of how often each code is used in `indices`: 1 if it is always one, K if all alike."""
    share = torch.bincount(indices.flatten(), minlength=codes) / indices.numel()
    return torch.exp(torch.special.entr(share).sum())


class VectorQuantizer(nn.Module):
    """The codebook e [K, D], Eqs. (1) to (3), learned by gradient or, with `decay`, by moving averages.

    The averages are buffers, and move in training mode alone. `revive` is not in the paper: a code that no vector is
    near gets no gradient and no average, and is never chosen again. Such a code is placed on a vector of the batch.
    """

    def __init__(self, codes: int, dim: int, beta: float = 0.25, decay: float = 0.0, revive: float = 0.0):
        super().__init__()
        self.beta, self.decay, self.revive = beta, decay, revive
        start = torch.randn(codes, dim)  # the paper does not say; as an nn.Embedding starts
        if decay:
            self.register_buffer("codebook", start)
            self.register_buffer("count", torch.ones(codes))  # N
            self.register_buffer("total", start.clone())  # m
        else:
            self.codebook = nn.Parameter(start)

    @torch.no_grad()
    def nearest(self, z_e: Tensor) -> Tensor:
        """Eq. (1): z_e [..., dim] to the indices [...] of the nearest codes. In full precision: autocast does not
        touch `cdist`, as it would a product of matrices."""
        apart = torch.cdist(z_e.to(self.codebook).flatten(0, -2), self.codebook)
        return apart.argmin(-1).reshape(z_e.shape[:-1])

    def forward(self, z_e: Tensor) -> Quantised:
        """Quantise z_e [..., dim]. In training mode the averages move afterwards, so this batch sees the old codes."""
        z_e = z_e.to(self.codebook.dtype).contiguous()  # a map of channels first is walked through once, not five times
        indices = self.nearest(z_e)
        e = F.embedding(indices, self.codebook)
        loss = self.beta * F.mse_loss(z_e, e.detach())  # commitment: the encoder comes to the code
        if not self.decay:
            loss = loss + F.mse_loss(e, z_e.detach())  # the code comes to the encoder, at full weight
        elif self.training:
            self.move(z_e.detach().flatten(0, -2), indices.flatten())
        z_q = z_e + (e - z_e).detach()  # straight-through
        return Quantised(z_q, indices, loss, perplexity(indices, len(self.codebook)))

    @torch.no_grad()
    def move(self, z: Tensor, indices: Tensor, epsilon: float = 1e-5) -> None:
        """Appendix A.1, one step: z [n, dim] are the batch's vectors, indices [n] the codes that they chose.

        N_i <- gamma N_i + (1 - gamma) n_i,   m_i <- gamma m_i + (1 - gamma) sum_j z_ij,   e_i = m_i / N_i. As in the
        official code N_i is smoothed (Laplace: epsilon for every code, the sum unchanged), so nothing is divided by 0.
        """
        chosen = torch.bincount(indices, minlength=len(self.count)).to(z)
        self.count.lerp_(chosen, 1 - self.decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, indices, z), 1 - self.decay)
        if self.revive:
            dead = self.count < self.revive
            self.count[dead] = 1.0  # as at the start: it has about 1 / (1 - gamma) steps to find friends
            self.total[dead] = z[torch.randint(len(z), (int(dead.sum()),), device=z.device)]
        n = self.count.sum()
        smooth = (self.count + epsilon) / (n + len(self.count) * epsilon) * n
        self.codebook.copy_(self.total / smooth[:, None])


# ---------------------------------------------------------------------------------------------- networks for pictures


class Residual(nn.Module):
    """Section 4.1's block: ReLU, 3 x 3 convolution, ReLU, 1 x 1 convolution, plus the input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, width, rows, columns] to the same."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def picture_networks(c: VQVAEConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder of section 4.1. The layers to and from D are not in its text, but in the official code."""
    encoder = nn.Sequential(
        nn.Conv2d(c.channels, c.width, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(c.width, c.width, 4, stride=2, padding=1), Residual(c.width), Residual(c.width), nn.ReLU(),
        nn.Conv2d(c.width, c.dim, 1), Rearrange("b c h w -> b h w c"),
    )  # fmt: skip
    decoder = nn.Sequential(
        Rearrange("b h w c -> b c h w"), nn.Conv2d(c.dim, c.width, 3, padding=1), Residual(c.width),
        Residual(c.width), nn.ReLU(), nn.ConvTranspose2d(c.width, c.width, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(c.width, c.channels, 4, stride=2, padding=1),
    )  # fmt: skip
    return encoder, decoder


# ------------------------------------------------------------------------------------------------- networks for films


class FilmEncoder(nn.Module):
    """A film to z_e, 4 times smaller in space and 2 times in time; the first place in time is the first frame alone."""

    def __init__(self, c: VQVAEConfig):
        super().__init__()
        half = c.width // 2
        self.down = nn.Sequential(Space(4 * c.channels, half), nn.SiLU(), Space(half, c.width, stride=2))
        self.blocks = nn.Sequential(ResBlock(c.width, CausalTime), ResBlock(c.width, CausalTime), nn.LayerNorm(c.width))
        self.merge = nn.Linear(2 * c.width, c.dim)

    def forward(self, film: Tensor) -> Tensor:
        """film [batch, 1 + 2k, channel, height, width] to [batch, 1 + k, height / 4, width / 4, dim]."""
        x = rearrange(film, "b t c (h p) (w q) -> b t h w (p q c)", p=2, q=2)
        x = self.blocks(self.down(x))
        x = torch.cat([x[:, :1], x], dim=1)  # so that a film of one frame has a place too
        return self.merge(rearrange(x, "b (t f) h w c -> b t h w (f c)", f=2))


class FilmDecoder(nn.Module):
    """The way back, causal too: frames 2i - 1 and 2i are made of the places 0 to i."""

    def __init__(self, c: VQVAEConfig):
        super().__init__()
        half = c.width // 2
        self.split = nn.Linear(c.dim, 2 * c.width)
        self.blocks = nn.Sequential(ResBlock(c.width, CausalTime), ResBlock(c.width, CausalTime), nn.LayerNorm(c.width))
        self.up = Space(c.width, 4 * half)
        self.out = nn.Sequential(nn.SiLU(), Space(half, 4 * c.channels))

    def forward(self, z: Tensor) -> Tensor:
        """z [batch, 1 + k, rows, columns, dim] to [batch, 1 + 2k, channel, 4 rows, 4 columns]."""
        x = rearrange(self.split(z), "b t h w (f c) -> b (t f) h w c", f=2)[:, 1:]
        x = rearrange(self.up(self.blocks(x)), "b t h w (p q c) -> b t (h p) (w q) c", p=2, q=2)
        return rearrange(self.out(x), "b t h w (p q c) -> b t c (h p) (w q)", p=2, q=2)


class VQVAE(nn.Module):
    """Encoder, codebook, decoder. x is a batch of pictures, or of films if `config.films`, in [-1, 1]."""

    def __init__(self, config: VQVAEConfig = VQVAEConfig()):
        super().__init__()
        c = self.config = config
        self.encoder, self.decoder = (FilmEncoder(c), FilmDecoder(c)) if c.films else picture_networks(c)
        self.quantizer = VectorQuantizer(c.codes, c.dim, c.beta, c.decay, c.revive)

    def z_e(self, x: Tensor) -> Tensor:
        """The encoder's output. Raises ValueError for an x whose size cannot be encoded."""
        if x.ndim != 4 + self.config.films:
            axes = "[batch, time, channel, height, width]" if self.config.films else "[batch, channel, height, width]"
            raise ValueError(f"x is {list(x.shape)}; it takes {axes}")
        self.config.map_size(*x.shape[-2:], x.shape[1] if self.config.films else 1)
        return self.encoder(x)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """x to its map of codes, int64 [batch, rows, columns] or [batch, time, rows, columns]."""
        return self.quantizer.nearest(self.z_e(x))

    def decode(self, indices: Tensor) -> Tensor:
        """The way back: a map as `encode` gives it to the mean of p(x | z_q), shaped as x was, in about [-1, 1]."""
        return self.decoder(F.embedding(indices, self.quantizer.codebook))

    def forward(self, x: Tensor) -> tuple[Tensor, Quantised]:
        """The reconstruction of x, of x's shape, and what the codebook did. Raises ValueError as `z_e` does."""
        q = self.quantizer(self.z_e(x))
        return self.decoder(q.z_q), q


def vqvae_loss(model: VQVAE, x: Tensor, variance: float = 1.0) -> tuple[Tensor, dict[str, float]]:
    """Eq. (3) of a batch x, a scalar, and {"psnr" in dB, "perplexity"}. variance: the unit of an error's square."""
    copy, q = model(x)
    square = (copy.float() - x).square().mean()
    psnr = 10 * torch.log10(4 / square.detach())
    return square / variance + q.loss, {"psnr": psnr.item(), "perplexity": q.perplexity.item()}


# --------------------------------------------------------------------------------------------- the prior over the maps


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of the gated PixelCNN."""

    codes: int = 128  # K, of the maps that it writes
    classes: int = 6  # of what the map shows
    width: int = 64
    depth: int = 6  # layers
    size: int = 3  # side of a convolution, odd


class GatedLayer(nn.Module):
    """One layer of 1606.05328's figure 2: two stacks, so that every code sees all codes before it and no other.

    The vertical stack v sees the rows down to its own. The horizontal stack h sees its own row to the left; of v it is
    given the row above. Nothing is masked: each convolution is padded on one side only. `first`: h leaves out its own
    place too, and has no way past, since its input is the code that is to be guessed.
    """

    def __init__(self, width: int, size: int, classes: int, first: bool):
        super().__init__()
        self.half, self.first = size // 2, first
        self.vertical = nn.Conv2d(width, 2 * width, (self.half + 1, size))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.half + 1))
        self.v_to_h, self.out = nn.Conv2d(2 * width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.of_class = nn.Embedding(classes, 4 * width)

    def forward(self, v: Tensor, h: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """v, h [batch, width, rows, columns], label [batch]: the two stacks, a layer on."""
        columns, half = h.shape[-1], self.half
        for_v, for_h = rearrange(self.of_class(label), "b (two c) -> two b c 1 1", two=2)
        seen = self.vertical(F.pad(v, (half, half, half, 0)))
        above = F.pad(seen, (0, 0, 1, 0))[:, :, :-1]
        left = self.horizontal(F.pad(h, (half + self.first, 0))[..., : columns + half])
        new = self.out(gate(left + self.v_to_h(above) + for_h))
        return gate(seen + for_v), new if self.first else h + new


def gate(x: Tensor) -> Tensor:
    """1606.05328, Eq. (2): x [batch, 2 width, ...] to tanh(first half) * sigmoid(second half)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class PixelCNN(nn.Module):
    """p(z | class): each code given the codes before it, row by row and from left to right."""

    def __init__(self, config: PriorConfig = PriorConfig()):
        super().__init__()
        c = self.config = config
        if c.size % 2 == 0:
            raise ValueError(f"size is {c.size}; it takes an odd number")
        self.embed = nn.Embedding(c.codes, c.width)
        self.layers = nn.ModuleList(GatedLayer(c.width, c.size, c.classes, first=k == 0) for k in range(c.depth))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(c.width, c.width, 1), nn.ReLU(), nn.Conv2d(c.width, c.codes, 1))

    def forward(self, indices: Tensor, label: Tensor) -> Tensor:
        """indices [batch, rows, columns], label [batch] to logits [batch, codes, rows, columns] of each code."""
        v = h = rearrange(self.embed(indices), "b h w c -> b c h w")
        for layer in self.layers:
            v, h = layer(v, h, label)
        return self.head(h)

    def bits(self, indices: Tensor, label: Tensor) -> Tensor:
        """-log2 p(z | class) for one code, in the mean: [], log2(K) for a prior that knows nothing."""
        return F.cross_entropy(self(indices, label).float(), indices) / torch.log(torch.tensor(2.0))

    @torch.no_grad()
    def sample(self, label: Tensor, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """Ancestral samples, one for each label [batch]: maps of `size` (rows, columns), a code at a time.

        They are drawn where the generator is, so that one on the CPU draws the same on any device.
        """
        source = label.device if generator is None else generator.device
        z = torch.zeros(len(label), *size, dtype=torch.int64, device=label.device)
        for row in range(size[0]):
            for column in range(size[1]):
                logits = self(z[:, : row + 1], label)[:, :, row, column].float()  # the rows below do not matter yet
                z[:, row, column] = torch.multinomial(logits.softmax(-1).to(source), 1, generator=generator)[:, 0]
        return z


# --------------------------------------------------------------------------------------------------------- checkpoints


def load(name: str = "vqvae") -> VQVAE | PixelCNN:
    """The shipped model "vqvae", "vqvae_films" or "vqvae_prior", verified, in float32. Raises CheckpointError."""

    def build(sizes: dict) -> VQVAE | PixelCNN:
        return PixelCNN(PriorConfig(**sizes)) if "depth" in sizes else VQVAE(VQVAEConfig(**sizes))

    return load_model(name, build, "VQ-VAE and no prior")[0]
