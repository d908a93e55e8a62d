"""Make-A-Video: what the world looks like is learnt from pictures with texts, how it moves from films without any.

Paper: Singer et al. 2022, "Make-A-Video: Text-to-Video Generation without Text-Video Data" (2209.14792). Section 3:

    y = SR_h . SR_l^t . F . D^t . P (x, C_x(x))                                                           (1)

From right to left: C_x is CLIP's text tower (chapter 04), the prior P makes an image embedding of a text's; the decoder
D^t makes a few frames that look like that embedding, F puts frames between them, two networks make them larger. Only P
reads texts, and P never sees a film. D^t is a decoder of pictures, made ready for films so that nothing changes at
first (section 3.2): with h [batch, channel, frames, height, width] and T the exchange of space and time,

    Conv_P3D(h) = Conv_1D(Conv_2D(h) . T) . T        Conv_1D starts as the identity                       (2)
    ATTN_P3D(h) = ATTN_1D(ATTN_2D(h) . T) . T        what ATTN_1D adds starts at zero                     (3)

Unlike Align your Latents (chapter 10), everything is trained after that. Ours: networks predict v where the paper's
predict eps, and where the map is smallest all places of all frames attend to one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.align_your_latents import given_frames
from soralab.blocks import Attention, SpatialTransformer, TimestepEmbedding, sincos, sincos_grid
from soralab.blocks.convolution import ResBlock
from soralab.diffusion import Cosine, ddim, diffusion_loss, guide, sample_times
from soralab.diffusion.process import noise_like
from soralab.files.counts import so_many
from soralab.latent_diffusion import PROCESS, UNet, check_scale, noise

# --------------------------------------------------------------------------------- pseudo-3-D layers, section 3.2


class PseudoConv(nn.Module):
    """Eq. (2): a picture's convolution, and after it one over three frames at each place, which begins as the identity.

    `frames` says how many of the batch are one film; whoever holds the layer sets it.
    """

    def __init__(self, space: nn.Conv2d):
        super().__init__()
        dim = space.out_channels
        self.frames, self.space, self.time = 1, space, nn.Conv2d(dim, dim, (3, 1), padding=(1, 0))
        nn.init.dirac_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [films * frames, dim_in, height, width] to what the picture's convolution gives, mixed over frames."""
        x = self.space(x)
        mixed = self.time(rearrange(x, "(b t) c h w -> b c t (h w)", t=self.frames))
        return rearrange(mixed, "b c t (h w) -> (b t) c h w", h=x.shape[2])


class PseudoAttention(nn.Module):
    """ATTN_1D of Eq. (3): each place attends to itself in all frames; what is added starts at zero."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        nn.init.zeros_(self.attention.to_out.weight)
        nn.init.zeros_(self.attention.to_out.bias)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x [films * frames, dim, height, width]; returns x's shape."""
        z = rearrange(x, "(b t) c h w -> (b h w) t c", t=frames)
        added = self.attention(self.norm(z) + sincos(torch.arange(frames, device=x.device), x.shape[1]).to(x))
        return x + rearrange(added, "(b h w) t c -> (b t) c h w", h=x.shape[2], w=x.shape[3])


class JointAttention(PseudoAttention):
    """In ATTN_1D's place where the map is smallest: all places of all frames attend to one another. Ours.

    What moves leaves its place from one frame to the next. Each token is told its row, column and frame.
    """

    AXIS, UNIT = 32, 8.0  # numbers for each of the three; a frame is UNIT long and wide

    def __init__(self, dim: int, heads: int):
        super().__init__(dim, heads)
        self.where = nn.Linear(3 * self.AXIS, dim)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x [films * frames, dim, height, width]; returns x's shape."""
        height, width = x.shape[2:]
        axes = [torch.arange(frames), *(self.UNIT * (torch.arange(n) + 0.5) / n for n in (height, width))]
        place = sincos_grid(torch.cartesian_prod(*(axis.to(x) for axis in axes)), (self.AXIS,) * 3).to(x)
        z = rearrange(x, "(b t) c h w -> b (t h w) c", t=frames)
        added = self.attention(self.norm(z) + self.where(place))
        return x + rearrange(added, "b (t h w) c -> (b t) c h w", t=frames, h=height)


def inflate(unet: UNet) -> UNet:
    """A copy of a U-Net in which Eq. (2) stands for each 3 x 3 convolution."""
    unet = deepcopy(unet)
    for row in [*unet.down, unet.middle, *unet.up]:
        for k, layer in enumerate(row):
            if isinstance(layer, ResBlock):
                layer.conv1, layer.conv2 = PseudoConv(layer.conv1), PseudoConv(layer.conv2)
            elif isinstance(layer, nn.Conv2d):  # the first, those that halve and those that double the sides
                row[k] = PseudoConv(layer)
    unet.head[-1] = PseudoConv(unet.head[-1])
    return unet


def attending(unet: UNet) -> list[SpatialTransformer]:
    """The layers of a U-Net in which places attend to one another, in order."""
    return [layer for layer in unet.modules() if isinstance(layer, SpatialTransformer)]


# ------------------------------------------------------------------------------------------- the decoder of films


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder has besides its U-Net."""

    embed: int = 64  # of CLIP
    tokens: int = 4  # that the image embedding becomes, for the U-Net to attend to (unCLIP, 2204.06125, section 2.1)
    heads: int = 4


class Decoder(nn.Module):
    """D of Eq. (1): latents that look like an image embedding. Its U-Net may be a painter's, which read words."""

    def __init__(self, unet: UNet, config: DecoderConfig = DecoderConfig()):
        super().__init__()
        self.config, self.unet = config, unet
        self.tokens = nn.Linear(config.embed, config.tokens * unet.config.context)

    def context(self, seen: Tensor) -> Tensor:
        """seen [batch, embed], unit vectors, 0 for nothing in particular: [batch, tokens, context]."""
        if seen.shape[-1] != self.config.embed:
            raise ValueError(f"seen is {list(seen.shape)}; it takes [batch, {self.config.embed}]")
        # A unit vector of n numbers has numbers of about 1 / sqrt(n); layers expect about 1.
        return rearrange(self.tokens(seen * self.config.embed**0.5), "b (n c) -> b n c", n=self.config.tokens)

    def forward(self, z: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        """v of z [batch, c, height, width] at times t [batch], of a picture that looks like seen."""
        return self.unet(z, t, self.context(seen))


class FilmDecoder(nn.Module):
    """D^t: a decoder made ready for films, which at first makes of each frame what the decoder made.

    With `known` it is F of Eq. (1): frames that are given, and where, come in beside the noisy ones, by weights that
    start at zero; it fills in what lies between, before or after them (section 3.3).
    """

    def __init__(self, decoder: Decoder):
        super().__init__()
        unet, width = decoder.unet, 4 * decoder.unet.config.width
        self.picture = Decoder(inflate(unet), decoder.config)
        self.picture.tokens = deepcopy(decoder.tokens)
        dims = [layer.norm.num_channels for layer in attending(unet)]
        kinds = [JointAttention if dim == max(dims) else PseudoAttention for dim in dims]
        self.over_time = nn.ModuleList(kind(dim, decoder.config.heads) for kind, dim in zip(kinds, dims, strict=True))
        self.rate = TimestepEmbedding(width, frequencies=unet.config.width)
        self.known = nn.Conv2d(unet.config.out + 1, unet.config.width, 3, padding=1)
        for last in (self.rate.mlp[2], self.known):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, z: Tensor, t: Tensor, seen: Tensor, rate: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Predict v of z [batch, frames, c, height, width] at diffusion times t [batch].

        seen [batch, embed]: what all frames look like. rate [batch]: frames in a unit of the world's time, or None.
        known [batch, frames, c + 1, height, width]: chapter 10's c_S, or None; frames that are given stand in z's place
        without noise, at time 0. Raises ValueError for what does not fit.
        """
        if z.ndim != 5:
            raise ValueError(f"z is {list(z.shape)}; it takes [batch, frames, channels, height, width]")
        frames, unet = z.shape[1], self.picture.unet
        if rate is not None and not (rate > 0).all():
            raise ValueError(f"rate reaches {float(rate.min())}; it takes numbers above 0")
        want = (*z.shape[:2], z.shape[2] + 1, *z.shape[3:])
        if known is not None and known.shape != want:
            raise ValueError(f"known is {list(known.shape)}; with z {list(z.shape)} it takes {list(want)}")
        for module in unet.modules():
            if isinstance(module, PseudoConv):
                module.frames = frames
        first = unet.down[0][0]
        layers = dict(zip(attending(unet), self.over_time, strict=True))

        def after(layer: nn.Module, x: Tensor) -> Tensor:
            if layer is first and known is not None:
                return x + self.known(known.flatten(0, 1))
            return layers[layer](x, frames) if layer in layers else x

        times = t[:, None].expand(-1, frames)
        if known is not None:
            given = known[:, :, -1, 0, 0] > 0
            z, times = torch.where(given[:, :, None, None, None], known[:, :, :-1], z), times * ~given
        told = None if rate is None else self.rate(rate.log() / 10).repeat_interleave(frames, 0)
        context = self.picture.context(seen).repeat_interleave(frames, 0)
        out = unet(z.flatten(0, 1), times.flatten(), context, after=after, told=told)
        return out.unflatten(0, z.shape[:2])


def film_loss(
    model: FilmDecoder, z: Tensor, seen: Tensor, rate: Tensor, generator: torch.Generator, given: Tensor | None = None,
    t: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Squared error of v for each film of latents z [batch, frames, c, height, width], without a word: [batch].

    seen [batch, embed]: CLIP's embedding of one of its frames. given [batch, frames]: which frames are told, for F; the
    error is that of the others. t [batch]: times of the noise, drawn evenly if None.
    """
    t = sample_times(len(z), generator, device=z.device) if t is None else t
    eps = noise_like(z, generator)
    known = None if given is None else given_frames(z, given)
    v = model(PROCESS.add_noise(z, eps, t), t, seen, rate, known)
    error = (v - PROCESS.target(z, eps, t, "v")).square().flatten(2).mean(2)
    asked = torch.ones_like(error) if given is None else (~given).to(error)
    return (error * asked).sum(1) / asked.sum(1)


# --------------------------------------------------------------------------------------------------- the prior, P


class Prior(nn.Module):
    """P of Eq. (1): an image embedding from a text's, by diffusion on vectors (unCLIP, section 2.2): it predicts x_0.

    For one text there are many pictures. A network that answered with one embedding would give their mean.
    """

    PROCESS = Cosine()

    def __init__(self, embed: int = 64, width: int = 256, layers: int = 3):
        super().__init__()
        self.embed, self.time = embed, TimestepEmbedding(width)
        self.enter = nn.Linear(2 * embed, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(layers)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embed))

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """x_0 from x [batch, embed] at times t [batch], for text [batch, embed], unit vectors: [batch, embed]."""
        h = self.enter(torch.cat([x, text * self.embed**0.5], dim=1)) + self.time(t)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)

    def loss(self, image: Tensor, text: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error of x_0 for pairs of unit vectors [batch, embed]: [batch]."""
        x0 = image * self.embed**0.5
        return diffusion_loss(self.PROCESS, self, x0, "x", generator=generator, condition={"text": text})

    @torch.no_grad()
    def sample(self, text: Tensor, generator: torch.Generator, steps: int = 20) -> Tensor:
        """Image embeddings for text [batch, embed]: unit vectors of that shape."""
        x = torch.randn(text.shape, generator=generator).to(text)
        x = ddim(self.PROCESS.denoiser(partial(self, text=text), "x"), x, self.PROCESS, steps)
        return F.normalize(x, dim=-1)


# ------------------------------------------------------------------------------------------------------- sampling


@dataclass
class Filmmaker:
    """D^t and F. decode: latents [batch, frames, c, height, width] to films."""

    model: FilmDecoder
    decode: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def latents(
        self, seen: Tensor, noise: Tensor, rate: float | None = None, z: Tensor | None = None,
        given: Tensor | None = None, steps: int = 50, guidance: float = 3.0,
    ) -> Tensor:  # fmt: skip
        """From noise [batch, frames, c, height, width] to latents that look like seen [batch, embed], by DDIM.

        given [batch, frames]: which frames of z are known; they come back as they are. rate: as in `FilmDecoder`.
        guidance is away from nothing in particular.
        """
        rates = None if rate is None else torch.full((len(noise),), float(rate), device=noise.device)
        known = None if given is None else given_frames(z, given)
        condition = {"seen": seen, "rate": rates, "known": known}
        network = guide(self.model, condition, {**condition, "seen": seen * 0}, check_scale(guidance))
        filmed = ddim(PROCESS.denoiser(network, "v"), noise, PROCESS, steps)
        return filmed if given is None else torch.where(given[:, :, None, None, None], z, filmed)

    def between(self, z: Tensor, seen: Tensor, skip: int = 5, seed: int = 0, **options) -> Tensor:
        """F: latents z [batch, n, c, height, width] and skip - 1 frames between each two: (n - 1) * skip + 1 frames.

        With the paper's 16 frames and a skip of 5 there are 76. rate, if given, is that of all of them.
        """
        if z.shape[1] < 2 or skip < 2:
            raise ValueError(f"z, skip: got {so_many(z.shape[1], 'frame')} and {skip}; takes two frames or more, "
                             "and 2 or more")  # fmt: skip
        frames = (z.shape[1] - 1) * skip + 1
        whole = z.repeat_interleave(skip, 1)[:, :frames]
        given = (torch.arange(frames, device=z.device) % skip == 0).expand(len(z), -1)
        start = noise(seed, len(z), tuple(whole.shape[1:])).to(z)
        return self.latents(seen, start, z=whole, given=given, **options)

    def go_on(self, z: Tensor, seen: Tensor, frames: int, seed: int = 0, **options) -> Tensor:
        """F: latents z [batch, n, c, height, width] and what comes after them, `frames` in all (extrapolation)."""
        if not 0 < z.shape[1] < frames:
            raise ValueError(f"z, frames: got {z.shape[1]} and {frames}; takes one or more, and more in all")
        whole = F.pad(z, (0, 0, 0, 0, 0, 0, 0, frames - z.shape[1]))
        given = (torch.arange(frames, device=z.device) < z.shape[1]).expand(len(z), -1)
        start = noise(seed, len(z), tuple(whole.shape[1:])).to(z)
        return self.latents(seen, start, z=whole, given=given, **options)


def same_noise(seed: int, count: int, frames: int, shape: Sequence[int]) -> Tensor:
    """Noise for SR_h: [count, frames, *shape], one draw a film, the same for all its frames.

    That network sees each frame alone; with noise of its own every frame would get details of its own, and flicker.
    """
    return noise(seed, count, tuple(shape))[:, None].expand(-1, frames, *[-1] * len(shape))


@torch.no_grad()
def enlarge(network: UNet, small: Tensor, start: Tensor, steps: int = 20) -> Tensor:
    """SR_h: each frame of small [batch, frames, c, h, w] at the size of start [batch, frames, c, height, width].

    network: a U-Net that takes the noisy frame and, laid over it, the small one at its size. start: the noise.
    """
    if start.shape[:3] != small.shape[:3]:
        raise ValueError(f"start is {list(start.shape)}, small {list(small.shape)}; it takes others in its sides alone")
    over = F.interpolate(small.flatten(0, 1), start.shape[3:], mode="bilinear")
    denoise = PROCESS.denoiser(partial(network, concat=over), "v")
    return ddim(denoise, start.flatten(0, 1), PROCESS, steps).unflatten(0, small.shape[:2])
