"""The Video Vision Transformer: a film is cut into tokens of space and time, and read in one of four ways.

Paper: Arnab et al. 2021, "ViViT: A Video Vision Transformer" (2103.15691). This file is its section 3, top to bottom.
A film of T frames becomes n_t x n_h x n_w tokens z, each a tubelet of t x h x w pixels (t = 1: a patch of one frame):

    z_0     = [z_cls; E x_1; ...; E x_N] + p        (1)  [batch, 1 + N, d], N = n_t n_h n_w
    y_l     = MSA(LN(z_l)) + z_l                    (2)
    z_{l+1} = MLP(LN(y_l)) + y_l                    (3)

Chapter 03 has these layers, and the four models are four lists of them. What differs is who attends to whom:

    Model 1  spatio-temporal attention    every token to every token
    Model 2  factorised encoder           L layers within a moment, then L_t layers over the moments' class tokens
    Model 3  factorised self-attention    in each layer two attentions: within a moment, then over time (4) to (6)
    Model 4  factorised dot-product       in each layer half of the heads within a moment, half over time (7)

The paper begins all of them with a picture model (section 3.4, `ViViT.from_vit`). Its regularisers are not here: what
keeps it from learning small sets of films by heart are flips, crops and jittered colours, RandAugment (1909.13719),
stochastic depth (1603.09382), mixup (1710.09412) and label smoothing (1512.00567), in Table 4; the world's films have
no end. Nor are several views of a film at test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from soralab.blocks import Attention, patchify
from soralab.blocks.attention import attention
from soralab.training.data import model_flops
from soralab.vit import Block, ViT, xavier

NAMES = {
    1: "spatio-temporal attention", 2: "factorised encoder", 3: "factorised self-attention",
    4: "factorised dot-product attention",
}  # fmt: skip
STARTS = ("central frame", "inflated", "random")  # of the tubelets' E, where all else is the picture model's


@dataclass(frozen=True)
class ViViTConfig:
    """Sizes of a ViViT; the defaults are the course's small one, whose layers are chapter 03's; `b16x2` is the paper's.

    Raises ValueError for a model or a tubelet that is none.
    """

    model: int = 1  # 1 to 4, as in the paper
    frames: int = 8  # T
    image: int = 32  # side of a frame, pixels
    tubelet: tuple[int, int, int] = (2, 4, 4)  # t, h, w: frames, pixels, pixels
    channels: int = 3
    dim: int = 64  # d
    depth: int = 4  # L
    heads: int = 4
    temporal_depth: int = 2  # L_t, of Model 2 alone; 0: the moments' class tokens are averaged
    classes: int = 14

    def __post_init__(self) -> None:
        object.__setattr__(self, "tubelet", tuple(self.tubelet))
        if self.model not in NAMES:
            raise ValueError(f"model is {self.model!r}; it takes 1, 2, 3 or 4")
        sides = (self.frames, self.image, self.image)
        if any(p < 1 or side % p for side, p in zip(sides, self.tubelet, strict=True)):
            raise ValueError(f"tubelet is {self.tubelet}; it takes sides that divide those of a film, {sides}")
        if self.model == 4 and self.heads % 2:
            raise ValueError(f"heads is {self.heads}; Model 4 takes an even number, half for space and half for time")

    @property
    def grid(self) -> tuple[int, int, int]:
        """n_t, n_h, n_w: tokens along time, height and width."""
        t, h, w = self.tubelet
        return self.frames // t, self.image // h, self.image // w

    @property
    def places(self) -> int:
        """n_h n_w: the tokens of one moment."""
        return self.grid[1] * self.grid[2]

    @classmethod
    def b16x2(cls, model: int = 1, **changes) -> ViViTConfig:
        """ViViT-B/16x2 for Kinetics 400: 32 frames, tubelets of 16 x 16 pixels and 2 frames. `changes`: any fields."""
        sizes = {"frames": 32, "image": 224, "tubelet": (2, 16, 16), "dim": 768, "depth": 12, "heads": 12}
        return cls(model, **{**sizes, "temporal_depth": 4, "classes": 400, **changes})


def cost(config: ViViTConfig) -> tuple[int, int]:
    """(parameters, multiply-accumulates for one film), counted on the meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        model = ViViT(config)
        flops = model_flops(model, torch.empty(1, config.frames, config.channels, config.image, config.image))
    return sum(p.numel() for p in model.parameters()), flops // 2


# --------------------------------------------------------------------------------- section 3.2: from film to tokens


def uniform_frames(films: Tensor, count: int) -> Tensor:
    """`count` frames at even distances, each from the middle of its stretch: [batch, time, channel, height, width] to
    [batch, count, channel, height, width]. Raises ValueError where count does not divide the time."""
    time = films.shape[1]
    if count < 1 or time % count:
        raise ValueError(f"count is {count}; it takes a number that divides the film's {time} frames")
    stretch = time // count
    return films[:, stretch // 2 :: stretch]


def tubelet_weights(patch: Tensor, t: int, start: str = "central frame") -> Tensor:
    """A picture's E [dim, h * w * channels] as E of tubelets [dim, t * h * w * channels], section 3.4.

    "inflated": E / t for every frame (8); "central frame": E for frame t // 2 and zeros for the others (9); "random":
    drawn anew, as a ViT's is. Raises ValueError for another start.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; it takes one of {', '.join(STARTS)}")
    if start == "inflated":
        return patch.repeat(1, t) / t
    frames = torch.zeros(len(patch), t, patch.shape[1]).to(patch)
    if start == "central frame":
        frames[:, t // 2] = patch
    else:
        nn.init.trunc_normal_(frames, std=frames[0].numel() ** -0.5)
    return frames.flatten(1)


# ------------------------------------------------------------------------------- section 3.3: who attends to whom
# Each is an `attend` of blocks.Attention: q, k, v [batch, heads, n_t * places, d] to the same.


def over_space(q: Tensor, k: Tensor, v: Tensor, times: int) -> Tensor:
    """Every token attends to the tokens of its own moment."""
    q, k, v = (rearrange(x, "b h (t n) d -> (b t) h n d", t=times) for x in (q, k, v))
    return rearrange(attention(q, k, v), "(b t) h n d -> b h (t n) d", t=times)


def over_time(q: Tensor, k: Tensor, v: Tensor, times: int) -> Tensor:
    """Every token attends to the tokens of its own place."""
    batch = len(q)
    q, k, v = (rearrange(x, "b h (t n) d -> (b n) h t d", t=times) for x in (q, k, v))
    return rearrange(attention(q, k, v), "(b n) h t d -> b h (t n) d", b=batch)


def over_both(q: Tensor, k: Tensor, v: Tensor, times: int) -> Tensor:
    """The first half of the heads over space, the second over time: Concat(Y_s, Y_t), each of them by Eq. (7)."""
    (q_s, q_t), (k_s, k_t), (v_s, v_t) = (x.chunk(2, dim=1) for x in (q, k, v))
    return torch.cat([over_space(q_s, k_s, v_s, times), over_time(q_t, k_t, v_t, times)], dim=1)


class FactorisedBlock(Block):
    """Chapter 03's layer with attention over one axis, or two: Model 3's with `second`, Model 4's without.

    What `second` adds starts at zero, so the layer is a picture model's at first. (The paper sets all its weights to
    zero: then neither the values nor what reads them get a gradient, so here only the last matrix is zero.)
    """

    def __init__(self, dim: int, heads: int, first: Callable, second: Callable | None = None):
        super().__init__(dim, heads)
        self.first, self.second = first, second
        if second is not None:
            self.norm_t, self.attention_t = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
            xavier(self.attention_t)
            nn.init.zeros_(self.attention_t.to_out.weight)

    def forward(self, z: Tensor) -> Tensor:
        """z [batch, n_t * places, dim] to the same: Eqs. (4), (5) if there is a second attention, and (6)."""
        z = z + self.attention(self.norm1(z), attend=self.first)
        if self.second is not None:
            z = z + self.attention_t(self.norm_t(z), attend=self.second)
        return z + self.mlp(self.norm2(z))


def layers(config: ViViTConfig) -> list[Block]:
    """The L layers of a model, in which the four differ (Model 2 has L_t further ones)."""
    times = config.grid[0]
    space, time, both = (partial(way, times=times) for way in (over_space, over_time, over_both))
    made = {
        1: lambda: Block(config.dim, config.heads),
        2: lambda: Block(config.dim, config.heads),
        3: lambda: FactorisedBlock(config.dim, config.heads, space, time),
        4: lambda: FactorisedBlock(config.dim, config.heads, both),
    }
    return [made[config.model]() for _ in range(config.depth)]


class ViViT(nn.Module):
    """A film in, one number for each class out.

    Models 1 and 2 read the state of a class token, Models 3 and 4 have none and read the tokens' mean. The head starts
    at zero.
    """

    def __init__(self, config: ViViTConfig = ViViTConfig()):
        super().__init__()
        self.config = c = config
        n_t = c.grid[0]
        rows = {1: 1 + n_t * c.places, 2: 1 + c.places, 3: n_t * c.places, 4: n_t * c.places}
        t, h, w = c.tubelet
        self.embed = nn.Linear(t * h * w * c.channels, c.dim)  # E, and a bias
        self.class_token = nn.Parameter(torch.zeros(c.dim)) if c.model < 3 else None  # z_cls
        self.positions = nn.Parameter(torch.empty(rows[c.model], c.dim))  # p; row 0 is the class token's, if any
        self.blocks = nn.ModuleList(layers(c))
        self.norm = nn.LayerNorm(c.dim, eps=1e-6)
        self.over_moments = OverMoments(c) if c.model == 2 and c.temporal_depth else None
        self.head = nn.Linear(c.dim, c.classes)
        self.initialise()

    def initialise(self) -> None:
        """As chapter 03's ViT begins: Xavier in the blocks, LeCun for E, zero for the head."""
        for block in self.blocks:
            xavier(block.attention, block.mlp[0], block.mlp[2])
        nn.init.trunc_normal_(self.embed.weight, std=self.embed.in_features**-0.5)
        nn.init.normal_(self.positions, std=0.02)
        for value in (self.embed.bias, self.head.weight, self.head.bias):
            nn.init.zeros_(value)

    def tokens(self, films: Tensor) -> Tensor:
        """Films [batch, time, channel, height, width] in [-1, 1] to E x, [batch, n_t * places, dim], time first.

        Raises ValueError for films of another size.
        """
        c = self.config
        want = (c.frames, c.channels, c.image, c.image)
        if films.ndim != 5 or films.shape[1:] != want:
            raise ValueError(f"films are {list(films.shape)}; it takes [batch, {', '.join(map(str, want))}]")
        return self.embed(patchify(films, c.tubelet))

    def features(self, films: Tensor) -> Tensor:
        """What the head reads of films [batch, time, channel, height, width] in [-1, 1]: [batch, dim]."""
        z = self.tokens(films)
        if self.config.model == 2:
            z = rearrange(z, "b (t n) d -> (b t) n d", t=self.config.grid[0])  # each moment by itself
        if self.class_token is not None:
            z = torch.cat([self.class_token.expand(len(z), 1, -1), z], dim=1)
        z = z + self.positions
        for block in self.blocks:
            z = block(z)
        if self.config.model > 2:
            return self.norm(z).mean(1)
        y = self.norm(z[:, 0])  # a LayerNorm works token by token, so only the class token's is computed
        if self.config.model == 1:
            return y
        y = rearrange(y, "(b t) d -> b t d", b=len(films))
        return y.mean(1) if self.over_moments is None else self.over_moments(y)

    def forward(self, films: Tensor) -> Tensor:
        """Logits [batch, classes] of films [batch, time, channel, height, width] in [-1, 1]."""
        return self.head(self.features(films))

    @classmethod
    def from_vit(cls, vit: ViT, config: ViViTConfig, start: str = "central frame") -> ViViT:
        """A reader of films that begins as a picture model, section 3.4; the head and what Model 2 and 3 add are new.

        Positions are repeated over time, so that at first no moment is told from another (in Model 2 that is left to
        the L_t layers over moments). start: of E, as `tubelet_weights` has it. Raises ValueError where sizes differ.
        """
        for name in ("image", "channels", "dim", "depth", "heads"):
            if getattr(vit.config, name) != getattr(config, name):
                raise ValueError(f"{name} is {getattr(config, name)}; vit has {getattr(vit.config, name)}")
        if config.tubelet[1:] != (vit.config.patch,) * 2:
            side = vit.config.patch
            raise ValueError(f"tubelet is {config.tubelet}; vit's patches are of {side} x {side}")
        model = cls(config)
        state = {key: value for key, value in vit.state_dict().items() if key.startswith(("blocks.", "norm."))}
        state["embed.weight"] = tubelet_weights(vit.embed.weight.detach(), config.tubelet[0], start)
        state["embed.bias"] = vit.embed.bias
        of_class, of_places = vit.positions.detach().split([1, config.places])
        if config.model != 2:
            of_places = repeat(of_places, "n d -> (t n) d", t=config.grid[0])
        state["positions"] = torch.cat([of_class, of_places]) if config.model < 3 else of_places
        if config.model < 3:
            state["class_token"] = vit.class_token
        model.load_state_dict(model.state_dict() | state)
        return model


class OverMoments(nn.Module):
    """Model 2's second encoder: L_t layers over the moments' class tokens, behind a class token of its own."""

    def __init__(self, c: ViViTConfig):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(c.dim))
        self.positions = nn.Parameter(torch.empty(1 + c.grid[0], c.dim))
        self.blocks = nn.ModuleList(Block(c.dim, c.heads) for _ in range(c.temporal_depth))
        self.norm = nn.LayerNorm(c.dim, eps=1e-6)
        nn.init.normal_(self.positions, std=0.02)
        for block in self.blocks:
            xavier(block.attention, block.mlp[0], block.mlp[2])

    def forward(self, y: Tensor) -> Tensor:
        """Moments [batch, n_t, dim] to the film [batch, dim]."""
        z = torch.cat([self.class_token.expand(len(y), 1, -1), y], dim=1) + self.positions
        for block in self.blocks:
            z = block(z)
        return self.norm(z[:, 0])
