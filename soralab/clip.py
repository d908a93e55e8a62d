"""CLIP: two towers, one for pictures and one for texts, and the one question which text belongs to which picture.

Paper: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (2103.00020). Its
figure 3 is the method; in its names, for n pairs of a picture I and a text T:

    I_e = normalise(image_encoder(I) W_i)             [n, embed]
    T_e = normalise(text_encoder(T) W_t)              [n, embed]
    logits = I_e T_e^T exp(t)                         [n, n]
    loss = (cross_entropy(logits, rows) + cross_entropy(logits, columns)) / 2,   pair k is class k

t is learned, begins at ln(1 / 0.07), and exp(t) may not pass 100 (section 2.5). The towers are section 2.4's: a
ViT with one more norm or a ResNet with attention pooling, and a causal Transformer whose state at the end of the text
stands for the text. `CLIP.from_openai` takes the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import Attention, causal_mask
from soralab.blocks.attention import QuickGELU, multihead_layout
from soralab.blocks.resnet import ModifiedResNet
from soralab.files.published import Layout, counted, fill, shape_of, under

SCALE_AT_FIRST, MOST_SCALE = 1 / 0.07, 100.0  # of exp(t)


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of a CLIP; the defaults are the course's small one, the nine named ones are the published ones."""

    embed: int = 64  # what both towers end in
    image: int = 32  # side of a picture, pixels
    layers: int | tuple[int, ...] = (1, 1, 1)  # of the ViT; or the bottlenecks in each stage of the ResNet
    width: int = 32  # of the ViT's tokens, or of the ResNet's stem
    patch: int = 0  # side of the ViT's patches, pixels; the ResNet has none
    context: int = 32  # longest text, start and end included
    vocabulary: int = 1024  # ids, the last of them the end of text
    text_width: int = 96
    text_layers: int = 2
    head: int = 16  # width of a head of the transformers; the attention pooling has 32 width / head heads

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int):
            object.__setattr__(self, "layers", tuple(self.layers))  # JSON makes lists of tuples
        step = self.patch if isinstance(self.layers, int) else 2 ** (len(self.layers) + 1)
        if step < 1:
            raise ValueError(f"patch is {self.patch}; a ViT takes the side of its patches, in pixels, from 1")
        if self.image % step:
            raise ValueError(f"image is {self.image}; it takes a multiple of {step}: the patch, or all strides")
        across = self.width if isinstance(self.layers, int) else 32 * self.width
        for name, width in (("text_width", self.text_width), ("the image tower's", across)):
            if self.head < 1 or width % self.head:
                raise ValueError(f"head is {self.head}; it takes a number that divides {name} {width}")

    @classmethod
    def published(cls, name: str) -> CLIPConfig:
        """One of the nine of PUBLISHED, such as "ViT-B/32". Raises ValueError for another name."""
        if name not in PUBLISHED:
            raise ValueError(f"name is {name!r}; it takes one of {', '.join(PUBLISHED)}")
        embed, image, layers, width, patch, text_width = PUBLISHED[name]
        return cls(embed, image, layers, width, patch, 77, 49_408, text_width, 12, head=64)


PUBLISHED = {  # embed, image, layers, width, patch, width of the text tower (tables 19 and 20)
    "RN50": (1024, 224, (3, 4, 6, 3), 64, 0, 512), "RN101": (512, 224, (3, 4, 23, 3), 64, 0, 512),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, 0, 640), "RN50x16": (768, 384, (6, 8, 18, 8), 96, 0, 768),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, 0, 1024), "ViT-B/32": (512, 224, 12, 768, 32, 512),
    "ViT-B/16": (512, 224, 12, 768, 16, 512), "ViT-L/14": (768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768),
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the towers


class Block(nn.Module):
    """One layer of either transformer: the norm stands before each half, the MLP is four times as wide inside."""

    def __init__(self, dim: int, head: int):
        super().__init__()
        self.ln_1, self.attention = nn.LayerNorm(dim), Attention(dim, dim // head)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), QuickGELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor | None = None, attend: Callable | None = None) -> Tensor:
        """x [batch, tokens, dim], mask [tokens, tokens], True = may attend, or `attend`; returns x's shape."""
        x = x + self.attention(self.ln_1(x), mask=mask, attend=attend)
        return x + self.mlp(self.ln_2(x))


def blocks(dim: int, layers: int, head: int) -> nn.ModuleList:
    """`layers` blocks, drawn as the official code draws the text tower's: what enters the residual path is small."""
    found = nn.ModuleList(Block(dim, head) for _ in range(layers))
    for block in found:
        attention, mlp = block.attention, block.mlp
        into, out = dim**-0.5, dim**-0.5 * (2 * layers) ** -0.5
        for layer, std in ((attention.to_q, into), (attention.to_kv, into), (attention.to_out, out),
                           (mlp[0], (2 * dim) ** -0.5), (mlp[2], out)):  # fmt: skip
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
    return found


class VisionTransformer(nn.Module):
    """Chapter 03's ViT with one more norm, between the positions and the first layer, and no bias in the patches."""

    def __init__(self, c: CLIPConfig):
        super().__init__()
        self.conv1 = nn.Conv2d(3, c.width, c.patch, stride=c.patch, bias=False)
        self.class_embedding = nn.Parameter(c.width**-0.5 * torch.randn(c.width))
        self.positional_embedding = nn.Parameter(c.width**-0.5 * torch.randn(1 + (c.image // c.patch) ** 2, c.width))
        self.ln_pre, self.ln_post = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.blocks = blocks(c.width, c.layers, c.head)
        self.W_i = nn.Linear(c.width, c.embed, bias=False)
        nn.init.normal_(self.W_i.weight, std=c.width**-0.5)

    def states(self, pixels: Tensor) -> list[Tensor]:
        """What enters the first layer and what leaves each: layers + 1 tensors [batch, 1 + patches, width]."""
        patches = rearrange(self.conv1(pixels), "b d h w -> b (h w) d")
        x = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        found = [self.ln_pre(x + self.positional_embedding)]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, 3, image, image] to [batch, embed], the class token's, not normalised."""
        return self.W_i(self.ln_post(self.states(pixels)[-1][:, 0]))


class TextTransformer(nn.Module):
    """A causal Transformer over a text: no token sees a later one, so the last one has seen the whole text."""

    def __init__(self, context: int, vocabulary: int, width: int, layers: int, head: int = 64):
        super().__init__()
        self.context, self.end = context, vocabulary - 1
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, width))
        self.blocks = blocks(width, layers, head)
        self.ln_final = nn.LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids [batch, n <= context] to one vector a token [batch, n, width], and the end of text's [batch, width].

        The end of text is the largest id, `vocabulary - 1`; what stands behind it is never read. Raises ValueError
        for texts that are too long, or one without its end.
        """
        if ids.ndim != 2 or ids.shape[1] > self.context:
            raise ValueError(f"ids are {list(ids.shape)}; it takes [batch, tokens], with at most {self.context} tokens")
        ends = ids == self.end
        if not ends.any(1).all():
            row = int((~ends.any(1)).nonzero()[0])
            raise ValueError(f"ids has no end of text (id {self.end}) in row {row}; every text takes one")
        x = self.states(ids)
        return x, x[torch.arange(len(ids), device=ids.device), ends.int().argmax(1)]  # the first, if there are more

    def states(self, ids: Tensor) -> Tensor:
        """One vector a token [batch, n, width] of ids [batch, n <= context]."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = causal_mask(ids.shape[1], ids.device)
        for block in self.blocks:
            x = block(x, mask)
        return self.ln_final(x)


class PromptEncoder(TextTransformer):
    """The text tower as chapters 06 and 16 read prompts with it: it sets the end of text itself, and says what is read.

    A prompt of nothing but padding is the null prompt of classifier-free guidance: then its end is all there is.
    """

    def __init__(self, vocabulary: int, width: int, words: int, layers: int = 2, heads: int = 4):
        super().__init__(words + 1, vocabulary, width, layers, width // heads)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ids [batch, words], 0 for padding, to one vector a token [batch, words + 1, width], a mask [batch,
        words + 1], True = a word or the end, and the end's own vector [batch, width], which has read the whole prompt.
        Raises ValueError for prompts that are too long."""
        if ids.ndim != 2 or ids.shape[1] >= self.context:
            raise ValueError(f"ids are {list(ids.shape)}; it takes [batch, words], at most {self.context - 1} words")
        length = (ids > 0).sum(1, keepdim=True)
        ids = F.pad(ids, (0, 1)).scatter(1, length, self.end)
        x = self.states(ids)
        mask = torch.arange(ids.shape[1], device=ids.device) <= length
        return x, mask, x.gather(1, length[..., None].expand(-1, 1, x.shape[-1]))[:, 0]


# -------------------------------------------------------------------------------------------------------- the method


class CLIP(nn.Module):
    """Both towers, W_t and t. (W_i stands at the end of the image tower: the ResNet's attention pooling has it too.)"""

    def __init__(self, config: CLIPConfig = CLIPConfig()):
        super().__init__()
        self.config = c = config
        if isinstance(c.layers, int):
            self.image = VisionTransformer(c)
        else:
            self.image = ModifiedResNet(c.layers, c.embed, c.width * 32 // c.head, c.image, c.width)
        self.text = TextTransformer(c.context, c.vocabulary, c.text_width, c.text_layers, c.head)
        self.W_t = nn.Linear(c.text_width, c.embed, bias=False)
        nn.init.normal_(self.W_t.weight, std=c.text_width**-0.5)
        self.t = nn.Parameter(torch.tensor(math.log(SCALE_AT_FIRST)))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """I_e: pixels [n, 3, image, image] to unit vectors [n, embed].

        The course's pixels lie in [-1, 1]; published weights expect each channel less its mean, over its deviation.
        """
        want = (3, self.config.image, self.config.image)
        if pixels.ndim != 4 or pixels.shape[1:] != want:
            raise ValueError(f"pixels are {list(pixels.shape)}; it takes [batch, {want[0]}, {want[1]}, {want[2]}]")
        return _unit(self.image(pixels))

    def encode_text(self, ids: Tensor) -> Tensor:
        """T_e: ids [n, tokens] to unit vectors [n, embed]."""
        return _unit(self.W_t(self.text(ids)[1]))

    @property
    def scale(self) -> Tensor:
        """exp(t): a number by which the cosines are multiplied, one over the softmax's temperature."""
        return self.t.exp()

    @torch.no_grad()
    def clip_scale(self) -> None:
        """Set t back where exp(t) has passed 100: to be called after (or before) every step of the optimizer.

        The parameter itself is clipped. A clamp in the forward pass would leave t without a gradient as soon as it
        had passed the bound, and so without a way back.
        """
        self.t.clamp_(max=math.log(MOST_SCALE))

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """The logits [pictures, texts] of every picture with every text."""
        return self.scale * self.encode_image(pixels) @ self.encode_text(ids).T

    @classmethod
    def from_openai(cls, state: Mapping[str, Tensor]) -> CLIP:
        """This model with weights in the published format (a state_dict; open_clip's ViTs and ResNets have it too).

        All sizes are read from the weights; a head is 64 wide. No weight tells that the published ones are used to
        QuickGELU: others of this format, LAION's among them, learnt with GELU and give other answers here. Raises
        ValueError for weights that are missing, too many, or of another shape, by name.
        """
        model = cls(_config_of(state))
        weights = {name: value for name, value in state.items() if name.rpartition(".")[2] not in _NOT_WEIGHTS}
        fill(openai_layout(model), weights, THEIRS)
        return model


def _unit(x: Tensor) -> Tensor:
    """x [n, embed] at length 1, in float32 at least: cosines that a scale of 100 multiplies need its digits."""
    return F.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)


def contrastive_loss(I_e: Tensor, T_e: Tensor, scale: Tensor) -> Tensor:
    """Figure 3's symmetric loss of n pairs: I_e, T_e [n, embed] unit vectors, scale = exp(t); a scalar."""
    logits = scale * I_e @ T_e.T
    pairs = torch.arange(len(I_e), device=I_e.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def accumulate(model: CLIP, pixels: Tensor, ids: Tensor, chunk: int) -> Tensor:
    """One large batch in small pieces: adds to every .grad what one backward pass over all n pairs would; the loss.

    pixels [n, 3, image, image], ids [n, tokens]; chunk: pairs in a piece, from 1; returns a scalar. The loss of a pair
    depends on all others, so gradients of pieces do not add up to that of the whole. What does (Gao et al. 2021,
    2101.06983, not in CLIP's paper): all features first, without gradients; from them the loss and its gradient for
    each feature; then piece by piece once more, with that gradient handed to the tower. Twice the forward passes, the
    memory of one piece. (Not with the ResNet in training: its batch norm sees the piece alone.)
    """
    pieces = list(zip(pixels.split(chunk), ids.split(chunk), strict=True))
    with torch.no_grad():
        features = [(model.encode_image(p), model.encode_text(i)) for p, i in pieces]
    I_e, T_e = (torch.cat(column).requires_grad_() for column in zip(*features, strict=True))
    loss = contrastive_loss(I_e, T_e, model.scale)
    loss.backward()  # reaches I_e, T_e and t
    for (p, i), dI, dT in zip(pieces, I_e.grad.split(chunk), T_e.grad.split(chunk), strict=True):
        torch.autograd.backward([model.encode_image(p), model.encode_text(i)], [dI, dT])
    return loss.detach()


@torch.no_grad()
def zero_shot(model: CLIP, prompts: Iterable[Tensor]) -> Tensor:
    """A classifier made of texts (section 3.1): one unit vector for each class, [classes, embed].

    prompts: for each class the ids [texts, tokens] of one or several texts. Several are averaged as unit vectors, and
    the mean made a unit vector again (section 3.1.4, ensembling in the space of embeddings). The class of a
    picture is the row with which `encode_image` has the largest product."""
    means = torch.stack([model.encode_text(ids).mean(0) for ids in prompts])
    return F.normalize(means, dim=-1)


# ------------------------------------------------------------------------------------------------ published weights

THEIRS = "a CLIP"
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "num_batches_tracked")  # numbers that files hold


@torch.no_grad()
def openai_layout(model: CLIP) -> Layout:
    """Where each published weight lies in `model`, by its name there."""
    image, text = model.image, model.text
    layout = {"logit_scale": model.t, "text_projection": model.W_t.weight.T,  # multiplied from the other side
              "positional_embedding": text.positional_embedding}  # fmt: skip
    layout |= under("", {"token_embedding": text.token_embedding, "ln_final": text.ln_final})
    layout |= _blocks_layout("transformer.resblocks.", text.blocks)
    if isinstance(image, ModifiedResNet):
        return layout | {name: value for name, value in under("", {"visual": image}).items()
                         if not name.endswith(_NOT_WEIGHTS)}  # fmt: skip
    layout |= {"visual.class_embedding": image.class_embedding, "visual.proj": image.W_i.weight.T,
               "visual.positional_embedding": image.positional_embedding}  # fmt: skip
    layout |= under("visual.", {"conv1": image.conv1, "ln_pre": image.ln_pre, "ln_post": image.ln_post})
    return layout | _blocks_layout("visual.transformer.resblocks.", image.blocks)


def _blocks_layout(stem: str, layers: nn.ModuleList) -> Layout:
    """That of one tower's blocks: stem, the block's number, and the name in it."""
    layout = {}
    for k, block in enumerate(layers):
        layers = {"ln_1": block.ln_1, "ln_2": block.ln_2, "mlp.c_fc": block.mlp[0], "mlp.c_proj": block.mlp[2]}
        layout |= under(f"{stem}{k}.", layers) | multihead_layout(f"{stem}{k}.attn.", block.attention)
    return layout


def _config_of(state: Mapping[str, Tensor]) -> CLIPConfig:
    """The sizes, read from the shapes of published weights."""
    text_width, embed = shape_of(state, "text_projection", 2, THEIRS)
    text = (shape_of(state, "positional_embedding", 2, THEIRS)[0],
            shape_of(state, "token_embedding.weight", 2, THEIRS)[0], text_width,
            counted(state, "transformer.resblocks."), 64)  # fmt: skip
    if "visual.proj" in state:
        width, _, patch, _ = shape_of(state, "visual.conv1.weight", 4, THEIRS)
        side = math.isqrt(shape_of(state, "visual.positional_embedding", 2, THEIRS)[0] - 1)
        return CLIPConfig(embed, side * patch, counted(state, "visual.transformer.resblocks."), width, patch, *text)
    width = shape_of(state, "visual.layer1.0.conv1.weight", 4, THEIRS)[0]
    layers = tuple(counted(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
    side = math.isqrt(shape_of(state, "visual.attnpool.positional_embedding", 2, THEIRS)[0] - 1)
    return CLIPConfig(embed, 32 * side, layers, width, 0, *text)
