"""LLaVA: a language model that is shown pictures as if they were words.

Paper: Liu et al. 2023, "Visual Instruction Tuning" (2304.08485). Section 4, in its names, for a picture X_v:

    Z_v = g(X_v)          grid features of a frozen tower: its last layer but one, no class token [tokens, width]
    H_v = W Z_v           one matrix, into the space of the words' embeddings [tokens, d_model]           Eq. (1)
    X_instruct^t = [X_q^1, X_v] or [X_v, X_q^1], by chance, for turn t = 1;  X_q^t for t > 1              Eq. (2)
    p(X_a | X_v, X_instruct) = prod_i p(x_i | X_v, X_instruct,<i, X_a,<i)                                 Eq. (3)

A conversation is one sequence (table 2), and the loss counts the answers and the STOP behind each, nothing else:

    HUMAN X_instruct^1 STOP ASSISTANT X_a^1 STOP HUMAN X_q^2 STOP ASSISTANT X_a^2 STOP ...

Stage 1 trains W alone, stage 2 W and the language model; the tower never. Here the tower is chapter 04's, and the
language model chapter 02's decoder without its attention to a source. A film is several pictures in a row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from soralab.blocks import causal_mask, search
from soralab.blocks.resnet import ModifiedResNet
from soralab.clip import CLIP, CLIPConfig, VisionTransformer
from soralab.files.checkpoints import config_of, load_model
from soralab.files.published import fill, shape_of, under
from soralab.training.data import beside
from soralab.transformer import EncoderLayer, TransformerConfig, Writing, sinusoid
from soralab.world.language import words

PAD, IMAGE, STOP, HUMAN, ASSISTANT = range(5)  # the ids that are no words; IMAGE stands for all tokens of one picture
FRAMES = 4  # of a film that is looked at
LONGEST = 40  # words of an answer


@dataclass(frozen=True)
class LLaVAConfig:
    """Sizes. width: of the tower's tokens; projection: layers of W, 1 in the paper and 2 in LLaVA-1.5."""

    text: TransformerConfig = field(default_factory=lambda: TransformerConfig.small(256))
    width: int = 264  # chapter 04's tower: 256 channels, 4 rows, 4 columns
    projection: int = 1

    @classmethod
    def small(cls, vocabulary: int, **changes) -> LLaVAConfig:
        """The course's; `changes` are fields of the language model's config."""
        return cls(replace(TransformerConfig.small(vocabulary, N=4, P_drop=0.0), **changes))


PROJECTIONS = {  # width of the tower, width of the language model, layers of W
    "LLaVA-7B": (1024, 4096, 1), "LLaVA-13B": (1024, 5120, 1), "LLaVA-1.5-7B": (1024, 4096, 2),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- what is seen


def grid(tower: VisionTransformer | ModifiedResNet, pixels: Tensor, layer: int = -2) -> Tensor:
    """Z_v: pixels [n, 3, image, image] to one vector a place of the picture, [n, tokens, width].

    layer: which of the tower's states, -2 for what leaves its last layer but one. The class token is left out. A ResNet
    has none: its layers are its stages, and its attention pooling is left out. Its tokens were never told their places
    either, as a ViT's are at its start, so each gets its row and its column beside it (`places`).
    """
    state = tower.states(pixels)[layer]
    if state.ndim == 3:
        return state[:, 1:]
    tokens, where = rearrange(state, "n d h w -> n (h w) d"), places(*state.shape[2:]).to(state)
    return torch.cat([tokens, where.expand(len(state), -1, -1)], dim=-1)


def places(rows: int, columns: int) -> Tensor:
    """Which row and which column each place of a grid is in: [rows columns, rows + columns], ones and zeros."""
    row, column = torch.eye(rows), torch.eye(columns)
    return torch.cat([row.repeat_interleave(columns, 0), column.repeat(rows, 1)], dim=-1)


def projector(width: int, d_model: int, layers: int = 1) -> nn.Module:
    """W: one linear layer; with two, LLaVA-1.5's MLP (2310.03744), which has GELU between them."""
    if layers not in (1, 2):
        raise ValueError(f"layers is {layers}; it takes 1 (LLaVA) or 2 (LLaVA-1.5)")
    first = nn.Linear(width, d_model)
    return first if layers == 1 else nn.Sequential(first, nn.GELU(), nn.Linear(d_model, d_model))


def projector_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The projector's weights in a file that may hold a language model too, the authors' or transformers'."""
    return {name: value for name, value in state.items() if "mm_projector." in name or "modal_projector." in name}


def published_projector(state: Mapping[str, Tensor]) -> nn.Module:
    """W with the weights that LLaVA's authors or transformers saved, LLaVA's matrix or LLaVA-1.5's two.

    Raises ValueError for weights that are missing, too many, or of another shape, by name.
    """
    own, what = projector_part(state), "LLaVA's projector"
    if not own:
        raise ValueError(f"state has no name with mm_projector or multi_modal_projector; it takes {what}")
    stem = next(iter(own)).split("projector.")[0] + "projector."
    first, second = ("linear_1", "linear_2") if "multi_modal" in stem else ("0", "2")
    layers = 1 if f"{stem}weight" in own else 2
    d_model, width = shape_of(own, f"{stem}weight" if layers == 1 else f"{stem}{first}.weight", 2, what)
    W = projector(width, d_model, layers)
    fill(under("", {stem[:-1]: W} if layers == 1 else {stem + first: W[0], stem + second: W[2]}), own, what)
    return W


def expand(ids: Tensor, tokens: int) -> Tensor:
    """Each IMAGE in ids [b, n] becomes `tokens` of them; rows must have as many: [b, n + pictures (tokens - 1)]."""
    return ids.repeat_interleave(torch.where(ids == IMAGE, tokens, 1).flatten()).reshape(len(ids), -1)


def pick_frames(film: Tensor, frames: int = FRAMES) -> Tensor:
    """`frames` of a film's frames [time, ...], evenly from the first one on: frame k shows the moment k / frames.

    Raises ValueError for a film without frames.
    """
    if not len(film):
        raise ValueError("film has no frames; it takes one or more")
    return film[torch.arange(frames) * len(film) // frames]


# ------------------------------------------------------------------------------------------------ the language model


class Layer(EncoderLayer):
    """A layer of chapter 02's decoder that has no source to attend to: attention to what is written, feed-forward."""

    def forward(self, x: Tensor, own: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """x [b, m, d_model]; own: keys and values of all tokens so far, these m included; mask [m, n]."""
        x = self.norm1(x + self.dropout(self.attention(x, *own, mask)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class Answer(Writing):
    """A sequence in the making: the keys and values of its tokens so far, words and pictures. It is a `search.Writer`.

    `LLaVA.begin` makes it.
    """

    def __init__(self, model: LLaVA):
        self.model, self.length = model, 0
        self.own: list[tuple[Tensor, Tensor] | None] = [None] * len(model.layers)

    def next(self, words: Tensor) -> Tensor:
        """Write words [b]; returns log P [b, vocabulary] of the next one, which is a word or STOP."""
        log_p = self.model.read(self.model.embed(words[:, None]), self)[:, 0].float().log_softmax(-1)
        log_p[:, [PAD, IMAGE, HUMAN, ASSISTANT]] = -math.inf
        return log_p


class LLaVA(nn.Module):
    """W and the language model. What it sees are a frozen tower's features, which `grid` takes."""

    def __init__(self, config: LLaVAConfig):
        super().__init__()
        self.config, text = config, config.text
        self.W = projector(config.width, text.d_model, config.projection)
        self.embedding = nn.Embedding(text.vocabulary, text.d_model)
        self.layers = nn.ModuleList(Layer(text) for _ in range(text.N))
        self.dropout = nn.Dropout(text.P_drop)
        self.initialise()

    def initialise(self) -> None:
        """As chapter 02: Xavier for matrices; embeddings such that sqrt(d_model) times them has variance 1."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.embedding.weight, std=self.config.text.d_model**-0.5)

    def embed(self, ids: Tensor, Z: Tensor | None = None) -> Tensor:
        """Words and pictures as one sequence, without positions: [b, n + pictures (tokens - 1), d_model].

        ids [b, n]; Z [b, pictures, tokens, width] takes the places of IMAGE, in their order. Raises ValueError if a row
        has more or fewer of these than pictures.
        """
        pictures = 0 if Z is None else Z.shape[1]
        counts = (ids == IMAGE).sum(1)
        if (counts != pictures).any():
            row = int((counts != pictures).nonzero()[0])
            there = f"ids has {int(counts[row])} IMAGE in row {row}"
            raise ValueError(f"{there}; it takes one for each picture, and Z has {pictures} a row")
        if Z is None:
            return self.embedding(ids) * math.sqrt(self.config.text.d_model)
        if len(Z) != len(ids) or Z.shape[-1] != self.config.width:
            want = f"[{len(ids)}, pictures, tokens, {self.config.width}]"
            raise ValueError(f"Z is {list(Z.shape)}; it takes {want}: a row of pictures for each of ids")
        ids = expand(ids, Z.shape[2])
        x = self.embedding(ids) * math.sqrt(self.config.text.d_model)
        H = self.W(Z)
        return x.masked_scatter((ids == IMAGE)[..., None], H.to(x.dtype))

    def read(self, x: Tensor, answer: Answer) -> Tensor:
        """Go on with embedded tokens x [b, m, d_model]; logits [b, m, vocabulary] of what follows each of them.

        Positions are added here, once, counted from the first token of the sequence.
        """
        m, known = x.shape[1], answer.length
        mask = None if m == 1 else causal_mask(known + m, x.device)[known:]
        at = torch.arange(known, known + m, device=x.device)
        x = self.dropout(x + sinusoid(at, self.config.text.d_model).to(x))
        for number, layer in enumerate(self.layers):
            x = layer(x, answer.extend(number, *layer.attention.keys_values(x)), mask)
        answer.length += m
        return x @ self.embedding.weight.T

    def forward(self, ids: Tensor, Z: Tensor | None = None) -> Tensor:
        """Logits [b, n + pictures (tokens - 1), vocabulary] of what follows each token; ids and Z as `embed` has them.

        Nothing sees a later token, so what is filled up with PAD at its end needs no mask.
        """
        return self.read(self.embed(ids, Z), Answer(self))

    def begin(self, ids: Tensor, Z: Tensor | None = None) -> Answer:
        """Read ids [b, n], of one length and without PAD, and the pictures; what is returned goes on writing."""
        answer = Answer(self)
        self.read(self.embed(ids, Z), answer)
        return answer

    @torch.no_grad()
    def answers(self, ids: Tensor, Z: Tensor | None = None, longest: int = LONGEST) -> list[list[int]]:
        """The likeliest words after ids [b, n], which end in ASSISTANT: one list of ids a row, without STOP."""
        return search.greedy(self.begin(ids[:, :-1], Z), ids[:, -1], STOP, longest)


# ---------------------------------------------------------------------------------------------------------- training


def is_answer(ids: Tensor) -> Tensor:
    """Which of ids [b, n] the loss counts: those of the answers and the STOP behind each; bool [b, n]."""
    role = (ids == HUMAN) | (ids == ASSISTANT)
    at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last = torch.where(role, at, 0).cummax(1).values  # where the role was named under which a token stands
    return (ids.gather(1, last) == ASSISTANT) & ~role & (ids != PAD)


def answer_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Eq. (3): -log p of the answers' tokens, their mean. logits [b, n, vocabulary] and ids [b, n], both expanded."""
    if logits.shape[:-1] != ids.shape:
        raise ValueError(f"ids is {list(ids.shape)}; it takes the shape {list(logits.shape[:-1])} of the logits")
    counts = is_answer(ids)[:, 1:]
    return F.cross_entropy(logits[:, :-1][counts].float(), ids[:, 1:][counts])


def stage_1(model: LLaVA) -> None:
    """Train W alone: the language model keeps its weights."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("W."))


def stage_2(model: LLaVA) -> None:
    """Train W and the language model."""
    model.requires_grad_(True)


def template(turns: Sequence[tuple[list[int], list[int] | None]], pictures: int = 1, first: bool = True) -> list[int]:
    """Table 2: turns of (question, answer), as ids, in one sequence; an answer None is what is to be written.

    `pictures` IMAGE stand before the first question or behind it (first False), as Eq. (2) has it.
    """
    found: list[int] = []
    for turn, (question, answer) in enumerate(turns):
        images = [IMAGE] * pictures if turn == 0 else []
        found += [HUMAN, *(images if first else ()), *question, *(() if first else images), STOP, ASSISTANT]
        found += [] if answer is None else [*answer, STOP]
    return found


# ------------------------------------------------------------------------------------------------------ an assistant


@dataclass(frozen=True)
class Assistant:
    """A trained LLaVA with its tower. `tokens[id]` is the word of an id; the first five are no words."""

    model: LLaVA
    tower: nn.Module
    tokens: tuple[str, ...]
    layer: int = -2

    @classmethod
    def load(cls, name: str = "llava", device: torch.device | str = "cpu") -> Assistant:
        """Load and verify a checkpoint, and the tower that it names. Raises CheckpointError."""
        build = lambda sizes: LLaVA(config_of(LLaVAConfig, sizes))  # noqa: E731
        model, card = load_model(name, build, "LLaVA", ("tokens", "tower", "layer"))
        clip, _ = load_model(card["tower"], lambda sizes: CLIP(CLIPConfig(**sizes)), "CLIP")
        return cls(model.to(device), clip.image.to(device), tuple(card["tokens"]), card["layer"])

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Tensor:
        """Z of pictures [..., 3, image, image] in [-1, 1]: [..., tokens, width]."""
        flat = beside(self.model, pixels.reshape(-1, *pixels.shape[-3:]))
        Z = torch.cat([grid(self.tower, part, self.layer) for part in flat.split(500)])
        return Z.reshape(*pixels.shape[:-3], *Z.shape[1:])

    def ids(self, text: str) -> list[int]:
        """The ids of a text's words, without its punctuation. Raises ValueError for a word that it has not learnt."""
        index = {word: id for id, word in enumerate(self.tokens)}
        said = words(text)
        if new := [word for word in said if word not in index]:
            raise ValueError(f"text has the word {new[0]!r}, which this model has not learnt")
        return [index[word] for word in said]

    def text(self, ids: Sequence[int]) -> str:
        """The words of these ids."""
        return " ".join(self.tokens[id] for id in ids)

    def answers(self, Z: Tensor, questions: Sequence[str], first: bool = True, chunk: int = 256) -> list[str]:
        """Answers to one question about each row of Z [n, pictures, tokens, width]; the questions in its words."""
        if len(questions) != len(Z):
            raise ValueError(f"questions are {len(questions)}; it takes one for each row of Z, which has {len(Z)}")
        rows = [template([(self.ids(q), None)], Z.shape[1], first) for q in questions]
        alike, found = defaultdict(list), [""] * len(rows)
        for k, row in enumerate(rows):
            alike[len(row)].append(k)  # questions of one length go together, so that none is filled up
        for same in alike.values():
            for which in (same[k : k + chunk] for k in range(0, len(same), chunk)):
                ids, seen = beside(self.model, (torch.tensor([rows[k] for k in which]), Z[which]))
                for k, said in zip(which, self.model.answers(ids, seen.float()), strict=True):
                    found[k] = self.text(said)
        return found

    def __call__(self, shown: Tensor, question: str) -> str:
        """The answer to a question about a picture [3, image, image] or a film [time, 3, image, image]."""
        frames = shown[None] if shown.ndim == 3 else pick_frames(shown)
        return self.answers(self.see(frames)[None], [question])[0]
