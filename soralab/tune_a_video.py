"""Tune-A-Video: a model of pictures learns one film, and then films that again with other words.

Paper: Wu et al. 2022, "Tune-A-Video: One-Shot Tuning of Image Diffusion Models for Text-to-Video Generation"
(2212.11565). Section 3.2: frames are pictures in a batch, and self-attention becomes sparse and causal, the queries of
frame i meeting the keys and values of the first frame and of the one before,

    Q = W^Q z_i,    K = W^K [z_1, z_{i-1}],    V = W^V [z_1, z_{i-1}]

and behind it comes attention over time whose output starts at zero. Section 3.3: only W^Q of the two attentions and the
attention over time are trained, on one film and its prompt. Then the film is walked back to noise (DDIM inversion), and
from that noise the model films a changed prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import Attention, SpatialTransformer
from soralab.blocks.attention import attention
from soralab.diffusion import ddim, diffusion_loss, guide, invert, sample_times
from soralab.latent_diffusion import PROCESS, LatentDiffusion, Painter, word_ids
from soralab.world.reader import read_caption

# --------------------------------------------------------------------------------------- the network, section 3.2


def sparse_causal(x: Tensor) -> Tensor:
    """The tokens that a frame meets, those of the first frame and of the one before: x [batch, frames, heads, n, d] to
    [batch, frames, heads, 2n, d]. The first frame meets itself twice."""
    before = torch.cat([x[:, :1], x[:, :-1]], dim=1)
    return torch.cat([x[:, :1].expand_as(x), before], dim=3)


def all_frames(x: Tensor) -> Tensor:
    """The tokens of every frame: x [batch, frames, heads, n, d] to [batch, frames, heads, frames * n, d]."""
    whole = rearrange(x, "b t h n d -> b 1 h (t n) d")
    return whole.expand(-1, x.shape[1], -1, -1, -1)


SEES = {"sparse-causal": sparse_causal, "all": all_frames, "own": lambda x: x}


@dataclass(frozen=True)
class AcrossFrames:
    """Self-attention whose keys and values are of other frames too, for `attend` of soralab.blocks.Attention."""

    frames: int
    sees: Callable[[Tensor], Tensor] = sparse_causal

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v [batch * frames, heads, n, d]; returns q's shape."""
        k, v = (self.sees(x.unflatten(0, (-1, self.frames))).flatten(0, 1) for x in (k, v))
        return attention(q, k, v)


class TunedTransformer(SpatialTransformer):
    """A block of chapter 06's U-Net, which sees other frames, and each place itself at other times.

    It takes over the modules of `base`. What is new is `norm4` and `over_time`, whose output starts at zero.
    """

    def __init__(self, base: SpatialTransformer, frames: int, sees: str = "sparse-causal"):
        nn.Module.__init__(self)
        for name, module in base.named_children():
            self.add_module(name, module)
        dim = base.proj_in.out_channels
        self.frames, self.attend = frames, AcrossFrames(frames, SEES[sees])
        self.norm4, self.over_time = nn.LayerNorm(dim), Attention(dim, base.among.heads, bias=False)
        nn.init.zeros_(self.over_time.to_out.weight)
        nn.init.zeros_(self.over_time.to_out.bias)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [films * frames, dim, height, width], context and mask as in SpatialTransformer; returns x's shape."""
        z = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        z = z + self.among(self.norm1(z), attend=self.attend)
        z = z + self.across(self.norm2(z), context, None if mask is None else mask[:, None, None])
        z = z + self.mlp(self.norm3(z))
        z = rearrange(z, "(b t) n c -> (b n) t c", t=self.frames)
        z = z + self.over_time(self.norm4(z))
        z = rearrange(z, "(b n) t c -> (b t) c n", n=x.shape[2] * x.shape[3])
        return x + self.proj_out(z.unflatten(2, x.shape[2:]))


TRAINED = ("among.to_q", "across.to_q", "over_time")  # as the official code: the norm before the last is not


def inflate(painter: LatentDiffusion, frames: int, sees: str = "sparse-causal") -> LatentDiffusion:
    """A copy of a painter for films of so many frames, which lie in the batch; only what TRAINED names is trainable.

    Raises ValueError for a film of one frame, and for a painter without attention to a prompt.
    """
    if frames < 2:
        raise ValueError(f"frames is {frames}; it takes a film of 2 frames or more")
    if sees not in SEES:
        raise ValueError(f"sees is {sees!r}; it takes one of {', '.join(SEES)}")
    model = deepcopy(painter).requires_grad_(False)
    rows = [row for row in model.unet.modules() if isinstance(row, nn.ModuleList)]
    found = [(row, k) for row in rows for k, layer in enumerate(row) if isinstance(layer, SpatialTransformer)]
    if not found:
        raise ValueError("painter has no attention to a prompt; it takes one that reads prompts")
    for row, k in found:
        row[k] = TunedTransformer(row[k], frames, sees).to(next(painter.parameters()))
        for name, value in row[k].named_parameters():
            value.requires_grad_(name.startswith(TRAINED))
    return model


# -------------------------------------------------------------------------------- tuning and editing, section 3.3


def tuning_loss(model: LatentDiffusion, z: Tensor, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Squared error of the noise in one film z [frames, c, height, width] whose prompt is ids [1, words]: a scalar.

    All frames have the same time of the noise, and each its own noise.
    """
    t = sample_times(1, generator, device=z.device).expand(len(z))
    ids = ids.expand(len(z), -1)
    return diffusion_loss(PROCESS, model, z, "eps", t=t, generator=generator, condition={"ids": ids}).mean()


@dataclass
class Editor:
    """A film's latents, its prompt, and a model that is tuned on them (or none: an inflated painter)."""

    model: LatentDiffusion
    z: Tensor  # [frames, c, height, width]
    prompt: str
    steps: int = 50
    back: float = 1.0  # the time to which the film is walked back: 1, as in the paper, is noise alone

    def __post_init__(self) -> None:
        if not 0 < self.back <= 1:
            raise ValueError(f"back is {self.back}; it takes a number above 0, up to 1")
        if not names_a_thing(self.prompt):
            raise ValueError(f"prompt is {self.prompt!r}; it takes one that names a thing of the film")

    def network(self, text: str, guidance: float):
        """eps for a prompt ("" is none), the film's frames lying in the batch."""
        ids = word_ids([text], self.model.config.words).to(self.z.device).expand(len(self.z), -1)
        return guide(self.model, {"ids": ids}, {"ids": torch.zeros_like(ids)}, guidance)

    @torch.no_grad()
    def inverted(self, text: str | None = None, guidance: float = 1.0) -> Tensor:
        """The noisy film at time `back` from which the model films z: [frames, c, height, width].

        text: the prompt under which the film is walked back; None: the film's own; "": none, as in the paper and the
        official code.
        """
        network = self.network(self.prompt if text is None else text, guidance)
        return invert(PROCESS.denoiser(network, "eps"), self.z, PROCESS, self.steps, t_start=self.back)

    @torch.no_grad()
    def edit(self, prompt: str, noise: Tensor | None = None, guidance: float = 3.0) -> Tensor:
        """Latents of the film with another prompt, from the inverted film or from `noise` at time `back`, of its shape.

        Raises ValueError for a prompt that names no thing, and for noise of another shape.
        """
        if not names_a_thing(prompt):
            raise ValueError(f"prompt is {prompt!r}; it takes one that names a thing, as {self.prompt!r} does")
        noise = self.inverted() if noise is None else noise
        if noise.shape != self.z.shape:
            raise ValueError(f"noise is {list(noise.shape)}; it takes the film's, {list(self.z.shape)}")
        denoise = PROCESS.denoiser(self.network(prompt, guidance), "eps")
        return ddim(denoise, noise, PROCESS, self.steps, t_start=self.back)


def names_a_thing(text: str) -> bool:
    """Whether a prompt says of what shape something in the film is."""
    return any(thing["shape"] for thing in read_caption(text))


def latents_of(painter: Painter, film: Tensor) -> Tensor:
    """A film [frames, 3, height, width] in [-1, 1] as latents. Raises ValueError for one that is too short."""
    if film.ndim != 4 or len(film) < 2:
        raise ValueError(f"film is {list(film.shape)}; it takes [frames, 3, height, width], of 2 frames or more")
    with torch.no_grad():
        return painter.autoencoder.encode(film) if painter.autoencoder else film
