"""Align your Latents: a model of pictures learns to film, and not one of its weights is touched.

Paper: Blattmann et al. 2023, "Align your Latents: High-Resolution Video Synthesis with Latent Diffusion Models"
(VideoLDM, 2304.08818). Section 3.1 lays layers that see all frames behind the picture model's layers, which see each
frame alone; 3.1.1 does the same to the decoder; 3.2 gives the model frames to go on from; 3.3 frames to fill between.
With z the values behind spatial layer i, for frames that lie in the batch, and l_phi the new layer,

    z' = l_phi^i(z, c),      z  <-  alpha_phi^i z + (1 - alpha_phi^i) z',      alpha_phi^i in [0, 1] learned
    c_S = (m_S o z, m_S),    f'(z_t; c_S) = f(z_t) + s (f(z_t; c_S) - f(z_t))                     (context guidance)

and only phi is trained. At alpha = 1 the model is the picture model, bit for bit; and as every new layer adds what
starts at zero, it is so before the first step of training too, whatever frames are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks.convolution import ResBlock
from soralab.blocks.first_stage import Autoencoder, draw, misfit
from soralab.blocks.perception import adaptive_weight, frozen, hinge_loss
from soralab.blocks.temporal import Hint, TemporalConv, TemporalTransformer
from soralab.clip import PromptEncoder
from soralab.diffusion import ddim, diffusion_loss, guide
from soralab.files.counts import so_many
from soralab.latent_diffusion import PROCESS, LatentDiffusion, UNet, check_scale, noise, word_ids

# ------------------------------------------------------------------------------------ layers over time, section 3.1


class Beside(nn.Module):
    """A temporal layer, its alpha, and how it is told the frames that are given (3.2: a learned downsampling).

    alpha is a sigmoid, as in the authors' later code, so that it stays in [0, 1] and its gradient is never cut.
    """

    def __init__(self, layer: nn.Module, channels: int = 0, dim: int = 0, stride: int = 1):
        super().__init__()
        self.layer, self.a = layer, nn.Parameter(torch.zeros(()))
        self.known = nn.Conv2d(channels, dim, stride + 2, stride, padding=1, bias=False) if channels else None
        if self.known is not None:
            nn.init.zeros_(self.known.weight)

    @property
    def alpha(self) -> Tensor:
        """The share of the picture model's own values: a scalar."""
        return self.a.sigmoid()

    def forward(
        self, z: Tensor, frames: int, *told: Tensor, known: Tensor | None = None, hint: Tensor | None = None
    ) -> Tensor:
        """z [batch * frames, dim, height, width] to the same; known [batch * frames, channels, ...] = c_S, or None.

        told: what the layer is told besides; hint, of z's shape: what is added to what it gets.
        """
        x = z if known is None else z + self.known(known)
        x = x if hint is None else x + hint
        x = self.layer(rearrange(x, "(b t) c h w -> b c t (h w)", t=frames), *told)
        return torch.lerp(rearrange(x, "b c t (h w) -> (b t) c h w", h=z.shape[2]), z, self.alpha)


@dataclass(frozen=True)
class VideoConfig:
    """Sizes of what is added to a painter."""

    heads: int = 4
    vocabulary: int = 256
    context: int = 64  # width of the prompt's words, for the temporal layers
    words: int = 48  # of a film's prompt, at most
    depth: int = 2  # layers of its encoder


class TemporalLayers(nn.Module):
    """phi: everything that is trained. One layer behind each of a U-Net's, and an encoder of the film's prompt.

    The painter's encoder is frozen, and has never met a verb; so the new layers read the prompt by one of their own.
    """

    def __init__(self, unet: UNet, config: VideoConfig = VideoConfig()):
        super().__init__()
        self.config, groups, time = config, unet.config.groups, 4 * unet.config.width
        self.text = PromptEncoder(config.vocabulary, config.context, config.words, config.depth)
        # As CLIP draws them, words are so small that "left" and "right" of one thing soon read as the same.
        nn.init.normal_(self.text.token_embedding.weight)
        self.beside, self.hints = nn.ModuleDict(), nn.ModuleDict()
        for name, layer, dim, level in unet.layers():
            new = (TemporalConv(dim, time, groups) if isinstance(layer, ResBlock)
                   else TemporalTransformer(dim, config.heads, config.context))  # fmt: skip
            self.beside[name] = Beside(new, unet.config.out + 1, dim, 2**level)
            if isinstance(new, TemporalTransformer):
                self.hints[name] = Hint(dim, config.context)

    def read(self, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """words [batch, n] as vectors [batch, n + 1, context], which are there, and their mean [batch, context].

        The end's own vector, which CLIP takes for the whole, takes long to tell one prompt from another.
        """
        film, mask, _ = self.text(words)
        return film, mask, (film * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def alphas(self) -> dict[str, float]:
        """alpha of each layer, by its name."""
        return {name: float(layer.alpha.detach()) for name, layer in self.beside.items()}


class VideoLDM(nn.Module):
    """A painter that films: eps_{theta, phi}. theta is the painter's and stays as it is; `phi` is trained.

    phi is made for a U-Net's sizes, not for its weights: it can be laid behind another painter of the same sizes.
    """

    def __init__(self, painter: LatentDiffusion, phi: TemporalLayers):
        super().__init__()
        names = [name for name, *_ in painter.unet.layers()]
        if names != list(phi.beside):
            raise ValueError(f"phi has layers for {list(phi.beside)}; this painter takes {names}")
        self.painter, self.phi = painter.requires_grad_(False), phi

    def forward(
        self, z: Tensor, t: Tensor, ids: Tensor, words: Tensor, known: Tensor | None = None,
        moments: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict the noise in z [batch, frames, c, height, width] at diffusion times t [batch].

        ids [batch, n]: what the painter is to draw; words [batch, m]: what the film is of; 0 for padding, all 0 for no
        prompt. known: c_S [batch, frames, c + 1, height, width] (`given_frames`), or None. moments [frames] or [batch,
        frames]: when each frame is, by default 0, 1, 2, ... Returns the shape of z. Raises ValueError for what does not
        fit.
        """
        if z.ndim != 5:
            raise ValueError(f"z is {list(z.shape)}; it takes [batch, frames, channels, height, width]")
        frames = z.shape[1]
        moments = torch.arange(frames, device=z.device) if moments is None else moments
        want = [*z.shape[:2], z.shape[2] + 1, *z.shape[3:]]
        fit = list(moments.shape) in ([frames], [len(z), frames])
        if not fit or (known is not None and list(known.shape) != want):
            got = f"{list(moments.shape)} and {None if known is None else list(known.shape)}"
            raise ValueError(f"moments, known: got {got}; with z {list(z.shape)} it takes [{frames}] and {want}")
        keys, mask, _ = (x.repeat_interleave(frames, 0) for x in self.painter.text(ids))
        film, film_mask, whole = self.phi.read(words)
        time = self.painter.unet.time(t)
        seen = None if known is None else known.flatten(0, 1)
        names = {layer: name for name, layer, *_ in self.painter.unet.layers()}

        def after(layer: nn.Module, x: Tensor) -> Tensor:
            if layer not in names:
                return x
            beside = self.phi.beside[names[layer]]
            if isinstance(layer, ResBlock):
                return beside(x, frames, time, known=seen)
            hint = self.phi.hints[names[layer]](whole, moments, x.shape[2:])
            return beside(x, frames, moments, film, film_mask, known=seen, hint=hint)

        out = self.painter.unet(z.flatten(0, 1), t.repeat_interleave(frames, 0), keys, mask, after=after)
        return out.unflatten(0, z.shape[:2])


# ------------------------------------------------------------------- frames that are given, sections 3.2 and 3.3


def given_frames(z: Tensor, given: Tensor) -> Tensor:
    """c_S = (m_S o z, m_S): z [batch, frames, c, height, width], given [batch, frames] bool to [batch, frames, c + 1,
    height, width].

    Raises ValueError for a mask of another shape, and for one that leaves nothing to film.
    """
    if given.shape != z.shape[:2]:
        raise ValueError(f"given is {list(given.shape)}; with z {list(z.shape)} it takes {list(z.shape[:2])}")
    if given.all(1).any():
        raise ValueError("given covers every frame of a film; it takes at least one that is not given")
    m = given[:, :, None, None, None]
    return torch.cat([torch.where(m, z, 0), m.to(z.dtype).expand_as(z[:, :, :1])], dim=2)


def video_loss(
    model: VideoLDM, z: Tensor, ids: Tensor, words: Tensor, given: Tensor, generator: torch.Generator,
    moments: Tensor | None = None, t: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Squared error for each film of latents z [batch, frames, c, height, width]: [batch].

    Measured in v, though eps is predicted: where things go is settled while there is almost nothing but noise, and
    there an error in eps would count next to nothing. Below a share of a tenth of film, it counts no more than there.
    given [batch, frames]: the frames that the model is told (no frame, and it films from noise alone). moments: as in
    `VideoLDM`. t [batch]: times of the noise, drawn evenly if None.
    """
    condition = {"ids": ids, "words": words, "known": given_frames(z, given), "moments": moments}
    return diffusion_loss(
        PROCESS, model, z, "eps", space="v", t=t, floor=0.1, generator=generator, condition=condition
    )  # fmt: skip


@dataclass
class Animator:
    """Everything between a prompt and a film. decode: latents [batch, frames, c, height, width] to films.

    still: what the painter is to draw of a film's prompt, which may hold words that it never met.
    """

    model: VideoLDM
    decode: Callable[[Tensor], Tensor]
    still: Callable[[str], str] = str

    @torch.no_grad()
    def latents(
        self, prompts: Sequence[str], noise: Tensor, z: Tensor | None = None, given: Tensor | None = None,
        moments: Tensor | None = None, steps: int = 50, guidance: float = 3.0, context_guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """From noise [prompts, frames, c, height, width] to latents, by DDIM.

        given [prompts, frames]: which frames of z are known; they come back as they are. guidance: away from no
        prompt; context_guidance: s of section 3.2, away from no given frames. moments: as in `VideoLDM`.
        """
        c, film_words = self.model.painter.config, self.model.phi.config.words
        words = word_ids(prompts, film_words).to(noise.device)
        ids = word_ids([self.still(text) for text in prompts], c.words).to(noise.device)
        model = partial(self.model, moments=moments)

        def network(x: Tensor, t: Tensor, known: Tensor | None) -> Tensor:
            prompt = {"ids": ids, "words": words, "known": known}
            return guide(model, prompt, {**prompt, "ids": ids * 0, "words": words * 0}, check_scale(guidance))(x, t)

        if given is None:
            return ddim(PROCESS.denoiser(partial(network, known=None), "eps"), noise, PROCESS, steps)
        known = given_frames(z, given)
        told = guide(network, {"known": known}, {"known": known * 0}, check_scale(context_guidance))
        filmed = ddim(PROCESS.denoiser(told, "eps"), noise, PROCESS, steps)
        return torch.where(given[:, :, None, None, None], z, filmed)

    @torch.no_grad()
    def film(self, prompts: Sequence[str], seed: int = 0, size: Sequence[int] = (9, 4, 8, 8), **options) -> Tensor:
        """Film each prompt: [prompts, frames, 3, height, width] in [-1, 1]; film k starts from the noise of seed + k.

        size: (frames, c, height, width) of the latents. options: of `latents`.
        """
        word_ids(prompts, self.model.phi.config.words)  # raises ValueError, before noise is drawn for none
        return self.decode(self.latents(prompts, self.noise(seed, len(prompts), size), **options)).clamp(-1, 1)

    def go_on(self, z: Tensor, prompts: Sequence[str], frames: int, seed: int = 0, **options) -> Tensor:
        """Latents z [batch, one or two, c, height, width] and what comes after them: `frames` in all (section 3.2).

        Raises ValueError for more or fewer than one or two frames.
        """
        if z.shape[1] not in (1, 2) or frames <= z.shape[1]:
            raise ValueError(f"z, frames: got {z.shape[1]} and {frames}; takes 1 or 2 to go on from, and more in all")
        whole = F.pad(z, (0, 0, 0, 0, 0, 0, 0, frames - z.shape[1]))
        given = (torch.arange(frames, device=z.device) < z.shape[1]).expand(len(z), -1)
        return self.latents(prompts, self.noise(seed, len(z), whole.shape[1:]), whole, given, **options)

    def between(self, z: Tensor, prompts: Sequence[str], seed: int = 0, window: int = 4, **options) -> Tensor:
        """Latents z [batch, n, c, height, width] with a new frame between each two: 2n - 1 frames (section 3.3).

        Filmed in windows of `window` new frames, of which each begins with the frame that the last one ends with: a
        film of any length is films as long as those of the training. Raises ValueError for fewer than two frames.
        """
        if z.shape[1] < 2:
            raise ValueError(f"z has {so_many(z.shape[1], 'frame')}; it takes at least 2 to film between")
        parts = [z[:, :1]]
        for start in range(0, z.shape[1] - 1, window):
            whole = z[:, start : start + window + 1].repeat_interleave(2, 1)[:, :-1]
            place = torch.arange(whole.shape[1], device=z.device)
            noise = self.noise(seed + start * len(z), len(z), whole.shape[1:])
            given = (place % 2 == 0).expand(len(z), -1)
            parts.append(self.latents(prompts, noise, whole, given, start + place / 2, **options)[:, 1:])
        return torch.cat(parts, dim=1)

    def noise(self, seed: int, count: int, size: Sequence[int]) -> Tensor:
        """Noise of seed, seed + 1, ...: [count, *size], drawn on the CPU, where the model is."""
        return noise(seed, count, tuple(size)).to(next(self.model.parameters()).device)


# ------------------------------------------------------------------------------- the decoder in time, section 3.1.1


class TemporalDecoder(nn.Module):
    """The first stage's decoder with a layer over time behind each of its residual blocks: only these are trained.

    The encoder stays, so that latents are what they were: what flickers is the decoder's doing, and it is mended there.
    """

    def __init__(self, autoencoder: Autoencoder):
        super().__init__()
        self.autoencoder, groups = autoencoder.requires_grad_(False), autoencoder.config.groups
        self.beside = nn.ModuleDict({
            str(k): Beside(TemporalConv(layer.conv2.out_channels, None, groups))
            for k, layer in enumerate(autoencoder.decoder) if isinstance(layer, ResBlock)
        })  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """Latents [batch, frames, c, height, width], as `Autoencoder.encode` gives them, to films in about [-1, 1]."""
        x, quantiser = z.flatten(0, 1) / self.autoencoder.scale, self.autoencoder.quantiser
        x = x if quantiser is None else quantiser(x)[0]
        for k, layer in enumerate(self.autoencoder.decoder):
            x = layer(x)
            if str(k) in self.beside:
                x = self.beside[str(k)](x, z.shape[1])
        return x.unflatten(0, z.shape[:2])


def decoder_loss(
    decoder: TemporalDecoder, discriminator: nn.Module, film: Tensor, generator: torch.Generator,
    adversary: bool = True, strength: float = 0.5, jitter: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """What the temporal decoder and its discriminator minimise, each by its own weights: chapter 06's, on films.

    film [batch, frames, 3, height, width]. Its latents are drawn, frame by frame, from q(z | x), as chapter 06 draws
    them; jitter: the deviation of noise that is added to them, for a decoder that is to bear a model's own latents.
    Returns (loss, {"misfit", "lambda"}).
    """
    with torch.no_grad():
        z = decoder.autoencoder.encode(film.flatten(0, 1), generator).unflatten(0, film.shape[:2])
        z = z + jitter * draw(torch.zeros_like(z), torch.zeros_like(z), generator)
    copy = decoder(z)
    missed, weight = misfit(film - copy), film.new_zeros(())
    loss = missed
    if adversary:
        cheated = -frozen(discriminator)(copy).mean()
        last = next(reversed(decoder.beside.values())).layer.conv2.weight
        weight = adaptive_weight(missed, cheated, last)
        loss = loss + strength * weight * cheated + hinge_loss(discriminator(film), discriminator(copy.detach()))
    return loss, {"misfit": missed.item(), "lambda": weight.item()}
