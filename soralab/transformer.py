"""The encoder-decoder of "Attention Is All You Need" (Vaswani et al. 2017, 1706.03762), and a translator made of it.

    source ids [b, n]  --encode-->  memory [b, n, d_model]
    target ids [b, m], memory  --decode-->  logits [b, m, vocabulary], those of position j for the word j + 1

It is the paper's model, not its descendants': the norm comes after the sum, LayerNorm(x + Dropout(Sublayer(x))) (3.1),
with none at the end of a stack, and one matrix embeds source and target and makes the logits (3.4). Attention has no
biases, since 3.2.2 writes its projections as matrices. Table 3 does not decide it: its ten rows without "big" come out
right for a vocabulary of 41,004 to 41,208 without these biases, and of 40,932 to 41,160 with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from soralab.blocks import attention, causal_mask, search, sincos
from soralab.files.checkpoints import load_model
from soralab.training.data import beside
from soralab.world.hindi_meaning import check_translation
from soralab.world.hindi_reader import read_hindi
from soralab.world.language import LENGTH

PAD, START, END = 0, 1, 2  # the ids that are no words


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes in the paper's names (Table 3). `vocabulary` counts source and target words together, PAD included."""

    vocabulary: int = 37_000  # section 5.1; see the file's head for Table 3
    N: int = 6
    d_model: int = 512
    d_ff: int = 2048
    h: int = 8
    d_k: int = 64
    d_v: int = 64
    P_drop: float = 0.1

    @classmethod
    def base(cls, vocabulary: int = 37_000) -> TransformerConfig:
        """The paper's base model."""
        return cls(vocabulary)

    @classmethod
    def big(cls, vocabulary: int = 37_000) -> TransformerConfig:
        """The paper's big model, at the dropout of English to German."""
        return cls(vocabulary, d_model=1024, d_ff=4096, h=16, P_drop=0.3)

    @classmethod
    def small(cls, vocabulary: int, **changes) -> TransformerConfig:
        """The course's: a quarter of the base model's width, half its depth."""
        return replace(cls(vocabulary, N=3, d_model=128, d_ff=512, h=4, d_k=32, d_v=32), **changes)

    @classmethod
    def table3(cls, vocabulary: int) -> dict[str, tuple[TransformerConfig, int]]:
        """The rows of Table 3 that print a number of parameters, without "big": {row: (sizes, millions printed)}.

        Rows are named by their group, (B) the keys or (C) the model's size, and by what they change of "base".
        """
        base = cls.base(vocabulary)
        return {
            "base": (base, 65),
            "(B) d_k = 16": (replace(base, d_k=16), 58), "(B) d_k = 32": (replace(base, d_k=32), 60),
            "(C) N = 2": (replace(base, N=2), 36), "(C) N = 4": (replace(base, N=4), 50),
            "(C) N = 8": (replace(base, N=8), 80),
            "(C) d_model = 256, d_k = 32, d_v = 32": (replace(base, d_model=256, d_k=32, d_v=32), 28),
            "(C) d_model = 1024, d_k = 128, d_v = 128": (replace(base, d_model=1024, d_k=128, d_v=128), 168),
            "(C) d_ff = 1024": (replace(base, d_ff=1024), 53), "(C) d_ff = 4096": (replace(base, d_ff=4096), 90),
        }  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the layers


def sinusoid(positions: Tensor, d_model: int) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d_model)), PE(pos, 2i + 1) = cos(the same); section 3.5.

    positions [...] to [..., d_model]: sines in the even channels, cosines in the odd ones. d_model must be even."""
    cosines, sines = sincos(positions, d_model).chunk(2, dim=-1)
    return rearrange([sines, cosines], "two ... i -> ... (i two)")


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O; head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (3.2.2)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.h, d = config.h, config.d_model
        self.W_Q = nn.Linear(d, config.h * config.d_k, bias=False)
        self.W_K = nn.Linear(d, config.h * config.d_k, bias=False)
        self.W_V = nn.Linear(d, config.h * config.d_v, bias=False)
        self.W_O = nn.Linear(config.h * config.d_v, d, bias=False)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is attended to: x [b, n, d_model] as keys [b, h, n, d_k] and values [b, h, n, d_v]."""
        return self._heads(self.W_K(x)), self._heads(self.W_V(x))

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [b, m, d_model] attends to keys and values of `keys_values`; returns [b, m, d_model].

        mask broadcastable to [b, h, m, n], True = may attend."""
        return self.W_O(rearrange(attention(self._heads(self.W_Q(x)), k, v, mask), "b h m d -> b m (h d)"))

    def weights(self, x: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each query attends to each key: [b, h, m, n], rows that sum to 1."""
        return attention(self._heads(self.W_Q(x)), k, torch.eye(k.shape[-2]).to(k), mask)  # values: one-hot

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.h)


class FeedForward(nn.Sequential):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, Eq. 2."""

    def __init__(self, config: TransformerConfig):
        d, d_ff = config.d_model, config.d_ff
        super().__init__(nn.Linear(d, d_ff), nn.ReLU(), nn.Linear(d_ff, d))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by "add and norm" (figure 1, left)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention, self.norm1 = MultiHeadAttention(config), nn.LayerNorm(config.d_model)
        self.ffn, self.norm2 = FeedForward(config), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.P_drop)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [b, n, d_model], mask [b, 1, 1, n]."""
        x = self.norm1(x + self.dropout(self.attention(x, *self.attention.keys_values(x), mask)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the memory, feed-forward (figure 1, right)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention, self.norm1 = MultiHeadAttention(config), nn.LayerNorm(config.d_model)
        self.cross, self.norm2 = MultiHeadAttention(config), nn.LayerNorm(config.d_model)
        self.ffn, self.norm3 = FeedForward(config), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.P_drop)

    def forward(self, y: Tensor, own: tuple, memory: tuple, own_mask: Tensor | None, mask: Tensor) -> Tensor:
        """y [b, m, d_model]; own, memory: (keys, values) of the target so far and of the source; masks as above."""
        y = self.norm1(y + self.dropout(self.attention(y, *own, own_mask)))
        y = self.norm2(y + self.dropout(self.cross(y, *memory, mask)))
        return self.norm3(y + self.dropout(self.ffn(y)))


class Writing:
    """A translation in the making: what it reads, and the keys and values of the words written so far.

    These never change, since no word attends to a later one. It is a `search.Writer`; `Transformer.begin` makes it."""

    def __init__(self, model: Transformer, memory: Tensor, mask: Tensor):
        self.model, self.mask = model, mask  # [b, 1, 1, n], True = may attend
        self.memory = [layer.cross.keys_values(memory) for layer in model.decoder]
        self.own: list[tuple[Tensor, Tensor] | None] = [None] * len(self.memory)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all words in a layer, once (k, v) of the new ones are appended."""
        past = self.own[layer]
        self.own[layer] = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        return self.own[layer]

    def next(self, words: Tensor) -> Tensor:
        """Write words [b]; returns log P [b, vocabulary] of the next one, which is neither PAD nor START."""
        log_p = self.model.decode(words[:, None], self)[:, 0].float().log_softmax(-1)
        log_p[:, [PAD, START]] = -math.inf
        return log_p

    def select(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has written; both must read the same sentence."""
        self.own = [(k[rows], v[rows]) for k, v in self.own]


class Transformer(nn.Module):
    """The 2017 encoder-decoder. Ids 0, 1, 2 are PAD, START, END. A source's padding is never attended to; a target's
    stands behind its words, and only padding looks there."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.N))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.N))
        self.dropout = nn.Dropout(config.P_drop)
        self.initialise()

    def initialise(self) -> None:
        """The paper names none. Xavier for matrices; embeddings such that sqrt(d_model) times them has variance 1."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.embedding.weight, std=self.config.d_model**-0.5)

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Embedding times sqrt(d_model) (3.4) plus position (3.5), of ids [b, n] at positions start, start + 1, ..."""
        places = sinusoid(torch.arange(start, start + ids.shape[1], device=ids.device), self.config.d_model)
        return self.dropout(self.embedding(ids) * math.sqrt(self.config.d_model) + places.to(self.embedding.weight))

    def encode(self, source: Tensor) -> Tensor:
        """Source ids [b, n], filled up with PAD, to the memory [b, n, d_model]."""
        self._check("source", source)
        x, mask = self.embed(source), padding_mask(source)
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def begin(self, source: Tensor, copies: int = 1) -> Writing:
        """Begin to write translations of source [b, n]; `copies` of each, one after another."""
        parts = (part.repeat_interleave(copies, 0) for part in (self.encode(source), padding_mask(source)))
        return Writing(self, *parts)

    def decode(self, target: Tensor, writing: Writing) -> Tensor:
        """Go on writing with target [b, m]; returns logits [b, m, vocabulary] of the word after each of its words."""
        self._check("target", target)
        m, known = target.shape[1], writing.length
        own_mask = None if m == 1 else causal_mask(known + m, target.device)[known:]
        y = self.embed(target, start=known)
        for number, layer in enumerate(self.decoder):
            own = writing.extend(number, *layer.attention.keys_values(y))
            y = layer(y, own, writing.memory[number], own_mask, writing.mask)
        writing.length += m
        return y @ self.embedding.weight.T

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits [b, m, vocabulary]; target [b, m] begins with START. Position j sees target[:, : j + 1] only."""
        if len(source) != len(target):
            raise ValueError(f"target has {len(target)} rows; it takes as many as source, which has {len(source)}")
        return self.decode(target, self.begin(source))

    @torch.no_grad()
    def attention_maps(self, source: Tensor, target: Tensor) -> Tensor:
        """Where each word of the target looks in the source: [layer, b, h, m, n], rows that sum to 1."""
        y, writing, maps = self.embed(target), self.begin(source), []
        for layer, memory in zip(self.decoder, writing.memory, strict=True):
            own = layer.attention.keys_values(y)
            asked = layer.norm1(y + layer.attention(y, *own, causal_mask(y.shape[1], y.device)))
            maps.append(layer.cross.weights(asked, memory[0], writing.mask))
            y = layer(y, own, memory, causal_mask(y.shape[1], y.device), writing.mask)
        return torch.stack(maps)

    def _check(self, name: str, ids: Tensor) -> None:
        if ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64) or not ids.numel():
            raise ValueError(f"{name} is {ids.dtype} {list(ids.shape)}; it takes whole numbers [batch, words]")
        if ids.device.type == "cpu" and not 0 <= ids.min() <= ids.max() < self.config.vocabulary:
            raise ValueError(f"{name} holds {ids.min()} to {ids.max()}; it takes 0 to {self.config.vocabulary - 1}")


def padding_mask(ids: Tensor) -> Tensor:
    """[b, 1, 1, n] from ids [b, n], True = a word, which may be attended to."""
    return (ids != PAD)[:, None, None]


# ---------------------------------------------------------------------------------------------------------- training


def label_smoothing_loss(logits: Tensor, target: Tensor, epsilon: float = 0.1) -> Tensor:
    """Cross-entropy with q(k) = (1 - epsilon) [k = target] + epsilon / vocabulary (5.4; 1512.00567, section 7).

    logits [b, m, vocabulary], target [b, m]; the mean over target's words, PAD left out. The paper's own code gives
    the right word 1 - e and the others e / (vocabulary - 1): that is ours for e = epsilon (1 - 1 / vocabulary)."""
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"target is {list(target.shape)}; it takes the shape {list(logits.shape[:-1])} of the logits")
    log_p = logits.float().log_softmax(-1)
    right = log_p.gather(-1, target[..., None])[..., 0]
    loss = -(1 - epsilon) * right - epsilon * log_p.mean(-1)
    return loss[target != PAD].mean()


def noam(step: int, d_model: int, warmup_steps: int = 4000) -> float:
    """d_model^-0.5 min(step^-0.5, step warmup_steps^-1.5), Eq. 3: the learning rate of step 1, 2, ..."""
    if step < 1:
        raise ValueError(f"step is {step}; it takes a whole number from 1")
    return d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)


# ---------------------------------------------------------------------------------------------------------- decoding


@torch.no_grad()
def beam_search(
    model: Transformer, source: Tensor, beam: int = 4, alpha: float = 0.6, max_length: int | None = None
) -> list[search.Hypothesis]:
    """The best translation that a beam finds (6.1) for each row of source [b, n]; max_length is n + 50 by default."""
    max_length = source.shape[1] + 50 if max_length is None else max_length
    start, was_training = source.new_full((len(source),), START), model.training
    model.eval()  # a search among words that drop out by lot would find others each time
    try:
        return search.beam_search(model.begin(source, beam), start, END, max_length, beam, alpha)
    finally:
        model.train(was_training)


# ------------------------------------------------------------------------------------------ from Hindi to English


@dataclass(frozen=True)
class Translator:
    """The world's Hindi into its English. `tokens[id]` is the word of an id; the first three are no words."""

    model: Transformer
    tokens: tuple[str, ...]

    @classmethod
    def load(cls, name: str = "transformer") -> Translator:
        """Load and verify a checkpoint. Raises CheckpointError."""
        model, card = load_model(name, lambda c: Transformer(TransformerConfig(**c)), "translator", ("tokens",))
        return cls(model, tuple(card["tokens"]))

    def source(self, texts: list[str]) -> Tensor:
        """Hindi texts to ids [texts, longest], PAD at the end. Raises ValueError as `read_hindi` does, and for none."""
        if isinstance(texts, str) or not texts:
            raise ValueError(f"texts is {texts!r}; it takes a list of one text or more")
        index = {word: id for id, word in enumerate(self.tokens)}
        told = [read_hindi(text) for text in texts]
        if new := [word for said in told for word in said if word not in index]:
            raise ValueError(f"texts has the word '{new[0]}', which this translator has not learnt")
        rows = [torch.tensor([index[word] for word in said]) for said in told]
        return pad_sequence(rows, batch_first=True, padding_value=PAD)

    def __call__(self, texts: list[str], beam: int = 4) -> list[str]:
        """Translate each text, by beam search, right or wrong; no translation is longer than a caption may be."""
        source = beside(self.model, self.source(texts))
        found = beam_search(self.model, source, beam, max_length=LENGTH)
        return [" ".join(self.tokens[id] for id in best.ids) for best in found]


def translate(texts: list[str], checkpoint: str = "transformer") -> list[str]:
    """The world's Hindi in English: ["एक लाल वृत्त उछलता है"] to ["a red circle bounces"]. On the CPU, by design: one
    sentence takes it less time than a GPU takes to start.

    Raises ValueError for words that are not the world's (`read_hindi`), and for a translation that does not say what
    the Hindi says (`check_translation`)."""
    found = Translator.load(checkpoint)(texts)
    for hindi, english in zip(texts, found, strict=True):
        check_translation(hindi, english)
    return found
