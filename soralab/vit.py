"""The Vision Transformer: a picture is cut into patches, and the patches are read like the words of a sentence.

Paper: Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (ViT, 2010.11929). This file is its section 3, top to
bottom. With N = (image / P)^2 patches x_p of P x P pixels, a width D, L layers and learned E, E_pos and x_class:

    z_0  = [x_class; x_p^1 E; ...; x_p^N E] + E_pos       (1)  [batch, 1 + N, D]
    z'_l = MSA(LN(z_{l-1})) + z_{l-1},    l = 1 ... L     (2)
    z_l  = MLP(LN(z'_l)) + z'_l,          l = 1 ... L     (3)
    y    = LN(z_L^0)                                      (4)  [batch, D]

The class token's last state y is all that the head sees. Not here: dropout, and the hybrid, whose "patches" are the
cells of a convolutional network's feature map.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import Attention, FeedForward, grid_positions, patchify
from soralab.blocks.attention import multihead_layout
from soralab.files.published import Layout, counted, fill, shape_of, under
from soralab.training.data import model_flops


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a ViT; the defaults are the course's small one, the named ones are Table 1's."""

    image: int = 32  # side of a picture, pixels
    patch: int = 4  # P, side of a patch, pixels
    channels: int = 3
    dim: int = 64  # D
    depth: int = 4  # L
    heads: int = 4
    classes: int = 10
    hidden: int = 0  # width of the pre-training head's tanh layer; 0: fine-tuning's head, which has none

    def __post_init__(self) -> None:
        if self.image % self.patch:
            raise ValueError(f"image is {self.image}; it takes a multiple of patch, which is {self.patch}")

    @property
    def grid(self) -> int:
        """Patches on a side."""
        return self.image // self.patch

    @property
    def tokens(self) -> int:
        """Length of the sequence: the class token and N patches."""
        return 1 + self.grid**2

    @classmethod
    def b16(cls, **changes) -> ViTConfig:
        """ViT-Base, patches of 16 x 16. `changes` are fields of the config, here and below."""
        return cls(**{"image": 224, "patch": 16, "dim": 768, "depth": 12, "heads": 12, "classes": 1000, **changes})

    @classmethod
    def b32(cls, **changes) -> ViTConfig:
        """ViT-Base, patches of 32 x 32."""
        return cls.b16(**{"patch": 32, **changes})

    @classmethod
    def l16(cls, **changes) -> ViTConfig:
        """ViT-Large, patches of 16 x 16."""
        return cls.b16(**{"dim": 1024, "depth": 24, "heads": 16, **changes})

    @classmethod
    def l32(cls, **changes) -> ViTConfig:
        """ViT-Large, patches of 32 x 32."""
        return cls.l16(**{"patch": 32, **changes})

    @classmethod
    def h14(cls, **changes) -> ViTConfig:
        """ViT-Huge, patches of 14 x 14."""
        return cls.b16(**{"patch": 14, "dim": 1280, "depth": 32, "heads": 16, **changes})


def cost(config: ViTConfig) -> tuple[int, int]:
    """(parameters, multiply-accumulates for one picture), counted on the meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        model = ViT(config)
        flops = model_flops(model, torch.empty(1, config.channels, config.image, config.image))
    return sum(p.numel() for p in model.parameters()), flops // 2


def xavier(attention: Attention, *others: nn.Linear) -> None:
    """Begin a block's layers as the official code does: matrices by Xavier, each of its own, and biases at zero."""
    for layer in (attention.to_q, attention.to_kv, attention.to_out, *others):
        for matrix in layer.weight.chunk(2 if layer is attention.to_kv else 1):  # keys and values lie in one
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(layer.bias)


class Block(nn.Module):
    """One layer of the encoder, Eqs. (2) and (3): the norm stands before each half, and the residual goes round it."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim)

    def forward(self, z: Tensor) -> Tensor:
        """z [batch, tokens, dim] to the same."""
        z = z + self.attention(self.norm1(z))
        return z + self.mlp(self.norm2(z))

    def attention_map(self, z: Tensor) -> Tensor:
        """Who looks at whom on the input z [batch, tokens, dim]: [batch, heads, queries, keys], each row sums to 1."""
        x = self.norm1(z)
        q = rearrange(self.attention.to_q(x), "b n (h d) -> b h n d", h=self.attention.heads)
        k, _ = rearrange(self.attention.to_kv(x), "b n (two h d) -> two b h n d", two=2, h=self.attention.heads)
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)


class ViT(nn.Module):
    """A picture in, one number for each class out.

    `config.hidden` chooses the head: for pre-training, one hidden layer with tanh; for fine-tuning, a single linear
    layer. Either way its last layer starts at zero, so that an untrained head gives every class the same chance.
    """

    def __init__(self, config: ViTConfig = ViTConfig()):
        super().__init__()
        self.config = config
        dim = config.dim
        self.embed = nn.Linear(config.patch**2 * config.channels, dim)  # E, and a bias
        self.class_token = nn.Parameter(torch.zeros(dim))  # x_class
        self.positions = nn.Parameter(torch.empty(config.tokens, dim))  # E_pos; row 0 is the class token's
        self.blocks = nn.ModuleList(Block(dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        last = nn.Linear(config.hidden or dim, config.classes)
        self.head = nn.Sequential(nn.Linear(dim, config.hidden), nn.Tanh(), last) if config.hidden else last
        self.initialise()

    def initialise(self) -> None:
        """The official code's: Xavier in the blocks, LeCun for E and the tanh layer, zero for the last layer."""
        for block in self.blocks:
            xavier(block.attention, block.mlp[0], block.mlp[2])
        for layer in (self.embed, *([self.head[0]] if self.config.hidden else [])):
            nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.positions, std=0.02)
        for value in (self.head[-1] if self.config.hidden else self.head).parameters():
            nn.init.zeros_(value)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Eq. (1): pixels [batch, channel, image, image] in [-1, 1] to z_0 [batch, 1 + N, dim].

        Raises ValueError for pictures of another size: `finetune` makes a model for them.
        """
        want = (self.config.channels, self.config.image, self.config.image)
        if pixels.ndim != 4 or pixels.shape[1:] != want:
            raise ValueError(
                f"pixels are {list(pixels.shape)}; it takes [batch, {want[0]}, {want[1]}, {want[2]}] "
                "(for another size, finetune(image=...) makes a model)"
            )
        patches = patchify(pixels[:, None], (1, self.config.patch, self.config.patch))  # a film of one frame
        words = self.embed(patches)
        return torch.cat([self.class_token.expand(len(words), 1, -1), words], dim=1) + self.positions

    def features(self, pixels: Tensor) -> Tensor:
        """Eqs. (1) to (4): pixels [batch, channel, image, image] in [-1, 1] to y [batch, dim]."""
        z = self.tokens(pixels)
        for block in self.blocks:
            z = block(z)
        return self.norm(z[:, 0])  # a LayerNorm works token by token, so only the class token's is computed

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [batch, classes] of pixels [batch, channel, image, image] in [-1, 1]."""
        return self.head(self.features(pixels))

    @torch.no_grad()
    def attention_maps(self, pixels: Tensor) -> list[Tensor]:
        """What each layer attends to: `depth` tensors [batch, heads, queries, keys]; token 0 is the class token."""
        states = [self.tokens(pixels)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return [block.attention_map(z) for block, z in zip(self.blocks, states, strict=False)]

    def finetune(self, classes: int | None = None, image: int | None = None) -> ViT:
        """A copy for another task or another size, section 3.2: a new head at zero, positions interpolated.

        classes: of the new task; image: the new side in pixels, a multiple of the patch. Default: as they are. The
        patch size stays, so a larger picture becomes a longer sequence.
        """
        old, model = self.config, copy.deepcopy(self)
        model.config = new = replace(old, classes=classes or old.classes, image=image or old.image, hidden=0)
        stretched = interpolate_positions(self.positions.detach(), (old.grid, old.grid), (new.grid, new.grid))
        model.positions = nn.Parameter(stretched)
        model.head = nn.Linear(new.dim, new.classes).to(stretched)
        for value in model.head.parameters():
            nn.init.zeros_(value)
        return model

    @classmethod
    def from_torchvision(cls, source: nn.Module | Mapping[str, Tensor], heads: int | None = None) -> ViT:
        """This model with the weights of a torchvision VisionTransformer: the module, or its state_dict.

        A state_dict does not tell the number of heads; without `heads` it is 12 for B, 16 for L and H. torchvision's
        pixels are normalised by their own mean and deviation, not by 0.5. Raises ValueError for weights that are
        missing, too many, or of another shape, by name.
        """
        if isinstance(source, nn.Module):
            heads = heads or getattr(source, "num_heads", None) or source.encoder.layers[0].num_heads
            source = source.state_dict()
        # Files published before torchvision 0.14 call the two layers of the MLP otherwise.
        state = {key.replace("mlp.linear_1", "mlp.0").replace("mlp.linear_2", "mlp.3"): w for key, w in source.items()}
        model = cls(_config_of(state, heads))
        fill(torchvision_layout(model), state, THEIRS, "source")
        return model


# ------------------------------------------------------------------------------------ positions, and looking inside


def interpolate_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions learned on one grid, stretched to another, section 3.2: [1 + rows * columns, dim] to the same.

    old, new: (rows, columns). Row 0, the class token's, stands on no grid and is kept. As the official code does it:
    linear between neighbours, corners on corners (`scipy.ndimage.zoom(order=1)`). It is not what others do: torchvision
    is bicubic with aligned corners, timm bicubic without them and with antialiasing, transformers bicubic without both.
    """
    if len(positions) != 1 + old[0] * old[1]:
        raise ValueError(f"positions has {len(positions)} rows; it takes 1 (class token) + {old[0]} x {old[1]}")
    grid = rearrange(positions[1:], "(rows columns) dim -> 1 dim rows columns", rows=old[0])
    grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
    return torch.cat([positions[:1], rearrange(grid, "1 dim rows columns -> (rows columns) dim")])


def position_similarity(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cosine similarity of every two patches' positions (figure 7, centre).

    positions [1 + rows * columns, dim], grid (rows, columns); returns [rows, columns, rows, columns]: entry [i, j] is
    the map of how alike each place is to place (i, j). The class token's row is left out.
    """
    unit = F.normalize(positions[1:].detach(), dim=-1)
    return rearrange(unit @ unit.T, "(r c) (s d) -> r c s d", r=grid[0], s=grid[0])


def attention_distance(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """How far each head looks, in pixels (figure 7, right): [batch, heads, tokens, tokens] to [heads].

    The distance between the query's and the key's patch, weighted by attention, averaged over queries and pictures. The
    class token has no place: as a query it is left out, and what attends to it too (the rest is made to sum to 1).
    """
    if weights.shape[-1] != 1 + grid[0] * grid[1]:
        raise ValueError(f"weights has {weights.shape[-1]} keys; it takes 1 + {grid[0]} x {grid[1]}")
    places = patch * grid_positions(grid, weights.device).to(weights.dtype)  # [patches, 2]
    among = weights[..., 1:, 1:]
    among = among / among.sum(-1, keepdim=True)
    return (among * torch.cdist(places, places)).sum(-1).mean((0, 2))


def rollout(maps: list[Tensor]) -> Tensor:
    """How much of each patch reaches the class token through all layers (figure 6, appendix D.8): [batch, patches].

    Abnar & Zuidema 2020 (2005.00928): average the heads, count the residual as attention to oneself, multiply the
    layers. maps: as from `ViT.attention_maps`, each [batch, heads, tokens, tokens].
    """
    tokens = maps[0].shape[-1]
    reach = eye = torch.eye(tokens, device=maps[0].device, dtype=maps[0].dtype)
    for weights in maps:
        reach = (weights.mean(1) + eye) / 2 @ reach
    return reach[:, 0, 1:]


def patch_filters(model: ViT, count: int) -> Tensor:
    """The `count` main directions of the patch projection E (figure 7, left): [count, channel, P, P], each in [-1, 1].

    Its left singular vectors, the strongest first: what kinds of patch the model tells apart.
    """
    c = model.config
    left = torch.linalg.svd(model.embed.weight.detach().T, full_matrices=False)[0][:, :count]  # [P * P * channels, n]
    filters = rearrange(left, "(ph pw c) n -> n c ph pw", ph=c.patch, pw=c.patch)
    return filters / filters.abs().amax((1, 2, 3), keepdim=True)


# -------------------------------------------------------------------------------------------- torchvision's weights


THEIRS = "a torchvision VisionTransformer"


def _config_of(state: Mapping[str, Tensor], heads: int | None) -> ViTConfig:
    """The sizes, read from the shapes of torchvision's weights."""
    dim, channels, patch, _ = shape_of(state, "conv_proj.weight", 4, THEIRS, "source")
    positions = shape_of(state, "encoder.pos_embedding", 3, THEIRS, "source")[1]
    classes = shape_of(state, "heads.head.weight", 2, THEIRS, "source")[0]
    heads = heads or {768: 12, 1024: 16, 1280: 16}.get(dim)
    if heads is None:
        raise ValueError(f"heads is None; with a width of {dim}, none of the paper's, it takes a number")
    depth = counted(state, "encoder.layers.encoder_layer_")
    hidden = len(state["heads.pre_logits.weight"]) if "heads.pre_logits.weight" in state else 0
    return ViTConfig(isqrt(positions - 1) * patch, patch, channels, dim, depth, heads, classes, hidden)


@torch.no_grad()
def torchvision_layout(model: ViT) -> Layout:
    """Where each weight of a torchvision VisionTransformer lies in `model`, by its name there."""
    c, head = model.config, model.head
    layout = {
        "class_token": model.class_token[None, None], "encoder.pos_embedding": model.positions[None],
        # a convolution with stride P is a linear layer on patches
        "conv_proj.weight": rearrange(model.embed.weight, "dim (p q c) -> dim c p q", p=c.patch, q=c.patch),
        "conv_proj.bias": model.embed.bias,
    }  # fmt: skip
    layout |= under("", {"encoder.ln": model.norm})
    layout |= under("heads.", {"pre_logits": head[0], "head": head[2]} if c.hidden else {"head": head})
    for k, block in enumerate(model.blocks):
        stem = f"encoder.layers.encoder_layer_{k}."
        layers = {"ln_1": block.norm1, "ln_2": block.norm2, "mlp.0": block.mlp[0], "mlp.3": block.mlp[2]}
        layout |= under(stem, layers) | multihead_layout(f"{stem}self_attention.", block.attention)
    return layout
