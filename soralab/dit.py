"""DiT: a vision transformer in the U-Net's place, and four ways of telling it the time and the class.

Paper: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (2212.09748). Section 3.2 and figure 3 are the
model, table 1 the sizes. With the embeddings of a time t and of a label y, patches of the noisy latents go through

    W patchify(x_t) + positions  -->  blocks, told t and y  -->  norm, linear, unpatchify  -->  noise and variance

The learned variance, its loss and its sampling step are those of Nichol & Dhariwal 2021 (2102.09672). Chapter 16's
transformer of films is these blocks again, and takes its sizes from here; what differs is in `soralab.sora`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import TimestepEmbedding, grid_positions, patchify, sincos, sincos_grid, unpatchify
from soralab.blocks.dit import Block, initialise, read_out
from soralab.diffusion import LinearBeta, Process, time_grid
from soralab.diffusion.process import Network, expand, noise_like
from soralab.files.published import Layout, fill, under

SIZES = {  # table 1; XL is the paper's own, the others are ViT's
    "S": {"dim": 384, "depth": 12, "heads": 6},
    "B": {"dim": 768, "depth": 12, "heads": 12},
    "L": {"dim": 1024, "depth": 24, "heads": 16},
    "XL": {"dim": 1152, "depth": 28, "heads": 16},
}
CONDITIONINGS = ("in-context", "cross-attention", "adaLN", "adaLN-Zero")
PROCESS = LinearBeta()  # 1000 steps, betas from 0.0001 to 0.02


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT; the defaults are DiT-S/2 on the latents of 256 x 256 pixels."""

    channels: int = 4  # of a latent
    patch: tuple[int, int, int] = (1, 2, 2)  # (time, height, width)
    dim: int = 384
    depth: int = 12
    heads: int = 6
    size: tuple[int, int, int] = (1, 32, 32)  # (time, height, width) of the latents; a picture has one moment
    classes: int = 1000
    dropout: float = 0.1  # share of labels left out in training, for guidance
    conditioning: str = "adaLN-Zero"
    learned_variance: bool = True

    def __post_init__(self) -> None:
        if self.conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning is {self.conditioning!r}; it takes one of {', '.join(CONDITIONINGS)}")
        if any(side % p for side, p in zip(self.size, self.patch, strict=True)):
            raise ValueError(f"size is {self.size}; it takes multiples of the patch's sides, {self.patch}")

    @classmethod
    def published(cls, name: str = "XL/2", **changes) -> DiTConfig:
        """One of the paper's twelve: "S", "B", "L" or "XL", a stroke, and the side of a patch. `changes` are fields."""
        size, _, side = name.partition("/")
        if size not in SIZES or not side.isdecimal() or not int(side):
            raise ValueError(f"name is {name!r}; it takes {', '.join(SIZES)} and a patch's side, as in XL/2")
        return cls(**{**SIZES[size], "patch": (1, int(side), int(side)), **changes})


# ---------------------------------------------------------------------------- four ways to tell a block (figure 3)


class Constant(nn.Module):
    """Modulations that listen to nobody: the biases and the weights (beside 1) of plain layer norms."""

    def __init__(self, values: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(values))

    def forward(self, c: Tensor) -> Tensor:
        """The same [batch, values] whatever c [batch, dim] is."""
        return self.vectors.repeat(len(c), 1)


class OpenGates(nn.Module):
    """(shift, scale) of two norms with gates of one: what a block without gates is modulated by."""

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors [batch, 4 dim] to [batch, 6 dim]: shift, scale and gate of each half."""
        shift1, scale1, shift2, scale2 = vectors.chunk(4, dim=-1)
        one = torch.ones_like(shift1)
        return torch.cat([shift1, scale1, one, shift2, scale2, one], dim=-1)


def told_block(config: DiTConfig) -> Block:
    """One block of figure 3. All four are the same block; they differ in where its modulations come from.

    in-context: plain norms; the embeddings of t and y stand among the tokens. cross-attention: plain norms, and the
    tokens look at the two embeddings. adaLN: shifts and scales are made of their sum. adaLN-Zero: gates too, and all
    start at zero.
    """
    dim, kind = config.dim, config.conditioning
    if kind == "adaLN-Zero":
        modulation = nn.Linear(dim, 6 * dim)
    else:
        vectors = nn.Linear(dim, 4 * dim) if kind == "adaLN" else Constant(4 * dim)
        modulation = nn.Sequential(vectors, OpenGates())
    return Block(dim, config.heads, cross=kind == "cross-attention", modulation=modulation, gelu="tanh")


class Labels(nn.Embedding):
    """A vector for each class, and a last one for no class, which takes a label's place now and then in training."""

    def __init__(self, classes: int, dim: int, dropout: float):
        super().__init__(classes + 1, dim)
        self.none, self.dropout = classes, dropout

    def forward(self, y: Tensor) -> Tensor:
        """Labels y [batch], `none` for no class; returns [batch, dim]."""
        if self.training:
            y = y.masked_fill(torch.rand(y.shape, device=y.device) < self.dropout, self.none)
        return super().forward(y)


def places(size: tuple[int, int, int], dim: int) -> Tensor:
    """Where each patch of a grid (time, rows, columns) stands: [tokens, dim].

    As in the official code half of the channels are for the column and half for the row, and of each half the sines
    come first. A film's moments are told by sines that are added, as in W.A.L.T; the paper has none.
    """
    grid = grid_positions(size)
    table = sincos_grid(grid[:, [2, 1]], (dim // 2, dim // 2)).unflatten(-1, (2, 2, -1)).flip(-2).flatten(1)
    return table + sincos(grid[:, 0], dim) if size[0] > 1 else table


class DiT(nn.Module):
    """Noisy latents, a time and a label in; the noise, and where in its range the variance lies, out."""

    def __init__(self, config: DiTConfig = DiTConfig()):
        super().__init__()
        self.config = config
        dim, values, told = config.dim, config.channels * math.prod(config.patch), "adaLN" in config.conditioning
        steps = tuple(side // p for side, p in zip(config.size, config.patch, strict=True))
        self.register_buffer("positions", places(steps, dim))
        self.embed = nn.Linear(values, dim)
        self.time = TimestepEmbedding(dim)
        self.label = Labels(config.classes, dim, config.dropout)
        self.blocks = nn.ModuleList(told_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 2 * dim) if told else Constant(2 * dim)
        self.head = nn.Linear(dim, (1 + config.learned_variance) * values)
        zero = [self.head, *([self.modulation] if told else [])]
        if config.conditioning == "adaLN-Zero":
            zero += [block.modulation for block in self.blocks]
        initialise(self, zero)
        nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x [batch, time, channel, height, width] at times t [batch] in (0, 1], labels y [batch]: the noise, in x's
        shape, and with a learned variance as many channels again.

        The official code counts the noise's steps from 0, so what has k + 1 of them is told k. Raises ValueError for
        latents of another size than the config's.
        """
        config, size = self.config, (x.shape[1], *x.shape[3:])
        if size != tuple(config.size) or x.shape[2] != config.channels:
            raise ValueError(f"x is {size} with {x.shape[2]} channels; it takes {config.size} with {config.channels}")
        tokens = self.embed(patchify(x, config.patch)) + self.positions  # [b, n, dim]
        time, label = self.time(t - 1 / PROCESS.steps), self.label(y)
        c, both = F.silu(time + label), torch.stack([time, label], dim=1)  # [b, dim], [b, 2, dim]
        if config.conditioning == "in-context":
            tokens = torch.cat([tokens, both], dim=1)
        for block in self.blocks:
            tokens = block(tokens, c, both, None)
        return unpatchify(read_out(self, tokens[:, : len(self.positions)], c), config.patch, size)

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor], heads: int | None = None) -> DiT:
        """The model whose weights the official code saved, in eval mode.

        heads: cannot be read off the weights; of the paper's sizes they are known. Raises ValueError that names the
        keys that are missing or that nothing here is, and for weights of a shape that does not fit the others.
        """
        model = cls(_config_of(state, heads))
        fill(official_layout(model), state, "official DiT")
        return model.eval()


@torch.no_grad()
def official_layout(model: DiT) -> Layout:
    """Where each weight of the official code lies in `model`, by its name there."""
    _, p, q = model.config.patch
    layout = {
        "pos_embed": model.positions[None], "y_embedder.embedding_table.weight": model.label.weight,
        "x_embedder.proj.weight": rearrange(model.embed.weight, "d (p q c) -> d c p q", p=p, q=q),
        "x_embedder.proj.bias": model.embed.bias,
    }  # fmt: skip
    layout |= under("", {
        "t_embedder.mlp.0": model.time.mlp[0], "t_embedder.mlp.2": model.time.mlp[2], "final_layer.linear": model.head,
        "final_layer.adaLN_modulation.1": model.modulation,
    })  # fmt: skip
    for k, block in enumerate(model.blocks):
        attention = block.attention
        layout |= under(f"blocks.{k}.", {
            "attn.proj": attention.to_out, "mlp.fc1": block.mlp[0], "mlp.fc2": block.mlp[2],
            "adaLN_modulation.1": block.modulation,
        })  # fmt: skip
        for kind in ("weight", "bias"):  # queries, keys and values lie in one there
            ours = (getattr(attention.to_q, kind), getattr(attention.to_kv, kind))
            layout[f"blocks.{k}.attn.qkv.{kind}"] = ours
    return layout


def _config_of(state: Mapping[str, Tensor], heads: int | None) -> DiTConfig:
    """The sizes of an official model, read off its weights. Raises ValueError where they do not tell."""
    telling = ("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight", "final_layer.linear.bias")
    if missing := [key for key in telling if key not in state]:
        raise ValueError(f"state: lacks {', '.join(missing)}; it takes the weights of the official code")
    patches, positions, labels, head = (state[key] for key in telling)
    dim, channels, side, _ = patches.shape
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    known = [size["heads"] for size in SIZES.values() if (size["dim"], size["depth"]) == (dim, depth)]
    if heads is None and not known:
        raise ValueError(f"heads is None; it takes their number, for {depth} blocks of width {dim} are not of the "
                         f"sizes {', '.join(SIZES)}")  # fmt: skip
    grid = side * math.isqrt(positions.shape[1])
    return DiTConfig(
        channels, (1, side, side), dim, depth, heads or known[0], (1, grid, grid), classes=len(labels) - 1,
        learned_variance=len(head) == 2 * channels * side**2,
    )  # fmt: skip


# ------------------------------------------------------------------------ the learned variance (2102.09672, section 3)


def variance_range(t: Tensor, s: Tensor, process: Process = PROCESS) -> tuple[Tensor, Tensor]:
    """The logarithms of the least variance that p(x_s | x_t) may have, the posterior's own, and of the largest, beta_t.

    t, s [batch], s < t; each [batch]. Of the last step, to s = 0, the least would be 0: it has that of the step before,
    and where that began beyond t = 1, of the last step's second half.
    """
    last = s == 0
    before = torch.where(last, 2 * t, t).clamp(max=1)  # no time lies before 1: then half of the step
    least = process.posterior(before, torch.where(last, before / 2, s))[2]
    return least.log(), process.transition(t, s)[1].log()


def reverse(answer: Tensor, x_t: Tensor, t: Tensor, s: Tensor, process: Process = PROCESS) -> tuple[Tensor, Tensor]:
    """p(x_s | x_t) by the network's answer [batch, time, 2 channel, height, width]: mean and log variance, like x_t.

    log variance = v log beta_t + (1 - v) log beta~_t (Eq. 15), where the answer's second half is 2 v - 1: it lies in
    [-1, 1] where the variance is in its range. t, s [batch] in float64, on the CPU. Raises ValueError for an answer
    without a variance.
    """
    if answer.shape[2] != 2 * x_t.shape[2]:
        raise ValueError(f"answer has {answer.shape[2]} channels; it takes {2 * x_t.shape[2]}: noise and variance")
    eps, place = answer.chunk(2, dim=2)
    x0, _ = process.to_x0_eps(eps, x_t, t, "eps")
    a, b, _ = process.posterior(t, s)
    least, most = (expand(bound, x_t) for bound in variance_range(t, s, process))
    v = (place + 1) / 2
    return expand(a, x_t) * x0 + expand(b, x_t) * x_t, v * most + (1 - v) * least


def dit_loss(model: DiT, x0: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(L_simple, a term of L_vlb) of each example of x0 [batch, time, channel, height, width], labels y [batch].

    The first is the squared error of the noise; the second, which only a learned variance has (else it is 0), is the
    divergence of p(x_{t-1} | x_t) from the truth in bits a number. The mean is held still in it, so that it teaches the
    variance alone. The loss is their sum: 1000 of these terms are L_vlb, times the paper's lambda of 0.001 (Eq. 16).
    The generator draws steps and noise; which labels a model in training leaves out, torch's global one does.
    """
    steps = torch.randint(1, PROCESS.steps + 1, (len(x0),), generator=generator, device=generator.device).cpu()
    eps = noise_like(x0, generator)
    t, s = steps.double() / PROCESS.steps, (steps - 1).double() / PROCESS.steps
    x_t = PROCESS.add_noise(x0, eps, t)
    answer = model(x_t, t.float().to(x0.device), y)
    said = answer[:, :, : x0.shape[2]]
    simple = (said - eps).square().flatten(1).mean(1)
    if not model.config.learned_variance:
        return simple, torch.zeros_like(simple)
    still = torch.cat([said.detach(), answer[:, :, x0.shape[2] :]], dim=2)
    return simple, bits(reverse(still, x_t, t, s), x0, x_t, t, s)


def bits(believed: tuple[Tensor, Tensor], x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """L_{t-1} of 2006.11239, Eq. 5, in bits a number: [batch]. believed: `reverse`'s mean and log variance.

    At the last step it is L_0, here a Gaussian's density at x0: latents have no grey levels. (The official code takes
    256 of them all the same, which adds 7 bits to this term and hardly changes its gradient.)
    """
    mean, log_variance = believed
    a, b, _ = PROCESS.posterior(t, s)
    true = expand(a, x_t) * x0 + expand(b, x_t) * x_t
    ratio = expand(variance_range(t, s)[0], x_t) - log_variance
    divergence = (ratio.exp() - 1 - ratio + (true - mean).square() * (-log_variance).exp()) / 2
    surprise = (math.log(2 * math.pi) + log_variance + (x0 - mean).square() * (-log_variance).exp()) / 2
    each = torch.where(expand(s, x_t) == 0, surprise, divergence)
    return each.flatten(1).mean(1) / math.log(2)


# ------------------------------------------------------------------------------------------------- guidance, sampling


def guided(model: DiT, y: Tensor, scale: float, channels: int | None = None) -> Network:
    """Classifier-free guidance of the noise, away from no class: a network f(x_t, t) for `sample`.

    The variance is the conditioned one. channels: how many of the latents' are guided, by default all; the official
    `forward_with_cfg` guides 3 of its 4, "for exact reproducibility", and so do the paper's pictures.
    """
    count = model.config.channels if channels is None else channels

    def network(x: Tensor, t: Tensor) -> Tensor:
        none = torch.full_like(y, model.label.none)
        told, untold = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, none])).chunk(2)
        noise = untold[:, :, :count] + scale * (told[:, :, :count] - untold[:, :, :count])
        return torch.cat([noise, told[:, :, count:]], dim=2)

    return network


@torch.no_grad()
def sample(network: Network, x: Tensor, steps: int = 250, generator: torch.Generator | None = None) -> Tensor:
    """From noise x [batch, time, channel, height, width] to latents: DDPM's sampling with the learned variance."""
    grid = time_grid(steps)
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        answer = network(x, t.expand(len(x)).float().to(x.device))
        mean, log_variance = reverse(answer, x, t.expand(len(x)), s.expand(len(x)))
        x = mean if s == 0 else mean + (log_variance / 2).exp() * noise_like(x, generator)
    return x
